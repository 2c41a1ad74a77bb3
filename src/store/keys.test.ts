/** Key files: made once, never replaced, never shared. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  chmodSync,
  chownSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { temporaryDirectory } from "../../test/support/host.ts";
import { inOtherProcesses } from "../../test/support/other-process.ts";
import { EXIT, OperatorError } from "../errors.ts";
import { stateKey } from "./keys.ts";

let directory: string;
let stateDir: string;
beforeEach(() => {
  directory = temporaryDirectory();
  stateDir = join(directory, "state");
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

function refusal(work: () => unknown): OperatorError {
  try {
    work();
  } catch (error) {
    if (error instanceof OperatorError) return error;
    throw error;
  }
  throw new Error("it was not refused");
}

describe("stateKey", () => {
  test("a key has 32 bytes that stay the same, in a file of mode 0600 and nothing else beside it", () => {
    const key = stateKey(stateDir, "pepper");
    expect(key).toHaveLength(32);
    expect(stateKey(stateDir, "pepper")).toEqual(key);
    expect(readFileSync(join(stateDir, "pepper.key")).equals(key)).toBe(true);
    expect(statSync(join(stateDir, "pepper.key")).mode & 0o777).toBe(0o600);
    expect(statSync(stateDir).mode & 0o777).toBe(0o700);
    expect(readdirSync(stateDir)).toEqual(["pepper.key"]);
  });

  test.each(["000", "022", "277"])("the mode is 0600 whatever the umask is (%s)", (umask) => {
    const before = process.umask(Number.parseInt(umask, 8));
    try {
      stateKey(stateDir, "pepper");
    } finally {
      process.umask(before);
    }
    expect(statSync(join(stateDir, "pepper.key")).mode & 0o777).toBe(0o600);
    expect(statSync(stateDir).mode & 0o777).toBe(0o700);
  });

  test("different names have different keys", () => {
    expect(stateKey(stateDir, "one")).not.toEqual(stateKey(stateDir, "two"));
  });

  test("processes that race for the first use end with the same key", async () => {
    const code = `
      import { stateKey } from "./src/store/keys.ts";
      console.log(Buffer.from(stateKey(Bun.argv[1], "race")).toString("hex"));
    `;
    const keys = await inOtherProcesses(6, code, stateDir);
    expect(new Set(keys).size).toBe(1);
    expect(keys[0]).toBe(Buffer.from(stateKey(stateDir, "race")).toString("hex"));
    expect(readdirSync(stateDir)).toEqual(["race.key"]);
  });

  test.each(["640", "604", "660", "644"])(
    "a key of mode %s is refused and left as it is",
    (mode) => {
      const path = join(stateDir, "pepper.key");
      const key = stateKey(stateDir, "pepper");
      chmodSync(path, Number.parseInt(mode, 8));
      const { exitCode, hint } = refusal(() => stateKey(stateDir, "pepper"));
      expect(exitCode).toBe(EXIT.permission);
      expect(hint).toContain("chmod 600");
      expect(readFileSync(path).equals(key)).toBe(true);
    },
  );

  test.each([0, 31, 33])("a key of %d bytes is refused and left as it is", (length) => {
    stateKey(stateDir, "other");
    const path = join(stateDir, "pepper.key");
    writeFileSync(path, new Uint8Array(length), { mode: 0o600 });
    const { exitCode, hint } = refusal(() => stateKey(stateDir, "pepper"));
    expect(exitCode).toBe(EXIT.failure);
    expect(hint).toContain("backup");
    expect(readFileSync(path)).toHaveLength(length);
  });

  test("a symbolic link in place of a key is refused", () => {
    stateKey(stateDir, "other");
    symlinkSync(join(stateDir, "other.key"), join(stateDir, "pepper.key"));
    expect(refusal(() => stateKey(stateDir, "pepper")).exitCode).toBe(EXIT.permission);
  });

  test.if(process.geteuid?.() === 0)("a key of another user is refused", () => {
    stateKey(stateDir, "pepper");
    chownSync(join(stateDir, "pepper.key"), 65_533, 65_533);
    const { exitCode, message } = refusal(() => stateKey(stateDir, "pepper"));
    expect(exitCode).toBe(EXIT.permission);
    expect(message).toContain("65533");
  });

  test.each(["", "../pepper", "a/b", "A", "x.key", ".hidden"])(
    "a name that is no slug is a mistake of the caller: %p",
    (name) => {
      expect(() => stateKey(stateDir, name)).toThrow(TypeError);
    },
  );
});
