/**
 * Our own answers, over raw sockets: the shape that the client's library expects, the same request id everywhere,
 * CORS so that a page can read a refusal, and the endpoints that need no credential.
 *
 * Invariant: our answers carry x-gatehouse-reason and the upstream's never do; a refused request is not seen by it.
 */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { describeBoth, type GatewayUnderTest, OPS_ENV, OPS_TOKEN } from "../support/gateway.ts";
import {
  eventually,
  OK_RESPONSE,
  openRaw,
  type RawAnswer,
  type RawUpstream,
  raw,
  rawUpstream,
} from "../support/raw.ts";

const CONFIG = (upstream: string, dead: string) => `version: 1
server:
  listen: 127.0.0.1:0
  health_path: /alive
  limits: { body_timeout: 100ms, head_timeout: 100ms }
strategies: { ops: { use: static-env, env: OPS_TOKEN } }
upstreams:
  api: { url: "http://${upstream}", timeouts: { response: 100ms }, max_body: 10B }
  dead: { url: "http://${dead}" }
routes:
  - { match: { path: /as/problem }, access: [ops], upstream: api, errors: problem }
  - { match: { path: /as/openai }, access: [ops], upstream: api, errors: openai }
  - { match: { path: /as/anthropic }, access: [ops], upstream: api, errors: anthropic }
  - { match: { path: /v1/as-problem }, access: [ops], upstream: api, errors: problem }
  - { match: { path: /dead/** }, access: public, upstream: dead }
  - { match: { path: /public/** }, access: public, upstream: api }
  - match: { path: /cors/** }
    access: [ops]
    upstream: api
    cors: { origins: ["https://app.example.com", "http://localhost:3000"], expose: [X-Mine], credentials: true }
  - match: { path: /posted, methods: [POST] }
    access: [ops]
    upstream: api
    cors: { origins: ["*"], methods: [POST], headers: [X-Api-Key], max_age: 60s }
  - { match: { path: [/v1/**, /plain/**] }, access: [ops], upstream: api }
`;
const BEARER = `Authorization: Bearer ${OPS_TOKEN}\r\n`;
const ORIGIN = "Origin: https://app.example.com\r\n";
const ASKS = "Access-Control-Request-Method: POST\r\n";

const bodyOf = ({ text }: RawAnswer): unknown =>
  JSON.parse(text.slice(text.indexOf("\r\n\r\n") + 4));
const field = ({ text }: RawAnswer, name: string): string[] =>
  [...text.matchAll(new RegExp(`\\r\\n${name}: (.*)(?=\\r)`, "gi"))].map((match) => match[1] ?? "");

describeBoth("answers", (start) => {
  let upstream: RawUpstream;
  let gateway: GatewayUnderTest;
  beforeAll(async () => {
    upstream = rawUpstream();
    const dead = rawUpstream();
    dead.stop();
    const config = CONFIG(upstream.address, dead.address);
    gateway = await start({ config, env: OPS_ENV });
  });
  beforeEach(() => {
    upstream.respond = (_, write) => write(OK_RESPONSE);
    upstream.seen.length = 0;
  });
  afterAll(async () => {
    upstream.stop();
    await gateway.stop();
  });

  const ask = (path: string, lines = "", method = "GET") =>
    raw(
      gateway.address,
      `${method} ${path} HTTP/1.1\r\nHost: a\r\n${lines}Connection: close\r\n\r\n`,
    );

  describe("shapes", () => {
    test("problem+json by default (RFC 9457)", async () => {
      const answer = await ask("/plain/x");
      expect(field(answer, "content-type")).toEqual(["application/problem+json"]);
      expect(bodyOf(answer)).toEqual({
        type: "urn:gatehouse:reason:no_credential",
        title: "Unauthorized",
        status: 401,
        detail: "A credential is needed.",
        reason: "no_credential",
        request_id: field(answer, "x-request-id")[0],
      });
    });

    test.each([
      "/v1/chat/completions",
      "/v1/models",
      "/v1/models/a%2Fb",
      "/v1/embeddings",
      "/v1/responses",
      "/as/openai",
    ])("%s: OpenAI's", async (path) => {
      const answer = await ask(path);
      expect(field(answer, "content-type")).toEqual(["application/json"]);
      expect(bodyOf(answer)).toEqual({
        error: {
          message: "A credential is needed.",
          type: "invalid_request_error",
          param: null,
          code: "invalid_api_key",
          reason: "no_credential",
          request_id: field(answer, "x-request-id")[0],
        },
      });
    });

    test.each([
      ["/v1/messages", ""],
      ["/v1/messages/count_tokens", ""],
      ["/v1/complete", ""],
      ["/v1/models", "anthropic-version: 2023-06-01\r\n"],
      ["/as/anthropic", ""],
    ])("%s %j: Anthropic's", async (path, lines) => {
      const answer = await ask(path, lines);
      expect(field(answer, "content-type")).toEqual(["application/json"]);
      expect(bodyOf(answer)).toEqual({
        type: "error",
        error: { type: "authentication_error", message: "A credential is needed." },
        reason: "no_credential",
        request_id: field(answer, "x-request-id")[0],
      });
    });

    test.each([
      "/v1/as-problem",
      "/as/problem",
      "/v1/other",
      "/v1",
      "/v1/modelsx",
      "/plain/v1/messages",
    ])("%s: problem+json", async (path) => {
      const answer = await ask(path);
      expect(field(answer, "content-type")).toEqual([expect.stringMatching(/^application\//)]);
      expect(bodyOf(answer)).toMatchObject({ status: 401, reason: "no_credential" });
    });

    test("the dialect of a path holds where no route matched or the path was refused", async () => {
      expect(bodyOf(await ask("/v1/chat/completions%2f..%2f..%2f..%2fx"))).toMatchObject({
        error: { code: "path_ambiguous" },
      });
      expect(bodyOf(await ask("/nowhere"))).toMatchObject({ status: 404, reason: "no_route" });
    });

    test("nothing internal is said: no upstream, address, version or stack", async () => {
      const answer = await ask("/dead/x");
      expect(answer.statuses).toEqual([502]);
      expect(field(answer, "x-gatehouse-reason")).toEqual(["upstream_unreachable"]);
      expect(answer.text).not.toMatch(/127\.0\.0\.1|dead|ECONN|gatehouse\/|bun|\.ts\b|server:/i);
    });
  });

  describe("every refusal", () => {
    const REFUSALS: readonly (readonly [string, string, string])[] = [
      ["no_credential", "/plain/x", ""],
      ["invalid_token", "/plain/x", "Authorization: Bearer nonsense\r\n"],
      ["no_route", "/nowhere", ""],
      ["path_malformed", "/public/%00", ""],
      ["upstream_unreachable", "/dead/x", ""],
    ];

    test.each([...REFUSALS])(
      "%s: the id in the body is the one in the header and in the log",
      async (reason, path, lines) => {
        const answer = await ask(path, lines);
        const id = field(answer, "x-request-id")[0];
        expect(bodyOf(answer)).toMatchObject({ reason, request_id: id });
        expect(field(answer, "x-gatehouse-reason")).toEqual([reason]);
        expect(field(answer, "cache-control")).toEqual(["no-store"]);
        expect(field(answer, "date").length).toBe(1);
        const access = () => gateway.events("http.access").filter((one) => one.request_id === id);
        await eventually("it is logged once", () => access().length === 1);
        expect(access()[0]).toMatchObject({ reason, status: answer.statuses[0] });
      },
    );

    test.each([...REFUSALS])(
      "%s: HEAD has the same head and no body",
      async (reason, path, lines) => {
        const got = await ask(path, lines);
        const head = await ask(path, lines, "HEAD");
        expect(head.text.endsWith("\r\n\r\n")).toBe(true);
        expect(head.text.split("\r\n\r\n").length).toBe(2);
        expect(head.statuses).toEqual([...got.statuses]);
        expect(field(head, "content-length")).toEqual(field(got, "content-length"));
        expect(field(head, "x-gatehouse-reason")).toEqual([reason]);
      },
    );

    test("of a request that cannot be read is in the log as well", async () => {
      const answer = await raw(gateway.address, "GET / HTTP/1.1\r\n\r\n");
      const id = field(answer, "x-request-id")[0];
      expect(bodyOf(answer)).toMatchObject({ reason: "bad_request", request_id: id });
      const decided = () => gateway.events("auth.decision").find((one) => one.request_id === id);
      await eventually("it is logged", () => decided() !== undefined);
      expect(decided()).toMatchObject({ decision: "deny", reason: "bad_request" });
    });

    test("a head that does not arrive in time is request_timeout", async () => {
      const connection = await openRaw(gateway.address);
      connection.send("GET /public/x HTTP/1.1\r\nHost:");
      const answer = await connection.read();
      expect([answer.statuses, field(answer, "x-gatehouse-reason")]).toEqual([
        [408],
        ["request_timeout"],
      ]);
    });

    test.each([
      ["body_too_large", 413, "Content-Length: 11\r\n\r\n", "hello world"],
      [
        "body_too_large",
        413,
        "Transfer-Encoding: chunked\r\n\r\n",
        "b\r\nhello world\r\n0\r\n\r\n",
      ],
      ["body_malformed", 400, "Transfer-Encoding: chunked\r\n\r\n", "x\r\n"],
      ["body_timeout", 408, "Content-Length: 5\r\n\r\n", "he"],
    ])("%s is %d", async (reason, status, lines, body) => {
      upstream.respond = () => {};
      const connection = await openRaw(gateway.address);
      connection.send(`POST /public/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n${lines}${body}`);
      const answer = await connection.read();
      expect([answer.statuses, field(answer, "x-gatehouse-reason")]).toEqual([[status], [reason]]);
    });

    test("upstream_timeout is 504 and upstream_broken 502", async () => {
      upstream.respond = () => {};
      const late = await ask("/public/x");
      expect([late.statuses, field(late, "x-gatehouse-reason")]).toEqual([
        [504],
        ["upstream_timeout"],
      ]);
      upstream.respond = (_, write) => write("HTTP/1.1 200\0\r\n\r\n");
      const broken = await ask("/public/x");
      expect([broken.statuses, field(broken, "x-gatehouse-reason")]).toEqual([
        [502],
        ["upstream_broken"],
      ]);
    });

    test("a client that leaves before the answer is client_closed, for the log", async () => {
      upstream.respond = () => {};
      const connection = await openRaw(gateway.address);
      connection.send("GET /public/leaves HTTP/1.1\r\nHost: a\r\n\r\n");
      await eventually("the request arrives", () => upstream.seen.length === 1);
      connection.kill();
      const access = () =>
        gateway.events("http.access").find((one) => one.path === "/public/leaves");
      await eventually("it is logged", () => access() !== undefined);
      expect(access()).toMatchObject({ reason: "client_closed", complete: false });
    });
  });

  describe("CORS", () => {
    const preflight = (path: string, origin = ORIGIN, asks = ASKS) =>
      ask(path, origin + asks, "OPTIONS");
    const corsOf = (answer: RawAnswer) =>
      [...answer.text.matchAll(/\r\n(Access-Control-[^:]*|Vary): (.*)(?=\r)/gi)].map(
        (match) => `${match[1]}: ${match[2]}`,
      );

    test("a preflight is answered before authentication and not passed on", async () => {
      const answer = await preflight("/cors/x");
      expect(answer.statuses).toEqual([204]);
      expect(corsOf(answer)).toEqual([
        "Vary: Origin",
        "Access-Control-Allow-Origin: https://app.example.com",
        "Access-Control-Allow-Credentials: true",
        "Access-Control-Allow-Methods: GET, HEAD, POST, PUT, PATCH, DELETE",
        "Access-Control-Allow-Headers: authorization, content-type, x-api-key",
        "Access-Control-Max-Age: 600",
      ]);
      expect(answer.text.endsWith("\r\n\r\n")).toBe(true);
      expect(upstream.seen).toEqual([]);
    });

    test("a preflight belongs to the route of the request that it asks about", async () => {
      const answer = await preflight("/posted", "Origin: https://anybody.example\r\n");
      expect(answer.statuses).toEqual([204]);
      expect(corsOf(answer)).toContain("Access-Control-Allow-Origin: *");
      expect(corsOf(answer)).toContain("Access-Control-Allow-Methods: POST");
      const other = await preflight("/posted", ORIGIN, "Access-Control-Request-Method: DELETE\r\n");
      expect(other.statuses).toEqual([404]);
      expect(upstream.seen).toEqual([]);
    });

    test.each([
      "https://evil.example",
      "https://app.example.com.evil.example",
      "https://APP.example.com",
      "http://app.example.com",
      "null",
      "",
    ])("the origin %j gets no permission", async (origin) => {
      const answer = await preflight("/cors/x", `Origin: ${origin}\r\n`);
      expect(answer.statuses).toEqual([204]);
      expect(corsOf(answer)).toEqual(["Vary: Origin"]);
    });

    test.each([
      ["OPTIONS without an origin", "/cors/x", ASKS],
      ["OPTIONS that asks about nothing", "/cors/x", ORIGIN],
      ["a preflight where the route has no CORS rules", "/plain/x", ORIGIN + ASKS],
    ])("%s needs a credential like any request", async (_, path, lines) => {
      expect((await ask(path, lines, "OPTIONS")).statuses).toEqual([401]);
      expect(upstream.seen).toEqual([]);
    });

    test("a page can read our refusals and tell them apart", async () => {
      const answer = await ask("/cors/x", ORIGIN);
      expect(answer.statuses).toEqual([401]);
      expect(corsOf(answer)).toEqual([
        "Vary: Origin",
        "Access-Control-Allow-Origin: https://app.example.com",
        "Access-Control-Allow-Credentials: true",
        "Access-Control-Expose-Headers: x-mine, x-request-id, x-gatehouse-reason",
      ]);
    });

    test("the upstream's own CORS fields are replaced, not doubled", async () => {
      upstream.respond = (_, write) =>
        write(
          "HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\naccess-control-allow-methods: DELETE\r\nVary: Accept\r\nContent-Length: 0\r\n\r\n",
        );
      const answer = await ask("/cors/x", ORIGIN + BEARER);
      expect(answer.statuses).toEqual([200]);
      expect(corsOf(answer)).toEqual([
        "Vary: Accept",
        "Vary: Origin",
        "Access-Control-Allow-Origin: https://app.example.com",
        "Access-Control-Allow-Credentials: true",
        "Access-Control-Expose-Headers: x-mine, x-request-id, x-gatehouse-reason",
      ]);
      const plain = await ask("/plain/x", ORIGIN + BEARER);
      expect(corsOf(plain)).toContain("Access-Control-Allow-Origin: *");
    });
  });

  describe("the health endpoint", () => {
    test("answers GET and HEAD to anybody, says no more than ok, and sees no upstream", async () => {
      const got = await ask("/alive");
      expect(got.statuses).toEqual([200]);
      expect(got.text.endsWith("\r\n\r\nok\n")).toBe(true);
      const head = await ask("/alive", "", "HEAD");
      expect(head.statuses).toEqual([200]);
      expect(head.text.endsWith("\r\n\r\n")).toBe(true);
      expect(upstream.seen).toEqual([]);
    });

    test("HEAD leaves nothing behind that would be read as the next answer", async () => {
      const heads = "HEAD /alive HTTP/1.1\r\nHost: a\r\n\r\n".repeat(2);
      const answer = await raw(
        gateway.address,
        `${heads}GET /alive HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`,
      );
      expect(answer.text.split("ok\n").length).toBe(2);
    });

    test.each([
      ["POST", "/alive", 404],
      ["GET", "/alive/", 404],
      ["GET", "/alive?x", 404],
      ["GET", "/healthz", 404],
      ["GET", "//alive", 404],
    ])("%s %s is not it: %d", async (method, path, status) => {
      expect((await ask(path, "", method)).statuses).toEqual([status]);
    });
  });

  test("an upstream's answer carries no x-gatehouse-reason, also when it is 401 or 503", async () => {
    for (const status of ["401 Unauthorized", "503 Service Unavailable"]) {
      upstream.respond = (_, write) => write(`HTTP/1.1 ${status}\r\nContent-Length: 4\r\n\r\nbody`);
      const answer = await ask("/plain/x", BEARER);
      expect(answer.text.startsWith(`HTTP/1.1 ${status}\r\n`)).toBe(true);
      expect(field(answer, "x-gatehouse-reason")).toEqual([]);
      expect(answer.text.endsWith("\r\n\r\nbody")).toBe(true);
    }
  });
});
