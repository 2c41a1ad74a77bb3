/**
 * What a route may ask of a request beyond a credential: schemes it refuses, models it allows.
 *
 * Invariant: a refusal is made before the upstream sees a byte, and what cannot be read with one meaning is refused.
 */
import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";
import { gzipSync } from "node:zlib";
import {
  describeBoth,
  type GatewayUnderTest,
  OPS_ENV,
  OPS_TOKEN,
  simpleConfig,
} from "../support/gateway.ts";
import { OK_RESPONSE, raw, rawUpstream, valuesOf } from "../support/raw.ts";

const BEARER = `Authorization: Bearer ${OPS_TOKEN}\r\n`;

const FORM = "Content-Type: application/x-www-form-urlencoded\r\n";

const ROUTES = `
  - { match: { path: /signed/** }, access: [ops], refuse: [bearer, Basic], upstream: api }
  - match: { path: /v1/** }
    access: [ops]
    upstream: api
    models: { allow: [small, medium], header: x-model, max_body: 64KiB }
  - { match: { path: /large/** }, access: [ops], upstream: api, models: { allow: [small] } }
  - { match: { path: /open/** }, access: [ops], upstream: api, models: { allow: [small], fail_open: true } }
  - { match: { path: /tagged }, access: [ops], upstream: api, response_headers: { x-accel-buffering: "no" } }
  - { match: { path: /kept }, access: [ops], upstream: api, forward_credential: [ops] }
`;

describeBoth("policies of a route", (start) => {
  const upstream = rawUpstream((request, write) => {
    write(
      request.line.includes("/tagged")
        ? OK_RESPONSE.replace("\r\n", "\r\nX-Accel-Buffering: yes\r\n")
        : OK_RESPONSE,
    );
  });
  let gateway: GatewayUnderTest;

  beforeAll(async () => {
    const config = simpleConfig(`http://${upstream.address}`, { routes: ROUTES });
    gateway = await start({ config, env: OPS_ENV });
  });
  beforeEach(() => {
    upstream.seen.length = 0;
  });
  afterAll(() => upstream.stop());

  function post(path: string, body: string | Buffer, lines = BEARER) {
    const text = typeof body === "string" ? body : body.toString("latin1");
    const length = Buffer.byteLength(text, "latin1");
    const head = `POST ${path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n${lines}`;
    return raw(gateway.address, `${head}Content-Length: ${length}\r\n\r\n${text}`);
  }

  async function refused(answer: ReturnType<typeof post>, status: number, reason: string) {
    const { statuses, text } = await answer;
    expect(statuses).toEqual([status]);
    expect(text).toContain(`X-Gatehouse-Reason: ${reason}\r\n`);
    expect(upstream.seen).toEqual([]);
  }

  test.each([
    ["a good key of a refused scheme", BEARER],
    ["a bad key of a refused scheme", "Authorization: Bearer nope\r\n"],
    ["the scheme in other letters", `Authorization: BEARER ${OPS_TOKEN}\r\n`],
    ["another refused scheme", "Authorization: basic eDp5\r\n"],
    ["one of two lines of a refused scheme", `Authorization: Other x\r\n${BEARER}`],
  ])("%s is 403 before any strategy is asked", async (_, lines) => {
    await refused(post("/signed/x", "", lines), 403, "scheme_refused");
  });

  test("a credential of another kind still passes where a scheme is refused", async () => {
    const answer = await post("/signed/x", "", `X-Api-Key: ${OPS_TOKEN}\r\n`);
    expect(answer.statuses).toEqual([200]);
  });

  test.each([
    ["an allowed model", '{"model":"small"}', ""],
    ["an allowed model among other keys", '{"a":{"model":"huge"},"model" : "medium"}', ""],
    ["no body at all", "", ""],
    ["no body and an allowed header", "", "X-Model: small\r\n"],
    ["JSON that curl calls a form", '{"model":"small"}', FORM],
    ["JSON in UTF-8", '{"model":"small"}', 'Content-Type: application/json; charset="UTF-8"\r\n'],
  ])("%s passes, byte for byte", async (_, body, lines) => {
    expect((await post("/v1/chat", body, BEARER + lines)).statuses).toEqual([200]);
    expect(upstream.seen[0]?.body).toBe(body);
  });

  test.each([
    ["another model", '{"model":"huge"}', ""],
    ["a model that differs in case", '{"model":"Small"}', ""],
    ["an allowed model and another in the header", '{"model":"small"}', "X-Model: huge\r\n"],
    ["no body and another model in the header", "", "X-Model: huge\r\n"],
  ])("%s is refused", async (_, body, lines) => {
    await refused(post("/v1/chat", body, BEARER + lines), 403, "model_denied");
  });

  test.each([
    ["two models", '{"model":"small","model":"huge"}', ""],
    [
      "two models, one far from its colon",
      `{"model":"small","model"${" ".repeat(200)}:"huge"}`,
      "",
    ],
    ["two models, one spelled with an escape", '{"model":"small","m\\u006fdel":"huge"}', ""],
    ["two models, one in other letters", '{"model":"small","Model":"huge"}', ""],
    ["a model that is no text", '{"model":["small"]}', ""],
    ["no model", '{"prompt":"x"}', ""],
    ["a list", '[{"model":"small"}]', ""],
    ["null", "null", ""],
    ["no JSON", "model=small", ""],
    ["a byte order mark", '\xef\xbb\xbf{"model":"small"}', ""],
    ["bytes that are no UTF-8", '{"model":"small","x":"\xff"}', ""],
    ["a compressed body", gzipSync('{"model":"small"}'), "Content-Encoding: gzip\r\n"],
    ["a body that only says it is compressed", '{"model":"small"}', "Content-Encoding: br\r\n"],
    ["two models, one cut off by a NUL", '{"model":"small","model\\u0000":"huge"}', ""],
    ["another model when read as a form", '{"model":"small","x":"&mod%65l=huge&"}', FORM],
    [
      "another model when read as UTF-7",
      '{"model":"small","x":"+ACI-,+ACI-model+ACI-:+ACI-huge"}',
      "Content-Type: application/json; charset=utf-7\r\n",
    ],
    ["a part of many", '{"model":"small"}', "Content-Type: multipart/form-data; boundary=x\r\n"],
    ["two types", '{"model":"small"}', `Content-Type: application/json\r\n${FORM}`],
    ["two model headers", '{"model":"small"}', "X-Model: small\r\nX-Model: small\r\n"],
  ])("%s cannot be read with one meaning and is refused", async (_, body, lines) => {
    await refused(post("/v1/chat", body, BEARER + lines), 403, "model_unreadable");
  });

  test("a second model behind millions of characters is found", async () => {
    const body = `{"model":"small","x":"${"x".repeat(5_000_000)}","Model":"huge"}`;
    await refused(post("/large/chat", body), 403, "model_unreadable");
  });

  test("what is asked for inside a tunnel cannot be seen: a handshake is refused", async () => {
    const head = `GET /v1/chat HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n${BEARER}`;
    const key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    await refused(raw(gateway.address, head + key), 403, "model_unreadable");
  });

  test("a model in the query is looked at", async () => {
    await refused(post("/v1/chat?a&MODEL=huge", ""), 403, "model_denied");
    expect((await post("/v1/chat?model=small", '{"model":"medium"}')).statuses).toEqual([200]);
  });

  test("the model header passes in the spelling that was looked at", async () => {
    const lines = "X-Model: small\r\nX.Model: huge\r\nX!Model: huge\r\n";
    expect((await post("/v1/chat", "", BEARER + lines)).statuses).toEqual([200]);
    expect(upstream.seen[0]?.fields.filter(([name]) => name.includes("model"))).toEqual([
      ["x-model", "small"],
    ]);
  });

  test("a chunked body is read as well", async () => {
    const chunked = (json: string) =>
      raw(
        gateway.address,
        `POST /v1/chat HTTP/1.1\r\nHost: h\r\nConnection: close\r\n${BEARER}Transfer-Encoding: chunked\r\n\r\n${json.length.toString(16)}\r\n${json}\r\n0\r\n\r\n`,
      );
    await refused(chunked('{"model":"huge"}'), 403, "model_denied");
    expect((await chunked('{"model":"small"}')).statuses).toEqual([200]);
    expect(upstream.seen[0]?.body).toBe('{"model":"small"}');
  });

  test("a body over what is read for it is refused", async () => {
    const body = `{"model":"small","x":"${"x".repeat(70_000)}"}`;
    await refused(post("/v1/chat", body), 413, "body_too_large");
  });

  test("fail_open lets pass what cannot be read, and still refuses what can", async () => {
    expect((await post("/open/x", "no json")).statuses).toEqual([200]);
    upstream.seen.length = 0;
    await refused(post("/open/x", '{"model":"huge"}'), 403, "model_denied");
  });

  test("response_headers replace the upstream's", async () => {
    const { text } = await post("/tagged", "");
    expect(text.match(/x-accel-buffering: \w+/gi)).toEqual(["x-accel-buffering: no"]);
  });

  test("a listed strategy's credential is passed on", async () => {
    await post("/kept", "");
    expect(valuesOf(upstream.seen[0], "authorization")).toEqual([`Bearer ${OPS_TOKEN}`]);
  });
});
