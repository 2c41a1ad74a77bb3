/**
 * A configuration that is read anew while a store or an issuer is away: what does not concern it must not wait for it.
 *
 * Invariant: a real Valkey is killed, a real key server is gone; nobody passes who would not with them.
 */
import { expect, test } from "bun:test";
import { blake3 } from "@noble/hashes/blake3.js";
import { describeBoth } from "../support/gateway.ts";
import { newIssuerKey, startKeyServer, tokenMaker } from "../support/issuer-keys.ts";
import { eventually, openRaw, raw } from "../support/raw.ts";
import { untilEnd } from "../support/upstreams.ts";
import { startValkey, TEST_SALT, valkeyMissing } from "../support/valkey.ts";

const { stops, upstreamOf } = untilEnd();

const upstream = upstreamOf();

const get = (path: string, token: string) =>
  `GET ${path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${token}\r\nConnection: close\r\n\r\n`;

function config(strategy: string, open: "public" | "[it]"): string {
  return `version: 1
server: { listen: "127.0.0.1:0" }
strategies: { it: ${strategy} }
upstreams: { api: { url: "http://${upstream.address}" } }
routes:
  - { match: { path: /open }, access: ${open}, upstream: api }
  - { match: { path: /** }, access: [it], upstream: api }
`;
}

describeBoth("A reload", (start) => {
  const statusOf = async (address: string, path: string, token: string) =>
    (await raw(address, get(path, token))).statuses[0];

  test("keeps the keys of an issuer that is away", async () => {
    const key = newIssuerKey();
    const server = startKeyServer(key);
    const token = tokenMaker(server.url, Math.floor(Date.now() / 1000))(key);
    const oidc = `{ use: oidc, issuer: "${server.url}", audience: api }`;
    const gateway = await start({ config: config(oidc, "public") });
    expect(await statusOf(gateway.address, "/x", token)).toBe(200);
    await server.down();
    expect(await gateway.reload(config(oidc, "[it]"))).toBeNull();
    const seen = upstream.seen.length;
    expect(await statusOf(gateway.address, "/open", "nothing")).toBe(401);
    expect(upstream.seen.length).toBe(seen);
    expect(await statusOf(gateway.address, "/x", token)).toBe(200);
  });

  test("ends the streams of tokens that were let in by other rules", async () => {
    const key = newIssuerKey();
    const server = startKeyServer(key);
    const token = tokenMaker(server.url, Math.floor(Date.now() / 1000))(key);
    const streaming = upstreamOf((_, write) =>
      write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n"),
    );
    const oidc = (more: string) =>
      config(`{ use: oidc, issuer: "${server.url}", audience: api${more} }`, "public").replace(
        upstream.address,
        streaming.address,
      );
    const gateway = await start({ config: oidc("") });
    const stream = await openRaw(gateway.address);
    stream.send(get("/s", token).replace("Connection: close\r\n", ""));
    await stream.read({ until: (text) => text.includes("hi") });
    // How long keys are kept says nothing about who may enter.
    expect(await gateway.reload(oidc(", keep_keys: 2h"))).toBeNull();
    expect(await statusOf(gateway.address, "/open", token)).toBe(200);
    expect((await stream.read({ until: () => true })).closed).toBe(false);
    expect(await gateway.reload(oidc(', require_claims: { level: "high" }'))).toBeNull();
    expect((await stream.read()).closed).toBe(true);
    const seen = streaming.seen.length;
    expect(await statusOf(gateway.address, "/s", token)).toBe(401);
    expect(streaming.seen.length).toBe(seen);
  });

  test.skipIf(valkeyMissing !== null)(
    "closes a route while Valkey is away, and knows its tokens when it is back",
    async () => {
      const valkey = await startValkey();
      stops.push(() => valkey.stop());
      const token = `token-${"x".repeat(26)}`;
      const hash = blake3(new TextEncoder().encode(token), { key: Buffer.from(TEST_SALT, "hex") });
      const fill = async () => {
        const client = valkey.client();
        const created_at = "2026-01-02T03:04:05Z";
        await client.hset(`auth:token:${Buffer.from(hash).toString("hex")}`, {
          ...{ sub: "alice", created_at, description: "" },
        });
        client.disconnect();
      };
      await fill();
      const keys = (more = "") =>
        `{ use: valkey-hash, url: "${valkey.url}", salt: "\${env:TOKEN_SALT}"${more} }`;
      const env = { TOKEN_SALT: TEST_SALT };
      const gateway = await start({ config: config(keys(), "public"), env });
      expect(await statusOf(gateway.address, "/x", token)).toBe(200);
      await valkey.kill();
      expect(await gateway.reload(config(keys(), "[it]"))).toBeNull();
      const seen = upstream.seen.length;
      expect(await statusOf(gateway.address, "/open", token)).toBe(503);
      // What is about this very strategy cannot be done without it.
      const refusal = await gateway.reload(config(keys(', header: "x-key"'), "public"));
      expect(refusal).toContain("strategy it (valkey-hash) cannot start");
      expect(await statusOf(gateway.address, "/open", token)).toBe(503);
      expect(upstream.seen.length).toBe(seen);
      await valkey.restart();
      await fill();
      let last: number | undefined;
      const looking = setInterval(async () => {
        last = await statusOf(gateway.address, "/open", token);
      }, 50);
      await eventually("it is back", () => last === 200, 10_000).finally(() =>
        clearInterval(looking),
      );
    },
    30_000,
  );
});
