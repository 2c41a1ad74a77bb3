/**
 * Secret references in config values: `${env:NAME}`, `${file:/path}`, `${cred:name}`, and `${toml:/path#key}` for a key
 * of another program's settings; `$${` is a literal `${`.
 *
 * Invariant: a problem names where was looked and never what was found, and a missing, empty or blank secret is a
 * problem, never an empty text.
 */
import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs";
import { join, resolve } from "node:path";
import { errorCode } from "../errors.ts";
import type { ConfigPath } from "./issues.ts";

/** Where references are looked up. */
export interface ReferenceSources {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Relative `${file:}` paths start here. */
  readonly configDir: string;
}

/** The text with every reference replaced, or what is wrong. */
export type Resolved = { readonly value: string } | { readonly problem: string };

/** What is wrong with one value inside a settings object. */
export interface ReferenceProblem {
  readonly path: ConfigPath;
  readonly problem: string;
}

/** A settings object after {@link resolveDeep}. */
export interface ResolvedDeep {
  /** A copy in which every text is resolved; one with a problem is an empty text. */
  readonly value: unknown;
  readonly problems: readonly ReferenceProblem[];
  /** Every text that came out of a reference, for redaction. Do not log it. */
  readonly secrets: readonly string[];
}

/** A secret is a line, not a document. */
const MAX_SECRET_BYTES = 65_536;
const KINDS = "${env:NAME}, ${file:/path}, ${cred:name} and ${toml:/path#key}";

/** Whether the text holds at least one reference, of whatever kind. */
export function hasReference(text: string): boolean {
  return /(?<!\$)\$\{/.test(text);
}

/** Whether the text is one reference and nothing else. */
export function isSingleReference(text: string): boolean {
  return /^\$\{(?:env|file|cred|toml):[^{}]+\}$/.test(text);
}

/** Replaces every reference in `text`. Reads files, changes nothing. */
export function resolveReferences(text: string, sources: ReferenceSources): Resolved {
  let value = "";
  let rest = text;
  while (true) {
    const start = rest.indexOf("${");
    if (start === -1) return { value: value + rest };
    if (rest[start - 1] === "$") {
      value += `${rest.slice(0, start - 1)}\${`;
      rest = rest.slice(start + 2);
      continue;
    }
    const end = rest.indexOf("}", start);
    if (end === -1) return { problem: "a reference is not closed: `}` is missing" };
    const found = lookUp(rest.slice(start + 2, end), sources);
    if ("problem" in found) return found;
    value += rest.slice(0, start) + found.value;
    rest = rest.slice(end + 1);
  }
}

/** Resolves every text in maps and lists; other values stay. Collects every problem. */
export function resolveDeep(value: unknown, sources: ReferenceSources): ResolvedDeep {
  const problems: ReferenceProblem[] = [];
  const secrets: string[] = [];
  const walk = (part: unknown, path: ConfigPath): unknown => {
    if (typeof part === "string") {
      const resolved = resolveReferences(part, sources);
      if ("problem" in resolved) {
        problems.push({ path, problem: resolved.problem });
        return "";
      }
      if (hasReference(part)) secrets.push(resolved.value);
      return resolved.value;
    }
    if (Array.isArray(part)) return part.map((item, index) => walk(item, [...path, index]));
    if (typeof part !== "object" || part === null) return part;
    const entries = Object.entries(part).map(([key, item]) => [key, walk(item, [...path, key])]);
    return Object.fromEntries(entries);
  };
  return { value: walk(value, []), problems, secrets };
}

function lookUp(reference: string, { env, configDir }: ReferenceSources): Resolved {
  const colon = reference.indexOf(":");
  const kind = colon === -1 ? reference : reference.slice(0, colon);
  const name = colon === -1 ? "" : reference.slice(colon + 1);
  if (kind === "env") return fromEnv(name, env);
  if (kind === "file") return fromPath(name, configDir);
  if (kind === "cred") return fromCredential(name, env);
  if (kind === "toml") return fromToml(name, configDir);
  // Whatever stands there may be a secret in the wrong place: only a plain word is repeated.
  const shown = /^[a-z]{1,12}$/.test(kind) && colon !== -1 ? ` \`${kind}\`` : "";
  return { problem: `unknown kind of reference${shown}: there are ${KINDS}` };
}

function fromEnv(name: string, env: ReferenceSources["env"]): Resolved {
  if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(name)) {
    return { problem: "${env:NAME} needs the name of an environment variable" };
  }
  const value = env[name];
  if (value === undefined) return { problem: `environment variable ${name} is not set` };
  return checked(value, `environment variable ${name}`);
}

function fromPath(name: string, configDir: string): Resolved {
  if (name.trim() === "" || name.includes("\0")) return { problem: "${file:/path} needs a path" };
  return readSecret(resolve(configDir, name), { isModeChecked: true });
}

/** One text of a TOML file that somebody else's settings are in. */
function fromToml(name: string, configDir: string): Resolved {
  const mark = name.lastIndexOf("#");
  const key = name.slice(mark + 1);
  if (mark < 1 || !/^[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*$/.test(key)) {
    return { problem: "${toml:/path#key} needs a path and a dotted key" };
  }
  const path = resolve(configDir, name.slice(0, mark));
  const read = readFile(path, { isModeChecked: true });
  if ("problem" in read) return read;
  try {
    const value = key.split(".").reduce(memberOf, Bun.TOML.parse(read.value));
    const where = `${key} in ${path}`;
    return typeof value === "string" ? checked(value, where) : { problem: `${where} is no text` };
  } catch {
    return { problem: `secret file ${path} is not TOML` };
  }
}

function memberOf(value: unknown, key: string): unknown {
  if (typeof value !== "object" || value === null || !Object.hasOwn(value, key)) return undefined;
  return Reflect.get(value, key);
}

/** systemd.exec(5), LoadCredential=: the service manager made the directory, so its modes are its own. */
function fromCredential(name: string, env: ReferenceSources["env"]): Resolved {
  if (!/^[A-Za-z0-9][A-Za-z0-9._@-]*$/.test(name)) {
    return { problem: "${cred:name} needs the name of a credential" };
  }
  const directory = env.CREDENTIALS_DIRECTORY;
  if (directory === undefined || directory.trim() === "") {
    return {
      problem: `credential ${name} is not there: CREDENTIALS_DIRECTORY is not set, so this is no systemd service with LoadCredential=${name}:/path`,
    };
  }
  return readSecret(join(directory, name), { isModeChecked: false });
}

function readSecret(path: string, options: { isModeChecked: boolean }): Resolved {
  const read = readFile(path, options);
  if ("problem" in read) return read;
  return checked(read.value.replace(/\r?\n$/, ""), `secret file ${path}`);
}

function readFile(path: string, { isModeChecked }: { isModeChecked: boolean }): Resolved {
  let descriptor: number | undefined;
  try {
    // NONBLOCK: opening a pipe must not wait for somebody to write to it.
    descriptor = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const status = fstatSync(descriptor);
    if (status.isDirectory()) return { problem: `${path} is a directory` };
    if (!status.isFile()) return { problem: `secret file ${path} is not a regular file` };
    if (isModeChecked && (status.mode & 0o006) !== 0) {
      const mode = (status.mode & 0o777).toString(8);
      return { problem: `secret file ${path} is open to every user (mode ${mode}): chmod 600 it` };
    }
    const buffer = Buffer.alloc(MAX_SECRET_BYTES + 1);
    const length = readSync(descriptor, buffer, 0, buffer.length, null);
    if (length > MAX_SECRET_BYTES) return { problem: `secret file ${path} is larger than 64 KiB` };
    return fromBytes(buffer.subarray(0, length), `secret file ${path}`);
  } catch (error) {
    const code = errorCode(error);
    const why = code === "ENOENT" ? "does not exist" : `cannot be read (${code ?? "error"})`;
    return { problem: `secret file ${path} ${why}` };
  } finally {
    if (descriptor !== undefined) closeSync(descriptor);
  }
}

function fromBytes(bytes: Uint8Array, where: string): Resolved {
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    return { value: text };
  } catch {
    return { problem: `${where} is not UTF-8` };
  }
}

function checked(value: string, where: string): Resolved {
  if (value.trim() === "") return { problem: `${where} is ${value === "" ? "empty" : "blank"}` };
  if (/[\0\r\n]/.test(value)) return { problem: `${where} holds a line break or NUL inside` };
  return { value };
}
