/** Upstreams: loops, secrets in headers, headers that would break a message. */
import { describe, expect, test } from "bun:test";
import { networkInterfaces } from "node:os";
import { document, loadText, problemsOf } from "../../test/support/config.ts";

describe("an upstream that is the gateway itself is refused:", () => {
  const own = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
  const address = own.find(({ family, internal }) => family === "IPv4" && !internal)?.address;
  const loop = "upstreams.api.url: this is where the gateway itself listens";
  const problems = (listen: string, url: string, server = "") =>
    problemsOf(
      document(`server: { listen: "${listen}"${server} }\nupstreams: { api: { url: "${url}" } }`),
    );

  test.each([
    ["127.0.0.1:8008", "http://127.0.0.1:8008"],
    ["127.0.0.1:8008", "http://localhost:8008/base"],
    ["127.0.0.1:8008", "http://0.0.0.0:8008"],
    ["[::1]:8008", "http://[::1]:8008"],
    [":8008", "http://127.0.0.1:8008"],
    [":8008", "http://127.0.0.5:8008"],
    [":80", "http://localhost"],
    [":443", "https://localhost"],
    ["localhost:8008", "http://app.localhost:8008"],
    ["unix:/run/g.sock", "unix:/run/g.sock"],
    [":8008", `http://${address ?? "127.0.0.1"}:8008`],
  ])("listening on %s with %s", async (listen, url) => {
    expect(await problems(listen, url)).toEqual([loop]);
  });

  test.each([
    ["127.0.0.1:8008", "http://127.0.0.1:9000"],
    ["127.0.0.1:8008", "http://127.0.0.2:8008"],
    [":8008", "http://api.example.com:8008"],
    ["unix:/run/g.sock", "unix:/run/h.sock"],
    ["unix:/run/g.sock", "http://127.0.0.1:8008"],
    ["127.0.0.1:0", "http://127.0.0.1:8008"],
  ])("but not listening on %s with %s", async (listen, url) => {
    expect(await problems(listen, url)).toEqual([]);
  });

  test("by way of its public_url", async () => {
    const server = ", public_url: https://llm.example.com";
    expect(await problems(":8008", "https://llm.example.com/v1", server)).toEqual([
      "upstreams.api.url: this is the gateway's own public_url",
    ]);
    expect(await problems(":8008", "https://api.example.com", server)).toEqual([]);
  });
});

describe("a header of an upstream", () => {
  const headers = (lines: string, env: Record<string, string> = {}) =>
    problemsOf(document(`upstreams: { api: { url: http://x, headers: { ${lines} } } }`), { env });
  const at = (name: string) => `upstreams.api.headers.${name}`;

  test.each([
    ["authorization"],
    ["Proxy-Authorization"],
    ["cookie"],
    ["x-api-key"],
    ["api-key"],
    ["x-goog-api-key"],
    ["x-my-token"],
    ["client-secret"],
    ["x-password"],
  ])("named %s must be a reference", async (name) => {
    expect(await headers(`${name}: canary`)).toEqual([
      `${at(name)}: a secret is not written into this file`,
    ]);
    expect(await headers(`${name}: "Bearer \${env:KEY}"`, { KEY: "k" })).toEqual([]);
    expect(await headers(`${name}: "$\${env:KEY}"`, { KEY: "k" })).toHaveLength(1);
  });

  test("that holds no secret may be a literal", async () => {
    expect(await headers('x-team: "blue"')).toEqual([]);
  });

  test("with a missing, blank or unknown reference is refused with the place that was searched", async () => {
    expect(await headers('x-a: "${env:NOPE}"')).toEqual([
      `${at("x-a")}: environment variable NOPE is not set`,
    ]);
    expect(await headers('x-a: "${env:K}"', { K: " " })).toEqual([
      `${at("x-a")}: environment variable K is blank`,
    ]);
    expect(await headers('x-a: "${vault:K}"')).toEqual([
      `${at("x-a")}: unknown kind of reference \`vault\`: there are \${env:NAME}, \${file:/path}, \${cred:name} and \${toml:/path#key}`,
    ]);
  });

  test.each(["host", "Content-Length", "connection", "transfer-encoding", "upgrade", "te"])(
    "named %s is refused, because it belongs to the connection",
    async (name) => {
      expect(await headers(`${name}: x`)).toEqual([
        `${at(name)}: this header belongs to the connection and cannot be set`,
      ]);
    },
  );

  test("that is written twice in different case is refused", async () => {
    expect(await headers("x-a: b, X-A: c")).toEqual([`${at("X-A")}: this header is set twice`]);
  });

  test("with a line break or another control character is refused without its value", async () => {
    for (const value of ['"canary\\r\\nx-b: c"', '"canary\\0"', '"canary ✓"']) {
      const problems = await headers(`x-a: ${value}`);
      expect(problems).toEqual([
        `${at("x-a")}: the value has characters that a header cannot carry`,
      ]);
    }
  });
});

test("a reference where none is resolved is refused, with what to use instead", async () => {
  const { issues } = await loadText(document("state_dir: ${env:HOME}/state"), {
    env: { HOME: "/x" },
  });
  expect(issues).toMatchObject([
    { path: "state_dir", line: 3, column: 12, message: "a reference has no meaning here" },
  ]);
  expect(issues[0]?.hint).toContain("GATEHOUSE_STATE_DIR");
});
