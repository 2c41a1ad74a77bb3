/**
 * Replicas in one process: hosts whose shared state is in one Valkey, each with a database of its own.
 *
 * Invariant: the state is opened as the gateway opens it; nothing stands in for it.
 */
import type { SharedState } from "../../src/contract/shared.ts";
import { type OpenedShared, openShared } from "../../src/open-shared.ts";
import { type TestHost, type TestHostOptions, testHost } from "./host.ts";

/** One replica. */
export interface Replica extends TestHost {
  readonly state: SharedState;
}

/** How it is opened. */
export interface ReplicaOptions extends Omit<TestHostOptions, "share"> {
  /** Beside `url` and the defaults; secrets are written out. */
  readonly settings?: Readonly<Record<string, unknown>>;
  /** Default `gatehouse:`. */
  readonly prefix?: string;
  /** Default `serve`. */
  readonly purpose?: "serve" | "command";
}

const opened: { readonly context: TestHost; readonly shared: OpenedShared }[] = [];

/** @throws what `openShared` throws */
export async function openReplica(url: string, options: ReplicaOptions = {}): Promise<Replica> {
  let opening: Promise<OpenedShared> = Promise.reject(new Error("nobody asked"));
  opening.catch(() => {});
  const valkey = { url, command_timeout: "2s", ...options.settings };
  let state: SharedState | null = null;
  const later = (): SharedState => {
    if (state === null) throw new Error("the shared state is not open yet");
    return state;
  };
  const context = testHost({
    strategy: "team",
    // Lifetimes in Valkey pass by the real time.
    nowMs: Date.now(),
    ...options,
    share(parts) {
      if (parts.valkey === undefined) throw new Error("the host has no outside");
      opening = openShared(
        { valkey, prefix: options.prefix ?? "gatehouse:" },
        { ...parts, valkey: parts.valkey, purpose: options.purpose ?? "serve" },
      );
      return {
        get isReplicated() {
          return later().isReplicated;
        },
        open: () => later().open(),
        claim: (claim) => later().claim(claim),
        isClaimed: (space, key) => later().isClaimed(space, key),
        revoke: (space, revocations) => later().revoke(space, revocations),
        isRevoked: (space, id) => later().isRevoked(space, id),
        health: () => later().health(),
      };
    },
  });
  try {
    const shared = await opening;
    state = shared.state;
    opened.push({ context, shared });
    return { ...context, state };
  } catch (error) {
    context.dispose();
    throw error;
  }
}

/** Ends one before the others. */
export function endReplica(replica: Replica): void {
  const at = opened.findIndex(({ context }) => context.directory === replica.directory);
  for (const { context, shared } of opened.splice(at, at < 0 ? 0 : 1)) {
    shared.close();
    context.dispose();
  }
}

/** Ends all. For `afterEach`. */
export function endReplicas(): void {
  for (const { context, shared } of opened.splice(0)) {
    shared.close();
    context.dispose();
  }
}
