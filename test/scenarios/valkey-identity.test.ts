/**
 * Whose token is it? 64 connections with 10,000 tokens in one Valkey, through the whole gateway, while Valkey is
 * killed, restarted and filled again under them.
 *
 * Invariant: an answer that lets a request pass names the owner of the very token that was sent, on the way to an
 * upstream and to a proxy that asks; everything else is 401 or 503.
 */
import { describe, expect, onTestFinished, test } from "bun:test";
import { blake3 } from "@noble/hashes/blake3.js";
import type { Socket } from "bun";
import { describeBoth, type GatewayUnderTest } from "../support/gateway.ts";
import { rawUpstream, target, valuesOf } from "../support/raw.ts";
import {
  startValkey,
  TEST_SALT,
  type TestValkey,
  until,
  valkeyMissing,
} from "../support/valkey.ts";

const CONNECTIONS = 64;
const TOKENS = 10_000;
/** Answers between two events, so that each is met under load. */
const SOME = 2000;

/** One token and what must be said about it. */
interface Holder {
  readonly token: string;
  readonly hash: string;
  readonly owner: string;
}

/** As rusty-valkey-forward-auth would have made them; the hash shares no code with the strategy. */
const KEY = new Uint8Array(Buffer.from(TEST_SALT, "hex"));
const HOLDERS: readonly Holder[] = Array.from({ length: TOKENS }, (_, n) => {
  const token = `T${String(n).padStart(5, "0")}${"abcdefghijklmnopqrstuvwxyz"}`;
  const hash = Buffer.from(blake3(new TextEncoder().encode(token), { key: KEY })).toString("hex");
  return { token, hash, owner: `owner-${n}` };
});

async function fill(valkey: TestValkey): Promise<void> {
  const client = valkey.client();
  for (let from = 0; from < TOKENS; from += 1000) {
    const batch = client.pipeline();
    for (const { hash, owner } of HOLDERS.slice(from, from + 1000)) {
      const created_at = "2026-01-02T03:04:05Z";
      batch.hset(`auth:token:${hash}`, { sub: owner, created_at, description: "" });
    }
    await batch.exec();
  }
  client.disconnect();
}

function config(valkey: TestValkey, upstream: string): string {
  return `version: 1
server: { listen: "127.0.0.1:0", trusted_proxies: [127.0.0.1/32] }
strategies: { keys: { use: valkey-hash, url: "${valkey.url}", salt: "\${env:TOKEN_SALT}", command_timeout: 1s } }
upstreams: { api: { url: "http://${upstream}" } }
logging: { access: false }
routes:
  - { match: { path: /auth }, check: traefik }
  - { match: { path: /** }, access: [keys], upstream: api, identity_headers: { identity: x-id, owner: x-owner } }
`;
}

/** One connection that is kept: a request, then its whole answer. */
interface Wire {
  ask(
    bytes: string,
  ): Promise<{ readonly status: number; readonly head: string; readonly body: string }>;
  close(): void;
}

async function openWire(address: string): Promise<Wire> {
  let text = "";
  let isClosed = false;
  let waiting = Promise.withResolvers<void>();
  const socket: Socket = await Bun.connect({
    ...(target(address) as { hostname: string; port: number }),
    socket: {
      data(_, chunk) {
        text += chunk.toString("latin1");
        waiting.resolve();
      },
      close() {
        isClosed = true;
        waiting.resolve();
      },
      error() {},
    },
  });
  return {
    async ask(bytes) {
      socket.write(bytes);
      for (;;) {
        const end = text.indexOf("\r\n\r\n");
        const head = text.slice(0, end);
        const length = Number(/^content-length: (\d+)\r?$/im.exec(head)?.[1] ?? 0);
        if (end !== -1 && text.length >= end + 4 + length) {
          const body = text.slice(end + 4, end + 4 + length);
          text = text.slice(end + 4 + length);
          return { status: Number(head.slice(9, 12)), head, body };
        }
        if (isClosed) throw new Error("the gateway closed a connection");
        await waiting.promise;
        waiting = Promise.withResolvers<void>();
      }
    },
    close: () => void socket.terminate(),
  };
}

const valueIn = (head: string, name: string): string =>
  new RegExp(`^${name}: ?(.*?)\r?$`, "im").exec(head)?.[1] ?? "(none)";

/** Asks about one token, by the upstream or as Traefik does. What was said: who it is, or the status. */
async function who(wire: Wire, token: string, place: string, isQuestion: boolean): Promise<string> {
  const credential = `Authorization: Bearer ${token}\r\n`;
  if (!isQuestion) {
    const { status, body } = await wire.ask(
      `GET ${place} HTTP/1.1\r\nHost: a\r\n${credential}\r\n`,
    );
    return status === 200 ? body : String(status);
  }
  const words = `X-Forwarded-Method: GET\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a\r\nX-Forwarded-Uri: ${place}\r\n`;
  const { status, head } = await wire.ask(
    `GET /auth HTTP/1.1\r\nHost: g\r\n${words}${credential}\r\n`,
  );
  return status === 200
    ? `${place} ${valueIn(head, "x-id")} ${valueIn(head, "x-owner")}`
    : String(status);
}

/** What the callers were told. `wrong` has every answer that must not be. */
interface Tally {
  right: number;
  unknown: number;
  fault: number;
  readonly wrong: string[];
}

function note(tally: Tally, holder: Holder | null, place: string, said: string): void {
  if (said === "401") tally.unknown += 1;
  else if (said === "503") tally.fault += 1;
  else if (holder !== null && said === `${place} ${holder.hash} ${holder.owner}`) tally.right += 1;
  else tally.wrong.push(`${place} as ${holder?.owner ?? "nobody"}: ${said}`);
}

const NEW_TALLY = (): Tally => ({ right: 0, unknown: 0, fault: 0, wrong: [] });

/** Every token once, over all connections. */
async function sweep(wires: readonly Wire[], isQuestion: boolean): Promise<Tally> {
  const tally = NEW_TALLY();
  let next = 0;
  const caller = async (wire: Wire): Promise<void> => {
    for (let n = next++; n < TOKENS; n = next++) {
      const holder = HOLDERS[n] ?? null;
      const place = `/n/${n}`;
      note(tally, holder, place, await who(wire, holder?.token ?? "", place, isQuestion));
    }
  };
  await Promise.all(wires.map(caller));
  return tally;
}

/** Any token, and now and then one that nobody has, until it is over. */
async function callAtRandom(wire: Wire, tally: Tally, isOver: () => boolean): Promise<void> {
  for (let round = 0; !isOver(); round += 1) {
    const n = Math.floor(Math.random() * TOKENS * 1.02);
    const holder = HOLDERS[n] ?? null;
    const place = `/n/${n}`;
    const token = holder?.token ?? `S${n}${"abcdefghijklmnopqrstuvwxyz"}`;
    note(tally, holder, place, await who(wire, token, place, round % 2 === 0));
  }
}

async function storm(wires: readonly Wire[], valkey: TestValkey): Promise<Tally> {
  const tally = NEW_TALLY();
  let isOver = false;
  const callers = wires.map((wire) => callAtRandom(wire, tally, () => isOver));
  const grows = (what: "right" | "unknown" | "fault", by: number): Promise<number> => {
    const before = tally[what];
    return until(() => tally[what] >= before + by);
  };
  for (let round = 0; round < 2; round += 1) {
    await grows("right", SOME);
    await valkey.kill();
    await grows("fault", 100);
    await valkey.restart();
    // It is empty: known to nobody until it is filled again.
    await grows("unknown", SOME);
    await fill(valkey);
  }
  await grows("right", SOME);
  isOver = true;
  await Promise.all(callers);
  return tally;
}

async function openWires(gateway: GatewayUnderTest): Promise<readonly Wire[]> {
  return Promise.all(Array.from({ length: CONNECTIONS }, () => openWire(gateway.address)));
}

if (valkeyMissing !== null) {
  describe.skip(`64 connections with 10,000 tokens (${valkeyMissing})`, () => {});
} else {
  describeBoth("64 connections with 10,000 tokens", (start) => {
    test("never get another's identity, also across a restart of Valkey", async () => {
      const valkey = await startValkey();
      onTestFinished(() => valkey.stop());
      const upstream = rawUpstream((request, write) => {
        upstream.seen.length = 0;
        const [, place = ""] = request.line.split(" ");
        const said = `${place} ${valuesOf(request, "x-id").join("+")} ${valuesOf(request, "x-owner").join("+")}`;
        write(`HTTP/1.1 200 OK\r\nContent-Length: ${said.length}\r\n\r\n${said}`);
      });
      onTestFinished(() => upstream.stop());
      await fill(valkey);
      const gateway = await start({
        config: config(valkey, upstream.address),
        env: { TOKEN_SALT: TEST_SALT },
      });
      const wires = await openWires(gateway);
      const all = { right: TOKENS, unknown: 0, fault: 0, wrong: [] };
      expect(await sweep(wires, true)).toEqual(all);
      const { wrong, right } = await storm(wires, valkey);
      expect(wrong).toEqual([]);
      expect(right).toBeGreaterThan(3 * SOME);
      expect(await sweep(wires, false)).toEqual(all);
      for (const wire of wires) wire.close();
    }, 60_000);
  });
}
