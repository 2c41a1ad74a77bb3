/**
 * `gatehouse doctor --probe` against real chains: the executable alone and behind real proxies, set up well and badly.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { runBinary } from "../support/binary.ts";
import { type Examined, examine } from "../support/doctor.ts";
import { type GatewayUnderTest, scratch, startCompiled } from "../support/gateway.ts";
import { type ProxyName, proxyMissing, startProxy } from "../support/proxies.ts";
import { emitted } from "../support/proxy-suite.ts";
import { type RawUpstream, rawUpstream } from "../support/raw.ts";
import { A_KEY, GOOD_CERTIFICATE } from "../support/tls-fixtures.ts";

const OPS = "canary-Ops-Token-0123456789-abc";
const ENV = { OPS_TOKEN: OPS };
const WITH_TOKEN = ["--rate", "1000", "--token-env", "OPS_TOKEN"];

/** Shows what it gets, and serves /secret to whoever comes. */
function showing(): RawUpstream {
  return rawUpstream(({ line, fields }, write, close) => {
    const body = JSON.stringify({ line, fields });
    const shown = line.startsWith("HEAD") ? "" : body;
    write(`HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\nConnection: close\r\n\r\n${shown}`);
    close();
  });
}

function config(upstreamUrl: string, server = "", extra = ""): string {
  return `version: 1
server:
  listen: 127.0.0.1:0
${server}
strategies:
  ops: { use: static-env, env: OPS_TOKEN }
upstreams:
  api: { url: "${upstreamUrl}" }
routes:
${extra}
  - { match: { path: /public/** }, access: public, upstream: api }
  - { match: { path: /health, methods: [GET, HEAD] }, access: public, upstream: api }
  - { match: { path: /** }, access: [ops], upstream: api }
`;
}

const attack = (
  address: string,
  args: readonly string[] = WITH_TOKEN,
  env = {},
): Promise<Examined> =>
  examine(["--probe", `${address}/v1/models`, ...args], { env: { ...ENV, ...env } });

function expectA(report: Examined): void {
  expect(report.codes("error"), report.text).toEqual([]);
  expect(report.codes("warning"), report.text).toEqual([]);
  expect(report.grade).toBe("A");
  expect(report.exitCode).toBe(0);
  expect(report.text).not.toContain(OPS);
}

let upstream: RawUpstream;
beforeAll(() => {
  upstream = showing();
});
afterAll(() => upstream.stop());

describe("the gateway alone", () => {
  let gateway: GatewayUnderTest;
  beforeAll(async () => {
    gateway = await startCompiled({ config: config(`http://${upstream.address}`), env: ENV });
  });
  afterAll(() => gateway.stop());

  test("is graded A, with and without a token, with and without its configuration", async () => {
    for (const args of [
      ["--rate", "1000"],
      WITH_TOKEN,
      ["--rate", "1000", "-c", gateway.configFile],
      [...WITH_TOKEN, "-c", gateway.configFile, "--write"],
    ]) {
      expectA(await attack(gateway.url, args));
    }
  });

  test("what is decided on a public and on a guarded path is decided by what the upstream shows", async () => {
    const report = await attack(gateway.url, [...WITH_TOKEN, "-c", gateway.configFile]);
    const kept = report.findings.filter(({ code }) => code === "identity_kept_out");
    expect(kept.map(({ what }) => what.split(":")[0])).toEqual([
      "/v1/models",
      "/public/gatehouse-doctor",
    ]);
    expect(report.find("identity_not_removable")?.severity).toBe("ok");
    expect(report.find("path_tricks")?.severity).toBe("ok");
  });

  test("an upstream of its own on every address is found past it", async () => {
    const open = Bun.serve({ hostname: "0.0.0.0", port: 0, fetch: () => new Response("open") });
    const other = await startCompiled({
      config: config(`http://127.0.0.2:${open.port}`),
      env: ENV,
    });
    const report = await attack(other.url, [...WITH_TOKEN, "-c", other.configFile]);
    expect(report.find("upstream_direct")?.severity).toBe("error");
    expect(report.grade).toBe("F");
    expect(report.exitCode).toBe(3);
    await other.stop();
    await open.stop(true);
  });
});

describe("TLS", () => {
  test("a certificate that is not trusted is an error, and the token is not shown to it", async () => {
    const seen = showing();
    const gateway = await startCompiled({
      config: config(`http://${seen.address}`, "  tls: { cert: ./cert.pem, key: ./key.pem }"),
      env: ENV,
      files: { "cert.pem": GOOD_CERTIFICATE, "key.pem": A_KEY },
    });
    const address = gateway.address.replace("127.0.0.1", "https://localhost");
    const report = await attack(address);
    expect(report.find("tls_distrusted")?.severity).toBe("error");
    expect(report.find("no_token")).toBeDefined();
    expect(report.grade).toBe("D");
    expect(report.exitCode).toBe(3);
    // Only a good token leads to a guarded path.
    expect(seen.seen.filter(({ line }) => line.includes("/v1/models"))).toEqual([]);

    const trusted = await attack(address, WITH_TOKEN, {
      NODE_EXTRA_CA_CERTS: join(gateway.dir, "cert.pem"),
    });
    expect(trusted.find("tls_trusted")?.severity).toBe("ok");
    expect(trusted.find("tls_version")?.what).toContain("TLSv1.3");
    expect(trusted.find("hsts_absent")?.severity).toBe("info");
    expect(trusted.find("token_exact")?.severity).toBe("ok");
    expectA(trusted);
    await gateway.stop();
    seen.stop();
  });

  test("no TLS where TLS was asked for", async () => {
    const ran = await runBinary(["doctor", "--probe", `https://${upstream.address}/`]);
    expect(ran.code).toBe(69);
    expect(ran.stderr).toContain("no TLS handshake");
  });
});

/** Plain reverse proxies: the gateway decides. */
const PLAIN: Readonly<Record<ProxyName, (gateway: string) => string>> = {
  nginx: (gateway) => `server {
  listen 80;
  server_tokens off;
  location / {
    proxy_pass http://${gateway};
    proxy_http_version 1.1;
    proxy_set_header Host $http_host;
    proxy_set_header X-Forwarded-For $remote_addr;
  }
}
`,
  caddy: (gateway) => `app.example.com {
	reverse_proxy ${gateway}
}
`,
  haproxy: (gateway) => `defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
frontend all
  bind :80 
  default_backend gate
backend gate
  # lua-load /etc/haproxy/gatehouse.lua
  server gate ${gateway}
`,
};

describe.each(["nginx", "caddy", "haproxy"] as const)("behind a real %s", (name) => {
  const missing = proxyMissing(name);

  test.skipIf(missing !== null)(
    `that forwards everything to the gateway: A ${missing ?? ""}`,
    async () => {
      const gateway = await startCompiled({
        config: config(`http://${upstream.address}`),
        env: ENV,
      });
      const proxy = await startProxy(name, { text: PLAIN[name](gateway.address) });
      expectA(await attack(`http://${proxy.address}`, [...WITH_TOKEN, "-c", gateway.configFile]));
      await proxy.stop();
      await gateway.stop();
    },
  );

  test.skipIf(missing !== null)(
    `that asks the gateway, as emitted: A ${missing ?? ""}`,
    async () => {
      const trusting = "  trusted_proxies: [127.0.0.1/32]";
      const check = `  - { match: { path: /auth/${name === "haproxy" ? "generic" : name} }, check: ${name === "haproxy" ? "generic" : name} }`;
      const text = config(`http://${upstream.address}`, trusting, check).replaceAll(
        "upstream: api",
        "upstream: proxy",
      );
      const gateway = await startCompiled({
        config: text.replace(/^upstreams:\n.*\n/m, ""),
        env: ENV,
      });
      const to = ["--gateway", gateway.url, "--upstream", `http://${upstream.address}`];
      const lua =
        name === "haproxy" ? { lua: await emitted(gateway.configFile, name, "--lua", ...to) } : {};
      const proxy = await startProxy(name, {
        text: await emitted(gateway.configFile, name, ...to),
        ...lua,
      });
      expectA(await attack(`http://${proxy.address}`, [...WITH_TOKEN, "-c", gateway.configFile]));
      await proxy.stop();
      await gateway.stop();
    },
  );
});

const noNginx = proxyMissing("nginx");
describe.skipIf(noNginx !== null)(`a real nginx, set up wrongly ${noNginx ?? ""}`, () => {
  /** The routes as they are meant. */
  const intended = (): string => {
    const file = join(scratch(), "gatehouse.yaml");
    void Bun.write(file, config("http://127.0.0.2:1"));
    return file;
  };

  async function attackNginx(text: string, path = "/v1/models"): Promise<Examined> {
    const proxy = await startProxy("nginx", { text });
    const args = ["--probe", `http://${proxy.address}${path}`, ...WITH_TOKEN, "-c", intended()];
    const report = await examine(args, { env: ENV });
    await proxy.stop();
    return report;
  }

  /** nginx checks by itself whether the header is the expected one. */
  const guarded = (server: string): string => `map $http_authorization $is_allowed {
  default 0;
  "Bearer ${OPS}" 1;
}
server {
  listen 80;
  ${server}
}
`;
  const to = (path = ""): string => `proxy_pass http://${upstream.address}${path};`;
  const GUARD = "if ($is_allowed = 0) { add_header WWW-Authenticate Bearer always; return 401; }";

  test("a map compares without regard to case", async () => {
    const report = await attackNginx(
      guarded(
        `location /public/ { ${to()} } location /health { ${to()} } location / { ${GUARD} ${to()} }`,
      ),
    );
    expect(report.find("token_inexact")?.what).toContain("the other case");
    expect(report.grade).toBe("F");
    // The upstream sees whatever the client says of himself, and his credential.
    expect(report.find("identity_forged")?.what).toContain("x-gatehouse-identity");
    expect(report.find("credential_forwarded")).toBeDefined();
  });

  test("a prefix without its slash leads out of the public part", async () => {
    const report = await attackNginx(
      guarded(`location /public { ${to("/")} } location / { ${GUARD} ${to()} }`),
    );
    expect(report.find("path_trick")?.what).toContain("/public../v1/models");
    expect(report.grade).toBe("F");
  });

  test("one guarded path instead of one open one leaves the rest open", async () => {
    const report = await attackNginx(
      guarded(`location = /v1/models { ${GUARD} ${to()} } location / { ${to()} }`),
    );
    expect(report.find("path_open")?.severity).toBe("error");
    expect(report.find("path_spelling_open")?.what).toContain("/v1/models/");
    expect(report.grade).toBe("F");
  });

  test("any Authorization at all is not a credential", async () => {
    const report = await attackNginx(`server {
  listen 80;
  location /public/ { ${to()} }
  location / {
    if ($http_authorization = "") { return 401; }
    ${to()}
  }
}
`);
    expect(report.find("wrong_credential_passes")?.severity).toBe("error");
    expect(report.find("challenge_missing")?.severity).toBe("warning");
    expect(report.grade).toBe("F");
  });

  test("limit_except guards one method alone", async () => {
    const report = await attackNginx(`server {
  listen 80;
  location /public/ { ${to()} }
  location / {
    limit_except HEAD OPTIONS { deny all; }
    ${to()}
  }
}
`);
    expect(report.find("method_open")?.what).toContain("HEAD");
    expect(report.find("options_open")?.severity).toBe("warning");
    expect(report.grade).toBe("F");
  });

  test("asking the gateway and then not setting what it said lets clients say who they are", async () => {
    const trusting = "  trusted_proxies: [127.0.0.1/32]";
    const check = "  - { match: { path: /auth/nginx }, check: nginx }";
    const gateway = await startCompiled({
      config: config("http://127.0.0.2:1", trusting, check),
      env: ENV,
    });
    const report = await attackNginx(`server {
  listen 80;
  auth_request /ask;
  location = /ask {
    internal;
    proxy_pass ${gateway.url}/auth/nginx;
    proxy_pass_request_body off;
    proxy_set_header Content-Length "";
    proxy_set_header X-Original-Method $request_method;
    proxy_set_header X-Original-URL http://$http_host$request_uri;
  }
  location / { ${to()} }
}
`);
    expect(report.find("identity_forged")?.what).toContain("x-gatehouse-identity");
    expect(report.find("credential_forwarded")).toBeDefined();
    expect(report.find("wrong_credential")?.severity).toBe("ok");
    expect(report.grade).toBe("F");
    await gateway.stop();
  });
});
