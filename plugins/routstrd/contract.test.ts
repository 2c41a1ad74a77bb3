/** routstrd under the suite that every strategy passes, for both places a key can be sent in. */
import { join } from "node:path";
import { contractSuite } from "../../test/contract.suite.ts";
import { createDatabase, storedClient } from "./daemon.fixture.ts";
import plugin from "./index.ts";

const CLIENT = storedClient({ clientId: "laptop-abcdefg", name: "Laptop" });

for (const [title, carrier, header] of [
  ["routstrd", "authorization", null],
  ["routstrd with another header", "x-api-key", "X-Api-Key"],
] as const) {
  contractSuite(title, ({ directory }) => {
    const path = join(directory, "routstr.db");
    createDatabase(path, { clients: [CLIENT] });
    const value = carrier === "authorization" ? `Bearer ${CLIENT.apiKey}` : CLIENT.apiKey;
    return {
      plugin,
      config: { database: "routstr.db", header },
      carrier,
      accept: () => ({ headers: { [carrier]: value } }),
    };
  });
}
