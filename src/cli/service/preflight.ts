/**
 * What must be true of this machine before a service is installed on it.
 *
 * Invariant: looks, never changes, and finds every problem rather than the first; what could only be known by
 * starting the service is left to the start, which is undone when it fails.
 */
import { readdirSync, readFileSync, type Stats, statSync } from "node:fs";
import { dirname } from "node:path";
import type { ListenAddress } from "../../config/model.ts";
import { errorCode, errorMessage } from "../../errors.ts";
import type { CliContext } from "../context.ts";
import type { ServiceInput } from "./input.ts";
import { readNeeds } from "./needs.ts";
import { isHome, lowPorts, type Problem } from "./places.ts";
import type { ServicePlan } from "./plan.ts";
import { run } from "./programs.ts";
import { type CredentialSource, credentialsDir } from "./systemd-unit.ts";

/** LoadCredential= came with 247, the encrypted one with 250, and for user services with 256. */
const CREDENTIALS_SINCE = { plain: 247, encrypted: 250, encryptedForUsers: 256 };
/** An account that systemd makes has a number in this range; nothing belongs to it yet. */
const SOME_DYNAMIC_ID = "61184";
/** What a state directory of ours holds; the rest are keys. */
const OUR_STATE = /^(gatehouse\.db.*|.*\.key)$/;

/** What is known of the machine already. */
export interface Machine {
  /** Of systemd. */
  readonly version: number;
  /** The service runs, so that its ports are taken by itself. */
  readonly isActive: boolean;
}

/** Every problem; empty when the service can be installed. */
export async function preflight(
  context: CliContext,
  plan: ServicePlan,
  { version, isActive }: Machine,
): Promise<readonly Problem[]> {
  const { input } = plan;
  const account = await accountOf(context, plan);
  const found: (readonly Problem[])[] = [
    plan.problems,
    executableProblems(input.exec, input.scope === "system"),
    environmentFileProblems(input.environmentFile),
    plan.credentials.flatMap((one) => credentialProblems(one, plan, version)),
    account.problems,
    input.scope === "user" ? lowPortProblems(plan) : stateProblems(plan),
    isActive ? [] : plan.needs.listen.flatMap(takenProblems),
  ];
  if (account.ids !== null) found.push(await readableProblems(context, plan, account.ids));
  if (found.every((problems) => problems.length === 0) && canReadAll(plan)) {
    found.push(await fullCheck(context, plan));
  }
  return found.flat();
}

/** Runs what `serve` runs before it listens. */
async function fullCheck(context: CliContext, plan: ServicePlan): Promise<Problem[]> {
  const env = { ...plan.env, CREDENTIALS_DIRECTORY: credentialsDir(plan.input) };
  try {
    await readNeeds(context, plan.input, { env, depth: "full", root: null });
    return [];
  } catch (error) {
    return [{ message: errorMessage(error), hint: "mend it, then install again" }];
  }
}

/** Not when a credential is sealed, or has a path only while the service runs. */
function canReadAll({ credentials, needs }: ServicePlan): boolean {
  return !needs.hasCredentialPaths && credentials.every(({ isEncrypted }) => !isEncrypted);
}

/** Whoever can change the executable is the service, and at its next start by root's hand. */
function executableProblems(exec: string, isSystem: boolean): Problem[] {
  const status = statusOf(exec);
  if (status === null || !status.isFile() || (status.mode & 0o111) === 0) {
    return [{ message: `${exec} is not an executable file`, hint: "name it with --exec FILE" }];
  }
  if (!isSystem) return [];
  const hint = `install it for all: install -m 755 ${exec} /usr/local/bin/gatehouse, and use that one`;
  if (isHome(exec)) return [];
  const open = [exec, ...parentsOf(exec)].find((path) => !isOnlyRoots(statusOf(path)));
  return open === undefined
    ? []
    : [
        {
          message: `${open} can be changed by others than root, and the service runs ${exec}`,
          hint,
        },
      ];
}

function isOnlyRoots(status: Stats | null): boolean {
  if (status === null || status.uid !== 0) return false;
  const others = (status.mode & 0o002) !== 0;
  const group = (status.mode & 0o020) !== 0 && status.gid !== 0;
  return !others && !group;
}

function environmentFileProblems(file: string | null): Problem[] {
  if (file === null) return [];
  const status = statusOf(file);
  return status !== null && (status.mode & 0o077) === 0 ? [] : [openFile(file)];
}

function openFile(path: string): Problem {
  return { message: `${path} holds secrets and is open to others`, hint: `chmod 600 ${path}` };
}

function credentialProblems(
  { name, path, isEncrypted }: CredentialSource,
  { input }: ServicePlan,
  version: number,
): Problem[] {
  const { plain, encrypted, encryptedForUsers } = CREDENTIALS_SINCE;
  const forUser = input.scope === "user" ? encryptedForUsers : encrypted;
  const since = isEncrypted ? forUser : plain;
  if (version < since) {
    return [
      {
        message: `systemd ${version} cannot pass credential ${name}: that takes ${since}`,
        hint: isEncrypted
          ? `use a plain file: ${path.replace(/\.cred$/, "")}`
          : "use ${file:/path} and --user-account NAME, or a newer system",
      },
    ];
  }
  const status = statusOf(path);
  if (status === null) {
    return [
      {
        message: `credential ${name} is not there`,
        hint: `write it into ${path} (mode 600), or encrypt it: systemd-ask-password -n | systemd-creds encrypt --name=${name} - ${path}.cred`,
      },
    ];
  }
  const isClosed = isEncrypted || (status.mode & 0o077) === 0;
  return isClosed || isCertificate(path) ? [] : [openFile(path)];
}

/** systemd gives the state directory and all in it to the service, whatever it is. */
function stateProblems({ input, needs, places }: ServicePlan): Problem[] {
  const { stateDir } = needs;
  const missing = (places?.readWrite ?? []).filter((path) => statusOf(path) === null);
  const problems = missing.map((path) => ({
    message: `${path} does not exist, and the service may not make it`,
    hint: `install -d -m 700 -o ${input.account ?? "NAME"} ${path}`,
  }));
  if (places?.stateDirectory === null) return problems;
  const names = statusOf(stateDir) === null ? [] : readdirSync(stateDir);
  if (names.length === 0 || names.some((name) => OUR_STATE.test(name))) return problems;
  const message = `state_dir ${stateDir} holds files that are not Gatehouse's, and systemd would give them to the service`;
  return [...problems, { message, hint: `set state_dir: /var/lib/${input.name}` }];
}

/** Passed as a credential because of the directory that it is in, not because it is secret. */
function isCertificate(path: string): boolean {
  try {
    return readFileSync(path, "utf8").startsWith("-----BEGIN CERTIFICATE-----");
  } catch {
    return false;
  }
}

function lowPortProblems({ needs }: ServicePlan): Problem[] {
  const first = firstFreePort();
  const low = lowPorts(needs.listen).filter((port) => port < first);
  if (low.length === 0) return [];
  return [
    {
      message: `a user service may not listen on port ${low.join(", ")}`,
      hint: `install it for the system (without --user), choose a port of ${first} or above, or: sysctl net.ipv4.ip_unprivileged_port_start=${low[0]}`,
    },
  ];
}

/** Tried by listening there for a moment. */
function takenProblems(address: ListenAddress): Problem[] {
  if (address.kind === "unix" || address.port === 0) return [];
  const { host: hostname, port } = address;
  try {
    Bun.listen({ hostname, port, exclusive: true, socket: { data: () => {} } }).stop();
    return [];
  } catch (error) {
    if (errorCode(error) !== "EADDRINUSE") return [];
    const hint = `find it: ss -ltnp 'sport = :${port}'; stop it, or choose another server.listen`;
    return [{ message: `another program listens on ${hostname}:${port}`, hint }];
  }
}

function firstFreePort(): number {
  try {
    return Number(readFileSync("/proc/sys/net/ipv4/ip_unprivileged_port_start", "utf8"));
  } catch {
    return 1024;
  }
}

interface Account {
  readonly problems: readonly Problem[];
  /** For setpriv; null when there is nothing to try. */
  readonly ids: readonly string[] | null;
}

async function accountOf(context: CliContext, { input }: ServicePlan): Promise<Account> {
  if (input.scope === "user") return { problems: [], ids: null };
  if (input.account === null) {
    const ids = [`--reuid=${SOME_DYNAMIC_ID}`, `--regid=${SOME_DYNAMIC_ID}`, "--clear-groups"];
    return { problems: [], ids };
  }
  const [uid, gid] = await Promise.all(
    (["-u", "-g"] as const).map((flag) => run(context, ["id", flag, "--", input.account ?? ""])),
  );
  if (uid?.code === 0 && gid?.code === 0) {
    const [user, group] = [uid.stdout.trim(), gid.stdout.trim()];
    return { problems: [], ids: [`--reuid=${user}`, `--regid=${group}`, "--init-groups"] };
  }
  const hint = `useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin ${input.account}`;
  return { problems: [{ message: `there is no account ${input.account}`, hint }], ids: null };
}

/** Asks the system itself, because of groups and access lists; where it cannot be asked, the start will tell. */
async function readableProblems(
  context: CliContext,
  { input, needs }: ServicePlan,
  ids: readonly string[],
): Promise<Problem[]> {
  if (process.geteuid?.() !== 0) return [];
  const paths = [input.config, ...needs.files].filter(
    (path) => !isHome(path) && statusOf(path) !== null,
  );
  const asked = await Promise.all(
    paths.map(async (path) => {
      const ran = await run(context, ["setpriv", ...ids, "--", "test", "-r", path]);
      return ran === null || ran.code !== 1 ? [] : [unreadable(path, input)];
    }),
  );
  return asked.flat();
}

function unreadable(path: string, input: ServiceInput): Problem {
  const { account, name, config } = input;
  if (account !== null) {
    const hint = `chgrp ${account} ${path} && chmod 640 ${path}, and its directories likewise; a key of TLS must belong to it (chown)`;
    return { message: `account ${account} cannot read ${path}`, hint };
  }
  const hint =
    path === config
      ? `it holds references, not secrets: chmod 644 ${path} (and 755 for its directories)`
      : `no secret: chmod 644 ${path} (and 755 for its directories); a secret: write /run/credentials/${name}.service/NAME in the configuration and link ${credentialsDir(input)}/NAME to it; or --user-account NAME`;
  return { message: `the account that systemd makes cannot read ${path}`, hint };
}

function parentsOf(path: string): string[] {
  const found: string[] = [];
  for (let at = dirname(path); at !== dirname(at); at = dirname(at)) found.push(at);
  return [...found, "/"];
}

function statusOf(path: string): Stats | null {
  try {
    return statSync(path);
  } catch {
    return null;
  }
}
