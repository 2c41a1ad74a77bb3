/**
 * A real Valkey for tests (or Redis, where the system has no Valkey): on a free port, in a directory of its own,
 * without persistence.
 *
 * Invariant: it is ended by its process id, at the latest when the test file is over, and its directory is removed.
 * Nothing is installed here.
 */
import { afterAll } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Redis } from "iovalkey";
import type { Outcome } from "../../src/contract/outcome.ts";
import type { Plugin, StrategyInstance } from "../../src/contract/plugin.ts";
import type { TokenStore } from "../../src/contract/tokens.ts";
import { type TestHost, testHost } from "./host.ts";
import { authRequest } from "./request.ts";

const PATH = `${process.env.PATH ?? ""}:/usr/sbin:/usr/local/sbin:/usr/local/bin:/opt/homebrew/bin`;
const PATIENCE_MS = 10_000;

/** The installed server, or `null`. */
export const valkeyProgram: string | null =
  Bun.which("valkey-server", { PATH }) ?? Bun.which("redis-server", { PATH });

/** Tests that need it are skipped with this text in their title; `null` when it is there. */
export const valkeyMissing: string | null =
  valkeyProgram === null
    ? "no valkey-server: run apt-get install valkey-server (Debian 12: from bookworm-backports), or apt-get install redis-server"
    : null;
if (valkeyMissing !== null) console.warn(`tests with a Valkey are skipped: ${valkeyMissing}`);

/** A server that accepts connections. */
export interface TestValkey {
  readonly port: number;
  /** `redis://127.0.0.1:PORT` */
  readonly url: string;
  /** A client of its own, as another program would have one. */
  client(password?: string): Redis;
  /** SIGKILL; gone when the promise resolves, and already dying when the call returns. */
  kill(): Promise<void>;
  /** Starts again on the same port, empty. */
  restart(): Promise<void>;
  /** SIGSTOP and SIGCONT: it accepts connections and says nothing. */
  pause(): void;
  resume(): void;
  /** Ends it and every client. Idempotent. */
  stop(): Promise<void>;
}

/** 32 bytes that tests use as salt. */
export const TEST_SALT = "5a".repeat(32);

/** A strategy on a server, with what a test asks of it. */
export interface Started {
  readonly instance: StrategyInstance;
  readonly tokens: Required<TokenStore>;
  readonly context: TestHost;
  /** With `Authorization: Bearer TOKEN`. */
  ask(token: string): Outcome | Promise<Outcome>;
  /** The outcome's name, the reason of a reject, or `fault`. */
  answer(token: string): Promise<string>;
}

/** Starts `plugin` on `url` with TEST_SALT and `config`, with a host of its own. */
export async function startOn(
  plugin: Plugin,
  url: string,
  config: Readonly<Record<string, unknown>> = {},
): Promise<Started> {
  const context = testHost({ strategy: "keys" });
  started.push(context);
  const settings = plugin.config.parse({ url, salt: TEST_SALT, ...config });
  const instance = await plugin.init(settings, context.host);
  instances.push(instance);
  const ask = (token: string) =>
    instance.authenticate(authRequest({ headers: { authorization: `Bearer ${token}` } }));
  return {
    instance,
    context,
    tokens: instance.tokens as Required<TokenStore>,
    ask,
    async answer(token) {
      try {
        const outcome = await ask(token);
        return outcome.outcome === "reject" ? outcome.reason : outcome.outcome;
      } catch {
        return "fault";
      }
    },
  };
}

/** Ends what `startOn` began. For `afterEach`. */
export async function endStrategies(): Promise<void> {
  for (const instance of instances.splice(0)) await instance.close?.();
  for (const context of started.splice(0)) context.dispose();
}

/** Waits until `isSo`, at most `patienceMs`. Gives how long it took. */
export async function until(
  isSo: () => boolean | Promise<boolean>,
  patienceMs = PATIENCE_MS,
): Promise<number> {
  const startMs = performance.now();
  while (!(await isSo())) {
    if (performance.now() - startMs > patienceMs) throw new Error("it did not come about");
    await Bun.sleep(5);
  }
  return performance.now() - startMs;
}

const instances: StrategyInstance[] = [];
const started: TestHost[] = [];
const running = new Set<TestValkey>();

afterAll(async () => {
  for (const server of [...running]) await server.stop();
});

/** Starts one. `options` are arguments such as `--requirepass`, `secret`; a sentinel needs a `file` of its own. */
export async function startValkey(
  options: readonly string[] = [],
  file?: string,
): Promise<TestValkey> {
  if (valkeyProgram === null) throw new Error(valkeyMissing ?? "");
  const program = valkeyProgram;
  const directory = mkdtempSync(join(tmpdir(), "gatehouse-valkey-"));
  const port = await freePort();
  const clients: Redis[] = [];
  const fixed = ["--port", String(port), "--bind", "127.0.0.1", "--dir", directory];
  const kept = file === undefined ? ["--save", "", "--appendonly", "no"] : [];
  const begin = () =>
    Bun.spawn([program, ...(file === undefined ? [] : [file]), ...fixed, ...kept, ...options], {
      stdio: ["ignore", "ignore", "ignore"],
    });
  let child = begin();
  await answers(port);
  const kill = async (): Promise<void> => {
    child.kill("SIGKILL");
    await child.exited;
  };
  const server: TestValkey = {
    port,
    url: `redis://127.0.0.1:${port}`,
    client(password) {
      const secret = password === undefined ? {} : { password };
      const client = new Redis({ ...secret, port, host: "127.0.0.1", retryStrategy: () => 20 });
      client.on("error", () => {});
      clients.push(client);
      return client;
    },
    kill,
    async restart() {
      await kill();
      child = begin();
      await answers(port);
    },
    pause: () => child.kill("SIGSTOP"),
    resume: () => child.kill("SIGCONT"),
    async stop() {
      for (const client of clients) client.disconnect();
      await kill();
      rmSync(directory, { recursive: true, force: true });
      running.delete(server);
    },
  };
  running.add(server);
  return server;
}

const given = new Set<number>();

/** A port of 127.0.0.1 that nobody listens on at this moment, low enough for a cluster's second port. */
export async function freePort(): Promise<number> {
  for (;;) {
    const server = createServer();
    const { promise, resolve } = Promise.withResolvers<number>();
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      resolve(typeof address === "object" && address !== null ? address.port : 0);
    });
    const port = await promise;
    server.close();
    // The system may give the same one again before anybody has listened on it.
    if (port < 55_000 && !given.has(port)) {
      given.add(port);
      return port;
    }
  }
}

/** Resolves when the server has answered a PING, whatever the answer is. */
async function answers(port: number): Promise<void> {
  const endMs = performance.now() + PATIENCE_MS;
  while (performance.now() < endMs) {
    if (await answersNow(port)) return;
    await Bun.sleep(5);
  }
  throw new Error(`no Valkey answers on port ${port}`);
}

function answersNow(port: number): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const socket = connect(port, "127.0.0.1", () => void socket.write("PING\r\n"));
  socket.setTimeout(500, () => socket.destroy());
  socket.on("data", () => {
    resolve(true);
    socket.destroy();
  });
  socket.on("error", () => resolve(false));
  socket.on("close", () => resolve(false));
  return promise;
}
