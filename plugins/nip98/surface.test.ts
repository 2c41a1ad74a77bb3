/** Members over HTTP: who may do what, what every generation of clients reads, and the one first admin. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import type { Identity, StrategyInstance, Surface, SurfaceCaller } from "gatehouse";
import { type TestHost, testHost } from "../../test/support/host.ts";
import { newKey } from "../../test/support/nostr.ts";
import { inOtherProcesses } from "../../test/support/other-process.ts";
import plugin from "./index.ts";

const [ALICE, BOB, CAROL] = [newKey(), newKey(), newKey()] as const;

let context: TestHost;
const running: StrategyInstance[] = [];

beforeEach(() => {
  context = testHost({ strategy: "nostr" });
});
afterEach(async () => {
  for (const instance of running.splice(0)) await instance.close?.();
  context.dispose();
});

async function start(config: Record<string, unknown> = {}) {
  const instance = await plugin.init(plugin.config.parse(config), context.host);
  running.push(instance);
  const [surface] = instance.surfaces ?? [];
  if (surface === undefined || instance.members === undefined) throw new Error("no surface");
  return { surface, members: instance.members };
}

function caller(
  identity: Identity | null,
  refusal: string | null,
  strategy: string | null,
): SurfaceCaller {
  const rest = { clientAddress: "192.0.2.7", requestId: "req_1", upstream: null };
  return { identity, refusal, strategy, ...rest };
}

const admin = caller({ id: ALICE.pubkey, role: "admin" }, null, "nostr");
const user = caller({ id: BOB.pubkey, role: "user" }, null, "nostr");
const bearer = caller({ id: "0123456789Az", role: "admin" }, null, "team");
const nobody = caller(null, "no_credential", null);
const refused = (reason: string) => caller(null, reason, "nostr");

async function call(
  surface: Surface,
  by: SurfaceCaller,
  method: string,
  options: { path?: string; body?: unknown; text?: string } = {},
): Promise<{ status: number; body: Record<string, unknown>; headers: Headers }> {
  const text = options.text ?? (options.body === undefined ? null : JSON.stringify(options.body));
  const request = new Request(`http://gate.example${options.path ?? "/npubs"}`, {
    method,
    ...(text === null ? {} : { body: text }),
  });
  const response = await surface.handle(request, by);
  expect(response.headers.get("content-type")).toBe("application/json");
  const body: unknown = await response.json();
  if (typeof body !== "object" || body === null) throw new Error("not an object");
  if (response.status >= 400) expect(body).toHaveProperty("error", expect.any(String));
  return { status: response.status, body: { ...body }, headers: response.headers };
}

describe("GET /npubs", () => {
  test("is an empty list for anybody while no one is registered", async () => {
    const { surface } = await start();
    for (const by of [nobody, bearer, refused("not_registered"), refused("signature_invalid")]) {
      const { status, body } = await call(surface, by, "GET");
      expect({ status, body }).toEqual({ status: 200, body: { npubs: [] } });
    }
  });

  test("is the list for whoever is registered, and for nobody else", async () => {
    const { surface, members } = await start({ admins: [ALICE.npub] });
    context.clock.advance(1000);
    members.add({ key: BOB.npub, name: "Bob", source: "cli" });
    const npubs = [
      { npub: ALICE.npub, name: null, role: "admin" },
      { npub: BOB.npub, name: "Bob", role: "user" },
    ];
    for (const by of [admin, user])
      expect((await call(surface, by, "GET")).body).toEqual({ npubs });
    for (const [by, status] of [
      [nobody, 401],
      [bearer, 403],
      [refused("not_registered"), 403],
      [caller(null, "invalid_token", "team"), 403],
    ] as const) {
      const answer = await call(surface, by, "GET");
      expect(answer.status).toBe(status);
      expect(answer.body.npubs).toBeUndefined();
      expect(answer.headers.get("www-authenticate")).toBe(
        status === 401 ? 'Nostr realm="gatehouse"' : null,
      );
    }
  });

  test.each([
    ["no_credential", 401, "Missing Authorization header"],
    ["malformed_credential", 401, "encoding"],
    ["ambiguous_credential", 401, "More than one"],
    ["stale_proof", 401, "timestamp"],
    ["wrong_audience", 401, "URL tag does not match"],
    ["replayed", 401, "replay"],
    ["signature_invalid", 401, "signature"],
    ["not_registered", 403, "not registered"],
  ])("a caller refused for %s gets %d and is told why", async (reason, status, text) => {
    const { surface } = await start({ admins: [ALICE.npub] });
    for (const method of ["GET", "POST", "PATCH", "DELETE"]) {
      const answer = await call(
        surface,
        refused(reason),
        method,
        method === "GET" ? {} : { text: "{" },
      );
      expect(answer.status).toBe(status);
      expect(String(answer.body.error)).toContain(text);
    }
  });
});

describe("POST /npubs", () => {
  test.each([
    ["a string", ALICE.npub],
    ["npub", { npub: ALICE.npub }],
    ["pubkey", { pubkey: ALICE.pubkey.toUpperCase() }],
    ["npub before pubkey", { npub: ALICE.npub, pubkey: BOB.pubkey }],
    ["with blanks", { npub: ` ${ALICE.npub} ` }],
  ])("an admin adds a key given as %s", async (_, body) => {
    const { surface, members } = await start({ admins: [CAROL.npub] });
    const by = caller({ id: CAROL.pubkey, role: "admin" }, null, "nostr");
    const fields = {
      npub: ALICE.npub,
      pubkey: ALICE.pubkey,
      role: "user",
      name: null,
      added: true,
    };
    const answer = await call(surface, by, "POST", { body });
    expect(answer).toMatchObject({ status: 201, body: { ...fields, output: fields } });
    expect(members.get(ALICE.npub)).toMatchObject({ createdBy: CAROL.pubkey, source: "api" });
    const again = await call(surface, by, "POST", { body });
    expect(again.status).toBe(409);
    expect(again.body).toEqual({
      error: expect.any(String),
      npub: ALICE.npub,
      pubkey: ALICE.pubkey,
    });
  });

  test("role and name are taken", async () => {
    const { surface } = await start({ admins: [ALICE.npub] });
    const body = { npub: BOB.npub, role: "admin", name: " Bob " };
    expect(await call(surface, admin, "POST", { body })).toMatchObject({
      body: { role: "admin", name: "Bob" },
    });
  });

  test.each<[string, string]>([
    ["nothing", ""],
    ["blanks", "  "],
    ["no JSON", "{"],
    ["null", "null"],
    ["a number", "1"],
    ["a list", "[]"],
    ["no key", "{}"],
    ["a key that is no string", '{"npub":1}'],
    ["an empty key", '{"npub":""}'],
    ["a key that is none", '{"npub":"alice"}'],
    ["a secret key", JSON.stringify({ npub: BOB.nsec })],
    ["a wrong role", JSON.stringify({ npub: BOB.npub, role: "owner" })],
    ["a role that is null", JSON.stringify({ npub: BOB.npub, role: null })],
    ["a wrong name", JSON.stringify({ npub: BOB.npub, name: 1 })],
    ["a long name", JSON.stringify({ npub: BOB.npub, name: "a".repeat(65) })],
    ["a name of 10,000", JSON.stringify({ npub: BOB.npub, name: "a".repeat(10_000) })],
    ["a name with a NUL", JSON.stringify({ npub: BOB.npub, name: "a\0" })],
    ["a name that turns", JSON.stringify({ npub: BOB.npub, name: "a\u202e" })],
  ])("%s is 400 and changes nothing", async (_, text) => {
    const { surface, members } = await start({ admins: [ALICE.npub] });
    const answer = await call(surface, admin, "POST", { text });
    expect(answer.status).toBe(400);
    expect(JSON.stringify(answer.body)).not.toContain(BOB.nsec);
    expect(members.list()).toHaveLength(1);
  });

  test("who may not is told so before the body is looked at", async () => {
    const { surface, members } = await start({ admins: [ALICE.npub], users: [BOB.npub] });
    for (const method of ["POST", "PATCH", "DELETE"]) {
      for (const by of [user, bearer]) {
        const answer = await call(surface, by, method, { text: "{" });
        expect(answer.status).toBe(403);
        expect(String(answer.body.error)).toContain("Admin-only action");
      }
      expect((await call(surface, nobody, method, { text: "{" })).status).toBe(401);
    }
    expect(members.list()).toHaveLength(2);
  });
});

describe("PATCH /npubs", () => {
  test("changes role, name or both", async () => {
    const { surface } = await start({ admins: [ALICE.npub], users: [BOB.npub] });
    const patch = (body: object) => call(surface, admin, "PATCH", { body });
    const fields = { npub: BOB.npub, pubkey: BOB.pubkey, role: "admin", name: null };
    const first = await patch({ npub: BOB.npub, role: "admin" });
    expect(first.body).toEqual({ ...fields, output: fields });
    expect((await patch({ pubkey: BOB.pubkey, name: "B" })).body).toMatchObject({ name: "B" });
    expect((await patch({ npub: BOB.npub, name: "" })).body).toMatchObject({ name: null });
    expect((await patch({ npub: BOB.npub })).status).toBe(400);
    expect((await patch({ npub: CAROL.npub, name: "C" })).status).toBe(404);
    expect((await patch({ npub: BOB.npub, role: "user" })).status).toBe(200);
    expect((await patch({ npub: ALICE.npub, role: "user" })).status).toBe(409);
  });
});

describe("DELETE /npubs", () => {
  test.each<[string, string, object | undefined]>([
    ["npub in the path", `/npubs/${BOB.npub}`, undefined],
    ["hex in the path", `/npubs/${BOB.pubkey.toUpperCase()}`, undefined],
    ["?npub=", `/npubs?npub=${BOB.npub}`, undefined],
    ["?pubkey=", `/npubs?pubkey=${BOB.pubkey}`, undefined],
    ["a body", "/npubs", { npub: BOB.npub }],
    ["a body behind a path that is no key", "/npubs/bob", { pubkey: BOB.pubkey }],
    ["a body behind a slash", "/npubs/", { npub: BOB.npub }],
    ["a body behind broken escapes", "/npubs/%zz", { npub: BOB.npub }],
  ])("removes by %s", async (_, path, body) => {
    const { surface, members } = await start({ admins: [ALICE.npub], users: [BOB.npub] });
    const options = body === undefined ? { path } : { path, body };
    const first = await call(surface, admin, "DELETE", options);
    expect(first).toMatchObject({
      status: 200,
      body: { removed: true, output: { removed: true } },
    });
    expect((await call(surface, admin, "DELETE", options)).body).toMatchObject({ removed: false });
    expect(members.get(BOB.npub)).toBeNull();
  });

  test("without a key that is one it is 400; the last admin stays", async () => {
    const { surface, members } = await start({ admins: [ALICE.npub] });
    expect((await call(surface, admin, "DELETE")).status).toBe(400);
    expect((await call(surface, admin, "DELETE", { path: "/npubs/bob" })).status).toBe(400);
    expect((await call(surface, admin, "DELETE", { body: { npub: "bob" } })).status).toBe(400);
    const last = await call(surface, admin, "DELETE", { path: `/npubs/${ALICE.npub}` });
    expect(last.status).toBe(409);
    expect(members.list()).toHaveLength(1);
  });
});

test.each([
  ["GET", "/npubs/"],
  ["GET", `/npubs/${ALICE.npub}`],
  ["POST", `/npubs/${ALICE.npub}`],
  ["PATCH", "/npubs/x"],
  ["DELETE", "/npubs/a/b"],
  ["PUT", "/npubs"],
  ["OPTIONS", "/npubs"],
  ["GET", "/other"],
  ["GET", "/xnpubs"],
])("%s %s is 404 before anybody is asked who they are", async (method, path) => {
  const { surface } = await start({ admins: [ALICE.npub] });
  for (const by of [admin, nobody]) {
    const { status, body } = await call(surface, by, method, { path });
    expect({ status, body }).toEqual({ status: 404, body: { error: "Not found." } });
  }
});

describe("the first admin", () => {
  test("cannot be added over HTTP unless that is switched on", async () => {
    const { surface, members } = await start();
    for (const by of [nobody, refused("not_registered"), bearer]) {
      const { status, body } = await call(surface, by, "POST", { body: { npub: ALICE.npub } });
      expect([401, 403]).toContain(status);
      if (status === 401) expect(String(body.error)).toContain("gatehouse npub add");
    }
    expect(members.list()).toEqual([]);
  });

  test("is whoever comes first, as admin, and that is logged", async () => {
    const { surface, members } = await start({ bootstrap: "first" });
    const asUser = await call(surface, nobody, "POST", {
      body: { npub: ALICE.npub, role: "user" },
    });
    expect(asUser.status).toBe(400);
    expect((await call(surface, nobody, "POST", { text: "{" })).status).toBe(400);
    expect(
      (await call(surface, nobody, "PATCH", { body: { npub: ALICE.npub, role: "admin" } })).status,
    ).toBe(401);
    const first = await call(surface, nobody, "POST", { body: { npub: ALICE.npub } });
    expect(first).toMatchObject({ status: 201, body: { role: "admin", output: { added: true } } });
    expect((await call(surface, nobody, "POST", { body: { npub: BOB.npub } })).status).toBe(401);
    expect(members.list()).toHaveLength(1);
    expect(context.log.lines).toContainEqual({
      level: "warn",
      event: "member.bootstrap",
      fields: expect.objectContaining({ npub: ALICE.npub, client: "192.0.2.7" }),
    });
  });

  test("is added once ever: not when the table is empty again, not after a restart", async () => {
    const { surface } = await start({ bootstrap: "first" });
    await call(surface, nobody, "POST", { body: { npub: ALICE.npub } });
    const database = context.host.database(
      "nip98",
      (await import("./members-table.ts")).MIGRATIONS,
    );
    database.run("DELETE FROM nip98_members");
    const later = await start({ bootstrap: "first" });
    for (const each of [surface, later.surface]) {
      expect((await call(each, nobody, "GET")).body).toEqual({ npubs: [] });
      expect((await call(each, nobody, "POST", { body: { npub: BOB.npub } })).status).toBe(401);
    }
  });

  test("was there already when the configuration or the command line had one", async () => {
    const { surface, members } = await start({ bootstrap: "first", users: [CAROL.npub] });
    members.add({ key: ALICE.npub, role: "admin", source: "cli" });
    expect((await call(surface, nobody, "POST", { body: { npub: BOB.npub } })).status).toBe(401);
  });

  test("of 20 at once one wins", async () => {
    const { surface, members } = await start({ bootstrap: "first" });
    const keys = Array.from({ length: 20 }, newKey);
    const all = await Promise.all(
      keys.map(({ npub }) => call(surface, nobody, "POST", { body: { npub } })),
    );
    expect(all.filter(({ status }) => status === 201)).toHaveLength(1);
    expect(members.list()).toHaveLength(1);
  });

  test("of 4 processes one wins", async () => {
    const { members } = await start({ bootstrap: "first" });
    const said = await inOtherProcesses(
      4,
      `import { createHost, lazyDatabase } from "./src/host.ts";
       import plugin from "./plugins/nip98/index.ts";
       import { newKey } from "./test/support/nostr.ts";
       const stateDir = Bun.argv.at(-1);
       const clock = { nowMs: () => Date.now() };
       const log = { debug() {}, info() {}, warn() {}, error() {} };
       const database = lazyDatabase(stateDir, clock);
       const shared = { log, clock, stateDir, configDir: stateDir, env: {}, database, signal: new AbortController().signal };
       const instance = await plugin.init(plugin.config.parse({ bootstrap: "first" }), createHost("nostr", shared));
       const request = new Request("http://h/npubs", { method: "POST", body: JSON.stringify(newKey().npub) });
       const caller = { identity: null, refusal: "no_credential", strategy: null, clientAddress: "", requestId: "", upstream: null };
       console.log((await instance.surfaces[0].handle(request, caller)).status);`,
      context.host.stateDir,
    );
    expect(said.filter((status) => status === "201")).toHaveLength(1);
    expect(members.list()).toHaveLength(1);
  });
});
