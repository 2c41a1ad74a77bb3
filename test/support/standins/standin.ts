/**
 * Stand-ins for systems that presets guard: a table of endpoints on a free port of loopback, with that system's
 * statuses, bodies and habits.
 *
 * Invariant: they decide by themselves alone, as the real ones do, and keep what reached them, so that a test can say
 * that nothing did.
 */

/** A request that arrived. */
export interface SeenCall {
  readonly method: string;
  /** Path and query as they came. */
  readonly target: string;
  readonly headers: Headers;
  readonly body: string;
}

/** What an endpoint answers. */
export type Endpoint = (call: SeenCall, parameters: readonly string[]) => Response;

export interface StandIn {
  readonly url: string;
  /** Everything that arrived, in order. */
  readonly seen: SeenCall[];
  stop(): Promise<void>;
}

/** What a stand-in is made of. */
export interface StandInParts {
  /** `GET /api/tags`; a segment `:x` is any one, a last segment `*` is the rest. */
  readonly endpoints: Readonly<Record<string, Endpoint>>;
  /** Before any endpoint: its own authentication and CORS. Null goes on. */
  readonly before?: (call: SeenCall) => Response | null;
  /** For a path that it knows with other methods. Default: as for one that it does not know. */
  readonly notAllowed?: Endpoint;
  readonly notFound: Endpoint;
  /** On every answer. */
  readonly headers?: Readonly<Record<string, string>>;
}

/** Starts one. */
export function standIn(parts: StandInParts): StandIn {
  const seen: SeenCall[] = [];
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    idleTimeout: 0,
    async fetch(request) {
      const url = new URL(request.url);
      const { method, headers } = request;
      const target = url.pathname + url.search;
      const call = { method, target, headers, body: await request.text() };
      seen.push(call);
      const response = parts.before?.(call) ?? answer(parts, call, url.pathname);
      for (const [name, value] of Object.entries(parts.headers ?? {})) {
        response.headers.set(name, value);
      }
      return response;
    },
  });
  return {
    url: `http://127.0.0.1:${server.port}`,
    seen,
    stop: () => server.stop(true),
  };
}

function answer(parts: StandInParts, call: SeenCall, path: string): Response {
  let isKnown = false;
  for (const [name, endpoint] of Object.entries(parts.endpoints)) {
    const [method, pattern = ""] = name.split(" ");
    const parameters = match(pattern, path);
    if (parameters === null) continue;
    isKnown = true;
    if (method === call.method) return endpoint(call, parameters);
  }
  return (isKnown ? (parts.notAllowed ?? parts.notFound) : parts.notFound)(call, []);
}

/** What the placeholders stand for, or null. */
function match(pattern: string, path: string): string[] | null {
  const wanted = pattern.split("/");
  const given = path.split("/");
  const isOpen = wanted.at(-1) === "*";
  if (isOpen ? given.length < wanted.length : given.length !== wanted.length) return null;
  const found: string[] = [];
  for (const [index, segment] of wanted.entries()) {
    const value = given[index] ?? "";
    if (segment === "*") return [...found, given.slice(index).join("/")];
    if (segment.startsWith(":")) found.push(value);
    else if (segment !== value) return null;
  }
  return found;
}

/** JSON with a status. */
export function json(value: unknown, status = 200): Response {
  return Response.json(value, { status });
}

/** Plain text with a status. */
export function text(value: string, status = 200): Response {
  return new Response(value, { status, headers: { "content-type": "text/plain; charset=utf-8" } });
}

/** Pieces that leave one by one, so that a reader may see the first before the last is made. */
export function stream(type: string, pieces: readonly string[]): Response {
  const encoder = new TextEncoder();
  const body = new ReadableStream({
    async start(controller) {
      for (const piece of pieces) {
        controller.enqueue(encoder.encode(piece));
        await new Promise((resolve) => setImmediate(resolve));
      }
      controller.close();
    },
  });
  return new Response(body, { headers: { "content-type": type, "cache-control": "no-cache" } });
}

/** One endpoint for many names. */
export function each(
  names: readonly string[],
  endpoint: Endpoint,
): Readonly<Record<string, Endpoint>> {
  return Object.fromEntries(names.map((name) => [name, endpoint]));
}
