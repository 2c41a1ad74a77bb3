/**
 * The daemon's own texts: the list of clients (`client_ids`) and the list of models (`routstr21Models`).
 *
 * Invariant: what comes out was checked field by field; an entry that cannot be judged is left out and counted, and
 * no message quotes any of the text, which holds keys.
 */

/** A client as the daemon stored it. `apiKey` is the credential: never log it. */
export interface ClientEntry {
  readonly clientId: string;
  /** The stored name, whatever is in it; the id when there is none. */
  readonly name: string;
  readonly apiKey: string;
  /** Epoch milliseconds. */
  readonly createdAt: number | null;
  /** Epoch milliseconds; undefined when the daemon wrote none. */
  readonly lastUsed: number | null | undefined;
  /** Lower case. Null: the client belongs to nobody in particular. */
  readonly ownerNpub: string | null;
}

/** What one value of `client_ids` came to. */
export interface ClientList {
  /** `missing`: there is no such row. `unreadable`: it is no JSON array. Both mean no clients. */
  readonly state: "ok" | "missing" | "unreadable";
  readonly entries: readonly ClientEntry[];
  /** How many entries lack something or have a wrong type. */
  readonly skipped: number;
  /** How many entries have the key of an earlier one. The first one counts. */
  readonly duplicates: number;
}

type Fields = Readonly<Record<string, unknown>>;

/** The clients in `value`, in stored order. */
export function readClientList(value: unknown): ClientList {
  if (value === null || value === undefined) return empty("missing");
  const items = jsonArray(value);
  if (items === null) return empty("unreadable");
  const byKey = new Map<string, ClientEntry>();
  let skipped = 0;
  let duplicates = 0;
  for (const item of items) {
    const entry = readEntry(item);
    if (entry === null) skipped += 1;
    else if (byKey.has(entry.apiKey)) duplicates += 1;
    else byKey.set(entry.apiKey, entry);
  }
  return { state: "ok", entries: [...byKey.values()], skipped, duplicates };
}

/**
 * The ids of the models in `value`. Null when there is nothing to go by: no row, no JSON array, no text in it.
 * An empty list is null too: the daemon has not filled it yet, and what that means is for the route to say.
 */
export function readModels(value: unknown): readonly string[] | null {
  const models = (jsonArray(value) ?? []).filter(isText);
  return models.length === 0 ? null : models;
}

function empty(state: ClientList["state"]): ClientList {
  return { state, entries: [], skipped: 0, duplicates: 0 };
}

/** The parser's message would quote the text, so it is dropped. */
function jsonArray(value: unknown): readonly unknown[] | null {
  if (typeof value !== "string") return null;
  try {
    const parsed: unknown = JSON.parse(value);
    return Array.isArray(parsed) ? parsed : null;
  } catch {
    return null;
  }
}

function readEntry(item: unknown): ClientEntry | null {
  if (!isFields(item)) return null;
  const { clientId, apiKey, ownerNpub, name, createdAt, lastUsed } = item;
  if (!isText(clientId) || !isText(apiKey)) return null;
  const hasOwner = ownerNpub !== undefined && ownerNpub !== null && ownerNpub !== "";
  // An owner that cannot be read must not turn into "no owner", which nobody's removal would end.
  if (hasOwner && typeof ownerNpub !== "string") return null;
  return {
    clientId,
    name: isText(name) ? name : clientId,
    apiKey,
    createdAt: typeof createdAt === "number" ? createdAt : null,
    lastUsed: typeof lastUsed === "number" || lastUsed === null ? lastUsed : undefined,
    ownerNpub: hasOwner && typeof ownerNpub === "string" ? ownerNpub.toLowerCase() : null,
  };
}

/** Whether `value` is a JSON object. */
export function isFields(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isText(value: unknown): value is string {
  return typeof value === "string" && value !== "";
}
