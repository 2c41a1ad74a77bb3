/**
 * Request framing, over raw sockets: what has two readings is refused, and nothing that hides behind a refused or
 * finished request is ever taken for one (RFC 9112 sections 2, 3, 6 and 7).
 *
 * Invariant: every refusal also asserts that the upstream saw no request, or, where the head had to go on before
 * the body broke, that it never saw a whole one. Each case carries a smuggled request that must not be answered.
 */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import {
  describeBoth,
  type GatewayUnderTest,
  OPS_ENV,
  OPS_TOKEN,
  simpleConfig,
} from "../support/gateway.ts";
import {
  eventually,
  OK_RESPONSE,
  openRaw,
  type RawUpstream,
  raw,
  rawUpstream,
} from "../support/raw.ts";

const SMUGGLED = "GET /public/smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
const NEXT = "GET /public/next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
/** The upstream under test does not see where a chunked body ends, so it is asked one question per connection. */
const OK_AND_CLOSE = OK_RESPONSE.replace("\r\n", "\r\nConnection: close\r\n");
const AUTHORISED = `Authorization: Bearer ${OPS_TOKEN}\r\n`;

/** A request to the public route with these lines; an empty line ends the head. */
const get = (lines: string, line = "GET /public/x HTTP/1.1") =>
  `${line}\r\nHost: a\r\n${lines}\r\n`;
const post = (lines: string, body: string) =>
  `POST /public/x HTTP/1.1\r\nHost: a\r\n${lines}\r\n${body}`;

/** What is wrong, to the bytes. */
type Cases = Readonly<Record<string, string>>;

const named = (name: string, values: readonly string[], bytes: (value: string) => string): Cases =>
  Object.fromEntries(values.map((value) => [`${name} ${JSON.stringify(value)}`, bytes(value)]));

const chunked = (lines: string) => post(lines, "0\r\n\r\n");
const line = (text: string) => get("", text);
const host = (lines: string, version = "1.1") => `GET /public/x HTTP/${version}\r\n${lines}\r\n`;

const LENGTHS: Cases = {
  both: chunked("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
  "both, the other way round": chunked("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
  "two equal lines": post("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"),
  "two different lines": post("Content-Length: 0\r\nContent-Length: 44\r\n", ""),
  "a blank before the colon": post("Content-Length : 5\r\n", "hello"),
  ...named(
    "Content-Length:",
    ["+5", "-5", "0x5", "5 5", "5, 5", "0, 5", "", "5.0", "1e1", "18446744073709551621", "\xb5"],
    (value) => post(`Content-Length: ${value}\r\n`, "hello"),
  ),
};

const ENCODINGS: Cases = {
  twice: chunked("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
  "twice, once identity": chunked("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"),
  "folded over two lines": chunked("Transfer-Encoding:\r\n chunked\r\n"),
  "a blank before the colon": chunked("Transfer-Encoding : chunked\r\n"),
  "in HTTP/1.0": chunked("Transfer-Encoding: chunked\r\n").replace("HTTP/1.1", "HTTP/1.0"),
  "empty, after Content-Length": post("Content-Length: 5\r\nTransfer-Encoding:\r\n", "hello"),
  ...named(
    "Transfer-Encoding:",
    [
      "chunked, identity",
      "gzip, chunked",
      '"chunked"',
      "chunked;q=1",
      "",
      "\x0bchunked",
      "chunked\xa0",
    ],
    (value) => chunked(`Transfer-Encoding: ${value}\r\n`),
  ),
};

const LINES: Cases = {
  "a folded line": get("X-A: b\r\n c\r\n"),
  "a line folded with a tab": get("X-A: b\r\n\tc\r\n"),
  "a first header line that begins with a blank": host(" Host: a\r\n"),
  "a bare LF between lines": get("X-A: b\nX-B: c\r\n"),
  "a head of bare LFs": "GET /public/x HTTP/1.1\nHost: a\n\n",
  "a bare CR in a value": get("X-A: b\rX-B: c\r\n"),
  "a CR before the CRLF": get("X-A: b\r\r\n"),
  "a NUL in a value": get("X-A: b\0c\r\n"),
  "a NUL in a name": get("X-\0A: b\r\n"),
  "another control byte in a value": get("X-A: b\x01c\r\n"),
  "DEL in a value": get("X-A: b\x7fc\r\n"),
  "an empty name": get(": b\r\nX-A: c\r\n"),
  "a line without a colon": get("X-A\r\n"),
  "a blank in a name": get("X A: b\r\n"),
  "a tab before a colon": get("X-A\t: b\r\n"),
  "a name beyond ASCII": get("X-\xe9: b\r\n"),
  "a name in parentheses": get("(X): b\r\n"),
};

const HOSTS: Cases = {
  "none in HTTP/1.1": host("X-A: b\r\n"),
  "two lines": host("Host: a\r\nHost: b\r\n"),
  "two equal lines": host("Host: a\r\nHost: a\r\n"),
  "two lines in HTTP/1.0": host("Host: a\r\nHost: b\r\n", "1.0"),
  ...named(
    "Host:",
    [
      "",
      "a b",
      "a,b",
      "a/b",
      "u@a",
      "a:b",
      "a:",
      ":80",
      "a:123456",
      "[::1",
      "[gg]",
      "a\xe9",
      "a?b",
      "a\\b",
    ],
    (value) => host(`Host: ${value}\r\n`),
  ),
};

const TARGETS: Cases = {
  "an absolute form with another host": line("GET http://b/public/x HTTP/1.1"),
  "an absolute form with another port": line("GET http://a:81/public/x HTTP/1.1"),
  "an absolute form with user info": line("GET http://a@b/public/x HTTP/1.1"),
  "an absolute form with a back slash": line("GET http://a\\@b/public/x HTTP/1.1"),
  "an absolute form of another scheme": line("GET ftp://a/public/x HTTP/1.1"),
  "an authority form": line("GET a:80 HTTP/1.1"),
  "no slash": line("GET public/x HTTP/1.1"),
  "an asterisk": line("OPTIONS * HTTP/1.1"),
  "a fragment": line("GET /public/x#y HTTP/1.1"),
  "a tab in the path": line("GET /public/x\ty HTTP/1.1"),
  "a tab in the query": line("GET /public/x?a\tHTTP/1.1 HTTP/1.1"),
  "a blank in the target": line("GET /public/x y HTTP/1.1"),
  "a tab instead of a blank": line("GET\t/public/x HTTP/1.1"),
  "two blanks": line("GET  /public/x HTTP/1.1"),
  "a blank at the end": line("GET /public/x HTTP/1.1 "),
  "a blank before the method": line(" GET /public/x HTTP/1.1"),
  "no version": line("GET /public/x"),
  "a version in lower case": line("GET /public/x http/1.1"),
  "a method in brackets": line("(GET) /public/x HTTP/1.1"),
};

const CODINGS: Cases = named("", ["xchunked", "identity", "gzip"], (value) =>
  chunked(`Transfer-Encoding: ${value}\r\n`),
);

const VERSIONS: Cases = {
  "HTTP/1.2": line("GET /public/x HTTP/1.2"),
  "HTTP/0.9": line("GET /public/x HTTP/0.9"),
  "HTTP/2.0": line("GET /public/x HTTP/2.0"),
  "the preface of HTTP/2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
};

const METHODS: Cases = {
  ...named("", ["get", "Get", "G3T", "GE_T", "A".repeat(40)], (method) =>
    line(`${method} /public/x HTTP/1.1`),
  ),
  "TRACE, which echoes credentials": get(AUTHORISED, "TRACE /public/x HTTP/1.1"),
  "CONNECT, which asks for a tunnel": get(AUTHORISED, "CONNECT a:443 HTTP/1.1"),
  "CONNECT with a path": get(AUTHORISED, "CONNECT /public/x HTTP/1.1"),
};

const LARGE: Cases = {
  "a head over 16 KiB": get(`X-A: ${"x".repeat(17_000)}\r\n`),
  "a head over 16 KiB without an end": `${line("GET / HTTP/1.1").slice(0, -2)}X-A: ${"x".repeat(17_000)}`,
  "201 header lines": get("X-A: b\r\n".repeat(200)),
};

/** Every refusal of a head: what it is about, the cases, the answer. */
const REFUSED: readonly (readonly [string, number, string, Cases])[] = [
  ["lengths", 400, "bad_request", LENGTHS],
  ["Transfer-Encoding", 400, "bad_request", ENCODINGS],
  ["lines", 400, "bad_request", LINES],
  ["Host", 400, "bad_request", HOSTS],
  ["request lines", 400, "bad_request", TARGETS],
  ["an unknown coding", 501, "unsupported_transfer_encoding", CODINGS],
  ["an unknown version", 505, "unsupported_version", VERSIONS],
  ["methods", 501, "unsupported_method", METHODS],
  ["an expectation", 417, "expectation_failed", { unknown: get("Expect: 200-maybe\r\n") }],
  ["sizes", 431, "head_too_large", LARGE],
  [
    "a long target",
    414,
    "uri_too_long",
    { "": line(`GET /public/${"x".repeat(17_000)} HTTP/1.1`) },
  ],
];

/** Chunk syntax after `Transfer-Encoding: chunked`. */
const BROKEN_CHUNKS: Cases = {
  "a size that is no number": "z\r\nhello\r\n0\r\n\r\n",
  "an empty size": "\r\nhello\r\n0\r\n\r\n",
  "a size with 0x": "0x5\r\nhello\r\n0\r\n\r\n",
  "a negative size": "-5\r\nhello\r\n0\r\n\r\n",
  "a size over 48 bits": "10000000000000005\r\nhello\r\n0\r\n\r\n",
  "a blank before the size": " 5\r\nhello\r\n0\r\n\r\n",
  "a blank after the size": "5 \r\nhello\r\n0\r\n\r\n",
  "a bare LF after the size": "5\nhello\r\n0\r\n\r\n",
  "a bare CR after the size": "5\rhello\r\n0\r\n\r\n",
  "a bare LF in an extension": "5;a\nb\r\nhello\r\n0\r\n\r\n",
  "a bare CR in an extension": "5;a\rb\r\nhello\r\n0\r\n\r\n",
  "a NUL in an extension": "5;a\0b\r\nhello\r\n0\r\n\r\n",
  "an endless extension": `5;${"a".repeat(5000)}`,
  "no CRLF after the data": "5\r\nhello0\r\n\r\n",
  "a bare LF after the data": "5\r\nhello\n0\r\n\r\n",
  "more data than the size says": "5\r\nhello!\r\n0\r\n\r\n",
  "a trailer that is no field": "5\r\nhello\r\n0\r\nbad trailer\r\n\r\n",
  "a folded trailer": "5\r\nhello\r\n0\r\nX-A: b\r\n c\r\n\r\n",
  "a trailer that ends in a bare LF": "5\r\nhello\r\n0\r\nX-A: b\n\r\n",
  "a last chunk that ends in a bare LF": "5\r\nhello\r\n0\n\r\n",
};

describeBoth("request framing", (start) => {
  let upstream: RawUpstream;
  let gateway: GatewayUnderTest;
  beforeAll(async () => {
    upstream = rawUpstream();
    gateway = await start({ config: simpleConfig(`http://${upstream.address}`), env: OPS_ENV });
  });
  beforeEach(() => {
    upstream.respond = (_, write) => write(OK_RESPONSE);
    upstream.seen.length = 0;
  });
  afterAll(async () => {
    upstream.stop();
    await gateway.stop();
  });

  const linesSeen = () => upstream.seen.map(({ line }) => line);

  describe.each([...REFUSED])("%s: %d %s", (_, status, reason, cases) => {
    test.each(Object.entries(cases))("%s is refused and ends the connection", async (_, bytes) => {
      const answer = await raw(gateway.address, bytes + SMUGGLED);
      expect(answer.statuses).toEqual([status]);
      expect(answer.text).toContain(`\r\nX-Gatehouse-Reason: ${reason}\r\n`);
      expect(answer.text).toContain("\r\nConnection: close\r\n");
      expect(answer.closed).toBe(true);
      expect(upstream.seen).toEqual([]);
    });
  });

  describe("chunks", () => {
    test.each(Object.entries(BROKEN_CHUNKS))(
      "%s beside its head is 400, unseen",
      async (_, body) => {
        const bytes = post("Transfer-Encoding: chunked\r\n", body);
        upstream.respond = () => {};
        const connection = await openRaw(gateway.address);
        connection.send(bytes + SMUGGLED);
        const answer = await connection.read();
        expect(answer.statuses).toEqual([400]);
        expect(answer.text).toContain("\r\nX-Gatehouse-Reason: body_malformed\r\n");
        expect(answer.closed).toBe(true);
        expect(upstream.seen.filter(({ body }) => body.endsWith("0\r\n\r\n"))).toEqual([]);
        expect(linesSeen()).not.toContain("GET /public/smuggled HTTP/1.1");
      },
    );

    test.each(Object.entries(BROKEN_CHUNKS))(
      "%s after its head is 400 and never whole",
      async (_, body) => {
        upstream.respond = () => {};
        const closedBefore = upstream.closedConnections;
        const connection = await openRaw(gateway.address);
        connection.send(post("Transfer-Encoding: chunked\r\n", ""));
        await eventually("the head arrives", () => upstream.seen.length === 1);
        connection.send(body + SMUGGLED);
        const answer = await connection.read();
        expect(answer.statuses).toEqual([400]);
        expect(answer.closed).toBe(true);
        await eventually("the call is cut", () => upstream.closedConnections > closedBefore);
        expect(upstream.seen.length).toBe(1);
        expect(upstream.seen[0]?.body).not.toContain("0\r\n\r\n");
      },
    );

    test("extensions, odd sizes and trailers are not passed on: the body is framed anew", async () => {
      upstream.respond = (_, write) => write(OK_AND_CLOSE);
      const chunks =
        '1;a="b";c\r\nh\r\n0004 ;x\r\nello\r\n000;last\r\nX-Trailer: secret\r\nContent-Length: 5\r\n\r\n';
      const answer = await raw(
        gateway.address,
        post("Transfer-Encoding: chunked\r\nTrailer: X-Trailer\r\n", chunks) + NEXT,
      );
      expect(answer.statuses).toEqual([200, 200]);
      await eventually(
        "the body is whole",
        () => upstream.seen[0]?.body.endsWith("0\r\n\r\n") === true,
      );
      expect(upstream.seen[0]?.body).toMatch(/^(?:[1-5]\r\n[helo]{1,5}\r\n)+0\r\n\r\n$/);
      expect(upstream.seen[0]?.head).not.toMatch(/trailer/i);
    });
  });

  describe("a body where none is expected", () => {
    test.each(["GET", "HEAD", "OPTIONS", "DELETE"])(
      "the body of %s is no request",
      async (method) => {
        const framed = `Content-Length: ${SMUGGLED.length}\r\n\r\n${SMUGGLED}`;
        const answer = await raw(
          gateway.address,
          `${method} /public/x HTTP/1.1\r\nHost: a\r\n${framed}${NEXT}`,
        );
        expect(answer.statuses).toEqual([200, 200]);
        expect(linesSeen()).toEqual([`${method} /public/x HTTP/1.1`, "GET /public/next HTTP/1.1"]);
      },
    );

    test.each(["GET", "HEAD", "OPTIONS"])(
      "the chunked body of %s is no request",
      async (method) => {
        upstream.respond = (_, write) => write(OK_AND_CLOSE);
        const size = SMUGGLED.length.toString(16);
        const framed = `Transfer-Encoding: chunked\r\n\r\n${size}\r\n${SMUGGLED}\r\n0\r\n\r\n`;
        const answer = await raw(
          gateway.address,
          `${method} /public/x HTTP/1.1\r\nHost: a\r\n${framed}${NEXT}`,
        );
        expect(answer.statuses).toEqual([200, 200]);
        expect(linesSeen()).toEqual([`${method} /public/x HTTP/1.1`, "GET /public/next HTTP/1.1"]);
      },
    );

    test.each(["GET", "HEAD"])(
      "the body of %s to the health endpoint is no request",
      async (method) => {
        const framed = `Content-Length: ${SMUGGLED.length}\r\n\r\n${SMUGGLED}`;
        const answer = await raw(
          gateway.address,
          `${method} /healthz HTTP/1.1\r\nHost: a\r\n${framed}${NEXT}`,
        );
        expect(answer.statuses).toEqual([200, 200]);
        expect(linesSeen()).toEqual(["GET /public/next HTTP/1.1"]);
      },
    );
  });

  describe("a refusal before the body was read", () => {
    const guarded = (lines: string) => `POST /private HTTP/1.1\r\nHost: a\r\n${lines}\r\n`;

    test("with a small body, what follows is read from where the body ends", async () => {
      const head = guarded(`Content-Length: ${SMUGGLED.length}\r\n`);
      const answer = await raw(gateway.address, head + SMUGGLED + NEXT);
      expect(answer.statuses).toEqual([401, 200]);
      expect(linesSeen()).toEqual(["GET /public/next HTTP/1.1"]);
    });

    test("with a small body that comes later, byte by byte, it is still no request", async () => {
      const connection = await openRaw(gateway.address);
      connection.send(guarded(`Content-Length: ${SMUGGLED.length}\r\n`));
      await connection.read({ until: (text) => text.includes("no_credential") });
      for (const byte of SMUGGLED) connection.send(byte);
      connection.send(NEXT);
      const answer = await connection.read();
      expect(answer.statuses).toEqual([401, 200]);
      expect(linesSeen()).toEqual(["GET /public/next HTTP/1.1"]);
    });

    test("with a huge body, the connection ends and nothing in it is answered", async () => {
      const body = SMUGGLED.repeat(20_000);
      const answer = await raw(
        gateway.address,
        guarded(`Content-Length: ${body.length}\r\n`) + body,
      );
      expect(answer.statuses).toEqual([401]);
      expect(answer.text).toContain("\r\nConnection: close\r\n");
      expect(upstream.seen).toEqual([]);
    });

    test("with a chunked body, the connection ends and nothing in it is answered", async () => {
      const body = `${SMUGGLED.length.toString(16)}\r\n${SMUGGLED}\r\n`;
      const connection = await openRaw(gateway.address);
      connection.send(guarded("Transfer-Encoding: chunked\r\n") + body);
      const answer = await connection.read();
      connection.send(`0\r\n\r\n${SMUGGLED}`);
      expect(answer.statuses).toEqual([401]);
      expect(answer.closed).toBe(true);
      expect(upstream.seen).toEqual([]);
    });

    test("a client that waits for 100 Continue and is refused is not read for a body", async () => {
      // RFC 9110 section 10.1.1: it may leave the body out, so what follows must not be guessed at.
      const head = guarded("Content-Length: 44\r\nExpect: 100-continue\r\n");
      const connection = await openRaw(gateway.address);
      connection.send(head);
      const waited = await connection.read();
      expect(waited.statuses).toEqual([401]);
      expect(waited.text).toContain("\r\nConnection: close\r\n");
      expect(waited.closed).toBe(true);
      expect(upstream.seen).toEqual([]);
    });
  });

  describe("Expect", () => {
    test("100 Continue is said by the gateway, once, and not asked of the upstream", async () => {
      upstream.respond = () => {};
      const connection = await openRaw(gateway.address);
      connection.send(
        post("Content-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n", ""),
      );
      await connection.read({ until: (text) => text.includes("100 Continue\r\n\r\n") });
      await eventually("the head arrives", () => upstream.seen.length === 1);
      connection.send("hello");
      await eventually("the body arrives", () => upstream.seen[0]?.body === "hello");
      // Not before: an upstream that answers the head alone has no use for a body any more.
      upstream.respond = (_, write) => write(OK_RESPONSE);
      expect(upstream.seen[0]?.head).not.toMatch(/expect/i);
      connection.kill();
    });

    test("in HTTP/1.0 it is left alone", async () => {
      const head =
        "POST /public/x HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello";
      expect((await raw(gateway.address, head)).statuses).toEqual([200]);
    });
  });

  describe("order and versions", () => {
    test("pipelined requests are answered in order, each on its own merits", async () => {
      upstream.respond = ({ line }, write) => {
        const name = line.split(" ")[1] ?? "";
        write(`HTTP/1.1 200 OK\r\nContent-Length: ${name.length}\r\n\r\n${name}`);
      };
      const one = (path: string) => `GET ${path} HTTP/1.1\r\nHost: a\r\n\r\n`;
      const answer = await raw(
        gateway.address,
        one("/public/1") + one("/private") + one("/public/2") + one("/nowhere%00") + NEXT,
      );
      expect(answer.statuses).toEqual([200, 401, 200, 400, 200]);
      expect(answer.text).toMatch(
        /\/public\/1.*no_credential.*\/public\/2.*path_malformed.*\/public\/next$/s,
      );
    });

    test("HTTP/1.0 without Host is served and the connection closed", async () => {
      const answer = await raw(gateway.address, `GET /public/x HTTP/1.0\r\n\r\n${SMUGGLED}`);
      expect(answer.statuses).toEqual([200]);
      expect(answer.closed).toBe(true);
      expect(linesSeen()).toEqual(["GET /public/x HTTP/1.1"]);
    });

    test("an absolute form with the same host is its path", async () => {
      const answer = await raw(
        gateway.address,
        get("Connection: close\r\n", "GET http://A/public/x?y HTTP/1.1"),
      );
      expect(answer.statuses).toEqual([200]);
      expect(linesSeen()).toEqual(["GET /public/x?y HTTP/1.1"]);
    });

    test("a method nobody knows is passed on", async () => {
      const answer = await raw(
        gateway.address,
        get("Connection: close\r\n", "M-SEARCH /public/x HTTP/1.1"),
      );
      expect(answer.statuses).toEqual([200]);
      expect(linesSeen()).toEqual(["M-SEARCH /public/x HTTP/1.1"]);
    });

    test("200 header lines pass", async () => {
      const lines = `${"X-A: b\r\n".repeat(198)}Connection: close\r\n`;
      expect((await raw(gateway.address, get(lines))).statuses).toEqual([200]);
    });

    test("an empty line before a request is skipped", async () => {
      expect((await raw(gateway.address, `\r\n${NEXT}`)).statuses).toEqual([200]);
    });
  });
});
