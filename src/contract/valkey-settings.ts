/**
 * How a config says where a Valkey is: the keys that `shared` and every strategy with a Valkey of its own have in
 * common.
 *
 * Invariant: what parses and passes {@link checkValkeySettings} can be used: durations are read, there is exactly one
 * way to the server, and no address holds a password. Messages never repeat a value.
 */
import { z } from "zod";
import { parseDuration } from "./quantity.ts";
import { secret } from "./secret.ts";

const DEFAULT_PORT = 6379;
const SCHEMES = new Set(["redis:", "rediss:", "valkey:", "valkeys:"]);

/** Where a server listens. */
export interface ValkeyNode {
  readonly host: string;
  readonly port: number;
}

/** An address of the form `redis://host:port/database`, taken apart. */
export interface ValkeyAddress extends ValkeyNode {
  readonly database: number;
  readonly isTls: boolean;
}

const node = () =>
  z.string().refine((text) => readNode(text) !== null, {
    error: "expected host:port, such as 10.0.0.5:6379",
  });

const deadline = () =>
  z.string().refine(
    (text) => {
      const ms = parseDuration(text) ?? -1;
      return ms >= 50 && ms <= 60_000;
    },
    { error: "expected a duration from 50ms to 60s" },
  );

/**
 * The keys, to be spread into the config of a plugin:
 * `z.strictObject({ ...valkeyShape(), mine: … }).superRefine(checkValkeySettings)`.
 */
export const valkeyShape = () => ({
  url: z
    .string()
    .optional()
    .describe("redis://HOST:PORT, with /N for database N; rediss:// for TLS. No password in it."),
  sentinel: z
    .strictObject({
      name: z.string().min(1).describe("Name of the primary, as the sentinels know it."),
      nodes: z.array(node()).min(1).describe("The sentinels, each as host:port."),
      username: z.string().min(1).optional().describe("User of the sentinels. Default none."),
      password: secret("Password of the sentinels.")
        .optional()
        .describe("Password of the sentinels, a reference. Default none."),
    })
    .optional()
    .describe("Ask these sentinels where the primary is, instead of url."),
  cluster: z
    .strictObject({ nodes: z.array(node()).min(1).describe("Nodes to begin with, as host:port.") })
    .optional()
    .describe("A cluster, instead of url. Each request asks it then: nothing is kept in memory."),
  username: z.string().min(1).optional().describe("ACL user. Default: the server's default user."),
  password: secret("Password of the user.")
    .optional()
    .describe("Password of the user, a reference. Default none."),
  tls: z
    .strictObject({
      ca: z
        .string()
        .min(1)
        .optional()
        .describe("File with the certificates to trust, relative to the config file."),
      server_name: z
        .string()
        .min(1)
        .optional()
        .describe("Name that the certificate must have. Default: the host of the address."),
    })
    .optional()
    .describe("Talk TLS; rediss:// does so with the system's certificates. Default: no TLS."),
  command_timeout: deadline()
    .default("2s")
    .describe(
      "After it a command has failed and the connection is made anew, 50ms to 60s. Default 2s.",
    ),
});

/** What {@link valkeyShape} parses to. */
export type ValkeySettings = z.infer<z.ZodObject<ReturnType<typeof valkeyShape>>>;

/** What no single key tells: for `superRefine` on the object that holds {@link valkeyShape}. */
export function checkValkeySettings(settings: ValkeySettings, issues: z.RefinementCtx): void {
  for (const { path, message } of valkeyProblems(settings)) {
    issues.addIssue({ code: "custom", path: [path], message });
  }
}

/** The same as a list; empty when all is well. */
export function valkeyProblems(
  settings: ValkeySettings,
): readonly { readonly path: string; readonly message: string }[] {
  const problems: { path: string; message: string }[] = [];
  const ways = [settings.url, settings.sentinel, settings.cluster].filter(
    (way) => way !== undefined,
  );
  if (ways.length !== 1) {
    problems.push({ path: "url", message: "expected exactly one of url, sentinel and cluster" });
  }
  const problem = settings.url === undefined ? null : valkeyAddressProblem(settings.url);
  if (problem !== null) problems.push({ path: "url", message: problem });
  if (settings.username !== undefined && settings.password === undefined) {
    const message = "a user needs a password; add `password` as a reference";
    problems.push({ path: "username", message });
  }
  return problems;
}

/** Why a text is no address of a server, or `null`. */
export function valkeyAddressProblem(text: string): string | null {
  const url = URL.parse(text);
  if (url === null || !SCHEMES.has(url.protocol) || url.hostname === "") {
    return "expected redis://host:port or rediss://host:port";
  }
  if (url.password !== "" || url.username !== "") {
    return "a password or user is not written into the address; use `password: ${env:NAME}` and `username`";
  }
  if (url.search !== "" || url.hash !== "" || !/^\/?\d{0,3}$/.test(url.pathname)) {
    return "expected nothing after the port but /N for a database";
  }
  return null;
}

/** @throws TypeError when it is none of the addresses that the schema lets through */
export function readValkeyAddress(text: string): ValkeyAddress {
  if (valkeyAddressProblem(text) !== null) throw new TypeError("not an address of a Valkey");
  const url = new URL(text);
  return {
    host: unbracketed(url.hostname),
    port: url.port === "" ? DEFAULT_PORT : Number(url.port),
    database: Number(url.pathname.slice(1)),
    isTls: url.protocol === "rediss:" || url.protocol === "valkeys:",
  };
}

/** @throws TypeError when it is neither `host:port` nor `[::1]:port` */
export function readValkeyNode(text: string): ValkeyNode {
  const read = readNode(text);
  if (read === null) throw new TypeError("not a node of a Valkey");
  return read;
}

function readNode(text: string): ValkeyNode | null {
  const match = /^([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):(\d{1,5})$/.exec(text);
  const port = Number(match?.[2]);
  if (match?.[1] === undefined || port < 1 || port > 65_535) return null;
  return { host: unbracketed(match[1]), port };
}

function unbracketed(host: string): string {
  return host.replace(/^\[(.*)\]$/, "$1");
}

/** Where the server is, for people: without user and password. */
export function valkeyPlace(settings: ValkeySettings): string {
  if (settings.url !== undefined) {
    const { host, port } = readValkeyAddress(settings.url);
    return `${host.includes(":") ? `[${host}]` : host}:${port}`;
  }
  if (settings.sentinel !== undefined) {
    return `${settings.sentinel.name} behind ${settings.sentinel.nodes.join(", ")}`;
  }
  return `cluster ${settings.cluster?.nodes.join(", ")}`;
}
