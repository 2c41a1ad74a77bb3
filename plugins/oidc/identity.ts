/**
 * From verified claims to who was proven.
 *
 * Invariant: whatever cannot be told apart when it is written into a header is left out or refused: half surrogate
 * pairs, numbers too large to be exact, scopes with blanks, group names with the sign that separates groups.
 */
import type { Identity } from "gatehouse";
import { claimAt, idOf, textOf, textsOf } from "./claims.ts";
import { type JsonObject, own } from "./json.ts";
import type { Settings } from "./settings.ts";

/** RFC 6749 section 3.3. */
const SCOPE = /^[\x21\x23-\x5b\x5d-\x7e]+$/;

const NAME_CLAIMS = ["preferred_username", "name", "email"];

/** What the rules of the configuration make of a token. */
export type Found =
  | { readonly kind: "identity"; readonly identity: Identity }
  | { readonly kind: "no_subject" }
  | { readonly kind: "not_in_groups"; readonly id: string };

/** What is known of a token besides its claims. */
export interface Proof {
  /** Epoch milliseconds from which on the token is no longer accepted. */
  readonly expiresAtMs: number;
  /** Of the key that signed it. */
  readonly keyId: string;
}

/** Who the claims speak of. */
export function identify(claims: JsonObject, settings: Settings, proof: Proof): Found {
  const id = idOf(claimAt(claims, settings.subject_claim));
  if (id === undefined) return { kind: "no_subject" };
  const groups = textsOf(claimAt(claims, settings.groups_claim), settings.groups_split);
  const { allow_groups } = settings;
  if (allow_groups !== undefined && !allow_groups.some((group) => groups.includes(group))) {
    return { kind: "not_in_groups", id };
  }
  const name = nameOf(claims, settings);
  const identity: Identity = {
    id,
    role: isAdmin(groups, settings) ? "admin" : "user",
    scopes: scopesOf(claims),
    attributes: attributesOf(claims, groups, { issuer: settings.issuer, key: proof.keyId }),
    expiresAtMs: proof.expiresAtMs,
    ...(name === undefined ? {} : { name }),
  };
  return { kind: "identity", identity };
}

function isAdmin(groups: readonly string[], settings: Settings): boolean {
  const { admin_group, admin_group_case_sensitive: isExact } = settings;
  if (admin_group === undefined) return false;
  const wanted = isExact ? admin_group : lowerAscii(admin_group);
  return groups.some((group) => (isExact ? group : lowerAscii(group)) === wanted);
}

/** A to Z only: there are other letters whose lower case is one of a to z. */
function lowerAscii(text: string): string {
  return text.replace(/[A-Z]/g, (letter) => letter.toLowerCase());
}

function nameOf(claims: JsonObject, { name_claim }: Settings): string | undefined {
  if (name_claim !== undefined) return textOf(claimAt(claims, name_claim));
  const said = NAME_CLAIMS.map((claim) =>
    claim === "email" ? emailOf(claims) : textOf(own(claims, claim)),
  );
  return said.find((text) => text !== undefined);
}

/** An address that the issuer itself calls unproven is somebody's word only. */
function emailOf(claims: JsonObject): string | undefined {
  const verified = own(claims, "email_verified");
  return verified === false || verified === "false" ? undefined : textOf(own(claims, "email"));
}

/** `scope` (RFC 9068) or `scp`, each as one text or as a list. */
function scopesOf(claims: JsonObject): readonly string[] {
  const said = own(claims, "scope") ?? own(claims, "scp");
  return [...new Set(textsOf(said, true).filter((scope) => SCOPE.test(scope)))];
}

function attributesOf(
  claims: JsonObject,
  groups: readonly string[],
  fixed: Readonly<Record<string, string>>,
): Readonly<Record<string, string>> {
  const email = emailOf(claims);
  const client = textOf(own(claims, "client_id")) ?? textOf(own(claims, "azp"));
  return {
    ...fixed,
    groups: groups.filter((group) => !group.includes(",")).join(","),
    ...(email === undefined ? {} : { email }),
    ...(client === undefined ? {} : { client_id: client }),
  };
}
