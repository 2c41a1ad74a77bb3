/**
 * A stand-in for a systemd manager, as a `systemctl` in front of PATH: units are files, services are processes.
 *
 * Invariant: it does to a unit what systemd would and no more; whatever it started has ended after `stop`.
 */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { InitPlace } from "./init.ts";

/** What it was told, and the service that it runs. */
export interface StandInManager {
  /** Its verbs so far, such as `start gatehouse.service`. */
  orders(): readonly string[];
  /** Of the running service, or null. */
  pid(): number | null;
  stop(): void;
}

/** Puts it into the place. @param starts shell command that runs instead of the unit's own, which is in $EXEC */
export function standInManager(
  place: InitPlace,
  { starts = "$EXEC", scope = "user" }: { starts?: string; scope?: "user" | "system" } = {},
): StandInManager {
  const dir = join(place.home, "manager");
  place.write("manager/orders", "");
  const units =
    scope === "user"
      ? join(place.env.XDG_CONFIG_HOME ?? "", "systemd/user")
      : "/etc/systemd/system";
  place.program(
    "systemctl",
    `#!/bin/sh
[ "$1" = --version ] && { echo "systemd 252 (stand-in)"; exit 0; }
[ "$1" = --user ] && [ "${scope}" = system ] && { echo "Failed to connect to bus" >&2; exit 1; }
while [ "\${1#--}" != "$1" ]; do shift; done
verb=$1; shift
now=
for arg; do case $arg in --now) now=1;; --*) ;; *) unit=$arg;; esac; done
file="${units}/$unit"
pid() { cat "${dir}/pid" 2>/dev/null; }
# One that has ended may not have been waited for yet.
running() { p=$(pid); [ -n "$p" ] && [ -d "/proc/$p" ] && ! grep -q "^State:.Z" "/proc/$p/status"; }
halt() { running && kill "$(pid)" && while running; do sleep 0.02; done; rm -f "${dir}/pid"; }
launch() {
  exec_start=$(sed -n 's/^ExecStart=//p' "$file")
  config=\${exec_start##* }
  command='${starts}'
  passed="${dir}/credentials"
  rm -rf "$passed"; mkdir -p "$passed"
  sed -n 's/^LoadCredential=//p' "$file" | tr : ' ' | while read -r name path; do cp -L "$path" "$passed/$name"; done
  # Where services find them.
  [ "${scope}" = system ] && { mkdir -p "/run/credentials/$unit"; mount --bind "$passed" "/run/credentials/$unit"; }
  env -i PATH="$PATH" HOME="$HOME" EXEC="$exec_start" CREDENTIALS_DIRECTORY="$passed" sh -c "exec $command" >"${dir}/log" 2>&1 &
  echo $! >"${dir}/pid"
  scheme=http://
  grep -q "^  tls:" "$config" && scheme=https://
  for _ in $(seq 200); do
    running || return 1
    curl -sk -o /dev/null "$scheme$(sed -n 's/^  listen: //p' "$config")/healthz" && return 0
    sleep 0.02
  done
  return 1
}
case $verb in show-environment|is-enabled|show) ;; *) echo "$verb \${unit:-}" >>"${dir}/orders";; esac
case $verb in
  show-environment|daemon-reload|reset-failed|clean) exit 0;;
  is-enabled) [ -e "${dir}/enabled" ] && echo enabled || { echo disabled; exit 1; };;
  enable) : >"${dir}/enabled";;
  disable) rm -f "${dir}/enabled"; [ -n "$now" ] && halt; exit 0;;
  start) running || launch;;
  restart) halt; launch;;
  stop) halt; exit 0;;
  show) if running; then echo ActiveState=active; echo "MainPID=$(pid)"; else echo ActiveState=failed; echo Result=exit-code; echo ExecMainStatus=1; fi;;
  *) exit 1;;
esac
`,
  );
  place.program("journalctl", `#!/bin/sh\ncat "${dir}/log" 2>/dev/null\n`);
  const pid = (): number | null => {
    const path = join(dir, "pid");
    const found = existsSync(path) ? Number(readFileSync(path, "utf8")) : 0;
    if (found === 0 || !existsSync(`/proc/${found}`)) return null;
    return /^State:\s+Z/m.test(readFileSync(`/proc/${found}/status`, "utf8")) ? null : found;
  };
  return {
    orders: () =>
      readFileSync(join(dir, "orders"), "utf8")
        .split("\n")
        .filter((line) => line !== ""),
    pid,
    stop() {
      const running = pid();
      if (running !== null) process.kill(running, "SIGKILL");
    },
  };
}
