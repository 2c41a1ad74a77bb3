/**
 * Every preset that ships. Invariant: names are unique and never change their meaning.
 */
import { anthropic } from "./anthropic.ts";
import { anvil } from "./anvil.ts";
import { authsome } from "./authsome.ts";
import { dexto } from "./dexto.ts";
import { generic } from "./generic.ts";
import { llamaCpp } from "./llama-cpp.ts";
import { ollama } from "./ollama.ts";
import { openai } from "./openai.ts";
import type { Preset } from "./preset.ts";
import { routstrd } from "./routstrd.ts";
import { valkeyForwardAuth } from "./valkey-forward-auth.ts";
import { vllm } from "./vllm.ts";

/** In the order in which they are listed to people. */
export const PRESETS: readonly Preset[] = [
  ollama,
  vllm,
  llamaCpp,
  openai,
  anthropic,
  dexto,
  anvil,
  authsome,
  routstrd,
  valkeyForwardAuth,
  generic,
];
