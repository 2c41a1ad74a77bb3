/**
 * Talking to the service manager that started this process (sd_notify(3)): ready, reloading, stopping, watchdog.
 *
 * Invariant: a notification never blocks and never throws; without NOTIFY_SOCKET nothing is loaded, and once the
 * socket was taken no child process can find it in the environment.
 */
import { errorMessage } from "./errors.ts";

/** What the service manager is told. */
export interface Notifier {
  /** The listeners accept. `status` is one line. */
  ready(status: string): void;
  /** The configuration is read anew; {@link ready} says that it is over, whatever came of it. */
  reloading(): void;
  /** No new connections; what is open is finished. */
  stopping(status: string): void;
  /**
   * Pings the watchdog at half of its time, if it has one, while `trouble` resolves to null; anything else is a
   * reason to stay silent, and the service manager restarts the service when that lasts.
   */
  watch(trouble: () => Promise<string | null>, onSilence: (reason: string) => void): void;
  close(): void;
}

/** Why the manager cannot be told, or the notifier. */
export type OpenedNotifier = { readonly notifier: Notifier } | { readonly problem: string };

/** As in `process.env`, from which names are removed. */
type MutableEnv = Record<string, string | undefined>;

/** sockaddr_un.sun_path (unix(7)). */
const MAX_PATH_BYTES = 108;
const AF_UNIX = 1;
/** SOCK_DGRAM | SOCK_CLOEXEC */
const DATAGRAM = 2 | 0o2000000;
/** MSG_DONTWAIT | MSG_NOSIGNAL */
const SEND_FLAGS = 0x40 | 0x4000;
/** The manager's queue may be full for a moment when many services start at once. */
const TRIES = 20;
const RETRY_MS = 50;
const CLOCK_MONOTONIC = 1;
const MAX_TIMER_MS = 2_147_483_647;

/**
 * Takes NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID out of `env`; null when no service manager asked to be told.
 * Linux only; elsewhere there is no such manager.
 */
export async function takeNotifier(env: MutableEnv): Promise<OpenedNotifier | null> {
  const { NOTIFY_SOCKET: path, WATCHDOG_USEC: usec, WATCHDOG_PID: pid } = env;
  for (const name of ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"]) delete env[name];
  if (path === undefined || path === "" || process.platform !== "linux") return null;
  const address = socketAddress(path);
  if (address === null) {
    return { problem: "NOTIFY_SOCKET is neither a path nor an abstract unix socket" };
  }
  try {
    const socket = await openDatagram(address);
    return { notifier: createNotifier(socket, watchdogMs(usec, pid)) };
  } catch (error) {
    return { problem: errorMessage(error) };
  }
}

/** How often to ping, or null when nobody waits for it. Half of the time that the manager allows. */
function watchdogMs(usec: string | undefined, pid: string | undefined): number | null {
  if (usec === undefined || !/^[1-9]\d{0,17}$/.test(usec)) return null;
  if (pid !== undefined && pid !== String(process.pid)) return null;
  return Math.min(MAX_TIMER_MS, Math.max(1, Math.floor(Number(usec) / 2000)));
}

/** `struct sockaddr_un`; `@name` is the abstract name space. Null for anything else (`vsock:`, a relative path). */
function socketAddress(path: string): Uint8Array<ArrayBuffer> | null {
  const isAbstract = path.startsWith("@");
  if (!isAbstract && !path.startsWith("/")) return null;
  const name = Buffer.from(path);
  if (name.length >= MAX_PATH_BYTES) return null;
  if (isAbstract) name[0] = 0;
  // A path ends with NUL; an abstract name is as long as it is.
  const address = new Uint8Array(2 + name.length + (isAbstract ? 0 : 1));
  new DataView(address.buffer).setUint16(0, AF_UNIX, true);
  address.set(name, 2);
  return address;
}

interface Datagram {
  /** Whether it was taken. */
  send(text: string): boolean;
  /** CLOCK_MONOTONIC in microseconds; the runtime's own clocks count from the start of the process. */
  monotonicUsec(): bigint;
  close(): void;
}

/** Neither Bun nor node:dgram has unix datagram sockets, so this asks the C library. */
async function openDatagram(address: Uint8Array<ArrayBuffer>): Promise<Datagram> {
  const { openLibc } = await import("./libc.ts");
  const libc = openLibc({
    socket: { args: ["i32", "i32", "i32"], returns: "i32" },
    sendto: { args: ["i32", "ptr", "u64", "i32", "ptr", "u32"], returns: "i64" },
    close: { args: ["i32"], returns: "i32" },
    clock_gettime: { args: ["i32", "ptr"], returns: "i32" },
  });
  const fd = libc.socket(AF_UNIX, DATAGRAM, 0);
  if (fd < 0) throw new Error("cannot open a unix datagram socket");
  return {
    send(text) {
      const bytes = Buffer.from(text);
      const { length } = bytes;
      const sent = libc.sendto(fd, bytes, length, SEND_FLAGS, address, address.length);
      return Number(sent) === length;
    },
    monotonicUsec() {
      const time = new BigInt64Array(2);
      libc.clock_gettime(CLOCK_MONOTONIC, time);
      const [seconds = 0n, nanoseconds = 0n] = time;
      return seconds * 1_000_000n + nanoseconds / 1000n;
    },
    close: () => void libc.close(fd),
  };
}

function createNotifier(socket: Datagram, pingMs: number | null): Notifier {
  let timer: ReturnType<typeof setInterval> | undefined;
  let isClosed = false;
  /** In order: a later message is not sent before an earlier one. */
  const waiting: string[] = [];
  const pump = (triesLeft: number): void => {
    while (waiting.length > 0 && !isClosed) {
      if (socket.send(waiting[0] ?? "")) waiting.shift();
      else if (triesLeft > 0) return void setTimeout(pump, RETRY_MS, triesLeft - 1);
      else return void waiting.splice(0);
    }
  };
  const tell = (lines: readonly string[]): void => {
    waiting.push(lines.join("\n"));
    if (waiting.length === 1) pump(TRIES);
  };
  return {
    ready: (status) => tell(["READY=1", `MAINPID=${process.pid}`, statusLine(status)]),
    reloading: () => tell(["RELOADING=1", `MONOTONIC_USEC=${socket.monotonicUsec()}`]),
    stopping: (status) => tell(["STOPPING=1", statusLine(status)]),
    watch(trouble, onSilence) {
      if (pingMs === null) return;
      let isAsking = false;
      const ping = async (): Promise<void> => {
        if (isAsking) return;
        isAsking = true;
        const reason = await trouble().catch(errorMessage);
        isAsking = false;
        if (reason === null) tell(["WATCHDOG=1"]);
        else onSilence(reason);
      };
      timer = setInterval(() => void ping(), pingMs);
    },
    close() {
      isClosed = true;
      clearInterval(timer);
      socket.close();
    },
  };
}

function statusLine(status: string): string {
  return `STATUS=${status.replaceAll(/[\0-\x1f\x7f]+/g, " ")}`;
}
