/** The state directory: what is said to somebody it does not belong to. */
import { describe, expect, test } from "bun:test";
import { chownSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { scratch } from "../../test/support/gateway.ts";
import { OperatorError } from "../errors.ts";
import { prepareStateDir } from "./state-dir.ts";

const isRoot = process.geteuid?.() === 0;
if (!isRoot) process.stderr.write("state: only root can make a directory of somebody else\n");

describe.skipIf(!isRoot)("A state directory of somebody else", () => {
  const hintFor = (uid: number): string => {
    const dir = join(scratch(), "state");
    mkdirSync(dir, { mode: 0o700 });
    chownSync(dir, uid, uid);
    try {
      prepareStateDir(dir);
    } catch (error) {
      if (error instanceof OperatorError) return error.hint ?? "";
    }
    throw new Error("not refused");
  };

  test("says as whom to run the command", () => {
    expect(hintFor(1234)).toContain("sudo -u '#1234' gatehouse");
    expect(hintFor(61_183)).toContain("sudo -u");
  });

  test("of a service with an account that systemd made, which sudo cannot enter, says where to look", () => {
    expect(hintFor(61_184)).toContain("gatehouse service status");
    expect(hintFor(65_519)).toContain("gatehouse service status");
  });
});
