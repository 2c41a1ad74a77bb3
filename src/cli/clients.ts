/**
 * `clients add|list|delete`: client keys of a routstrd behind a running gateway or routstrd-auth, by requests that are
 * signed with the caller's Nostr key.
 *
 * Invariant: a client's key goes to standard output alone, when it is made or when it is asked for; what the other
 * side says is printed without control characters. Redirects are not followed.
 */
import { z } from "zod";
import { EXIT, type ExitCode, errorMessage, OperatorError } from "../errors.ts";
import { columns, printable } from "./columns.ts";
import type { CliContext, CommonOptions } from "./context.ts";
import { type AskHidden, type KeyOptions, secretKey } from "./nostr-key.ts";
import { authorization, checkedUrl } from "./signed-request.ts";

/** Options of every `clients` verb. */
export interface ClientsOptions extends CommonOptions, KeyOptions {
  /** `--url URL`; default ROUTSTRD_AUTH_URL. */
  readonly url?: string;
}

const TIMEOUT_MS = 30_000;
const MAX_MESSAGE = 300;

const client = z.object({
  id: z.string(),
  name: z.string(),
  apiKey: z.string(),
  createdAt: z.number(),
  lastUsed: z.number().nullish(),
  ownerNpub: z.string().nullish(),
});
const listAnswer = z.object({ output: z.object({ clients: z.array(client) }) });
const addAnswer = z.object({
  output: z.object({ client: z.object({ id: z.string(), name: z.string(), apiKey: z.string() }) }),
});

/** `clients add --name N [--id ID]`: prints the new key alone. */
export async function clientsAdd(
  context: CliContext,
  options: ClientsOptions & { readonly name: string; readonly id?: string },
  ask?: AskHidden,
): Promise<ExitCode> {
  const { name, id = idOf(name) } = options;
  if (id === "") throw new OperatorError(EXIT.usage, "the name gives no id; name one with --id");
  const send = await sender(context, options, ask);
  const { client: made } = understood(
    addAnswer,
    await send("POST", "/clients/add", { name, id }),
  ).output;
  if (options.json) context.out(json({ id: made.id, name: made.name, api_key: made.apiKey }));
  else context.out(`${printable(made.apiKey)}\n`);
  context.err(`Client ${printable(made.name)} (id ${printable(made.id)}) made.\n`);
  return EXIT.ok;
}

/** `clients list [--show-keys]`: a table, or with `--json` an array. */
export async function clientsList(
  context: CliContext,
  options: ClientsOptions & { readonly showKeys?: boolean },
  ask?: AskHidden,
): Promise<ExitCode> {
  const send = await sender(context, options, ask);
  const { clients } = understood(listAnswer, await send("GET", "/clients")).output;
  const keyOf = (each: z.infer<typeof client>): string =>
    options.showKeys ? each.apiKey : `…${each.apiKey.slice(-4)}`;
  if (options.json) {
    const rows = clients.map((each) => ({
      id: each.id,
      name: each.name,
      ...(options.showKeys ? { api_key: each.apiKey } : {}),
      created_at: time(each.createdAt),
      last_used_at: time(each.lastUsed),
      owner: each.ownerNpub ?? null,
    }));
    context.out(json(rows));
  } else if (clients.length === 0) {
    context.err("No clients.\n");
  } else {
    const cells = clients.map((each) => [
      each.id,
      each.name,
      keyOf(each),
      time(each.createdAt)?.slice(0, 10) ?? "-",
      time(each.lastUsed)?.slice(0, 10) ?? "never",
    ]);
    context.out(columns(["ID", "NAME", "KEY", "CREATED", "LAST USED"], cells));
  }
  return EXIT.ok;
}

/** `clients delete ID`: its key works no longer. */
export async function clientsDelete(
  context: CliContext,
  options: ClientsOptions & { readonly id: string },
  ask?: AskHidden,
): Promise<ExitCode> {
  const send = await sender(context, options, ask);
  await send("POST", "/clients/delete", { id: options.id });
  if (options.json) context.out(json({ id: options.id, deleted: true }));
  context.err(`Client ${printable(options.id)} deleted.\n`);
  return EXIT.ok;
}

type Send = (method: string, path: string, body?: object) => Promise<unknown>;

async function sender(
  context: CliContext,
  options: ClientsOptions,
  ask: AskHidden | undefined,
): Promise<Send> {
  const base = options.url ?? context.env.ROUTSTRD_AUTH_URL;
  if (base === undefined || base.trim() === "") {
    throw new OperatorError(EXIT.usage, "no URL: use --url URL or set ROUTSTRD_AUTH_URL");
  }
  const root = checkedUrl(base.trim().replace(/\/$/, "")).replace(/\/$/, "");
  if (root.includes("?")) throw new OperatorError(EXIT.usage, "--url must not have a query");
  const secret = await secretKey(context, options, ask);
  return async (method, path, content) => {
    const url = root + path;
    const body = content === undefined ? undefined : Buffer.from(JSON.stringify(content));
    const headers = new Headers({
      authorization: authorization(secret, {
        method,
        url,
        ...(body === undefined ? {} : { body }),
      }),
      accept: "application/json",
    });
    if (body !== undefined) headers.set("content-type", "application/json");
    return answered(
      await request(url, { method, headers, ...(body === undefined ? {} : { body }) }),
    );
  };
}

async function request(url: string, init: RequestInit): Promise<Response> {
  try {
    const signal = AbortSignal.timeout(TIMEOUT_MS);
    return await fetch(url, { ...init, redirect: "manual", signal });
  } catch (error) {
    throw new OperatorError(
      EXIT.unavailable,
      `${new URL(url).origin} cannot be reached: ${printable(errorMessage(error))}`,
    );
  }
}

/** @throws OperatorError with what the other side said */
async function answered(response: Response): Promise<unknown> {
  const text = await response.text();
  const value = parse(text);
  const error = z.object({ error: z.string() }).safeParse(value);
  if (response.ok && value !== undefined && !error.success) return value;
  const said = error.success ? error.data.error : detailOf(value);
  const { status } = response;
  const isDenied = status === 401 || status === 403;
  throw new OperatorError(
    isDenied ? EXIT.permission : EXIT.failure,
    `the gateway answered ${status}${said === "" ? "" : `: ${printable(said).slice(0, MAX_MESSAGE)}`}`,
    status >= 300 && status < 400 ? "It redirects; name the URL that it redirects to." : undefined,
  );
}

/** Gatehouse without the preset says it as RFC 9457 does. */
function detailOf(value: unknown): string {
  const problem = z.object({ detail: z.string() }).safeParse(value);
  return problem.success ? problem.data.detail : "";
}

function understood<T>(schema: z.ZodType<T>, value: unknown): T {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw new OperatorError(
    EXIT.failure,
    "the answer is not what routstrd says; is this the right URL?",
  );
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** As routstrd's own command line makes it. */
function idOf(name: string): string {
  return name
    .trim()
    .toLowerCase()
    .replaceAll(/\s+/g, "-")
    .replaceAll(/[^a-z0-9-]/g, "");
}

/** RFC 3339 of epoch milliseconds, `null` for what is none. */
function time(ms: number | null | undefined): string | null {
  if (ms === null || ms === undefined || !(Math.abs(ms) <= 8.64e15)) return null;
  return new Date(ms).toISOString().replace(/\.\d+Z$/, "Z");
}

function json(value: unknown): string {
  return `${JSON.stringify(value, null, 2)}\n`;
}
