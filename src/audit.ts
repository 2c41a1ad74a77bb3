/**
 * What is recorded about a request: one decision event when it is decided, one access event when it has ended.
 *
 * Invariant: redaction lives here. Only the fields named below leave, none of them is a header or a query, and the
 * path is cut to a length; so no credential can get into a log line however the client misplaces it in a header.
 */
import type { Log } from "./contract/host.ts";
import type { Identity } from "./contract/outcome.ts";
import type { Reason } from "./reasons.ts";

/** What is known about a request by the time it is decided. */
export interface RequestFacts {
  readonly requestId: string;
  readonly clientAddress: string;
  readonly method: string;
  readonly host: string;
  readonly path: string;
  /** Position of the route in the config, `null` when none matched. */
  readonly route: number | null;
  /** Which proxy asked about the request, where one did. */
  readonly check?: string | undefined;
}

export interface DecisionFacts {
  readonly decision: "allow" | "deny" | "challenge" | "fault";
  /** `null` when allowed. */
  readonly reason: Reason | null;
  readonly strategy: string | null;
  readonly identity: Identity | null;
  /** Public id of a refused credential. */
  readonly credentialId: string | null;
}

export interface AccessFacts {
  readonly status: number;
  readonly durationMs: number;
  readonly bodyBytes: number;
  /** False: the client left or the body broke off. */
  readonly isComplete: boolean;
  readonly upstream: string | null;
}

export interface Audit {
  /** Somebody listens to access events; false: none need be put together. */
  readonly wantsAccess: boolean;
  decision(request: RequestFacts, facts: DecisionFacts): void;
  access(request: RequestFacts, decision: DecisionFacts | null, facts: AccessFacts): void;
  /** A fault inside: the error's text is for the operator only. */
  fault(request: RequestFacts, where: string, error: unknown): void;
}

/** Who is told of every event as well, whatever is logged. It keeps the redaction of its own output. */
export type AuditListener = Pick<Audit, "decision" | "access">;

const MAX_PATH = 512;

/**
 * @param isAccessLogged `logging.access`: false leaves only refusals and faults
 * @param listener `null`: there is only the log
 */
export function createAudit(
  log: Log,
  isAccessLogged: boolean,
  listener: AuditListener | null,
): Audit {
  return {
    wantsAccess: isAccessLogged || listener !== null,
    decision(request, facts) {
      listener?.decision(request, facts);
      const isRefusal = facts.decision !== "allow";
      if (!isAccessLogged && !isRefusal) return;
      log[facts.decision === "fault" ? "error" : "info"]("auth.decision", {
        ...requestFields(request),
        ...decisionFields(facts),
      });
    },
    access(request, decision, facts) {
      listener?.access(request, decision, facts);
      if (!isAccessLogged) return;
      log.info("http.access", {
        ...requestFields(request),
        ...(decision === null ? {} : decisionFields(decision)),
        status: facts.status,
        duration_ms: Math.round(facts.durationMs * 100) / 100,
        body_bytes: facts.bodyBytes,
        complete: facts.isComplete,
        upstream: facts.upstream,
      });
    },
    fault(request, where, error) {
      log.error("request.fault", { ...requestFields(request), where, error: faultText(error) });
    },
  };
}

function requestFields(request: RequestFacts) {
  return {
    request_id: request.requestId,
    client_ip: request.clientAddress,
    method: request.method,
    host: request.host,
    path: request.path.length > MAX_PATH ? `${request.path.slice(0, MAX_PATH)}…` : request.path,
    route: request.route,
    ...(request.check === undefined ? {} : { check: request.check }),
  };
}

function decisionFields(facts: DecisionFacts) {
  return {
    decision: facts.decision,
    reason: facts.reason,
    strategy: facts.strategy,
    token_id: facts.identity?.id ?? facts.credentialId,
    name: facts.identity?.name,
  };
}

/** Errors whose message is fixed text or the store's own. */
const SAYS_NO_CREDENTIAL: readonly string[] = [
  "UpstreamFault",
  "OperatorError",
  "ContractBreach",
  "StateDatabaseReplaced",
  "SQLiteError",
];

/**
 * The kind and code of an error and where it was thrown; its message only when it is one of ours, since others may
 * quote a credential.
 */
function faultText(error: unknown): string {
  if (!(error instanceof Error)) return typeof error;
  const code = "code" in error && typeof error.code === "string" ? ` ${error.code}` : "";
  if (SAYS_NO_CREDENTIAL.includes(error.name)) return `${error.name}${code}: ${error.message}`;
  const frame = /^\s+at [^\n]*?([\w.-]+:\d+:\d+)\)?$/m.exec(error.stack ?? "")?.[1];
  return `${error.name}${code}${frame === undefined ? "" : ` at ${frame}`}`;
}
