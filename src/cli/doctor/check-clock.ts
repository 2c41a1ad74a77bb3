/**
 * The clock: whether somebody keeps it, and what others say the time is.
 *
 * Invariant: nobody is asked who is not in the configuration, nothing is set, and what is not known is said to be so.
 */

import { existsSync } from "node:fs";
import { openLibc } from "../../libc.ts";
import { run } from "../service/programs.ts";
import { error, type Finding, info, ok, warning } from "./finding.ts";
import { isLoopbackHost } from "./networks.ts";
import { type AskedClock, type AskedUpstream, askIssuers } from "./outside.ts";
import { needingConfig, type Subject } from "./subject.ts";

/** A signed proof may be a minute old; half of that is no margin any more. */
const MUCH_MS = 30_000;
/** More than a clock that is kept is ever off, and more than a date in whole seconds hides. */
const SOME_MS = 5000;
const TIMEDATECTL_MS = 2000;
/** adjtimex(2): the clock is not synchronised. */
const TIME_ERROR = 5;
const TIMEX_BYTES = 256;
/** Strategies whose credentials say when they were made. */
const TIMED = /^(?:nip98|oidc|jwt)$/;

export const checkClock = needingConfig("Clock", "the clock", async (config, subject) => {
  const isTimed = config.strategies.some(({ use }) => TIMED.test(use));
  const [kept, upstreams, issuers] = await Promise.all([
    isKept(subject),
    subject.upstreams(),
    askIssuers(config),
  ]);
  const clocks = [...upstreams.flatMap(clockOf), ...issuers];
  return [...keeperFindings(kept, isTimed), ...skewFindings(clocks, isTimed)];
});

/** Whether the kernel takes its clock for right; null when it cannot be asked. */
async function isKept({ context }: Subject): Promise<boolean | null> {
  if (existsSync("/run/systemd/timesync/synchronized")) return true;
  const kernel = kernelSaysKept();
  if (kernel !== null) return kernel;
  const ran = await run(
    context,
    ["timedatectl", "show", "--property=NTPSynchronized"],
    TIMEDATECTL_MS,
  );
  const said = /^NTPSynchronized=(yes|no)$/m.exec(ran?.code === 0 ? ran.stdout : "")?.[1];
  return said === undefined ? null : said === "yes";
}

/** Every keeper of the clock tells the kernel (chrony, ntpd, systemd-timesyncd). A call that only reads. */
function kernelSaysKept(): boolean | null {
  if (process.platform !== "linux") return null;
  try {
    const { adjtimex } = openLibc({ adjtimex: { args: ["ptr"], returns: "i32" } });
    const state = adjtimex(new Uint8Array(TIMEX_BYTES));
    return state < 0 ? null : state !== TIME_ERROR;
  } catch {
    // An unknown C library, or no just-in-time compiler (see check-jit.ts).
    return null;
  }
}

/** @param kept null: nobody could say; @param isTimed some credential says when it was made */
export function keeperFindings(kept: boolean | null, isTimed: boolean): readonly Finding[] {
  if (kept === true) return [ok("clock_kept", "the clock is kept by a time service")];
  if (kept === null)
    return [info("clock_unknown", "whether anybody keeps the clock cannot be told here")];
  const what = "nothing keeps the clock of this machine";
  const next =
    "`sudo timedatectl set-ntp true`, or install chrony; in a virtual machine its host may do it";
  if (!isTimed) return [info("clock_unkept", what, { next })];
  return [
    warning("clock_unkept", what, {
      why: "Signed proofs are refused when the clock is off by more than a minute, tokens of an issuer when it is off by their leeway.",
      next,
    }),
  ];
}

function skewFindings(clocks: readonly AskedClock[], isTimed: boolean): readonly Finding[] {
  const off = clocks.filter(({ skewMs }) => Math.abs(skewMs) > SOME_MS);
  const findings = off.map(({ name, skewMs }) => {
    const seconds = Math.round(Math.abs(skewMs) / 1000);
    const what = `the clock of this machine is ${seconds} s ${skewMs < 0 ? "ahead of" : "behind"} that of ${name}`;
    const advice = {
      why: isTimed
        ? "Proofs may be a minute old and tokens have an end: with a wrong clock good ones are refused and old ones accepted."
        : "Expiry of tokens and times in the log are off by as much.",
      next: "find out which of the two is right, then `sudo timedatectl set-ntp true` there",
    };
    const isBad = isTimed && Math.abs(skewMs) > MUCH_MS;
    return isBad ? error("clock_skew", what, advice) : warning("clock_skew", what, advice);
  });
  if (findings.length > 0) return findings;
  // Whoever is on this machine has the same clock, so that it agrees says nothing.
  const others = clocks.filter(({ host }) => !isLoopbackHost(host));
  if (others.length === 0) {
    return [
      info(
        "clock_uncompared",
        "no clock of another machine was compared: nobody outside is in the configuration, or said a date",
      ),
    ];
  }
  return [ok("clock_agrees", `the clock agrees with ${others.map(({ name }) => name).join(", ")}`)];
}

function clockOf({ upstream, reached }: AskedUpstream): readonly AskedClock[] {
  const { target, name } = upstream;
  if (reached.skewMs === null || target.kind === "unix") return [];
  return [{ name: `upstream ${name}`, skewMs: reached.skewMs, host: target.host }];
}
