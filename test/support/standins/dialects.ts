/**
 * Answers in the dialects of OpenAI and Anthropic, whole and streamed, for stand-ins that speak them.
 *
 * Invariant: their own SDKs can read them; what they say is fixed, so that a test can compare.
 */
import { type Endpoint, json, type SeenCall, stream } from "./standin.ts";

/** What every model answers, in pieces. */
export const PIECES = ["It ", "is ", "me."];

interface Asked {
  readonly model: string;
  readonly isStream: boolean;
}

function asked(call: SeenCall): Asked {
  const { model, stream: wanted } = JSON.parse(call.body) as { model?: string; stream?: boolean };
  return { model: model ?? "none", isStream: wanted === true };
}

/** POST /v1/chat/completions. */
export const chatCompletion: Endpoint = (call) => {
  const { model, isStream } = asked(call);
  const base = { id: "chatcmpl-1", created: 1, model };
  if (!isStream) {
    const message = { role: "assistant", content: PIECES.join("") };
    return json({
      ...base,
      object: "chat.completion",
      choices: [{ index: 0, message, finish_reason: "stop" }],
      usage: { prompt_tokens: 1, completion_tokens: 3, total_tokens: 4 },
    });
  }
  const chunk = (delta: object, reason: string | null) =>
    `data: ${JSON.stringify({ ...base, object: "chat.completion.chunk", choices: [{ index: 0, delta, finish_reason: reason }] })}\n\n`;
  return stream("text/event-stream", [
    ...PIECES.map((content) => chunk({ content }, null)),
    chunk({}, "stop"),
    "data: [DONE]\n\n",
  ]);
};

/** POST /v1/messages. */
export const message: Endpoint = (call) => {
  const { model, isStream } = asked(call);
  const usage = { input_tokens: 1, output_tokens: 3 };
  const base = { id: "msg_1", type: "message", role: "assistant", model };
  if (!isStream) {
    const content = [{ type: "text", text: PIECES.join("") }];
    return json({ ...base, content, stop_reason: "end_turn", stop_sequence: null, usage });
  }
  const event = (type: string, fields: object) =>
    `event: ${type}\ndata: ${JSON.stringify({ type, ...fields })}\n\n`;
  return stream("text/event-stream", [
    event("message_start", {
      message: { ...base, content: [], stop_reason: null, stop_sequence: null, usage },
    }),
    event("content_block_start", { index: 0, content_block: { type: "text", text: "" } }),
    ...PIECES.map((text) =>
      event("content_block_delta", { index: 0, delta: { type: "text_delta", text } }),
    ),
    event("content_block_stop", { index: 0 }),
    event("message_delta", { delta: { stop_reason: "end_turn", stop_sequence: null }, usage }),
    event("message_stop", {}),
  ]);
};

/** GET /v1/models. */
export const modelList: Endpoint = () =>
  json({ object: "list", data: [{ id: "m", object: "model", created: 0, owned_by: "stand-in" }] });

/** Any other endpoint that takes JSON and gives JSON. */
export const done: Endpoint = (call) => json({ ok: true, target: call.target });
