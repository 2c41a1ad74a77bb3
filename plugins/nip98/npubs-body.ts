/**
 * What is sent to the surface `npubs`: a JSON string with a key, or an object with `npub` or `pubkey`, and perhaps
 * `role` and `name`.
 *
 * Invariant: what comes out has these fields and types; what is refused is described and never quoted.
 */
import { MemberError, type Role } from "gatehouse";

/** A body that was understood. The key has not been looked at. */
export interface NpubsBody {
  readonly key: string;
  readonly role?: Role;
  /** `null` clears it. */
  readonly name?: string | null;
}

/** @throws MemberError `invalid` with a sentence for the caller */
export async function readBody(request: Request): Promise<NpubsBody> {
  const text = await request.text();
  if (text.trim() === "") invalid("The request body is empty: send JSON with npub.");
  const value = parse(text);
  if (typeof value === "string") return { key: value };
  if (typeof value !== "object" || value === null) invalid(NO_KEY);
  const { npub, pubkey, role, name } = value as Readonly<Record<string, unknown>>;
  const key = [npub, pubkey].find((text) => typeof text === "string" && text !== "");
  if (typeof key !== "string") invalid(NO_KEY);
  return { key, ...roleOf(role), ...nameOf(name) };
}

const NO_KEY = "Give npub or pubkey as a string.";

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return invalid("The request body is not JSON.");
  }
}

function roleOf(role: unknown): { readonly role?: Role } {
  if (role === undefined) return {};
  if (role === "admin" || role === "user") return { role };
  return invalid("Invalid role: it is admin or user.");
}

function nameOf(name: unknown): { readonly name?: string | null } {
  if (name === undefined) return {};
  if (name === null || typeof name === "string") return { name };
  return invalid("Invalid name: it is a string or null.");
}

function invalid(message: string): never {
  throw new MemberError("invalid", message);
}
