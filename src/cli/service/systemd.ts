/**
 * The service manager: is it there, where are its units, what does it say about one.
 *
 * Invariant: every question and order goes through systemctl, as an operator would give it; nothing is guessed
 * from files of systemd's own.
 */
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { EXIT, OperatorError } from "../../errors.ts";
import type { CliContext } from "../context.ts";
import type { Which } from "./input.ts";
import { programError, type Ran, run } from "./programs.ts";

/** What systemd says about a unit. */
export interface UnitState {
  /** `enabled`, `disabled`, `masked`, `not-found`, … */
  readonly enabled: string;
  /** `active`, `inactive`, `failed`, `activating`, …; `unknown` for a system that is not running. */
  readonly active: string;
  readonly sub: string;
  /** `success`, `exit-code`, `watchdog`, … */
  readonly result: string;
  readonly exitStatus: number | null;
  readonly pid: number | null;
  /** What the service says of itself. */
  readonly text: string;
  readonly needsReload: boolean;
  readonly dropIns: readonly string[];
}

/** Before 239 there is no @system-service. */
const OLDEST = 239;
/** The start job may take as long as the unit says; systemd ends it, so this is only against systemd itself. */
const START_MS = 900_000;

/** Orders and questions for one manager. */
export class Systemd {
  readonly which: Which;
  private readonly context: CliContext;

  constructor(context: CliContext, which: Which) {
    this.context = context;
    this.which = which;
  }

  /** Directory of units that an administrator, or a user, writes. */
  get unitDir(): string {
    const { scope, root } = this.which;
    if (scope === "system") return join(root ?? "/", "etc/systemd/system");
    return join(userConfigDir(this.context), "systemd/user");
  }

  get unitPath(): string {
    return join(this.unitDir, `${this.which.name}.service`);
  }

  /** Other places of a unit with this name, best first. */
  otherPaths(): readonly string[] {
    const { scope, root, name } = this.which;
    const kind = scope === "system" ? "system" : "user";
    const dirs = [
      ...(scope === "user" ? ["/etc/systemd/user"] : []),
      `/run/systemd/${kind}`,
      `/usr/local/lib/systemd/${kind}`,
      `/usr/lib/systemd/${kind}`,
      `/lib/systemd/${kind}`,
    ];
    return dirs.map((dir) => join(root ?? "/", dir, `${name}.service`)).filter(existsSync);
  }

  /** Files that add to the unit. */
  dropIns(): readonly string[] {
    const dir = `${this.unitPath}.d`;
    if (!existsSync(dir)) return [];
    return readdirSync(dir)
      .filter((name) => name.endsWith(".conf"))
      .sort()
      .map((name) => join(dir, name));
  }

  /**
   * The manager's version, once it is known to answer.
   * @throws OperatorError when it is not there, or too old
   */
  async version(): Promise<number> {
    const { scope, root } = this.which;
    const ran = await run(this.context, ["systemctl", "--version"]);
    const version = Number(/^systemd (\d+)/.exec(ran?.stdout ?? "")?.[1] ?? Number.NaN);
    if (Number.isNaN(version)) throw absent("there is no systemd on this machine");
    if (version < OLDEST)
      throw absent(`systemd ${version} is too old; ${OLDEST} or newer is needed`);
    if (root !== null) return version;
    if (scope === "system" && !existsSync("/run/systemd/system")) {
      throw absent("systemd is installed, but this machine was not started with it");
    }
    if (scope === "user") await this.requireUserManager();
    return version;
  }

  private async requireUserManager(): Promise<void> {
    const ran = await this.ask("show-environment");
    if (ran?.code === 0) return;
    throw new OperatorError(
      EXIT.unavailable,
      `your systemd user manager does not answer: ${ran?.stderr.trim() || "no systemctl"}`,
      "Log in as this user (not with su or sudo), for instance: machinectl shell USER@",
    );
  }

  /** An order. @throws OperatorError with what systemctl said */
  async order(...args: readonly string[]): Promise<void> {
    const argv = this.argv(args);
    const ran = await run(this.context, argv, START_MS);
    if (ran === null || ran.code !== 0) throw programError(argv, ran);
  }

  /** A question or an order whose failure is an answer. */
  ask(...args: readonly string[]): Promise<Ran | null> {
    return run(this.context, this.argv(args), START_MS);
  }

  async state(): Promise<UnitState> {
    const unit = `${this.which.name}.service`;
    const enabled = (await this.ask("is-enabled", unit))?.stdout.trim() || "not-found";
    const dropIns = this.dropIns();
    if (this.which.root !== null) return { ...NOT_RUNNING, enabled, dropIns };
    const shown = await this.ask("show", unit, `--property=${PROPERTIES.join(",")}`);
    const facts = new Map(
      (shown?.stdout ?? "").split("\n").map((line) => {
        const equals = line.indexOf("=");
        return [line.slice(0, equals), line.slice(equals + 1)] as const;
      }),
    );
    const fact = (name: string): string => facts.get(name) ?? "";
    const pid = Number(fact("MainPID"));
    return {
      enabled,
      active: fact("ActiveState") || "unknown",
      sub: fact("SubState"),
      result: fact("Result"),
      exitStatus: /^\d+$/.test(fact("ExecMainStatus")) ? Number(fact("ExecMainStatus")) : null,
      pid: pid > 0 ? pid : null,
      text: fact("StatusText"),
      needsReload: fact("NeedDaemonReload") === "yes",
      dropIns,
    };
  }

  /** The last lines that the service, and systemd about it, wrote since then. */
  async journal(lines: number, sinceMs: number): Promise<string> {
    const { scope, name } = this.which;
    const unit = scope === "user" ? "--user-unit" : "--unit";
    const ran = await run(this.context, [
      "journalctl",
      `${unit}=${name}.service`,
      `--lines=${lines}`,
      `--since=${new Date(sinceMs).toISOString().replace("T", " ").replace("Z", " UTC")}`,
      "--no-pager",
      "--output=cat",
    ]);
    return ran?.code === 0 ? ran.stdout.trim() : "";
  }

  private argv(args: readonly string[]): readonly [string, ...string[]] {
    const { scope, root } = this.which;
    return [
      "systemctl",
      ...(root === null ? [] : [`--root=${root}`]),
      ...(scope === "user" ? ["--user"] : []),
      "--no-pager",
      ...args,
    ];
  }
}

const PROPERTIES = [
  "ActiveState",
  "SubState",
  "Result",
  "ExecMainStatus",
  "MainPID",
  "StatusText",
  "NeedDaemonReload",
];

const NOT_RUNNING: UnitState = {
  enabled: "not-found",
  active: "unknown",
  sub: "",
  result: "",
  exitStatus: null,
  pid: null,
  text: "",
  needsReload: false,
  dropIns: [],
};

/** $XDG_CONFIG_HOME, or ~/.config. */
function userConfigDir({ env }: CliContext): string {
  const own = env.XDG_CONFIG_HOME ?? "";
  if (own.startsWith("/")) return own;
  const home = env.HOME ?? "";
  if (home.startsWith("/")) return join(home, ".config");
  throw new OperatorError(EXIT.usage, "HOME is not set, so there is no place for a user unit");
}

function absent(message: string): OperatorError {
  return new OperatorError(
    EXIT.unavailable,
    message,
    "`gatehouse service print --openrc` and `--launchd` print files for other service managers.",
  );
}
