/** The pure parts of `doctor --probe`: requests, answers, paths, grades. */
import { describe, expect, test } from "bun:test";
import { loadFine } from "../../../test/support/config.ts";
import { type Answer, fieldOf, isServed, readAnswers } from "./answer.ts";
import { type GradeInput, gradeOf } from "./grade.ts";
import { type Ground, judge } from "./ground.ts";
import { candidates, isPublicBy, stemOf } from "./paths.ts";
import { requestText } from "./prober.ts";
import { readTarget, type Target } from "./target.ts";
import { climbs, spellings } from "./tricks.ts";

const TARGET: Target = {
  isTls: false,
  host: "localhost",
  port: 8080,
  authority: "localhost:8080",
  origin: "http://localhost:8080",
  path: "/admin",
  addresses: ["127.0.0.1"],
  isNear: true,
};

describe("requests", () => {
  const options = { target: TARGET, token: "secret-token", tokenHeader: "authorization" };

  test("are what was asked for, and close their connection", () => {
    expect(requestText({}, options)).toBe(
      "GET /admin HTTP/1.1\r\nHost: localhost:8080\r\nUser-Agent: gatehouse-doctor\r\nAccept: */*\r\nConnection: close\r\n\r\n",
    );
    const text = requestText(
      {
        method: "HEAD",
        path: "/x",
        lines: [
          ["Connection", "Upgrade"],
          ["A", "1"],
          ["A", "2"],
        ],
        host: null,
        version: "1.0",
      },
      options,
    );
    expect(text).toBe(
      "HEAD /x HTTP/1.0\r\nUser-Agent: gatehouse-doctor\r\nAccept: */*\r\nConnection: Upgrade\r\nA: 1\r\nA: 2\r\n\r\n",
    );
  });

  test("carry the token only when told so, in its header", () => {
    expect(requestText({}, options)).not.toContain("secret-token");
    expect(requestText({ isAuthorized: true }, options)).toContain(
      "Authorization: Bearer secret-token\r\n",
    );
    const other = { ...options, tokenHeader: "X-API-Key" };
    expect(requestText({ isAuthorized: true }, other)).toContain("X-API-Key: secret-token\r\n");
  });
});

describe("answers", () => {
  test("by length, in chunks, until the end, without a body, and after 100", () => {
    const one =
      "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: b\r\n\r\nok";
    const [first] = readAnswers(one, ["GET"], false);
    expect(first).toEqual({
      status: 200,
      fields: [
        ["content-length", "2"],
        ["x-a", "b"],
      ],
      body: "ok",
    });
    expect(readAnswers(`${one}${one}`, ["GET", "GET"], false)).toHaveLength(2);
    expect(readAnswers("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", ["GET"], false)).toEqual(
      [],
    );
    expect(
      readAnswers("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", ["HEAD"], false),
    ).toHaveLength(1);
    const chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    expect(readAnswers(chunked, ["GET"], false)).toHaveLength(1);
    expect(readAnswers(chunked.slice(0, -5), ["GET"], false)).toEqual([]);
    expect(readAnswers("HTTP/1.0 200 OK\r\n\r\nrest", ["GET"], true)[0]?.body).toBe("rest");
    expect(readAnswers("this is not HTTP\r\n\r\n", ["GET"], true)).toEqual([]);
    expect(readAnswers("HTTP/1.1 101 Up\r\n\r\nbytes", ["GET"], false)[0]?.status).toBe(101);
  });

  test("fields are found by name", () => {
    const answer: Answer = {
      status: 204,
      fields: [
        ["a", "1"],
        ["a", "2"],
      ],
      body: "",
    };
    expect(fieldOf(answer, "a")).toBe("1");
    expect(fieldOf(answer, "b")).toBeNull();
    expect(isServed(answer)).toBe(true);
  });
});

describe("what an attack has reached", () => {
  const page = (status: number, body: string): Answer => ({ status, fields: [], body });
  const guarded = { path: "/admin", refused: page(401, "no"), allowed: page(404, "no such model") };
  const ground = { nowhere: page(200, "the page for everything") } as Ground;

  test.each<[string, Answer | null, ReturnType<typeof judge>]>([
    ["no answer", null, "refused"],
    ["a refusal", page(403, "x"), "refused"],
    ["a malformed request", page(400, "x"), "refused"],
    ["what the token gets, although it is an error", page(404, "no such model"), "through"],
    ["another error", page(404, "nothing here"), "refused"],
    ["something that is served", page(200, "secrets"), "through"],
    ["what everybody gets everywhere", page(200, "the page for everything"), "refused"],
    ["a redirect", page(302, ""), "unclear"],
    ["a tunnel", page(101, ""), "through"],
  ])("%s", (_, answer, result) => expect(judge(answer, guarded, ground)).toBe(result));
});

describe("paths", () => {
  test("of a configuration: one for each route, judged by its own router", async () => {
    const config = await loadFine(`version: 1
strategies: { team: { use: plain } }
upstreams: { api: { url: "http://127.0.0.1:9000" } }
routes:
  - { match: { path: /public/** }, access: public, upstream: api }
  - { match: { path: /write, methods: [POST] }, access: [team], upstream: api }
  - { match: { host: other.example.com, path: /other }, access: public, upstream: api }
  - { match: { path: /v1/*/chat }, access: [team], upstream: api }
`);
    const found = candidates({ ...TARGET, path: "/v1/a/chat" }, config);
    const of = (expected: string) =>
      found.filter((one) => one.expected === expected).map(({ path }) => path);
    expect(of("guarded")).toEqual(["/v1/a/chat", "/v1/gatehouse-doctor/chat"]);
    expect(of("public")).toEqual(["/public/gatehouse-doctor", "/healthz"]);
    expect(isPublicBy(config, "localhost", "/public/x")).toBe(true);
    expect(isPublicBy(config, "localhost", "/public/..%2fv1")).toBe(false);
    expect(stemOf("/public/gatehouse-doctor")).toBe("/public");
    expect(stemOf("/health")).toBe("/health");
  });

  test("without one: what servers usually have, the path of the URL first", () => {
    const paths = candidates(TARGET, null).map(({ path }) => path);
    expect(paths.slice(0, 2)).toEqual(["/admin", "/"]);
    expect(paths).toContain("/v1/models");
    expect(new Set(paths).size).toBe(paths.length);
  });

  test("tricks begin with a slash, differ from the path, and are all different", () => {
    for (const path of ["/admin", "/", "/v1/models"]) {
      const all = spellings(path);
      expect(all.every((one) => one.startsWith("/") && one !== path)).toBe(true);
      expect(new Set(all).size).toBe(all.length);
    }
    expect(climbs("/public", "/admin")).toContain("/public/..%2fadmin");
    expect(climbs("/public", "/admin")).toContain("/public../admin");
  });
});

describe("grades", () => {
  test.each<[string, GradeInput[], string]>([
    ["nothing", [], "A"],
    [
      "remarks",
      [
        { code: "x", severity: "info" },
        { code: "path_open", severity: "ok" },
      ],
      "A",
    ],
    ["a warning", [{ code: "anything", severity: "warning" }], "B"],
    ["a weakness", [{ code: "framing_lenient", severity: "warning" }], "C"],
    ["an error", [{ code: "anything", severity: "error" }], "D"],
    [
      "the worst decides",
      [
        { code: "x", severity: "warning" },
        { code: "path_open", severity: "error" },
      ],
      "F",
    ],
  ])("%s: %s", (_, findings, grade) => expect<string>(gradeOf(findings)).toBe(grade));
});

describe("targets", () => {
  test("this machine is near, whatever it is called", async () => {
    const target = await readTarget("http://localhost:8080/admin?x=1");
    expect(target).toMatchObject({
      host: "localhost",
      port: 8080,
      path: "/admin",
      isNear: true,
      isTls: false,
    });
    expect((await readTarget("https://[::1]/")).authority).toBe("[::1]");
    expect((await readTarget("https://10.0.0.1")).isNear).toBe(true);
    expect((await readTarget("https://198.51.100.7")).isNear).toBe(false);
  });
});
