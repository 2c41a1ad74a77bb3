/** The suite that every strategy passes, for tokens of our own form and in another header. */
import { contractSuite } from "../../test/contract.suite.ts";
import plugin from "./index.ts";

contractSuite("bearer-sqlite", () => ({
  plugin,
  config: {},
  hasStore: true,
  async accept(instance) {
    const issued = await instance.tokens?.create({ name: "suite" });
    return { headers: { authorization: `Bearer ${issued?.token}` } };
  },
}));

let count = 0;

contractSuite("bearer-sqlite with an imported token", () => ({
  plugin,
  config: { header: "X-Token" },
  hasStore: true,
  carrier: "x-token",
  async accept(instance) {
    count += 1;
    const token = `sk-suite-0123456789-${count}`;
    await instance.tokens?.adopt?.(token, { name: "suite" });
    return { headers: { "x-token": token } };
  },
}));
