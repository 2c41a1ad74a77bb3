/** oidc under the suite that every strategy passes: keys by discovery, and keys at an address of their own. */
import { contractSuite } from "../../test/contract.suite.ts";
import type { TestHost } from "../../test/support/host.ts";
import { NOW_S, newIssuerKey, startKeyServer, tokenMaker } from "../../test/support/issuer-keys.ts";
import plugin from "./index.ts";

const DAY_S = 86_400;

/** @param config besides issuer and audience */
function suite(name: string, alg: string, config: (keysUrl: string) => object): void {
  contractSuite(name, (context: TestHost) => {
    const key = newIssuerKey(alg);
    const server = startKeyServer(key);
    const make = tokenMaker(server.url);
    // Beyond the time for which old keys are kept.
    context.breakDatabase = () => {
      server.answer(() => new Response(null, { status: 500 }));
      context.clock.advance(25 * 3_600_000);
    };
    const claims = { exp: NOW_S + 10 * DAY_S, groups: ["staff"] };
    return {
      plugin,
      config: { issuer: server.url, audience: "api", ...config(server.keysUrl) },
      hasStore: true,
      accept: () => ({ headers: { authorization: `Bearer ${make(key, { claims })}` } }),
    };
  });
}

suite("oidc", "ES256", () => ({}));
suite("oidc with the address of the keys", "RS256", (jwks_url) => ({
  jwks_url,
  allow_groups: ["staff"],
}));
