/**
 * Real reverse proxies for tests: nginx, Caddy and HAProxy as the system has them, started from the text that an
 * operator would paste, each on a free port with files in a directory of its own.
 *
 * Invariant: only addresses are replaced in that text. What was started is ended by its process id, and nothing is
 * installed here.
 */
import { mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Programs that tests can start. */
export type ProxyName = "nginx" | "caddy" | "haproxy";

const PATH = `${process.env.PATH ?? ""}:/usr/sbin:/usr/local/sbin:/usr/local/bin:/opt/homebrew/bin`;
const START_MS = 10_000;
/** Somebody else may take a free port before the proxy does. */
const TRIES = 3;

/** Where the program is, or `null`. */
export function proxyProgram(name: ProxyName): string | null {
  return Bun.which(name, { PATH });
}

/** What to install, for the titles of tests that are skipped; `null` when the program is there. */
export function proxyMissing(name: ProxyName): string | null {
  if (proxyProgram(name) !== null) return null;
  const text = `no ${name}: run apt-get install ${name === "nginx" ? "nginx-light" : name}`;
  console.warn(`tests with ${name} are skipped: ${text}`);
  return text;
}

/** A proxy that accepts connections. */
export interface TestProxy {
  /** `127.0.0.1:PORT` */
  readonly address: string;
  /** What it wrote to its error log and to standard error. */
  log(): string;
  /** Idempotent. */
  stop(): Promise<void>;
}

/** Texts and what they become. Each must be there. */
export type Replacements = readonly (readonly [string, string])[];

export interface ProxySetup {
  /** The snippet. */
  readonly text: string;
  /** Besides what the program listens on. */
  readonly replace?: Replacements;
  /** HAProxy: the Lua file. */
  readonly lua?: string;
}

const running = new Set<TestProxy>();

/**
 * Ends what a failed test left behind: every test file that starts a proxy says `afterAll(stopProxies)`. A hook in
 * this module would run after the first of these files only, because they share it.
 */
export async function stopProxies(): Promise<void> {
  for (const proxy of [...running]) await proxy.stop();
}

/** Starts a proxy. Rejects with its own words when it does not come up. */
export async function startProxy(name: ProxyName, setup: ProxySetup): Promise<TestProxy> {
  for (let tries = 1; ; tries++) {
    try {
      return await startOnce(name, setup);
    } catch (error) {
      const isTaken = error instanceof Error && /address (?:already )?in use/i.test(error.message);
      if (!isTaken || tries === TRIES) throw error;
    }
  }
}

async function startOnce(name: ProxyName, setup: ProxySetup): Promise<TestProxy> {
  const program = proxyProgram(name);
  if (program === null) throw new Error(proxyMissing(name) ?? "");
  const directory = realpathSync(mkdtempSync(join(tmpdir(), `gatehouse-${name}-`)));
  const port = await freePort();
  const { args, errorLog } = LAYOUTS[name](directory, port, setup);
  const child = Bun.spawn([program, ...args], {
    cwd: directory,
    // Caddy keeps its certificates and its last configuration below these.
    env: { PATH, HOME: directory, XDG_DATA_HOME: directory, XDG_CONFIG_HOME: directory },
    stdin: "ignore",
    stdout: "ignore",
    stderr: "pipe",
  });
  let said = "";
  const reading = collect(child.stderr, (text) => {
    said += text;
  });
  const log = () => said + (errorLog === null ? "" : readIfThere(errorLog));
  let stopping: Promise<void> | null = null;
  const proxy: TestProxy = {
    address: `127.0.0.1:${port}`,
    log,
    stop() {
      stopping ??= (async () => {
        child.kill("SIGKILL");
        await child.exited;
        await reading;
        running.delete(proxy);
        rmSync(directory, { recursive: true, force: true });
      })();
      return stopping;
    },
  };
  running.add(proxy);
  const deadline = performance.now() + START_MS;
  while (!(await accepts(port))) {
    if (child.exitCode !== null || performance.now() > deadline) {
      const words = log();
      await proxy.stop();
      throw new Error(`${name} did not start (exit code ${child.exitCode})\n${words}`);
    }
    await Bun.sleep(5);
  }
  return proxy;
}

interface Layout {
  readonly args: readonly string[];
  /** A file that it writes its complaints to; `null`: standard error. */
  readonly errorLog: string | null;
}

type LayOut = (directory: string, port: number, setup: ProxySetup) => Layout;

const LAYOUTS: Readonly<Record<ProxyName, LayOut>> = {
  nginx: layNginx,
  caddy: layCaddy,
  haproxy: layHaproxy,
};

/** The snippet is a file of the http level, as in /etc/nginx/conf.d. */
function layNginx(directory: string, port: number, { text, replace = [] }: ProxySetup): Layout {
  const at = (name: string) => join(directory, name);
  const listen = [["listen 80;", `listen 127.0.0.1:${port};`]] as const;
  writeFileSync(at("app.conf"), replaced(text, [...listen, ...replace]));
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
    .map((name) => `  ${name}_temp_path ${at(name)};\n`)
    .join("");
  writeFileSync(
    at("nginx.conf"),
    `daemon off;
master_process off;
pid ${at("pid")};
error_log ${at("error.log")} warn;
events { worker_connections 256; }
http {
  access_log off;
${temporary}  include ${at("app.conf")};
}
`,
  );
  // Named twice, because the program complains to its built-in log before it has read where the log is.
  const args = ["-p", directory, "-e", at("error.log"), "-c", at("nginx.conf")];
  return { args, errorLog: at("error.log") };
}

/** The snippet is a site; it is served over plain HTTP, whatever host is asked for. */
function layCaddy(directory: string, port: number, { text, replace = [] }: ProxySetup): Layout {
  const file = join(directory, "Caddyfile");
  const site = [["app.example.com {", `http://:${port} {\n\tbind 127.0.0.1`]] as const;
  const options = "{\n\tadmin off\n\tauto_https off\n}\n\n";
  writeFileSync(file, options + replaced(text, [...site, ...replace]));
  return { args: ["run", "--adapter", "caddyfile", "--config", file], errorLog: null };
}

function layHaproxy(directory: string, port: number, setup: ProxySetup): Layout {
  const { text, replace = [], lua = "" } = setup;
  const script = join(directory, "gatehouse.lua");
  const file = join(directory, "haproxy.cfg");
  writeFileSync(script, lua);
  const own = [
    ["bind :80 ", `bind 127.0.0.1:${port} `],
    ["lua-load /etc/haproxy/gatehouse.lua", `lua-load ${script}`],
  ] as const;
  writeFileSync(file, replaced(text, [...own, ...replace]));
  return { args: ["-db", "-f", file], errorLog: null };
}

function replaced(text: string, pairs: Replacements): string {
  return pairs.reduce((all, [from, to]) => {
    if (!all.includes(from)) throw new Error(`the text has no ${JSON.stringify(from)}`);
    return all.replaceAll(from, to);
  }, text);
}

function readIfThere(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return "";
  }
}

async function collect(
  stream: ReadableStream<Uint8Array>,
  take: (text: string) => void,
): Promise<void> {
  const decoder = new TextDecoder();
  for await (const chunk of stream) take(decoder.decode(chunk, { stream: true }));
}

/** A port of 127.0.0.1 that nobody listens on at this moment. */
export function freePort(): Promise<number> {
  const { promise, resolve } = Promise.withResolvers<number>();
  const server = createServer();
  server.listen(0, "127.0.0.1", () => {
    const address = server.address();
    const port = typeof address === "object" && address !== null ? address.port : 0;
    server.close(() => resolve(port));
  });
  return promise;
}

function accepts(port: number): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const socket = connect(port, "127.0.0.1");
  socket.on("connect", () => {
    socket.destroy();
    resolve(true);
  });
  socket.on("error", () => resolve(false));
  return promise;
}
