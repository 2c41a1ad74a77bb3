/** Addresses: one spelling each, refusals that say what to write. */
import { describe, expect, test } from "bun:test";
import {
  parseHostPattern,
  parseListen,
  parseOrigin,
  parseTrustedPeer,
  parseUpstreamUrl,
} from "./address.ts";

describe("parseListen", () => {
  test.each([
    ["127.0.0.1:8008", { kind: "tcp", host: "127.0.0.1", port: 8008 }],
    ["localhost:0", { kind: "tcp", host: "localhost", port: 0 }],
    [":8008", { kind: "tcp", host: "0.0.0.0", port: 8008 }],
    ["*:8008", { kind: "tcp", host: "0.0.0.0", port: 8008 }],
    ["[::1]:65535", { kind: "tcp", host: "::1", port: 65535 }],
    ["unix:/run/gatehouse.sock", { kind: "unix", path: "/run/gatehouse.sock" }],
  ])("%s is an address", (text, value) => {
    expect(parseListen(text)).toEqual({ value } as never);
  });

  test.each([
    ["8008", "write 127.0.0.1:8008"],
    ["http://127.0.0.1:8008", "leave out the scheme"],
    ["127.0.0.1", "expected host:port"],
    ["127.0.0.1:65536", "expected host:port"],
    ["300.0.0.1:80", "host name or an IPv4"],
    ["[127.0.0.1]:80", "IPv6"],
    ["::1:80", "expected host:port"],
    ["unix:run/x", "absolute path"],
    [`unix:/${"x".repeat(103)}`, "at most 103 bytes"],
  ])("%s is refused with: %s", (text, part) => {
    expect(JSON.stringify(parseListen(text))).toContain(part);
    expect(parseListen(text)).toHaveProperty("problem");
  });
});

describe("parseUpstreamUrl", () => {
  test.each([
    ["http://127.0.0.1:9000", false, "127.0.0.1", 9000, "127.0.0.1:9000", ""],
    ["http://ollama", false, "ollama", 80, "ollama", ""],
    ["https://API.example.com/", true, "api.example.com", 443, "api.example.com", ""],
    ["https://api.example.com:443/v1/", true, "api.example.com", 443, "api.example.com", "/v1"],
    ["http://my_service:8080/a/b", false, "my_service", 8080, "my_service:8080", "/a/b"],
    ["http://[::1]:9000", false, "::1", 9000, "[::1]:9000", ""],
  ])("%s is an upstream", (text, tls, host, port, authority, basePath) => {
    expect(parseUpstreamUrl(text)).toEqual({
      value: { target: { kind: "tcp", tls, host, port }, authority, basePath },
    });
  });

  test("a socket has no base path and calls itself localhost", () => {
    expect(parseUpstreamUrl("unix:/run/app.sock")).toEqual({
      value: {
        target: { kind: "unix", path: "/run/app.sock" },
        authority: "localhost",
        basePath: "",
      },
    });
  });

  test.each([
    ["127.0.0.1:9000", "is http:// missing?"],
    ["ftp://x", "expected http://"],
    ["http:/x", "expected http://"],
    ["http://x:0", "expected http://"],
    ["http://x:", "expected http://"],
    ["http://x:99999", "expected http://"],
    ["http://x\\y", "expected http://"],
    ["http://a b", "expected http://"],
    ["http://x/?a=b", "query or fragment"],
    ["http://x#a", "query or fragment"],
    ["http://x/a/../b", ". or .. segments"],
    ["http://x//a", "//"],
    ["unix:app.sock", "absolute path"],
  ])("%s is refused with: %s", (text, part) => {
    expect(JSON.stringify(parseUpstreamUrl(text))).toContain(part);
    expect(parseUpstreamUrl(text)).toHaveProperty("problem");
  });

  test("credentials in a URL are refused and not repeated", () => {
    const said = JSON.stringify(parseUpstreamUrl("http://ann:hunter2@x"));
    expect(said).toContain("credentials cannot be part of the URL");
    expect(said).not.toContain("hunter2");
  });
});

describe("parseTrustedPeer", () => {
  test.each([
    ["10.0.0.0/8", "10.0.0.0/8"],
    ["127.0.0.1", "127.0.0.1/32"],
    ["::1", "::1/128"],
    ["FD00::/8", "fd00::/8"],
  ])("%s is the network %s", (text, cidr) => {
    expect(parseTrustedPeer(text)).toEqual({ value: { kind: "cidr", text: cidr } });
  });

  test("unix is every peer of a socket", () => {
    expect(parseTrustedPeer("unix")).toEqual({ value: { kind: "unix" } });
  });

  test.each(["0.0.0.0/0", "::/0", "10.0.0.0/0", "::ffff:0:0/96", "::/64"])(
    "%s takes in every client and is refused",
    (text) => {
      expect(JSON.stringify(parseTrustedPeer(text))).toContain("trusts every client");
    },
  );

  test.each(["10.0.0.0/33", "10.0.0/8", "localhost", "::1/129", "10.0.0.0/", "Unix"])(
    "%s is no network",
    (text) => {
      expect(JSON.stringify(parseTrustedPeer(text))).toContain("expected a network");
    },
  );
});

describe("parseOrigin", () => {
  test("an origin loses its slash, its default port and its upper case", () => {
    expect(parseOrigin("HTTPS://LLM.example.com:443/")).toEqual({
      value: "https://llm.example.com",
    });
  });

  test.each(["https://x/path", "llm.example.com", "https://u:p@x", "https://x?a"])(
    "%s is no origin",
    (text) => {
      expect(parseOrigin(text)).toHaveProperty("problem");
    },
  );
});

describe("parseHostPattern", () => {
  test.each([
    ["A.example.com.", "a.example.com"],
    ["*.Example.com", "*.example.com"],
    ["localhost", "localhost"],
    ["127.0.0.1", "127.0.0.1"],
    ["[::1]", "[::1]"],
  ])("%s is the host %s", (text, value) => {
    expect(parseHostPattern(text)).toEqual({ value });
  });

  test.each([
    ["*", "leave host out"],
    ["a.example.com:443", "without its port"],
    ["::1", "[::1]"],
    ["a.*.com", "expected a host name"],
    ["*example.com", "expected a host name"],
    ["https://a", "expected a host name"],
    ["", "expected a host name"],
  ])("%s is refused with: %s", (text, part) => {
    expect(JSON.stringify(parseHostPattern(text))).toContain(part);
  });
});
