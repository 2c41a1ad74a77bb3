/**
 * What goes wrong with a Valkey, in words for the operator.
 *
 * Invariant: the client's own errors stop here. They carry the command with its arguments, a password among them;
 * what is thrown on has a code and a sentence and no cause.
 */
import { ValkeyError } from "../contract/valkey.ts";

const TEXTS: Readonly<Record<string, string>> = {
  WRONGPASS: "the user name or the password is wrong",
  NOAUTH: "it asks for a password; set `password`",
  NOPERM:
    "the user may not run a command or use a key that is needed; docs/valkey.md and docs/replicas.md list them",
  READONLY: "it is a read-only replica; name the primary",
  OOM: "it is out of memory and refuses to write",
  MISCONF: "it cannot save to its disk and refuses to write",
  NOREPLICAS: "it has too few replicas and refuses to write",
  LOADING: "it is still loading its data",
  MASTERDOWN: "it is a replica that has lost its primary",
  CLUSTERDOWN: "the cluster is down, or no node of it can be asked",
  WRONGTYPE: "a key holds another kind of value than expected",
  OFFLINE: "it is not connected",
  ETIMEDOUT: "it did not answer in time",
  ECONNREFUSED: "nothing listens there",
  ECONNRESET: "the connection broke",
  ENOTFOUND: "there is no host of that name",
  BADREPLY: "its answer could not be understood",
};

/** The error to throw for whatever the client reported. */
export function failure(place: string, error: unknown): ValkeyError {
  if (error instanceof ValkeyError) return error;
  const code = codeOf(innermost(error));
  return new ValkeyError(code, `valkey at ${place}: ${TEXTS[code] ?? "it failed"} (${code})`);
}

/** One made here. */
export function failureOf(place: string, code: keyof typeof TEXTS): ValkeyError {
  return new ValkeyError(code, `valkey at ${place}: ${TEXTS[code]} (${code})`);
}

/** A cluster or sentinel client wraps what its nodes said. */
function innermost(error: unknown): unknown {
  if (error instanceof Error && "lastNodeError" in error && error.lastNodeError instanceof Error) {
    return error.lastNodeError;
  }
  return error;
}

function codeOf(error: unknown): string {
  if (!(error instanceof Error)) return "UNKNOWN";
  if ("code" in error && typeof error.code === "string" && /^[A-Z0-9_]{2,60}$/.test(error.code)) {
    return error.code;
  }
  // An answer of the server begins with its code; everything after it may hold what was sent.
  const found = /^(?:Ready check failed: )?([A-Z]{3,20})\b/.exec(error.message)?.[1];
  if (found !== undefined) return found;
  if (/closed|writeable|disconnect|retries/i.test(error.message)) return "OFFLINE";
  if (/startup nodes|slots cache/i.test(error.message)) return "CLUSTERDOWN";
  if (/no such master|sentinels are unreachable/i.test(error.message)) return "ENOTFOUND";
  return "UNKNOWN";
}
