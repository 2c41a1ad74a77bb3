/** Unit files on disk: whose they are, and that they are replaced whole; and what differs between two texts. */
import { afterAll, describe, expect, test } from "bun:test";
import { readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { scratch } from "../../../test/support/gateway.ts";
import { SYSTEM_INPUT } from "../../../test/support/service.ts";
import { smallDisk } from "../../../test/support/small-disk.ts";
import { difference } from "./difference.ts";
import { findUnit, keepAside, removeUnit, sealed, unitDifference, writeUnit } from "./unit-file.ts";

const TEXT = sealed(SYSTEM_INPUT, "[Service]\nType=notify\n");

const disk = smallDisk(256 * 1024);
if (disk === null) process.stderr.write("units: no full disk, because mounting is not allowed\n");
afterAll(() => disk?.dispose());

function place(text?: string): string {
  const path = join(scratch(), "gatehouse.service");
  if (text !== undefined) writeFileSync(path, text);
  return path;
}

describe("A unit file", () => {
  test("is known again, with what it was made from", () => {
    expect(findUnit(place(TEXT))).toEqual({
      kind: "ours",
      text: TEXT,
      input: SYSTEM_INPUT,
      isEdited: false,
    });
  });

  test("that somebody changed, above or below, is ours and changed", () => {
    expect(findUnit(place(`${TEXT}# mine\n`))).toMatchObject({ kind: "ours", isEdited: true });
    const other = TEXT.replace('"account":null', '"account":"eve"');
    expect(findUnit(place(other))).toMatchObject({ kind: "ours", isEdited: true });
  });

  test.each([
    ["one of somebody else", "[Service]\nExecStart=/bin/true\n"],
    ["an empty one", ""],
    ["one with a damaged head", TEXT.replace("# gatehouse-input: {", "# gatehouse-input: ")],
  ])("%s is not ours", (_, text) => {
    const path = place(text);
    expect(findUnit(path)).toEqual({ kind: "foreign", what: path });
  });

  test("that is masked, a link or a directory is not ours", () => {
    const masked = place();
    symlinkSync("/dev/null", masked);
    expect(findUnit(masked)).toEqual({ kind: "foreign", what: `${masked}, which is masked` });
    const link = place();
    symlinkSync(place(TEXT), link);
    expect(findUnit(link)).toMatchObject({ kind: "foreign" });
    expect(findUnit(scratch())).toMatchObject({ kind: "foreign" });
  });

  test("that is not there is none, and can be removed", () => {
    expect(findUnit(place())).toEqual({ kind: "none" });
    removeUnit(place());
  });

  test("is written for everybody to read whatever the umask, and nothing is left beside it", () => {
    const path = place("old");
    const before = process.umask(0o077);
    try {
      writeUnit(path, TEXT);
    } finally {
      process.umask(before);
    }
    expect(statSync(path).mode & 0o777).toBe(0o644);
    expect(readFileSync(path, "utf8")).toBe(TEXT);
    expect(readdirSync(join(path, ".."))).toEqual(["gatehouse.service"]);
  });

  test.skipIf(disk === null)("is left as it was when the disk is full", () => {
    const path = join(disk?.path ?? "", "gatehouse.service");
    writeUnit(path, TEXT);
    disk?.fill();
    expect(() => writeUnit(path, `${TEXT}${"#".repeat(100_000)}\n`)).toThrow("ENOSPC");
    expect(readFileSync(path, "utf8")).toBe(TEXT);
    expect(readdirSync(join(path, "..")).filter((name) => name.startsWith("."))).toEqual([]);
  });

  test("whose directory cannot be made is a clear error", () => {
    const file = place("not a directory");
    expect(() => writeUnit(join(file, "x.service"), TEXT)).toThrow(/cannot write .*x\.service/);
    expect(readFileSync(file, "utf8")).toBe("not a directory");
  });

  test("that was changed is kept under a name that systemd does not read", () => {
    const path = place("changed\n");
    const aside = keepAside(path);
    expect(aside).not.toEndWith(".service");
    expect(readFileSync(aside, "utf8")).toBe("changed\n");
    // A second time the first is not lost.
    writeFileSync(path, "changed again\n");
    expect(keepAside(path)).not.toBe(aside);
    expect(readFileSync(aside, "utf8")).toBe("changed\n");
  });
});

describe("A difference", () => {
  test("is the lines that go and come, in order", () => {
    expect(difference("a\nb\nc\n", "a\nx\nc\nd\n")).toEqual(["-b", "+x", "+d"]);
    expect(difference("a\nb\n", "b\na\n")).toEqual(["-a", "+a"]);
    expect(difference("same\n", "same\n")).toEqual([]);
    expect(difference("", "a\n")).toEqual(["+a"]);
  });

  test("of two units leaves out the checksum, which always changes", () => {
    const other = sealed(SYSTEM_INPUT, "[Service]\nType=simple\n");
    expect(unitDifference(TEXT, other)).toEqual(["-Type=notify", "+Type=simple"]);
  });
});
