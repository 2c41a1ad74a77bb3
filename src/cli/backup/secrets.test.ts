/** Where a passphrase or a secret key may come from, and where not. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { type TempDir, tempDir } from "../../../test/support/config.ts";
import { EXIT, OperatorError } from "../../errors.ts";
import type { CliContext } from "../context.ts";
import { existingPassphrase, newPassphrase, readIdentities } from "./secrets.ts";

const PASSPHRASE = "correct horse battery staple";

let dir: TempDir;
beforeEach(() => {
  dir = tempDir();
});
afterEach(() => dir.remove());

function context(changes: Partial<CliContext> = {}): CliContext {
  return {
    version: "0.0.0",
    plugins: [],
    env: { PASS: PASSPHRASE, CREDENTIALS_DIRECTORY: dir.path },
    cwd: dir.path,
    stdinIsTerminal: false,
    stdoutIsTerminal: false,
    out() {},
    err() {},
    readStdin: async () => `${PASSPHRASE}\n`,
    stop: new AbortController().signal,
    ...changes,
  };
}

async function refusal(work: () => unknown): Promise<OperatorError> {
  try {
    await work();
  } catch (error) {
    if (error instanceof OperatorError) return error;
    throw error;
  }
  throw new Error("it was not refused");
}

describe("a passphrase", () => {
  test.each([
    [{ passphraseFile: "pass" }],
    [{ passphraseFile: "windows" }],
    [{ passphraseFile: "-" }],
    [{ passphrase: "${env:PASS}" }],
    [{ passphrase: "${cred:pass}" }],
    [{ passphrase: "${file:pass}" }],
  ])("from %j", async (options) => {
    dir.write("pass", `${PASSPHRASE}\n`);
    dir.write("windows", `${PASSPHRASE}\r\n`);
    expect(await newPassphrase(context(), options)).toBe(PASSPHRASE);
    expect(await existingPassphrase(context(), options)).toBe(PASSPHRASE);
  });

  test("from a pipe, as <(pass show backup) gives one", async () => {
    const pipe = join(dir.path, "pipe");
    Bun.spawnSync(["mkfifo", "-m", "600", pipe]);
    const writer = Bun.spawn(["sh", "-c", `printf '%s\\n' '${PASSPHRASE}' > ${pipe}`]);
    expect(await existingPassphrase(context(), { passphraseFile: pipe })).toBe(PASSPHRASE);
    await writer.exited;
  });

  test("from a question, twice for a new backup and once for an old one", async () => {
    const asked: string[] = [];
    const ask = async (question: string): Promise<string> => {
      asked.push(question);
      return PASSPHRASE;
    };
    const terminal = context({ stdinIsTerminal: true });
    expect(await newPassphrase(terminal, {}, ask)).toBe(PASSPHRASE);
    expect(asked).toHaveLength(2);
    expect(await existingPassphrase(terminal, {}, ask)).toBe(PASSPHRASE);
    expect(asked).toHaveLength(3);
  });

  test("a short one is refused for a new backup, and taken for an old one", async () => {
    const terminal = context({ stdinIsTerminal: true });
    const { exitCode } = await refusal(() => newPassphrase(terminal, {}, async () => "short"));
    expect(exitCode).toBe(EXIT.usage);
    expect(await existingPassphrase(terminal, {}, async () => "short")).toBe("short");
  });

  test.each([
    ["blank", " \n", "one line"],
    ["empty", "", "one line"],
    ["nul", "correct horse\0battery", "one line"],
    ["long", "x".repeat(70_000), "too long"],
  ])("a file that is %s is refused", async (name, text, message) => {
    dir.write(name, text);
    const error = await refusal(() => newPassphrase(context(), { passphraseFile: name }));
    expect(error.exitCode).toBe(EXIT.usage);
    expect(error.message).toContain(message);
  });
});

describe("a secret key", () => {
  const KEY = `AGE-SECRET-KEY-1${"Q".repeat(58)}`;

  test("comments and blank lines are left out, several keys are taken", () => {
    dir.write("keys", `# made by age-keygen\n\n${KEY}\n${KEY}\r\n`);
    expect(readIdentities(context(), "keys")).toEqual([KEY, KEY]);
  });

  test.each([
    ["nothing in it", "# only a comment\n", "holds no secret key of age"],
    ["a public key", "age1qqqq\n", "holds no secret key of age"],
    ["an SSH key", "-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n", "holds no secret key of age"],
    ["a key that is encrypted", "age-encryption.org/v1\n-> scrypt x 18\n", "is itself encrypted"],
  ])("a file with %s is refused without being repeated", async (_, text, message) => {
    dir.write("keys", text);
    const error = await refusal(() => readIdentities(context(), "keys"));
    expect(error.exitCode).toBe(EXIT.usage);
    expect(error.message).toContain(message);
    expect(`${error.message} ${error.hint}`).not.toContain("qqqq");
  });

  test("a file that others can read is refused", async () => {
    dir.write("keys", KEY, 0o640);
    const error = await refusal(() => readIdentities(context(), "keys"));
    expect(error.exitCode).toBe(EXIT.permission);
    expect(error.hint).toContain("chmod 600");
  });
});
