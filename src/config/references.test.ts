/** References: what they yield, and that a problem names places and never values. */
import { afterAll, describe, expect, test } from "bun:test";
import { chmodSync } from "node:fs";
import { tempDir } from "../../test/support/config.ts";
import { hasReference, isSingleReference, resolveDeep, resolveReferences } from "./references.ts";

const directory = tempDir();
afterAll(directory.remove);
const CANARY = "canary-7f3a";
directory.write("secret", `${CANARY}\n`);
directory.write("windows", `${CANARY}\r\n`);
directory.write("lines", `${CANARY}\n${CANARY}\n`);
directory.write("nul", `${CANARY}\0`);
directory.write("empty", "\n");
directory.write("blank", " \t\n");
directory.write("big", CANARY.repeat(6000));
directory.write("binary", new Uint8Array([0x61, 0xff, 0xfe]));
directory.write(
  "settings.toml",
  `token_salt = "${CANARY}"\nport = 1\nblank = " "\n[oauth.client]\nsecret = "${CANARY}"\n`,
);
directory.write("open", CANARY);
chmodSync(`${directory.path}/open`, 0o604);
directory.write("creds/token", `${CANARY}\n`, 0o600);
chmodSync(`${directory.path}/creds/token`, 0o444);

const sources = {
  env: {
    KEY: CANARY,
    EMPTY: "",
    BLANK: "  ",
    LINES: `${CANARY}\n${CANARY}`,
    NESTED: "${env:KEY}",
    CREDENTIALS_DIRECTORY: `${directory.path}/creds`,
  },
  configDir: directory.path,
};

describe("resolveReferences", () => {
  test.each([
    ["plain text", "plain text"],
    ["", ""],
    ["${env:KEY}", CANARY],
    ["Bearer ${env:KEY}", `Bearer ${CANARY}`],
    ["${env:KEY}:${env:KEY}", `${CANARY}:${CANARY}`],
    ["${file:secret}", CANARY],
    ["${file:./windows}", CANARY],
    [`\${file:${directory.path}/secret}`, CANARY],
    ["${cred:token}", CANARY],
    ["${toml:settings.toml#token_salt}", CANARY],
    ["${toml:settings.toml#oauth.client.secret}", CANARY],
    ["$${env:KEY}", "${env:KEY}"],
    ["a $${b} ${env:KEY}", `a \${b} ${CANARY}`],
    ["costs $5 {x}", "costs $5 {x}"],
    ["${env:NESTED}", "${env:KEY}"],
  ])("%s becomes %s", (text, value) => {
    expect(resolveReferences(text, sources)).toEqual({ value });
  });

  test.each([
    ["${env:NOPE}", "environment variable NOPE is not set"],
    ["${env:EMPTY}", "environment variable EMPTY is empty"],
    ["${env:BLANK}", "environment variable BLANK is blank"],
    ["${env:LINES}", "environment variable LINES holds a line break or NUL inside"],
    ["${env:}", "${env:NAME} needs the name of an environment variable"],
    ["${env:A B}", "${env:NAME} needs the name of an environment variable"],
    ["${file:}", "${file:/path} needs a path"],
    ["${file:nope}", `secret file ${directory.path}/nope does not exist`],
    ["${file:.}", `${directory.path} is a directory`],
    ["${file:empty}", `secret file ${directory.path}/empty is empty`],
    ["${file:blank}", `secret file ${directory.path}/blank is blank`],
    ["${file:lines}", `secret file ${directory.path}/lines holds a line break or NUL inside`],
    ["${file:nul}", `secret file ${directory.path}/nul holds a line break or NUL inside`],
    ["${file:big}", `secret file ${directory.path}/big is larger than 64 KiB`],
    ["${file:binary}", `secret file ${directory.path}/binary is not UTF-8`],
    [
      "${file:open}",
      `secret file ${directory.path}/open is open to every user (mode 604): chmod 600 it`,
    ],
    ["${toml:settings.toml}", "${toml:/path#key} needs a path and a dotted key"],
    ["${toml:#a}", "${toml:/path#key} needs a path and a dotted key"],
    ["${toml:settings.toml#a b}", "${toml:/path#key} needs a path and a dotted key"],
    ["${toml:nope#a}", `secret file ${directory.path}/nope does not exist`],
    ["${toml:settings.toml#nope}", `nope in ${directory.path}/settings.toml is no text`],
    ["${toml:settings.toml#port}", `port in ${directory.path}/settings.toml is no text`],
    ["${toml:settings.toml#__proto__}", `__proto__ in ${directory.path}/settings.toml is no text`],
    ["${toml:settings.toml#blank}", `blank in ${directory.path}/settings.toml is blank`],
    ["${toml:secret#a}", `secret file ${directory.path}/secret is not TOML`],
    ["${cred:nope}", `secret file ${directory.path}/creds/nope does not exist`],
    ["${cred:../secret}", "${cred:name} needs the name of a credential"],
    [
      "${vault:x}",
      "unknown kind of reference `vault`: there are ${env:NAME}, ${file:/path}, ${cred:name} and ${toml:/path#key}",
    ],
    [
      "${KEY}",
      "unknown kind of reference: there are ${env:NAME}, ${file:/path}, ${cred:name} and ${toml:/path#key}",
    ],
    ["${env:KEY", "a reference is not closed: `}` is missing"],
  ])("%s is refused: %s", (text, problem) => {
    expect(resolveReferences(text, sources)).toEqual({ problem });
  });

  test("without a credentials directory the message says how to get one", () => {
    const resolved = resolveReferences("${cred:token}", { env: {}, configDir: "/" });
    expect(resolved).toEqual({
      problem:
        "credential token is not there: CREDENTIALS_DIRECTORY is not set, so this is no systemd service with LoadCredential=token:/path",
    });
  });

  test("no problem ever holds a value", () => {
    for (const name of ["lines", "nul", "big", "open"]) {
      const resolved = resolveReferences(`\${file:${name}}`, sources);
      expect(JSON.stringify(resolved)).not.toContain(CANARY);
    }
  });
});

test("hasReference and isSingleReference tell references from text and from escapes", () => {
  expect(hasReference("Bearer ${env:A}")).toBe(true);
  expect(hasReference("$${env:A}")).toBe(false);
  expect(hasReference("$5")).toBe(false);
  expect(isSingleReference("${file:/run/x}")).toBe(true);
  expect(isSingleReference("${env:A}${env:B}")).toBe(false);
  expect(isSingleReference("x${env:A}")).toBe(false);
  expect(isSingleReference("${vault:x}")).toBe(false);
});

test("resolveDeep resolves maps and lists, keeps other values and collects every problem with its path", () => {
  const { value, problems, secrets } = resolveDeep(
    { a: "${env:KEY}", list: ["x", "${env:NOPE}", 3], deep: { no: "${env:EMPTY}", yes: true } },
    sources,
  );
  expect(value).toEqual({ a: CANARY, list: ["x", "", 3], deep: { no: "", yes: true } });
  expect(problems).toEqual([
    { path: ["list", 1], problem: "environment variable NOPE is not set" },
    { path: ["deep", "no"], problem: "environment variable EMPTY is empty" },
  ]);
  expect(secrets).toEqual([CANARY]);
});
