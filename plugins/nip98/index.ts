/**
 * The strategy `nip98`: requests signed with a Nostr key (NIP-98, kind 27235) by keys that are registered.
 *
 * Invariant: this file only puts the parts together and takes them apart again; whatever was opened when a later
 * part fails is closed.
 */
import { statSync } from "node:fs";
import { resolve } from "node:path";
import {
  type Condition,
  definePlugin,
  type Host,
  parseDuration,
  parseSize,
  type StrategyInstance,
} from "gatehouse";
import { ensureConfigured } from "./configured.ts";
import { type Members, openAdminSeen, openMembers } from "./members.ts";
import { MIGRATIONS } from "./members-table.ts";
import { ownPlace, routstrdPlace } from "./places.ts";
import { type Settings, settingsSchema } from "./settings.ts";
import { loadVerifier, openSignatureQueue, type Verify } from "./signatures.ts";
import { createStrategy } from "./strategy.ts";
import { npubsSurface } from "./surface.ts";

export default definePlugin({
  name: "nip98",
  contract: 1,
  offers: { tokens: false, surfaces: ["npubs"] },
  migrations: { nip98: MIGRATIONS },
  config: settingsSchema,
  questions: [{ id: "admins", kind: "text", message: "Which npub is the admin's?" }],
  check({ database }, { configDir }) {
    const path = database === undefined ? null : resolve(configDir, database);
    if (path === null || statSync(path, { throwIfNoEntry: false })?.isFile()) return [];
    return [`database ${path} is not there; routstrd creates it: start the daemon once`];
  },
  async init(settings, host) {
    return startNip98(settings, host, await loadVerifier());
  },
});

/** The instance with a verifier of one's own. @throws what cannot be opened, with nothing left open */
export function startNip98(settings: Settings, host: Host, verify: Verify): StrategyInstance {
  const { clock, log, shared, strategy } = host;
  shared.open();
  const members = membersOf(settings, host);
  const signatures = openSignatureQueue(verify);
  const isBootstrapOpen = settings.bootstrap === "first";
  const { authenticate, isCurrent } = createStrategy({
    members,
    shared,
    signatures,
    nowMs: () => clock.nowMs(),
    log,
    maxAgeMs: parseDuration(settings.max_age) ?? 0,
    maxBodyBytes: parseSize(settings.max_body) ?? 0,
    isPayloadRequired: settings.payload === "required",
    isReplayRefusedForAll: settings.replay === "all",
  });
  return {
    authenticate,
    isCurrent,
    isKeptOnReload: settings.database === undefined,
    challenges: () => [{ scheme: "Nostr" }],
    credentialHeaders: ["authorization"],
    members,
    surfaces: [npubsSurface({ strategy, members, log, isBootstrapOpen })],
    health: () => [...health(members, isBootstrapOpen, strategy), ...shared.health()],
    close() {
      signatures.close();
      members.close();
    },
  };
}

function membersOf(settings: Settings, host: Host): Members {
  const { clock, log, strategy } = host;
  const state = host.database("nip98", MIGRATIONS);
  const seen = openAdminSeen(state, strategy, clock);
  const path = settings.database;
  const place =
    path === undefined ? ownPlace(state, host) : routstrdPlace(resolve(host.configDir, path), host);
  const members = openMembers(place, seen, clock);
  try {
    ensureConfigured(settings, { place, seen, clock, log, purpose: host.purpose });
    return members;
  } catch (error) {
    members.close();
    throw error;
  }
}

function health(
  members: Members,
  isBootstrapOpen: boolean,
  strategy: string,
): readonly Condition[] {
  const conditions: Condition[] = [];
  if (members.isEmpty()) {
    conditions.push({
      code: "no_members",
      severity: "warning",
      text: "No public key is registered, so every signed request is refused.",
      next: `gatehouse npub add NPUB --role admin --strategy ${strategy}`,
    });
  }
  if (isBootstrapOpen && !members.hasHadAdmin()) {
    conditions.push({
      code: "bootstrap_open",
      severity: "warning",
      text: "Whoever sends the first POST to npubs becomes admin.",
      next: `gatehouse npub add NPUB --role admin --strategy ${strategy}`,
    });
  }
  return conditions;
}
