/** The surfaces `clients` and `usage`, beside a daemon that answers as the real one does. */

import { Database } from "bun:sqlite";
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { join } from "node:path";
import type { Identity } from "../../src/contract/outcome.ts";
import type { StrategyInstance, SurfaceCaller } from "../../src/contract/plugin.ts";
import { type TestHost, testHost } from "../../test/support/host.ts";
import { authRequest } from "../../test/support/request.ts";
import { createDatabase, daemonServer, everyRow, storedClient } from "./daemon.fixture.ts";
import plugin from "./index.ts";

const npub = (start: string, suffix: string): string => `npub1${start.padEnd(51, "q")}${suffix}`;
const ALICE = npub("a", "alxxxxx");
const BOB = npub("c", "bxxxxxx");
const ROOT = npub("r", "rxxxxxx");
/** Has ground a key whose npub ends as Alice's does. */
const MALLORY = npub("m", "alxxxxx");

const LAPTOP = storedClient({ clientId: "laptop-alxxxxx", name: "Laptop", ownerNpub: ALICE });
const LEGACY = storedClient({ clientId: "old-alxxxxx", name: "Old", lastUsed: 5 });
const BOBS = storedClient({ clientId: "laptop-bxxxxxx", name: "Bob's", ownerNpub: BOB });
const NOBODYS = storedClient({ clientId: "nobody", name: "Nobody's" });

let context: TestHost;
let path: string;
let daemon: ReturnType<typeof daemonServer>;
let instance: StrategyInstance;

beforeEach(async () => {
  context = testHost();
  path = join(context.directory, "routstr.db");
  createDatabase(path, { clients: [LAPTOP, LEGACY, BOBS, NOBODYS] });
  const database = new Database(path);
  database.run("CREATE TABLE routstr_auth_npubs (pubkey TEXT PRIMARY KEY, npub TEXT NOT NULL)");
  for (const key of [ALICE, BOB, ROOT]) {
    database.run("INSERT INTO routstr_auth_npubs VALUES (?, ?)", [key, key]);
  }
  database.close();
  daemon = daemonServer(path);
  instance = await plugin.init(plugin.config.parse({ database: path }), context.host);
});
afterEach(async () => {
  await instance.close?.();
  daemon.stop();
  context.dispose();
});

function member(key: string, role: Identity["role"] = "user"): Identity {
  return { id: key, role, attributes: { npub: key, pubkey: "00" } };
}

async function call(
  target: string,
  identity: Identity | null,
  body?: unknown,
  changes: Partial<SurfaceCaller> = {},
): Promise<{ status: number; json: Record<string, unknown>; type: string | null }> {
  const [method = "GET", url = ""] = target.split(" ");
  const surface = instance.surfaces?.find(({ name }) => url.startsWith(`/${name}`));
  if (surface === undefined) throw new Error(`no surface for ${url}`);
  const headers = { authorization: "Nostr canary", "x-routstr-client-id": "forged" };
  const text: string | undefined = typeof body === "string" ? body : JSON.stringify(body);
  const init = { method, headers, ...(text === undefined ? {} : { body: text }) };
  const response = await surface.handle(new Request(`http://surface${url}`, init), {
    identity,
    refusal: null,
    strategy: "nostr",
    clientAddress: "127.0.0.1",
    requestId: "req_test",
    upstream: (request) => daemon.upstream(request),
    ...changes,
  });
  const type = response.headers.get("content-type");
  return { status: response.status, json: JSON.parse(await response.text()), type };
}

function stored(): unknown[] {
  const database = new Database(path, { readonly: true });
  const row = database.prepare("SELECT value FROM sdk_storage").get();
  database.close();
  return row !== null && typeof row === "object" && "value" in row
    ? JSON.parse(String(row.value))
    : [];
}

const ids = (json: Record<string, unknown>): unknown =>
  (json.output as { clients: { id: string }[] }).clients.map(({ id }) => id);

describe("who may ask", () => {
  test.each([
    ["nobody", null, 401, "Missing Authorization header."],
    ["a key", { id: "laptop", attributes: { client_id: "laptop" } }, 403, "API keys cannot"],
    ["a key without facts", { id: "laptop" }, 403, "API keys cannot"],
    ["an npub that is none", { id: "x", attributes: { npub: "npub1" } }, 403, "API keys cannot"],
  ])("%s gets a refusal on every path", async (_, identity, status, error) => {
    for (const target of [
      "GET /clients",
      "POST /clients/add",
      "POST /clients/delete",
      "GET /usage",
      "GET /usage/summary",
      "PUT /clients",
    ]) {
      const answer = await call(target, identity);
      expect(answer.status).toBe(status);
      expect(answer.json.error).toContain(error);
      expect(answer.type).toContain("application/json");
    }
    expect(daemon.requests).toEqual([]);
  });

  test("a refused proof is named, not shown", async () => {
    const { json } = await call("GET /clients", null, undefined, { refusal: "replayed" });
    expect(json).toEqual({ error: "Authorization was refused: replayed." });
  });

  test.each([
    "HEAD /clients/add",
    "DELETE /clients",
    "POST /clients",
    "GET /clients/add",
    "GET /clients/x",
    "GET /clients/",
    "POST /usage",
    "GET /usage/",
    "GET /usagePi",
  ])("%s is 404 and the daemon is not asked", async (target) => {
    expect(await call(target, member(ALICE))).toMatchObject({
      status: 404,
      json: { error: "Not found." },
    });
    expect(daemon.requests).toEqual([]);
  });
});

describe("GET /clients", () => {
  test("the caller's own, ids without the suffix, keys and owner as the command line reads them", async () => {
    const { status, json } = await call("GET /clients", member(ALICE));
    expect(status).toBe(200);
    const { name, apiKey, createdAt } = LAPTOP;
    const old = { apiKey: LEGACY.apiKey, createdAt: LEGACY.createdAt, lastUsed: 5 };
    expect(json).toEqual({
      output: {
        clients: [
          { id: "laptop", name, apiKey, createdAt, ownerNpub: ALICE },
          { id: "old", name: "Old", ...old, ownerNpub: ALICE },
        ],
        totalCount: 2,
      },
    });
  });

  test("the end of an id gives nothing away while two members could be meant", async () => {
    expect(ids((await call("GET /clients", member(MALLORY))).json)).toEqual([]);
    const database = new Database(path);
    database.run("INSERT INTO routstr_auth_npubs VALUES ('m', ?)", [MALLORY]);
    database.close();
    expect(ids((await call("GET /clients", member(MALLORY))).json)).toEqual([]);
    expect(ids((await call("GET /clients", member(ALICE))).json)).toEqual(["laptop"]);
    const gone = await call("POST /clients/delete", member(MALLORY), { id: "laptop" });
    expect(gone.status).toBe(404);
    expect(daemon.requests).toEqual([]);
  });

  test("an admin sees every client on demand, other members' keys never", async () => {
    expect(ids((await call("GET /clients", member(ROOT, "admin"))).json)).toEqual([]);
    const { json } = await call("GET /clients?all=1", member(ROOT, "admin"));
    expect(ids(json)).toEqual(["laptop", "old-alxxxxx", "laptop", "nobody"]);
    expect(json.output).toMatchObject({
      totalCount: 4,
      clients: [
        { ownerNpub: ALICE, storedId: "laptop-alxxxxx", apiKey: null },
        { ownerNpub: null, storedId: "old-alxxxxx", apiKey: null },
        { ownerNpub: BOB, storedId: "laptop-bxxxxxx", apiKey: null },
        { ownerNpub: null, storedId: "nobody", apiKey: null },
      ],
    });
    const user = await call("GET /clients?all=1", member(ALICE));
    expect(ids(user.json)).toEqual(["laptop", "old"]);
    const own = await call("GET /clients?all=true", member(ALICE, "admin"));
    expect(JSON.stringify(own.json)).toContain(LAPTOP.apiKey);
    expect(JSON.stringify(own.json)).not.toContain(BOBS.apiKey);
  });
});

describe("POST /clients/add", () => {
  test("goes to the daemon with suffix and owner and without the caller's headers", async () => {
    const body = {
      name: "My Phone",
      id: "My  Phone!",
      color: "red",
      apiKey: "sk-mine",
      ownerNpub: BOB,
    };
    const { status, json } = await call("POST /clients/add", member(ALICE), body);
    expect(status).toBe(200);
    expect(json.output).toMatchObject({
      message: "Client My Phone added",
      client: { id: "my-phone", name: "My Phone", ownerNpub: ALICE },
    });
    const [sent] = daemon.requests;
    expect(JSON.parse(sent?.body ?? "")).toEqual({
      name: "My Phone",
      id: "my-phone-alxxxxx",
      color: "red",
      ownerNpub: ALICE,
    });
    const headers = sent?.request.headers;
    expect([headers?.get("authorization"), headers?.get("x-routstr-client-id")]).toEqual([
      null,
      null,
    ]);
    // The key that the daemon made opens the gate at once.
    const { apiKey } = (json.output as { client: { apiKey: string } }).client;
    const headersOf = { authorization: `Bearer ${apiKey}` };
    const outcome = await instance.authenticate(authRequest({ headers: headersOf }));
    expect(outcome).toMatchObject({ outcome: "accept", identity: { id: "my-phone-alxxxxx" } });
  });

  test("the daemon's refusal passes as it is", async () => {
    const answer = await call("POST /clients/add", member(ALICE), { name: "x", id: "laptop" });
    expect(answer).toMatchObject({
      status: 409,
      json: { error: 'Client "laptop-alxxxxx" already exists' },
    });
  });

  test.each<[string, unknown]>([
    ["no body", undefined],
    ["no JSON", "{"],
    ["null", "null"],
    ["a list", []],
    ["no id", { name: "x" }],
    ["no name", { id: "x" }],
    ["a blank id", { name: "x", id: " \t" }],
    ["a number as name", { name: 7, id: "x" }],
    ["a list as id", { name: "x", id: ["x"] }],
    ["an id of nothing that counts", { name: "x", id: "\u0416\u0416\u0416!" }],
    ["an id of 10,000 characters", { name: "x", id: "x".repeat(10_000) }],
    ["a name of 10,000 characters", { name: "x".repeat(10_000), id: "x" }],
    ["a NUL in the name", { name: "a\0b", id: "x" }],
    ["a name that turns around", { name: "\u202egnp", id: "x" }],
    ["half a character", '{"name":"\\ud800","id":"x"}'],
  ])("%s is 400 and the daemon is not asked", async (_, body) => {
    const before = everyRow(path);
    const { status, json } = await call("POST /clients/add", member(ALICE), body);
    expect(status).toBe(400);
    expect(typeof json.error).toBe("string");
    expect(daemon.requests).toEqual([]);
    expect(everyRow(path)).toBe(before);
  });

  test("SQL in a name or an id is a name or an id", async () => {
    const body = { name: "'; DROP TABLE sdk_storage; --", id: "a'; DROP--" };
    const { json } = await call("POST /clients/add", member(ALICE), body);
    expect(json.output).toMatchObject({ client: { id: "a-drop--", name: body.name } });
    expect(stored()).toHaveLength(5);
  });

  test("duplicate keys in the JSON are one key to the daemon", async () => {
    const body = `{"id":"a","name":"n","ownerNpub":"${BOB}","id":"b"}`;
    await call("POST /clients/add", member(ALICE), body);
    const sent = daemon.requests[0]?.body ?? "";
    expect(sent.match(/"id"/g)).toHaveLength(1);
    expect(JSON.parse(sent)).toMatchObject({ id: "b-alxxxxx", ownerNpub: ALICE });
  });
});

describe("POST /clients/delete", () => {
  const remove = (identity: Identity, body: unknown) =>
    call("POST /clients/delete", identity, body);

  test("the caller's own client by the id that is shown", async () => {
    const { status, json } = await remove(member(ALICE), { id: "Laptop" });
    expect({ status, output: json.output }).toEqual({
      status: 200,
      output: { message: "Client deleted", id: "laptop" },
    });
    expect(JSON.parse(daemon.requests[0]?.body ?? "")).toEqual({ id: "laptop-alxxxxx" });
    expect(stored()).toEqual([LEGACY, BOBS, NOBODYS]);
    expect((await remove(member(ALICE), { id: "laptop" })).status).toBe(404);
    expect((await remove(member(ALICE), { id: "old" })).json.output).toMatchObject({ id: "old" });
  });

  test("nobody else's, however it is named", async () => {
    const before = everyRow(path);
    for (const body of [
      { id: "laptop-bxxxxxx" },
      { id: "nobody" },
      { id: "laptop", ownerNpub: BOB },
      { id: "laptop-bxxxxxx", ownerNpub: BOB },
      { id: "%" },
      { id: "x".repeat(10_000) },
    ]) {
      expect([400, 404]).toContain((await remove(member(ALICE), body)).status);
    }
    expect(daemon.requests).toEqual([]);
    expect(everyRow(path)).toBe(before);
  });

  test("an admin deletes any client, by stored id or by id and owner", async () => {
    const root = member(ROOT, "admin");
    expect((await remove(root, { id: "laptop" })).status).toBe(404);
    const bobs = await remove(root, { id: "laptop", ownerNpub: BOB });
    expect(bobs.json.output).toMatchObject({ id: "laptop" });
    expect((await remove(root, { id: "nobody" })).json.output).toMatchObject({ id: "nobody" });
    const alices = await remove(root, { id: "laptop-alxxxxx" });
    expect(alices.json.output).toMatchObject({ id: "laptop-alxxxxx" });
    expect(stored()).toEqual([LEGACY]);
  });

  test("of two clients with one stored id none is deleted", async () => {
    const database = new Database(path);
    const twins = [storedClient({ clientId: "twin" }), storedClient({ clientId: "twin" })];
    database.run("UPDATE sdk_storage SET value = ?", [JSON.stringify(twins)]);
    database.close();
    expect((await remove(member(ROOT, "admin"), { id: "twin" })).status).toBe(409);
    expect(daemon.requests).toEqual([]);
  });

  test.each<[string, unknown]>([
    ["no body", undefined],
    ["no id", {}],
    ["a blank id", { id: "" }],
    ["a number", { id: 1 }],
    ["nothing that counts", { id: "!!!" }],
    ["an owner that is no text", { id: "laptop", ownerNpub: 1 }],
  ])("%s is 400", async (_, body) => {
    expect((await remove(member(ALICE), body)).status).toBe(400);
    expect(daemon.requests).toEqual([]);
  });
});

describe("GET /usage", () => {
  const asked = async (target: string, identity: Identity) =>
    (await call(`GET ${target}`, identity)).json.asked;

  test.each([
    ["", ""],
    ["?limit=10", "limit=10&"],
    [`?npub=${BOB}&limit=1&npub=${ROOT}`, "limit=1&"],
    [`?%6epub=${BOB}&NPUB=${BOB}&npub%5B%5D=${BOB}&npub[0]=x&+npub=x`, ""],
    [`?limit=1;npub=${BOB}`, `limit=1%3Bnpub%3D${BOB}&`],
    ["?all=1&window=7d", "window=7d&"],
  ])("%j is asked for the caller alone", async (query, rest) => {
    for (const base of ["/usage", "/usage/summary"]) {
      expect(await asked(base + query, member(ALICE))).toBe(`${base}?${rest}npub=${ALICE}`);
    }
  });

  test("an admin is scoped as well, unless all is asked for", async () => {
    const root = member(ROOT, "admin");
    expect(await asked("/usage?limit=2", root)).toBe(`/usage?limit=2&npub=${ROOT}`);
    expect(await asked("/usage?all=0", root)).toBe(`/usage?npub=${ROOT}`);
    expect(await asked(`/usage?limit=2&all=1&npub=${BOB}`, root)).toBe("/usage?limit=2");
    expect(await asked("/usage/summary?all", root)).toBe("/usage/summary");
  });

  test("the caller's credential stays here", async () => {
    await call("GET /usage", member(ALICE));
    expect(daemon.requests[0]?.request.headers.get("authorization")).toBeNull();
  });
});

describe("the way to the daemon", () => {
  const CHANGES = [
    ["GET /usage", undefined],
    ["POST /clients/add", { name: "n", id: "i" }],
    ["POST /clients/delete", { id: "laptop" }],
  ] as const;

  test.each(CHANGES)("%s without an upstream is 503", async (target, body) => {
    const answer = await call(target, member(ALICE), body, { upstream: null });
    expect(answer).toMatchObject({ status: 503, type: expect.stringContaining("json") });
  });

  test.each(CHANGES)("%s with an unreachable one is 502", async (target, body) => {
    const upstream = () => Promise.reject(new Error("connect ECONNREFUSED 10.0.0.1:8009"));
    const answer = await call(target, member(ALICE), body, { upstream });
    expect(answer).toMatchObject({ status: 502, json: { error: "Upstream unreachable" } });
  });

  test.each(CHANGES)("%s passes an answer that is not JSON", async (target, body) => {
    const surface = instance.surfaces?.find(({ name }) => target.includes(`/${name}`));
    const [method = "", url] = target.split(" ");
    const init = body === undefined ? { method } : { method, body: JSON.stringify(body) };
    const response = await surface?.handle(new Request(`http://surface${url}`, init), {
      identity: member(ALICE),
      refusal: null,
      strategy: "nostr",
      clientAddress: "",
      requestId: "",
      upstream: async () => new Response("<html>", { status: 201 }),
    });
    expect([response?.status, await response?.text()]).toEqual([201, "<html>"]);
  });

  test("a database that cannot be read is a fault, not an empty list", async () => {
    const database = new Database(path);
    database.run("ALTER TABLE sdk_storage RENAME TO kept");
    await expect(call("GET /clients", member(ALICE))).rejects.toThrow("no table sdk_storage");
    await expect(call("POST /clients/delete", member(ALICE), { id: "laptop" })).rejects.toThrow();
    database.run("ALTER TABLE kept RENAME TO sdk_storage");
    database.close();
    expect(daemon.requests).toEqual([]);
  });

  test("no key is in the log, whatever was asked", async () => {
    await call("GET /clients?all=1", member(ROOT, "admin"));
    await call("POST /clients/delete", member(ALICE), { id: LAPTOP.apiKey });
    for (const { apiKey } of [LAPTOP, LEGACY, BOBS, NOBODYS]) {
      expect(context.log.text()).not.toContain(apiKey);
    }
  });
});
