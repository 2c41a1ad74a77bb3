/**
 * The module `gatehouse`, as plugins import it: the whole published surface.
 *
 * Invariant: it needs nothing but itself and the schema library, so an external file needs no `node_modules`.
 */

export { z } from "zod";
export { type CredentialSources, type FoundCredential, readCredential } from "./credential.ts";
export type { Clock, Host, Log, LogFields, Migration } from "./host.ts";
export { type MemberDraft, MemberError, type MemberRecord, type MemberStore } from "./members.ts";
export {
  ABSENT,
  accept,
  type Identity,
  type Outcome,
  REJECT_REASONS,
  type RejectReason,
  type Role,
  UNKNOWN,
} from "./outcome.ts";
export {
  type Challenge,
  CONTRACT_VERSION,
  type Condition,
  definePlugin,
  type Offers,
  type Plugin,
  type PluginCommand,
  type Question,
  type StrategyInstance,
  type Surface,
  type SurfaceCaller,
  type Surroundings,
} from "./plugin.ts";
export { parseDuration, parseSize } from "./quantity.ts";
export type { AuthRequest, BodyHash, RequestHeaders } from "./request.ts";
export { secret } from "./secret.ts";
export type { Claim, Revocation, SharedState } from "./shared.ts";
export {
  type IssuedToken,
  type TokenDraft,
  TokenError,
  type TokenFilter,
  type TokenOrder,
  type TokenPage,
  type TokenQuery,
  type TokenRecord,
  type TokenStore,
} from "./tokens.ts";
export {
  type Valkey,
  ValkeyError,
  type ValkeyTracking,
  type ValkeyTrackingOptions,
} from "./valkey.ts";
export { checkValkeySettings, type ValkeySettings, valkeyShape } from "./valkey-settings.ts";
