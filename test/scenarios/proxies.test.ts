/**
 * Reverse proxies that ask the gateway, with what `gatehouse emit` prints: nginx, Caddy and HAProxy for real, Traefik
 * and Envoy by what their documentation says.
 *
 * Invariant: the application behind the proxy never sees a request which the gateway would not have forwarded itself,
 * never a credential, and never a word of the client's about who it is.
 */
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test } from "bun:test";
import { join } from "node:path";
import { type GatewayUnderTest, scratch, startCompiled } from "../support/gateway.ts";
import { signed } from "../support/nostr.ts";
import {
  freePort,
  type ProxyName,
  proxyMissing,
  startProxy,
  stopProxies,
} from "../support/proxies.ts";
import {
  type Asked,
  BOSS,
  bearer,
  type Chain,
  emitted,
  type Front,
  headers,
  NPUB,
  OPS,
  send,
  startAsked,
  startChain,
  through,
} from "../support/proxy-suite.ts";
import { eventually, rawUpstream, valuesOf } from "../support/raw.ts";

const REAL: readonly ProxyName[] = ["nginx", "caddy", "haproxy"];
const FRONTS: readonly Front[] = [...REAL, "traefik", "envoy"];
const missing = new Map(REAL.map((name) => [name as Front, proxyMissing(name)]));

/** Skips by name, with what to install in the title. */
function describeFront(front: Front, suite: () => void): void {
  const absent = missing.get(front) ?? null;
  if (absent === null) describe(`behind ${front}`, suite);
  else describe.skip(`behind ${front} (${absent})`, suite);
}

let gateway: GatewayUnderTest;

afterAll(stopProxies);
beforeAll(async () => {
  gateway = await startAsked();
});
afterAll(async () => {
  await gateway.stop();
});

const IDENTITY = ["identity", "strategy", "name", "role"].map((name) => `x-gatehouse-${name}`);
/** Proxies that can only strip by name; the others know namespaces. */
const BY_NAME: readonly Front[] = ["nginx", "envoy"];

for (const front of FRONTS) {
  describeFront(front, () => {
    let chain: Chain;

    beforeAll(async () => {
      chain = await startChain(front, gateway);
    });
    beforeEach(() => {
      chain.upstream.seen.length = 0;
    });
    afterAll(() => chain.stop());

    const refused = async (asked: Asked, status: number, reason?: string): Promise<void> => {
      const { status: got, seen, answer } = await through(chain, asked);
      expect([asked, got, seen.length]).toEqual([asked, status, 0]);
      if (reason !== undefined) expect(headers(answer, "x-gatehouse-reason")).toEqual([reason]);
    };

    test("a token passes: who it is goes on, the credential stays", async () => {
      for (const lines of [bearer(OPS), `X-API-Key: ${OPS}\r\n`]) {
        const { status, seen } = await through(chain, { target: "/v1/models?a=1&b=%2F", lines });
        expect([status, seen.length]).toEqual([200, 1]);
        expect(seen[0]?.line).toBe("GET /v1/models?a=1&b=%2F HTTP/1.1");
        const said = IDENTITY.map((name) => valuesOf(seen[0], name).join());
        expect(said).toEqual(["ops", "ops", "", "user"]);
        expect(valuesOf(seen[0], "host")).toEqual(["app.example.com"]);
        expect(valuesOf(seen[0], "x-forwarded-for")).toEqual(["127.0.0.1"]);
        expect(valuesOf(seen[0], "x-forwarded-proto")).toEqual(["http"]);
        expect(seen[0]?.head).not.toContain(OPS);
        expect(valuesOf(seen[0], "authorization")).toEqual([]);
        expect(valuesOf(seen[0], "x-api-key")).toEqual([]);
      }
    });

    test("the application's request id is the one in the gateway's log", async () => {
      const { seen } = await through(chain, { target: "/admin/id", lines: bearer(BOSS) });
      const [id] = valuesOf(seen[0], "x-request-id");
      const decisions = () => gateway.events("auth.decision");
      await eventually("the decision", () => decisions().some((one) => one.request_id === id));
      expect(decisions().find((one) => one.request_id === id)).toMatchObject({
        path: "/admin/id",
        method: "GET",
        host: "app.example.com",
        client_ip: "127.0.0.1",
        decision: "allow",
      });
    });

    test("no token is 401 with every challenge, a wrong one as well", async () => {
      const { status, answer, seen } = await through(chain, { target: "/both/x" });
      expect([status, seen.length]).toEqual([401, 0]);
      const challenges = headers(answer, "www-authenticate").join(", ");
      expect(challenges).toBe('Bearer realm="gatehouse", Nostr realm="gatehouse"');
      expect(answer.text).toContain('"reason":"no_credential"');
      expect(headers(answer, "x-request-id")).toHaveLength(1);
      await refused(
        { target: "/v1/x", lines: bearer("no-such-token-01234") },
        401,
        "invalid_token",
      );
      // Two tokens; nginx has a 400 of its own for them.
      await refused({ target: "/v1/x", lines: bearer(OPS) + bearer(BOSS) }, 400);
    });

    test("a role that is missing is 403, a store that is away 503 and never 401", async () => {
      await refused({ target: "/admin/x", lines: bearer(OPS) }, 403, "insufficient_role");
      await refused({ target: "/broken", lines: bearer(OPS) }, 503);
    });

    test("a path without a route is refused, with a token or without", async () => {
      const status = front === "nginx" ? 403 : 404;
      await refused({ target: "/nowhere" }, status, "no_route");
      await refused({ target: "/auth/generic", lines: bearer(OPS) }, status, "no_route");
    });

    test("a public path passes without an identity, and takes no credential along", async () => {
      const lines = `${bearer(OPS)}X-API-Key: ${OPS}\r\n`;
      const { status, seen } = await through(chain, { target: "/public/x", lines });
      expect([status, seen.length]).toEqual([200, 1]);
      expect(seen[0]?.head).not.toContain(OPS);
      for (const name of IDENTITY) expect(valuesOf(seen[0], name).join()).toBe("");
    });

    test("what a client says about itself goes no further, in any spelling, on any path", async () => {
      const names = [
        ...IDENTITY,
        ...["remote-user", "remote-groups", "x-forwarded-user", "x-auth-request-user"],
        ...["x-consumer-username", "x-webauth-user", "forwarded", "x-real-ip", "true-client-ip"],
        ...["x-original-url", "x-rewrite-url", "x-http-method-override", "x-forwarded-prefix"],
        ...["x-forwarded-for", "x-forwarded-host", "x-forwarded-uri", "x-forwarded-method"],
        ...(BY_NAME.includes(front) ? [] : ["x-gatehouse-new", "x-auth-request-new"]),
      ];
      const spellings = [
        (name: string) => name,
        (name: string) => name.toUpperCase(),
        (name: string) => name.replaceAll("-", "_"),
        (name: string) => name.replace("-", "_"),
        // Envoy knows what to do about `_` alone.
        ...(front === "envoy" ? [] : [(name: string) => name.replaceAll("-", ".")]),
      ];
      for (const spell of spellings) {
        for (const target of ["/public/x", "/v1/x"]) {
          const spoofs = names.map((name) => `${spell(name)}: spoofed\r\n`).join("");
          const lines = spoofs + bearer(OPS) + spoofs;
          const { status, seen } = await through(chain, { target, lines });
          expect([spell("a-b"), target, status, seen.length]).toEqual([
            spell("a-b"),
            target,
            200,
            1,
          ]);
          expect(seen[0]?.head).not.toContain("spoofed");
        }
      }
    });

    test("Connection takes no header away, neither who was proven nor what is asked", async () => {
      const facts = [...IDENTITY, "x-forwarded-for", "x-forwarded-proto", "x-request-id"];
      const words = [
        "x-original-url",
        "x-original-method",
        "x-forwarded-uri",
        "x-forwarded-method",
      ];
      for (const name of [...facts, ...words, "x-forwarded-host", "host"]) {
        const connection = `close, ${name}`;
        const asked: Asked = { target: "/v1/x", lines: bearer(OPS), connection };
        const { status, seen } = await through(chain, asked);
        expect([name, status, seen.length]).toEqual([name, 200, 1]);
        expect([name, valuesOf(seen[0], "x-gatehouse-identity")]).toEqual([name, ["ops"]]);
        expect(valuesOf(seen[0], "x-forwarded-for")).toEqual(["127.0.0.1"]);
        await refused({ target: "/admin/x", connection }, 401);
      }
      const { seen } = await through(chain, {
        target: "/v1/x",
        lines: bearer(OPS),
        connection: "close, authorization",
      });
      for (const one of seen) expect(valuesOf(one, "x-gatehouse-identity")).toEqual(["ops"]);
    });

    test("another request than the one that is made cannot be asked about", async () => {
      const swaps = [
        "X-Forwarded-Uri: /public/x",
        "X-Forwarded-Method: OPTIONS",
        "X-Forwarded-Host: public.example.com",
        "X-Forwarded-Proto: https",
        "X-Original-URL: http://app.example.com/public/x",
        "X-Original-URI: /public/x",
        "X-Original-Method: GET",
        "X-Rewrite-URL: /public/x",
        "X-Envoy-Original-Path: /public/x",
        "X-HTTP-Method-Override: GET",
        "Forwarded: for=192.0.2.1;host=public.example.com;proto=https",
      ].map((line) => `${line}\r\n`);
      for (const lines of [...swaps, ...swaps.map((line) => line + line), swaps.join("")]) {
        await refused({ target: "/admin/x", lines }, 401, "no_credential");
        await refused({ target: "/admin/x", lines: lines + bearer(OPS) }, 403, "insufficient_role");
        const { status, seen } = await through(chain, { target: "/public/y", lines });
        expect([lines, status, seen.length]).toEqual([lines, 200, 1]);
        expect(seen[0]?.line).toBe("GET /public/y HTTP/1.1");
      }
    });

    test("a request signed with a Nostr key passes for the URL that it was signed for", async () => {
      const url = "http://app.example.com/signed/x?y=1";
      const lines = () => `Authorization: ${signed(NPUB, { url, method: "GET" })}\r\n`;
      const good = await through(chain, { target: "/signed/x?y=1", lines: lines() });
      expect(good.status).toBe(200);
      expect(valuesOf(good.seen[0], "x-gatehouse-identity")).toEqual([NPUB.pubkey]);
      expect(good.seen[0]?.head).not.toContain("Nostr ");
      await refused({ target: "/signed/x?y=2", lines: lines() }, 401, "wrong_audience");
      await refused({ method: "HEAD", target: "/signed/x?y=1", lines: lines() }, 401);
    });

    test("HEAD and OPTIONS are asked about as what they are", async () => {
      const head = await through(chain, { method: "HEAD", target: "/read" });
      expect([head.status, head.seen[0]?.line]).toEqual([200, "HEAD /read HTTP/1.1"]);
      const none = await through(chain, { method: "HEAD", target: "/v1/x" });
      expect([none.status, none.seen.length]).toEqual([401, 0]);
      expect(none.answer.text).toEndWith("\r\n\r\n");
      await refused({ method: "OPTIONS", target: "/v1/x" }, 401);
      const asked: Asked = { method: "OPTIONS", target: "/v1/x", lines: bearer(OPS) };
      expect((await through(chain, asked)).seen[0]?.line).toBe("OPTIONS /v1/x HTTP/1.1");
      const length = "Content-Length: 0\r\n";
      const status = front === "nginx" ? 403 : 404;
      await refused({ method: "POST", target: "/read", lines: length }, status);
    });

    test("no answer from the gateway is no pass", async () => {
      const lost = await startChain(front, gateway, {
        askAt: `http://127.0.0.1:${await freePort()}`,
      });
      // At once, because HAProxy tries three times, a second apart.
      const answers = await Promise.all(
        ["/public/x", "/v1/x"].map((target) => send(lost.address, { target, lines: bearer(BOSS) })),
      );
      for (const { statuses } of answers) expect([500, 502, 503]).toContain(statuses[0] ?? 0);
      expect(lost.upstream.seen).toHaveLength(0);
      await lost.stop();
    });

    test("hosts: what is asked about is the host that the application is told", async () => {
      const tricks: readonly Asked[] = [
        { host: "internal.example.com", target: "/public/x" },
        { host: "INTERNAL.example.com:80", target: "/public/x" },
        { host: "internal.example.com.", target: "/public/x" },
        { host: "app.example.com", target: "http://internal.example.com/public/x" },
        { host: "internal.example.com", target: "http://app.example.com/public/x" },
        { host: "app.example.com:8080", target: "/public/x" },
        { host: "app.example.com, internal.example.com", target: "/public/x" },
        { host: "internal.example.com@app.example.com", target: "/public/x" },
        { host: "", target: "/public/x" },
      ];
      for (const asked of tricks) {
        const { seen } = await through(chain, asked);
        for (const { line, fields } of seen) {
          const host = fields.find(([name]) => name === "host")?.[1] ?? "";
          expect([asked, line, /internal/i.test(host + line)]).toEqual([asked, line, false]);
          // A path, whatever form it came in.
          expect(line).toMatch(/^GET \/public\/x /);
        }
      }
    });
  });
}

describe("own access, asked over a unix socket", () => {
  for (const front of REAL) {
    const absent = missing.get(front) ?? null;
    const title = absent === null ? front : `${front} (${absent})`;
    test.skipIf(absent !== null)(title, async () => {
      const socket = join(scratch(), "gate.sock");
      const asked = await startCompiled({
        config: `version: 1
server: { listen: "unix:${socket}", trusted_proxies: [unix] }
strategies: { ops: { use: static-env, env: OPS, header: x-ops-key, authorization: false } }
routes:
  - { match: { path: /auth }, access: [ops], check: ${front === "haproxy" ? "generic" : front}, identity_headers: remote }
`,
        env: { OPS },
      });
      onTestFinished(() => asked.stop());
      const chain = await startChain(front, asked, { askAt: `unix:${socket}` });
      const good = await through(chain, { target: "/any/thing", lines: `X-Ops-Key: ${OPS}\r\n` });
      expect([good.status, valuesOf(good.seen[0], "remote-user")]).toEqual([200, ["ops"]]);
      expect(valuesOf(good.seen[0], "x-ops-key")).toEqual([]);
      const denied = await through(chain, { target: "/any/thing", lines: bearer(OPS) });
      expect([denied.status, denied.seen.length]).toEqual([401, 0]);
      await chain.stop();
    });
  }
});

const noNginx = missing.get("nginx") ?? null;

test.skipIf(noNginx !== null)(
  `two sites of one nginx: a request for one is not judged as one for the other (${noNginx ?? "real"})`,
  async () => {
    const [open, closed] = [rawUpstream(), rawUpstream()];
    const to = ["--gateway", gateway.url, "--upstream", `http://${open.address}`];
    const text = await emitted(gateway.configFile, "nginx", ...to);
    const site = text.slice(text.indexOf("\nserver {"));
    const other = site
      .replace("server_name app.example.com", "server_name internal.example.com")
      .replace("http://gatehouse_app", `http://${closed.address}`);
    const proxy = await startProxy("nginx", { text: text + other });
    const ask = (asked: Asked) => send(proxy.address, asked);
    for (const target of [
      "http://internal.example.com/public/x",
      "HTTP://INTERNAL.example.com/public/x",
    ]) {
      const { statuses } = await ask({ host: "app.example.com", target });
      expect([400, 401, 403]).toContain(statuses[0] ?? 0);
    }
    expect((await ask({ host: "internal.example.com", target: "/public/x" })).statuses).toEqual([
      401,
    ]);
    expect([open.seen.length, closed.seen.length]).toEqual([0, 0]);
    const boss: Asked = { host: "internal.example.com", target: "/x", lines: bearer(BOSS) };
    expect((await ask(boss)).statuses).toEqual([200]);
    expect((await ask({ target: "http://app.example.com/public/x" })).statuses).toEqual([200]);
    expect([open.seen.length, closed.seen.length]).toEqual([1, 1]);
    await proxy.stop();
    open.stop();
    closed.stop();
  },
);
