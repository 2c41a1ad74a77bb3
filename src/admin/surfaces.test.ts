/** Which code a start loads. */
import { expect, test } from "bun:test";
import { join } from "node:path";

const ROOT = join(import.meta.dir, "..", "..");

/** Makes the surfaces of one route in a process of its own, and says whether the library is loaded afterwards. */
async function isLoadedBy(surface: string): Promise<string> {
  const script = `
    import { z } from "zod";
    import { makeBuiltInSurfaces } from "./src/admin/surfaces.ts";
    const tokens = {};
    const strategies = new Map([["team", { name: "team", instance: { authenticate() {}, tokens } }]]);
    const route = { index: 0, paths: ["/x/**"], methods: [], access: ["team"], surface: ${surface} };
    const config = { routes: [route], server: { publicUrls: [] } };
    await makeBuiltInSurfaces({ config, strategies, log: {}, clock: {} });
    // The library puts this method on every schema.
    console.log("openapi" in z.string());`;
  const child = Bun.spawn([process.execPath, "-e", script], { cwd: ROOT, stderr: "inherit" });
  return (await child.stdout.text()).trim();
}

test.each([
  ["null", "false"],
  ['{ strategy: "team", name: "health" }', "false"],
  ['{ strategy: "team", name: "tokens" }', "true"],
  ['{ strategy: "team", name: "docs" }', "true"],
])("a route with the surface %s loads the libraries of the token API: %s", async (surface, is) => {
  expect(await isLoadedBy(surface)).toBe(is);
});

/** Starts a gateway in a process of its own, and says whether the library of the metrics is loaded afterwards. */
async function isCountingWith(route: string): Promise<string> {
  const script = `
    import { makeBuiltInSurfaces } from "./src/admin/surfaces.ts";
    import { loadConfig } from "./src/config/load.ts";
    import { systemClock } from "./src/clock.ts";
    import { startGateway } from "./src/start.ts";
    const quiet = () => {};
    const log = { debug: quiet, info: quiet, warn: quiet, error: quiet };
    const text = 'version: 1\\nserver: { listen: "127.0.0.1:0" }\\nroutes: [{ ${route} }]';
    const loaded = { config: null, file: null, text, cwd: "/nonexistent", env: {}, log };
    const { config } = await loadConfig(loaded);
    const started = { ...loaded, config, clock: systemClock, version: "1.2.3" };
    const gateway = await startGateway({ ...started, builtInSurfaces: makeBuiltInSurfaces });
    console.log(Object.keys(require.cache).some((path) => path.includes("/@prometheus-io/client/")));
    await gateway.stop(0);`;
  const child = Bun.spawn([process.execPath, "-e", script], { cwd: ROOT, stderr: "inherit" });
  return (await child.stdout.text()).trim();
}

test.each([
  ["match: { path: /x }, access: public", "false"],
  ["match: { path: /x }, access: public, surface: metrics", "true"],
])("a gateway with the route %s loads the library of the metrics: %s", async (route, is) => {
  expect(await isCountingWith(route)).toBe(is);
});
