/** static-site: what it serves and what never leaves its directory; as a strategy it knows nobody. */
import { beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { StrategyInstance, Surface, SurfaceCaller } from "../../src/contract/plugin.ts";
import { instanceProblems, pluginProblems } from "../../src/plugin-shape.ts";
import { testHost } from "../../test/support/host.ts";
import { authRequest } from "../../test/support/request.ts";
import plugin from "./index.ts";

const { host, directory } = testHost();
const CALLER: SurfaceCaller = {
  identity: null,
  refusal: null,
  strategy: null,
  clientAddress: "192.0.2.1",
  requestId: "r",
  upstream: null,
};

async function start(settings: Record<string, unknown>): Promise<StrategyInstance> {
  return plugin.init(plugin.config.parse(settings), host);
}

async function ask(instance: StrategyInstance, path: string, surface = "files", method = "GET") {
  const one = instance.surfaces?.find(({ name }) => name === surface) as Surface;
  const response = await one.handle(new Request(`http://surface${path}`, { method }), CALLER);
  return {
    status: response.status,
    type: response.headers.get("content-type"),
    text: await response.text(),
    headers: response.headers,
  };
}

beforeAll(() => {
  const site = join(directory, "site");
  mkdirSync(join(site, "assets"), { recursive: true });
  writeFileSync(join(site, "index.html"), "<h1>start</h1>");
  writeFileSync(join(site, "assets", "a b.js"), "go()");
  writeFileSync(join(site, ".env"), "SECRET=1");
  writeFileSync(join(directory, "outside.txt"), "outside");
  mkdirSync(join(directory, "site-two"));
  writeFileSync(join(directory, "site-two", "x.txt"), "sibling");
  symlinkSync("../outside.txt", join(site, "link.txt"));
  symlinkSync("../site-two", join(site, "two"));
  symlinkSync("index.html", join(site, "home.html"));
  writeFileSync(join(site, "huge.bin"), "");
  truncateSync(join(site, "huge.bin"), 16_777_217);
});

describe("static-site", () => {
  test("has the shape of a plugin and accepts nobody", async () => {
    expect(pluginProblems(plugin)).toEqual([]);
    const instance = await start({ dir: "site" });
    expect(instanceProblems(instance)).toEqual([]);
    const headers = { authorization: "Bearer abcdefghijklmnop", "x-api-key": "abcdefghijklmnop" };
    for (const description of [{}, { headers }]) {
      expect(await instance.authenticate(authRequest(description))).toEqual({ outcome: "absent" });
    }
  });

  test("serves files with their type, a directory by its index.html", async () => {
    const instance = await start({ dir: "site" });
    expect(await ask(instance, "/")).toMatchObject({
      status: 200,
      text: "<h1>start</h1>",
      type: "text/html;charset=utf-8",
    });
    const script = await ask(instance, "/assets/a%20b.js");
    expect([script.status, script.text]).toEqual([200, "go()"]);
    expect(script.type).toStartWith("text/javascript");
    expect(script.headers.get("x-content-type-options")).toBe("nosniff");
    expect((await ask(instance, "/home.html")).text).toBe("<h1>start</h1>");
  });

  test.each([
    "/nothing.html",
    "/assets",
    "/assets/",
    "/.env",
    "/%2eenv",
    "/..%2foutside.txt",
    "/%2e%2e/outside.txt",
    "/assets/..%2f..%2foutside.txt",
    "/link.txt",
    "/two/x.txt",
    "/..%5coutside.txt",
    "/a%00.html",
    "/%zz",
    "/%ff",
    "//index.html",
    "/assets//a%20b.js",
    `/${"a".repeat(300)}`,
    "/index.html/",
    "/index.html/x",
    "/huge.bin",
  ])("%s is 404", async (path) => {
    const instance = await start({ dir: "site" });
    const { status, text } = await ask(instance, path);
    expect([path, status, text]).toEqual([path, 404, "not found\n"]);
  });

  test("a page that routes by itself gets index.html, with status 404", async () => {
    const instance = await start({ dir: "site", not_found: "page" });
    expect(await ask(instance, "/tokens/1")).toMatchObject({ status: 404, text: "<h1>start</h1>" });
    expect(await ask(instance, "/..%2foutside.txt")).toMatchObject({
      status: 404,
      text: "<h1>start</h1>",
    });
  });

  test("a directory that is not there is 404, one that is a file is refused", async () => {
    const instance = await start({ dir: "nowhere", not_found: "page" });
    expect(await ask(instance, "/")).toMatchObject({ status: 404, text: "not found\n" });
    const around = { env: {}, configDir: directory };
    expect(plugin.check?.(plugin.config.parse({ dir: "nowhere" }), around)).toEqual([]);
    expect(plugin.check?.(plugin.config.parse({ dir: "outside.txt" }), around)).toEqual([
      `dir: ${join(directory, "outside.txt")} is no directory`,
    ]);
  });

  test("values are answered as JSON", async () => {
    const instance = await start({ dir: "site", values: { app_name: "A", docs_html: null } });
    const { status, type, text } = await ask(instance, "/frontend/config", "values");
    expect([status, type, JSON.parse(text)]).toEqual([
      200,
      "application/json",
      { app_name: "A", docs_html: null },
    ]);
  });

  test.each(["POST", "PUT", "DELETE", "OPTIONS"])("%s is 405", async (method) => {
    const instance = await start({ dir: "site" });
    for (const surface of ["files", "values"]) {
      const answer = await ask(instance, "/", surface, method);
      expect([answer.status, answer.headers.get("allow")]).toEqual([405, "GET, HEAD"]);
    }
  });
});
