/** `gatehouse emit`: which route it takes, what it finds in a config, and what it says when it cannot. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { temporaryDirectory } from "../../test/support/host.ts";
import { EXIT, OperatorError } from "../errors.ts";
import { WITHHELD } from "../headers.ts";
import { bundledPlugins } from "../registry.ts";
import type { CliContext } from "./context.ts";
import { membersOf, strippedNames } from "./emit/names.ts";
import { EMIT_PROXIES, type EmitOptions, emit } from "./emit.ts";

let directory: string;
let out: string;
let err: string;

beforeEach(() => {
  directory = temporaryDirectory();
  out = "";
  err = "";
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const CHECKS = EMIT_PROXIES.map((proxy) => {
  const name = proxy === "haproxy" ? "generic" : proxy;
  return `  - { match: { path: /auth/${name}${name === "envoy" ? "/**" : ""} }, check: ${name} }`;
}).join("\n");

interface Written {
  readonly server?: string;
  readonly strategies?: string;
  readonly checks?: string;
  readonly routes?: string;
}

function write(parts: Written = {}): void {
  const {
    server = "{ trusted_proxies: [127.0.0.1/32] }",
    strategies = "{ team: { use: bearer-sqlite } }",
    checks = CHECKS,
    routes = "  - { match: { path: /** }, access: [team], upstream: proxy }",
  } = parts;
  const text = `version: 1\nserver: ${server}\nstrategies: ${strategies}\nupstreams: { api: { url: http://127.0.0.1:9 } }\nroutes:\n${checks}\n${routes}\n`;
  writeFileSync(join(directory, "gatehouse.yaml"), text, { mode: 0o600 });
}

function run(proxy: string, options: EmitOptions = {}): Promise<number> {
  out = "";
  err = "";
  const context: CliContext = {
    version: "0.0.0",
    plugins: bundledPlugins,
    // No variable is set: the snippet needs no secret.
    env: {},
    cwd: directory,
    stdinIsTerminal: false,
    stdoutIsTerminal: false,
    out(text) {
      out += text;
    },
    err(text) {
      err += text;
    },
    readStdin: async () => "",
    stop: new AbortController().signal,
  };
  return emit(context, proxy, { config: "gatehouse.yaml", ...options });
}

async function failure(proxy: string, options: EmitOptions = {}): Promise<OperatorError> {
  const error = await run(proxy, options).catch((thrown: unknown) => thrown);
  if (!(error instanceof OperatorError)) throw new Error(`no OperatorError: ${String(error)}`);
  expect(out).toBe("");
  return error;
}

describe("a snippet", () => {
  test("asks at the gateway's address, for every proxy", async () => {
    write({ server: "{ listen: 127.0.0.1:8123, trusted_proxies: [127.0.0.1/32] }" });
    for (const proxy of EMIT_PROXIES) {
      expect(await run(proxy)).toBe(EXIT.ok);
      const isEnvoy = proxy === "envoy";
      if (proxy !== "haproxy")
        expect(out).toContain(isEnvoy ? "port_value: 8123" : "127.0.0.1:8123");
      expect(out).toContain("127.0.0.1".concat(isEnvoy ? '", port_value: 9000' : ":9000"));
      expect(err).toBe("");
    }
    await run("haproxy", { lua: true });
    expect(out).toContain('local URL = "http://127.0.0.1:8123/auth/generic"');
  });

  test("takes its addresses from the command line: another host, TLS, IPv6, a socket", async () => {
    write();
    const gateway = "https://gate.example.com:8443";
    await run("nginx", { gateway, upstream: "unix:/run/app.sock" });
    expect(out).toContain("proxy_pass https://gatehouse/auth/nginx;");
    expect(out).toContain("proxy_ssl_verify on;");
    expect(out).toContain("proxy_ssl_name gate.example.com;");
    expect(out).toContain("server unix:/run/app.sock;");
    await run("caddy", { gateway, upstream: "http://[::1]:9000" });
    expect(out).toContain("forward_auth https://gate.example.com:8443 {");
    expect(out).toContain("reverse_proxy [::1]:9000 {");
    for (const where of [gateway, "http://127.0.0.1:8123", "unix:/run/gate.sock"]) {
      await run("caddy", { gateway: where });
      // A kept connection may be one to the application, which would answer the question.
      expect(out).toMatch(/forward_auth [^}]*transport http \{\s+keepalive off\s+\}/);
    }
    await run("traefik", { gateway });
    expect(out).toContain("address: https://gate.example.com:8443/auth/traefik");
    await run("envoy", { gateway });
    expect(out).toContain("sni: gate.example.com");
    expect(out).toContain("type: STRICT_DNS");
    await run("envoy", { gateway: "unix:/run/gate.sock" });
    expect(out).toContain("pipe: { path: /run/gate.sock }");
    await run("haproxy", { gateway: "unix:/run/gate.sock", lua: true });
    expect(out).toContain('dst = "unix@/run/gate.sock"');
  });

  test("copies every identity header of the config, with own access those of its route", async () => {
    write({
      checks: `${CHECKS}\n  - { match: { path: /own }, access: [team], check: nginx, identity_headers: { identity: x-me } }`,
      routes: `  - { match: { path: /a }, access: [team], upstream: proxy, identity_headers: remote }
  - { match: { path: /** }, access: [team], upstream: proxy }`,
    });
    const copied = async (options: EmitOptions): Promise<string[]> => {
      await run("nginx", { ...options, json: true });
      return JSON.parse(out).headers.copied as string[];
    };
    const all = await copied({});
    expect(all).toContain("remote-user");
    expect(all).toContain("x-gatehouse-role");
    expect(all).toContain("x-me");
    expect(await copied({ path: "/own" })).toEqual(["x-me"]);
  });

  test("removes the credentials of the strategies that are asked, everybody's on public routes", async () => {
    const strategies =
      "{ team: { use: bearer-sqlite, header: X-Team }, ops: { use: static-env, env: OPS }, own: { use: static-env, env: OWN, header: x-own, authorization: false } }";
    const credentials = async (routes: string): Promise<string[]> => {
      write({ strategies, routes });
      await run("caddy", { json: true });
      return JSON.parse(out).headers.credentials as string[];
    };
    const route = (access: string, more = "") =>
      `  - { match: { path: /${access.replace(/\W/g, "")}/** }, access: ${access}, upstream: api${more} }`;
    expect(await credentials(route("[team]"))).toEqual(["authorization", "x-team"]);
    expect(await credentials(route("[own]"))).toEqual(["x-own"]);
    const everybody = ["authorization", "x-team", "x-api-key", "x-own"];
    expect(await credentials(route("public"))).toEqual(everybody);
    expect(await credentials(route("[team]", ", forward_credential: true"))).toEqual([]);
    expect(out).toContain("every route says forward_credential");
    const mixed = `${route("[team]", ", forward_credential: true")}\n${route("[ops]")}`;
    expect(await credentials(mixed)).toEqual(["authorization", "x-team", "x-api-key"]);
    expect(JSON.parse(out).notes.join()).toContain("routes[5]: forward_credential is not followed");
  });

  test("names the site by server.public_url", async () => {
    write({ server: "{ public_url: 'https://llm.example.com', trusted_proxies: [127.0.0.1/32] }" });
    await run("nginx");
    expect(out).toContain("server_name llm.example.com;");
    await run("traefik");
    expect(out).toContain("rule: Host(`llm.example.com`)");
  });

  test("is an object with --json", async () => {
    write();
    await run("haproxy", { json: true });
    const { proxy, path, text, notes } = JSON.parse(out);
    expect([proxy, path, notes]).toEqual(["haproxy", "/auth/generic", []]);
    expect(text).toContain("http-request lua.gatehouse");
  });
});

describe("what the operator should know", () => {
  const notes = async (parts: Written, options: EmitOptions = {}): Promise<string> => {
    write(parts);
    await run("nginx", options);
    const said = err;
    // The same is in the snippet, where it stays.
    for (const line of said.split("\n").filter(Boolean)) {
      expect(out).toContain(line.replace("note: ", "# Note: "));
    }
    return said;
  };

  test("several routes are asked about: the first is taken", async () => {
    const checks = `${CHECKS}\n  - { match: { path: /second }, check: nginx }`;
    expect(await notes({ checks })).toBe(
      "note: asks at /auth/nginx; --path chooses another: /second\n",
    );
    expect(await notes({ checks }, { path: "/second" })).toBe("");
    expect(out).toContain("proxy_pass http://gatehouse/second;");
  });

  test("a proxy on this machine is not trusted, or more than this machine gets in", async () => {
    expect(await notes({ server: "{ trusted_proxies: [10.0.0.0/8] }" })).toContain(
      "server.trusted_proxies lacks 127.0.0.1/32",
    );
    const server = "{ listen: 'unix:/run/gate.sock', trusted_proxies: [10.0.0.0/8] }";
    expect(await notes({ server })).toContain("server.trusted_proxies lacks unix");
    const wide = "{ listen: '0.0.0.0:8008', trusted_proxies: [127.0.0.1/32] }";
    expect(await notes({ server: wide })).toContain("let nobody but the proxy reach that port");
    expect(out).toContain("server 127.0.0.1:8008;");
    expect(await notes({ server: wide }, { gateway: "http://gate:8008" })).toBe("");
  });

  test("routes that cannot do here what they say", async () => {
    const routes = `  - { match: { path: /m }, access: [team], upstream: api, models: { allow: [a] } }
  - { match: { path: /c }, access: [team], upstream: api, cors: { origins: ["*"] } }`;
    const said = await notes({ routes });
    expect(said).toContain("routes[5]: models cannot be read");
    expect(said).toContain("routes[6]: preflights are judged like other requests");
    const checks = "  - { match: { path: /auth, host: a.example.com }, check: nginx }";
    expect(await notes({ checks })).toContain("routes[0].match.host");
  });

  test("a strategy of one's own may read other headers", async () => {
    const plugin = `import { definePlugin, z } from "gatehouse";
export default definePlugin({ name: "mine", contract: 1, config: z.strictObject({}), init: () => ({ authenticate: () => ({ outcome: "absent" }) }) });
`;
    writeFileSync(join(directory, "mine.ts"), plugin, { mode: 0o600 });
    const parts = {
      strategies: "{ team: { use: ./mine.ts } }",
    };
    expect(await notes(parts)).toContain("strategies.team is a file of yours");
    expect(await notes(parts, { credentialHeaders: ["X-Magic"] })).toBe("");
    expect(out).toContain('proxy_set_header X-Magic "";');
  });
});

describe("what stops it", () => {
  test("no route for that proxy: the lines to add", async () => {
    write({ checks: "  - { match: { path: /auth/caddy }, check: caddy }" });
    const error = await failure("nginx");
    expect([error.exitCode, error.message]).toEqual([
      EXIT.config,
      "no route answers nginx's questions",
    ]);
    expect(error.hint).toContain("- { match: { path: /auth/nginx }, check: nginx }");
    expect(error.hint).toContain("trusted_proxies: [127.0.0.1/32]");
    expect((await failure("haproxy")).hint).toContain("check: generic");
    expect((await failure("envoy")).hint).toContain("path: /auth/envoy/**");
  });

  test("a config with mistakes: all of them", async () => {
    write({ routes: "  - { match: { path: /x }, access: [nobody], upstream: proxi }" });
    const error = await failure("nginx");
    expect(error.exitCode).toBe(EXIT.config);
    expect(error.message).toContain("nobody");
    expect(error.message).toContain("proxi");
  });

  test.each<[string, EmitOptions, string]>([
    ["apache", {}, "expected one of traefik, nginx"],
    ["nginx", { path: "/other" }, "at that --path"],
    ["nginx", { labels: true }, "--labels is for traefik"],
    ["nginx", { lua: true }, "--lua is for haproxy"],
    ["nginx", { gateway: "127.0.0.1:8008" }, "--gateway: expected http://"],
    ["nginx", { gateway: "http://gate/base" }, "--gateway has a path"],
    ["nginx", { upstream: "https://app.example.com" }, "over http or a unix socket"],
    ["nginx", { upstream: "http://app/base" }, "--upstream has a path"],
    ["nginx", { gateway: "unix:/run/a b.sock" }, "the socket's path"],
    ["traefik", { gateway: "unix:/run/gate.sock" }, "over TCP only"],
    ["nginx", { credentialHeaders: ["x y"] }, "cannot be written into"],
  ])("%s with %j is a mistake of use", async (proxy, options, message) => {
    write();
    const error = await failure(proxy, options);
    expect(error.message).toContain(message);
    expect([EXIT.usage, EXIT.config]).toContain(error.exitCode as never);
  });

  test("an address that nobody can know", async () => {
    write({ server: "{ listen: '127.0.0.1:0', trusted_proxies: [127.0.0.1/32] }" });
    expect((await failure("nginx")).hint).toContain("--gateway");
  });

  test("names and paths that a proxy's config could read in another way", async () => {
    write({ checks: "  - { match: { path: '/auth;{x}' }, check: nginx }" });
    expect((await failure("nginx")).message).toContain("routes[0].match.path");
    write({
      routes:
        "  - { match: { path: /a }, access: [team], upstream: proxy, identity_headers: { identity: x.me } }",
    });
    expect((await failure("nginx")).message).toContain('"x.me"');
  });
});

test("every namespace that the gateway withholds has members that proxies can name", () => {
  for (const prefix of WITHHELD.prefixes) expect(membersOf(prefix).length).toBeGreaterThan(2);
  const names = strippedNames([]);
  for (const name of WITHHELD.names) expect(names).toContain(name);
  expect(new Set(names).size).toBe(names.length);
});
