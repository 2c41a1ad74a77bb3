/** `gatehouse doctor --probe` about TLS, and about chains that answer otherwise than they should. */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import type { Target } from "../../src/cli/probe/target.ts";
import { lookAtTls, plainPortFindings } from "../../src/cli/probe/tls.ts";
import { type Examined, examine } from "../support/doctor.ts";
import { scratch, startCompiled } from "../support/gateway.ts";
import { freePort, proxyMissing, startProxy } from "../support/proxies.ts";
import { rawUpstream } from "../support/raw.ts";
import { A_KEY, GOOD_CERTIFICATE, hasOpenssl, makeCertificate } from "../support/tls-fixtures.ts";

const TARGET: Target = {
  isTls: true,
  host: "127.0.0.1",
  port: 443,
  authority: "127.0.0.1",
  origin: "https://127.0.0.1",
  path: "/",
  addresses: ["127.0.0.1"],
  isNear: true,
};
/** Stands for a free port in a text. */
const TLS_PORT = "TLSPORT";
const NOW_MS = Date.parse("2026-01-01T00:00:00Z");

/** Answers every request with this head and no body, one request a connection. */
function answering(head: (line: string) => string): ReturnType<typeof rawUpstream> {
  return rawUpstream(({ line }, write, close) => {
    write(`HTTP/1.1 ${head(line)}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`);
    close();
  });
}

const probe = (address: string, ...args: string[]): Promise<Examined> =>
  examine(["--probe", address, "--rate", "1000", ...args]);

describe("TLS", () => {
  test("none at all is an error over the internet, and a remark at home", async () => {
    const plain = { ...TARGET, isTls: false, port: 80 };
    const far = await lookAtTls({ ...plain, isNear: false }, NOW_MS);
    expect(far.findings.map(({ code, severity }) => [code, severity])).toEqual([
      ["tls_none", "error"],
    ]);
    expect(far.mayCarryToken).toBe(false);
    const near = await lookAtTls(plain, NOW_MS);
    expect(near.findings.map(({ severity }) => severity)).toEqual(["info"]);
    expect(near.mayCarryToken).toBe(true);
  });

  test("a port that answers in clear beside it is a warning, one that redirects is none", async () => {
    const open = answering(() => "200 OK");
    const redirecting = answering(() => "308 Moved\r\nLocation: https://127.0.0.1/");
    const codes = async (port: number) =>
      (await plainPortFindings(TARGET, port)).map(({ code }) => code);
    expect(await codes(open.port)).toEqual(["tls_optional"]);
    expect(await codes(redirecting.port)).toEqual([]);
    redirecting.stop();
    expect(await codes(redirecting.port)).toEqual([]);
    open.stop();
  });

  test.skipIf(!hasOpenssl)(
    "a certificate that ends soon is a warning (needs openssl)",
    async () => {
      const dir = scratch();
      makeCertificate(dir, 5);
      const server = Bun.serve({
        hostname: "localhost",
        port: 0,
        tls: { cert: Bun.file(join(dir, "cert.pem")), key: Bun.file(join(dir, "key.pem")) },
        fetch: () => new Response("no", { status: 401, headers: { "www-authenticate": "Bearer" } }),
      });
      const report = await examine(
        ["--probe", `https://localhost:${server.port}/`, "--rate", "1000"],
        {
          env: { NODE_EXTRA_CA_CERTS: join(dir, "cert.pem") },
        },
      );
      expect(report.find("tls_expiring")?.severity).toBe("warning");
      expect(report.find("tls_distrusted")).toBeUndefined();
      expect(report.grade).toBe("B");
      await server.stop(true);
    },
  );

  test("browsers that are told to use TLS only are mentioned", async () => {
    const upstream = answering(() => "200 OK\r\nStrict-Transport-Security: max-age=31536000");
    const gateway = await startCompiled({
      config: `version: 1
server: { listen: "127.0.0.1:0", tls: { cert: ./cert.pem, key: ./key.pem } }
upstreams: { api: { url: "http://${upstream.address}" } }
routes:
  - { match: { path: /health }, access: public, upstream: api }
`,
      files: { "cert.pem": GOOD_CERTIFICATE, "key.pem": A_KEY },
    });
    const address = gateway.address.replace("127.0.0.1", "https://localhost");
    const report = await examine(["--probe", address, "--rate", "1000"], {
      env: { NODE_EXTRA_CA_CERTS: join(gateway.dir, "cert.pem") },
    });
    expect(report.find("hsts")?.severity).toBe("ok");
    await gateway.stop();
    upstream.stop();
  });

  const missing = proxyMissing("nginx");
  test.skipIf(missing !== null)(`old versions are a warning ${missing ?? ""}`, async () => {
    const dir = scratch();
    await Bun.write(join(dir, "cert.pem"), GOOD_CERTIFICATE);
    await Bun.write(join(dir, "key.pem"), A_KEY);
    const nginx = (versions: string): string => `server {
  listen 80;
  listen 127.0.0.1:${TLS_PORT} ssl;
  ssl_certificate ${join(dir, "cert.pem")};
  ssl_certificate_key ${join(dir, "key.pem")};
  ssl_protocols ${versions};
  ssl_ciphers ALL:@SECLEVEL=0;
  return 401;
}
`;
    const codesOf = async (versions: string): Promise<readonly string[]> => {
      const port = await freePort();
      const proxy = await startProxy("nginx", {
        text: nginx(versions),
        replace: [[TLS_PORT, String(port)]],
      });
      const { findings } = await lookAtTls({ ...TARGET, host: "localhost", port }, NOW_MS);
      await proxy.stop();
      return findings.map(({ code }) => code);
    };
    expect(await codesOf("TLSv1 TLSv1.1 TLSv1.2")).toContain("tls_old");
    expect(await codesOf("TLSv1.2 TLSv1.3")).toContain("tls_version");
  });
});

describe("answers that were not expected", () => {
  const file = (): string => {
    const path = join(scratch(), "gatehouse.yaml");
    void Bun.write(
      path,
      `version: 1
strategies: { ops: { use: static-env, env: NOT_NEEDED_HERE } }
upstreams: { api: { url: "http://127.0.0.2:1" } }
routes:
  - { match: { path: /public/** }, access: public, upstream: api }
  - { match: { path: /** }, access: [ops], upstream: api }
`,
    );
    return path;
  };

  test("another answer than 401 where the configuration guards is a warning", async () => {
    const other = answering(() => "404 Not Found");
    const report = await probe(`http://${other.address}/v1`, "-c", file());
    expect(report.find("unexpected_answer")?.what).toContain("/v1 (404)");
    expect(report.find("unexpected_answer")?.severity).toBe("warning");
    other.stop();
  });

  test("a public path that is refused is a remark", async () => {
    const closed = answering(() => "401 No\r\nWWW-Authenticate: Bearer");
    const report = await probe(`http://${closed.address}/v1`, "-c", file());
    expect(report.find("public_closed")?.what).toContain("/public/gatehouse-doctor");
    expect(report.find("public_closed")?.severity).toBe("info");
    closed.stop();
  });

  test("without a configuration pages that tell too much are a warning, a health page is none", async () => {
    const open = (paths: readonly string[]) =>
      answering((line) =>
        paths.some((path) => line.startsWith(`GET ${path} `) || line.startsWith(`HEAD ${path} `))
          ? "200 OK\r\nX-Kind: page"
          : "401 No\r\nWWW-Authenticate: Bearer\r\nServer: something/1.22.1",
      );
    const telling = open(["/docs", "/health"]);
    const report = await probe(`http://${telling.address}/v1`);
    expect(report.find("path_public")?.what).toContain("/docs (200)");
    expect(report.find("path_usual")?.what).toContain("/health (200)");
    expect(report.find("version_shown")?.what).toContain("server");
    telling.stop();
    const usual = open(["/health"]);
    const fine = await probe(`http://${usual.address}/v1`);
    expect(fine.find("path_public")).toBeUndefined();
    expect(fine.find("guarded")?.severity).toBe("ok");
    usual.stop();
  });
});
