/** That one reload is under way at a time, whenever the next one is asked for. */
import { expect, test } from "bun:test";
import { collectingLog } from "../../test/support/host.ts";
import { EXIT, OperatorError } from "../errors.ts";
import { type ReloadOptions, reloads } from "./reloads.ts";

test("whoever asks at the very end of one gets the next, and there are never two", async () => {
  let underWay = 0;
  let most = 0;
  let count = 0;
  const options: Pick<ReloadOptions, "manager" | "log" | "load" | "inForce"> = {
    manager: null,
    log: collectingLog(),
    async load() {
      count += 1;
      underWay += 1;
      most = Math.max(most, underWay);
      await new Promise((resolve) => setImmediate(resolve));
      underWay -= 1;
      throw new OperatorError(EXIT.config, "wrong");
    },
    inForce() {},
  };
  // Nothing of these is looked at before a configuration was read.
  const reload = reloads({ ...options, gateway: {}, config: {} } as ReloadOptions);
  const first = reload();
  const third = first.then(reload);
  const second = reload();
  expect((await Promise.all([first, second, third])).map(({ ok }) => ok)).toEqual([
    false,
    false,
    false,
  ]);
  expect({ most, count }).toEqual({ most: 1, count: 2 });
});
