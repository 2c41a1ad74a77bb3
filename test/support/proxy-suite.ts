/**
 * A reverse proxy in front of an application, asking a gateway: whatever the proxy is, tests see the same parts.
 *
 * Invariant: the proxy runs what `gatehouse emit` printed; the gateway is the compiled executable; beside it another
 * one serves the same routes itself, to compare with.
 */
import { expect } from "bun:test";
import { binaryPath, runBinary } from "./binary.ts";
import { startEnvoy } from "./envoy.ts";
import { type GatewayUnderTest, startCompiled } from "./gateway.ts";
import { newKey } from "./nostr.ts";
import { type ProxySetup, startProxy } from "./proxies.ts";
import { openRaw, type RawAnswer, type RawUpstream, rawUpstream, type SeenRequest } from "./raw.ts";
import { startTraefik } from "./traefik.ts";

/** Everything that there is a snippet for. */
export type Front = "nginx" | "caddy" | "haproxy" | "traefik" | "envoy";

export const OPS = "ops-token-0123456789-abcdefghij";
export const BOSS = "boss-token-0123456789-abcdefghi";
export const NPUB = newKey();
export const bearer = (token: string) => `Authorization: Bearer ${token}\r\n`;

const CHECKS = `
  - { match: { path: /auth/traefik }, check: traefik }
  - { match: { path: /auth/nginx }, check: nginx }
  - { match: { path: /auth/caddy }, check: caddy }
  - { match: { path: /auth/envoy/** }, check: envoy }
  - { match: { path: /auth/generic }, check: generic }`;

/** The routes of both gateways; `upstream` is `proxy` or the name of one. */
function config(upstream: string, upstreams: string, checks: string): string {
  return `version: 1
server:
  listen: 127.0.0.1:0
  trusted_proxies: [127.0.0.1/32]
strategies:
  ops: { use: static-env, env: OPS }
  boss: { use: static-env, env: BOSS, role: admin, name: "Boss" }
  nostr: { use: nip98, admins: [${NPUB.npub}] }
  broken: { use: ./broken.ts }
${upstreams}
routes:${checks}
  - { match: { host: internal.example.com, path: /** }, access: [boss], upstream: ${upstream} }
  - { match: { path: /public/** }, access: public, upstream: ${upstream} }
  - { match: { path: /read, methods: [GET, HEAD] }, access: public, upstream: ${upstream} }
  - { match: { path: /admin/** }, access: [ops, boss], require: { role: admin }, upstream: ${upstream} }
  - { match: { path: /signed/** }, access: [nostr], upstream: ${upstream} }
  - { match: { path: /broken }, access: [broken], upstream: ${upstream} }
  - { match: { path: /both/** }, access: [ops, nostr], upstream: ${upstream} }
  - { match: { path: [/v1/**, /ws] }, access: [ops, boss], upstream: ${upstream} }
`;
}

const BROKEN = `import { definePlugin, z } from "gatehouse";
export default definePlugin({
  name: "broken",
  contract: 1,
  config: z.strictObject({}),
  init: () => ({ authenticate() { throw new Error("the store is away"); } }),
});
`;

/** The proxy's side and the gateway that serves by itself. */
export interface Chain {
  readonly front: Front;
  /** Where clients go. */
  readonly address: string;
  /** Behind the proxy. */
  readonly upstream: RawUpstream;
  readonly gateway: GatewayUnderTest;
  /** What the proxy complained about. */
  log(): string;
  stop(): Promise<void>;
}

/** A gateway that forwards by itself, with the same routes. */
export interface Direct {
  readonly address: string;
  readonly upstream: RawUpstream;
  stop(): Promise<void>;
}

const ENV = { OPS, BOSS };
const FILES = { "broken.ts": BROKEN };

/** Starts a gateway that is asked. */
export function startAsked(): Promise<GatewayUnderTest> {
  return startCompiled({ config: config("proxy", "", CHECKS), env: ENV, files: FILES });
}

export async function startDirect(): Promise<Direct> {
  const upstream = rawUpstream();
  const upstreams = `upstreams: { api: { url: "http://${upstream.address}", host: preserve } }`;
  const text = config("api", upstreams, "");
  const gateway = await startCompiled({ config: text, env: ENV, files: FILES });
  return {
    address: gateway.address,
    upstream,
    async stop() {
      await gateway.stop();
      upstream.stop();
    },
  };
}

/** What `gatehouse emit` prints, by the executable. */
export async function emitted(configFile: string, ...args: readonly string[]): Promise<string> {
  await binaryPath();
  const { code, stdout, stderr } = await runBinary(["emit", ...args, "-c", configFile]);
  if (code !== 0) throw new Error(`emit ${args.join(" ")} ended with ${code}\n${stderr}`);
  return stdout;
}

/** Where a chain leads, when not to its own gateway and upstream. */
export interface Ends {
  /** URL of the gateway. */
  readonly askAt?: string;
  /** `HOST:PORT` of the application. */
  readonly application?: string;
}

/** @param gateway that is asked; the chain does not stop it */
export async function startChain(
  front: Front,
  gateway: GatewayUnderTest,
  { askAt = gateway.url, application }: Ends = {},
): Promise<Chain> {
  const upstream = rawUpstream();
  const to = `http://${application ?? upstream.address}`;
  const addresses = ["--gateway", askAt, "--upstream", to];
  const text = await emitted(gateway.configFile, front, ...addresses);
  const proxy = await startFront(front, {
    text,
    ...(front === "haproxy"
      ? { lua: await emitted(gateway.configFile, front, "--lua", ...addresses) }
      : {}),
  });
  return {
    front,
    address: proxy.address,
    upstream,
    gateway,
    log: () => proxy.log(),
    async stop() {
      await proxy.stop();
      upstream.stop();
    },
  };
}

function startFront(
  front: Front,
  setup: ProxySetup,
): Promise<{ address: string; log(): string; stop(): Promise<void> }> {
  if (front === "traefik") return startTraefik(setup.text);
  if (front === "envoy") return startEnvoy(setup.text);
  return startProxy(front, setup);
}

/** A request as a client writes it. */
export interface Asked {
  readonly method?: string;
  readonly host?: string;
  readonly target: string;
  /** Header lines, each with CRLF. */
  readonly lines?: string;
  /** Default: `close`, so that the answer has an end. */
  readonly connection?: string;
  readonly body?: string;
}

/** Sends it on a connection of its own, which is closed on this side as well: there are thousands. */
export async function send(address: string, asked: Asked): Promise<RawAnswer> {
  const { method = "GET", host = "app.example.com", target, lines = "", body = "" } = asked;
  const { connection = "close" } = asked;
  const wire = await openRaw(address);
  wire.send(
    `${method} ${target} HTTP/1.1\r\nHost: ${host}\r\n${lines}Connection: ${connection}\r\n\r\n${body}`,
  );
  const answer = await wire.read();
  wire.kill();
  return answer;
}

/** Every value of a header of an answer, in order. */
export function headers(answer: RawAnswer, name: string): string[] {
  const head = answer.text.split("\r\n\r\n")[0] ?? "";
  return [...head.matchAll(new RegExp(`^${name}: ?(.*?)\r?$`, "gim"))].map(
    (match) => match[1] ?? "",
  );
}

/** What went through, and the status that the client saw. */
export interface Outcome {
  readonly status: number | undefined;
  readonly answer: RawAnswer;
  readonly seen: readonly SeenRequest[];
}

/** Sends it through the proxy, or to the gateway that forwards itself. */
export async function through(
  { address, upstream }: Pick<Chain, "address" | "upstream">,
  asked: Asked,
): Promise<Outcome> {
  upstream.seen.length = 0;
  const answer = await send(address, asked);
  return { status: answer.statuses[0], answer, seen: [...upstream.seen] };
}

/**
 * The one thing that counts: what reached the application is what the gateway would have forwarded itself. It is asked
 * again in the bytes that went on, because proxies rewrite some (Caddy makes `%23` of `#`) and ask about those.
 * @returns the target that reached the application, `null` when nothing did
 */
export async function expectNoMore(
  chain: Chain,
  direct: Direct,
  asked: Asked,
): Promise<string | null> {
  const { seen } = await through(chain, asked);
  if (seen.length === 0) return null;
  const [method = "", target = ""] = (seen[0]?.line ?? "").split(" ");
  const host = seen[0]?.fields.find(([name]) => name === "host")?.[1] ?? "";
  const itself = await through(direct, { ...asked, method, target, host });
  const forwarded = [seen.length, itself.seen.length];
  expect({ asked, method, target, host, forwarded }).toEqual({
    asked,
    method,
    target,
    host,
    forwarded: [1, 1],
  });
  return target;
}
