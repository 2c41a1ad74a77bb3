/**
 * What a preset lets through, as a table: method, path, who asks, and the status that comes back.
 *
 * Invariant: each line is sent byte for byte on a socket of its own, and is held against what the stand-in saw: a
 * refusal that reached it fails.
 */
import { expect, test } from "bun:test";
import type { GatewayUnderTest } from "./gateway.ts";
import { raw } from "./raw.ts";

export const TEAM_TOKEN = "team-token-0123456789-abcdefghij";
export const BOSS_TOKEN = "boss-token-0123456789-abcdefghij";

/** Environment for {@link presetConfig}. */
export const TOKENS_ENV = { TEAM_TOKEN, BOSS_TOKEN } as const;

/** Nobody, somebody with a wrong token, a token of role user, one of role admin. */
export type Who = "nobody" | "stranger" | "user" | "admin";

/** Method, path with query, who asks, status; `seen: false` for an answer of ours that is no refusal. */
export type Row = readonly [method: string, path: string, who: Who, status: number];

const CREDENTIALS: Readonly<Record<Who, string | null>> = {
  nobody: null,
  stranger: "wrong-token-0123456789-abcdefghij",
  user: TEAM_TOKEN,
  admin: BOSS_TOKEN,
};

/** A config with one preset in front of `url`, for two fixed tokens: team (role user) and boss (role admin). */
export function presetConfig(
  preset: string,
  url: string,
  more: {
    readonly with?: Readonly<Record<string, unknown>>;
    readonly upstream?: Readonly<Record<string, unknown>>;
    readonly strategy?: Readonly<Record<string, unknown>>;
    readonly server?: Readonly<Record<string, unknown>>;
  } = {},
): string {
  return JSON.stringify({
    version: 1,
    server: { listen: "127.0.0.1:0", ...more.server },
    strategies: {
      team: { use: "static-env", env: "TEAM_TOKEN", ...more.strategy },
      boss: { use: "static-env", env: "BOSS_TOKEN", role: "admin", ...more.strategy },
    },
    upstreams: { api: { url, ...more.upstream } },
    routes: [{ preset, with: { upstream: "api", access: ["team", "boss"], ...more.with } }],
  });
}

/** The header line that carries somebody's token. */
export function credentialLine(who: Who, header = "Authorization"): string {
  const token = CREDENTIALS[who];
  if (token === null) return "";
  return header === "Authorization"
    ? `Authorization: Bearer ${token}\r\n`
    : `${header}: ${token}\r\n`;
}

/** What a table is about. */
export interface TableSubject {
  gateway(): GatewayUnderTest;
  /** How many requests the stand-in saw so far. */
  seenCount(): number;
  /** Header of the credential. Default Authorization. */
  readonly header?: string;
  /** Body of POST, PUT and PATCH. Default `{"model":"m"}`. */
  readonly body?: string;
}

/** One test a line. A status of the gateway's own must not have reached the stand-in, every other one must. */
export function checkTable(subject: TableSubject, rows: readonly Row[]): void {
  test.each(rows.map((row) => [...row] as [string, string, Who, number]))(
    "%s %s by %s is %i",
    async (method, path, who, status) => {
      const before = subject.seenCount();
      const body = ["POST", "PUT", "PATCH"].includes(method)
        ? (subject.body ?? '{"model":"m"}')
        : "";
      const length =
        body === "" ? "" : `Content-Type: application/json\r\nContent-Length: ${body.length}\r\n`;
      const { text, statuses } = await raw(
        subject.gateway().address,
        `${method} ${path} HTTP/1.1\r\nHost: gate.example\r\nConnection: close\r\n${credentialLine(who, subject.header)}${length}\r\n${body}`,
      );
      const isOurs = /^x-gatehouse-reason:/im.test(text);
      expect([statuses.at(-1), isOurs ? "ours" : "passed"]).toEqual([
        status,
        subject.seenCount() > before ? "passed" : "ours",
      ]);
    },
  );
}

/** Every line for each of several paths. */
export function rowsFor(
  paths: readonly string[],
  method: string,
  outcomes: Readonly<Partial<Record<Who, number>>>,
): readonly Row[] {
  return paths.flatMap((path) =>
    Object.entries(outcomes).map(([who, status]): Row => [method, path, who as Who, status]),
  );
}

/** Spellings of a closed path by which it must not be reached: each is refused or means the closed one. */
export function spellingsOf(path: string): readonly string[] {
  const [first = "", ...rest] = path.slice(1).split("/");
  const tail = rest.length === 0 ? "" : `/${rest.join("/")}`;
  const escaped = `%${first.charCodeAt(0).toString(16)}${first.slice(1)}`;
  return [
    `/${path}`,
    `//${path}`,
    `/x/..${path}`,
    `/v1/..${path}`,
    `/x/%2e%2e${path}`,
    `/x/..%2f${path.slice(1)}`,
    `/%2e${path}`,
    `/.${path}`,
    `${path}/`,
    `${path}/.`,
    `${path}%2f`,
    `${path};x=1`,
    `${path}%20`,
    `${path}%00`,
    `/${first.toUpperCase()}${tail}`,
    `/${escaped}${tail}`,
    `/%25${first.charCodeAt(0).toString(16)}${first.slice(1)}${tail}`,
    `/\\${path.slice(1)}`,
    `${path}%23`,
    `${path}%3f`,
  ];
}

/** No spelling of a closed path reaches the stand-in as somebody who may not use it. */
export function checkSpellings(
  subject: TableSubject,
  cases: readonly (readonly [method: string, path: string, who: Who])[],
): void {
  const all = cases.flatMap(([method, path, who]) =>
    spellingsOf(path).map((one): [string, string, Who] => [method, one, who]),
  );
  test.each(all)("%s %s by %s reaches nothing", async (method, path, who) => {
    const before = subject.seenCount();
    const { statuses } = await raw(
      subject.gateway().address,
      `${method} ${path} HTTP/1.1\r\nHost: gate.example\r\nConnection: close\r\n${credentialLine(who, subject.header)}Content-Length: 0\r\n\r\n`,
    );
    expect([400, 401, 403, 404]).toContain(statuses.at(-1) ?? 0);
    expect(subject.seenCount()).toBe(before);
  });
}

/** Headers by which a client would tell the upstream that it is somebody else. */
export const SPOOFED = [
  "X-Gatehouse-Identity: boss",
  "X_Gatehouse_Identity: boss",
  "X-Gatehouse-Role: admin",
  "x.gatehouse.role: admin",
  "Remote-User: boss",
  "X-Forwarded-User: boss",
  "X-Auth-Request-User: boss",
  "X-Original-URL: /api/pull",
  "X-HTTP-Method-Override: DELETE",
  "Forwarded: for=127.0.0.1",
].join("\r\n");
