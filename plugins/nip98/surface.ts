/**
 * The surface `npubs`: members over HTTP, as routstrd-auth answers it.
 *
 * Invariant: who asks is decided before the body is looked at. Changes need an admin of this very strategy; the one
 * exception is the first admin ever, where the configuration allows that, and it is logged as a warning.
 */
import {
  type Log,
  type MemberDraft,
  MemberError,
  type MemberRecord,
  type Surface,
  type SurfaceCaller,
} from "gatehouse";
import { readPublicKey } from "./member-input.ts";
import type { Members } from "./members.ts";
import { type NpubsBody, readBody } from "./npubs-body.ts";

/** What it needs. */
export interface NpubsParts {
  /** The strategy's name in the config. */
  readonly strategy: string;
  readonly members: Members;
  readonly log: Log;
  /** Whether whoever comes first may become the first admin. */
  readonly isBootstrapOpen: boolean;
}

/** One call: its path below `/npubs` (`null` for `/npubs` itself), who asks, what is sent. */
interface Call {
  readonly request: Request;
  readonly url: URL;
  readonly key: string | null;
  readonly caller: SurfaceCaller;
}

type Handler = (call: Call, parts: NpubsParts) => Response | Promise<Response>;

/** Why nobody was proven, in the words that routstrd's tools look for. */
const REFUSALS: Readonly<Record<string, string>> = {
  no_credential:
    "Missing Authorization header: sign the request with NIP-98 (Authorization: Nostr …).",
  malformed_credential: "The NIP-98 event could not be decoded: check its encoding and event JSON.",
  ambiguous_credential: "More than one credential in the Authorization header.",
  stale_proof:
    "NIP-98 event timestamp is outside the allowed window: check the clock and sign again.",
  wrong_audience:
    "NIP-98 URL tag does not match this request, or its method tag does not: sign the URL as it is called.",
  replayed: "NIP-98 replay: this event was used before. Sign again, with a nonce tag.",
  signature_invalid: "NIP-98 signature is not valid, or the payload tag does not match the body.",
};

/** The surface; mount it with `surface: STRATEGY.npubs` on `/npubs` and `/npubs/**`. */
export function npubsSurface(parts: NpubsParts): Surface {
  return {
    name: "npubs",
    async handle(request, caller) {
      const url = new URL(request.url);
      const place = /^.*?\/npubs(?:\/([^/]*))?$/.exec(url.pathname);
      const key = place?.[1] ?? null;
      const isPlain = key === null || request.method === "DELETE";
      const handler = place !== null && isPlain ? HANDLERS.get(request.method) : undefined;
      if (handler === undefined) return failure(404, "Not found.");
      try {
        return await handler({ request, url, key, caller }, parts);
      } catch (error) {
        if (error instanceof MemberError)
          return failure(STATUS[error.code], sentence(error.message));
        throw error;
      }
    },
  };
}

const STATUS = { invalid: 400, not_found: 404, conflict: 409, last_admin: 409 } as const;

const HANDLERS: ReadonlyMap<string, Handler> = new Map<string, Handler>([
  ["GET", list],
  ["POST", add],
  ["PATCH", update],
  ["DELETE", remove],
]);

function list({ caller }: Call, parts: NpubsParts): Response {
  if (parts.members.isEmpty()) return json(200, { npubs: [] });
  const refusal = refusalOf(caller, parts);
  if (refusal !== null) return refusal;
  const npubs = parts.members.list().map(({ npub, name, role }) => ({ npub, name, role }));
  return json(200, { npubs });
}

async function add(call: Call, parts: NpubsParts): Promise<Response> {
  if (isFirstCome(parts)) {
    const added = await addFirst(call, parts);
    if (added !== null) return added;
  }
  const refusal = adminRefusal(call.caller, parts);
  if (refusal !== null) return refusal;
  const body = await readBody(call.request);
  const draft = draftOf(body, call.caller.identity?.id ?? null);
  try {
    const member = parts.members.add(draft);
    parts.log.info("member.added", { npub: member.npub, role: member.role, by: draft.createdBy });
    return change(201, { ...shown(member), added: true });
  } catch (error) {
    if (!(error instanceof MemberError && error.code === "conflict")) throw error;
    const member = parts.members.get(draft.key);
    const { npub, pubkey } = member ?? { npub: null, pubkey: null };
    return json(409, { error: sentence(error.message), npub, pubkey });
  }
}

/** `null` when somebody else was first. */
async function addFirst(call: Call, parts: NpubsParts): Promise<Response | null> {
  const body = await readBody(call.request);
  if (body.role === "user") {
    throw new MemberError(
      "invalid",
      "The first npub becomes admin; it cannot be added with role user.",
    );
  }
  const member = parts.members.addFirst(draftOf(body, null));
  if (member === null) return null;
  const { clientAddress, requestId } = call.caller;
  parts.log.warn("member.bootstrap", {
    npub: member.npub,
    client: clientAddress,
    request_id: requestId,
  });
  return change(201, { ...shown(member), added: true });
}

async function update(call: Call, parts: NpubsParts): Promise<Response> {
  const refusal = adminRefusal(call.caller, parts);
  if (refusal !== null) return refusal;
  const body = await readBody(call.request);
  if (body.role === undefined && body.name === undefined) {
    throw new MemberError("invalid", "Nothing to change: give a role, a name or both.");
  }
  const member = parts.members.update(body.key, {
    ...(body.role === undefined ? {} : { role: body.role }),
    ...(body.name === undefined ? {} : { name: body.name }),
  });
  const by = call.caller.identity?.id;
  parts.log.info("member.changed", { npub: member.npub, role: member.role, by });
  return change(200, shown(member));
}

async function remove(call: Call, parts: NpubsParts): Promise<Response> {
  const refusal = adminRefusal(call.caller, parts);
  if (refusal !== null) return refusal;
  const { searchParams } = call.url;
  const places = [decoded(call.key ?? ""), searchParams.get("npub"), searchParams.get("pubkey")];
  const named = places.map((text) => readPublicKey(text ?? ""));
  const key = named.find((text) => text !== null) ?? (await readBody(call.request)).key;
  const removed = parts.members.remove(key);
  if (removed) parts.log.info("member.removed", { pubkey: key, by: call.caller.identity?.id });
  return change(200, { removed });
}

function isFirstCome({ isBootstrapOpen, members }: NpubsParts): boolean {
  return isBootstrapOpen && !members.hasHadAdmin();
}

/** Whoever is not registered with this strategy. */
function refusalOf(caller: SurfaceCaller, parts: NpubsParts): Response | null {
  if (caller.identity !== null) {
    return caller.strategy === parts.strategy
      ? null
      : failure(403, "API keys cannot access npubs: sign the request with NIP-98.");
  }
  const refusal = caller.refusal ?? "no_credential";
  if (refusal === "not_registered") {
    return failure(
      403,
      parts.members.isEmpty()
        ? "This npub is not registered, and no one is yet. Register the first with: routstrd npubs register"
        : "This npub is not registered. Ask an admin to add it.",
    );
  }
  const text = REFUSALS[refusal];
  if (text !== undefined) return failure(401, text);
  return failure(403, "API keys cannot access npubs: sign the request with NIP-98.");
}

function adminRefusal(caller: SurfaceCaller, parts: NpubsParts): Response | null {
  const refusal = refusalOf(caller, parts);
  if (refusal === null) {
    return caller.identity?.role === "admin" ? null : failure(403, "Admin-only action.");
  }
  if (refusal.status === 403 && caller.identity !== null) {
    return failure(403, "Admin-only action: API keys cannot access it.");
  }
  if (refusal.status === 401 && !parts.members.hasHadAdmin()) {
    return failure(
      401,
      "No admin is registered, and none can be over HTTP. List one under `admins` in the configuration, or run: gatehouse npub add NPUB --role admin",
    );
  }
  return refusal;
}

function draftOf(body: NpubsBody, createdBy: string | null): MemberDraft {
  return {
    key: body.key,
    role: body.role ?? "user",
    name: body.name ?? null,
    createdBy,
    source: "api",
  };
}

function shown({ npub, pubkey, role, name }: MemberRecord): Readonly<Record<string, unknown>> {
  return { npub, pubkey, role, name };
}

/** Old tools read the top level, newer ones `output`. */
function change(status: number, fields: Readonly<Record<string, unknown>>): Response {
  return json(status, { ...fields, output: fields });
}

function failure(status: number, error: string): Response {
  return json(status, { error });
}

function json(status: number, body: object): Response {
  const headers = new Headers({ "content-type": "application/json", "cache-control": "no-store" });
  if (status === 401) headers.set("www-authenticate", 'Nostr realm="gatehouse"');
  return new Response(JSON.stringify(body), { status, headers });
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return "";
  }
}

function sentence(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}${text.endsWith(".") ? "" : "."}`;
}
