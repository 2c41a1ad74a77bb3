/** `shared`: what it comes to, and every way to write it wrong. */
import { afterAll, describe, expect, test } from "bun:test";
import { document, loadFine, loadText, problemsOf, tempDir } from "../../test/support/config.ts";

const files = tempDir();
afterAll(files.remove);
const SECRET = "canary-password-0123456789";
const shared = (text: string) => document(`shared: ${text}`);

describe("what it comes to", () => {
  test("without it there is none", async () => {
    expect((await loadFine(document())).shared).toBeNull();
  });

  test("an address alone has every default", async () => {
    const { shared: found } = await loadFine(shared("rediss://10.0.0.5:6380/2"));
    expect(found).toEqual({
      valkey: { url: "rediss://10.0.0.5:6380/2", command_timeout: "2s" },
      prefix: "gatehouse:",
    });
  });

  test("a map keeps its references as they are written", async () => {
    const map = `{ url: "redis://a", username: g, password: "\${env:VALKEY_PASSWORD}", prefix: "x:" }`;
    const { shared: found } = await loadFine(shared(map), { env: { VALKEY_PASSWORD: SECRET } });
    expect(found).toEqual({
      valkey: {
        url: "redis://a",
        username: "g",
        password: "${env:VALKEY_PASSWORD}",
        command_timeout: "2s",
      },
      prefix: "x:",
    });
  });

  test("variables set it, with a file that has none and with one that has a map", async () => {
    const alone = await loadFine(document(), { env: { GATEHOUSE_SHARED: "redis://a:1" } });
    expect(alone.shared?.valkey.url).toBe("redis://a:1");
    const over = await loadFine(shared("{ url: redis://a }"), {
      env: { GATEHOUSE_SHARED__URL: "redis://b", GATEHOUSE_SHARED__PREFIX: "y:" },
    });
    expect([over.shared?.valkey.url, over.shared?.prefix]).toEqual(["redis://b", "y:"]);
  });
});

describe("what is refused", () => {
  test.each<[string, string, string]>([
    ["a password in the address", `redis://:${SECRET}@a`, "shared: a password or user is not"],
    ["the same in a map", `{ url: "redis://x:${SECRET}@a" }`, "shared.url: a password or user"],
    ["another scheme", "http://a", "shared: expected redis://host:port"],
    ["an empty text", '""', "shared: expected redis://host:port"],
    ["a number", "6379", "shared: expected"],
    ["a list", "[redis://a]", "shared: expected"],
    ["an empty map", "{}", "shared.url: missing: expected exactly one of url, sentinel and"],
    ["two ways", '{ url: redis://a, cluster: { nodes: ["a:1"] } }', "shared.url: expected exactly"],
    ["an unknown key", "{ url: redis://a, ulr: x }", "shared.ulr: unknown key"],
    ["a literal password", `{ url: redis://a, password: ${SECRET} }`, "shared.password: a secret"],
    ["a user alone", "{ url: redis://a, username: g }", "shared.username: a user needs a password"],
    ["a prefix with *", '{ url: redis://a, prefix: "a*" }', "shared.prefix: expected 1 to 64"],
    ["an empty prefix", '{ url: redis://a, prefix: "" }', "shared.prefix: expected 1 to 64"],
    [
      "a literal password of the sentinels",
      `{ sentinel: { name: m, nodes: ["a:1"], password: ${SECRET} } }`,
      "shared.sentinel.password: a secret",
    ],
    [
      "a reference where none has a meaning",
      '{ url: "redis://${env:HOST}" }',
      "shared.url: a reference has no meaning here",
    ],
    [
      "a reference to nothing",
      '{ url: redis://a, password: "${env:UNSET_HERE}" }',
      "shared.password: environment variable UNSET_HERE is not set",
    ],
    [
      "certificates that are not there",
      "{ url: redis://a, tls: { ca: no.pem } }",
      "shared.tls.ca: /nonexistent/gatehouse/no.pem cannot be read",
    ],
  ])("%s", async (_, text, problem) => {
    const found = await problemsOf(shared(text));
    expect(found.filter((one) => one.startsWith(problem))).toHaveLength(1);
    expect(found.join()).not.toContain(SECRET);
  });

  test("a misspelt key has a suggestion", async () => {
    const { issues } = await loadText(shared("{ urll: redis://a }"));
    expect(issues.find(({ path }) => path === "shared.urll")?.hint).toContain("url");
  });
});
