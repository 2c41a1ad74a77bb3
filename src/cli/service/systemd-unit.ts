/**
 * The text of a systemd unit: what starts the gateway, what it may touch, when it is restarted.
 *
 * Invariant: the same input gives the same bytes, so that a difference to what is installed means something. Never
 * MemoryDenyWriteExecute: it switches the just-in-time compiler off without a word, 27 times slower.
 */
import { dirname } from "node:path";
import type { ServiceInput } from "./input.ts";
import type { ServiceNeeds } from "./needs.ts";
import { lowPorts, type Places } from "./places.ts";
import { sealed } from "./unit-file.ts";

/** Where a credential's value comes from. */
export interface CredentialSource {
  readonly name: string;
  /** Absolute. */
  readonly path: string;
  /** Made with `systemd-creds encrypt`. */
  readonly isEncrypted: boolean;
}

/** What a unit is made of. */
export interface UnitParts {
  readonly input: ServiceInput;
  readonly needs: ServiceNeeds;
  readonly credentials: readonly CredentialSource[];
}

/** A line of a unit; a list repeats the key. */
type Line = readonly [key: string, value: string | number | readonly string[] | null];

/** How long a strategy may take to start, and to close (src/lifecycle.ts, src/start.ts), in seconds. */
const STRATEGY_START_S = 30;
const STRATEGY_CLOSE_S = 5;
/** Close frames of WebSockets, and what a loaded machine takes. */
const STOP_MARGIN_S = 10;
/** What systemd allows when nothing is said. */
const LEAST_START_S = 90;

const DESCRIPTION = "Gatehouse, the gate in front of HTTP services";

/** Works the same for system and user services: these are filters of system calls. */
const FILTERS: readonly Line[] = [
  ["NoNewPrivileges", "yes"],
  ["RestrictNamespaces", "yes"],
  ["RestrictRealtime", "yes"],
  ["RestrictSUIDSGID", "yes"],
  ["LockPersonality", "yes"],
  // AF_UNIX for notifications and sockets; no AF_NETLINK.
  ["RestrictAddressFamilies", "AF_INET AF_INET6 AF_UNIX"],
  ["SystemCallArchitectures", "native"],
  ["SystemCallFilter", ["@system-service", "~@privileged @resources"]],
  ["SystemCallErrorNumber", "EPERM"],
];

/** Need the rights of the system's manager. `ProtectHome=` is decided by what the configuration names. */
const ISOLATION: readonly Line[] = [
  ["ProtectSystem", "strict"],
  ["PrivateTmp", "yes"],
  ["PrivateDevices", "yes"],
  ["PrivateMounts", "yes"],
  ["ProtectProc", "invisible"],
  ["ProcSubset", "pid"],
  ["ProtectKernelTunables", "yes"],
  ["ProtectKernelModules", "yes"],
  ["ProtectKernelLogs", "yes"],
  ["ProtectClock", "yes"],
  ["ProtectHostname", "yes"],
  ["ProtectControlGroups", "yes"],
  ["RemoveIPC", "yes"],
  ["KeyringMode", "private"],
];

/** The unit of a system service, sealed (see unit-file.ts). */
export function systemUnit(parts: UnitParts, places: Places): string {
  const { input, needs, credentials } = parts;
  const capability = needsLowPorts(input, needs) ? "CAP_NET_BIND_SERVICE" : "";
  const hasHome = places.homeReadOnly.length + places.homeReadWrite.length > 0;
  const service: readonly Line[] = [
    ...running(parts),
    ["User", input.account ?? input.name],
    ["DynamicUser", input.account === null ? "yes" : null],
    ["StateDirectory", places.stateDirectory],
    ["StateDirectoryMode", places.stateDirectory === null ? null : "0700"],
    ["ConfigurationDirectory", places.configurationDirectory],
    ["ConfigurationDirectoryMode", places.configurationDirectory === null ? null : "0755"],
    ["RuntimeDirectory", input.name],
    ["RuntimeDirectoryMode", "0750"],
    ["ReadWritePaths", places.readWrite.map(quoted)],
    ["LoadCredential", credentialLines(credentials, false)],
    ["LoadCredentialEncrypted", credentialLines(credentials, true)],
    ...limits(),
    ["CapabilityBoundingSet", capability],
    ["AmbientCapabilities", capability],
    ["ProtectHome", hasHome ? "tmpfs" : "yes"],
    // With -, so that a file that is missing is named by the gateway rather than by a mount that fails.
    ["BindReadOnlyPaths", places.homeReadOnly.map((path) => quoted(`-${path}`))],
    ["BindPaths", places.homeReadWrite.map((path) => quoted(`-${path}`))],
    ...ISOLATION,
    ...FILTERS,
  ];
  const comments = places.notes.map((note) => `# Note: ${note}\n`).join("");
  return sealed(
    input,
    `${comments}${section("Unit", unit(true))}${section("Service", service)}${install("multi-user.target")}`,
  );
}

/** The unit of a user service: what needs root is left out, the filters stay. */
export function userUnit(parts: UnitParts): string {
  const service: readonly Line[] = [
    ...running(parts),
    ["LoadCredential", credentialLines(parts.credentials, false)],
    ["LoadCredentialEncrypted", credentialLines(parts.credentials, true)],
    ...limits(),
    ...FILTERS,
  ];
  return sealed(
    parts.input,
    `${section("Unit", unit(false))}${section("Service", service)}${install("default.target")}`,
  );
}

/** Whether the service must be able to bind ports below 1024. */
export function needsLowPorts(input: ServiceInput, needs: ServiceNeeds): boolean {
  return input.lowPorts || lowPorts(needs.listen).length > 0;
}

/** Seconds until systemd kills what does not stop: longer than the gateway's own deadlines. */
export function stopSeconds(needs: ServiceNeeds): number {
  return Math.ceil(needs.drainMs / 1000) + needs.strategyCount * STRATEGY_CLOSE_S + STOP_MARGIN_S;
}

/** Seconds until systemd gives up a start. */
export function startSeconds(needs: ServiceNeeds): number {
  return Math.max(LEAST_START_S, needs.strategyCount * STRATEGY_START_S + STOP_MARGIN_S);
}

function unit(isSystem: boolean): readonly Line[] {
  return [
    ["Description", DESCRIPTION],
    // An address must be there before it can be listened on. User managers have no such target.
    ["Wants", isSystem ? "network-online.target" : null],
    ["After", isSystem ? "network-online.target" : null],
    // A dependency that is late has a minute and a half; what fails for ever ends.
    ["StartLimitIntervalSec", "5min"],
    ["StartLimitBurst", 30],
  ];
}

function running({ input, needs }: UnitParts): readonly Line[] {
  const command = (verb: string): string =>
    [input.exec, verb, "-c", input.config].map(argument).join(" ");
  return [
    ["Type", "notify"],
    ["NotifyAccess", "main"],
    ["ExecStart", command("serve")],
    // Ends when the new configuration is in force, or says why it is not.
    ["ExecReload", command("reload")],
    ["EnvironmentFile", input.environmentFile === null ? null : specified(input.environmentFile)],
    ["UnsetEnvironment", "BUN_BE_BUN BUN_OPTIONS NODE_OPTIONS"],
    ["WatchdogSec", "30s"],
    ["TimeoutStartSec", `${startSeconds(needs)}s`],
    ["TimeoutStopSec", `${stopSeconds(needs)}s`],
    ["Restart", "on-failure"],
    ["RestartSec", "3s"],
    // A configuration that is wrong does not get better by trying again.
    ["RestartPreventExitStatus", 78],
    ["UMask", "0077"],
  ];
}

function limits(): readonly Line[] {
  return [
    ["LimitNOFILE", 65_535],
    ["LimitCORE", 0],
  ];
}

function credentialLines(sources: readonly CredentialSource[], isEncrypted: boolean): string[] {
  return sources
    .filter((source) => source.isEncrypted === isEncrypted)
    .map(({ name, path }) => `${name}:${specified(path)}`);
}

function install(target: string): string {
  return `[Install]\nWantedBy=${target}\n`;
}

function section(title: string, lines: readonly Line[]): string {
  const written = lines.flatMap(([key, value]) => {
    if (value === null) return [];
    const values = typeof value === "object" ? value : [value];
    return values.map((one) => `${key}=${one}\n`);
  });
  return `[${title}]\n${written.join("")}\n`;
}

/** systemd.unit(5): `%` begins a specifier. */
function specified(text: string): string {
  return text.replaceAll("%", "%%");
}

/** One word of a list of paths; isFit has kept quotes and backslashes out. */
function quoted(path: string): string {
  const text = specified(path);
  return text.includes(" ") ? `"${text}"` : text;
}

/** One word of a command line; isFit has kept `$` out. */
function argument(text: string): string {
  return quoted(text);
}

/** Where the values of credentials are kept: beside the configuration, for root alone. */
export function credentialsDir(input: ServiceInput): string {
  return `${dirname(input.config)}/credentials`;
}
