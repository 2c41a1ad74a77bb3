/**
 * `serve --preset rusty-valkey-forward-auth`: the original's environment, data and endpoints, on a real Valkey and with
 * a real issuer.
 *
 * Invariant: what the original's clients, its frontend and its proxies rely on is as it was; where it was unsafe, the
 * start or the request is refused.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { blake3 } from "@noble/hashes/blake3.js";
import { type Running, runBinary, startBinary } from "../support/binary.ts";
import { scratch } from "../support/gateway.ts";
import { startIssuer, type TestIssuer } from "../support/issuer.ts";
import { newIssuerKey, startKeyServer, tokenMaker } from "../support/issuer-keys.ts";
import {
  startValkey,
  TEST_SALT,
  type TestValkey,
  until,
  valkeyMissing,
} from "../support/valkey.ts";

const PRESET = ["serve", "--preset", "rusty-valkey-forward-auth"];
const it = valkeyMissing === null ? test : test.skip;

/** As the original hashes. */
function hashOf(token: string): string {
  const key = new Uint8Array(Buffer.from(TEST_SALT, "hex"));
  return Buffer.from(blake3(new TextEncoder().encode(token), { key })).toString("hex");
}

describe(`rusty-valkey-forward-auth${valkeyMissing === null ? "" : ` (skipped: ${valkeyMissing})`}`, () => {
  let valkey: TestValkey;
  let issuer: TestIssuer;
  let running: Running;
  const cwd = scratch();

  beforeAll(async () => {
    if (valkeyMissing !== null) return;
    mkdirSync(join(cwd, "site", "assets"), { recursive: true });
    writeFileSync(join(cwd, "site", "index.html"), "<h1>Tokens</h1>");
    writeFileSync(join(cwd, "site", "assets", "app.js"), "start()");
    [valkey, issuer] = await Promise.all([startValkey(), startIssuer()]);
    running = await startBinary(PRESET, { cwd, env: environment() });
  });
  afterAll(async () => {
    await running?.kill();
    await issuer?.stop();
  });

  function environment(): Record<string, string> {
    return {
      PORT: "0",
      VALKEY_URL: valkey.url,
      TOKEN_SALT: TEST_SALT,
      OAUTH_ISSUER_URL: issuer.url,
      OAUTH_ADMIN_GROUP: "Root",
      STATIC_DIR: "site",
      FRONTEND_API_BASE_URL: "https://tokens.example.com//",
    };
  }

  const get = (path: string, headers: Record<string, string> = {}) =>
    fetch(`${running.url}${path}`, { headers, redirect: "manual" });
  const ask = (authorization: string) => get("/forward-auth", { authorization });
  const login = async (sub: string, groups: readonly string[] = []) =>
    `Bearer ${(await issuer.personTokens({ sub, claims: { groups } })).access}`;
  const api = (path: string, authorization: string, method = "GET", body?: object) =>
    fetch(`${running.url}${path}`, {
      method,
      headers: { authorization, "content-type": "application/json" },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });

  it("a token of the original passes: 204, its subject and its id, nothing else of it", async () => {
    const token = "OriginalTokenOfThirtyTwoLetters1";
    const client = valkey.client();
    await client.hset(`auth:token:${hashOf(token)}`, {
      sub: "alice",
      created_at: "2026-01-02T03:04:05.123456789Z",
      description: "",
    });
    await client.sadd("auth:user_tokens:alice", hashOf(token));
    const basic = (text: string) => `Basic ${Buffer.from(text).toString("base64")}`;
    for (const said of [
      `Bearer ${token}`,
      `bEaReR ${token}`,
      basic(`u:${token}`),
      basic(token),
      basic(`${token}:`),
    ]) {
      const response = await ask(said);
      expect(response.status).toBe(204);
      expect(response.headers.get("x-authenticated-user")).toBe("alice");
      expect(response.headers.get("x-authenticated-token-id")).toBe(hashOf(token));
      expect(await response.text()).toBe("");
    }
    // Some proxies ask with the method of the request, and Envoy with a body if it is told to.
    for (const method of ["HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"]) {
      const asked = { method, headers: { authorization: `Bearer ${token}` } };
      const body = ["POST", "PUT"].includes(method) ? { body: "of the request" } : {};
      const response = await fetch(`${running.url}/forward-auth`, { ...asked, ...body });
      expect([method, response.status, response.headers.get("x-authenticated-user")]).toEqual([
        method,
        204,
        "alice",
      ]);
    }
    await client.del(`auth:token:${hashOf(token)}`);
    expect((await ask(`Bearer ${token}`)).status).toBe(401);
    client.disconnect();
  });

  it("no token and a wrong one are 401 with the original's messages", async () => {
    const none = await get("/forward-auth");
    expect([none.status, await none.json()]).toMatchObject([401, { message: "missing token" }]);
    const wrong = await ask("Bearer nobodyHasThisTokenNobodyHasThis1");
    expect([wrong.status, await wrong.json()]).toMatchObject([401, { message: "invalid token" }]);
    expect(wrong.headers.get("x-authenticated-user")).toBeNull();
  });

  it("people make, list and delete their own tokens; each change holds on the next request", async () => {
    const [alice, bob] = [await login("alice"), await login("bob|1/2%")];
    const made = await api("/api/me/tokens", alice, "POST", { description: " laptop " });
    expect(made.status).toBe(201);
    const { token, id, sub, description } = (await made.json()) as Record<string, string>;
    expect([sub, description, id]).toEqual(["alice", "laptop", hashOf(token ?? "")]);
    expect(token).toMatch(/^[A-Za-z0-9]{32}$/);
    const passed = await ask(`Bearer ${token}`);
    expect([passed.status, passed.headers.get("x-authenticated-user")]).toEqual([204, "alice"]);

    const stored = await valkey.client().hgetall(`auth:token:${id}`);
    expect(stored).toMatchObject({ sub: "alice", description: "laptop" });
    expect(stored.created_at).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z$/);

    const listed = (await (await api("/api/me/tokens", alice)).json()) as { id: string }[];
    expect(listed.map((one) => one.id)).toEqual([id ?? ""]);
    expect(await (await api("/api/me/tokens", bob)).json()).toEqual([]);
    const foreign = await api(`/api/me/tokens/${id}`, bob, "DELETE");
    expect([foreign.status, await foreign.json()]).toMatchObject([
      404,
      { message: "token not found" },
    ]);
    expect((await ask(`Bearer ${token}`)).status).toBe(204);
    expect((await api(`/api/me/tokens/${id}`, alice, "DELETE")).status).toBe(204);
    expect((await ask(`Bearer ${token}`)).status).toBe(401);
  });

  it("admins, by group in any case, see everybody's; others do not", async () => {
    const [admin, bob] = [await login("root", ["staff", "ROOT"]), await login("bob")];
    await api("/api/users/carol/tokens", admin, "POST", {});
    const seen = (await (await api("/api/users/carol/tokens", admin)).json()) as {
      description: null;
    }[];
    expect(seen).toMatchObject([{ description: null }]);
    const refused = await api("/api/users/carol/tokens", bob);
    expect([refused.status, await refused.json()]).toMatchObject([
      403,
      { message: "admin privileges required" },
    ]);
  });

  it("the API is closed without a login, and a token of Valkey is no login", async () => {
    expect((await fetch(`${running.url}/api/me/tokens`)).status).toBe(401);
    const made = await api("/api/me/tokens", await login("dave"), "POST", {});
    const { token } = (await made.json()) as { token: string };
    expect((await api("/api/me/tokens", `Bearer ${token}`)).status).toBe(401);
  });

  it("the frontend gets its page, its files and the seven values that it asks for", async () => {
    expect(await (await get("/?code=1&state=2")).text()).toBe("<h1>Tokens</h1>");
    expect(await (await get("/assets/app.js")).text()).toBe("start()");
    const deep = await get("/somewhere/else");
    expect([deep.status, await deep.text()]).toEqual([404, "<h1>Tokens</h1>"]);
    expect(await (await get("/frontend/config")).json()).toEqual({
      app_name: "Rusty Valkey Forward Auth",
      api_base_url: "https://tokens.example.com",
      oidc_authority: issuer.url,
      oidc_client_id: "rusty-valkey-forward-auth-dev",
      oidc_redirect_uri: null,
      docs_html: null,
      api_docs_path: "/docs",
    });
  });

  it("health, and documentation without anything from elsewhere", async () => {
    expect(await (await get("/health/live")).json()).toEqual({ status: "ok" });
    expect(await (await get("/health/ready")).json()).toEqual({ status: "ready" });
    const page = await (await get("/docs")).text();
    expect(page).toContain("/api/me/tokens");
    expect(page).not.toMatch(/(?:src|href)="(?:https?:)?\/\//);
    const document = (await (await get("/openapi.json")).json()) as { openapi: string };
    expect(document.openapi).toStartWith("3.1");
  });

  it("without Valkey it is 503, never 204 or 401, and comes back by itself", async () => {
    const made = await api("/api/me/tokens", await login("erin"), "POST", {});
    const { token, id } = (await made.json()) as { token: string; id: string };
    const data = await valkey.client().hgetall(`auth:token:${id}`);
    await valkey.kill();
    expect((await ask(`Bearer ${token}`)).status).toBe(503);
    expect((await get("/health/ready")).status).toBe(500);
    expect((await get("/health/live")).status).toBe(200);
    await valkey.restart();
    await valkey.client().hset(`auth:token:${id}`, data);
    await until(async () => (await ask(`Bearer ${token}`)).status === 204);
  });

  it("a wrong issuer is refused also with a JWKS URL, which the original did not check", async () => {
    const key = newIssuerKey("RS256");
    const server = startKeyServer(key);
    const env = {
      ...environment(),
      OAUTH_JWKS_URL: server.keysUrl,
      OAUTH_ISSUER_URL: "https://issuer.example.com",
    };
    const second = await startBinary(PRESET, { cwd, env });
    const nowS = Math.floor(Date.now() / 1000);
    const status = async (issuedBy: string): Promise<number> => {
      const token = tokenMaker(issuedBy, nowS)(key, { claims: { sub: "mallory" } });
      const headers = { authorization: `Bearer ${token}` };
      return (await fetch(`${second.url}/api/me/tokens`, { headers })).status;
    };
    expect(await status("https://issuer.example.com")).toBe(200);
    expect(await status("https://elsewhere.example.com")).toBe(401);
    await second.kill();
  });

  it("settings.toml is read, the environment goes before it, and its secrets stay references", async () => {
    const dir = scratch();
    const toml = `address = "127.0.0.1"\nport = 1\nvalkey_url = "${valkey.url}"\ntoken_salt = "${TEST_SALT}"\nstatic_dir = "none"
[oauth]
issuer_url = "${issuer.url}"
audiences = ["https://api.example.com"]
[oauth.admin]
group = "ops"
[frontend]
app_name = "Keys"
api_docs_path = "reference"
`;
    writeFileSync(join(dir, "settings.toml"), toml, { mode: 0o600 });
    const third = await startBinary(PRESET, { cwd: dir, env: { PORT: "0" } });
    const values = (await (await fetch(`${third.url}/frontend/config`)).json()) as object;
    expect(values).toMatchObject({ app_name: "Keys", api_docs_path: "/reference" });
    expect((await fetch(`${third.url}/`)).status).toBe(404);
    await third.kill();
    const shown = await runBinary(
      ["config", "show", "--expanded", "--preset", "rusty-valkey-forward-auth"],
      { cwd: dir },
    );
    expect([shown.code, shown.stdout.includes(TEST_SALT)]).toEqual([0, false]);
    expect(shown.stdout).toContain("#token_salt}");
  });
});

describe("rusty-valkey-forward-auth refuses to start", () => {
  const good = {
    PORT: "0",
    VALKEY_URL: "redis://127.0.0.1:1",
    TOKEN_SALT: TEST_SALT,
    OAUTH_ISSUER_URL: "https://issuer.example.com",
  };
  const start = (env: Record<string, string>) => runBinary(PRESET, { cwd: scratch(), env });

  test.each([
    ["without a salt", { TOKEN_SALT: "" }, "TOKEN_SALT is not set or blank"],
    ["with a short salt", { TOKEN_SALT: "abcd" }, "expected 64 hex digits"],
    [
      "with the original's public salt",
      { TOKEN_SALT: "3794447850d23a5db972dbe556437ec2edfe4294687843d7f0587bd9535beecf" },
      "public default salt",
    ],
    ["without an issuer", { OAUTH_ISSUER_URL: " " }, "OAUTH_ISSUER_URL is not set"],
    [
      "with a password in the URL",
      { VALKEY_URL: "redis://u:canary77@127.0.0.1:1" },
      "VALKEY_PASSWORD",
    ],
    ["with another kind of URL", { VALKEY_URL: "http://127.0.0.1" }, "VALKEY_URL is none of"],
    ["with CORS for nobody", { CORS_ENABLED: "true" }, "CORS_ALLOW_ORIGINS is empty"],
    ["with a refresh of nothing", { OAUTH_JWKS_REFRESH_SECS: "0" }, "OAUTH_JWKS_REFRESH_SECS"],
    ["with a blank admin group", { OAUTH_ADMIN_GROUP: "" }, "OAUTH_ADMIN_GROUP"],
    ["with a blank claim", { OAUTH_GROUPS_CLAIM: " " }, "OAUTH_GROUPS_CLAIM"],
    ["with audiences that are none", { OAUTH_AUDIENCES: " , " }, "OAUTH_AUDIENCES"],
    ["with a word for yes or no", { OAUTH_ADMIN_CASE_SENSITIVE: "ture" }, "neither true nor"],
    ["with another one", { CORS_ENABLED: "ja" }, "CORS_ENABLED is neither"],
    ["without its settings", { CONFIG_FILE: "nope.toml" }, "cannot be read: ENOENT"],
    ["without its page", { FRONTEND_DOCS_HTML_FILE: "nope.html" }, "FRONTEND_DOCS_HTML_FILE"],
  ])("%s", async (_, env, said) => {
    const { code, stderr, stdout } = await start({ ...good, ...env });
    expect([code, stdout]).toEqual([78, ""]);
    expect(stderr).toContain(said);
    expect(stderr).not.toContain("canary77");
  });

  test.each([
    ["audiences that are no texts", "[oauth]\naudiences = [1, 2]", "oauth.audiences"],
    ["a blank admin group", '[oauth.admin]\ngroup = ""', "oauth.admin.group"],
  ])("with %s in its settings", async (_, toml, said) => {
    const cwd = scratch();
    writeFileSync(join(cwd, "settings.toml"), toml, { mode: 0o600 });
    const { code, stderr } = await runBinary(PRESET, { cwd, env: good });
    expect(code).toBe(78);
    expect(stderr).toContain(said);
  });

  test("when Valkey is not there", async () => {
    const { code, stderr } = await start(good);
    expect([code === 0, /valkey|Valkey/.test(stderr)]).toEqual([false, true]);
  });
});
