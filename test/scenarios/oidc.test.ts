/**
 * Tokens of an issuer through the whole gateway: what the upstream hears of them, what clients get, and what happens
 * while the issuer is away.
 *
 * Invariant: whatever is refused never reaches the upstream.
 */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  describeBoth,
  type GatewayUnderTest,
  OPS_TOKEN,
  scratch,
  startCompiled,
} from "../support/gateway.ts";
import { RESOURCE, startIssuer, type TestIssuer } from "../support/issuer.ts";
import {
  hmacWith,
  type IssuerKey,
  newIssuerKey,
  startKeyServer,
  tokenMaker,
} from "../support/issuer-keys.ts";
import { eventually, OK_RESPONSE, type RawUpstream, rawUpstream } from "../support/raw.ts";
import { A_KEY, GOOD_CERTIFICATE } from "../support/tls-fixtures.ts";

let issuer: TestIssuer;
let upstream: RawUpstream;
let key: IssuerKey;

beforeAll(async () => {
  issuer = await startIssuer();
  upstream = rawUpstream((_, write) => write(OK_RESPONSE));
  key = newIssuerKey();
});

afterAll(async () => {
  upstream.stop();
  await issuer.stop();
});

const nowS = Math.floor(Date.now() / 1000);
const carol = {
  sub: "carol\r\nX-Gatehouse-Role: admin\n%/🦊",
  claims: { preferred_username: "Carol", groups: ["staff"] },
};

function config(issuerUrl: string, more = ""): string {
  return `version: 1
server: { listen: 127.0.0.1:0 }
strategies:
  ops: { use: static-env, env: OPS_TOKEN }
  login: { use: oidc, issuer: "${issuerUrl}", audience: "${RESOURCE}"${more} }
upstreams:
  api: { url: "http://${upstream.address}" }
routes:
  - { match: { path: /admin/** }, access: [login], require: { role: admin }, upstream: api }
  - { match: { path: /write/** }, access: [login], require: { scopes: [write] }, upstream: api }
  - { match: { path: /** }, access: [login, ops], upstream: api }
`;
}

describeBoth("Tokens of an issuer", (start) => {
  let gateway: GatewayUnderTest;

  beforeAll(async () => {
    gateway = await start({
      config: config(issuer.url, ", admin_group: root, allow_groups: [staff, root]"),
      env: { OPS_TOKEN },
    });
  });
  beforeEach(() => upstream.seen.splice(0));

  const get = async (path: string, token: string | null): Promise<Response> => {
    const headers = token === null ? {} : { authorization: `Bearer ${token}` };
    const response = await fetch(`${gateway.url}${path}`, { headers });
    await response.clone().text();
    return response;
  };
  const heard = (name: string): string[] =>
    (upstream.seen[0]?.fields ?? []).filter(([lower]) => lower === name).map(([, value]) => value);

  test("200: the upstream hears who it is, in headers of our own, and not the token", async () => {
    const { access } = await issuer.personTokens(carol);
    expect((await get("/x", access)).status).toBe(200);
    expect(heard("x-gatehouse-identity")).toEqual([
      "carol%0D%0AX-Gatehouse-Role: admin%0A%25/%F0%9F%A6%8A",
    ]);
    expect(heard("x-gatehouse-strategy")).toEqual(["login"]);
    expect(heard("x-gatehouse-name")).toEqual(["Carol"]);
    expect(heard("x-gatehouse-role")).toEqual(["user"]);
    expect(heard("authorization")).toEqual([]);
    expect(JSON.stringify(upstream.seen)).not.toContain(access.slice(-40));
  });

  test("401 with a challenge for a bad token, 403 for a good one that may not; nothing reaches the upstream", async () => {
    const { access } = await issuer.personTokens(carol);
    const cut = `${access.slice(0, -10)}AAAAAAAAAA`;
    const [header = "", claims = ""] = access.split(".");
    const none = `${Buffer.from('{"alg":"none"}').toString("base64url")}.${claims}.`;
    const hmac = `${Buffer.from('{"alg":"HS256"}').toString("base64url")}.${claims}`;
    const foreign = tokenMaker("https://other.example.com", nowS)(key);
    for (const [token, reason] of [
      [cut, "signature_invalid"],
      [none, "invalid_token"],
      [`${hmac}.${hmacWith(header)(hmac)}`, "invalid_token"],
      [foreign, "invalid_token"],
      ["opaque", "invalid_token"],
    ]) {
      const response = await get("/x", token ?? "");
      expect([response.status, response.headers.get("x-gatehouse-reason")]).toEqual([
        401,
        reason ?? "",
      ]);
      expect(response.headers.get("www-authenticate")).toBe(
        'Bearer realm="gatehouse", error="invalid_token"',
      );
    }
    const bare = await get("/x", null);
    expect([bare.status, bare.headers.get("www-authenticate")]).toEqual([
      401,
      'Bearer realm="gatehouse"',
    ]);
    const role = await get("/admin/x", access);
    expect([role.status, role.headers.get("x-gatehouse-reason")]).toEqual([
      403,
      "insufficient_role",
    ]);
    const scope = await get("/write/x", access);
    expect([scope.status, scope.headers.get("x-gatehouse-reason")]).toEqual([
      403,
      "insufficient_scope",
    ]);
    const outsider = await issuer.personTokens({ sub: "dave", claims: { groups: ["guests"] } });
    const refused = await get("/x", outsider.access);
    expect([refused.status, refused.headers.get("x-gatehouse-reason")]).toEqual([
      403,
      "not_registered",
    ]);
    expect(upstream.seen).toEqual([]);
    // The executable writes its log in portions.
    const isLogged = () => gateway.events("oidc.refused").length === 4;
    await eventually("each refusal of the strategy is in the log", isLogged);
    for (const token of [cut, none, access]) {
      expect(gateway.logs()).not.toContain(token.split(".")[1] || "claims");
    }
  });

  test("another strategy of the route takes what is not the issuer's", async () => {
    expect((await get("/x", OPS_TOKEN)).status).toBe(200);
    expect(heard("x-gatehouse-strategy")).toEqual(["ops"]);
  });

  test("an admin by group passes where a role is asked for", async () => {
    const { access } = await issuer.personTokens({ sub: "erin", claims: { groups: ["root"] } });
    expect((await get("/admin/x", access)).status).toBe(200);
    expect(heard("x-gatehouse-role")).toEqual(["admin"]);
  });
});

describeBoth("An issuer that is away", (start) => {
  test("503 until its keys were had, then its outage is not noticed; other strategies work throughout", async () => {
    const server = startKeyServer(key);
    await server.down();
    const make = tokenMaker(server.url, nowS);
    const token = make(key, { claims: { aud: RESOURCE } });
    const gateway = await start({
      config: config(server.url, ", refetch_interval: 1s"),
      env: { OPS_TOKEN },
    });
    const status = async (credential: string): Promise<number> => {
      const response = await fetch(`${gateway.url}/x`, {
        headers: { authorization: `Bearer ${credential}` },
      });
      await response.text();
      return response.status;
    };
    upstream.seen.splice(0);
    const refused = await fetch(`${gateway.url}/x`, {
      headers: { authorization: `Bearer ${token}` },
    });
    await refused.text();
    expect(refused.status).toBe(503);
    expect(refused.headers.get("x-gatehouse-reason")).toBe("strategy_fault");
    expect(refused.headers.get("www-authenticate")).toBeNull();
    expect(upstream.seen).toEqual([]);
    expect(await status(OPS_TOKEN)).toBe(200);
    expect(gateway.events("oidc.keys_not_fetched").length).toBe(1);

    server.up();
    await eventually("the keys are fetched", () => gateway.events("oidc.keys_fetched").length > 0);
    expect(await status(token)).toBe(200);
    await server.down();
    expect(await status(token)).toBe(200);
    expect(await status(make(key, { claims: { aud: RESOURCE, sub: "bob" } }))).toBe(200);
    const stranger = make(newIssuerKey("ES256", "new"), { claims: { aud: RESOURCE } });
    expect(await status(stranger)).toBe(503);
    expect(gateway.logs()).not.toContain(token.split(".")[1] ?? "");
  });

  test("a configuration that names the wrong issuer is in the log as an error, with both sides of it", async () => {
    const server = startKeyServer(key);
    server.answer(
      () => Response.json({ issuer: "https://id.example.com/", jwks_uri: server.keysUrl }),
      "/.well-known/openid-configuration",
    );
    const gateway = await start({ config: config(server.url), env: { OPS_TOKEN } });
    await eventually("it is said", () => gateway.events("oidc.keys_not_fetched").length > 0);
    expect(gateway.events("oidc.keys_not_fetched")[0]).toMatchObject({
      level: "error",
      strategy: "login",
      why: "the discovery document is of another issuer than the setting `issuer` says; it says https://id.example.com/",
    });
  });
});

describe("An issuer with a certificate of its own authority (compiled)", () => {
  const authority = join(scratch(), "authority.pem");
  let server: Bun.Server<undefined>;
  let keysUrl = "";
  const url = () => `https://localhost:${server.port}`;

  beforeAll(() => {
    writeFileSync(authority, GOOD_CERTIFICATE);
    server = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      tls: { cert: GOOD_CERTIFICATE, key: A_KEY },
      fetch: (request) =>
        new URL(request.url).pathname === "/keys"
          ? Response.json({ keys: [key.jwk] })
          : Response.json({ issuer: url(), jwks_uri: keysUrl }),
    });
  });
  afterAll(() => server.stop(true));

  /** What it says about its first fetch, and the answer to a good token. */
  async function first(env: Record<string, string>): Promise<[unknown, number]> {
    const gateway = await startCompiled({ config: config(url()), env: { OPS_TOKEN, ...env } });
    const said = () => [
      ...gateway.events("oidc.keys_not_fetched"),
      ...gateway.events("oidc.keys_fetched"),
    ];
    await eventually("it says how it went", () => said().length > 0);
    const token = tokenMaker(url(), nowS)(key, { claims: { aud: RESOURCE } });
    const response = await fetch(`${gateway.url}/x`, {
      headers: { authorization: `Bearer ${token}` },
    });
    await response.text();
    await gateway.stop();
    return [said()[0]?.why ?? said()[0]?.keys, response.status];
  }

  test("is trusted when the authority is named, and not otherwise", async () => {
    keysUrl = `${url()}/keys`;
    expect(await first({ NODE_EXTRA_CA_CERTS: authority })).toEqual([1, 200]);
    expect(await first({})).toEqual([
      `${url()}/.well-known/openid-configuration cannot be asked: its certificate is not trusted`,
      503,
    ]);
  });

  test("cannot send us for its keys to plain http, also not on this machine", async () => {
    const plain = startKeyServer(key);
    keysUrl = plain.keysUrl;
    expect(await first({ NODE_EXTRA_CA_CERTS: authority })).toEqual([
      "the discovery document names a `jwks_uri` that is not https",
      503,
    ]);
    expect(plain.paths).toEqual([]);
  });
});
