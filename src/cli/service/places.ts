/**
 * Where the files of a service are, and what its sandbox must open for them.
 *
 * Invariant: nothing is opened that the configuration does not name; a place that systemd would hide, empty or give
 * away to the service is refused with what to do instead.
 */
import { dirname } from "node:path";
import type { ListenAddress } from "../../config/model.ts";
import { isFit, type ServiceInput } from "./input.ts";
import type { ServiceNeeds } from "./needs.ts";

/** Something that cannot be, and what to do. */
export interface Problem {
  readonly message: string;
  readonly hint: string;
}

/** The part of a unit that follows from where things are. */
export interface Places {
  /** Below /var/lib and /etc; null: none. */
  readonly stateDirectory: string | null;
  readonly configurationDirectory: string | null;
  readonly readWrite: readonly string[];
  /** Paths in home directories, which are otherwise hidden. */
  readonly homeReadOnly: readonly string[];
  readonly homeReadWrite: readonly string[];
  /** One sentence each, for the operator. */
  readonly notes: readonly string[];
  readonly problems: readonly Problem[];
}

/** Hidden by ProtectHome=. */
const HOMES = ["/home", "/root", "/run/user"];
/** Replaced by PrivateTmp=, or empty after the next start of the machine. */
const FLEETING = ["/tmp", "/var/tmp", "/dev/shm"];

/** For a system service. */
export function placesOf(input: ServiceInput, needs: ServiceNeeds): Places {
  const problems: Problem[] = [];
  const shared = [...needs.databases, ...input.readWrite].filter(
    (path) => !isBelow(path, needs.stateDir),
  );
  const stateDirectory = stateDirectoryOf(input, needs.stateDir, problems);
  const writable = [...shared, ...(stateDirectory === null ? [needs.stateDir] : [])];
  const sockets = needs.listen.flatMap((one) => (one.kind === "unix" ? [one.path] : []));
  writable.push(...sockets.flatMap((path) => socketPlace(path, input, problems)));
  if (input.account === null && shared.length > 0) {
    problems.push({
      message: `an account that systemd makes cannot write to ${shared.join(", ")}`,
      hint: "run it as the account that owns it: --user-account NAME",
    });
  }
  const read = [input.config, ...needs.files];
  checkAll([input.exec, ...read, ...writable], problems);
  if (isHome(input.exec)) {
    problems.push({
      message: `the executable ${input.exec} is in a home directory, hidden from services`,
      hint: `install -m 755 ${input.exec} /usr/local/bin/gatehouse, and use that one`,
    });
  }
  const homeReadOnly = unique(read.filter(isHome));
  const homeReadWrite = unique(writable.filter(isHome));
  return {
    stateDirectory,
    configurationDirectory: nameBelow(dirname(input.config), "/etc"),
    readWrite: unique(writable.filter((path) => !isHome(path))),
    homeReadOnly: homeReadOnly.filter((path) => !homeReadWrite.some((dir) => isBelow(path, dir))),
    homeReadWrite,
    notes: homeNotes([...homeReadOnly, ...homeReadWrite]),
    problems,
  };
}

/** The ports below 1024 that are listened on. */
export function lowPorts(listen: readonly ListenAddress[]): readonly number[] {
  return listen.flatMap((one) =>
    one.kind === "tcp" && one.port > 0 && one.port < 1024 ? [one.port] : [],
  );
}

function stateDirectoryOf(input: ServiceInput, dir: string, problems: Problem[]): string | null {
  const name = nameBelow(dir, "/var/lib");
  if (name !== null && name !== "private" && !name.startsWith("private/")) return name;
  const hint = `set state_dir: /var/lib/${input.name} in ${input.config}; systemd makes it with the right owner and mode`;
  if (isHome(dir) && input.account === null) {
    problems.push({
      message: `state_dir ${dir} is in a home directory, hidden from services`,
      hint,
    });
  } else if (input.account === null) {
    problems.push({ message: `an account that systemd makes cannot own state_dir ${dir}`, hint });
  }
  if (isBelow(dir, "/run")) {
    problems.push({ message: `state_dir ${dir} is emptied at every start of the machine`, hint });
  }
  return null;
}

/** The directory that must be opened for a socket; /run/NAME is the service's own. */
function socketPlace(path: string, input: ServiceInput, problems: Problem[]): string[] {
  const dir = dirname(path);
  if (dir === `/run/${input.name}`) return [];
  const hint = `listen on unix:/run/${input.name}/${input.name}.sock; systemd makes that directory`;
  if (isBelow(dir, "/run") || isBelow(dir, "/var/run")) {
    problems.push({ message: `${dir} is not this service's own directory`, hint });
    return [];
  }
  if (input.account !== null) return [dir];
  problems.push({ message: `an account that systemd makes cannot write to ${dir}`, hint });
  return [];
}

function checkAll(paths: readonly string[], problems: Problem[]): void {
  for (const path of unique(paths)) {
    if (!isFit(path)) {
      problems.push({
        message: `a unit file cannot express the path ${JSON.stringify(path)}`,
        hint: "use a path of letters, digits, blanks and . _ - + @ % = ,",
      });
    } else if (FLEETING.some((dir) => isBelow(path, dir))) {
      problems.push({
        message: `${path} is in a temporary directory, which a service sees empty`,
        hint: "move it to a lasting place: /usr/local/bin, /etc/gatehouse, /var/lib/gatehouse",
      });
    }
  }
}

function homeNotes(paths: readonly string[]): string[] {
  if (paths.length === 0) return [];
  return [
    `home directories are hidden from the service, except for what the configuration names: ${unique(paths).join(", ")}`,
  ];
}

/** Whether it lies in a home directory. */
export function isHome(path: string): boolean {
  return HOMES.some((dir) => isBelow(path, dir));
}

/** The same directory, or something in it. */
export function isBelow(path: string, dir: string): boolean {
  return path === dir || path.startsWith(`${dir}/`);
}

/** `/var/lib/a/b` below `/var/lib` is `a/b`; null for anything else, and for names that systemd would split. */
function nameBelow(path: string, dir: string): string | null {
  if (!path.startsWith(`${dir}/`)) return null;
  const name = path.slice(dir.length + 1);
  return /^[A-Za-z0-9._@+/-]+$/.test(name) ? name : null;
}

function unique(values: readonly string[]): readonly string[] {
  return [...new Set(values)];
}
