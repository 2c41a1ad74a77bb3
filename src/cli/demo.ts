/**
 * `gatehouse demo`: the real gateway with its default strategy in front of a small built-in upstream.
 *
 * Invariant: loopback only, and nothing outlives it: the state directory is temporary, readable by its owner
 * alone, and removed at the end.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { systemClock } from "../clock.ts";
import { loadConfig } from "../config/load.ts";
import type { Log, LogFields } from "../contract/host.ts";
import { EXIT, type ExitCode, errorCode, OperatorError } from "../errors.ts";
import { pluginLoader } from "../loader.ts";
import { startGateway } from "../start.ts";
import type { CliContext, CommonOptions } from "./context.ts";
import { type DemoUpstream, startDemoUpstream } from "./demo-upstream.ts";

const DEFAULT_PORT = 8008;
const STRATEGY = "demo";

/** Ctrl-C in a demo should not wait for somebody's open stream. */
const STOP_MS = 500;

/** Options of `gatehouse demo`. */
export interface DemoOptions extends CommonOptions {
  /** `--port N`; 0 takes a free one. Default 8008, or a free one when that is taken. */
  readonly port?: number;
}

/** Runs until the context asks it to stop. With `--json` it prints one object instead of the explanation. */
export async function demo(context: CliContext, options: DemoOptions): Promise<ExitCode> {
  const stateDir = await mkdtemp(join(tmpdir(), "gatehouse-demo-"));
  try {
    const upstream = startDemoUpstream();
    try {
      await runGateway(context, options, { stateDir, upstream });
    } finally {
      await upstream.stop();
    }
  } finally {
    await rm(stateDir, { recursive: true, force: true });
  }
  return EXIT.ok;
}

interface Surroundings {
  readonly stateDir: string;
  readonly upstream: DemoUpstream;
}

async function runGateway(
  context: CliContext,
  options: DemoOptions,
  { stateDir, upstream }: Surroundings,
): Promise<void> {
  const { stop } = context;
  const loadPlugin = pluginLoader(context.plugins);
  // Without the caller's variables: a GATEHOUSE_… of theirs is for their own gateway.
  const env = {};
  const text = configText(choosePort(context, options.port), stateDir, upstream.url);
  const { config, issues } = await loadConfig({
    file: null,
    text,
    env,
    cwd: stateDir,
    loadPlugin,
  });
  if (config === null) throw new TypeError(`demo: ${issues[0]?.path} ${issues[0]?.message}`);
  const log = errorLog(context);
  const { version } = context;
  const clock = systemClock;
  const gateway = await startGateway({ config, loadPlugin, env, log, clock, version });
  try {
    const tokens = gateway.strategies.byName.get(STRATEGY)?.instance.tokens;
    const address = gateway.addresses[0];
    if (tokens === undefined || address === undefined) throw new TypeError("demo is incomplete");
    const { token } = await tokens.create({ name: "demo", createdBy: "demo" });
    const facts = { address: `http://${address}`, token, upstream: upstream.url };
    context.out(options.json === true ? `${JSON.stringify(facts)}\n` : explanation(facts));
    await aborted(stop);
  } finally {
    await gateway.stop(STOP_MS);
  }
}

/** The port to use: an occupied default gives way to a free one, an occupied choice is an error. */
function choosePort(context: CliContext, chosen: number | undefined): number {
  const port = chosen ?? DEFAULT_PORT;
  if (port === 0 || isFree(port)) return port;
  if (chosen !== undefined) {
    throw new OperatorError(
      EXIT.unavailable,
      `port ${port} is taken`,
      "choose another, or leave out --port to get a free one",
    );
  }
  context.err(`port ${port} is taken, using a free one\n`);
  return 0;
}

function isFree(port: number): boolean {
  try {
    Bun.listen({ hostname: "127.0.0.1", port, socket: { data() {} } }).stop(true);
    return true;
  } catch (error) {
    if (errorCode(error) === "EADDRINUSE") return false;
    throw error;
  }
}

/** JSON strings are YAML strings, so no path can break out of its place. */
function configText(port: number, stateDir: string, upstreamUrl: string): string {
  return `version: 1
server: { listen: "127.0.0.1:${port}" }
state_dir: ${JSON.stringify(stateDir)}
strategies:
  ${STRATEGY}: { use: bearer-sqlite }
upstreams:
  builtin: { url: ${JSON.stringify(upstreamUrl)} }
logging: { level: warn, access: false }
routes:
  - match: { path: /health, methods: [GET, HEAD] }
    access: public
    upstream: builtin
  - match: { path: /** }
    access: [${STRATEGY}]
    upstream: builtin
`;
}

interface Facts {
  readonly address: string;
  readonly token: string;
  readonly upstream: string;
}

function explanation({ address, token, upstream }: Facts): string {
  const bearer = `-H 'Authorization: Bearer ${token}'`;
  const chat = JSON.stringify({
    model: "demo",
    stream: true,
    messages: [{ role: "user", content: "hello" }],
  });
  return `Gatehouse demo

  gateway   ${address}
  upstream  ${upstream} (built in)
  token     ${token}

Try it in another terminal. Without the token it is 401:

  curl -i ${address}/echo

With it, see what the upstream gets (not the token):

  curl ${bearer} ${address}/echo

A streamed chat answer:

  curl -N ${bearer} -H 'Content-Type: application/json' -d '${chat}' ${address}/v1/chat/completions

Ctrl-C ends the demo and removes everything it made.
`;
}

/** Only what went wrong, on standard error: the explanation must stay readable. */
function errorLog(context: CliContext): Log {
  const line = (event: string, fields?: LogFields) =>
    context.err(`${event}${fields === undefined ? "" : ` ${JSON.stringify(fields)}`}\n`);
  return { debug() {}, info() {}, warn: line, error: line };
}

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) =>
    signal.addEventListener("abort", () => resolve(), { once: true }),
  );
}
