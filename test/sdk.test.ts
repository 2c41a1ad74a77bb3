/**
 * Real clients through the gateway: the OpenAI and Anthropic SDKs, streaming included.
 *
 * Invariant: an SDK that works against an upstream works through the gateway with only its base URL and key
 * changed, and reads our refusals as the errors its users know.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";
import { startDemoUpstream } from "../src/cli/demo-upstream.ts";
import {
  describeBoth,
  type GatewayUnderTest,
  OPS_ENV,
  OPS_TOKEN,
  simpleConfig,
} from "./support/gateway.ts";

describeBoth("a real SDK", (start) => {
  let upstream: ReturnType<typeof startDemoUpstream>;
  let gateway: GatewayUnderTest;

  beforeAll(async () => {
    upstream = startDemoUpstream();
    gateway = await start({ config: simpleConfig(upstream.url), env: OPS_ENV });
  });
  afterAll(async () => {
    await gateway.stop();
    await upstream.stop();
  });

  const openai = (apiKey = OPS_TOKEN) =>
    new OpenAI({ apiKey, baseURL: `${gateway.url}/v1`, maxRetries: 0 });
  const anthropic = (apiKey = OPS_TOKEN) =>
    new Anthropic({ apiKey, baseURL: gateway.url, maxRetries: 0 });
  const messages = [{ role: "user" as const, content: "Say hello." }];

  test("of OpenAI gets a completion", async () => {
    const answer = await openai().chat.completions.create({ model: "demo", messages });
    expect(answer.choices[0]?.message.content?.length).toBeGreaterThan(0);
  });

  test("of OpenAI gets a stream, piece by piece", async () => {
    const stream = await openai().chat.completions.create({
      model: "demo",
      messages,
      stream: true,
    });
    const pieces: string[] = [];
    for await (const chunk of stream) pieces.push(chunk.choices[0]?.delta.content ?? "");
    expect(pieces.filter((piece) => piece !== "").length).toBeGreaterThan(1);
  });

  test("of OpenAI lists models", async () => {
    const models = await openai().models.list();
    expect(models.data.length).toBeGreaterThan(0);
  });

  test("of OpenAI takes our refusal for a wrong key", async () => {
    const error = await openai("sk-wrong-wrong-wrong-wrong")
      .models.list()
      .catch((caught) => caught);
    expect(error).toBeInstanceOf(OpenAI.AuthenticationError);
    expect(error.code).toBe("invalid_api_key");
    expect(error.status).toBe(401);
  });

  test("of Anthropic gets a message", async () => {
    const answer = await anthropic().messages.create({ model: "demo", max_tokens: 50, messages });
    expect(answer.content[0]?.type).toBe("text");
  });

  test("of Anthropic gets a stream, piece by piece", async () => {
    const stream = anthropic().messages.stream({ model: "demo", max_tokens: 50, messages });
    let pieces = 0;
    stream.on("text", () => {
      pieces += 1;
    });
    const final = await stream.finalMessage();
    expect(pieces).toBeGreaterThan(1);
    expect(final.stop_reason).toBe("end_turn");
  });

  test("of Anthropic takes our refusal for a wrong key", async () => {
    const error = await anthropic("wrong-wrong-wrong-wrong")
      .messages.create({ model: "demo", max_tokens: 5, messages })
      .catch((caught) => caught);
    expect(error).toBeInstanceOf(Anthropic.AuthenticationError);
    expect(error.error.error.type).toBe("authentication_error");
  });
});
