/**
 * What the stand-ins for proxies have in common: a listener that holds a request, and a client.
 *
 * Invariant: header lines keep their number, order and values; names are lower case.
 */
import { raw, rawUpstream } from "./raw.ts";

/** Lower-case name and value of each line. */
export type Fields = readonly (readonly [string, string])[];

/** A request that a proxy holds. */
export interface Held {
  readonly method: string;
  readonly target: string;
  readonly host: string;
  /** Without Host. */
  readonly fields: Fields;
  readonly body: string;
}

export interface Answered {
  readonly status: number;
  readonly fields: Fields;
  readonly body: string;
  /** Byte for byte. */
  readonly text: string;
}

export interface StandIn {
  readonly address: string;
  log(): string;
  stop(): Promise<void>;
}

/** Answers each request with what `handle` gives, and closes. What it throws is in the log and ends as 500. */
export async function serveStandIn(handle: (held: Held) => Promise<string>): Promise<StandIn> {
  let said = "";
  const server = rawUpstream((request, write, close) => {
    const [method = "", target = ""] = request.line.split(" ");
    const host = request.fields.find(([name]) => name === "host")?.[1] ?? "";
    const fields = request.fields.filter(([name]) => name !== "host");
    const failed = (error: unknown): string => {
      said += `${String(error)}\n`;
      return emptyAnswer(500);
    };
    void handle({ method, target, host, fields, body: request.body })
      .catch(failed)
      .then((text) => {
        write(text);
        close();
      });
  });
  return {
    address: server.address,
    log: () => said,
    async stop() {
      server.stop();
    },
  };
}

export function emptyAnswer(status: number): string {
  return `HTTP/1.1 ${status} Stand-in\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`;
}

/** Sends a request and reads the whole answer; `null` when nobody answers. */
export async function exchange(address: string, held: Held): Promise<Answered | null> {
  const { method, target, host, fields, body } = held;
  const kept = without(fields, ["connection", "content-length"]);
  const lines = kept.map(([name, value]) => `${name}: ${value}\r\n`).join("");
  const length = body === "" ? "" : `Content-Length: ${body.length}\r\n`;
  const head = `${method} ${target} HTTP/1.1\r\nHost: ${host}\r\n${lines}${length}Connection: close\r\n\r\n`;
  let text: string;
  try {
    text = (await raw(address, head + body, { until: (got) => isWhole(got, method) })).text;
  } catch {
    return null;
  }
  const end = text.indexOf("\r\n\r\n");
  if (end === -1) return null;
  const [first = "", ...rest] = text.slice(0, end).split("\r\n");
  return {
    status: Number(first.split(" ")[1]),
    fields: rest.map((line) => {
      const colon = line.indexOf(":");
      return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()] as const;
    }),
    body: text.slice(end + 4),
    text,
  };
}

/** Not everybody closes when asked to. */
function isWhole(text: string, method: string): boolean {
  const end = text.indexOf("\r\n\r\n");
  if (end === -1) return false;
  const length = /^content-length: *(\d+)/im.exec(text.slice(0, end))?.[1] ?? "0";
  return method === "HEAD" || text.length >= end + 4 + Number(length);
}

/** The fields whose names are not listed; names in any case. */
export function without(fields: Fields, names: readonly string[]): Fields {
  const lower = names.map((name) => name.toLowerCase());
  return fields.filter(([name]) => !lower.includes(name));
}

/** In place of every line of that name. */
export function withField(fields: Fields, name: string, value: string): Fields {
  return [...without(fields, [name]), [name.toLowerCase(), value]];
}

/** Without what Connection names, and without Connection. */
export function withoutNominated(fields: Fields): Fields {
  const named = fields
    .filter(([name]) => name === "connection")
    .flatMap(([, value]) => value.split(",").map((one) => one.trim()));
  return without(fields, [...named, "connection"]);
}
