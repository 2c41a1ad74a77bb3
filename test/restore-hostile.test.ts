/**
 * Backups that are damaged, cut short, or made by somebody who wants something: each is refused in one clear line, and
 * nothing on the disk is touched.
 */
import { Database } from "bun:sqlite";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readFileSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { TarEntry } from "modern-tar";
import { backup } from "../src/cli/backup.ts";
import type { CliContext } from "../src/cli/context.ts";
import { type RestoreOptions, restore } from "../src/cli/restore.ts";
import { EXIT, OperatorError } from "../src/errors.ts";
import { bundledPlugins } from "../src/registry.ts";
import { openStateDatabase } from "../src/store/sqlite.ts";
import {
  type KeyPair,
  keyPair,
  type MadeFile,
  madeEntries,
  madeManifest,
  sealed,
  tarOf,
  tree,
} from "./support/backups.ts";
import { type TempDir, tempDir } from "./support/config.ts";

let keys: KeyPair;
let source: TempDir;
let good: Buffer;
let dir: TempDir;

const CONFIG = `version: 1
state_dir: ./state
strategies: { team: { use: bearer-sqlite } }
routes: [{ match: { path: /x }, access: [team] }]
`;

function context(cwd: string): CliContext {
  return {
    version: "0.1.0",
    plugins: bundledPlugins,
    env: { HOME: cwd },
    cwd,
    stdinIsTerminal: false,
    stdoutIsTerminal: false,
    out() {},
    err() {},
    readStdin: async () => "",
    stop: new AbortController().signal,
  };
}

beforeAll(async () => {
  keys = await keyPair();
  source = tempDir();
  const config = source.write("etc/config.yaml", CONFIG);
  const opened = openStateDatabase(join(source.path, "etc/state"));
  opened.database.run("CREATE TABLE filler (x BLOB)");
  // Random, so that the file has several of the pieces that age encrypts one by one.
  opened.database.run("INSERT INTO filler VALUES (randomblob(200000))");
  opened.close();
  const out = join(source.path, "good.age");
  await backup(context(source.path), { config, out, recipient: [keys.recipient] });
  good = readFileSync(out);
});
afterAll(() => source.remove());

beforeEach(() => {
  dir = tempDir();
  keys.save(dir.path);
});
afterEach(() => dir.remove());

/** Restores to `new/config.yaml`. */
async function attempt(
  bytes: Uint8Array,
  options: Partial<RestoreOptions> = {},
): Promise<OperatorError> {
  const file = dir.write("b.age", bytes);
  const before = tree(dir.path);
  try {
    await restore(context(dir.path), {
      file,
      identity: [join(dir.path, "backup.key")],
      config: join(dir.path, "new/config.yaml"),
      ...options,
    });
  } catch (error) {
    if (!(error instanceof OperatorError)) throw error;
    expect(tree(dir.path)).toEqual(before);
    expect(error.message).not.toContain("\n  at ");
    return error;
  }
  throw new Error("it was not refused");
}

async function made(entries: readonly TarEntry[]): Promise<Uint8Array> {
  return sealed(await tarOf(entries), keys.recipient);
}

test("the backup that the others are made from is good", async () => {
  expect(good.length).toBeGreaterThan(3 * 65_536);
  const file = dir.write("b.age", good);
  const code = await restore(context(dir.path), {
    file,
    identity: [join(dir.path, "backup.key")],
    config: join(dir.path, "new/config.yaml"),
  });
  expect(code).toBe(EXIT.ok);
  const database = new Database(join(dir.path, "new/state/gatehouse.db"), { readonly: true });
  expect(database.query("SELECT length(x) AS bytes FROM filler").get()).toEqual({ bytes: 200_000 });
  database.close();
});

describe("cut short", () => {
  test("at every kind of place: in the header, between pieces, within one, before the last byte", async () => {
    const header = good.indexOf("\n--- ") + 5 + 44;
    const piece = 65_552;
    const offsets = [
      0,
      1,
      10,
      21,
      22,
      60,
      header - 50,
      header - 10,
      header,
      header + 1,
      header + 16,
    ];
    for (let count = 1; header + 16 + count * piece < good.length; count++) {
      for (const off of [-1, 0, 1, 30_000]) offsets.push(header + 16 + count * piece + off);
    }
    offsets.push(good.length - 17, good.length - 16, good.length - 1);
    for (const offset of offsets.filter((one) => one < good.length)) {
      const { exitCode, message } = await attempt(good.subarray(0, offset));
      expect({ offset, exitCode }).toEqual({ offset, exitCode: EXIT.failure });
      expect(message).toMatch(/is cut short|ends too early|is damaged/);
    }
    expect((await attempt(good.subarray(0, 10))).message).toContain(
      "is cut short: it has 10 bytes",
    );
    expect((await attempt(good.subarray(0, 60))).message).toContain("it ends within its header");
    expect((await attempt(good.subarray(0, good.length - 1))).message).toContain("ends too early");
  });

  test("a piece is missing in the middle, or bytes were added", async () => {
    const header = good.indexOf("\n--- ") + 5 + 44;
    const at = header + 16 + 65_552;
    const shorter = Buffer.concat([good.subarray(0, at), good.subarray(at + 65_552)]);
    expect((await attempt(shorter)).message).toMatch(/is damaged|ends too early/);
    expect((await attempt(Buffer.concat([good, Buffer.from("x")]))).message).toMatch(
      /is damaged|ends too early/,
    );
  });
});

test("one flipped bit anywhere is noticed", async () => {
  const step = Math.floor(good.length / 60);
  for (let at = 0; at < good.length; at += step) {
    const flipped = Buffer.from(good);
    flipped[at] = (flipped[at] ?? 0) ^ 1;
    const { exitCode, message } = await attempt(flipped);
    expect({ at, exitCode }).toEqual({ at, exitCode: EXIT.failure });
    expect(message).toMatch(
      /not a backup|header|damaged|not encrypted for this key|ends too early/,
    );
  }
  const early = Buffer.from(good);
  early[70_000] = (early[70_000] ?? 0) ^ 1;
  expect((await attempt(early)).message).toMatch(/is damaged at about byte \d+$/);
});

test.each([
  ["nothing", "", "is cut short: it has 0 bytes"],
  ["some text", "hello, this is no backup", "does not begin as a file encrypted with age"],
  ["an archive that is not encrypted", "\x1f\x8b\x08\0\0\0\0\0", "does not begin as a file"],
  ["the text form", "-----BEGIN AGE ENCRYPTED FILE-----\nYWdl\n", "is in the text form of age"],
])("a file with %s", async (_, text, message) => {
  expect((await attempt(Buffer.from(text, "latin1"))).message).toContain(message);
});

test("a directory, a pipe, a file that is not there", async () => {
  mkdirSync(join(dir.path, "d"));
  Bun.spawnSync(["mkfifo", join(dir.path, "pipe")]);
  for (const [file, message] of [
    ["d", "is no regular file"],
    ["pipe", "is no regular file"],
    ["nope", "is not there"],
  ] as const) {
    const error = await attempt(good, { file: join(dir.path, file) });
    expect(error.exitCode).toBe(EXIT.usage);
    expect(error.message).toContain(message);
  }
});

const FILES: readonly MadeFile[] = [{ name: "state/own.txt", content: "fine" }];

describe("an archive by somebody else", () => {
  test("that is like ours is restored", async () => {
    const file = dir.write("b.age", await made(madeEntries(FILES)));
    await restore(context(dir.path), {
      file,
      identity: [join(dir.path, "backup.key")],
      stateDir: join(dir.path, "s"),
    });
    expect(readFileSync(join(dir.path, "s/own.txt"), "utf8")).toBe("fine");
  });

  test.each([
    "../evil",
    "state/../../evil",
    "state/..",
    "state/.",
    "state/",
    "state//x",
    "/etc/cron.d/evil",
    "config/../evil",
    "state/a\\..\\b",
    "state/a\nb",
    "state/a\0b",
    "other/x",
    "state",
    "state/restore.pending",
    "state/.restore-0123456789abcdef/x",
    "state/replaced-20260101T000000Z/x",
    "state/gatehouse.db-wal",
    "state/gatehouse.db-journal",
    `state/${"deep/".repeat(20)}x`,
    `state/${"long".repeat(100)}`,
  ])("names %j: nothing is written anywhere", async (name) => {
    const files = [{ name, content: "evil" }];
    const error = await attempt(await made(madeEntries(files)), { stateDir: join(dir.path, "s") });
    expect(error.message).toContain("this is no backup to be restored");
    expect(existsSync(join(dir.path, "evil"))).toBe(false);
  });

  const other = {
    header: { name: "state/extra", size: 4, type: "file" as const },
    body: Buffer.from("evil"),
  };
  const link = (type: "symlink" | "link", linkname: string): TarEntry => ({
    header: { name: "state/own.txt", size: 0, type, linkname },
  });
  const manifest = madeManifest(FILES);
  const cases: Record<string, () => TarEntry[]> = {
    "a file that the manifest does not name": () => [...madeEntries(FILES), other],
    "a name that tar spells otherwise than the manifest": () => [
      madeEntries(FILES)[0]!,
      { header: { name: "state/./own.txt", size: 4, type: "file" }, body: Buffer.from("fine") },
    ],
    "a symbolic link in place of a file": () => [
      madeEntries(FILES)[0]!,
      link("symlink", "/etc/passwd"),
    ],
    "a hard link in place of a file": () => [madeEntries(FILES)[0]!, link("link", "/etc/passwd")],
    "a directory in place of a file": () => [
      madeEntries(FILES)[0]!,
      { header: { name: "state/own.txt/", size: 0, type: "directory" } },
    ],
    "a file twice": () => [...madeEntries(FILES), madeEntries(FILES)[1]!],
    "a file too few": () => [madeEntries(FILES)[0]!],
    "other content": () => madeEntries([{ name: "state/own.txt", content: "evil" }], manifest),
    "longer content": () =>
      madeEntries([{ name: "state/own.txt", content: "fine, and more" }], manifest),
    "shorter content": () => madeEntries([{ name: "state/own.txt", content: "fin" }], manifest),
    "the manifest last": () => madeEntries(FILES).toReversed(),
    "no manifest": () => [other],
    "nothing at all": () => [],
    "two manifests": () => [madeEntries(FILES)[0]!, ...madeEntries(FILES)],
    "a manifest that is no JSON": () => [
      { header: { name: "manifest.json", size: 1, type: "file" }, body: Buffer.from("{") },
    ],
    "a manifest with an unknown key": () => madeEntries(FILES, { ...manifest, more: 1 }),
    "a manifest with control characters": () =>
      madeEntries(FILES, { ...manifest, host: "\x1b[2J" }),
    "a manifest that names a file twice": () =>
      madeEntries(FILES, madeManifest([...FILES, ...FILES])),
    "a file below another file": () => {
      const nested = [...FILES, { name: "state/own.txt/x", content: "evil" }];
      return madeEntries(nested);
    },
    "a config file that is not in it": () =>
      madeEntries(FILES, { ...manifest, configEntry: "config/config.yaml" }),
    "a config file that is state": () =>
      madeEntries(FILES, { ...manifest, configEntry: "state/own.txt" }),
    "a database that is none": () => {
      const text = { name: "state/gatehouse.db", content: "no database", isDatabase: true };
      return madeEntries([text]);
    },
    "a damaged database": () => {
      const bytes = Buffer.from(readFileSync(join(source.path, "etc/state/gatehouse.db")));
      bytes.fill(0xff, 8192, 12_288);
      return madeEntries([{ name: "state/gatehouse.db", content: bytes, isDatabase: true }]);
    },
    "a configuration that is too large": () =>
      madeEntries([{ name: "config/c.yaml", content: Buffer.alloc(5 * 1024 * 1024) }]),
  };
  for (const [what, entries] of Object.entries(cases)) {
    test(`with ${what} is refused`, async () => {
      const bytes = await made(entries());
      const error = await attempt(bytes, { stateDir: join(dir.path, "s") });
      expect(error.exitCode).toBe(EXIT.failure);
      expect(error.message).toContain("this is no backup to be restored");
    });
  }

  test("of a newer format, or with newer steps in its manifest, is refused as such", async () => {
    const future = await made(madeEntries(FILES, { ...manifest, format: 2, anything: true }));
    const error = await attempt(future, { stateDir: join(dir.path, "s") });
    expect(error.message).toContain("has format 2, and this version of gatehouse knows format 1");
    const steps = { "state/gatehouse.db": { nip98: ["001_members", "999_future"] } };
    const newer = await attempt(await made(madeEntries(FILES, { ...manifest, steps })), {
      stateDir: join(dir.path, "s"),
    });
    expect(newer.message).toContain("of a newer version");
  });

  test("whose database has newer steps than its manifest says is refused before it is put in place", async () => {
    const path = join(dir.path, "made.db");
    writeFileSync(path, readFileSync(join(source.path, "etc/state/gatehouse.db")));
    const database = new Database(path, { readwrite: true, create: false });
    database.run("INSERT INTO gatehouse_migrations VALUES ('gatehouse', 1, '001_future', 0)");
    database.run("PRAGMA wal_checkpoint(TRUNCATE)");
    database.close();
    const content = readFileSync(path);
    for (const name of ["", "-wal", "-shm"]) rmSync(path + name, { force: true });
    const files = [{ name: "state/gatehouse.db", content, isDatabase: true }];
    const error = await attempt(await made(madeEntries(files)), { stateDir: join(dir.path, "s") });
    expect(error.message).toContain("gatehouse: 001_future");
  });

  test("its configuration does not choose where the state goes", async () => {
    const files = [
      { name: "config/config.yaml", content: CONFIG.replace("./state", "/etc/cron.d") },
      ...FILES,
    ];
    const evil = madeManifest(files, {
      configEntry: "config/config.yaml",
      configFile: "/etc/passwd",
    });
    const error = await attempt(await made(madeEntries(files, evil)));
    expect(error.exitCode).toBe(EXIT.usage);
    expect(error.message).toContain("/etc/cron.d, which only the backup says");
  });

  test("its configuration is looked at, and its plugins are not run", async () => {
    const proof = join(dir.path, "it-ran");
    const plugin = `await Bun.write(${JSON.stringify(proof)}, "x"); export default {};`;
    const text = CONFIG.replace("use: bearer-sqlite", "use: ./evil.ts");
    const files = [
      { name: "config/config.yaml", content: text },
      { name: "config/evil.ts", content: plugin },
      ...FILES,
    ];
    const entries = madeEntries(files, madeManifest(files, { configEntry: "config/config.yaml" }));
    const file = dir.write("b.age", await made(entries));
    const options = { file, identity: [join(dir.path, "backup.key")] };
    const config = join(dir.path, "new/config.yaml");
    expect(await restore(context(dir.path), { ...options, config })).toBe(EXIT.ok);
    expect(existsSync(join(dir.path, "new/evil.ts"))).toBe(true);
    expect(existsSync(proof)).toBe(false);
    const broken = files.with(0, {
      name: "config/config.yaml",
      content: "version: 1\nroutes: 5\n",
    });
    const manifest5 = madeManifest(broken, { configEntry: "config/config.yaml" });
    const error = await attempt(await made(madeEntries(broken, manifest5)), {
      config: join(dir.path, "third/config.yaml"),
    });
    expect(error.exitCode).toBe(EXIT.config);
    expect(error.message).toContain("is not one for this version");
  });
});

describe("an archive that grows", () => {
  test("more than it says it holds is not unpacked", async () => {
    const zeros = Buffer.alloc(200 * 1024 * 1024);
    const entries = madeEntries([{ name: "state/own.txt", content: zeros }], madeManifest(FILES));
    const bytes = await made(entries);
    expect(bytes.length).toBeLessThan(1024 * 1024);
    const error = await attempt(bytes, { stateDir: join(dir.path, "s") });
    expect(error.message).toContain("this is no backup to be restored");
  });

  test("a manifest of two hundred megabytes is not read", async () => {
    const padding = Buffer.alloc(200 * 1024 * 1024, " ");
    const body = Buffer.concat([Buffer.from(JSON.stringify(madeManifest(FILES))), padding]);
    const entry: TarEntry = {
      header: { name: "manifest.json", size: body.length, type: "file" },
      body,
    };
    expect((await attempt(await made([entry]))).message).toContain(
      "does not begin with a manifest",
    );
  });

  test("more than fits, or than was agreed to, is refused by what the manifest says", async () => {
    const claims = (bytes: number) => {
      const manifest = madeManifest(FILES);
      const files = [{ ...(manifest.files as { bytes: number }[])[0]!, bytes }];
      return made(madeEntries(FILES, { ...manifest, files }));
    };
    const stateDir = join(dir.path, "s");
    const large = await attempt(await claims(5 * 1024 ** 3), { stateDir });
    expect(large.message).toContain("at most 4294967296 are taken");
    expect(large.hint).toContain("--max-size");
    const { bavail, bsize } = statfsSync(dir.path);
    const huge = await claims(Math.min(Number.MAX_SAFE_INTEGER, bavail * bsize * 2));
    const wide = await attempt(huge, { stateDir, maxSize: "8000TiB" }).catch((error) => error);
    expect(wide.message).toMatch(/is not what its manifest says|--max-size/);
    const wrong = await attempt(await claims(1), { stateDir, maxSize: "lots" });
    expect(wrong.message).toContain("--max-size: expected a size");
  });
});
