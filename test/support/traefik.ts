/**
 * Traefik, which no distribution has: what its documentation says it does with a request, driven by the file that
 * `gatehouse emit traefik` printed.
 *
 * Invariant: a key that is not modelled here throws, so that the snippet cannot gain a line without an effect in tests.
 *
 * doc.traefik.io, «ForwardAuth», «Headers», «Chain», «EntryPoints»; what these pages leave open is from the source of
 * pkg/middlewares/auth/forward.go and pkg/middlewares/forwardedheaders. The question is a GET with X-Forwarded-Method,
 * -Proto, -Host, -Uri and -For of Traefik's own; 2xx passes; authResponseHeaders and what matches
 * authResponseHeadersRegex are deleted from the request, then taken from the answer; any other answer goes to the client;
 * no answer is 500. What Connection names is removed at the entry point (from 2.11.9 and 3.1.3 on).
 */
import { parse } from "yaml";
import { z } from "zod";
import {
  emptyAnswer,
  exchange,
  type Fields,
  type Held,
  type StandIn,
  serveStandIn,
  withField,
  without,
  withoutNominated,
} from "./stand-in.ts";

const middleware = z.union([
  z.strictObject({ chain: z.strictObject({ middlewares: z.array(z.string()) }) }),
  z.strictObject({
    headers: z.strictObject({ customRequestHeaders: z.record(z.string(), z.literal("")) }),
  }),
  z.strictObject({
    forwardAuth: z.strictObject({
      address: z.url(),
      trustForwardHeader: z.literal(false),
      authResponseHeaders: z.array(z.string()),
      authResponseHeadersRegex: z.string(),
    }),
  }),
]);

const document = z.strictObject({
  http: z.strictObject({
    routers: z.record(
      z.string(),
      z.strictObject({
        rule: z.string().regex(/^Host\(`[^`]+`\)(?: \|\| Host\(`[^`]+`\))*$/),
        entryPoints: z.array(z.string()),
        tls: z.strictObject({}),
        middlewares: z.array(z.string()),
        service: z.string(),
      }),
    ),
    services: z.record(
      z.string(),
      z.strictObject({
        loadBalancer: z.strictObject({ servers: z.array(z.strictObject({ url: z.url() })) }),
      }),
    ),
    middlewares: z.record(z.string(), middleware),
  }),
});

type Middleware = z.infer<typeof middleware>;
type Middlewares = Readonly<Record<string, Middleware>>;

/** Deleted from what an untrusted client sends (forwarded_header.go), then set. */
const ENTRY = ["proto", "for", "host", "port", "server", "uri", "method", "prefix"].map(
  (name) => `x-forwarded-${name}`,
);
/** forward.go; Proxy-Authorization goes along. */
const HOP_BY_HOP = ["connection", "keep-alive", "te", "trailers", "transfer-encoding", "upgrade"];

/** The middlewares of a file as Traefik's file provider reads them. */
export function traefikMiddlewares(text: string): Middlewares {
  return document.parse(parse(text)).http.middlewares;
}

export function startTraefik(text: string): Promise<StandIn> {
  const { routers, services, middlewares } = document.parse(parse(text)).http;
  const router = Object.values(routers)[0];
  if (router === undefined) throw new Error("the file has no router");
  const hosts = [...router.rule.matchAll(/`([^`]+)`/g)].map((match) => match[1]);
  const server = services[router.service]?.loadBalancer.servers[0]?.url ?? "";
  return serveStandIn(async (client) => {
    if (!hosts.includes(client.host.replace(/:\d+$/, "").toLowerCase())) return emptyAnswer(404);
    let held = entered(client);
    for (const name of unchained(router.middlewares, middlewares)) {
      const next = await applied(middlewares[name], held);
      if (typeof next === "string") return client.method === "HEAD" ? headOf(next) : next;
      held = next;
    }
    const told = { ...held, fields: withField(held.fields, "x-forwarded-for", "127.0.0.1") };
    return (await exchange(new URL(server).host, told))?.text ?? emptyAnswer(502);
  });
}

/** Go's server sends no body in answer to HEAD. */
function headOf(answer: string): string {
  return answer.slice(0, answer.indexOf("\r\n\r\n") + 4);
}

/** What the entry point makes of a client's request. */
function entered(client: Held): Held {
  const kept = without(withoutNominated(client.fields), [...ENTRY, "x-real-ip"]);
  const own: Fields = [
    ["x-real-ip", "127.0.0.1"],
    ["x-forwarded-proto", "http"],
    ["x-forwarded-port", "80"],
    ["x-forwarded-host", client.host],
    ["x-forwarded-server", "traefik"],
  ];
  return { ...client, fields: [...kept, ...own] };
}

function unchained(names: readonly string[], all: Middlewares): readonly string[] {
  return names.flatMap((name) => {
    const found = all[name];
    if (found === undefined) throw new Error(`there is no middleware ${name}`);
    return "chain" in found ? unchained(found.chain.middlewares, all) : [name];
  });
}

async function applied(step: Middleware | undefined, held: Held): Promise<Held | string> {
  if (step === undefined || "chain" in step) throw new Error("no such step");
  if ("headers" in step) {
    return {
      ...held,
      fields: without(held.fields, Object.keys(step.headers.customRequestHeaders)),
    };
  }
  return forwardAuth(step.forwardAuth, held);
}

type ForwardAuth = Extract<Middleware, { readonly forwardAuth: unknown }>["forwardAuth"];

async function forwardAuth(settings: ForwardAuth, held: Held): Promise<Held | string> {
  const { host, pathname } = new URL(settings.address);
  const facts = {
    for: "127.0.0.1",
    method: held.method,
    proto: "http",
    host: held.host,
    uri: held.target,
  };
  let asked = without(held.fields, HOP_BY_HOP);
  for (const [name, value] of Object.entries(facts)) {
    asked = withField(asked, `x-forwarded-${name}`, value);
  }
  const question = { method: "GET", target: pathname, host, fields: asked, body: "" };
  const answer = await exchange(host, question);
  if (answer === null) return emptyAnswer(500);
  if (answer.status < 200 || answer.status > 299) return answer.text;
  const pattern = new RegExp(settings.authResponseHeadersRegex.replace("(?i)", ""), "i");
  const listed = settings.authResponseHeaders.map((name) => name.toLowerCase());
  const isTaken = ([name]: readonly [string, string]) =>
    listed.includes(name) || pattern.test(name);
  const kept = held.fields.filter((field) => !isTaken(field));
  return { ...held, fields: [...kept, ...answer.fields.filter(isTaken)] };
}
