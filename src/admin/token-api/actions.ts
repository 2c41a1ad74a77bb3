/**
 * What the token API does, apart from HTTP: listing, making, showing, rotating and revoking.
 *
 * Invariant: who asks is judged before anything is read or changed. A token outside the asked-for subject is not
 * found, in the same way as one that does not exist. What is made, rotated and revoked is logged with who did it, by id.
 */
import type { Clock, Log } from "../../contract/host.ts";
import type { Role } from "../../contract/outcome.ts";
import { parseDuration } from "../../contract/quantity.ts";
import {
  type IssuedToken,
  type TokenDraft,
  TokenError,
  type TokenFilter,
  type TokenPage,
  type TokenQuery,
  type TokenRecord,
  type TokenStore,
} from "../../contract/tokens.ts";
import { Problem } from "../answers.ts";
import { type Asker, mustBeAbleToMint } from "./asker.ts";
import { pageOf } from "./paging.ts";
import { MAX_DESCRIPTION_BYTES, type UserDraft } from "./schemas.ts";

/** What they work on. */
export interface ActionParts {
  readonly tokens: TokenStore;
  readonly clock: Clock;
  readonly log: Log;
  /** Whose tokens these are. */
  readonly strategy: string;
}

/** One call. */
export interface Call extends ActionParts {
  readonly asker: Asker;
  readonly requestId: string;
  readonly clientAddress: string;
}

/** Whose tokens a call is about; `null`: everybody's, which only admins may ask for. */
export type Whose = string | null;

/** The tokens that the query asks for. */
export async function listTokens(call: Call, whose: Whose, query: TokenQuery): Promise<TokenPage> {
  const { tokens } = call;
  if (whose !== null) {
    const records = await tokens.list({ owner: whose });
    const own = records.filter(({ owner }) => owner === whose);
    return pageOf(own, query, ({ id, name }) => [id, name]);
  }
  if (tokens.page !== undefined) return tokens.page(query);
  return pageOf(await tokens.list(), query, ({ id, name, owner }) => [id, name, owner ?? ""]);
}

/** @throws Problem */
export async function createToken(
  call: Call,
  owner: string,
  draft: UserDraft,
): Promise<IssuedToken> {
  const rights = { role: draft.role ?? "user", scopes: draft.scopes ?? [] } as const;
  mustBeAbleToMint(call.asker, rights);
  if (owner === "") throw new Problem("invalid_value", "subject must not be empty");
  const issued = await explained(() => call.tokens.create(storeDraft(call, owner, draft, rights)));
  say(call, "token.created", issued.record);
  return issued;
}

/** @throws Problem `token_not_found` */
export async function showToken(call: Call, whose: Whose, id: string): Promise<TokenRecord> {
  const filter = filterOf(whose);
  try {
    const record = await call.tokens.get(id, filter);
    const isMeant = record.id === id && (whose === null || record.owner === whose);
    if (isMeant && record.revokedAtMs === null) return record;
  } catch (error) {
    // Also a name that several have: here only ids are asked for.
    if (!(error instanceof TokenError)) throw error;
  }
  throw new Problem("token_not_found");
}

/** @throws Problem */
export async function rotateToken(
  call: Call,
  { whose, id }: { readonly whose: Whose; readonly id: string },
  grace: string | undefined,
): Promise<IssuedToken> {
  if (call.asker.isToken) throw new Problem("token_cannot_mint");
  const record = await showToken(call, whose, id);
  // A new secret is handed out, so it is as if the token were made anew.
  mustBeAbleToMint(call.asker, record);
  const graceMs = grace === undefined ? 0 : (parseDuration(grace) ?? 0);
  const issued = await explained(() => call.tokens.rotate(record.id, graceMs, filterOf(whose)));
  say(call, "token.rotated", issued.record);
  return issued;
}

/** @throws Problem `token_not_found` */
export async function revokeToken(call: Call, whose: Whose, id: string): Promise<void> {
  const record = await showToken(call, whose, id);
  await explained(() => call.tokens.revoke(record.id, "", filterOf(whose)));
  say(call, "token.revoked", record);
}

function filterOf(whose: Whose): TokenFilter | undefined {
  return whose === null ? undefined : { owner: whose };
}

function storeDraft(
  call: Call,
  owner: string,
  draft: UserDraft,
  rights: { readonly role: Role; readonly scopes: readonly string[] },
): TokenDraft {
  const description = draft.description?.trim() ?? "";
  if (Buffer.byteLength(description) > MAX_DESCRIPTION_BYTES) {
    throw new Problem(
      "invalid_value",
      `description must have at most ${MAX_DESCRIPTION_BYTES} bytes`,
    );
  }
  const expiresAtMs = expiryOf(draft, call.clock.nowMs());
  const { subject, identity } = call.asker;
  return {
    owner,
    ...rights,
    createdBy: typeof subject === "string" ? subject : identity.id,
    ...(description === "" ? {} : { name: description }),
    ...(expiresAtMs === null ? {} : { expiresAtMs }),
  };
}

function expiryOf({ expires_at, expires_in }: UserDraft, nowMs: number): number | null {
  if (expires_at !== undefined && expires_in !== undefined) {
    throw new Problem("invalid_request", "give expires_at or expires_in, not both");
  }
  if (expires_at !== undefined) return Date.parse(expires_at);
  return expires_in === undefined ? null : nowMs + (parseDuration(expires_in) ?? 0);
}

/** What a store says about a mistake of the caller, in the words of the API. Its troubles go on as they are. */
async function explained<T>(work: () => T | Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof TokenError)) throw error;
    if (error.code === "not_found" || error.code === "not_unique") {
      throw new Problem("token_not_found");
    }
    if (error.code === "conflict") throw new Problem("conflict");
    throw new Problem("invalid_value", inOurWords(error.message));
  }
}

function inOurWords(message: string): string {
  return message.replace(/^the name\b/, "the description").replace(/^the owner\b/, "the subject");
}

function say(call: Call, event: string, record: TokenRecord): void {
  const { asker, requestId, clientAddress, strategy } = call;
  call.log.info(event, {
    strategy,
    token_id: record.id,
    owner: record.owner,
    role: record.role,
    scopes: record.scopes.join(" "),
    expires_at: record.expiresAtMs === null ? null : new Date(record.expiresAtMs).toISOString(),
    actor: asker.identity.id,
    actor_strategy: asker.strategy,
    request_id: requestId,
    client_ip: clientAddress,
  });
}
