/**
 * Backups in tests: a pair of keys, archives made by hand, and what a directory looks like.
 *
 * Invariant: an archive made here is encrypted for the right key, so that only what is in it can be wrong with it.
 */
import { afterEach, beforeAll, beforeEach, expect } from "bun:test";
import { createHash } from "node:crypto";
import { lstatSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Decrypter, Encrypter, generateX25519Identity, identityToRecipient } from "age-encryption";
import { packTar, type TarEntry, unpackTar } from "modern-tar";
import { type Finished, runBinary } from "./binary.ts";
import { type TempDir, tempDir } from "./config.ts";

/** Made once per file of tests. */
export interface KeyPair {
  readonly identity: string;
  readonly recipient: string;
  /** Writes the secret key to a file of mode 0600 and returns its path. */
  save(directory: string): string;
}

export async function keyPair(): Promise<KeyPair> {
  const identity = await generateX25519Identity();
  return {
    identity,
    recipient: await identityToRecipient(identity),
    save(directory) {
      const path = join(directory, "backup.key");
      writeFileSync(path, `# a comment\n${identity}\n`, { mode: 0o600 });
      return path;
    },
  };
}

/** A directory with a pair of keys in which configurations are made, backed up and restored, with the executable. */
interface Workbench {
  /** File with the secret key. */
  readonly key: string;
  /** A path below the directory. */
  at(...parts: string[]): string;
  /** Writes `NAME/config.yaml` with tokens in front of `upstream`; returns its path. */
  configure(name: string, upstream?: string): string;
  /** Makes a token and returns it. */
  token(config: string, name: string): Promise<string>;
  /** Writes `b.age`. */
  backup(config: string): Promise<string>;
  /** Restores `b.age`; where to is said by `args`. */
  restore(...args: string[]): Promise<Finished>;
}

function workbench(dir: TempDir, keys: KeyPair): Workbench {
  const key = keys.save(dir.path);
  const at = (...parts: string[]): string => join(dir.path, ...parts);
  return {
    key,
    at,
    configure: (name, upstream = "http://127.0.0.1:9") =>
      dir.write(
        `${name}/config.yaml`,
        `version: 1
server: { listen: "127.0.0.1:0" }
state_dir: ./state
strategies: { team: { use: bearer-sqlite } }
upstreams: { api: { url: "${upstream}" } }
routes: [{ match: { path: /** }, access: [team], upstream: api }]
`,
      ),
    async token(config, name) {
      const { code, stdout } = await runBinary(["token", "create", "-c", config, "--name", name]);
      expect(code).toBe(0);
      return stdout.trim();
    },
    async backup(config) {
      const to = ["--recipient", keys.recipient, "--out", at("b.age"), "--force"];
      const { code, stderr } = await runBinary(["backup", "-c", config, ...to]);
      expect({ code, stderr: code === 0 ? "" : stderr }).toEqual({ code: 0, stderr: "" });
      return at("b.age");
    },
    restore: (...args) =>
      runBinary(["restore", at("b.age"), "--identity", key, ...args], { cwd: dir.path }),
  };
}

/** The workbench of the test that runs; its functions may be taken out of it, `key` and `dir.path` are its own. */
export interface CurrentWorkbench extends Workbench {
  readonly dir: TempDir;
}

/** A new {@link Workbench} for each test of a file, with one pair of keys; to be called once, at the top of the file. */
export function workbenchForEach(): CurrentWorkbench {
  let keys: KeyPair;
  let dir: TempDir;
  let bench: Workbench;
  beforeAll(async () => {
    keys = await keyPair();
  });
  beforeEach(() => {
    dir = tempDir();
    bench = workbench(dir, keys);
  });
  afterEach(() => dir.remove());
  return {
    get key() {
      return bench.key;
    },
    dir: {
      get path() {
        return dir.path;
      },
      write: (...file) => dir.write(...file),
      remove: () => dir.remove(),
    },
    at: (...parts) => bench.at(...parts),
    configure: (name, upstream) => bench.configure(name, upstream),
    token: (config, name) => bench.token(config, name),
    backup: (config) => bench.backup(config),
    restore: (...args) => bench.restore(...args),
  };
}

/** Every path below `directory` with kind, mode and content, to compare before and after. */
export function tree(directory: string, options: { readonly without?: RegExp } = {}): string[] {
  return readdirSync(directory, { recursive: true, encoding: "utf8" })
    .filter((name) => options.without?.test(name) !== true)
    .toSorted()
    .map((name) => {
      const path = join(directory, name);
      const stats = lstatSync(path);
      const mode = (stats.mode & 0o7777).toString(8);
      if (stats.isSymbolicLink()) return `${name} -> ${readlinkSync(path)}`;
      return `${name} ${mode} ${stats.isFile() ? sha256(readFileSync(path)) : "directory"}`;
    });
}

export function sha256(bytes: Uint8Array | string): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** A file of an archive made by hand. */
export interface MadeFile {
  readonly name: string;
  readonly content: string | Uint8Array;
  readonly isDatabase?: boolean;
}

/** A manifest as `backup` writes it, with what the test changes. */
export function madeManifest(
  files: readonly MadeFile[],
  changes: Readonly<Record<string, unknown>> = {},
): Record<string, unknown> {
  return {
    format: 1,
    madeBy: { version: "0.1.0", commit: "" },
    createdAt: "2026-01-01T00:00:00.000Z",
    host: "elsewhere",
    configFile: null,
    stateDir: "/somewhere/state",
    configEntry: null,
    steps: {},
    files: files.map(({ name, content, isDatabase = false }) => ({
      name,
      bytes: Buffer.from(content).length,
      sha256: sha256(content),
      mode: "600",
      isDatabase,
    })),
    leftOut: [],
    ...changes,
  };
}

/** Entries of an archive: the manifest first, then the files. */
export function madeEntries(
  files: readonly MadeFile[],
  manifest: Record<string, unknown> = madeManifest(files),
): TarEntry[] {
  const all = [{ name: "manifest.json", content: JSON.stringify(manifest) }, ...files];
  return all.map(({ name, content }) => {
    const body = Buffer.from(content);
    return { header: { name, size: body.length, type: "file" as const }, body };
  });
}

/** The archive as bytes, not encrypted. */
export async function tarOf(entries: readonly TarEntry[]): Promise<Uint8Array<ArrayBuffer>> {
  return new Uint8Array(await packTar([...entries]));
}

/** Compresses and encrypts. */
export async function sealed(tar: Uint8Array<ArrayBuffer>, recipient: string): Promise<Uint8Array> {
  const encrypter = new Encrypter();
  encrypter.addRecipient(recipient);
  return encrypter.encrypt(Bun.gzipSync(tar));
}

/** What is in a backup, by name; with the same libraries, but none of our code. */
export async function opened(
  file: string | Uint8Array,
  key: { readonly identity: string } | { readonly passphrase: string },
): Promise<Map<string, Buffer>> {
  const decrypter = new Decrypter();
  if ("identity" in key) decrypter.addIdentity(key.identity);
  else decrypter.addPassphrase(key.passphrase);
  const bytes = typeof file === "string" ? readFileSync(file) : file;
  const tar = Bun.gunzipSync(new Uint8Array(await decrypter.decrypt(bytes)));
  const entries = await unpackTar(tar);
  return new Map(
    entries.map(({ header, data }) => [header.name, Buffer.from(data ?? new Uint8Array())]),
  );
}
