/**
 * The service: is its unit what this version and configuration would write, and does it switch the compiler off.
 *
 * Invariant: looks only; the comparison is the one of `gatehouse service status`.
 */
import { existsSync } from "node:fs";
import { errorMessage } from "../../errors.ts";
import { planFor } from "../service/plan.ts";
import { unitDifference } from "../service/unit-file.ts";
import { error, type Finding, info, ok, someOf, warning } from "./finding.ts";
import type { Check, Subject } from "./subject.ts";
import { dropInsOf, editCommand, type InstalledUnit, restartCommand } from "./unit.ts";

export const checkUnit: Check = {
  group: "Service",
  name: "the service",
  async run(subject) {
    const { unit } = subject;
    if (unit === null) {
      return existsSync("/run/systemd/system")
        ? [info("unit_absent", "no service of `gatehouse service install` runs this configuration")]
        : [];
    }
    return [
      ...(await driftFindings(unit, subject)),
      ...writeExecuteFindings(unit),
      ...(await systemdFindings(unit, subject)),
    ];
  },
};

async function driftFindings(
  unit: InstalledUnit,
  { context }: Subject,
): Promise<readonly Finding[]> {
  const { found, path, name } = unit;
  const scope = found.input.scope === "user" ? " --user" : "";
  if (found.isEdited) {
    return [
      warning("unit_edited", `${path} was changed by hand`, {
        why: "The next `gatehouse service install` replaces it, and nobody tests what stands in it now.",
        next: `move the changes to a drop-in (\`${editCommand(unit)}\`), then \`gatehouse service install${scope}\` again`,
      }),
    ];
  }
  try {
    const lines = unitDifference(found.text, (await planFor(context, found.input, null)).text);
    if (lines.length === 0) return [ok("unit_current", `${path} is what this version writes`)];
    return [
      warning(
        "unit_drift",
        `${path} differs from what this version would write: ${someOf(lines, 3)}`,
        {
          why: "The service lacks a right or a protection that this version and configuration are meant to have.",
          next: `\`gatehouse service install${scope} --name ${name}\`; \`gatehouse service status\` shows all of it`,
        },
      ),
    ];
  } catch (problem) {
    return [info("unit_uncompared", `${path} could not be compared: ${errorMessage(problem)}`)];
  }
}

/** Without a word of anybody the gateway is then 27 times slower. */
function writeExecuteFindings(unit: InstalledUnit): readonly Finding[] {
  const texts = [{ path: unit.path, text: unit.found.text }, ...dropInsOf(unit)];
  const last = texts
    .flatMap(({ path, text }) =>
      [...text.matchAll(/^\s*MemoryDenyWriteExecute\s*=\s*(\S*)/gm)].map((match) => ({
        path,
        isOn: /^(?:1|yes|y|true|t|on)$/i.test(match[1] ?? ""),
      })),
    )
    .at(-1);
  return last?.isOn === true ? [deniesCompiler(last.path, unit)] : [];
}

function deniesCompiler(where: string, unit: InstalledUnit): Finding {
  return error("unit_denies_jit", `${where} sets MemoryDenyWriteExecute`, {
    why: "It switches the just-in-time compiler off without a word: the gateway is then 27 times slower.",
    next: `take the line out (\`${editCommand(unit)}\`), then \`${restartCommand(unit)}\``,
  });
}

async function systemdFindings(unit: InstalledUnit, subject: Subject): Promise<readonly Finding[]> {
  const facts = await subject.unitFacts();
  if (facts === null) return [];
  const findings: Finding[] = [];
  const denied = /^(?:yes|1|true)$/.test(facts.MemoryDenyWriteExecute);
  if (denied && writeExecuteFindings(unit).length === 0) {
    findings.push(deniesCompiler("a drop-in or a default of systemd", unit));
  }
  if (facts.NeedDaemonReload === "yes") {
    findings.push(
      warning("unit_not_reloaded", "systemd has not read the unit since it was changed", {
        why: "The service runs with what was there before.",
        next: `\`${restartCommand(unit).replace(/restart .*/, "daemon-reload")}\`, then \`${restartCommand(unit)}\``,
      }),
    );
  }
  if (facts.ActiveState === "failed") {
    findings.push(
      error("unit_failed", `${unit.name}.service has failed`, {
        why: "The gateway does not run.",
        next: `\`journalctl --unit ${unit.name} --lines 20\`, then \`${restartCommand(unit)}\``,
      }),
    );
  }
  return findings;
}
