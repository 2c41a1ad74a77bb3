/**
 * With whose credential the proof enters: the first token, the static one, or a Nostr key that lives as long as the
 * proof does.
 *
 * Invariant: what was registered for the proof is removed after it, whatever happens; its secret key never leaves
 * this process.
 */
import { generateSecretKey, getPublicKey } from "nostr-tools/pure";
import type { CliContext } from "../context.ts";
import { openMembers } from "../open-members.ts";
import { authorization } from "../signed-request.ts";
import type { Decision } from "./decision.ts";
import type { FirstToken } from "./make.ts";
import { headerFor, type Proving } from "./prove.ts";
import { serviceEnv } from "./service.ts";
import type { ChosenStrategy } from "./strategies.ts";
import type { Guarded } from "./upstreams.ts";

/** Open until it is closed. */
export interface ProofCredentials extends Pick<Proving, "credentialFor" | "role"> {
  close(): Promise<void>;
}

/** Strategies whose members take part, each with a key of its own. */
type Keys = ReadonlyMap<string, Uint8Array>;

/** Registers what the proof needs. */
export async function openCredentials(
  context: CliContext,
  decision: Decision,
  tokens: readonly FirstToken[],
): Promise<ProofCredentials> {
  const wanted = decision.upstreams.flatMap((upstream) => {
    if (tokenOf(decision, tokens, upstream) !== null) return [];
    return strategiesOf(decision, upstream).filter(({ knowsMembers }) => knowsMembers);
  });
  const keys = new Map<string, Uint8Array>();
  // The state of a system service belongs to its own account by then.
  const isReachable = decision.service?.scope !== "system";
  for (const { name } of isReachable ? wanted : []) {
    if (keys.has(name)) continue;
    const secret = generateSecretKey();
    await withMembers(context, decision, name, (store) => {
      store.add({ key: getPublicKey(secret), role: "user", name: "init proof", source: "cli" });
    });
    keys.set(name, secret);
  }
  return {
    role: decision.draft.role === "admin" && keys.size === 0 ? "admin" : "user",
    credentialFor: (upstream, url) => credentialFor(upstream, url, { decision, tokens, keys }),
    async close() {
      for (const [name, secret] of keys) {
        await withMembers(context, decision, name, (store) => {
          store.remove(getPublicKey(secret));
        });
      }
    },
  };
}

function credentialFor(
  upstream: Guarded,
  url: string,
  { decision, tokens, keys }: { decision: Decision; tokens: readonly FirstToken[]; keys: Keys },
): Readonly<Record<string, string>> | null {
  const token = tokenOf(decision, tokens, upstream);
  if (token !== null) return headerFor(upstream, token);
  for (const { name } of strategiesOf(decision, upstream)) {
    const secret = keys.get(name);
    if (secret !== undefined)
      return { authorization: authorization(secret, { method: "GET", url }) };
  }
  return null;
}

/** A token that an upstream's strategies accept, if there is one. */
export function tokenOf(
  decision: Pick<Decision, "strategies" | "secrets">,
  tokens: readonly FirstToken[],
  upstream: Guarded,
): string | null {
  for (const { name, use } of strategiesOf(decision, upstream)) {
    const made = tokens.find(({ strategy }) => strategy === name);
    if (made !== undefined) return made.issued.token;
    const secret = decision.secrets.find((one) => one.name === `${name}-token`);
    if (use === "static-env" && secret !== undefined) return secret.value;
  }
  return null;
}

function strategiesOf(
  { strategies }: Pick<Decision, "strategies">,
  { name }: Guarded,
): readonly ChosenStrategy[] {
  return strategies.filter(({ upstreams }) => upstreams.includes(name));
}

async function withMembers(
  context: CliContext,
  decision: Decision,
  strategy: string,
  work: (store: Awaited<ReturnType<typeof openMembers>>["store"]) => void,
): Promise<void> {
  const opened = await openMembers({
    context: { ...context, env: serviceEnv(context, decision) },
    config: decision.places.configFile,
    strategy,
  });
  try {
    work(opened.store);
  } finally {
    await opened.close();
  }
}
