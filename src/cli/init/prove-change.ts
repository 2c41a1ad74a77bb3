/**
 * The proof of what was added to a configuration.
 *
 * Invariant: as for the first run, on the gateway that serves it; while another process serves the old configuration
 * there is nothing to prove yet, and that is said.
 */

import { dirname, join } from "node:path";
import { EXIT, OperatorError } from "../../errors.ts";
import { type Finding, info } from "../doctor/finding.ts";
import { listeners } from "../doctor/proc-net.ts";
import { listenProblem } from "./addresses.ts";
import type { AddedToken } from "./change-token.ts";
import type { TlsDecision } from "./decision.ts";
import { type Existing, readExisting, usualAccess } from "./existing.ts";
import { exposureOf } from "./exposure.ts";
import { headerFor, isOpen, prove } from "./prove.ts";
import type { Run } from "./run.ts";
import type { serviceFor } from "./service.ts";
import type { Guarded } from "./upstreams.ts";

/** @throws OperatorError when somebody came in without a token */
export async function proveChange(
  run: Run,
  before: Existing,
  {
    upstreams,
    token,
    service,
  }: {
    readonly upstreams: readonly Guarded[];
    readonly token: AddedToken | null;
    readonly service: ReturnType<typeof serviceFor>;
  },
): Promise<readonly Finding[]> {
  if (upstreams.length === 0) return [];
  const { context, interruption } = run;
  const existing = await readExisting(context, before.file);
  const [listen] = existing.config.server.listen;
  const listening = listeners();
  const exposures = upstreams.map((one) => exposureOf(one, listening));
  if (listen === undefined) return exposures;
  if (service === null && listenProblem(listen) !== null) return [...exposures, notYet()];
  const checks = await prove({
    context,
    interruption,
    decision: {
      service: service === null ? null : { ...service, account: null },
      places: {
        configFile: existing.file,
        configDir: dirname(existing.file),
        secretsDir: join(dirname(existing.file), "credentials"),
      },
      upstreams,
      listen,
      tls: tlsOf(existing),
      publicUrl: existing.config.server.publicUrls[0] ?? null,
    },
    role: "user",
    credentialFor: (upstream) => {
      if (token === null || !accessOf(existing, upstream).includes(token.strategy)) return null;
      return headerFor(upstream, token.token);
    },
  });
  if (!isOpen(checks)) return [...checks, ...exposures];
  const what = checks.filter(({ code }) => code === "let_in").map((one) => one.what);
  throw new OperatorError(EXIT.failure, `the proof failed: ${what.join("; ")}`);
}

function notYet(): Finding {
  return info("not_proven", "another process listens there, with the configuration from before", {
    why: "What was added holds when that is started anew.",
    next: "restart it, then `gatehouse doctor`",
  });
}

function accessOf(existing: Existing, { name, tokenSettings }: Guarded): readonly string[] {
  return tokenSettings === null ? usualAccess(existing) : [`${name}-team`];
}

function tlsOf({ config }: Existing): TlsDecision | null {
  const [pair] = config.server.tls;
  return pair === undefined ? null : { cert: pair.cert, key: pair.key };
}
