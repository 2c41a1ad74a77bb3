/**
 * Whole-program scenarios of TLS, on listeners and towards upstreams.
 *
 * Invariant: a certificate that does not fit is refused before the upstream sees a byte of the request. Certificates
 * are made by openssl for this run; without it the scenarios say so and are skipped.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect, type TLSSocket } from "node:tls";
import {
  describeBoth,
  type GatewayUnderTest,
  OPS_ENV,
  type StartGateway,
  simpleConfig,
} from "../support/gateway.ts";
import { config, get } from "../support/listen-config.ts";
import { eventually, openRaw, raw } from "../support/raw.ts";
import { untilEnd } from "../support/upstreams.ts";

const { stops, upstreamOf } = untilEnd();

const hasOpenssl = Bun.which("openssl") !== null;
if (!hasOpenssl) {
  process.stderr.write("the TLS scenarios are skipped: no openssl in PATH to make certificates\n");
}

let dir = "";
const file = (name: string) => join(dir, name);

function openssl(...args: string[]): void {
  const { exitCode, stderr } = Bun.spawnSync(["openssl", ...args], { cwd: dir });
  if (exitCode !== 0) throw new Error(`openssl ${args[0]}: ${stderr.toString()}`);
}

/** A certificate for these names, signed by our authority, and its key: NAME.pem, NAME.key. */
function issue(name: string, names: string): void {
  const ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  openssl("req", ...ec, "-keyout", `${name}.key`, "-out", `${name}.csr`, "-subj", `/CN=${name}`);
  writeFileSync(file(`${name}.ext`), `subjectAltName=${names}\n`);
  const by = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2"];
  openssl(
    "x509",
    "-req",
    "-in",
    `${name}.csr`,
    ...by,
    "-extfile",
    `${name}.ext`,
    "-out",
    `${name}.pem`,
  );
}

beforeAll(() => {
  if (!hasOpenssl) return;
  dir = mkdtempSync(join(tmpdir(), "gatehouse-tls-"));
  const ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  const self = (name: string, ...more: string[]) =>
    openssl(
      "req",
      "-x509",
      ...ec,
      "-keyout",
      `${name}.key`,
      "-out",
      `${name}.pem`,
      "-days",
      "2",
      ...more,
    );
  self("ca", "-subj", "/CN=test authority");
  self(
    "selfsigned",
    "-subj",
    "/CN=localhost",
    "-addext",
    "subjectAltName=DNS:localhost,IP:127.0.0.1",
  );
  issue("local", "DNS:localhost,IP:127.0.0.1");
  issue("one", "DNS:one.example");
  issue("two", "DNS:two.example");
  issue("elsewhere", "DNS:elsewhere.example");
});
afterAll(() => {
  if (dir !== "") rmSync(dir, { recursive: true, force: true });
});

/** What a TLS client finds out in a handshake, and the answer to one request. */
function tlsGet(
  address: string,
  options: { servername?: string; ALPNProtocols?: string[]; request?: string },
): Promise<{ names: string; alpn: string | false | null; text: string }> {
  const colon = address.lastIndexOf(":");
  return new Promise((resolve, reject) => {
    const socket: TLSSocket = connect({
      host: address.slice(0, colon),
      port: Number(address.slice(colon + 1)),
      rejectUnauthorized: false,
      ...options,
    });
    let text = "";
    let facts = { names: "", alpn: null as string | false | null };
    socket.on("secureConnect", () => {
      facts = {
        names: socket.getPeerCertificate().subjectaltname ?? "",
        alpn: socket.alpnProtocol,
      };
      socket.write(options.request ?? get());
    });
    socket.on("data", (bytes) => {
      text += bytes.toString("latin1");
    });
    socket.on("error", reject);
    socket.on("close", () => resolve({ ...facts, text }));
  });
}

describe.skipIf(!hasOpenssl)("TLS", () => {
  const tls = () => `  tls:
    - { cert: ${file("local.pem")}, key: ${file("local.key")} }
    - { cert: ${file("one.pem")}, key: ${file("one.key")}, name: one.example }
    - { cert: ${file("two.pem")}, key: ${file("two.key")}, name: Two.Example }
`;

  describeBoth("of a listener", (start) => {
    let gateway: GatewayUnderTest;
    const upstream = upstreamOf();
    beforeAll(async () => {
      const text = config(["127.0.0.1:0"], `http://${upstream.address}`, tls());
      gateway = await start({ config: text });
    });

    test.each([
      ["one.example", "DNS:one.example"],
      ["two.example", "DNS:two.example"],
      ["TWO.example", "DNS:two.example"],
      ["three.example", "DNS:localhost, IP Address:127.0.0.1"],
    ])(
      "answers %s with its own certificate, and a strange name with the first",
      async (servername, names) => {
        const got = await tlsGet(gateway.address, { servername });
        expect(got.names).toBe(names);
        expect(got.text).toStartWith("HTTP/1.1 200 OK\r\n");
      },
    );

    test("answers a client that names nobody with the first certificate", async () => {
      expect((await tlsGet(gateway.address, {})).names).toBe("DNS:localhost, IP Address:127.0.0.1");
    });

    test("speaks HTTP/1.1 only, whatever else a client offers", async () => {
      const both = { servername: "one.example", ALPNProtocols: ["h2", "http/1.1"] };
      expect((await tlsGet(gateway.address, both)).alpn).toBe("http/1.1");
      const none = await tlsGet(gateway.address, { servername: "one.example" });
      expect(none.alpn === false || none.alpn === null).toBe(true);
    });

    test("tells the upstream https, and serves a verifying client", async () => {
      const { port } = new URL(`http://${gateway.address}`);
      const response = await fetch(`https://localhost:${port}/public/v`, {
        tls: { ca: readFileSync(file("ca.pem"), "utf8") },
      });
      expect(response.status).toBe(200);
      expect(upstream.seen.at(-1)?.head).toContain("X-Forwarded-Proto: https");
    });

    test("survives plain HTTP, garbage and half a handshake on its port", async () => {
      const silent = await openRaw(gateway.address);
      silent.send("\x16\x03\x01\x02\x00\x01");
      const before = upstream.seen.length;
      for (const bytes of [get(), "\x16\x03\x01\xff\xff garbage", "\0\0\0\0"]) {
        const { statuses } = await raw(gateway.address, bytes, { timeoutMs: 300 });
        expect(statuses).toEqual([]);
      }
      expect(upstream.seen.length).toBe(before);
      silent.kill();
      expect((await tlsGet(gateway.address, {})).text).toStartWith("HTTP/1.1 200 OK\r\n");
    });

    test("carries large bodies whole, with back-pressure", async () => {
      const large = Buffer.alloc(12_000_000);
      for (let i = 0; i < large.length; i += 4) large.writeUInt32BE(i, i);
      const echo = Bun.serve({
        hostname: "127.0.0.1",
        port: 0,
        fetch: async (request) => new Response(await request.arrayBuffer()),
      });
      stops.push(() => echo.stop(true));
      const other = await start({
        config: config(["127.0.0.1:0"], `http://127.0.0.1:${echo.port}`, tls()),
      });
      const { port } = new URL(`http://${other.address}`);
      const response = await fetch(`https://localhost:${port}/public/v`, {
        method: "POST",
        body: large,
        tls: { ca: readFileSync(file("ca.pem"), "utf8") },
      });
      expect(large.equals(Buffer.from(await response.arrayBuffer()))).toBe(true);
    });
  });

  describeBoth("that is renewed", (start) => {
    const upstream = upstreamOf();
    let round = 0;

    /** A pair of files of its own, with the content of another. */
    function pair(): { yaml: string; renew(from: string): void } {
      round += 1;
      const live = `live-${round}`;
      const renew = (from: string): void => {
        for (const end of ["pem", "key"]) {
          writeFileSync(file(`${live}.${end}`), readFileSync(file(`${from}.${end}`)), {
            mode: 0o600,
          });
        }
      };
      renew("one");
      const named = `    - { cert: ${file("local.pem")}, key: ${file("local.key")}, name: localhost }\n`;
      return {
        yaml: `  tls:\n    - { cert: ${file(`${live}.pem`)}, key: ${file(`${live}.key`)} }\n${named}`,
        renew,
      };
    }

    test("is shown to whoever comes after the reload, and nobody is turned away meanwhile", async () => {
      const { yaml, renew } = pair();
      const text = config(["127.0.0.1:0"], `http://${upstream.address}`, yaml);
      const gateway = await start({ config: text });
      const open = connect({
        host: "127.0.0.1",
        port: Number(gateway.address.split(":")[1]),
        rejectUnauthorized: false,
      });
      let got = "";
      open.on("data", (bytes) => {
        got += bytes.toString("latin1");
      });
      const answers = (): number => got.split("HTTP/1.1 200").length - 1;
      open.write("GET /public/a HTTP/1.1\r\nHost: a\r\n\r\n");
      await eventually("it is answered", () => answers() === 1);
      let isOver = false;
      const seen: string[] = [];
      const comers = [undefined, "localhost", "strange.example"].map(async (servername) => {
        while (!isOver) {
          const options = servername === undefined ? {} : { servername };
          const { names, text: answer } = await tlsGet(gateway.address, options);
          if (!answer.startsWith("HTTP/1.1 200")) throw new Error(`turned away: ${answer}`);
          if (servername !== "localhost") seen.push(names);
        }
      });
      for (const from of ["two", "one", "two"]) {
        const before = seen.length;
        await eventually("they come", () => seen.length > before + 4);
        renew(from);
        expect(await gateway.reload(text)).toBeNull();
        for (const options of [{}, { servername: "strange.example" }]) {
          expect((await tlsGet(gateway.address, options)).names).toBe(`DNS:${from}.example`);
        }
        const other = await tlsGet(gateway.address, { servername: "localhost" });
        expect(other.names).toStartWith("DNS:localhost");
      }
      isOver = true;
      await Promise.all(comers);
      expect(new Set(seen)).toEqual(new Set(["DNS:one.example", "DNS:two.example"]));
      open.write("GET /public/b HTTP/1.1\r\nHost: a\r\n\r\n");
      await eventually("the connection from before is alive", () => answers() === 2);
      open.destroy();
    });

    test("is refused when the key does not fit, and the one before stays", async () => {
      const { yaml, renew } = pair();
      const text = config(["127.0.0.1:0"], `http://${upstream.address}`, yaml);
      const gateway = await start({ config: text });
      const key = yaml.match(/key: (\S+live-\d+\.key)/)?.[1] ?? "";
      writeFileSync(key, readFileSync(file("two.key")));
      expect(await gateway.reload(text)).toContain("this key does not belong to the certificate");
      expect((await tlsGet(gateway.address, {})).names).toBe("DNS:one.example");
      renew("two");
      expect(await gateway.reload(text)).toBeNull();
      expect((await tlsGet(gateway.address, {})).names).toBe("DNS:two.example");
    });

    test("ends speaking in the clear where it is new", async () => {
      const { yaml } = pair();
      const plain = config(["127.0.0.1:0"], `http://${upstream.address}`);
      const gateway = await start({ config: plain });
      const before = await openRaw(gateway.address);
      before.send("GET /public/a HTTP/1.1\r\nHost: a\r\n\r\n");
      await before.read({ until: (text) => text.includes("200 OK") });
      expect(
        await gateway.reload(config(["127.0.0.1:0"], `http://${upstream.address}`, yaml)),
      ).toBeNull();
      expect((await before.read()).closed).toBe(true);
      const count = upstream.seen.length;
      expect((await raw(gateway.address, get(), { timeoutMs: 300 })).statuses).toEqual([]);
      expect(upstream.seen.length).toBe(count);
      expect((await tlsGet(gateway.address, {})).names).toBe("DNS:one.example");
      expect(await gateway.reload(plain)).toBeNull();
      expect((await raw(gateway.address, get())).statuses).toEqual([200]);
    });
  });

  describeBoth("of an upstream", (start) => {
    function secured(name: string) {
      let seen = 0;
      const server = Bun.serve({
        hostname: "127.0.0.1",
        port: 0,
        tls: {
          cert: readFileSync(file(`${name}.pem`), "utf8"),
          key: readFileSync(file(`${name}.key`), "utf8"),
        },
        fetch() {
          seen += 1;
          return new Response("secret");
        },
      });
      stops.push(() => server.stop(true));
      return {
        port: server.port,
        get seen() {
          return seen;
        },
      };
    }

    const gatewayTo = (as: StartGateway, url: string, ca: boolean) =>
      as({
        config: simpleConfig(url, { upstream: ca ? `    ca: ${file("ca.pem")}` : "" }),
        env: OPS_ENV,
      });

    test.each(["localhost", "127.0.0.1"])(
      "is spoken to when its certificate fits %s and the authority",
      async (host) => {
        const upstream = secured("local");
        const gateway = await gatewayTo(start, `https://${host}:${upstream.port}`, true);
        const { statuses, text } = await raw(gateway.address, get());
        expect(statuses).toEqual([200]);
        expect(text).toEndWith("secret");
      },
    );

    test.each([
      ["names somebody else", "elsewhere", true],
      ["is signed by itself", "selfsigned", true],
      ["is signed by an authority that the system does not know", "local", false],
    ])("that %s is refused: 502, and it sees nothing", async (_, name, ca) => {
      const upstream = secured(name);
      const gateway = await gatewayTo(start, `https://localhost:${upstream.port}`, ca);
      const { statuses, text } = await raw(gateway.address, get());
      expect(statuses).toEqual([502]);
      expect(text).toContain("X-Gatehouse-Reason: upstream_unreachable\r\n");
      expect(upstream.seen).toBe(0);
      await eventually("it is logged", () => gateway.events("request.fault").length > 0);
    });

    test("that speaks no TLS at all is refused too", async () => {
      let got = "";
      const plain = Bun.listen({
        hostname: "127.0.0.1",
        port: 0,
        socket: {
          data(socket, bytes) {
            got += bytes.toString("latin1");
            socket.end("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
          },
        },
      });
      stops.push(() => plain.stop(true));
      const gateway = await gatewayTo(start, `https://127.0.0.1:${plain.port}`, true);
      expect((await raw(gateway.address, get())).statuses).toEqual([502]);
      expect(got).not.toContain("GET");
    });
  });
});
