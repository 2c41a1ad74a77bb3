/** That nothing which was logged is lost at the end, and that nobody is waited for who does not read. */
import { afterEach, expect, test } from "bun:test";
import { closeSync, constants, openSync, readSync } from "node:fs";
import { join } from "node:path";
import { scratch } from "../test/support/gateway.ts";
import { eventually } from "../test/support/raw.ts";
import { stdoutSink } from "./log.ts";

const opened: number[] = [];
afterEach(() => {
  for (const fd of opened.splice(0)) closeSync(fd);
});

/** A pipe with nobody behind it; `read` takes what is in it, as text. */
function pipe(): { fd: number; read(): string } {
  const path = join(scratch(), "pipe");
  Bun.spawnSync(["mkfifo", path]);
  const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  const fd = openSync(path, "w");
  opened.push(reader, fd);
  const buffer = Buffer.alloc(65_536);
  const read = (): string => {
    try {
      return buffer.toString("latin1", 0, readSync(reader, buffer));
    } catch {
      return "";
    }
  };
  return { fd, read };
}

/** More than any pipe holds, so that writing it waits for a reader. */
const LONG = `${"y".repeat(1_500_000)}\n`;

test("what was under way when the end came is written, and then the rest", async () => {
  const { fd, read } = pipe();
  const sink = stdoutSink(fd);
  sink.write(LONG);
  let got = "";
  const readOn = (): boolean => {
    got += read();
    return got.length > 0;
  };
  await eventually("it is under way", readOn);
  sink.write("the last line\n");
  const flushed = sink.flush();
  await eventually("all is read", () => readOn() && got.endsWith("the last line\n"));
  await flushed;
  expect(got === `${LONG}the last line\n`).toBe(true);
});

test("a reader that reads nothing does not keep the end from coming", async () => {
  const { fd, read } = pipe();
  const sink = stdoutSink(fd);
  sink.write(LONG);
  let got = "";
  await eventually("it is under way", () => {
    got ||= read();
    return got.length > 0;
  });
  sink.write("never read\n");
  await sink.flush();
  expect(got).toStartWith("yyy");
});
