/** `gatehouse doctor` about addresses: listeners, upstreams, exposure, certificates, trust, clocks. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { networkInterfaces, tmpdir } from "node:os";
import { join } from "node:path";
import { startBinary } from "../support/binary.ts";
import {
  bearerConfig,
  examine,
  examineAsNobody,
  household,
  mayBecomeNobody,
} from "../support/doctor.ts";
import { freePort } from "../support/proxies.ts";
import { type RawUpstream, rawUpstream } from "../support/raw.ts";
import { A_KEY, GOOD_CERTIFICATE, hasOpenssl, makeCertificate } from "../support/tls-fixtures.ts";

let upstream: RawUpstream;
let url: string;
beforeAll(() => {
  upstream = rawUpstream();
  url = `http://${upstream.address}`;
});
afterAll(() => upstream.stop());

const servers: { stop(): unknown }[] = [];
afterAll(() => {
  for (const server of servers) server.stop();
});

/** Answers every request; gives the port. */
function serve(hostname: string, answer: () => Response = () => new Response("ok")): number {
  const server = Bun.serve({ hostname, port: 0, fetch: answer });
  servers.push(server);
  return server.port ?? 0;
}

/** An IPv4 address of this machine that is not loopback. */
const ownAddress = Object.values(networkInterfaces())
  .flatMap((one) => one ?? [])
  .find(({ family, internal }) => family === "IPv4" && !internal)?.address;

const onLinux = process.platform === "linux";

describe("upstreams", () => {
  test("one that answers gets no credential and no configured header", async () => {
    const seen = rawUpstream();
    const home = household(
      bearerConfig(`http://${seen.address}`, {
        upstream: '    headers: { authorization: "Bearer ${env:KEY}" }',
      }),
    );
    const report = await home.examine({ env: { KEY: "canary-upstream-0123456789" } });
    expect(report.find("upstream_answers")?.severity).toBe("ok");
    expect(seen.seen.map(({ line }) => line)).toEqual(["HEAD / HTTP/1.1"]);
    expect(seen.seen[0]?.fields.map(([name]) => name).sort()).toEqual(["connection", "host"]);
    seen.stop();
  });

  test("one that nobody serves is an error; one that says nothing is reached, and nobody waits for it", async () => {
    const closed = await freePort();
    const silent = createServer(() => {});
    await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
    const port = portOf(silent);
    const down = await household(bearerConfig(`http://127.0.0.1:${closed}`)).examine();
    expect(down.find("upstream_unreachable")?.what).toContain("ECONNREFUSED");
    expect(down.exitCode).toBe(3);
    const quiet = await household(
      bearerConfig(`http://127.0.0.1:${port}`, { upstream: "    timeouts: { connect: 300ms }" }),
    ).examine();
    expect(quiet.find("upstream_answers")?.severity).toBe("ok");
    silent.close();
  });

  test("a unix socket is reached, or not", async () => {
    const dir = mkdtempSync(join(tmpdir(), "gatehouse-doctor-"));
    const path = join(dir, "app.sock");
    const server = Bun.serve({ unix: path, fetch: () => new Response("ok") });
    expect(
      (await household(bearerConfig(`unix:${path}`)).examine()).find("upstream_answers"),
    ).toBeDefined();
    await server.stop(true);
    const gone = await household(bearerConfig(`unix:${path}`)).examine();
    expect(gone.find("upstream_unreachable")?.severity).toBe("error");
    rmSync(dir, { recursive: true });
  });

  test("a certificate that is not trusted is an error until `ca` names it", async () => {
    const server = Bun.serve({
      hostname: "localhost",
      port: 0,
      tls: { cert: GOOD_CERTIFICATE, key: A_KEY },
      fetch: () => new Response("ok"),
    });
    servers.push(server);
    const config = bearerConfig(`https://localhost:${server.port}`);
    const report = await household(config).examine();
    expect(report.find("upstream_tls")?.next).toContain("upstreams.api.ca");
    expect(report.exitCode).toBe(3);
    const home = household(
      bearerConfig(`https://localhost:${server.port}`, { upstream: "    ca: ./ca.pem" }),
    );
    home.write("ca.pem", GOOD_CERTIFICATE);
    expect((await home.examine()).find("upstream_tls")).toBeUndefined();
  });

  test("plain HTTP over the internet is a warning", async () => {
    const config = bearerConfig("http://198.51.100.7:9", {
      upstream: "    timeouts: { connect: 100ms }",
    });
    expect((await household(config).examine()).find("upstream_plain")?.severity).toBe("warning");
    expect((await household(bearerConfig(url)).examine()).find("upstream_plain")).toBeUndefined();
  });
});

describe.skipIf(!onLinux)("exposure of upstreams (needs /proc/net)", () => {
  test("0.0.0.0 is an error that names the process and how to change it", async () => {
    const port = serve("0.0.0.0");
    const report = await household(bearerConfig(`http://127.0.0.1:${port}`)).examine();
    const found = report.find("upstream_exposed");
    expect(found?.severity).toBe("error");
    expect(found?.what).toContain(`0.0.0.0:${port}`);
    expect(found?.what).toContain(`process ${process.pid}`);
    expect(found?.next).toContain("127.0.0.1");
    expect(report.exitCode).toBe(3);
  });

  test(":: is one as well", async () => {
    const port = serve("::");
    const report = await household(bearerConfig(`http://localhost:${port}`)).examine();
    expect(report.find("upstream_exposed")?.what).toContain(`[::]:${port}`);
  });

  test("loopback alone is fine", async () => {
    const port = serve("127.0.0.1");
    const report = await household(bearerConfig(`http://127.0.0.1:${port}`)).examine();
    expect(report.find("upstream_hidden")?.severity).toBe("ok");
    expect(report.find("upstream_exposed")).toBeUndefined();
  });

  test.skipIf(ownAddress === undefined)(
    "an address of the machine is seen, too; the gateway itself on it is not one (needs a network)",
    async () => {
      const port = serve("127.0.0.1");
      const gate = Bun.serve({ hostname: ownAddress ?? "", port, fetch: () => new Response("x") });
      servers.push(gate);
      const config = bearerConfig(`http://127.0.0.1:${port}`);
      expect((await household(config).examine()).find("upstream_exposed")?.what).toContain(
        ownAddress ?? "",
      );
      const ours = config.replace("listen: 127.0.0.1:0", `listen: ${ownAddress}:${port}`);
      const report = await household(ours).examine();
      expect(report.find("upstream_exposed")).toBeUndefined();
      expect(report.find("upstream_hidden")).toBeDefined();
    },
  );
});

describe("listeners", () => {
  const at = (address: string): string => bearerConfig(url).replace("127.0.0.1:0", address);

  test("nobody listens, the gateway listens, somebody else listens", async () => {
    const port = await freePort();
    const home = household(at(`127.0.0.1:${port}`));
    const idle = await home.examine();
    expect(idle.find("gateway_not_running")?.severity).toBe("info");
    expect(idle.exitCode).toBe(0);
    const running = await startBinary(["serve", "-c", home.config], { cwd: home.dir });
    const alive = await home.examine();
    expect(alive.find("gateway_alive")?.severity).toBe("ok");
    if (onLinux) expect(alive.find("gateway_alive")?.what).toContain(`process ${running.pid}`);
    expect(alive.exitCode).toBe(0);
    await running.stop();
    const stranger = Bun.serve({
      hostname: "127.0.0.1",
      port,
      fetch: () => new Response("x", { status: 404 }),
    });
    const taken = await home.examine();
    expect(taken.find("port_taken")?.severity).toBe("error");
    expect(taken.exitCode).toBe(3);
    await stranger.stop(true);
  });

  test("whoever listens on every address has this one as well", async () => {
    const port = serve("0.0.0.0", () => new Response("x", { status: 500 }));
    expect((await household(at(`127.0.0.1:${port}`)).examine()).find("port_taken")).toBeDefined();
  });

  test("an address of another machine cannot be listened on", async () => {
    const report = await household(at("198.51.100.7:8008")).examine();
    expect(report.find("listen_foreign_address")?.severity).toBe("error");
    const wide = await household(at(`0.0.0.0:${await freePort()}`)).examine();
    expect(wide.find("listen_foreign_address")).toBeUndefined();
  });

  test.skipIf(!onLinux || !mayBecomeNobody)(
    "a low port is for those who may (needs root and setpriv)",
    async () => {
      const home = household(at("127.0.0.1:81"));
      const report = await examineAsNobody(home);
      expect(report.find("port_not_allowed")?.next).toContain("service install");
      expect((await home.examine()).find("port_not_allowed")).toBeUndefined();
    },
  );

  test("sockets: no directory, nobody, somebody, a file", async () => {
    const home = household(at("unix:/nonexistent/gate.sock"));
    expect((await home.examine()).find("socket_no_directory")?.severity).toBe("error");
    const path = join(home.dir, "gate.sock");
    home.write("gatehouse.yaml", at(`unix:${path}`));
    expect((await home.examine()).find("gateway_not_running")?.severity).toBe("info");
    const running = await startBinary(["serve", "-c", home.config], { cwd: home.dir });
    expect((await home.examine()).find("gateway_alive")?.severity).toBe("ok");
    await running.kill();
    expect((await home.examine()).find("socket_silent")?.severity).toBe("info");
    rmSync(path);
    home.write("gate.sock", "a file");
    expect((await home.examine()).find("socket_not_one")?.severity).toBe("error");
  });
});

describe("certificates", () => {
  const config = (publicUrl: string): string =>
    bearerConfig(url, {
      server: `  tls: { cert: ./cert.pem, key: ./key.pem }\n  public_url: ${publicUrl}`,
    });

  test("one for the name that clients use is fine, for another one it is an error", async () => {
    const home = household(config("https://localhost"));
    home.write("cert.pem", GOOD_CERTIFICATE);
    home.write("key.pem", A_KEY);
    const report = await home.examine();
    expect(report.find("tls_name")?.severity).toBe("ok");
    expect(report.find("tls_valid")?.severity).toBe("ok");
    expect(report.find("tls_self_signed")?.severity).toBe("info");
    home.write("gatehouse.yaml", config("https://llm.example.com"));
    const wrong = await home.examine();
    expect(wrong.find("tls_name_wrong")?.what).toContain("llm.example.com");
    expect(wrong.exitCode).toBe(3);
  });

  test.skipIf(!hasOpenssl)(
    "one that ends within 30 days is a warning (needs openssl)",
    async () => {
      const home = household(config("https://localhost"));
      makeCertificate(home.dir, 10);
      const report = await home.examine();
      expect(report.find("tls_expiring")?.severity).toBe("warning");
      expect(report.find("tls_valid")).toBeUndefined();
    },
  );

  test("a public address without TLS is a warning", async () => {
    const plain = (origin: string): string =>
      bearerConfig(url, { server: `  public_url: ${origin}` });
    const report = await household(plain("http://llm.example.com")).examine();
    expect(report.find("tls_none")?.severity).toBe("warning");
    expect(
      (await household(plain("http://localhost:8008")).examine()).find("tls_none"),
    ).toBeUndefined();
    expect(
      (await household(plain("https://llm.example.com")).examine()).find("tls_none"),
    ).toBeUndefined();
  });
});

describe("trust", () => {
  const trusting = (networks: string): string =>
    bearerConfig(url, { server: `  trusted_proxies: [${networks}]` });

  test.each([
    ["127.0.0.1/32", "proxies_narrow", "ok"],
    ["10.1.2.0/24", "proxies_narrow", "ok"],
    ["203.0.113.9", "proxies_narrow", "ok"],
    ["10.0.0.0/8", "proxies_wide", "info"],
    ["203.0.113.0/24", "proxies_public", "warning"],
    ["2001:db8::/32", "proxies_public", "warning"],
  ])("%s: %s", async (networks, code, severity) => {
    expect((await household(trusting(networks)).examine()).find(code)?.severity).toBe(
      severity as "ok",
    );
  });

  test("a route that answers proxies' questions should not be reachable by everybody", async () => {
    const asked = (listen: string): string =>
      trusting("127.0.0.1/32")
        .replace("127.0.0.1:0", listen)
        .replace("routes:", "routes:\n  - { match: { path: /auth }, check: traefik }");
    const report = await household(asked("0.0.0.0:0")).examine();
    expect(report.find("check_route_public")?.what).toContain("/auth");
    expect(
      (await household(asked("127.0.0.1:0")).examine()).find("check_route_public"),
    ).toBeUndefined();
  });
});

describe("the clock", () => {
  const dated = (offMs: number) => () =>
    new Response("ok", { headers: { date: new Date(Date.now() + offMs).toUTCString() } });

  test("an upstream that says another time is heard", async () => {
    const port = serveRaw(
      () =>
        `HTTP/1.1 200 OK\r\nDate: ${new Date(Date.now() - 120_000).toUTCString()}\r\nContent-Length: 0\r\n\r\n`,
    );
    const config = bearerConfig(`http://127.0.0.1:${port}`);
    const report = await household(config).examine();
    expect(report.find("clock_skew")?.severity).toBe("warning");
    expect(report.find("clock_skew")?.what).toMatch(
      /1(?:19|20|21) s ahead of that of upstream api/,
    );
    // Where proofs have times, it is worse.
    const signed = await household(
      bearerConfig(`http://127.0.0.1:${port}`, { strategies: "  nostr: { use: nip98 }" }),
    ).examine();
    expect(signed.find("clock_skew")?.severity).toBe("error");
    expect(signed.exitCode).toBe(3);
  });

  test.skipIf(ownAddress === undefined)(
    "one on another address that agrees is heard, too (needs a network)",
    async () => {
      const port = serve(ownAddress ?? "", dated(0));
      const report = await household(bearerConfig(`http://${ownAddress}:${port}`)).examine();
      expect(report.find("clock_agrees")?.severity).toBe("ok");
      expect(report.find("clock_skew")).toBeUndefined();
    },
  );

  test("an issuer is asked as well", async () => {
    const port = serveRaw(
      () =>
        `HTTP/1.1 404 No\r\nDate: ${new Date(Date.now() + 60_000).toUTCString()}\r\nContent-Length: 0\r\n\r\n`,
    );
    const issuer = `http://127.0.0.1:${port}`;
    const report = await household(
      bearerConfig(url, { strategies: `  sso: { use: oidc, issuer: "${issuer}", audience: api }` }),
    ).examine();
    expect(report.find("clock_skew")?.what).toContain(`127.0.0.1:${port}`);
    expect(report.find("keys_missing")?.severity).toBe("error");
  });

  test("nobody to compare with is said, and whether it is kept", async () => {
    const report = await household(bearerConfig(url)).examine();
    expect(report.find("clock_uncompared")?.severity).toBe("info");
    const said = ["clock_kept", "clock_unkept", "clock_unknown"].filter((code) =>
      report.find(code),
    );
    expect(said).toHaveLength(1);
  });
});

describe("an outside that does not answer", () => {
  test("costs a few seconds, not the report", async () => {
    const silent = createServer(() => {});
    await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
    const port = portOf(silent);
    const salt = "5a".repeat(32);
    const home = household(
      bearerConfig(`http://127.0.0.1:${port}`, {
        strategies: `  keys: { use: valkey-hash, url: "redis://127.0.0.1:${port}", salt: "\${env:SALT}" }
  sso: { use: oidc, issuer: "http://127.0.0.1:${port}", audience: api }`,
      }),
    );
    // Killed after 15 s.
    const report = await examine(["-c", home.config], { cwd: home.dir, env: { SALT: salt } });
    expect(report.find("valkey_unusable")?.severity).toBe("error");
    expect(report.find("jit_on")).toBeDefined();
    expect(report.exitCode).toBe(3);
    silent.close();
  });
});

/** Writes the same text to whoever sends a head; gives the port. */
function serveRaw(text: () => string): number {
  const server = rawUpstream((_, write) => write(text()));
  servers.push(server);
  return server.port;
}

function portOf(server: Server): number {
  const address = server.address();
  return typeof address === "object" && address !== null ? address.port : 0;
}
