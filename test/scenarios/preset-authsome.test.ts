/**
 * The preset `authsome` in front of a stand-in that verifies its proofs over method, path and body.
 *
 * Invariant: a browser gets through claim, login and consent without a credential of ours; everything else needs one,
 * in a header of its own; proofs, bodies and cookies pass untouched, and our credential stays here.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { describeBoth, type GatewayUnderTest } from "../support/gateway.ts";
import {
  BOSS_TOKEN,
  checkSpellings,
  checkTable,
  presetConfig,
  rowsFor,
  TEAM_TOKEN,
  TOKENS_ENV,
} from "../support/preset-table.ts";
import { raw } from "../support/raw.ts";
import { authsomeStandIn } from "../support/standins/authsome.ts";

const HEADER = "X-Gatehouse-Key";
const STRATEGY = { header: HEADER, authorization: false };

const PAGES = ["/login/", "/claim/", "/auth/input/", "/auth/device/", "/auth/success/"];
const PAGE_CALLS = [
  "/api/claim/tok",
  "/api/auth/sessions/s/input",
  "/api/auth/sessions/s/device",
  "/api/auth/sessions/s/status",
];

describeBoth("the preset authsome", (start) => {
  const upstream = authsomeStandIn();
  const { agent } = upstream;
  let gateway: GatewayUnderTest;
  const subject = {
    gateway: () => gateway,
    seenCount: () => upstream.seen.length,
    header: HEADER,
    body: "",
  };

  beforeAll(async () => {
    const config = presetConfig("authsome", upstream.url, { strategy: STRATEGY });
    gateway = await start({ config, env: TOKENS_ENV });
  });
  afterAll(() => upstream.stop());

  // A 401 of the stand-in, which wants a proof, counts as passed.
  checkTable(subject, [
    ...rowsFor([...PAGES, "/_next/static/x.js", "/logo.svg"], "GET", { nobody: 200, user: 200 }),
    ...rowsFor(["/login", "/claim", "/claim/tok"], "GET", { nobody: 303 }),
    ...rowsFor(PAGE_CALLS, "GET", { nobody: 200, stranger: 200 }),
    ["GET", "/api/auth/callback/oauth?code=c&state=good", "nobody", 303],
    ["POST", "/auth/input?session=s", "nobody", 303],
    ["POST", "/api/auth/sessions/s/input", "nobody", 303],
    ["POST", "/api/claim/tok/confirm", "nobody", 303],
    ["POST", "/api/auth/login", "nobody", 303],
    ["POST", "/api/logout", "nobody", 303],
    ...rowsFor(["/api/auth/register"], "POST", { nobody: 401, user: 403, admin: 303 }),
    ...rowsFor(["/api/identities/register"], "POST", { nobody: 401, stranger: 401, user: 200 }),
    ...rowsFor(["/api/health", "/api/identities/brave-otter"], "GET", { nobody: 401, user: 200 }),
    ["GET", "/api/identities/by-did/did:key:z6MkTest", "nobody", 401],
    ["GET", "/api/identities/by-did/did:key:z6MkTest", "user", 200],
    ...rowsFor(["/api/whoami", "/api/connections/github/default", "/api/ready"], "GET", {
      nobody: 401,
      user: 401,
    }),
    ...rowsFor(["/api/providers", "/api/connections/github/revoke"], "POST", {
      nobody: 401,
      user: 403,
      admin: 401,
    }),
    ["POST", "/api/connections/github/work/global", "user", 403],
    ["DELETE", "/api/connections/github/global", "user", 403],
    ["DELETE", "/api/providers/github", "user", 403],
    ["GET", "/api/principals", "user", 403],
    ["GET", "/api/providers", "user", 401],
    ...rowsFor(["/", "/agents/", "/docs", "/openapi.json"], "GET", { nobody: 401, user: 404 }),
    ["DELETE", "/api/claim/tok", "nobody", 401],
    ["POST", "/login/", "nobody", 401],
    ["PUT", "/api/auth/login", "nobody", 401],
  ]);

  checkSpellings(subject, [
    ["GET", "/api/whoami", "nobody"],
    ["POST", "/api/auth/register", "nobody"],
    ["POST", "/api/providers", "user"],
  ]);

  // From an open path there is no way to a closed one.
  checkTable(subject, [
    ["GET", "/claim/../api/whoami", "nobody", 401],
    ["GET", "/claim/..%2fapi%2fwhoami", "nobody", 400],
    ["GET", "/_next/%2e%2e/docs", "nobody", 401],
    ["GET", "/api/claim/tok/../../whoami", "nobody", 401],
    ["GET", "/api/claim/tok%2f..%2f..%2fwhoami", "nobody", 400],
    ["GET", "/api/auth/sessions/s/status/../../../../whoami", "nobody", 401],
    ["GET", "/api/auth/sessions/s/x", "nobody", 401],
  ]);

  function call(
    method: string,
    path: string,
    options: { key?: string; proof?: string; body?: string | ReadableStream } = {},
  ): Promise<Response> {
    return fetch(gateway.url + path, {
      method,
      redirect: "manual",
      headers: {
        ...(options.key === undefined ? {} : { [HEADER]: options.key }),
        ...(options.proof === undefined ? {} : { authorization: options.proof }),
      },
      ...(options.body === undefined ? {} : { body: options.body }),
    });
  }

  test("a proof passes beside our credential, and our credential goes no further", async () => {
    upstream.seen.length = 0;
    const path = "/api/connections/github/default?full=%2Fyes&x=a+b";
    const proof = agent.prove("GET", path);
    const response = await call("GET", path, { key: TEAM_TOKEN, proof });
    expect([response.status, await response.json()]).toEqual([200, { status: "ok", target: path }]);
    expect(upstream.seen[0]?.headers.get("authorization")).toBe(proof);
    expect(upstream.seen[0]?.headers.get(HEADER)).toBeNull();
    expect(JSON.stringify([...(upstream.seen[0]?.headers ?? [])])).not.toContain(TEAM_TOKEN);
  });

  test("a body is what was signed, byte for byte, with a length and without one", async () => {
    const body = '{"provider":"github",  "connection":"wörk\\u0000" }\r\n';
    const path = "/api/credentials/resolve";
    const whole = await call("POST", path, {
      key: TEAM_TOKEN,
      proof: agent.prove("POST", path, body),
      body,
    });
    expect(whole.status).toBe(200);
    const chunked = await call("POST", path, {
      key: TEAM_TOKEN,
      proof: agent.prove("POST", path, body),
      body: new ReadableStream({
        start(controller) {
          for (const byte of new TextEncoder().encode(body)) {
            controller.enqueue(new Uint8Array([byte]));
          }
          controller.close();
        },
      }),
    });
    expect(chunked.status).toBe(200);
  });

  test("a proof alone is 401 here, a proof for another path or a second time is 401 there", async () => {
    upstream.seen.length = 0;
    const alone = await call("GET", "/api/ready", { proof: agent.prove("GET", "/api/ready") });
    expect([alone.status, alone.headers.get("x-gatehouse-reason")]).toEqual([401, "no_credential"]);
    expect(alone.headers.get("www-authenticate")).not.toContain("Bearer");
    expect(upstream.seen).toEqual([]);
    const proof = agent.prove("GET", "/api/ready");
    const elsewhere = await call("GET", "/api/providers", { key: TEAM_TOKEN, proof });
    expect(await elsewhere.json()).toEqual({ detail: "Proof JWT URL does not match request" });
    expect((await call("GET", "/api/ready", { key: TEAM_TOKEN, proof })).status).toBe(200);
    const again = await call("GET", "/api/ready", { key: TEAM_TOKEN, proof });
    expect([again.status, await again.json()]).toEqual([
      401,
      { detail: "Proof JWT was already used" },
    ]);
  });

  test("our token in Authorization is no credential here", async () => {
    const before = upstream.seen.length;
    const response = await call("GET", "/api/health", { proof: `Bearer ${TEAM_TOKEN}` });
    expect(response.status).toBe(401);
    expect(upstream.seen.length).toBe(before);
  });

  test("admin routes want the role here and the proof there", async () => {
    const path = "/api/connections/github/revoke";
    const as = (key: string) => call("POST", path, { key, proof: agent.prove("POST", path) });
    expect((await as(TEAM_TOKEN)).status).toBe(403);
    expect((await as(BOSS_TOKEN)).status).toBe(200);
  });

  test("a browser logs in: cookie, 303 and Location come through untouched", async () => {
    const { text } = await raw(
      gateway.address,
      "POST /api/auth/login HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 26\r\n\r\nemail=a%40b&password=right",
    );
    expect(text).toStartWith("HTTP/1.1 303 ");
    expect(text).toMatch(/^location: \/\r$/im);
    expect(text).toMatch(
      /^set-cookie: authsome_ui_session=cookie-value; HttpOnly; Max-Age=3600; Path=\/; SameSite=lax\r$/im,
    );
    const claimed = await fetch(`${gateway.url}/api/claim/tok/confirm`, {
      method: "POST",
      redirect: "manual",
      headers: { cookie: "authsome_ui_session=cookie-value" },
    });
    expect(claimed.headers.get("location")).toBe("/");
  });
});

describeBoth("the options of the preset authsome", (start) => {
  const upstream = authsomeStandIn();
  const { agent } = upstream;
  let gateway: GatewayUnderTest;
  const subject = {
    gateway: () => gateway,
    seenCount: () => upstream.seen.length,
    header: HEADER,
    body: "",
  };

  beforeAll(async () => {
    const config = presetConfig("authsome", upstream.url, {
      strategy: STRATEGY,
      with: { registration: true, dashboard: true, proofs: "alone" },
    });
    // Another strategy reads Authorization: on open routes it must not take the proof away.
    const other = config.replace(
      '"team":',
      '"other":{"use":"static-env","env":"TEAM_TOKEN"},"team":',
    );
    gateway = await start({ config: other, env: TOKENS_ENV });
  });
  afterAll(() => upstream.stop());

  checkTable(subject, [
    ["POST", "/api/auth/register", "nobody", 303],
    ...rowsFor(["/", "/agents/"], "GET", { nobody: 200 }),
    ["GET", "/api/whoami", "nobody", 401],
    ["POST", "/api/identities/register", "nobody", 200],
    ["GET", "/api/ready", "nobody", 401],
    ["POST", "/api/providers", "nobody", 401],
    ["POST", "/api/providers", "user", 403],
    ["GET", "/api/principals", "nobody", 401],
    ["GET", "/docs", "nobody", 401],
  ]);

  test("its own CLI gets in with its proof, and its dashboard with its cookie", async () => {
    const proven = await fetch(`${gateway.url}/api/ready`, {
      headers: { authorization: agent.prove("GET", "/api/ready") },
    });
    expect(proven.status).toBe(200);
    const seen = await fetch(`${gateway.url}/api/whoami`, {
      headers: { cookie: "authsome_ui_session=cookie-value" },
    });
    expect(seen.status).toBe(200);
    const both = await fetch(`${gateway.url}/api/whoami`, {
      headers: { authorization: agent.prove("GET", "/api/whoami"), [HEADER]: TEAM_TOKEN },
    });
    expect(both.status).toBe(200);
    expect(JSON.stringify(upstream.seen.map(({ headers }) => [...headers]))).not.toContain(
      TEAM_TOKEN,
    );
  });
});

describeBoth("an authsome whose strategies read Authorization", (start) => {
  test("lets nobody in by mistake: a proof is then no credential, and the key beside it not read", async () => {
    const upstream = authsomeStandIn();
    const config = presetConfig("authsome", upstream.url, { strategy: { header: HEADER } });
    const gateway = await start({ config, env: TOKENS_ENV });
    const response = await fetch(`${gateway.url}/api/ready`, {
      headers: { authorization: upstream.agent.prove("GET", "/api/ready"), [HEADER]: TEAM_TOKEN },
    });
    expect(response.status).toBe(401);
    expect(upstream.seen).toEqual([]);
    await upstream.stop();
  });
});
