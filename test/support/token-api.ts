/**
 * A gateway with the token API in front of one strategy that keeps tokens, people to ask it, and every answer held
 * against the gateway's own OpenAPI document.
 *
 * Invariant: an answer that the document does not describe, by status, type or a key, fails the test that got it.
 */
import { afterAll, beforeAll, describe, expect } from "bun:test";
import { z } from "gatehouse";
import type { Identity } from "../../src/contract/outcome.ts";
import { describeBoth, type GatewayUnderTest, type StartGateway } from "./gateway.ts";
import { type RawUpstream, rawUpstream } from "./raw.ts";
import { startValkey, TEST_SALT, type TestValkey, valkeyMissing } from "./valkey.ts";

/** Accepts whoever it is told, as if they had logged in: base64url JSON of an identity in `x-who`. */
export const WHO = `
import { definePlugin, z } from "gatehouse";
export default definePlugin({
  name: "who",
  contract: 1,
  offers: { tokens: false, surfaces: [] },
  config: z.strictObject({ header: z.string().default("x-who").describe("Where it is.") }),
  init: ({ header }) => ({
    credentialHeaders: [header],
    authenticate(request) {
      const said = request.headers.get(header);
      if (said === null) return { outcome: "absent" };
      return { outcome: "accept", identity: JSON.parse(Buffer.from(said, "base64url").toString()) };
    },
  }),
});
`;

/** The strategies that the API is tested on, and why one is left out, if it is. */
const KEEPERS = [
  { use: "bearer-sqlite", missing: null },
  { use: "valkey-hash", missing: valkeyMissing },
] as const;

/** A suite on each of them, in process and compiled, with one gateway for all its tests. */
export function describeTokenApi(
  title: string,
  suite: (api: () => TokenApi, use: string) => void,
): void {
  for (const { use, missing } of KEEPERS) {
    if (missing !== null) {
      describe.skip(`${title} on ${use}: ${missing}`, () => {});
      continue;
    }
    describeBoth(`${title} on ${use}`, (start) => {
      let api: TokenApi;
      beforeAll(async () => {
        api = await startTokenApi(start, use);
      });
      afterAll(() => api.stop());
      suite(() => api, use);
    });
  }
}

let people = 0;

/** Somebody new, so that tests do not see each other's tokens. */
export function somebody(more: Partial<Identity> = {}): Identity {
  people += 1;
  return { id: `user-${people}`, ...more };
}

/** An admin. */
export const ROOT: Identity = { id: "root", role: "admin" };

/** Where to find everything. */
export interface TokenApi {
  readonly gateway: GatewayUnderTest;
  readonly upstream: RawUpstream;
  readonly valkey: TestValkey | null;
  readonly document: Document;
  /** Operations that were answered, as \`method path status\`. */
  readonly seen: Set<string>;
  stop(): Promise<void>;
}

/** As much of an OpenAPI document as is used here. */
export interface Document {
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
  readonly components: { readonly schemas: Readonly<Record<string, object>> };
}

interface Operation {
  readonly operationId: string;
  readonly responses: Readonly<
    Record<string, { readonly content?: Readonly<Record<string, { readonly schema: object }>> }>
  >;
}

/** Routes that a token is tried on, and the API itself. */
export function tokenConfig(keeper: string, upstream: string, more = ""): string {
  return `version: 1
server: { listen: "127.0.0.1:0" }
strategies:
  who: { use: ./who.ts }
  other: { use: ./who.ts, header: x-other }
  keys: ${keeper}
upstreams:
  api: { url: "http://${upstream}" }
routes:
  - match: { path: /api/** }
    access: [who, other, keys]
    surface: keys.tokens
    cors: { origins: ["https://app.example.com"], expose: [link, location, x-total-count], headers: [content-type, x-who] }
  - match: { path: [/docs, /openapi.json] }
    access: public
    surface: keys.docs
  - match: { path: /health/** }
    access: public
    surface: keys.health
  - match: { path: /scoped/** }
    access: [keys]
    require: { scopes: [write] }
    upstream: api
  - match: { path: /admin/** }
    access: [keys]
    require: { role: admin }
    upstream: api
  - match: { path: /guarded/** }
    access: [keys]
    upstream: api
${more}`;
}

/** Starts it all; stop it. */
export async function startTokenApi(start: StartGateway, use: string): Promise<TokenApi> {
  const upstream = rawUpstream();
  const valkey = use === "valkey-hash" ? await startValkey() : null;
  const keeper =
    valkey === null
      ? "{ use: bearer-sqlite }"
      : `{ use: valkey-hash, url: "${valkey.url}", salt: "\${env:TOKEN_SALT}" }`;
  const gateway = await start({
    config: tokenConfig(keeper, upstream.address),
    env: { TOKEN_SALT: TEST_SALT },
    files: { "who.ts": WHO },
  });
  const response = await fetch(`${gateway.url}/openapi.json`);
  const document = (await response.json()) as Document;
  return {
    gateway,
    upstream,
    valkey,
    document,
    seen: new Set(),
    async stop() {
      await gateway.stop();
      upstream.stop();
      await valkey?.stop();
    },
  };
}

/** Somebody who asks: who they are, or a token of theirs, or nobody. */
export type Who = Identity | { readonly token: string } | null;

/** The headers that say so. */
export function credential(who: Who, header = "x-who"): Record<string, string> {
  if (who === null) return {};
  if ("token" in who) return { authorization: `Bearer ${who.token}` };
  return { [header]: Buffer.from(JSON.stringify(who)).toString("base64url") };
}

/** What came back. */
export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  /** Parsed, or null when there is none. */
  // biome-ignore lint/suspicious/noExplicitAny: tests look into answers of every shape
  readonly body: any;
}

/** One request. An object or list as body is sent as JSON; a text as it is. */
export async function ask(
  api: TokenApi,
  who: Who,
  line: string,
  options: { readonly body?: unknown; readonly headers?: Readonly<Record<string, string>> } = {},
): Promise<Answer> {
  const [method = "GET", path = "/"] = line.split(" ");
  const { body, headers = {} } = options;
  const response = await fetch(`${api.gateway.url}${path}`, {
    method,
    redirect: "manual",
    headers: {
      ...credential(who),
      ...(body === undefined ? {} : { "content-type": "application/json" }),
      ...headers,
    },
    ...(body === undefined ? {} : { body: typeof body === "string" ? body : JSON.stringify(body) }),
  });
  const text = await response.text();
  const isJson = response.headers.get("content-type")?.includes("json") === true && text !== "";
  const answer = {
    status: response.status,
    headers: response.headers,
    text,
    body: isJson ? JSON.parse(text) : null,
  };
  holdAgainstDocument(api, method, path, answer);
  return answer;
}

/** Makes a token and gives the answer's body. */
export async function make(
  api: TokenApi,
  who: Who,
  body: object = {},
  path = "/api/me/tokens",
): Promise<{ readonly id: string; readonly token: string; readonly sub: string }> {
  const answer = await ask(api, who, `POST ${path}`, { body });
  expect(answer.status).toBe(201);
  return answer.body;
}

/** Status of a request to the upstream with a token; the upstream has seen it only if that is 200. */
export async function tryToken(api: TokenApi, token: string, path = "/guarded/x"): Promise<number> {
  const before = api.upstream.seen.length;
  const response = await fetch(`${api.gateway.url}${path}`, { headers: credential({ token }) });
  await response.text();
  expect(api.upstream.seen.length - before).toBe(response.status === 200 ? 1 : 0);
  return response.status;
}

function holdAgainstDocument(api: TokenApi, method: string, path: string, answer: Answer): void {
  const { pathname } = new URL(path, "http://x");
  const found = Object.entries(api.document.paths).find(([template]) =>
    new RegExp(`^${template.replace(/\{\w+\}/g, "[^/]+")}$`).test(pathname),
  );
  const operation = found?.[1][method.toLowerCase()];
  if (found === undefined || operation === undefined) return;
  const described = operation.responses[String(answer.status)];
  const place = `${method.toLowerCase()} ${found[0]} ${answer.status}`;
  if (described === undefined) throw new Error(`the document does not have ${place}`);
  api.seen.add(place);
  const [type, content] = Object.entries(described.content ?? {})[0] ?? [null, null];
  expect(answer.headers.get("content-type")).toBe(type);
  if (content === null) {
    expect(answer.text).toBe("");
    return;
  }
  const schema = resolved(content.schema, api.document);
  z.fromJSONSchema(schema as Parameters<typeof z.fromJSONSchema>[0]).parse(answer.body);
  expect(unknownKeys(answer.body, schema)).toEqual([]);
}

type Schema = {
  readonly items?: Schema;
  readonly properties?: Readonly<Record<string, unknown>>;
};

/** References replaced by what they name. */
function resolved(schema: unknown, document: Document): Schema {
  return JSON.parse(
    JSON.stringify(schema, (key, value) => {
      const name = value?.$ref?.split("/").at(-1);
      if (name !== undefined) return resolved(document.components.schemas[name], document);
      return key === "example" ? undefined : value;
    }),
  );
}

function unknownKeys(value: unknown, schema: Schema): string[] {
  if (Array.isArray(value)) return value.flatMap((one) => unknownKeys(one, schema.items ?? {}));
  const { properties = {} } = schema;
  return Object.keys(value as object).filter((key) => !Object.hasOwn(properties, key));
}
