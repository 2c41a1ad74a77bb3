/** nip98 under the suite that every strategy passes: members in the state database, and in routstrd's file. */
import { Database } from "bun:sqlite";
import { join } from "node:path";
import { contractSuite } from "../../test/contract.suite.ts";
import { newKey, signed } from "../../test/support/nostr.ts";
import plugin from "./index.ts";

const ALICE = newKey();

/** Without padding, which may be left out: a proof that only lost that is still the same proof. */
function bare(header: string): string {
  return header.replace(/=+$/, "");
}

contractSuite("nip98", ({ clock }) => ({
  plugin,
  config: { users: [ALICE.npub] },
  hasStore: true,
  accept: () => ({
    method: "POST",
    body: "{}",
    headers: { authorization: bare(signed(ALICE, { method: "POST", body: "{}", clock })) },
  }),
}));

contractSuite("nip98 with members in routstrd's file", ({ clock, directory }) => {
  new Database(join(directory, "routstr.db")).close();
  return {
    plugin,
    config: { admins: [ALICE.pubkey], database: "routstr.db", replay: "all" },
    hasStore: true,
    accept: () => ({ headers: { authorization: bare(signed(ALICE, { clock })) } }),
  };
});
