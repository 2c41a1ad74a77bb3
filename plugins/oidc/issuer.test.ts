/**
 * Against a real issuer: tokens by the flows that clients use, found by its own discovery document.
 *
 * Invariant: no token here is made by us, and no key is told to the strategy.
 */
import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { RESOURCE, startIssuer, type TestIssuer } from "../../test/support/issuer.ts";
import { endOidc, type StartedOidc, startOidc } from "../../test/support/issuer-strategy.ts";
import plugin from "./index.ts";

let issuer: TestIssuer;

beforeAll(async () => {
  issuer = await startIssuer();
});

afterEach(endOidc);
afterAll(() => issuer.stop());

/** With the issuer's own time. */
function start(config: Record<string, unknown> = {}): Promise<StartedOidc> {
  const all = { issuer: issuer.url, audience: RESOURCE, ...config };
  return startOidc(plugin, all, { nowMs: Date.now() });
}

describe("a service", () => {
  test("with client credentials is accepted, with its scopes, until its token ends", async () => {
    const oidc = await start();
    const token = await issuer.serviceToken("read write");
    const outcome = await oidc.ask(token);
    if (outcome.outcome !== "accept") throw new Error(await oidc.answer(token));
    expect(outcome.identity).toMatchObject({
      id: "service",
      role: "user",
      scopes: ["read", "write"],
      attributes: { issuer: issuer.url, client_id: "service" },
    });
    const leftMs = (outcome.identity.expiresAtMs ?? 0) - oidc.context.clock.nowMs();
    expect(leftMs).toBeGreaterThan(600_000);
    expect(leftMs).toBeLessThanOrEqual(661_000);
    oidc.context.clock.advance(leftMs);
    expect(await oidc.answer(token)).toBe("token_expired: expired");
  });

  test("with a token for something else is refused", async () => {
    const oidc = await start({ audience: "https://other.example.com" });
    expect(await oidc.answer(await issuer.serviceToken())).toBe("wrong_audience: wrong_audience");
  });
});

describe("a person", () => {
  const alice = {
    sub: "alice/%\u00e4 \ud83e\udd8a",
    claims: { preferred_username: "alice", groups: ["staff", "ops"] },
  };

  test("who logged in is accepted with name, groups and role", async () => {
    const oidc = await start({ admin_group: "ops", allow_groups: ["staff"], token_type: "at+jwt" });
    const { access } = await issuer.personTokens(alice);
    const outcome = await oidc.ask(access);
    if (outcome.outcome !== "accept") throw new Error(await oidc.answer(access));
    expect(outcome.identity).toMatchObject({
      id: alice.sub,
      name: "alice",
      role: "admin",
      attributes: { groups: "staff,ops", client_id: "browser" },
    });
  });

  test("who is in none of the groups is told that, not that the token is bad", async () => {
    const oidc = await start({ allow_groups: ["root"] });
    const { access } = await issuer.personTokens(alice);
    expect(await oidc.ask(access)).toEqual({
      outcome: "reject",
      reason: "not_registered",
      credentialId: alice.sub,
    });
  });

  test("cannot use the ID token, which is for the client", async () => {
    const { id } = await issuer.personTokens(alice);
    expect(await (await start()).answer(id)).toBe("wrong_audience: wrong_audience");
    const strict = await start({ audience: "any", token_type: "at+jwt" });
    expect(await strict.answer(id)).toBe("invalid_token: wrong_type");
  });
});

test("when the issuer rotates its key, the next token works and the one before ends", async () => {
  const oidc = await start();
  const before = await issuer.serviceToken();
  expect(await oidc.answer(before)).toBe("accept");
  await issuer.rotate();
  expect(await oidc.answer(await issuer.serviceToken())).toBe("accept");
  expect(await oidc.answer(before)).toBe("invalid_token: unknown_key");
});
