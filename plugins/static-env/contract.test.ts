/** static-env under the suite that every strategy passes, once for each place a token can be sent in. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { contractSuite } from "../../test/contract.suite.ts";
import plugin from "./index.ts";

const TOKEN = "canary-4f1d0c7b9a2e4d8896";
const OTHER = "canary-b81e6f0c5d3a49727e";

contractSuite("static-env with one token from a file", ({ directory }) => {
  writeFileSync(join(directory, "token"), `${TOKEN}\n`, { mode: 0o600 });
  return {
    plugin,
    config: { file: "token" },
    accept: () => ({ headers: { authorization: `Bearer ${TOKEN}` } }),
  };
});

contractSuite("static-env with two tokens, sent in x-api-key", ({ directory }) => {
  writeFileSync(join(directory, "tokens"), `${OTHER}\n${TOKEN}\n`, { mode: 0o600 });
  return {
    plugin,
    config: { file: "tokens", role: "admin", name: "operators" },
    carrier: "x-api-key",
    accept: () => ({ headers: { "X-Api-Key": TOKEN } }),
  };
});
