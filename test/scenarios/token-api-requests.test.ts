/**
 * What is sent to the token API: bodies, queries, subjects and methods of every kind, and pages of very many tokens.
 *
 * Invariant: whatever is refused has changed nothing, and says why without repeating a value.
 */
import { describe, expect, test } from "bun:test";
import { eventually, openRaw } from "../support/raw.ts";
import {
  ask,
  credential,
  describeTokenApi,
  make,
  ROOT,
  somebody,
  tryToken,
} from "../support/token-api.ts";

const JSON_TYPE = { "content-type": "application/json" };
const CANARY = "canary-9b1f6c7de2a04f58";

describeTokenApi("requests for tokens", (api, use) => {
  describe("bodies", () => {
    const type = (text: string) => ({ "content-type": text });
    test.each<[string, string, Record<string, string>, number, string]>([
      ["no content type", "{}", type(""), 415, "unsupported_media_type"],
      [
        "a form",
        "description=x",
        type("application/x-www-form-urlencoded"),
        415,
        "unsupported_media_type",
      ],
      ["text that is JSON", "{}", type("text/plain"), 415, "unsupported_media_type"],
      [
        "JSON of another kind",
        "{}",
        type("application/merge-patch+json"),
        415,
        "unsupported_media_type",
      ],
      [
        "another charset",
        "{}",
        type("application/json; charset=latin1"),
        415,
        "unsupported_media_type",
      ],
      ["nothing", "", JSON_TYPE, 400, "malformed_json"],
      ["half of it", '{"description":', JSON_TYPE, 400, "malformed_json"],
      ["two of them", "{}{}", JSON_TYPE, 400, "malformed_json"],
      ["a trailing comma", '{"description":"x",}', JSON_TYPE, 400, "malformed_json"],
      ["null", "null", JSON_TYPE, 422, "invalid_request"],
      ["a list", "[]", JSON_TYPE, 422, "invalid_request"],
      ["a text", '"x"', JSON_TYPE, 422, "invalid_request"],
      ["a description that is a number", '{"description":5}', JSON_TYPE, 422, "invalid_request"],
      ["a description that is null", '{"description":null}', JSON_TYPE, 422, "invalid_request"],
      ["scopes that are a text", '{"scopes":"read"}', JSON_TYPE, 422, "invalid_request"],
      [
        "65 scopes",
        JSON.stringify({ scopes: Array(65).fill("a") }),
        JSON_TYPE,
        422,
        "invalid_request",
      ],
      ["an unknown key", `{"${CANARY.slice(7)}":1}`, JSON_TYPE, 422, "invalid_request"],
      [
        "a key of every object",
        '{"__proto__":{"role":"admin"}}',
        JSON_TYPE,
        422,
        "invalid_request",
      ],
      ["a key twice", '{"description":"a","description":"b"}', JSON_TYPE, 422, "invalid_request"],
      [
        "a key twice, spelt otherwise",
        '{"scopes":[],"sc\\u006fpes":["write"]}',
        JSON_TYPE,
        422,
        "invalid_request",
      ],
      ["an expiry that is no time", '{"expires_at":"tomorrow"}', JSON_TYPE, 422, "invalid_request"],
      ["an expiry in seconds", '{"expires_at":1900000000}', JSON_TYPE, 422, "invalid_request"],
      ["a life without a unit", '{"expires_in":"30"}', JSON_TYPE, 422, "invalid_request"],
      ["a negative life", '{"expires_in":"-1d"}', JSON_TYPE, 422, "invalid_request"],
      [
        "both",
        '{"expires_in":"1d","expires_at":"2040-01-01T00:00:00Z"}',
        JSON_TYPE,
        422,
        "invalid_request",
      ],
      [
        "an expiry in the past",
        '{"expires_at":"2001-01-01T00:00:00Z"}',
        JSON_TYPE,
        400,
        "invalid_value",
      ],
      ["no life at all", '{"expires_in":"0s"}', JSON_TYPE, 400, "invalid_value"],
      ["a life beyond all time", '{"expires_in":"999999999w"}', JSON_TYPE, 400, "invalid_value"],
      ["a line break", `{"description":"${CANARY}\\n2"}`, JSON_TYPE, 400, "invalid_value"],
      ["a NUL", `{"description":"${CANARY}\\u0000"}`, JSON_TYPE, 400, "invalid_value"],
      ["a turned direction", `{"description":"${CANARY}\\u202e"}`, JSON_TYPE, 400, "invalid_value"],
      ["half a character", `{"description":"${CANARY}\\ud800"}`, JSON_TYPE, 400, "invalid_value"],
    ])("%s is refused and makes nothing", async (title, body, headers, status, reason) => {
      const alice = somebody();
      const answer = await ask(api(), alice, "POST /api/me/tokens", { body, headers });
      expect([answer.status, answer.body.reason]).toEqual([status, reason]);
      expect(answer.body.message).not.toBe("");
      expect(answer.body.message).toBe(answer.body.detail);
      expect(answer.body.request_id).toBe(answer.headers.get("x-request-id"));
      expect(answer.text).not.toContain(CANARY);
      if (title === "an unknown key") expect(answer.body.message).toContain("unknown key");
      expect((await ask(api(), alice, "GET /api/me/tokens")).body).toEqual([]);
    });

    test("bytes that are not UTF-8 are refused", async () => {
      const alice = somebody();
      const response = await fetch(`${api().gateway.url}/api/me/tokens`, {
        method: "POST",
        headers: { ...credential(alice), ...JSON_TYPE },
        body: Buffer.from('{"description":"\xff\xfe"}', "latin1"),
      });
      expect(response.status).toBe(400);
      expect(await response.json()).toMatchObject({ reason: "malformed_json" });
      expect((await ask(api(), alice, "GET /api/me/tokens")).body).toEqual([]);
    });

    test("64 KiB are read, and more is too large, the gateway's own limit included", async () => {
      const alice = somebody();
      const padded = (bytes: number) => `{}${" ".repeat(bytes - 2)}`;
      const asked = (bytes: number) =>
        ask(api(), alice, "POST /api/me/tokens", { body: padded(bytes) });
      expect((await asked(65_536)).status).toBe(201);
      for (const bytes of [65_537, 1_048_576, 1_048_577, 3_000_000]) {
        expect(await asked(bytes)).toMatchObject({
          status: 413,
          body: { reason: "body_too_large" },
        });
      }
      expect((await ask(api(), alice, "GET /api/me/tokens")).body).toHaveLength(1);
    });

    test.each([
      ["application/json; charset=utf-8"],
      ["Application/JSON"],
      ['application/json ; charset="UTF-8"'],
      ["application/json;charset=utf8;x=y"],
    ])("%p is JSON, and nothing of the body is lost", async (contentType) => {
      const alice = somebody();
      const answer = await ask(api(), alice, "POST /api/me/tokens", {
        body: { description: "kept", expires_in: "1d" },
        headers: { "content-type": contentType },
      });
      expect(answer).toMatchObject({ status: 201, body: { description: "kept" } });
      expect(answer.body.expires_at).not.toBeNull();
    });

    test("a description has at most 256 bytes, not characters, blanks around it apart", async () => {
      const alice = somebody();
      const asked = (description: string) =>
        ask(api(), alice, "POST /api/me/tokens", { body: { description } });
      for (const fine of [
        "x".repeat(256),
        "é".repeat(128),
        "🦊".repeat(64),
        `  ${"x".repeat(256)}\n`,
      ]) {
        expect(await asked(fine)).toMatchObject({
          status: 201,
          body: { description: fine.trim() },
        });
      }
      for (const long of ["x".repeat(257), `${"é".repeat(128)}x`, "🦊".repeat(65)]) {
        expect(await asked(long)).toMatchObject({
          status: 400,
          body: { message: "description must have at most 256 bytes" },
        });
      }
    });

    test.each([
      ["a grace without a unit", '{"grace":"5"}', 422],
      ["an unknown key", '{"grase":"5m"}', 422],
      ["no body", "", 400],
      ["over ten years", '{"grace":"9999w"}', 400],
    ])("rotating with %s is refused, and the old secret stays", async (_, body, status) => {
      const alice = somebody();
      const made = await make(api(), alice);
      const line = `POST /api/me/tokens/${made.id}/rotate`;
      expect((await ask(api(), alice, line, { body, headers: JSON_TYPE })).status).toBe(status);
      expect((await ask(api(), alice, line)).status).toBe(415);
      expect(await tryToken(api(), made.token)).toBe(200);
    });

    test("an admin names a subject that is not blank, by path or in the body", async () => {
      for (const [line, body] of [
        ["POST /api/users/%20%09/tokens", {}],
        ["POST /api/tokens", { sub: " " }],
      ] as const) {
        // A tab in a path is refused before, as every control character.
        const answer = await ask(api(), ROOT, line.replace("%09", ""), { body });
        expect(answer).toMatchObject({
          status: 400,
          body: { message: "subject must not be empty" },
        });
      }
      expect((await ask(api(), ROOT, "GET /api/users/%20/tokens")).body).toEqual([]);
      expect((await ask(api(), ROOT, "POST /api/tokens", { body: {} })).status).toBe(422);
      expect(
        (await ask(api(), ROOT, "POST /api/tokens", { body: { sub: "x", role: "god" } })).status,
      ).toBe(422);
    });
  });

  describe("subjects", () => {
    test.each([
      ["a/b", 200],
      ["100%", 200],
      ["a%2Fb", 200],
      ["🦊 ä", 200],
      ["a b", 200],
      ["a;b?c#d", 200],
      ["a\\b", 200],
      ["me", 200],
      ["tokens", 200],
      ["auth0|5f7c8ec7c33c6c004bbafe82", 200],
      ["alice@example.com", 200],
      ["x".repeat(256), 200],
      // Somebody behind us might read another path: these are reached with ?sub= alone.
      ["../../x", 400],
      ["%u0041", 400],
      ["a%252525252Fb", 400],
    ])("%p own their tokens, and an admin reaches them", async (id, byPath) => {
      const owner = { id };
      const made = await make(api(), owner, { description: "mine" });
      expect(made.sub).toBe(id);
      const inPath = `/api/users/${encodeURIComponent(id)}/tokens`;
      const listed = await ask(api(), ROOT, `GET ${inPath}`);
      expect(listed.status).toBe(byPath);
      if (byPath === 200) {
        expect(listed.body).toMatchObject([{ id: made.id, sub: id }]);
        const second = await make(api(), ROOT, {}, inPath);
        expect(second.sub).toBe(id);
        expect((await ask(api(), ROOT, `DELETE ${inPath}/${second.id}`)).status).toBe(204);
      }
      const query = new URLSearchParams({ sub: id });
      const found = await ask(api(), ROOT, `GET /api/tokens?${query}`);
      expect(found.body).toMatchObject([{ id: made.id, sub: id }]);
      const third = await make(api(), ROOT, { sub: id }, "/api/tokens");
      expect(third.sub).toBe(id);
      for (const one of [made, third]) {
        expect((await ask(api(), ROOT, `DELETE /api/tokens/${one.id}`)).status).toBe(204);
        expect(await tryToken(api(), one.token)).toBe(401);
      }
    });

    test.each([["line\nbreak"], ["nul\0"], ["bell\u0007"], ["\ud800"], [" alice"]])(
      "%j can own nothing, is told so, and has an empty list",
      async (id) => {
        const answer = await ask(api(), { id }, "POST /api/me/tokens", { body: {} });
        expect(answer).toMatchObject({ status: 400, body: { reason: "invalid_value" } });
        expect(answer.body.message).toStartWith("the subject ");
        expect((await ask(api(), { id }, "GET /api/me/tokens")).body).toEqual([]);
        const query = new URLSearchParams({ sub: id });
        expect((await ask(api(), ROOT, `GET /api/tokens?${query}`)).body).toEqual([]);
      },
    );

    test("bytes of UTF-8 in a path are what their escapes are, and other bytes are refused", async () => {
      const made = await make(api(), { id: "érable" });
      const [name = "", value = ""] = Object.entries(credential(ROOT))[0] ?? [];
      const lines = (path: string) =>
        `GET ${path} HTTP/1.1\r\nHost: x\r\n${name}: ${value}\r\nConnection: close\r\n\r\n`;
      const connection = await openRaw(api().gateway.address);
      connection.send(Buffer.from(lines("/api/users/érable/tokens"), "utf8"));
      const { text } = await connection.read();
      expect(text).toContain("HTTP/1.1 200");
      expect(text).toContain(made.id);
      const other = await ask(api(), ROOT, "GET /api/users/%e9rable/tokens");
      expect(other).toMatchObject({ status: 400, body: { reason: "path_malformed" } });
    });

    test("a subject that only the store of others knows is reached by an admin", async () => {
      if (api().valkey === null) return expect(use).toBe("bearer-sqlite");
      const valkey = api().valkey?.client();
      const id = "d".repeat(64);
      await valkey
        ?.multi()
        .hset(`auth:token:${id}`, {
          sub: "a\nb",
          created_at: "2025-06-01T10:11:12Z",
          description: "",
        })
        .sadd("auth:user_tokens:a\nb", id)
        .exec();
      const found = await ask(api(), ROOT, "GET /api/tokens?sub=a%0Ab");
      expect(found.body).toMatchObject([{ id, sub: "a\nb", description: null }]);
      expect((await ask(api(), ROOT, "GET /api/users/a%0Ab/tokens")).status).toBe(400);
      expect((await ask(api(), ROOT, `DELETE /api/tokens/${id}`)).status).toBe(204);
      expect((await ask(api(), ROOT, "GET /api/tokens?sub=a%0Ab")).body).toEqual([]);
    });
  });

  describe("pages", () => {
    test("over a thousand tokens are listed whole, and each once in pages of any size", async () => {
      const alice = somebody();
      for (let from = 0; from < 1050; from += 50) {
        const names = Array.from({ length: 50 }, (_, index) => `Nr. ${from + index}`);
        await Promise.all(names.map((description) => make(api(), alice, { description })));
      }
      const whole = await ask(api(), alice, "GET /api/me/tokens");
      expect(whole.body).toHaveLength(1050);
      expect([whole.headers.get("x-total-count"), whole.headers.get("link")]).toEqual([
        "1050",
        null,
      ]);
      const ids: string[] = whole.body.map((one: { id: string }) => one.id);
      for (const start of ["/api/me/tokens?limit=400", `/api/tokens?sub=${alice.id}&limit=1000`]) {
        const found: string[] = [];
        let next: string | null = start;
        while (next !== null) {
          const page = await ask(api(), start.includes("/me/") ? alice : ROOT, `GET ${next}`);
          expect(page.headers.get("x-total-count")).toBe("1050");
          found.push(...page.body.map((one: { id: string }) => one.id));
          const link = page.headers.get("link");
          const target = /^<([^>]+)>; rel="next"$/.exec(link ?? "")?.[1];
          if (target === undefined) break;
          const url: URL = new URL(target, `http://x${next}`);
          next = url.pathname + url.search;
        }
        expect(found).toEqual(ids);
      }
      const searched = await ask(api(), alice, "GET /api/me/tokens?q=nR.%20104&sort=description");
      expect(searched.body.map((one: { description: string }) => one.description)).toEqual([
        "Nr. 104",
        ...Array.from({ length: 10 }, (_, index) => `Nr. 104${index}`),
      ]);
      const everybodys = await ask(api(), ROOT, "GET /api/tokens");
      expect(everybodys.body).toHaveLength(100);
      expect(everybodys.headers.get("link")).toContain('rel="next"');
    });

    test.each([
      ["limit=0"],
      ["limit=1001"],
      ["limit=-1"],
      ["limit=1e2"],
      ["limit="],
      ["limit=1&limit=2"],
      ["sort=id"],
      ["revoked=yes"],
      ["cursor=nonsense"],
      ["limt=10"],
      [`q=${"x".repeat(257)}`],
      ["sub=root"],
    ])("a list with ?%s is refused", async (query) => {
      const answer = await ask(api(), somebody(), `GET /api/me/tokens?${query}`);
      expect(answer).toMatchObject({ status: 422, body: { reason: "invalid_request" } });
      const key = query.split("=")[0] ?? "";
      expect(answer.body.message).toContain(key);
    });
  });

  test("a token in any wrong place reaches no log and no answer", async () => {
    const alice = somebody();
    const { token, id } = await make(api(), alice);
    const wrong: (readonly [string, object | undefined])[] = [
      ["POST /api/me/tokens", { description: `my ${token}\n.` }],
      ["POST /api/me/tokens", { scopes: [token] }],
      ["POST /api/me/tokens", { expires_in: token }],
      [`POST /api/me/tokens/${id}/rotate`, { grace: token }],
      ["POST /api/tokens", { sub: token, role: token }],
      [`GET /api/me/tokens?q=${token}`, undefined],
      [`GET /api/me/tokens?cursor=${token}`, undefined],
      [`GET /api/me/tokens?sort=${token}`, undefined],
      [`GET /api/me/tokens?access_token=${token}`, undefined],
    ];
    for (const [line, body] of wrong) {
      for (const who of [alice, { token }]) {
        const answer = await ask(api(), who, line, { body });
        expect([line, answer.text.includes(token)]).toEqual([line, false]);
      }
    }
    await ask(api(), null, "GET /api/me/tokens", { headers: { "x-request-id": token } });
    await ask(api(), alice, `DELETE /api/me/tokens/${id}`);
    await eventually("the revocation is logged", () =>
      api()
        .gateway.events("token.revoked")
        .some((event) => event.token_id === id),
    );
    expect(api().gateway.logs()).not.toContain(token.slice(-16));
  });

  describe("HTTP", () => {
    test.each([
      ["PUT /api/me/tokens", "GET, HEAD, POST"],
      ["PATCH /api/me/tokens/x", "DELETE, GET, HEAD"],
      ["GET /api/me/tokens/x/rotate", "POST"],
      ["DELETE /api/users/x/tokens", "GET, HEAD, POST"],
      ["OPTIONS /api/tokens", "GET, HEAD, POST"],
    ])("%s is not allowed, and what is is said", async (line, allowed) => {
      const answer = await ask(api(), ROOT, line);
      expect(answer).toMatchObject({ status: 405, body: { reason: "method_not_allowed" } });
      expect(answer.headers.get("allow")).toBe(allowed);
    });

    test.each([
      ["/api"],
      ["/api/"],
      ["/api/me"],
      ["/api/me/tokens/"],
      ["/api/me/tokens/x/y"],
      ["/api/me/users/x/tokens"],
      ["/api/users/tokens"],
      ["/api/api/me/tokens"],
      ["/api/docs"],
    ])("%s is nothing", async (path) => {
      const answer = await ask(api(), ROOT, `GET ${path}`);
      expect(answer).toMatchObject({ status: 404, body: { reason: "no_route" } });
    });

    test("HEAD has the head of GET and no body", async () => {
      const alice = somebody();
      await make(api(), alice);
      const get = await ask(api(), alice, "GET /api/me/tokens");
      const head = await ask(api(), alice, "HEAD /api/me/tokens").catch((error) => error);
      expect(head).toMatchObject({ status: 200, text: "" });
      expect(head.headers.get("content-length")).toBe(String(Buffer.byteLength(get.text)));
      expect(head.headers.get("x-total-count")).toBe("1");
    });

    test("every answer keeps browsers from doing anything with it", async () => {
      const alice = somebody();
      const { id } = await make(api(), alice);
      for (const line of [
        "GET /api/me/tokens",
        `DELETE /api/me/tokens/${id}`,
        "PUT /api/me/tokens",
        "GET /api/nothing",
        "GET /api/tokens",
        "GET /docs",
        "GET /openapi.json",
        "GET /health/live",
      ]) {
        const { headers } = await ask(api(), alice, line);
        expect(headers.get("content-security-policy")).toStartWith("default-src 'none';");
        expect(headers.get("content-security-policy")).toContain("frame-ancestors 'none'");
        expect(headers.get("x-content-type-options")).toBe("nosniff");
        expect(headers.get("referrer-policy")).toBe("no-referrer");
        expect(headers.get("cross-origin-opener-policy")).toBe("same-origin");
        expect(headers.get("cross-origin-resource-policy")).toBe("same-origin");
        expect(headers.get("cache-control")).toBe("no-store");
        expect(headers.get("set-cookie")).toBeNull();
      }
    });

    test("a page of an allowed origin may use it, and another may not", async () => {
      const alice = somebody();
      const preflight = (origin: string, method: string, path: string) =>
        ask(api(), null, `OPTIONS ${path}`, {
          headers: {
            origin,
            "access-control-request-method": method,
            "access-control-request-headers": "content-type,x-who",
          },
        });
      const app = "https://app.example.com";
      for (const [method, path] of [
        ["DELETE", "/api/me/tokens/x"],
        ["POST", "/api/me/tokens"],
      ] as const) {
        const fine = await preflight(app, method, path);
        expect(fine.status).toBe(204);
        expect(fine.headers.get("access-control-allow-origin")).toBe(app);
        expect(fine.headers.get("access-control-allow-methods")).toContain(method);
        const strange = await preflight("https://evil.example.com", method, path);
        expect(strange.headers.get("access-control-allow-origin")).toBeNull();
      }
      const { id } = await make(api(), alice);
      const answer = await ask(api(), alice, `DELETE /api/me/tokens/${id}`, {
        headers: { origin: app },
      });
      expect(answer.status).toBe(204);
      expect(answer.headers.get("access-control-allow-origin")).toBe(app);
      const listed = await ask(api(), alice, "GET /api/me/tokens", { headers: { origin: app } });
      expect(listed.headers.get("access-control-expose-headers")).toContain("x-total-count");
    });
  });
});
