/**
 * A service manager's ear: a unix datagram socket as systemd binds it, for what a process notifies.
 *
 * Invariant: messages are kept in the order they came, whole, and the socket is gone when the test file is over.
 * Linux with glibc or musl; made with bun:ffi because neither Bun nor Node has such sockets.
 */

import { dlopen } from "bun:ffi";
import { afterAll } from "bun:test";
import { randomBytes } from "node:crypto";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { scratch } from "./gateway.ts";

/** Why there are none here, or null. */
export const NO_NOTIFY_SOCKETS =
  process.platform === "linux" ? null : "only Linux has service managers with notify sockets";

export interface NotifySocket {
  /** What goes into NOTIFY_SOCKET. */
  readonly address: string;
  /** Every message so far. */
  messages(): readonly string[];
  /** Resolves with the first message that fits, past or to come; rejects after 10 s. */
  heard(fits: (message: string) => boolean): Promise<string>;
  close(): void;
}

const POLL_MS = 2;
const PATIENCE_MS = 10_000;
const MSG_DONTWAIT = 0x40;

function openLibc() {
  const machine = process.arch === "arm64" ? "aarch64" : "x86_64";
  const symbols = {
    socket: { args: ["i32", "i32", "i32"], returns: "i32" },
    bind: { args: ["i32", "ptr", "u32"], returns: "i32" },
    recv: { args: ["i32", "ptr", "u64", "i32"], returns: "i64" },
    close: { args: ["i32"], returns: "i32" },
  } as const;
  try {
    return dlopen("libc.so.6", symbols);
  } catch {
    return dlopen(`libc.musl-${machine}.so.1`, symbols);
  }
}

/** @param kind a path in the file system, or a name in the abstract name space */
export function notifySocket(kind: "path" | "abstract" = "path"): NotifySocket {
  const { symbols: libc } = openLibc();
  const path = join(scratch(), "notify");
  const address = kind === "path" ? path : `@gatehouse-test-${randomBytes(8).toString("hex")}`;
  const name = Buffer.from(kind === "path" ? `${path}\0` : address);
  if (kind === "abstract") name[0] = 0;
  const sockaddr = new Uint8Array(2 + name.length);
  sockaddr[0] = 1;
  sockaddr.set(name, 2);
  // SOCK_DGRAM | SOCK_CLOEXEC
  const fd = libc.socket(1, 2 | 0o2000000, 0);
  if (fd < 0 || libc.bind(fd, sockaddr, sockaddr.length) !== 0) throw new Error("cannot bind");
  const messages: string[] = [];
  const buffer = Buffer.alloc(4096);
  const read = (): void => {
    while (true) {
      const length = Number(libc.recv(fd, buffer, buffer.length, MSG_DONTWAIT));
      if (length < 0) return;
      messages.push(buffer.toString("utf8", 0, length));
    }
  };
  const timer = setInterval(read, POLL_MS);
  let isClosed = false;
  const close = (): void => {
    if (isClosed) return;
    isClosed = true;
    clearInterval(timer);
    libc.close(fd);
    if (kind === "path") rmSync(path, { force: true });
  };
  afterAll(close);
  return {
    address,
    messages: () => {
      if (!isClosed) read();
      return messages;
    },
    async heard(fits) {
      const deadline = performance.now() + PATIENCE_MS;
      while (performance.now() < deadline) {
        const found = messages.find(fits);
        if (found !== undefined) return found;
        await Bun.sleep(POLL_MS);
      }
      throw new Error(`not heard; heard were ${JSON.stringify(messages)}`);
    },
    close,
  };
}
