/**
 * The same service for launchd (macOS), as a property list.
 *
 * Invariant: every value is escaped for XML, and nothing of the environment or a secret is in it.
 */
import { EXIT, OperatorError } from "../../errors.ts";
import { lowPorts } from "./places.ts";
import type { ServicePlan } from "./plan.ts";
import { stopSeconds } from "./systemd-unit.ts";

/** What a property list is made of. */
type Value = string | number | boolean | readonly Value[] | { readonly [key: string]: Value };

/** @throws OperatorError when the configuration needs what launchd does not have */
export function launchdPlist({ input, needs }: Pick<ServicePlan, "input" | "needs">): string {
  const { scope, name, account, exec, config } = input;
  if (needs.credentials.length > 0 || needs.variables.length > 0) {
    throw new OperatorError(
      EXIT.config,
      `launchd passes no secrets, and the configuration takes ${[...needs.credentials, ...needs.variables].join(", ")}`,
      "Use ${file:/path} (mode 600, owner the account of the service).",
    );
  }
  const low = lowPorts(needs.listen);
  if (low.length > 0 && scope === "system") {
    throw new OperatorError(
      EXIT.config,
      `launchd gives port ${low.join(", ")} to root only, and a gateway does not run as root`,
      "Listen on a port of 1024 or above, and let pf redirect to it.",
    );
  }
  const label = `local.${name}`;
  const isSystem = scope === "system";
  const logDir = isSystem ? `/var/log/${name}` : needs.stateDir;
  const user = account ?? `_${name}`;
  const place = isSystem
    ? `/Library/LaunchDaemons/${label}.plist`
    : `~/Library/LaunchAgents/${label}.plist`;
  const values: Readonly<Record<string, Value>> = {
    Label: label,
    ProgramArguments: [exec, "serve", "-c", config],
    ...(isSystem ? { UserName: user } : {}),
    RunAtLoad: true,
    // Again after a failure, not after an end that was asked for.
    KeepAlive: { SuccessfulExit: false },
    ThrottleInterval: 10,
    ExitTimeOut: stopSeconds(needs),
    // 0077, in decimal
    Umask: 63,
    SoftResourceLimits: { Core: 0, NumberOfFiles: 65_535 },
    HardResourceLimits: { Core: 0, NumberOfFiles: 65_535 },
    ProcessType: "Interactive",
    StandardOutPath: `${logDir}/${name}.log`,
    StandardErrorPath: `${logDir}/${name}.log`,
  };
  const domain = isSystem ? "system" : "gui/$(id -u)";
  const sudo = isSystem ? "sudo " : "";
  const prepare = isSystem
    ? `\n  An account and its directories first: sudo sysadminctl -addUser ${user} -roleAccount;
  sudo install -d -m 700 -o ${user} ${needs.stateDir} ${logDir}`
    : "";
  return `<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<!--
  Made by gatehouse service print, launchd form. Save it as ${commented(place)}, mode 644.${commented(prepare)}
  ${commented(`${sudo}launchctl bootstrap ${domain} ${place}`)}
-->
<plist version="1.0">
${xml(values, "")}</plist>
`;
}

function xml(value: Value, indent: string): string {
  if (typeof value === "string") return `${indent}<string>${escaped(value)}</string>\n`;
  if (typeof value === "number") return `${indent}<integer>${value}</integer>\n`;
  if (typeof value === "boolean") return `${indent}<${value}/>\n`;
  const inner = `${indent}\t`;
  if (isList(value)) {
    return `${indent}<array>\n${value.map((one) => xml(one, inner)).join("")}${indent}</array>\n`;
  }
  const entries = Object.entries(value).map(
    ([key, one]) => `${inner}<key>${escaped(key)}</key>\n${xml(one, inner)}`,
  );
  return `${indent}<dict>\n${entries.join("")}${indent}</dict>\n`;
}

/** `Array.isArray` does not narrow readonly arrays. */
function isList(value: Value): value is readonly Value[] {
  return Array.isArray(value);
}

function escaped(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

/** Two hyphens end a comment early in strict readers. */
function commented(text: string): string {
  return text.replaceAll("--", "- -");
}
