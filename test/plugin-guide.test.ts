/**
 * The code in docs/plugin-guide.md, taken out of it and run as an operator would run it.
 *
 * Invariant: nothing is mended on the way: what is tested is what a reader pastes.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { parse } from "yaml";
import { documentSchema } from "../src/config/schema.ts";
import { REJECT_REASONS } from "../src/contract/outcome.ts";
import type { Plugin } from "../src/contract/plugin.ts";
import { pluginLoader } from "../src/loader.ts";
import { contractSuite } from "./contract.suite.ts";
import { temporaryDirectory, testHost } from "./support/host.ts";
import { authRequest } from "./support/request.ts";
import { startValkey, valkeyMissing } from "./support/valkey.ts";

const GUIDE = readFileSync(resolve(import.meta.dir, "../docs/plugin-guide.md"), "utf8");
const TOKEN = "canary-token-81c2f4aa90";

const files = new Map(
  [...GUIDE.matchAll(/<!-- file: (\S+) -->\n```ts\n([\s\S]*?)```/g)].map(([, name, text]) => [
    name ?? "",
    text ?? "",
  ]),
);

const directory = temporaryDirectory();
for (const [name, text] of files) writeFileSync(join(directory, name), text, { mode: 0o644 });
afterAll(() => rmSync(directory, { recursive: true, force: true }));
const load = (name: string): Promise<Plugin> => pluginLoader([])(`./${name}`, null, directory);

contractSuite("magic.ts of the guide", async () => ({
  plugin: await load("magic.ts"),
  config: { word: TOKEN },
  carrier: "x-magic",
  accept: () => ({ headers: { "x-magic": TOKEN } }),
}));

/** What the issuer says next; null lets it fail. */
let said: object | null = null;
let asked: { authorization: string | null; body: string }[] = [];
const issuer = Bun.serve({
  hostname: "127.0.0.1",
  port: 0,
  async fetch(request) {
    const body = await request.text();
    asked.push({ authorization: request.headers.get("authorization"), body });
    if (said === null) return new Response("down", { status: 500 });
    const isKnown = new URLSearchParams(body).get("token") === TOKEN;
    return Response.json(isKnown ? said : { active: false });
  },
});
afterAll(() => issuer.stop(true));
const config = { url: `http://127.0.0.1:${issuer.port}/`, client: "gate:secret" };

describe("introspect.ts of the guide under the contract", () => {
  beforeAll(() => {
    said = { active: true, sub: "alice" };
  });
  contractSuite("introspect.ts of the guide", async () => ({
    plugin: await load("introspect.ts"),
    config,
    accept: () => ({ headers: { authorization: `Bearer ${TOKEN}` } }),
  }));
});

describe("introspect.ts of the guide", () => {
  async function start() {
    asked = [];
    const context = testHost();
    const plugin = await load("introspect.ts");
    const instance = await plugin.init(plugin.config.parse(config), context.host);
    const ask = async (token = TOKEN) =>
      await instance.authenticate(authRequest({ headers: { authorization: `Bearer ${token}` } }));
    return { ...context, ask };
  }

  test("accepts whom the issuer knows, and asks again when the memory has ended", async () => {
    const { ask, clock, dispose } = await start();
    said = { active: true, sub: "alice", scope: "read write" };
    const accepted = { outcome: "accept", identity: { id: "alice", scopes: ["read", "write"] } };
    expect(await ask()).toMatchObject(accepted);
    clock.advance(4999);
    expect(await ask()).toMatchObject(accepted);
    expect(asked.length).toBe(1);
    said = { active: false };
    clock.advance(1);
    expect(await ask()).toEqual({ outcome: "unknown" });
    expect(asked[0]?.authorization).toBe(`Basic ${btoa("gate:secret")}`);
    dispose();
  });

  test("leaves a token that the issuer does not know to the next strategy", async () => {
    const { ask, dispose } = await start();
    said = { active: true, sub: "alice" };
    expect(await ask("some-other-token")).toEqual({ outcome: "unknown" });
    dispose();
  });

  test("refuses a token at its expiry, however the issuer rounds", async () => {
    const { ask, clock, dispose } = await start();
    said = { active: true, sub: "alice", exp: clock.nowMs() / 1000 };
    expect(await ask()).toEqual({
      outcome: "reject",
      reason: "token_expired",
      credentialId: "alice",
    });
    dispose();
  });

  test("an issuer that fails or talks nonsense is a fault", async () => {
    const { ask, dispose } = await start();
    for (const answer of [null, { active: "yes" }, { active: true }]) {
      said = answer;
      await expect(ask()).rejects.toThrow();
    }
    dispose();
  });
});

describe("guests.ts of the guide", () => {
  const run = valkeyMissing === null ? test : test.skip;
  run(`asks its Valkey and is a fault without it ${valkeyMissing ?? ""}`, async () => {
    const valkey = await startValkey();
    const raw = valkey.client();
    await raw.set(`guest:${createHash("sha256").update(TOKEN).digest("hex")}`, "Ada");
    const plugin = await load("guests.ts");
    const context = testHost();
    const settings = { url: valkey.url, command_timeout: "1s" };
    expect(plugin.config.safeParse({ ...settings, url: "redis://:pw@x" }).success).toBe(false);
    const instance = await plugin.init(plugin.config.parse(settings), context.host);
    const ask = async (token: string) =>
      await instance.authenticate(authRequest({ headers: { authorization: `Bearer ${token}` } }));
    expect(await ask(TOKEN)).toMatchObject({ outcome: "accept", identity: { name: "Ada" } });
    expect(await ask("somebody-else")).toEqual({ outcome: "unknown" });
    await valkey.kill();
    await expect(ask(TOKEN)).rejects.toMatchObject({ name: "ValkeyError" });
    await instance.close?.();
    context.dispose();
    await valkey.stop();
  });
});

describe("the text of the guide", () => {
  test("lists every reason of the contract", () => {
    expect(REJECT_REASONS.filter((reason) => !GUIDE.includes(`\`${reason}\``))).toEqual([]);
  });

  test("its first config parses with the schema of the config file", () => {
    const [, text = ""] = /```yaml\n(version: 1[\s\S]*?)```/.exec(GUIDE) ?? [];
    expect(documentSchema.safeParse(parse(text)).error).toBeUndefined();
  });

  test("every link inside the guide leads to a heading", () => {
    const headings = [...GUIDE.matchAll(/^## (.+)$/gm)].map(([, title = ""]) =>
      title
        .toLowerCase()
        .replaceAll(/[^a-z ]/g, "")
        .replaceAll(" ", "-"),
    );
    const links = [...GUIDE.matchAll(/\]\(#([^)]+)\)/g)].map(([, anchor = ""]) => anchor);
    expect(links.filter((anchor) => !headings.includes(anchor))).toEqual([]);
  });
});
