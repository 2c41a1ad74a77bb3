/**
 * The surface `clients`: a member's clients, read from the daemon's file; additions and deletions go to the daemon.
 *
 * Invariant: a member sees and deletes only clients of their own, and only sees keys of their own; an admin may
 * list and delete every client. What the daemon is asked to change was found in its own file first.
 */
import type { Surface, SurfaceCaller } from "gatehouse";
import {
  askDaemon,
  isAnswer,
  type Member,
  memberOf,
  notFound,
  refuse,
  wantsAll,
  withJson,
} from "./answers.ts";
import { type ClientEntry, isFields } from "./client-list.ts";
import { isOwnClient, shownId, storedId, suffixOf } from "./ownership.ts";
import type { ClientRecords, Store } from "./store.ts";

type Fields = Readonly<Record<string, unknown>>;

/** Longest name and id that are passed on, in characters. */
const MAX_LENGTH = 200;
/** Control characters, halves of characters, and what turns the text after it around. */
const UNSAFE = /[\p{Cc}\p{Cs}\u202a-\u202e\u2066-\u2069]/u;

/** Fields of a stored client that are the daemon's to fill, whatever a member sends. */
const DAEMONS_OWN = ["clientId", "apiKey", "createdAt", "lastUsed"];

/** See the file's docblock. */
export function clientsSurface(store: Pick<Store, "records">): Surface {
  return {
    name: "clients",
    async handle(request, caller) {
      const member = memberOf(caller);
      if (isAnswer(member)) return member;
      const url = new URL(request.url);
      switch (`${request.method} ${url.pathname}`) {
        case "GET /clients":
          return list(member, await store.records(), wantsAll(url, member));
        case "POST /clients/add":
          return await add(member, await readBody(request), caller);
        case "POST /clients/delete":
          return await remove(member, await readBody(request), store, caller);
        default:
          return notFound();
      }
    },
  };
}

function list(member: Member, { entries, members }: ClientRecords, all: boolean): Response {
  const isOwn = (entry: ClientEntry) => isOwnClient(entry, member.npub, members);
  const clients = all
    ? entries.map((entry) => everybodys(entry, member, isOwn(entry)))
    : entries.filter(isOwn).map((entry) => own(entry, member));
  return Response.json({ output: { clients, totalCount: clients.length } });
}

function own(entry: ClientEntry, { npub, suffix }: Member): Fields {
  const { name, apiKey, createdAt, lastUsed } = entry;
  // An undefined `lastUsed` is left out by JSON, as the daemon leaves it out.
  return {
    id: shownId(entry.clientId, suffix),
    name,
    apiKey,
    createdAt: createdAt ?? 0,
    lastUsed,
    ownerNpub: npub,
  };
}

/** To delete a client an admin needs its id, not its key. */
function everybodys(entry: ClientEntry, member: Member, isOwn: boolean): Fields {
  const { clientId, ownerNpub } = entry;
  if (isOwn) return { ...own(entry, member), storedId: clientId };
  return {
    ...own(entry, member),
    id: ownerNpub === null ? clientId : shownId(clientId, suffixOf(ownerNpub)),
    apiKey: null,
    ownerNpub,
    storedId: clientId,
  };
}

async function add(
  member: Member,
  body: Fields | Response,
  caller: SurfaceCaller,
): Promise<Response> {
  if (isAnswer(body)) return body;
  const problem = textProblem("name", body.name) ?? textProblem("id", body.id);
  if (problem !== null) return refuse(400, problem);
  const id = storedId(String(body.id), member.suffix);
  if (id === null) return refuse(400, "id needs at least one of a-z, 0-9 and -.");
  const fields = Object.entries(body).filter(([name]) => !DAEMONS_OWN.includes(name));
  const asked = { ...Object.fromEntries(fields), id, ownerNpub: member.npub };
  const answer = await askDaemon(caller, "/clients/add", asked);
  return await rewritten(answer, (output) => {
    const client = isFields(output.client) ? output.client : null;
    if (client === null) return output;
    const ownerNpub = typeof client.ownerNpub === "string" ? client.ownerNpub : member.npub;
    return { ...output, client: { ...withShownId(client, member.suffix), ownerNpub } };
  });
}

async function remove(
  member: Member,
  body: Fields | Response,
  store: Pick<Store, "records">,
  caller: SurfaceCaller,
): Promise<Response> {
  if (isAnswer(body)) return body;
  const { id, ownerNpub = member.npub } = body;
  const problem = textProblem("id", id, Number.POSITIVE_INFINITY);
  if (problem !== null || typeof id !== "string") return refuse(400, problem ?? "id is missing.");
  if (typeof ownerNpub !== "string") return refuse(400, "ownerNpub is not a text.");
  const asked = { id, owner: ownerNpub.toLowerCase(), isOwnerGiven: body.ownerNpub !== undefined };
  const target = targetOf(member, await store.records(), asked);
  if (isAnswer(target)) return target;
  const answer = await askDaemon(caller, "/clients/delete", { id: target.clientId });
  return await rewritten(answer, (output) =>
    target.suffix === null ? output : withShownId(output, target.suffix),
  );
}

/** What to delete, with the suffix that its id is shown without. */
function targetOf(
  member: Member,
  records: ClientRecords,
  { id, owner, isOwnerGiven }: { id: string; owner: string; isOwnerGiven: boolean },
): { readonly clientId: string; readonly suffix: string | null } | Response {
  const named = owner === member.npub || member.isAdmin ? clientOf(records, owner, id) : null;
  const mayAny = member.isAdmin && !isOwnerGiven;
  const found = named ?? (mayAny ? clientAt(records, id) : null);
  if (found === null) {
    return storedId(id, member.suffix) === null
      ? refuse(400, "id needs at least one of a-z, 0-9 and -.")
      : refuse(404, "Client not found.");
  }
  const { clientId } = found;
  // The daemon is told an id alone; it could take the other one.
  if (records.entries.filter((entry) => entry.clientId === clientId).length > 1) {
    return refuse(409, "The daemon has several clients of this id; delete it there.");
  }
  return { clientId, suffix: named === null ? null : suffixOf(owner) };
}

/** The client that `npub` knows as `id`; a stored id that never had the suffix is known as it is. */
function clientOf(
  { entries, members }: ClientRecords,
  npub: string,
  id: string,
): ClientEntry | null {
  const own = entries.filter((entry) => isOwnClient(entry, npub, members));
  const suffixed = storedId(id, suffixOf(npub));
  return (
    own.find(({ clientId }) => clientId === suffixed) ??
    own.find(({ clientId }) => clientId === id) ??
    null
  );
}

function clientAt({ entries }: ClientRecords, id: string): ClientEntry | null {
  return entries.find(({ clientId }) => clientId === id) ?? null;
}

async function readBody(request: Request): Promise<Fields | Response> {
  try {
    const body: unknown = JSON.parse(await request.text());
    if (isFields(body)) return body;
  } catch {
    // Told below; the parser's message would quote the body.
  }
  return refuse(400, "The body is not a JSON object.");
}

function textProblem(field: string, value: unknown, longest = MAX_LENGTH): string | null {
  if (typeof value !== "string" || value.trim() === "") return `${field} is missing.`;
  if (value.length > longest) return `${field} is longer than ${longest} characters.`;
  if (field === "name" && UNSAFE.test(value)) {
    return `${field} has control characters.`;
  }
  return null;
}

/** The daemon's good answer with `output` changed; every other one as it is. */
async function rewritten(answer: Response, change: (output: Fields) => Fields): Promise<Response> {
  if (!answer.ok) return answer;
  const text = await answer.clone().text();
  try {
    const value: unknown = JSON.parse(text);
    if (!isFields(value) || !isFields(value.output)) return answer;
    return withJson(answer, { ...value, output: change(value.output) });
  } catch {
    return answer;
  }
}

function withShownId(fields: Fields, suffix: string): Fields {
  return typeof fields.id === "string" ? { ...fields, id: shownId(fields.id, suffix) } : fields;
}
