/**
 * The upstream of `gatehouse demo`: an echo and the two chat dialects, streamed and whole.
 *
 * Invariant: it listens on loopback only, keeps nothing, and calls no one. It is a stand-in for a model server
 * that shows what an upstream sees; it is not part of a gateway.
 */
import { systemClock } from "../clock.ts";

/** A running stand-in. */
export interface DemoUpstream {
  /** `http://127.0.0.1:PORT`. */
  readonly url: string;
  /** Ends open answers, too. */
  stop(): Promise<void>;
}

/** Between two pieces of a streamed answer, so that one can see it stream. */
const PIECE_MS = 80;

const MODEL = "demo";

/** Starts it on a free port. */
export function startDemoUpstream(): DemoUpstream {
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    // Answers may pause; the default of 10 s would cut them.
    idleTimeout: 0,
    fetch: answer,
  });
  return { url: `http://127.0.0.1:${server.port}`, stop: () => server.stop(true) };
}

async function answer(request: Request): Promise<Response> {
  const { pathname } = new URL(request.url);
  if (pathname === "/health") return Response.json({ status: "ok" });
  if (pathname === "/echo") return echo(request);
  if (pathname === "/v1/models") return Response.json(models());
  if (request.method === "POST" && pathname === "/v1/chat/completions") return openai(request);
  if (request.method === "POST" && pathname === "/v1/messages") return anthropic(request);
  return Response.json({ error: "the demo upstream has no such endpoint" }, { status: 404 });
}

async function echo(request: Request): Promise<Response> {
  const url = new URL(request.url);
  const seen = {
    method: request.method,
    path: url.pathname + url.search,
    headers: Object.fromEntries(request.headers),
    body: await request.text(),
  };
  return new Response(`${JSON.stringify(seen, null, 2)}\n`, {
    headers: { "content-type": "application/json" },
  });
}

function models(): object {
  return {
    object: "list",
    data: [{ id: MODEL, object: "model", created: 0, owned_by: "gatehouse" }],
  };
}

async function openai(request: Request): Promise<Response> {
  const chat = await readChat(request);
  if (chat === null) return badRequest();
  const words = reply(chat.said);
  const base = {
    id: "chatcmpl-demo",
    created: Math.floor(systemClock.nowMs() / 1000),
    model: MODEL,
  };
  if (!chat.isStream) {
    const message = { role: "assistant", content: words.join("") };
    return Response.json({
      ...base,
      object: "chat.completion",
      choices: [{ index: 0, message, finish_reason: "stop" }],
      usage: { prompt_tokens: 1, completion_tokens: words.length, total_tokens: words.length + 1 },
    });
  }
  const chunk = (delta: object, reason: string | null) => {
    const choices = [{ index: 0, delta, finish_reason: reason }];
    return `data: ${JSON.stringify({ ...base, object: "chat.completion.chunk", choices })}\n\n`;
  };
  return eventStream([
    chunk({ role: "assistant", content: "" }, null),
    ...words.map((content) => chunk({ content }, null)),
    `${chunk({}, "stop")}data: [DONE]\n\n`,
  ]);
}

async function anthropic(request: Request): Promise<Response> {
  const chat = await readChat(request);
  if (chat === null) return badRequest();
  const words = reply(chat.said);
  const base = { id: "msg_demo", type: "message", role: "assistant", model: MODEL };
  const usage = { input_tokens: 1, output_tokens: words.length };
  if (!chat.isStream) {
    const content = [{ type: "text", text: words.join("") }];
    return Response.json({
      ...base,
      content,
      stop_reason: "end_turn",
      stop_sequence: null,
      usage,
    });
  }
  const event = (type: string, fields: object) =>
    `event: ${type}\ndata: ${JSON.stringify({ type, ...fields })}\n\n`;
  const message = { ...base, content: [], stop_reason: null, stop_sequence: null, usage };
  const delta = { stop_reason: "end_turn", stop_sequence: null };
  return eventStream([
    event("message_start", { message }) +
      event("content_block_start", { index: 0, content_block: { type: "text", text: "" } }),
    ...words.map((text) =>
      event("content_block_delta", { index: 0, delta: { type: "text_delta", text } }),
    ),
    event("content_block_stop", { index: 0 }) +
      event("message_delta", { delta, usage }) +
      event("message_stop", {}),
  ]);
}

interface Chat {
  readonly isStream: boolean;
  /** Text of the last message; empty when it is not a plain one. */
  readonly said: string;
}

/** Null when the body is no JSON object. */
async function readChat(request: Request): Promise<Chat | null> {
  let body: unknown;
  try {
    body = await request.json();
  } catch {
    return null;
  }
  if (typeof body !== "object" || body === null) return null;
  const isStream = "stream" in body && body.stream === true;
  const messages: unknown = "messages" in body ? body.messages : null;
  const last: unknown = Array.isArray(messages) ? messages.at(-1) : null;
  const hasContent = typeof last === "object" && last !== null && "content" in last;
  return { isStream, said: hasContent && typeof last.content === "string" ? last.content : "" };
}

function badRequest(): Response {
  return Response.json({ error: "expected a JSON object" }, { status: 400 });
}

/** The answer in the pieces in which it is streamed. */
function reply(said: string): readonly string[] {
  const heard = said === "" ? "You said nothing." : `You said: ${said.slice(0, 200)}.`;
  return `${heard} This answer came through the gateway piece by piece.`.split(/(?<= )/);
}

function eventStream(pieces: readonly string[]): Response {
  const encoder = new TextEncoder();
  let next = 0;
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      if (next > 0) await Bun.sleep(PIECE_MS);
      const piece = pieces[next++];
      if (piece === undefined) controller.close();
      else controller.enqueue(encoder.encode(piece));
    },
  });
  return new Response(body, {
    headers: { "content-type": "text/event-stream", "cache-control": "no-cache" },
  });
}
