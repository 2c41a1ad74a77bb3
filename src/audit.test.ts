/** What is logged of a request, and what a listener hears of it. */
import { expect, test } from "bun:test";
import { type AuditListener, createAudit, type DecisionFacts, type RequestFacts } from "./audit.ts";
import type { Log } from "./contract/host.ts";

const REQUEST: RequestFacts = {
  requestId: "r",
  clientAddress: "192.0.2.1",
  method: "GET",
  host: "a",
  path: "/x",
  route: 0,
};
const ALLOWED: DecisionFacts = {
  decision: "allow",
  reason: null,
  strategy: "ops",
  identity: null,
  credentialId: null,
};
const SENT = { status: 200, durationMs: 1, bodyBytes: 2, isComplete: true, upstream: null };

test.each([
  [true, true, true],
  [true, false, true],
  [false, true, true],
  [false, false, false],
])(
  "with the access log %p and a listener %p somebody wants access events: %p",
  (isLogged, hasListener, isWanted) => {
    const logged: string[] = [];
    const heard: string[] = [];
    const say = (event: string): void => void logged.push(event);
    const log: Log = { debug: say, info: say, warn: say, error: say };
    const listener: AuditListener = {
      decision: (_, { decision }) => void heard.push(decision),
      access: (_, __, { status }) => void heard.push(String(status)),
    };
    const audit = createAudit(log, isLogged, hasListener ? listener : null);
    expect(audit.wantsAccess).toBe(isWanted);
    audit.decision(REQUEST, ALLOWED);
    audit.access(REQUEST, ALLOWED, SENT);
    audit.decision(REQUEST, { ...ALLOWED, decision: "deny", reason: "no_route" });
    expect(logged).toEqual(
      isLogged ? ["auth.decision", "http.access", "auth.decision"] : ["auth.decision"],
    );
    expect(heard).toEqual(hasListener ? ["allow", "200", "deny"] : []);
  },
);
