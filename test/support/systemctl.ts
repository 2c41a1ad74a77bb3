/**
 * A stand-in for systemctl and journalctl: it knows one user unit and writes down what it was asked. Where systemd
 * runs, the commands were tried against the real one; this holds them to the order of things that worked there.
 *
 * Invariant: it lives in a directory of its own that a test puts first in PATH; the machine's manager is never asked.
 */
import { chmodSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { scratch } from "./gateway.ts";

export interface FakeSystemd {
  /** The user's home, for HOME. */
  readonly home: string;
  /** Environment in which the executable finds this one and no other. */
  readonly env: Readonly<Record<string, string>>;
  /** Where a user unit called gatehouse belongs. */
  readonly unitPath: string;
  /** The verbs it was given since the last call, with their arguments. */
  asked(): string[];
  /** The environment of the last call. */
  seenEnv(): string;
  /** Whether starting works. Default true. */
  letStart(works: boolean): void;
  /** As after a crash. */
  deactivate(): void;
  isActive(): boolean;
  isEnabled(): boolean;
}

const SYSTEMCTL = `#!/bin/sh
S="$XDG_RUNTIME_DIR"
env > "$S/env"
if [ "$1" = --version ]; then echo "systemd 252 (252.38)"; exit 0; fi
shift 2
[ "$1" = --quiet ] && shift
echo "$*" >> "$S/log"
case "$1" in
  show-environment) [ ! -e "$S/deaf" ] || { echo "Failed to connect to bus" >&2; exit 1; } ;;
  is-enabled) if [ -e "$S/enabled" ]; then echo enabled; else echo disabled; exit 1; fi ;;
  enable) touch "$S/enabled" ;;
  disable) rm -f "$S/enabled"; [ "$2" = --now ] && rm -f "$S/active"; true ;;
  start|restart)
    rm -f "$S/active"
    if [ -e "$S/fails" ]; then echo "Job for $2 failed" >&2; exit 1; fi
    touch "$S/active" ;;
  stop) rm -f "$S/active" ;;
  show)
    if [ -e "$S/active" ]; then
      printf 'ActiveState=active\\nSubState=running\\nResult=success\\nExecMainStatus=0\\nMainPID=%s\\nStatusText=1 route = fine\\nNeedDaemonReload=no\\n' "$PPID"
    else
      printf 'ActiveState=inactive\\nSubState=dead\\nResult=exit-code\\nExecMainStatus=1\\nMainPID=0\\nStatusText=\\nNeedDaemonReload=no\\n'
    fi ;;
esac
`;

const JOURNALCTL = "#!/bin/sh\necho 'error: cannot listen on 127.0.0.1:80: not permitted'\n";

/** Nothing is installed, and starting works. */
export function fakeSystemd(): FakeSystemd {
  const home = scratch();
  const [bin, state] = [join(home, "bin"), join(home, "run")];
  mkdirSync(bin);
  mkdirSync(state);
  for (const [name, text] of [
    ["systemctl", SYSTEMCTL],
    ["journalctl", JOURNALCTL],
  ] as const) {
    writeFileSync(join(bin, name), text);
    chmodSync(join(bin, name), 0o755);
  }
  const at = (name: string) => join(state, name);
  const put = (name: string, isThere: boolean) =>
    isThere ? writeFileSync(at(name), "") : rmSync(at(name), { force: true });
  return {
    home,
    env: { HOME: home, PATH: `${bin}:/usr/bin:/bin`, XDG_RUNTIME_DIR: state },
    unitPath: join(home, ".config/systemd/user/gatehouse.service"),
    asked() {
      const log = existsSync(at("log")) ? readFileSync(at("log"), "utf8") : "";
      put("log", false);
      return log.split("\n").filter((line) => line !== "");
    },
    seenEnv: () => readFileSync(at("env"), "utf8"),
    letStart: (works) => put("fails", !works),
    deactivate: () => put("active", false),
    isActive: () => existsSync(at("active")),
    isEnabled: () => existsSync(at("enabled")),
  };
}
