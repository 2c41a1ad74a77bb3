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
