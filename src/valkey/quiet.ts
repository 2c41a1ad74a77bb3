/**
 * Whether a socket has something to read that the event loop has not delivered yet.
 *
 * Invariant: it only looks (`recv` with MSG_PEEK); nothing is taken from the socket. Where that is not possible the
 * answer is `unknown`, and what is built on it falls back to the order of the event loop.
 */
import type { Socket } from "node:net";
import { openLibc } from "../libc.ts";

/** What a look at a socket says. `pending` also stands for its end. */
export type Look = "quiet" | "pending" | "unknown";

const MSG_PEEK = 0x2;
const MSG_DONTWAIT = process.platform === "darwin" ? 0x80 : 0x40;

/** Gives the function that looks. */
export function openLook(): (socket: Socket | undefined) => Look {
  const recv = findRecv();
  const buffer = new Uint8Array(1);
  return (socket) => {
    const descriptor = recv === null ? null : descriptorOf(socket);
    if (recv === null || descriptor === null) return "unknown";
    return recv(descriptor, buffer, 1, MSG_PEEK | MSG_DONTWAIT) < 0 ? "quiet" : "pending";
  };
}

function findRecv() {
  try {
    return openLibc({ recv: { args: ["i32", "ptr", "u64", "i32"], returns: "i32" } }).recv;
  } catch {
    return null;
  }
}

function descriptorOf(socket: Socket | undefined): number | null {
  if (socket === undefined || !("_handle" in socket)) return null;
  const handle = socket._handle;
  if (typeof handle !== "object" || handle === null || !("fd" in handle)) return null;
  return typeof handle.fd === "number" && handle.fd > 2 ? handle.fd : null;
}
