/**
 * Forward-auth: a reverse proxy asks whether the request that it holds may pass.
 *
 * Invariant: the answer to a question is the decision that the same request would meet at the same routes, and a
 * question that is not asked by a trusted proxy, once, in its own words, is refused.
 */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { describeBoth, type GatewayUnderTest, startInProcess } from "../support/gateway.ts";
import { newKey, signed } from "../support/nostr.ts";
import { eventually, type RawAnswer, raw, rawUpstream, valuesOf } from "../support/raw.ts";

const OPS = "ops-token-0123456789-abcdefghij";
const BOSS = "boss-token-0123456789-abcdefghi";
const ENV = { OPS, BOSS };
const npub = newKey();

type Proxy = "traefik" | "nginx" | "caddy" | "envoy" | "generic";
const PROXIES: readonly Proxy[] = ["traefik", "nginx", "caddy", "envoy", "generic"];

interface Asked {
  readonly method?: string;
  readonly host?: string;
  readonly target: string;
  /** Header lines, each with CRLF. */
  readonly lines?: string;
}

function config(upstream: string, trusted = "[127.0.0.1/32]"): string {
  return `version: 1
server:
  listen: 127.0.0.1:0
  trusted_proxies: ${trusted}
strategies:
  ops: { use: static-env, env: OPS }
  boss: { use: static-env, env: BOSS, role: admin }
  nostr: { use: nip98, admins: [${npub.npub}] }
upstreams:
  api: { url: ${upstream} }
routes:
  - { match: { path: /auth/traefik }, check: traefik }
  - { match: { path: /auth/nginx }, check: nginx }
  - { match: { path: /auth/caddy }, check: caddy }
  - { match: { path: /auth/envoy/** }, check: envoy }
  - { match: { path: /auth/generic }, check: generic }
  - { match: { path: /own/generic }, access: [ops], check: { proxy: generic, allow_status: 204 } }
  - { match: { path: /own/nginx }, access: [ops, nostr], require: { role: user }, check: nginx }
  - { match: { path: /public/** }, access: public, upstream: api }
  - { match: { path: /closed/** }, access: [ops] }
  - { match: { path: /admin/** }, access: [ops, boss], require: { role: admin }, upstream: api }
  - { match: { path: /read, methods: [GET, HEAD] }, access: [ops], upstream: api }
  - { match: { path: /signed/** }, access: [nostr], upstream: api }
  - match: { path: /remote/** }
    access: [ops, boss]
    upstream: api
    identity_headers: { identity: x-me, role: x-my-role, attributes: { x-my-key: pubkey } }
  - { match: { path: /models }, access: [ops], upstream: api, models: { allow: [a] } }
  - { match: { path: /v1/**, host: llm.example.com }, access: [ops], refuse: [basic], upstream: api }
`;
}

/** How each proxy asks, by its documentation. */
function question(
  proxy: Proxy,
  { method = "GET", host = "app.example.com", target, lines = "" }: Asked,
): string {
  const own = (path: string, name = "gatehouse") => `GET ${path} HTTP/1.1\r\nHost: ${name}\r\n`;
  const forwarded = `X-Forwarded-Method: ${method}\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: ${host}\r\nX-Forwarded-Uri: ${target}\r\nX-Forwarded-For: 192.0.2.7\r\n`;
  if (proxy === "envoy") {
    return `${method} /auth/envoy${target} HTTP/1.1\r\nHost: ${host}\r\nX-Forwarded-Proto: https\r\nContent-Length: 0\r\n${lines}`;
  }
  if (proxy === "nginx") {
    const original = `X-Original-Method: ${method}\r\nX-Original-URL: https://${host}${target}\r\nX-Forwarded-For: 192.0.2.7\r\n`;
    return own("/auth/nginx") + original + lines;
  }
  return own(`/auth/${proxy}`) + forwarded + lines;
}

const ask = (address: string, head: string): Promise<RawAnswer> =>
  raw(address, `${head}Connection: close\r\n\r\n`);

function direct(
  address: string,
  { method = "GET", host = "app.example.com", target, lines = "" }: Asked,
) {
  return ask(address, `${method} ${target} HTTP/1.1\r\nHost: ${host}\r\n${lines}`);
}

/** Every value of a header of an answer, `null` when it is not there. */
function header(answer: RawAnswer, name: string): string | null {
  return new RegExp(`^${name}: ?(.*)\r$`, "im").exec(answer.text)?.[1] ?? null;
}

const bearer = (token: string) => `Authorization: Bearer ${token}\r\n`;
const IDENTITY = ["identity", "strategy", "name", "role"].map((name) => `x-gatehouse-${name}`);

/** The same table for both faces. */
const TABLE: readonly (Asked & { readonly title: string })[] = [
  { title: "public, nobody", target: "/public/x?a=1" },
  {
    title: "public, a token and a spoofed identity",
    target: "/public/x",
    lines: `${bearer(OPS)}X-Gatehouse-Identity: root\r\n`,
  },
  { title: "guarded by role, nobody", target: "/admin/x" },
  { title: "guarded by role, a user", target: "/admin/x", lines: bearer(OPS) },
  { title: "guarded by role, an admin", target: "/admin/x", lines: bearer(BOSS) },
  { title: "a wrong token", target: "/admin/x", lines: bearer("no-such-token-0123456789") },
  { title: "two tokens", target: "/admin/x", lines: bearer(OPS) + bearer(BOSS) },
  { title: "a method of the route", target: "/read", lines: bearer(OPS) },
  { title: "HEAD", method: "HEAD", target: "/read", lines: bearer(OPS) },
  { title: "another method", method: "POST", target: "/read", lines: bearer(OPS) },
  { title: "DELETE", method: "DELETE", target: "/remote/1", lines: bearer(OPS) },
  { title: "OPTIONS", method: "OPTIONS", target: "/remote/1", lines: bearer(OPS) },
  { title: "PATCH without a token", method: "PATCH", target: "/remote/1" },
  { title: "a path without a route", target: "/nowhere", lines: bearer(OPS) },
  { title: "a route without an upstream, nobody", target: "/closed/x" },
  { title: "a route without an upstream, a token", target: "/closed/x", lines: bearer(OPS) },
  { title: "another host's route", target: "/v1/models", lines: bearer(OPS) },
  { title: "the host's route", target: "/v1/models", host: "llm.example.com", lines: bearer(OPS) },
  {
    title: "the host's route, with a port",
    target: "/v1/models",
    host: "llm.example.com:8443",
    lines: bearer(OPS),
  },
  {
    title: "a refused scheme",
    target: "/v1/models",
    host: "llm.example.com",
    lines: "Authorization: Basic b3BzOm9wcw==\r\n",
  },
  { title: "a credential in the URL", target: "/remote/1?access_token=abc", lines: bearer(OPS) },
  { title: "an ambiguous path", target: "/public/..%2fadmin/x" },
  { title: "a case apart", target: "/Admin/x" },
  { title: "a bad escape", target: "/public/%zz" },
  { title: "an encoded slash in a name", target: "/public/vendor%2Fmodel" },
  {
    title: "own header names",
    target: "/remote/1",
    lines: `${bearer(OPS)}X-Me: root\r\nX-My-Key: abc\r\n`,
  },
];

describeBoth("forward-auth", (start) => {
  const upstream = rawUpstream();
  let gateway: GatewayUnderTest;

  beforeAll(async () => {
    gateway = await start({ config: config(`http://${upstream.address}`), env: ENV });
  });
  beforeEach(() => {
    upstream.seen.length = 0;
  });
  afterAll(() => upstream.stop());

  describe.each([...PROXIES])(
    "%s is given the decision that the request itself would meet",
    (proxy) => {
      test.each([...TABLE])("$title", async (row) => {
        const served = await direct(gateway.address, row);
        const isServed = upstream.seen.length === 1;
        const seen = upstream.seen[0];
        upstream.seen.length = 0;
        const answer = await ask(gateway.address, question(proxy, row));
        expect(upstream.seen).toHaveLength(0);
        expect(answer.statuses[0] === 200).toBe(isServed);
        if (isServed) {
          const isRemote = row.target.startsWith("/remote");
          for (const name of isRemote ? ["x-me", "x-my-role", "x-my-key"] : IDENTITY) {
            // What the upstream would not be told, the proxy is told to empty.
            expect([name, header(answer, name)]).toEqual([name, valuesOf(seen, name)[0] ?? ""]);
          }
        } else {
          expect(header(answer, "x-gatehouse-reason")).toBe(header(served, "x-gatehouse-reason"));
          const status = served.statuses[0] ?? 0;
          const spoken = proxy === "nginx" && status !== 401 ? 403 : status;
          expect(answer.statuses).toEqual([spoken]);
          expect(header(answer, "www-authenticate")).toBe(header(served, "www-authenticate"));
        }
      });

      test("with every identity header of the config, empty where nothing is known", async () => {
        const answer = await ask(gateway.address, question(proxy, { target: "/public/x" }));
        expect(answer.statuses).toEqual([200]);
        for (const name of [...IDENTITY, "x-me", "x-my-role", "x-my-key"]) {
          expect([name, header(answer, name)]).toEqual([name, ""]);
        }
      });

      test("a path is judged as the proxy will send it on, before dots and slashes are resolved", async () => {
        for (const target of [
          "/admin//../public/x",
          "/admin/../public/x",
          "/public/../admin/x",
          "//public/x",
          // Where dots at the end of a name are dropped, nothing is left of `...`, and `..` leads further up.
          "/public/.../../admin/x",
          "/public/.%20./../admin/x",
        ]) {
          const answer = await ask(
            gateway.address,
            question(proxy, { target, lines: bearer(OPS) }),
          );
          expect([target, header(answer, "x-gatehouse-reason")]).toEqual([
            target,
            "path_ambiguous",
          ]);
        }
        const harmless = await ask(gateway.address, question(proxy, { target: "/public/./x//y" }));
        expect(harmless.statuses).toEqual([200]);
      });

      test("a model cannot be read from here, so it is refused", async () => {
        const asked = { method: "POST", target: "/models", lines: bearer(OPS) };
        const answer = await ask(gateway.address, question(proxy, asked));
        expect([answer.statuses, header(answer, "x-gatehouse-reason")]).toEqual([
          [403],
          "model_unreadable",
        ]);
      });

      test("a question about a question is refused", async () => {
        const asked = { target: "/auth/generic", lines: bearer(OPS) };
        const answer = await ask(gateway.address, question(proxy, asked));
        expect(header(answer, "x-gatehouse-reason")).toBe("no_route");
      });

      test("a signed request is compared with the original's URL and method", async () => {
        const url = "https://app.example.com/signed/x?y=1";
        const lines = (method: string) => `Authorization: ${signed(npub, { url, method })}\r\n`;
        const target = "/signed/x?y=1";
        const good = await ask(gateway.address, question(proxy, { target, lines: lines("GET") }));
        expect([good.statuses, header(good, "x-gatehouse-identity")]).toEqual([[200], npub.pubkey]);
        const wrong = await ask(
          gateway.address,
          question(proxy, { target: "/signed/z", lines: lines("GET") }),
        );
        expect(header(wrong, "x-gatehouse-reason")).toBe("wrong_audience");
        // The body, which the proof would have to cover, is not here.
        const asked = { method: "POST", target, lines: lines("POST") };
        const unseen = await ask(gateway.address, question(proxy, asked));
        expect(header(unseen, "x-gatehouse-reason")).toBe("signature_invalid");
      });
    },
  );

  const asked: Asked = { target: "/remote/1", lines: bearer(OPS) };

  async function unreadable(head: string): Promise<void> {
    const { text, statuses } = await ask(gateway.address, head);
    expect([head, statuses[0], text.includes("original_unreadable")]).toEqual([
      head,
      head.includes("/nginx ") ? 403 : 400,
      true,
    ]);
    expect(upstream.seen).toHaveLength(0);
  }

  test.each([
    ["X-Forwarded-Method: GET"],
    ["X-Forwarded-Proto: https"],
    ["X-Forwarded-Host: app.example.com"],
    ["X-Forwarded-Uri: /remote/1"],
  ])("%s missing, twice or broken is refused", async (line) => {
    const name = line.split(":")[0] ?? "";
    for (const proxy of ["traefik", "caddy", "generic"] as const) {
      const whole = question(proxy, asked);
      expect(whole).toContain(line);
      await unreadable(whole.replace(`${line}\r\n`, ""));
      await unreadable(`${whole}${line}\r\n`);
      for (const value of ["", ",", `x, ${line.split(": ")[1]}`, "a b", "\u00e9"]) {
        await unreadable(whole.replace(line, `${name}: ${value}`));
      }
    }
  });

  test("nginx: a missing, second, relative or foreign URL is refused", async () => {
    const whole = question("nginx", asked);
    const line = /X-Original-URL: .*\r\n/.exec(whole)?.[0] ?? "";
    await unreadable(whole.replace(line, ""));
    await unreadable(whole + line);
    await unreadable(`${whole}X-Original-URI: /remote/1\r\n`);
    await unreadable(whole.replace(/X-Original-Method: .*\r\n/, ""));
    for (const value of [
      "/remote/1",
      "ftp://app.example.com/x",
      "https://",
      "https:///x",
      "https://a@b/x",
      "https://a/x#y",
      "https://a/x y",
      "https://a",
    ]) {
      await unreadable(whole.replace(line, `X-Original-URL: ${value}\r\n`));
    }
    const uri = question("nginx", { target: "/x" }).replace(
      /Host: .*\r\n/,
      "Host: app.example.com\r\n",
    );
    const good = `${uri.replace(/X-Original-URL: .*\r\n/, "X-Original-URI: /remote/1\r\n")}${bearer(OPS)}`;
    expect((await ask(gateway.address, good)).statuses).toEqual([200]);
  });

  test("another proxy's words beside one's own are refused", async () => {
    const words = [
      "X-Original-URL: https://a/x",
      "X-Original-URI: /x",
      "X-Original-Method: GET",
      "X-Rewrite-URL: /x",
      "X-Envoy-Original-Path: /x",
    ];
    const theirs = ["X-Forwarded-Uri: /x", "X-Forwarded-Method: GET"];
    for (const proxy of PROXIES) {
      const foreign =
        proxy === "nginx"
          ? [...theirs, ...words.slice(3)]
          : proxy === "envoy"
            ? [...theirs, ...words]
            : words;
      for (const line of foreign) await unreadable(`${question(proxy, asked)}${line}\r\n`);
    }
  });

  test("odd methods are refused, TRACE and CONNECT among them", async () => {
    for (const method of ["get", "TRACE", "CONNECT", "G T", ""]) {
      await unreadable(question("traefik", { ...asked, method }));
      await unreadable(question("nginx", { ...asked, method }));
    }
  });

  test("own access: by the route's own strategies, whatever the other routes say", async () => {
    const head = question("nginx", { target: "/nowhere?x", lines: bearer(OPS) }).replace(
      "/auth/nginx",
      "/own/nginx",
    );
    const allowed = await ask(gateway.address, head);
    expect([
      allowed.statuses,
      header(allowed, "x-gatehouse-strategy"),
      header(allowed, "x-me"),
    ]).toEqual([[200], "ops", null]);
    const url = "https://app.example.com/nowhere?x";
    const proof = `Authorization: ${signed(npub, { url, method: "GET" })}\r\n`;
    const byProof = await ask(gateway.address, head.replace(bearer(OPS), proof));
    expect([byProof.statuses, header(byProof, "x-gatehouse-strategy")]).toEqual([[200], "nostr"]);
    const denied = await ask(gateway.address, head.replace(OPS, BOSS));
    expect([denied.statuses, header(denied, "x-gatehouse-reason")]).toEqual([
      [401],
      "invalid_token",
    ]);
  });

  test("own access for any proxy needs no word about the original, and answers the status it is told", async () => {
    const bare = "GET /own/generic HTTP/1.1\r\nHost: g\r\n";
    const allowed = await ask(gateway.address, bare + bearer(OPS));
    expect([allowed.statuses, header(allowed, "x-gatehouse-strategy")]).toEqual([[204], "ops"]);
    expect((await ask(gateway.address, bare)).statuses).toEqual([401]);
    await unreadable(`${bare}${bearer(OPS)}X-Forwarded-Uri: /x\r\n`);
  });

  test("the log tells the original request, its route and who asked", async () => {
    await ask(
      gateway.address,
      question("traefik", { method: "PUT", target: "/admin/q?z=1", lines: bearer(OPS) }),
    );
    const isIt = (event: Record<string, unknown>) => event.path === "/admin/q";
    await eventually("the decision", () => gateway.events("auth.decision").some(isIt));
    const last = gateway.events("auth.decision").find(isIt);
    expect(last).toMatchObject({
      check: "traefik",
      method: "PUT",
      host: "app.example.com",
      path: "/admin/q",
      client_ip: "192.0.2.7",
      decision: "deny",
      reason: "insufficient_role",
    });
  });
});

describeBoth("forward-auth from a peer that is not trusted", (start) => {
  test("is refused, but for own access for any proxy, where nothing that it says is believed", async () => {
    const upstream = rawUpstream();
    const text = config(`http://${upstream.address}`, "[192.0.2.1/32]");
    const gateway = await start({ config: text, env: ENV });
    for (const proxy of PROXIES) {
      const answer = await ask(
        gateway.address,
        question(proxy, { target: "/public/x", lines: bearer(OPS) }),
      );
      expect([proxy, answer.statuses, header(answer, "x-gatehouse-reason")]).toEqual([
        proxy,
        [403],
        "untrusted_proxy",
      ]);
    }
    const own = question("generic", { target: "/x", lines: bearer(OPS) }).replace(
      "/auth/",
      "/own/",
    );
    expect((await ask(gateway.address, own)).statuses).toEqual([204]);
    expect((await ask(gateway.address, own.replace(OPS, BOSS))).statuses).toEqual([401]);
    expect(upstream.seen).toHaveLength(0);
    upstream.stop();
  });
});

describeBoth("forward-auth where the client has a say in how the question looks", (start) => {
  test("no route but one with check answers it, whatever its method, host or dots", async () => {
    const upstream = rawUpstream();
    const cors = 'cors: { origins: ["https://a.example.com"], methods: [DELETE] }';
    const text = `version: 1
server: { listen: 127.0.0.1:0, trusted_proxies: [127.0.0.1/32] }
strategies: { ops: { use: static-env, env: OPS } }
upstreams: { api: { url: "http://${upstream.address}" } }
routes:
  - { match: { path: /ask/get, methods: [GET] }, check: traefik }
  - { match: { path: /ask/host, host: app.example.com }, check: traefik }
  - { match: { path: /ask/envoy/** }, check: envoy }
  - { match: { path: /ask/get-envoy/**, methods: [GET] }, check: envoy }
  - { match: { path: /guarded/** }, access: [ops], upstream: api }
  - { match: { path: /** }, access: public, upstream: api, ${cors} }
`;
    const gateway = await start({ config: text, env: ENV });
    const from = "Origin: https://a.example.com\r\nAccess-Control-Request-Method: DELETE\r\n";
    const words = question("traefik", { target: "/guarded/x" }).split("\r\n").slice(2).join("\r\n");
    const lengthless = "Host: app.example.com\r\nContent-Length: 0\r\n";
    for (const head of [
      `POST /ask/get HTTP/1.1\r\n${lengthless}${words}`,
      `HEAD /ask/get HTTP/1.1\r\nHost: app.example.com\r\n${words}`,
      `GET /ask/host HTTP/1.1\r\nHost: app.example.com\r\n${words.replaceAll("app.example.com", "b.example.com")}`,
      "GET /ask/envoy/../guarded/x HTTP/1.1\r\nHost: app.example.com\r\n",
      "GET /ask/envoy/%2e%2e/guarded/x?a HTTP/1.1\r\nHost: app.example.com\r\n",
      "GET /ask/envoy/../../x/../guarded/x HTTP/1.1\r\nHost: app.example.com\r\n",
      `POST /ask/get-envoy/guarded/x HTTP/1.1\r\n${lengthless}`,
      `OPTIONS /ask/get-envoy/guarded/x HTTP/1.1\r\nHost: app.example.com\r\n${from}`,
    ]) {
      const answer = await ask(gateway.address, head);
      expect([head, answer.statuses, header(answer, "x-gatehouse-reason")]).toEqual([
        head,
        [404],
        "no_route",
      ]);
    }
    expect(upstream.seen).toHaveLength(0);
    // What the routes are for still works.
    const asked = "GET /ask/envoy/guarded/x HTTP/1.1\r\nHost: app.example.com\r\n";
    expect((await ask(gateway.address, asked)).statuses).toEqual([401]);
    expect((await ask(gateway.address, asked + bearer(OPS))).statuses).toEqual([200]);
    expect((await direct(gateway.address, { target: "/ask/other" })).statuses).toEqual([200]);
    await gateway.stop();
    upstream.stop();
  });
});

describe("forward-auth without upstreams", () => {
  test("`upstream: proxy` passes when asked about and is 404 when it comes by itself", async () => {
    const text = `version: 1
server: { listen: 127.0.0.1:0, trusted_proxies: [127.0.0.1/32] }
strategies: { ops: { use: static-env, env: OPS } }
routes:
  - { match: { path: /auth/traefik }, check: traefik }
  - { match: { path: /** }, access: [ops], upstream: proxy }
`;
    const gateway = await startInProcess({ config: text, env: ENV });
    const asked = { target: "/x", lines: bearer(OPS) };
    expect((await ask(gateway.address, question("traefik", asked))).statuses).toEqual([200]);
    expect((await ask(gateway.address, question("traefik", { target: "/x" }))).statuses).toEqual([
      401,
    ]);
    expect((await direct(gateway.address, asked)).statuses).toEqual([404]);
    expect((await direct(gateway.address, { target: "/x" })).statuses).toEqual([401]);
    await gateway.stop();
  });
});
