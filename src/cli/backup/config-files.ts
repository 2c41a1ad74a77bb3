/**
 * What of the configuration goes into a backup: the file, and what it names in its own directory.
 *
 * Invariant: nothing outside the directory of the config file is taken, also not by way of a link, and whatever the
 * configuration needs from elsewhere (variables, credentials, other files) is listed, because without it the restored
 * gateway does not start.
 */
import { existsSync, realpathSync, statSync } from "node:fs";
import { basename, dirname, relative, resolve, sep } from "node:path";
import type { LoadedConfig } from "../../config/load.ts";
import { errorMessage } from "../../errors.ts";
import { isPath } from "../../loader.ts";
import { type Entry, fileEntry, isDatabase } from "./entry.ts";
import { isName, MAX_CONFIG_FILE_BYTES } from "./manifest.ts";
import { sourceTree } from "./source-tree.ts";
import type { Collected } from "./state-files.ts";

/** Entries of the configuration. */
export interface CollectedConfig extends Collected {
  /** Name of the entry that is the config file; null without a config file. */
  readonly configEntry: string | null;
}

/** What a configuration names. */
interface Mentions {
  /** As written, certainly files. */
  readonly files: Set<string>;
  /** As written; files if there are such files. */
  readonly maybe: Set<string>;
  /** What no file of ours holds. */
  readonly elsewhere: Set<string>;
}

/** @throws OperatorError when a file of the configuration cannot be read */
export function collectConfig(loaded: LoadedConfig, stateDir: string): CollectedConfig {
  const mentions = mentionsOf(loaded.written);
  const collected: Collected = { entries: [], leftOut: [...mentions.elsewhere] };
  const { file } = loaded;
  if (file === null) return { ...collected, configEntry: null };
  const configDir = dirname(file);
  const place = { configDir, stateDir, taken: new Set<string>() };
  const configEntry = `config/${basename(file)}`;
  // Followed when it is a link: the file behind it is what counts, under the name that is used.
  add(collected, { path: realpathSync(file), name: configEntry }, place);
  const written = [
    ...mentions.files,
    ...[...mentions.maybe].filter((one) => isThere(configDir, one)),
  ];
  for (const path of written.map((one) => resolve(configDir, one))) {
    const files = isSource(path) ? sourceTree(path) : [path];
    for (const one of files) addMentioned(collected, one, place);
  }
  return { ...collected, configEntry };
}

interface Place {
  readonly configDir: string;
  readonly stateDir: string;
  readonly taken: Set<string>;
}

function addMentioned(collected: Collected, path: string, place: Place): void {
  const { configDir, stateDir, taken } = place;
  if (taken.has(path) || isBelow(stateDir, path)) return;
  taken.add(path);
  const real = realPath(path);
  const name = `config/${relative(configDir, path).split(sep).join("/")}`;
  const why = reasonAgainst({ path, real, name }, configDir);
  if (why === null && real !== null) add(collected, { path: real, name }, place);
  else collected.leftOut.push(`${path}: ${why}`);
}

function reasonAgainst(
  { path, real, name }: { path: string; real: string | null; name: string },
  configDir: string,
): string | null {
  if (!isBelow(configDir, path)) return "a file outside the directory of the configuration";
  if (real === null) return "it is not there";
  if (!isBelow(realpathSync(configDir), real)) {
    return "a link to a file outside the directory of the configuration";
  }
  if (!isName(name)) return "a name that cannot be restored";
  if (isDatabase(real)) return "a database of another program: back it up with that program";
  const { size } = statSync(real);
  return size > MAX_CONFIG_FILE_BYTES ? "too large for a file of the configuration" : null;
}

function add(
  { entries, leftOut }: Collected,
  { path, name }: { readonly path: string; readonly name: string },
  { taken }: Place,
): void {
  taken.add(path);
  const entry: Entry | null = fileEntry(name, path);
  if (entry === null) leftOut.push(`${path}: no regular file`);
  else if (!entries.some(({ file }) => file.name === name)) entries.push(entry);
}

/** Walks the parts of the document that name files: `server.tls`, `strategies`, `upstreams`, `shared`. */
function mentionsOf(written: unknown): Mentions {
  const mentions: Mentions = { files: new Set(), maybe: new Set(), elsewhere: new Set() };
  for (const [section, value] of entriesOf(written)) {
    if (section !== "routes" && section !== "state_dir") collect(value, [section], mentions);
  }
  return mentions;
}

function collect(value: unknown, path: readonly string[], mentions: Mentions): void {
  for (const [key, item] of entriesOf(value)) collect(item, [...path, key], mentions);
  if (typeof value !== "string") return;
  for (const [, kind, name = ""] of value.matchAll(/(?<!\$)\$\{(env|file|cred):([^{}]+)\}/g)) {
    if (kind === "file") mentions.files.add(name);
    else mentions.elsewhere.add(kind === "env" ? variable(name) : `systemd credential ${name}`);
  }
  if (!value.includes("${")) collectPlain(value, path, mentions);
}

/** Text without references. */
function collectPlain(text: string, path: readonly string[], mentions: Mentions): void {
  const key = path.at(-1);
  const isTls = path[0] === "server" && path.includes("tls") && key !== "name";
  if (key === "env") mentions.elsewhere.add(variable(text));
  else if (isTls || (key === "use" && isPath(text))) mentions.files.add(text);
  else if (key !== "use") mentions.maybe.add(text);
}

function variable(name: string): string {
  return `environment variable ${name}`;
}

function entriesOf(value: unknown): [string, unknown][] {
  return typeof value === "object" && value !== null ? Object.entries(value) : [];
}

/** A setting that is text may be anything: only what looks like a path and is a file is taken for one. */
function isThere(configDir: string, text: string): boolean {
  if (text.length > 1000 || /[\0\n]/.test(text) || /^[a-z][a-z0-9+.-]*:\/\//.test(text))
    return false;
  const path = resolve(configDir, text);
  return existsSync(path) && statSync(path).isFile();
}

function isSource(path: string): boolean {
  return /\.[cm]?[jt]sx?$/.test(path);
}

function realPath(path: string): string | null {
  try {
    return realpathSync(path);
  } catch (error) {
    if (/ENOENT|ENOTDIR|ELOOP/.test(errorMessage(error))) return null;
    throw error;
  }
}

/** Whether `path` lies in `directory`, deeper than it. */
export function isBelow(directory: string, path: string): boolean {
  const way = relative(directory, path);
  return way !== "" && way !== ".." && !way.startsWith(`..${sep}`) && !way.startsWith(sep);
}
