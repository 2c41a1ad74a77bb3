/**
 * Stand-ins on a port of one's choice: in front of each a small forwarder, because they choose their own ports.
 *
 * Invariant: what is asked and answered passes unchanged.
 */
import { anvilStandIn } from "./anvil.ts";
import { authsomeStandIn } from "./authsome.ts";
import { dextoStandIn } from "./dexto.ts";
import { llamaCppStandIn } from "./llama-cpp.ts";
import { ollamaStandIn } from "./ollama.ts";
import {
  lmStudioStandIn,
  openaiLikeStandIn,
  openWebUiStandIn,
  plainStandIn,
  routstrdStandIn,
} from "./others.ts";
import { vllmStandIn } from "./vllm.ts";

/** The key of those that want one. */
export const STAND_IN_KEY = "the-upstreams-own-key-0123";

const KINDS: Readonly<Record<string, () => string>> = {
  anvil: () => `http://${anvilStandIn(STAND_IN_KEY).address}`,
  authsome: () => authsomeStandIn().url,
  dexto: () => dextoStandIn(STAND_IN_KEY).url,
  "llama-cpp": () => llamaCppStandIn(STAND_IN_KEY).url,
  "lm-studio": () => lmStudioStandIn().url,
  ollama: () => ollamaStandIn().url,
  openai: () => openaiLikeStandIn().url,
  "open-webui": () => openWebUiStandIn().url,
  plain: () => plainStandIn().url,
  routstrd: () => routstrdStandIn().url,
  vllm: () => vllmStandIn().url,
};

/** Starts one. Its own port answers, too. */
export function serveOn(kind: string, port: number): { stop(): Promise<void> } {
  const start = KINDS[kind];
  if (start === undefined) throw new Error(`no stand-in ${kind}`);
  const url = start();
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port,
    idleTimeout: 0,
    async fetch(request) {
      const { pathname, search } = new URL(request.url);
      const answer = await fetch(`${url}${pathname}${search}`, {
        method: request.method,
        headers: request.headers,
        redirect: "manual",
        decompress: false,
      });
      return new Response(answer.body, answer);
    },
  });
  return { stop: () => server.stop(true) };
}
