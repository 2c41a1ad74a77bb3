/**
 * What the operator can set about the strategy `valkey-hash`, and where its Valkey is.
 *
 * Invariant: what parses can be used: durations are read, salts are 32 bytes that are not public, there is exactly
 * one way to the server, and no address holds a password. Messages never repeat a value.
 */
import { parseDuration, secret, z } from "gatehouse";

/** The salt that rusty-valkey-forward-auth falls back to when its own is blank: printed in its source, so no secret. */
const PUBLIC_SALT = "3794447850d23a5db972dbe556437ec2edfe4294687843d7f0587bd9535beecf";
const SALT = /^[0-9a-f]{64}$/i;
const DEFAULT_PORT = 6379;
const SCHEMES = new Set(["redis:", "rediss:", "valkey:", "valkeys:"]);

/** Where a server listens. */
export interface Node {
  readonly host: string;
  readonly port: number;
}

/** An address of the form `redis://host:port/database`, taken apart. */
export interface Address extends Node {
  readonly database: number;
  readonly isTls: boolean;
}

const node = z.string().refine((text) => readNode(text) !== null, {
  error: "expected host:port, such as 10.0.0.5:6379",
});

/** Between `min` and `max`, both included. */
function duration(min: string, max: string) {
  const isBetween = (text: string): boolean => {
    const ms = parseDuration(text) ?? -1;
    return ms >= (parseDuration(min) ?? 0) && ms <= (parseDuration(max) ?? 0);
  };
  return z.string().refine(isBetween, { error: `expected a duration from ${min} to ${max}` });
}

const shape = {
  url: z
    .string()
    .optional()
    .describe("redis://HOST:PORT, with /N for database N; rediss:// for TLS. No password in it."),
  sentinel: z
    .strictObject({
      name: z.string().min(1).describe("Name of the primary, as the sentinels know it."),
      nodes: z.array(node).min(1).describe("The sentinels, each as host:port."),
      username: z.string().min(1).optional().describe("User of the sentinels. Default none."),
      password: secret("Password of the sentinels.")
        .optional()
        .describe("Password of the sentinels, a reference. Default none."),
    })
    .optional()
    .describe("Ask these sentinels where the primary is, instead of url."),
  cluster: z
    .strictObject({ nodes: z.array(node).min(1).describe("Nodes to begin with, as host:port.") })
    .optional()
    .describe("A cluster, instead of url. Answers are not cached then."),
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
  salt: secret("Key of the token hashes: 64 hex digits, a reference."),
  previous_salt: secret("The salt before.")
    .optional()
    .describe("The salt before: its tokens still work, new ones are made with salt. Default none."),
  command_timeout: duration("50ms", "60s")
    .default("2s")
    .describe(
      "After it a command has failed and the connection is made anew, 50ms to 60s. Default 2s.",
    ),
  cache: z
    .boolean()
    .default(true)
    .describe("Keep accepted tokens in memory until Valkey says that they changed. Default true."),
  header: z
    .string()
    .regex(/^[A-Za-z0-9-]{1,100}$/, { error: "expected a header name (letters, digits and -)" })
    .refine((name) => name.toLowerCase() !== "authorization", {
      error: "Authorization is always read; name another header or null",
    })
    .nullable()
    .default(null)
    .describe("Header that is read when Authorization is absent or empty. Default null: none."),
  basic: z
    .boolean()
    .default(true)
    .describe(
      "Accept Basic with the token as password, or as user if that is blank. Default true.",
    ),
  format: z
    .enum(["plain", "checked"])
    .default("plain")
    .describe(
      "New tokens: plain is 32 letters and digits, checked is PREFIX_ID_SECRET with a checksum. Default plain.",
    ),
  prefix: z
    .string()
    .regex(/^[a-z][a-z0-9]{1,9}$/, { error: "expected 2 to 10 of a-z and 0-9, a letter first" })
    .default("gate")
    .describe("First part of checked tokens. Default gate."),
  last_used_interval: duration("1s", "1d")
    .default("30s")
    .describe("How often the times of last use are written, 1s to 1d. Default 30s."),
};

/** Keys beside `use`. */
export const settingsSchema = z.strictObject(shape).superRefine((settings, issues) => {
  const say = (path: string, message: string): void => {
    issues.addIssue({ code: "custom", path: [path], message });
  };
  for (const key of ["salt", "previous_salt"] as const) {
    const problem = saltProblem(settings[key]);
    if (problem !== null) say(key, problem);
  }
  if (settings.salt.toLowerCase() === settings.previous_salt?.toLowerCase()) {
    say("previous_salt", "is the same as salt; leave it out");
  }
  const ways = [settings.url, settings.sentinel, settings.cluster].filter(
    (way) => way !== undefined,
  );
  if (ways.length !== 1) say("url", "expected exactly one of url, sentinel and cluster");
  const problem = settings.url === undefined ? null : addressProblem(settings.url);
  if (problem !== null) say("url", problem);
  if (settings.username !== undefined && settings.password === undefined) {
    say("username", "a user needs a password; add `password` as a reference");
  }
});

/** Parsed settings. */
export type Settings = z.infer<typeof settingsSchema>;

function saltProblem(salt: string | undefined): string | null {
  if (salt === undefined) return null;
  if (!SALT.test(salt)) return "expected 64 hex digits; make them with: openssl rand -hex 32";
  if (salt.toLowerCase() === PUBLIC_SALT) {
    return "this is the public default salt of rusty-valkey-forward-auth: whoever reads the hashes could guess tokens; use one of your own";
  }
  return null;
}

function addressProblem(text: string): string | null {
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
export function readAddress(text: string): Address {
  if (addressProblem(text) !== null) throw new TypeError("not an address of a Valkey");
  const url = new URL(text);
  return {
    host: unbracketed(url.hostname),
    port: url.port === "" ? DEFAULT_PORT : Number(url.port),
    database: Number(url.pathname.slice(1)),
    isTls: url.protocol === "rediss:" || url.protocol === "valkeys:",
  };
}

/** `host:port` or `[::1]:port`; `null` when it is neither. */
export function readNode(text: string): Node | null {
  const match = /^([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):(\d{1,5})$/.exec(text);
  const port = Number(match?.[2]);
  if (match?.[1] === undefined || port < 1 || port > 65_535) return null;
  return { host: unbracketed(match[1]), port };
}

function unbracketed(host: string): string {
  return host.replace(/^\[(.*)\]$/, "$1");
}

/** Where the server is, for people. */
export function placeOf(settings: Settings): string {
  if (settings.url !== undefined) {
    const { host, port } = readAddress(settings.url);
    return `${host.includes(":") ? `[${host}]` : host}:${port}`;
  }
  if (settings.sentinel !== undefined) {
    return `${settings.sentinel.name} behind ${settings.sentinel.nodes.join(", ")}`;
  }
  return `cluster ${settings.cluster?.nodes.join(", ")}`;
}
