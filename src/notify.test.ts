/** The wire of sd_notify(3), against a real datagram socket; the executable's use of it is in cli/supervised.test.ts. */
import { describe, expect, test } from "bun:test";
import { NO_NOTIFY_SOCKETS, notifySocket } from "../test/support/notify-socket.ts";
import { type Notifier, takeNotifier } from "./notify.ts";

if (NO_NOTIFY_SOCKETS !== null) process.stderr.write(`notify: skipped, ${NO_NOTIFY_SOCKETS}\n`);

async function notifierOf(env: Record<string, string | undefined>): Promise<Notifier> {
  const opened = await takeNotifier(env);
  if (opened === null || "problem" in opened) throw new Error("no notifier");
  return opened.notifier;
}

describe.skipIf(NO_NOTIFY_SOCKETS !== null)("A notifier", () => {
  test.each(["path", "abstract"] as const)(
    "speaks to a socket with a name of kind %s",
    async (kind) => {
      const socket = notifySocket(kind);
      const notifier = await notifierOf({ NOTIFY_SOCKET: socket.address });
      notifier.ready("3 routes");
      notifier.stopping("draining");
      await socket.heard((message) => message.startsWith("STOPPING"));
      expect(socket.messages()).toEqual([
        `READY=1\nMAINPID=${process.pid}\nSTATUS=3 routes`,
        "STOPPING=1\nSTATUS=draining",
      ]);
      notifier.close();
    },
  );

  test("cannot be made to say more than was meant by a name with a line break", async () => {
    const socket = notifySocket();
    const notifier = await notifierOf({ NOTIFY_SOCKET: socket.address });
    notifier.ready("a\nMAINPID=1\r\nb\0c");
    const [message] = [await socket.heard(() => true)];
    expect(message).toBe(`READY=1\nMAINPID=${process.pid}\nSTATUS=a MAINPID=1 b c`);
    notifier.close();
  });

  test("takes what it was given out of the environment, and nothing else", async () => {
    const socket = notifySocket();
    const env: Record<string, string | undefined> = {
      NOTIFY_SOCKET: socket.address,
      WATCHDOG_USEC: "1000000",
      WATCHDOG_PID: String(process.pid),
      HOME: "/x",
    };
    (await notifierOf(env)).close();
    expect(env).toEqual({ HOME: "/x" });
  });

  test("is none without a service manager", async () => {
    expect(await takeNotifier({})).toBeNull();
    expect(await takeNotifier({ NOTIFY_SOCKET: "" })).toBeNull();
  });

  test.each(["vsock:2:1234", "relative/path", `/${"x".repeat(120)}`])(
    "refuses the address %s with a reason, and takes it out of the environment",
    async (address) => {
      const env: Record<string, string | undefined> = { NOTIFY_SOCKET: address };
      expect(await takeNotifier(env)).toEqual({
        problem: "NOTIFY_SOCKET is neither a path nor an abstract unix socket",
      });
      expect(env).toEqual({});
    },
  );

  test("neither throws nor blocks when nobody is there", async () => {
    const notifier = await notifierOf({ NOTIFY_SOCKET: "/nonexistent/notify" });
    notifier.ready("x");
    notifier.stopping("y");
    notifier.close();
  });
});

describe.skipIf(NO_NOTIFY_SOCKETS !== null)("The watchdog", () => {
  const isPing = (message: string) => message === "WATCHDOG=1";
  const pings = (messages: readonly string[]) => messages.filter(isPing).length;

  test("is fed while all is well, not while there is trouble, and again afterwards", async () => {
    const socket = notifySocket();
    const notifier = await notifierOf({ NOTIFY_SOCKET: socket.address, WATCHDOG_USEC: "10000" });
    let reason: string | null = null;
    const reasons: string[] = [];
    const { promise: silentTwice, resolve } = Promise.withResolvers<void>();
    notifier.watch(
      async () => reason,
      (said) => {
        reasons.push(said);
        if (reasons.length === 2) resolve();
      },
    );
    await socket.heard(isPing);
    reason = "gone";
    await silentTwice;
    const before = pings(socket.messages());
    const { promise: silentAgain, resolve: again } = Promise.withResolvers<void>();
    const timer = setInterval(() => reasons.length > 4 && again(), 1);
    await silentAgain;
    clearInterval(timer);
    expect(pings(socket.messages())).toBe(before);
    reason = null;
    while (pings(socket.messages()) === before) await Bun.sleep(1);
    expect(new Set(reasons)).toEqual(new Set(["gone"]));
    notifier.close();
  });

  test("takes a check that fails for trouble", async () => {
    const socket = notifySocket();
    const notifier = await notifierOf({ NOTIFY_SOCKET: socket.address, WATCHDOG_USEC: "10000" });
    const { promise, resolve } = Promise.withResolvers<string>();
    notifier.watch(() => Promise.reject(new Error("broken")), resolve);
    expect(await promise).toBe("broken");
    expect(pings(socket.messages())).toBe(0);
    notifier.close();
  });

  test.each([
    ["another process is watched", { WATCHDOG_USEC: "2000", WATCHDOG_PID: "1" }],
    ["no time is given", {}],
    ["the time is no number", { WATCHDOG_USEC: "soon" }],
    ["the time is zero", { WATCHDOG_USEC: "0" }],
  ])("is left alone when %s", async (_, env: Record<string, string>) => {
    const [idle, other] = [notifySocket(), notifySocket()];
    const quiet = await notifierOf({ NOTIFY_SOCKET: idle.address, ...env });
    const fed = await notifierOf({ NOTIFY_SOCKET: other.address, WATCHDOG_USEC: "2000" });
    quiet.watch(
      async () => null,
      () => {},
    );
    fed.watch(
      async () => null,
      () => {},
    );
    // As long as the other one takes for five pings.
    while (pings(other.messages()) < 5) await Bun.sleep(1);
    expect(idle.messages()).toEqual([]);
    quiet.close();
    fed.close();
  });
});
