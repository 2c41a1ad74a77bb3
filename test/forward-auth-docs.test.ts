/**
 * docs/forward-auth.md and the README as a reader would use them: their configs, their commands, and the blocks that
 * they tell him to paste, run with real proxies.
 *
 * Invariant: the texts are taken out of the documents; only addresses are replaced.
 */
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parse } from "yaml";
import { type Running, runBinary, startBinary } from "./support/binary.ts";
import { scratch } from "./support/gateway.ts";
import { type ProxyName, proxyMissing, startProxy, stopProxies } from "./support/proxies.ts";
import { emitted, send } from "./support/proxy-suite.ts";
import { type RawUpstream, rawUpstream, valuesOf } from "./support/raw.ts";
import { startTraefik, traefikMiddlewares } from "./support/traefik.ts";

const ROOT = join(import.meta.dir, "..");
const text = (name: string): string => readFileSync(join(ROOT, name), "utf8");
const DOCS = text("docs/forward-auth.md");

/** The first fenced block of a language that has a text in it. */
function block(document: string, language: string, holds = ""): string {
  const blocks = [...document.matchAll(/^```(\w+)\n(.*?)^```$/gms)];
  const found = blocks.find((one) => one[1] === language && one[2]?.includes(holds))?.[2];
  if (found === undefined) throw new Error(`no ${language} block with ${holds}`);
  return found;
}

const CONFIG = block(DOCS, "yaml", "version: 1");
const BLOCKS = {
  nginx: block(DOCS, "nginx"),
  caddy: block(DOCS, "caddyfile"),
  traefik: block(DOCS, "yaml", "authResponseHeadersRegex"),
};

/** Writes a config of the documents with a free port, and starts it. */
async function serve(
  directory: string,
  config: string,
): Promise<{ running: Running; file: string; token: string }> {
  const file = join(directory, "gatehouse.yaml");
  writeFileSync(file, config.replace("127.0.0.1:8008", "127.0.0.1:0"), { mode: 0o600 });
  const running = await startBinary(["serve", "-c", file]);
  const made = await runBinary(["token", "create", "--name", "alice", "-c", file]);
  expect([made.code, made.stderr]).toEqual([0, expect.any(String)]);
  return { running, file, token: made.stdout.trim() };
}

/** What the documents promise about their config. */
async function behaves(address: string, upstream: RawUpstream, token: string): Promise<void> {
  const lines = `Authorization: Bearer ${token}\r\n`;
  const statuses = async (target: string, more = ""): Promise<[number | undefined, number]> => {
    upstream.seen.length = 0;
    const { statuses } = await send(address, { target, lines: more });
    return [statuses[0], upstream.seen.length];
  };
  expect(await statuses("/")).toEqual([401, 0]);
  expect(await statuses("/health")).toEqual([200, 1]);
  expect(await statuses("/", lines)).toEqual([200, 1]);
  expect(valuesOf(upstream.seen[0], "x-gatehouse-name")).toEqual(["alice"]);
  expect(valuesOf(upstream.seen[0], "authorization")).toEqual([]);
  expect(await statuses("/", "X-Gatehouse-Identity: root\r\n")).toEqual([401, 0]);
}

afterAll(stopProxies);

describe("docs/forward-auth.md", () => {
  const directory = scratch();
  let served: Awaited<ReturnType<typeof serve>>;
  let upstream: RawUpstream;

  beforeAll(async () => {
    served = await serve(directory, CONFIG);
    upstream = rawUpstream();
  });
  afterAll(async () => {
    await served.running.stop();
    upstream.stop();
  });

  const addresses = () =>
    [
      ["127.0.0.1:8008", served.running.address],
      ["127.0.0.1:9000", upstream.address],
    ] as const;

  test("shows what emit prints, for nginx, Caddy and Traefik with its labels", async () => {
    const file = join(scratch(), "gatehouse.yaml");
    writeFileSync(file, CONFIG, { mode: 0o600 });
    for (const [name, shown] of Object.entries(BLOCKS)) {
      expect(await emitted(file, name)).toBe(shown);
    }
    expect(block(DOCS, "yaml", "traefik.http.middlewares")).toContain(
      await emitted(file, "traefik", "--labels"),
    );
  });

  for (const name of ["nginx", "caddy"] as const satisfies readonly ProxyName[]) {
    const absent = proxyMissing(name);
    test.skipIf(absent !== null)(
      `its ${name} block works as pasted (${absent ?? "real"})`,
      async () => {
        const proxy = await startProxy(name, { text: BLOCKS[name], replace: addresses() });
        await behaves(proxy.address, upstream, served.token);
        const lines = `Authorization: Bearer ${served.token}\r\n`;
        const admin = await send(proxy.address, { target: "/admin/x", lines });
        expect(admin.statuses[0]).toBe(403);
        await proxy.stop();
      },
    );
  }

  test("its Traefik block works as Traefik's documentation says", async () => {
    const replaced = addresses().reduce(
      (all, [from, to]) => all.replaceAll(from, to),
      BLOCKS.traefik,
    );
    const proxy = await startTraefik(replaced);
    await behaves(proxy.address, upstream, served.token);
    await proxy.stop();
  });

  test("its labels are the middlewares of its file", () => {
    const labels = parse(block(DOCS, "yaml", "traefik.http.middlewares")) as { labels: string[] };
    const found: Record<string, unknown> = {};
    for (const label of labels.labels) {
      const [key = "", value = ""] = label.replaceAll("$$", "$").split(/=(.*)/s);
      if (key.startsWith("traefik.http.middlewares.")) found[key] = value;
    }
    const wanted: Record<string, unknown> = {};
    const flatten = (value: unknown, key: string): void => {
      if (typeof value !== "object" || value === null) wanted[key] = String(value);
      else if (Array.isArray(value)) wanted[key] = value.join(",");
      else for (const [name, part] of Object.entries(value)) flatten(part, `${key}.${name}`);
    };
    flatten(traefikMiddlewares(BLOCKS.traefik), "traefik.http.middlewares");
    expect(found).toEqual(wanted);
  });
});

describe("the README", () => {
  const directory = scratch();
  const readme = text("README.md");
  let served: Awaited<ReturnType<typeof serve>>;

  beforeAll(async () => {
    served = await serve(directory, block(readme, "yaml", "check: nginx"));
  });
  afterAll(async () => void (await served.running.stop()));

  for (const name of ["nginx", "caddy", "traefik"] as const) {
    const absent = name === "traefik" ? null : proxyMissing(name);
    const how = name === "traefik" ? "by its documentation" : (absent ?? "real");
    test.skipIf(absent !== null)(`its ${name} set-up works as pasted (${how})`, async () => {
      const { running, file, token } = served;
      const upstream = rawUpstream();
      onTestFinished(() => upstream.stop());
      const shell = block(readme, "sh", `emit ${name}`);
      const to = /^TO=(\S+)/m.exec(shell)?.[1] ?? "";
      const line = new RegExp(`^gatehouse (emit ${name} .*?) >`, "m").exec(shell)?.[1] ?? "";
      const [, ...args] = line.replace("$TO", to).split(" ");
      expect(args).toContain("http://127.0.0.1:9000");
      const snippet = await emitted(file, ...args, "--gateway", running.url);
      const replaced = snippet.replaceAll("127.0.0.1:9000", upstream.address);
      const proxy =
        name === "traefik"
          ? await startTraefik(replaced)
          : await startProxy(name, { text: replaced });
      await behaves(proxy.address, upstream, token);
      await proxy.stop();
    });
  }
});
