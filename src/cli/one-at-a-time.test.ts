/** That one is under way at a time, whenever the next one is asked for. */
import { expect, test } from "bun:test";
import { oneAtATime } from "./one-at-a-time.ts";

function counting() {
  const seen = { underWay: 0, most: 0, count: 0 };
  const ask = oneAtATime(async () => {
    seen.count += 1;
    const number = seen.count;
    seen.underWay += 1;
    seen.most = Math.max(seen.most, seen.underWay);
    await new Promise((resolve) => setImmediate(resolve));
    seen.underWay -= 1;
    return number;
  });
  return { seen, ask };
}

test("whoever asks while one is under way shares the next", async () => {
  const { seen, ask } = counting();
  expect(await Promise.all([ask(), ask(), ask()])).toEqual([1, 2, 2]);
  expect(await ask()).toBe(3);
  expect(seen.most).toBe(1);
});

test("whoever asks at the very end of one gets the next, and there are never two", async () => {
  const { seen, ask } = counting();
  const first = ask();
  const third = first.then(ask);
  const second = ask();
  expect(await Promise.all([first, second, third])).toEqual([1, 2, 2]);
  expect(seen).toEqual({ underWay: 0, most: 1, count: 2 });
});
