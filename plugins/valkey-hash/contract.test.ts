/** The suite that every strategy passes, against a real server: plain tokens, checked tokens, a header of its own. */
import { describe, test } from "bun:test";
import { contractSuite } from "../../test/contract.suite.ts";
import type { TestHost } from "../../test/support/host.ts";
import { startValkey, valkeyMissing } from "../../test/support/valkey.ts";
import plugin from "./index.ts";

const SALT = "5a".repeat(32);

function suite(name: string, config: Readonly<Record<string, unknown>>, carrier: string): void {
  contractSuite(name, async (context: TestHost) => {
    const valkey = await startValkey();
    context.breakDatabase = () => void valkey.kill();
    return {
      plugin,
      // Off, because the suite asks that Basic is left to others.
      config: { url: valkey.url, salt: SALT, basic: false, ...config },
      hasStore: true,
      carrier,
      async accept(instance) {
        const issued = await instance.tokens?.create({ name: "suite" });
        const value = carrier === "authorization" ? `Bearer ${issued?.token}` : issued?.token;
        return { headers: { [carrier]: value ?? "" } };
      },
    };
  });
}

const missing = valkeyMissing;
if (missing === null) {
  suite("valkey-hash", {}, "authorization");
  suite("valkey-hash with checked tokens", { format: "checked" }, "authorization");
  suite("valkey-hash without a cache", { cache: false, header: "X-Token" }, "x-token");
} else {
  describe("strategy contract: valkey-hash", () => {
    test.skip(missing, () => {});
  });
}
