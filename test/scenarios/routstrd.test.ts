/**
 * The drop-in for routstrd-auth: `serve --preset routstrd` with its environment and the daemon's own database, asked
 * by `nostr-tools/nip98` as the client.
 *
 * Invariant: an API key never reaches the wallet by any spelling, the daemon hears from us who asks and never from
 * the client, and not a row that the daemon wrote is lost.
 */
import { afterAll, afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { getToken } from "nostr-tools/nip98";
import { finalizeEvent } from "nostr-tools/pure";
import {
  createDatabase,
  type DaemonProcess,
  daemonServer,
  everyRow,
  startDaemon,
  storedClient,
} from "../../plugins/routstrd/daemon.fixture.ts";
import { type Running, runBinary, startBinary } from "../support/binary.ts";
import { type NostrKey, newKey } from "../support/nostr.ts";
import { eventually, type RawUpstream, raw, rawUpstream, valuesOf } from "../support/raw.ts";

const admin = newKey();
const user = newKey();
const stranger = newKey();
const plain = storedClient({ clientId: "agent" });
const owned = storedClient({ clientId: "laptop-xyz", ownerNpub: user.npub });

let dir: string;
let database: string;
let upstream: RawUpstream;
let gateway: Running;

/** The client's own function; a nonce keeps two requests of one second apart. */
function sign(key: NostrKey, url: string, method: string, payload?: object): Promise<string> {
  return getToken(
    url,
    method,
    (event) =>
      finalizeEvent(
        { ...event, tags: [...event.tags, ["nonce", crypto.randomUUID()]] },
        key.secret,
      ),
    true,
    payload as Record<string, unknown> | undefined,
  );
}

async function call(
  key: NostrKey | null,
  path: string,
  options: { method?: string; body?: object; headers?: Record<string, string> } = {},
): Promise<{ status: number; body: Record<string, unknown>; headers: Headers }> {
  const { method = "GET", body, headers = {} } = options;
  const url = `${gateway.url}${path}`;
  const signed = key === null ? {} : { authorization: await sign(key, url, method, body) };
  const response = await fetch(url, {
    method,
    headers: { ...signed, ...headers, ...(body ? { "content-type": "application/json" } : {}) },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  const text = await response.text();
  const data = text.startsWith("{") ? (JSON.parse(text) as Record<string, unknown>) : { text };
  return { status: response.status, body: data, headers: response.headers };
}

function environment(extra: Record<string, string> = {}): Record<string, string> {
  return {
    ROUTSTRD_AUTH_HOST: "127.0.0.1",
    ROUTSTRD_UPSTREAM: `http://${upstream.address}`,
    ROUTSTRD_DIR: dir,
    ...extra,
  };
}

async function start(extra: Record<string, string> = {}): Promise<void> {
  gateway = await startBinary(["serve", "--preset", "routstrd", "--port", "0"], {
    cwd: dir,
    env: environment(extra),
  });
}

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "gatehouse-routstrd-"));
  database = join(dir, "routstr.db");
  createDatabase(database, { clients: [plain, owned] });
  upstream = rawUpstream();
});

afterEach(async () => {
  await gateway?.kill();
  upstream.stop();
  rmSync(dir, { recursive: true, force: true });
});

const ADMIN_ENV = { ROUTSTRD_AUTH_ADMIN_NPUBS: `${admin.npub}, ${admin.pubkey}` };

async function startWithMembers(extra: Record<string, string> = {}): Promise<void> {
  await start({ ...ADMIN_ENV, ...extra });
  const added = await call(admin, "/npubs", {
    method: "POST",
    body: { npub: user.npub, role: "user" },
  });
  expect(added.status).toBe(201);
}

describe("members", () => {
  test("the list is empty and open while no one is registered, and the first add makes an admin, once", async () => {
    await start();
    expect(await call(null, "/npubs")).toMatchObject({ status: 200, body: { npubs: [] } });
    const asUser = await call(null, "/npubs", {
      method: "POST",
      body: { npub: admin.npub, role: "user" },
    });
    expect(asUser.status).toBe(400);
    const race = await Promise.all(
      [admin, user, stranger].map((key) =>
        call(null, "/npubs", { method: "POST", body: { npub: key.npub } }),
      ),
    );
    const winners = race.filter(({ status }) => status === 201);
    expect(winners.length).toBe(1);
    expect(winners[0]?.body).toMatchObject({
      role: "admin",
      added: true,
      output: { role: "admin" },
    });
    await eventually("the first admin is logged", () =>
      gateway.stdout().includes('"event":"member.bootstrap"'),
    );
    expect((await call(null, "/npubs")).status).toBeGreaterThan(400);
    expect(upstream.seen).toEqual([]);
  });

  test("admins of the environment add, change and remove; the last admin stays", async () => {
    await startWithMembers();
    const list = await call(user, "/npubs");
    expect(list.body.npubs).toEqual(
      expect.arrayContaining([
        { npub: admin.npub, name: null, role: "admin" },
        { npub: user.npub, name: null, role: "user" },
      ]),
    );
    expect(
      (await call(user, "/npubs", { method: "POST", body: { npub: stranger.npub } })).status,
    ).toBe(403);
    const renamed = await call(admin, "/npubs", {
      method: "PATCH",
      body: { npub: user.npub, name: "Ann" },
    });
    expect(renamed.body).toMatchObject({ npub: user.npub, name: "Ann", output: { name: "Ann" } });
    const removed = await call(admin, `/npubs/${user.npub}`, { method: "DELETE" });
    expect(removed.body).toMatchObject({ removed: true, output: { removed: true } });
    expect((await call(user, "/usagePi")).status).toBe(403);
    expect((await call(admin, `/npubs/${admin.npub}`, { method: "DELETE" })).status).toBe(409);
    expect((await call(admin, "/npubs")).status).toBe(200);
  });

  test("removing an npub ends its clients' keys on the next request", async () => {
    await startWithMembers();
    const bearer = { headers: { authorization: `Bearer ${owned.apiKey}` } };
    expect(
      (await call(null, "/v1/chat/completions", { method: "POST", body: {}, ...bearer })).status,
    ).toBe(200);
    await call(admin, `/npubs/${user.npub}`, { method: "DELETE" });
    upstream.seen.length = 0;
    expect(
      (await call(null, "/v1/chat/completions", { method: "POST", body: {}, ...bearer })).status,
    ).toBe(401);
    expect(upstream.seen).toEqual([]);
  });
});

describe("path classes", () => {
  const bearer = { authorization: `Bearer ${plain.apiKey}` };

  test("a client key reaches the daemon as a client id, without the key and without what the client claims", async () => {
    await startWithMembers();
    const claims = {
      "x-routstr-client-id": "boss",
      "x-routstr-nostr-pubkey": "f".repeat(64),
      "X-Routstr_Client-Id": "boss",
    };
    await call(null, "/v1/messages", {
      method: "POST",
      body: { a: 1 },
      headers: { ...bearer, ...claims },
    });
    const [seen] = upstream.seen;
    expect(valuesOf(seen, "x-routstr-client-id")).toEqual([plain.clientId]);
    expect(valuesOf(seen, "x-routstr-nostr-pubkey")).toEqual([]);
    expect(valuesOf(seen, "authorization")).toEqual([]);
    expect(seen?.body).toBe('{"a":1}');
  });

  test("a member reaches it with its public key", async () => {
    await startWithMembers();
    const answer = await call(user, "/v1/chat/completions", {
      method: "POST",
      body: { model: "m" },
    });
    expect(answer.status).toBe(200);
    expect(answer.headers.get("x-accel-buffering")).toBe("no");
    expect(valuesOf(upstream.seen[0], "x-routstr-nostr-pubkey")).toEqual([user.pubkey]);
    expect(valuesOf(upstream.seen[0], "x-routstr-client-id")).toEqual([`nostr:${user.pubkey}`]);
    expect(valuesOf(upstream.seen[0], "authorization")).toEqual([]);
  });

  test("with keep_authorization the daemon gets the key, and still not a member's event", async () => {
    await startWithMembers({ ROUTSTRD_AUTH_KEEP_AUTHORIZATION: "true" });
    await call(null, "/v1/messages", { method: "POST", body: {}, headers: bearer });
    await call(user, "/v1/messages", { method: "POST", body: {} });
    expect(upstream.seen.map((seen) => valuesOf(seen, "authorization"))).toEqual([
      [bearer.authorization],
      [],
    ]);
  });

  test.each([
    ["/wallet/status", 200],
    ["/wallet/anything/new", 200],
    ["/providers", 200],
    ["/nwc/x", 200],
    ["/wallet/send/cashu", 403],
    ["/wallet/send/new", 403],
  ])("%s is for members, a key is refused, and a user gets %i", async (path, status) => {
    await startWithMembers();
    const key = await call(null, path, { headers: bearer });
    expect([key.status, String(key.body.error)]).toEqual([
      403,
      expect.stringContaining("API keys cannot access"),
    ]);
    expect(
      (await call(null, path, { headers: { authorization: "Bearer sk-unknown" } })).status,
    ).toBe(403);
    expect(upstream.seen).toEqual([]);
    expect((await call(user, path)).status).toBe(status);
    expect((await call(admin, path)).status).toBe(200);
  });

  test.each([
    "//wallet/send/cashu",
    "///wallet/status",
    "/x/../wallet/status",
    "/%77allet/status",
    "/wallet%2fstatus",
    "/WALLET/status",
    "/wallet;x/status",
    "/\\wallet/status",
    "/models/..%2fwallet/status",
    "/models/%2e%2e/wallet/status",
    "/wallet",
    "/wallet/",
  ])("a key never reaches the wallet by the spelling %s", async (path) => {
    await startWithMembers();
    const answer = await raw(
      gateway.address,
      `GET ${path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nAuthorization: Bearer ${plain.apiKey}\r\n\r\n`,
    );
    expect(answer.statuses[0]).toBeOneOf([400, 403]);
    expect(upstream.seen).toEqual([]);
  });

  test("models are public for reading, byte for byte, and the key is not shown", async () => {
    await startWithMembers();
    const answer = await raw(
      gateway.address,
      `GET /models/vendor%2Fmodel/providers HTTP/1.1\r\nHost: h\r\nConnection: close\r\nAuthorization: Bearer ${plain.apiKey}\r\n\r\n`,
    );
    expect(answer.statuses).toEqual([200]);
    expect(upstream.seen[0]?.line).toBe("GET /models/vendor%2Fmodel/providers HTTP/1.1");
    expect(valuesOf(upstream.seen[0], "authorization")).toEqual([]);
    expect((await call(null, "/v1/models", { method: "POST", body: {} })).status).toBe(401);
  });

  test.each([
    ["no credential", {}, 401, "Missing Authorization header"],
    ["an unknown key", { authorization: "Bearer sk-nope" }, 401, "Invalid API key"],
  ])("%s is answered as before", async (_, headers, status, error) => {
    await startWithMembers();
    const answer = await call(null, "/balance", { headers });
    expect([answer.status, String(answer.body.error)]).toEqual([
      status,
      expect.stringContaining(error),
    ]);
    expect(upstream.seen).toEqual([]);
  });

  test("a key that nobody registered is 403 and is told how to register", async () => {
    await startWithMembers();
    const answer = await call(stranger, "/balance");
    expect([answer.status, String(answer.body.error)]).toEqual([
      403,
      expect.stringContaining("npubs register"),
    ]);
    expect(upstream.seen).toEqual([]);
  });

  test("a preflight needs no credential, and refusals can be read by pages", async () => {
    await startWithMembers();
    const origin = { origin: "https://app.example" };
    const preflight = await call(null, "/v1/messages", {
      method: "OPTIONS",
      headers: { ...origin, "access-control-request-method": "POST" },
    });
    expect(preflight.status).toBe(204);
    expect(preflight.headers.get("access-control-allow-origin")).toBe("*");
    const refused = await call(null, "/v1/messages", { headers: origin });
    expect(refused.headers.get("access-control-allow-origin")).toBe("*");
  });

  test("an upstream that is down is 502 in JSON", async () => {
    await startWithMembers();
    upstream.stop();
    const answer = await call(null, "/balance", { headers: bearer });
    expect([answer.status, answer.body.error]).toEqual([502, "Upstream unreachable"]);
  });
});

describe("the daemon's database", () => {
  let daemon: DaemonProcess | undefined;
  afterEach(() => daemon?.stop());

  test("a key that the daemon adds or removes holds on the next request", async () => {
    daemon = await startDaemon(database);
    await startWithMembers();
    const late = storedClient({ clientId: "late" });
    const ask = async () =>
      (await call(null, "/status", { headers: { authorization: `Bearer ${late.apiKey}` } })).status;
    expect(await ask()).toBe(401);
    await daemon.order({ do: "add", clients: [late] });
    expect(await ask()).toBe(200);
    await daemon.order({ do: "remove", clientId: "late" });
    expect(await ask()).toBe(401);
  });

  test("nothing that the daemon wrote is lost by any of it", async () => {
    const before = everyRow(database);
    await startWithMembers();
    await call(user, "/clients");
    await call(admin, `/npubs/${user.npub}`, { method: "DELETE" });
    await gateway.stop();
    const [tables, rows] = JSON.parse(everyRow(database)) as [{ name: string }[], unknown[]];
    const [oldTables, oldRows] = JSON.parse(before) as [{ name: string }[], unknown[]];
    oldTables.forEach((table, index) => {
      const at = tables.findIndex(({ name }) => name === table.name);
      expect(rows[at]).toEqual(oldRows[index]);
    });
  });

  test("a database that is not there yet is one clear line and exit code 78", async () => {
    rmSync(database);
    const { code, stderr } = await runBinary(["serve", "--preset", "routstrd", "--port", "0"], {
      cwd: dir,
      env: environment(),
    });
    expect(code).toBe(78);
    expect(stderr).toContain("routstr.db");
  });

  test("config validate checks the preset without a file", async () => {
    const options = { cwd: dir, env: environment(ADMIN_ENV) };
    const fine = await runBinary(["config", "validate", "--preset", "routstrd"], options);
    expect([fine.code, fine.stderr]).toEqual([0, ""]);
    const bad = await runBinary(["config", "validate", "--preset", "routstrd"], {
      cwd: dir,
      env: environment({ ROUTSTRD_AUTH_ADMIN_NPUBS: "npub1nonsense" }),
    });
    expect(bad.code).toBe(78);
    expect(bad.stderr).not.toContain("npub1nonsense");
  });
});

describe("clients and usage", () => {
  let daemon: ReturnType<typeof daemonServer>;
  afterAll(() => daemon?.stop());

  test("a member adds, lists, uses and deletes a client of its own; another one sees nothing of it", async () => {
    daemon = daemonServer(database);
    const requests = daemon.requests;
    const url = new URL("/", (await daemon.upstream(new Request("http://x/"))).url);
    await startWithMembers({ ROUTSTRD_UPSTREAM: url.origin });
    const added = await call(user, "/clients/add", {
      method: "POST",
      body: { name: "My Agent", id: "My Agent" },
    });
    expect(added.status).toBe(200);
    const { client } = added.body.output as { client: { id: string; apiKey: string } };
    expect(client.id).toBe("my-agent");
    const list = await call(user, "/clients");
    const { clients } = list.body.output as { clients: { id: string }[] };
    expect(clients.map(({ id }) => id)).toContain("my-agent");
    const others = await call(admin, "/clients");
    expect(JSON.stringify(others.body)).not.toContain(client.apiKey);
    const used = await call(null, "/status", {
      headers: { authorization: `Bearer ${client.apiKey}` },
    });
    expect(used.status).toBe(200);
    const usage = await call(user, "/usage?limit=5&npub=somebody");
    expect(usage.status).toBe(200);
    const asked = new URL(requests.at(-1)?.request.url ?? "");
    expect(asked.searchParams.getAll("npub")).toEqual([user.npub]);
    const deleted = await call(user, "/clients/delete", {
      method: "POST",
      body: { id: "my-agent" },
    });
    expect(deleted.status).toBe(200);
    expect(requests.every(({ request }) => request.headers.get("authorization") === null)).toBe(
      true,
    );
  });
});

describe("the model allowlist", () => {
  test("is off by default, and on it refuses what is not on the daemon's list or cannot be read", async () => {
    const daemon = await startDaemon(database);
    await daemon.order({ do: "store", key: "routstr21Models", value: '["good"]' });
    await startWithMembers({ ROUTSTRD_AUTH_MODEL_ALLOWLIST: "true" });
    const ask = async (body: object) =>
      (
        await call(null, "/v1/chat/completions", {
          method: "POST",
          body,
          headers: { authorization: `Bearer ${plain.apiKey}` },
        })
      ).status;
    expect(await ask({ model: "good" })).toBe(200);
    expect(await ask({ model: "bad" })).toBe(403);
    expect(await ask({})).toBe(403);
    await daemon.order({ do: "store", key: "routstr21Models", value: "not json" });
    expect(await ask({ model: "good" })).toBe(403);
    await daemon.stop();
  });
});
