/** Sentinels that say of a failover at the worst moment: real servers, and a sentinel that can be told when to speak. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import type { Socket } from "bun";
import { startValkey, type TestValkey, until, valkeyMissing } from "../../test/support/valkey.ts";
import { lazyValkey, type ValkeyConnections } from "./connections.ts";

const suite = valkeyMissing === null ? describe : describe.skip;

/** A sentinel of one primary. */
interface TestSentinel {
  readonly port: number;
  /** From now on it tells its subscribers of a failover before it answers where the primary is. Once. */
  interrupt(): void;
  /** Whether that has happened. */
  readonly wasInterrupted: boolean;
  stop(): void;
}

const bulk = (text: string): string => `$${text.length}\r\n${text}\r\n`;

function startSentinel(primaryPort: number): TestSentinel {
  const subscribers = new Set<Socket>();
  const waiting = new Set<Socket>();
  let isToInterrupt = false;
  let wasInterrupted = false;
  const place = `*2\r\n${bulk("127.0.0.1")}${bulk(String(primaryPort))}`;
  const listener = Bun.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      data(socket, bytes) {
        const said = bytes.toString("latin1");
        if (said.includes("subscribe")) {
          subscribers.add(socket);
          socket.write(`*3\r\n${bulk("subscribe")}${bulk("+switch-master")}:1\r\n`);
        }
        if (said.includes("get-master-addr-by-name")) {
          if (isToInterrupt && subscribers.size > 0) {
            waiting.add(socket);
            const news = bulk("main 127.0.0.1 1 127.0.0.1 2");
            for (const one of subscribers) {
              one.write(`*3\r\n${bulk("message")}${bulk("+switch-master")}${news}`);
            }
          } else socket.write(place);
        }
        if (/\r\nsentinels\r\n/i.test(said)) socket.write("*0\r\n");
      },
      close(socket) {
        // Whoever heard of it has hung up; now the answer.
        if (!subscribers.delete(socket) || waiting.size === 0) return;
        [isToInterrupt, wasInterrupted] = [false, true];
        for (const one of waiting) one.write(place);
        waiting.clear();
      },
    },
  });
  return {
    port: listener.port,
    interrupt() {
      isToInterrupt = true;
    },
    get wasInterrupted() {
      return wasInterrupted;
    },
    stop: () => void listener.stop(true),
  };
}

suite(`sentinels${valkeyMissing === null ? "" : ` (${valkeyMissing})`}`, () => {
  let valkey: TestValkey;
  let sentinel: TestSentinel;
  let connections: ValkeyConnections;

  beforeEach(async () => {
    valkey = await startValkey();
    sentinel = startSentinel(valkey.port);
    connections = lazyValkey("/");
  });
  afterEach(async () => {
    connections.close();
    sentinel.stop();
    await valkey.stop();
  });

  test("that tell of a failover while they are asked for the primary do not end a connection for good", async () => {
    const nodes = [`127.0.0.1:${sentinel.port}`];
    const client = await connections.open({
      sentinel: { name: "main", nodes },
      command_timeout: "1s",
    });
    const tracking = client.track({ prefix: "k:", onChange() {} });
    await until(() => tracking?.isLive() === true);
    await client.command("set", "k:1", "x");
    sentinel.interrupt();
    await valkey.kill();
    await until(() => sentinel.wasInterrupted);
    await expect(client.command("get", "k:1")).rejects.toMatchObject({ code: "OFFLINE" });
    await valkey.restart();
    await until(() => client.isReady(), 3000);
    expect(await client.command("get", "k:1")).toBeNull();
    await until(() => tracking?.isLive() === true, 3000);
  });
});
