/**
 * Whether the just-in-time compiler works, here and in the running gateway.
 *
 * Invariant: told by memory and not by time: the compiler keeps its code in memory that is writable and executable and
 * belongs to no file. A process without such memory has no compiler, whatever took it away (measured on this runtime:
 * present normally, absent under MemoryDenyWriteExecute and with BUN_JSC_useJIT=0).
 */
import { error, type Finding, info, ok } from "./finding.ts";
import { textOf } from "./proc-net.ts";
import { runningPid } from "./running.ts";
import type { Check } from "./subject.ts";

export const checkJit: Check = {
  group: "Service",
  name: "the just-in-time compiler",
  async run(subject) {
    const pid = await runningPid(subject);
    const findings = [jitFinding("this command", compiles("self"))];
    if (pid !== null && pid !== process.pid) {
      findings.push(jitFinding(`the running gateway (process ${pid})`, compiles(String(pid))));
    }
    return findings.filter((finding) => finding !== null);
  },
};

/** Null when it may not be seen. */
function compiles(pid: string): boolean | null {
  const maps = textOf(`/proc/${pid}/maps`);
  return maps === null || maps === "" ? null : hasCompiler(maps);
}

/** Whether a text of the form of /proc/PID/maps (proc_pid_maps(5)) has memory of a compiler. */
export function hasCompiler(maps: string): boolean {
  return maps.split("\n").some((line) => {
    const [, rights = "", , , inode = "", name = ""] = line.trim().split(/\s+/);
    return rights.startsWith("rwx") && inode === "0" && (name === "" || name.startsWith("[anon"));
  });
}

function jitFinding(who: string, isOn: boolean | null): Finding | null {
  if (isOn === null) {
    if (process.platform !== "linux") return null;
    return info("jit_unknown", `whether ${who} has its compiler cannot be seen by this user`, {
      next: "`sudo gatehouse doctor`",
    });
  }
  if (isOn) return ok("jit_on", `the just-in-time compiler of ${who} works`);
  return error("jit_off", `the just-in-time compiler of ${who} is switched off`, {
    why: "Everything is then 27 times slower, without a word.",
    next: "take `MemoryDenyWriteExecute` out of its unit (or the container's seccomp profile), and `BUN_JSC_useJIT` out of its environment; then restart it",
  });
}
