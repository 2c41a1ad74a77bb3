/**
 * The token API in front of each strategy that keeps tokens: what people and admins can do, and what nobody can.
 *
 * Invariant: every answer is held against the gateway's own OpenAPI document (test/support/token-api.ts).
 */
import { describe, expect, test } from "bun:test";
import type { Identity } from "../../src/contract/outcome.ts";
import { eventually } from "../support/raw.ts";
import {
  ask,
  describeTokenApi,
  make,
  ROOT,
  somebody,
  type TokenApi,
  tryToken,
  type Who,
} from "../support/token-api.ts";
import { until } from "../support/valkey.ts";

const NOT_FOUND = { message: "token not found", reason: "token_not_found" };
const DAY_MS = 86_400_000;

describeTokenApi("tokens", (api, use) => {
  describe("of one's own", () => {
    test("are made, listed, shown, used and revoked, and the secret is shown once", async () => {
      const alice = somebody();
      expect((await ask(api(), alice, "GET /api/me/tokens")).body).toEqual([]);
      const made = await ask(api(), alice, "POST /api/me/tokens", {
        body: { description: "  build server \n", expires_in: "30d" },
      });
      expect(made.status).toBe(201);
      const { token, ...shown } = made.body;
      expect(shown).toMatchObject({
        description: "build server",
        sub: alice.id,
        created_by: alice.id,
        role: "user",
        scopes: [],
        state: "active",
        revoked_at: null,
      });
      const livesMs = Date.parse(shown.expires_at) - Date.parse(shown.created_at);
      expect(Math.abs(livesMs - 30 * DAY_MS)).toBeLessThan(5000);
      expect(await tryToken(api(), token)).toBe(200);

      const listed = await ask(api(), alice, "GET /api/me/tokens");
      expect(listed.body).toHaveLength(1);
      expect(listed.body[0]).toMatchObject({ id: shown.id, description: "build server" });
      expect(listed.body[0].last_used_at).not.toBeNull();
      const where = new URL(made.headers.get("location") ?? "", "http://x/api/me/tokens").pathname;
      const one = await ask(api(), alice, `GET ${where}`);
      expect(one.body).toEqual(listed.body[0]);
      expect(listed.text + one.text).not.toContain(token);

      const revoked = await ask(api(), alice, `DELETE ${where}`);
      expect([revoked.status, revoked.text]).toEqual([204, ""]);
      expect(await tryToken(api(), token)).toBe(401);
      expect((await ask(api(), alice, "GET /api/me/tokens")).body).toEqual([]);
      for (const line of [`DELETE ${where}`, `GET ${where}`]) {
        expect(await ask(api(), alice, line)).toMatchObject({ status: 404, body: NOT_FOUND });
      }
    });

    test("are the newest first, and a description is null when nobody gave one", async () => {
      const alice = somebody();
      const first = await make(api(), alice);
      const madeMs = Date.now();
      await until(() => Date.now() > madeMs);
      const second = await make(api(), alice, { description: " \t" });
      const { body } = await ask(api(), alice, "GET /api/me/tokens");
      expect(body.map((one: { id: string }) => one.id)).toEqual([second.id, first.id]);
      expect(body.map((one: { description: null }) => one.description)).toEqual([null, null]);
    });

    test("are rotated: the id stays, and the old secret ends, or lives on for its grace", async () => {
      const alice = somebody();
      const first = await make(api(), alice, { description: "ci" });
      const rotate = `POST /api/me/tokens/${first.id}/rotate`;
      const second = await ask(api(), alice, rotate, { body: { grace: "1h" } });
      expect(second).toMatchObject({ status: 200, body: { id: first.id, description: "ci" } });
      expect(second.body.grace_until).not.toBeNull();
      expect(await tryToken(api(), first.token)).toBe(200);
      expect(await tryToken(api(), second.body.token)).toBe(200);
      const third = await ask(api(), alice, rotate, { body: {} });
      expect(third.body).toMatchObject({ id: first.id, grace_until: null });
      const works = [first.token, second.body.token, third.body.token];
      expect(await Promise.all(works.map((token) => tryTokenAlone(api(), token)))).toEqual([
        401, 401, 200,
      ]);
      await ask(api(), alice, `DELETE /api/me/tokens/${first.id}`);
      expect(await tryToken(api(), third.body.token)).toBe(401);
      expect(await ask(api(), alice, rotate, { body: {} })).toMatchObject({ status: 404 });
    });

    test("end when they were said to", async () => {
      const alice = somebody();
      const soon = new Date(Date.now() + 400).toISOString();
      const made = await make(api(), alice, { expires_at: soon });
      expect(await tryToken(api(), made.token)).toBe(200);
      await until(async () => (await tryToken(api(), made.token)) === 401);
      expect(Date.now()).toBeGreaterThanOrEqual(Date.parse(soon));
    });
  });

  describe("of others", () => {
    test("are not found, as if they were not there, whatever is tried", async () => {
      const [alice, bob] = [somebody(), somebody()];
      const made = await make(api(), alice, { description: "secret plan" });
      const answers: Record<string, unknown>[] = [];
      for (const id of [made.id, "4fK2mPq8Zs1T", "f".repeat(64), "secret%20plan", "%2e%2e"]) {
        for (const [line, body] of [
          [`GET /api/me/tokens/${id}`, undefined],
          [`DELETE /api/me/tokens/${id}`, undefined],
          [`POST /api/me/tokens/${id}/rotate`, {}],
        ] as const) {
          const answer = await ask(api(), bob, line, { body });
          // `..` is resolved on the way: it leads to the list, or nowhere.
          if (id !== "%2e%2e") expect([line, answer.status]).toEqual([line, 404]);
          if (id === "%2e%2e" || answer.status !== 404) continue;
          const { request_id: _, ...rest } = answer.body;
          answers.push(rest);
        }
      }
      expect(new Set(answers.map((one) => JSON.stringify(one))).size).toBe(1);
      expect((await ask(api(), bob, "GET /api/me/tokens")).body).toEqual([]);
      expect(await tryToken(api(), made.token)).toBe(200);
    });

    test("are closed to everybody but admins", async () => {
      const alice = somebody({ scopes: ["openid", "admin"], attributes: { role: "admin" } });
      const { id } = await make(api(), somebody());
      const lines: (readonly [string, unknown])[] = [
        ["GET /api/tokens", undefined],
        [`GET /api/tokens?sub=${alice.id}`, undefined],
        ["POST /api/tokens", { sub: alice.id }],
        [`GET /api/tokens/${id}`, undefined],
        [`DELETE /api/tokens/${id}`, undefined],
        [`POST /api/tokens/${id}/rotate`, {}],
        // Their own as well: the way for that is another one.
        [`GET /api/users/${alice.id}/tokens`, undefined],
        [`POST /api/users/${alice.id}/tokens`, {}],
        [`GET /api/users/${alice.id}/tokens/${id}`, undefined],
        [`DELETE /api/users/${alice.id}/tokens/${id}`, undefined],
        [`POST /api/users/${alice.id}/tokens/${id}/rotate`, {}],
      ];
      for (const [line, body] of lines) {
        const answer = await ask(api(), alice, line, { body });
        expect([line, answer.status, answer.body.message]).toEqual([
          line,
          403,
          "admin privileges required",
        ]);
        expect(answer.headers.get("x-gatehouse-reason")).toBe("insufficient_role");
      }
    });
  });

  describe("rights", () => {
    test("a role cannot be asked for, and scopes only those that one has", async () => {
      const alice = somebody({ scopes: ["openid", "read"] });
      const asked = (body: object, who: Who = alice) =>
        ask(api(), who, "POST /api/me/tokens", { body });
      expect(await asked({ role: "admin" })).toMatchObject({ status: 422 });
      expect(await asked({ role: "user" })).toMatchObject({ status: 422 });
      for (const scopes of [["write"], ["read", "write"], ["READ"]]) {
        const answer = await asked({ scopes });
        expect(answer).toMatchObject({ status: 403, body: { reason: "rights_exceeded" } });
      }
      expect(await asked({ scopes: ["write"] }, somebody())).toMatchObject({ status: 403 });
      expect((await ask(api(), alice, "GET /api/me/tokens")).body).toEqual([]);
      const made = await asked({ scopes: ["read"] });
      expect(made).toMatchObject({ status: 201, body: { scopes: ["read"], role: "user" } });
      expect(await tryToken(api(), made.body.token, "/guarded/x")).toBe(200);
      expect(await tryToken(api(), made.body.token, "/scoped/x")).toBe(403);
      expect(await tryToken(api(), made.body.token, "/admin/x")).toBe(403);
    });

    test("an admin's own token is a user's, with whatever scopes", async () => {
      const root = somebody({ role: "admin" });
      const made = await make(api(), root, { scopes: ["write"] });
      expect(await tryToken(api(), made.token, "/scoped/x")).toBe(200);
      expect(await tryToken(api(), made.token, "/admin/x")).toBe(403);
    });

    test("a token with more rights than its owner cannot be rotated by the owner, only revoked", async () => {
      const alice = somebody({ scopes: ["read"] });
      for (const body of [{ role: "admin" }, { scopes: ["write"] }]) {
        const made = await make(api(), ROOT, body, `/api/users/${alice.id}/tokens`);
        const rotated = await ask(api(), alice, `POST /api/me/tokens/${made.id}/rotate`, {
          body: {},
        });
        expect(rotated).toMatchObject({ status: 403, body: { reason: "rights_exceeded" } });
        expect(await tryToken(api(), made.token)).toBe(200);
        expect((await ask(api(), alice, `DELETE /api/me/tokens/${made.id}`)).status).toBe(204);
        expect(await tryToken(api(), made.token)).toBe(401);
      }
      const plain = await make(api(), ROOT, { scopes: ["read"] }, `/api/users/${alice.id}/tokens`);
      const line = `POST /api/me/tokens/${plain.id}/rotate`;
      expect((await ask(api(), alice, line, { body: {} })).status).toBe(200);
    });

    test("a token lists and revokes what its owner has, and makes nothing", async () => {
      const alice = somebody();
      const thief = await make(api(), alice, { description: "stolen" });
      const other = await make(api(), alice, { description: "other" });
      const listed = await ask(api(), thief, "GET /api/me/tokens");
      expect(listed.body.map((one: { id: string }) => one.id).sort()).toEqual(
        [thief.id, other.id].sort(),
      );
      for (const [line, body] of [
        ["POST /api/me/tokens", {}],
        [`POST /api/me/tokens/${thief.id}/rotate`, {}],
        [`POST /api/me/tokens/${other.id}/rotate`, {}],
      ] as const) {
        const answer = await ask(api(), thief, line, { body });
        expect(answer).toMatchObject({ status: 403, body: { reason: "token_cannot_mint" } });
      }
      expect((await ask(api(), thief, `DELETE /api/me/tokens/${other.id}`)).status).toBe(204);
      expect((await ask(api(), thief, `DELETE /api/me/tokens/${thief.id}`)).status).toBe(204);
      expect((await ask(api(), thief, "GET /api/me/tokens")).status).toBe(401);
    });

    test("an admin's token sees and revokes everything, and makes nothing", async () => {
      const alice = somebody();
      const mine = await make(api(), alice);
      const root = await make(api(), ROOT, { role: "admin" }, "/api/users/root/tokens");
      expect(await tryToken(api(), root.token, "/admin/x")).toBe(200);
      const found = await ask(api(), root, `GET /api/users/${alice.id}/tokens`);
      expect(found.body).toHaveLength(1);
      for (const [line, body] of [
        [`POST /api/users/${alice.id}/tokens`, {}],
        ["POST /api/tokens", { sub: alice.id, role: "admin" }],
        [`POST /api/tokens/${mine.id}/rotate`, {}],
        [`POST /api/tokens/${root.id}/rotate`, {}],
      ] as const) {
        const answer = await ask(api(), root, line, { body });
        expect(answer).toMatchObject({ status: 403, body: { reason: "token_cannot_mint" } });
      }
      expect((await ask(api(), root, `DELETE /api/tokens/${mine.id}`)).status).toBe(204);
      expect(await tryToken(api(), mine.token)).toBe(401);
    });

    test("the same id from another strategy is somebody else", async () => {
      const alice = somebody();
      const mine = await make(api(), alice);
      const asOther = { "x-other": Buffer.from(JSON.stringify(alice)).toString("base64url") };
      const other = await ask(api(), null, "POST /api/me/tokens", { body: {}, headers: asOther });
      expect(other).toMatchObject({ status: 201, body: { sub: `other:${alice.id}` } });
      const listed = await ask(api(), null, "GET /api/me/tokens", { headers: asOther });
      expect(listed.body.map((one: { id: string }) => one.id)).toEqual([other.body.id]);
      const taken = await ask(api(), null, `DELETE /api/me/tokens/${mine.id}`, {
        headers: asOther,
      });
      expect(taken.status).toBe(404);
      const pretender = { id: `other:${alice.id}` };
      expect(await ask(api(), pretender, "GET /api/me/tokens")).toMatchObject({
        status: 403,
        body: { reason: "subject_ambiguous" },
      });
    });

    test("who has no subject has no tokens", async () => {
      const blank: Identity = { id: "   " };
      const nobodys = await make(api(), ROOT, {}, "/api/users/x/tokens");
      for (const [line, body] of [
        ["GET /api/me/tokens", undefined],
        ["POST /api/me/tokens", {}],
        [`DELETE /api/me/tokens/${nobodys.id}`, undefined],
      ] as const) {
        expect(await ask(api(), blank, line, { body })).toMatchObject({
          status: 403,
          body: { message: "subject claim missing" },
        });
      }
      expect((await ask(api(), null, "GET /api/me/tokens")).status).toBe(401);
      expect(await tryToken(api(), nobodys.token)).toBe(200);
    });
  });

  describe("of anybody, for admins", () => {
    test("are made, listed, shown, rotated and revoked by subject", async () => {
      const alice = somebody();
      const place = `/api/users/${alice.id}/tokens`;
      expect((await ask(api(), ROOT, `GET ${place}`)).body).toEqual([]);
      const made = await ask(api(), ROOT, `POST ${place}`, {
        body: { description: "by an admin", scopes: ["write"] },
      });
      expect(made).toMatchObject({
        status: 201,
        body: { sub: alice.id, created_by: "root", role: "user", scopes: ["write"] },
      });
      expect(await tryToken(api(), made.body.token, "/scoped/x")).toBe(200);
      const one = `${place}/${made.body.id}`;
      expect((await ask(api(), alice, "GET /api/me/tokens")).body).toHaveLength(1);
      expect((await ask(api(), ROOT, `GET ${one}`)).body).toMatchObject({ id: made.body.id });
      const rotated = await ask(api(), ROOT, `POST ${one}/rotate`, { body: {} });
      expect(await tryToken(api(), rotated.body.token)).toBe(200);
      expect(await tryToken(api(), made.body.token)).toBe(401);
      // Under another subject it is not there.
      const elsewhere = `/api/users/somebody-else/tokens/${made.body.id}`;
      for (const line of [`GET ${elsewhere}`, `DELETE ${elsewhere}`]) {
        expect(await ask(api(), ROOT, line)).toMatchObject({ status: 404, body: NOT_FOUND });
      }
      expect((await ask(api(), ROOT, `DELETE ${one}`)).status).toBe(204);
      expect(await tryToken(api(), rotated.body.token)).toBe(401);
    });

    test("are found among everybody's, with a page of at most 100", async () => {
      const alice = somebody();
      const made = await make(api(), ROOT, { sub: alice.id, description: "Nadel" }, "/api/tokens");
      const found = await ask(api(), ROOT, `GET /api/tokens?q=nADEL`);
      expect(found.body.map((one: { id: string }) => one.id)).toEqual([made.id]);
      const bySub = await ask(api(), ROOT, `GET /api/tokens?q=${alice.id}`);
      expect(bySub.body.length).toBeGreaterThan(0);
      expect((await ask(api(), ROOT, `GET /api/tokens?sub=${alice.id}`)).body).toHaveLength(1);
      expect((await ask(api(), ROOT, "GET /api/tokens?sub=")).body).toEqual([]);
      const all = await ask(api(), ROOT, "GET /api/tokens");
      expect(all.body.length).toBeLessThanOrEqual(100);
      expect(Number(all.headers.get("x-total-count"))).toBeGreaterThanOrEqual(all.body.length);
      const one = `/api/tokens/${made.id}`;
      expect((await ask(api(), ROOT, `GET ${one}`)).body).toMatchObject({ sub: alice.id });
      expect((await ask(api(), ROOT, `POST ${one}/rotate`, { body: {} })).status).toBe(200);
      expect((await ask(api(), ROOT, `DELETE ${one}`)).status).toBe(204);
      expect((await ask(api(), ROOT, `DELETE ${one}`)).status).toBe(404);
    });

    test("revoked ones are listed when they are asked for, by stores that keep them", async () => {
      const alice = somebody();
      const { id } = await make(api(), alice);
      await ask(api(), alice, `DELETE /api/me/tokens/${id}`);
      const { body } = await ask(api(), alice, "GET /api/me/tokens?revoked=true");
      if (use === "valkey-hash") expect(body).toEqual([]);
      else expect(body).toMatchObject([{ id, state: "revoked" }]);
    });
  });

  test("what is done is logged by id with who did it, and no token is", async () => {
    const alice = somebody();
    const made = await make(api(), alice, { description: "logged" });
    const rotated = await ask(api(), alice, `POST /api/me/tokens/${made.id}/rotate`, { body: {} });
    await ask(api(), ROOT, `DELETE /api/users/${alice.id}/tokens/${made.id}`);
    const ours = (name: string) =>
      api()
        .gateway.events(name)
        .filter((event) => event.token_id === made.id);
    await eventually("the revocation is logged", () => ours("token.revoked").length === 1);
    expect(ours("token.created")).toMatchObject([
      { owner: alice.id, actor: alice.id, actor_strategy: "who", strategy: "keys", role: "user" },
    ]);
    expect(ours("token.rotated")).toMatchObject([{ owner: alice.id, actor: alice.id }]);
    expect(ours("token.revoked")).toMatchObject([{ owner: alice.id, actor: "root" }]);
    for (const secret of [made.token, rotated.body.token]) {
      expect(api().gateway.logs()).not.toContain(secret);
      expect(api().gateway.logs()).not.toContain(secret.slice(-20));
    }
  });

  test("every operation of the document was answered, and held to it", () => {
    const wanted = Object.entries(api().document.paths).flatMap(([path, item]) =>
      Object.entries(item).map(([method, { responses }]) => {
        const good = Object.keys(responses).find((status) => status.startsWith("2"));
        return `${method} ${path} ${good}`;
      }),
    );
    expect(wanted).toHaveLength(15);
    expect(wanted.filter((operation) => !api().seen.has(operation))).toEqual([]);
  });
});

/** Without a look at what the upstream saw: several at once. */
async function tryTokenAlone(api: TokenApi, token: string): Promise<number> {
  const response = await fetch(`${api.gateway.url}/guarded/x`, {
    headers: { authorization: `Bearer ${token}` },
  });
  await response.text();
  return response.status;
}
