/**
 * What people guard, as data: how it is recognised, which preset fits, what proves that the gate works, and what its
 * clients speak.
 *
 * Invariant: everything asked here is a GET that changes nothing. What a system answers is taken from its own source
 * or documentation; one that is not recognised is plain HTTP.
 */
import type { WrittenRoute } from "../../presets/preset.ts";
import { type HttpAnswer, jsonOf } from "./ask-http.ts";

/** What clients of a system speak. */
export type Dialect = "openai" | "anthropic" | "routstrd";

/** A kind of server. */
export interface System {
  readonly id: string;
  readonly title: string;
  /** Where it listens unless somebody chose otherwise. */
  readonly ports: readonly number[];
  /** Asked for to recognise it, in this order. */
  readonly probes: readonly string[];
  /** Whether an answer to one of {@link probes} can only be its own. */
  is(path: string, answer: HttpAnswer): boolean;
  readonly preset: string;
  /** Options of the preset besides `upstream` and `access`. */
  readonly with?: WrittenRoute;
  /** Settings of the strategy that keeps tokens, where neither the defaults nor the preset's fit. */
  readonly tokens?: WrittenRoute;
  /** Where 401 says that it wants a key of its own, although what was asked above is open. */
  readonly keyProbe?: string;
  /** A GET that role user may, and that answers 200 on a running one. */
  readonly proof: string;
  /** A GET that role user may not, and what the gateway says to it. */
  readonly closed?: { readonly path: string; readonly status: 403 | 404 };
  readonly dialects: readonly Dialect[];
  /** What the operator should know, one sentence. */
  readonly note?: string;
}

const ollama: System = {
  id: "ollama",
  title: "Ollama",
  ports: [11434],
  probes: ["/"],
  is: (_, { text }) => text.trim() === "Ollama is running",
  preset: "ollama",
  proof: "/api/version",
  closed: { path: "/api/pull", status: 403 },
  dialects: ["openai", "anthropic"],
};

const vllm: System = {
  id: "vllm",
  title: "vLLM",
  ports: [8000],
  probes: ["/v1/models", "/version"],
  is: (path, answer) =>
    path === "/v1/models"
      ? modelsOf(answer).some(({ owner }) => owner === "vllm")
      : // With a key of its own it tells its version all the same.
        /^\d+\.\d+/.test(textAt(answer, "version")) && /uvicorn/i.test(serverOf(answer)),
  preset: "vllm",
  proof: "/v1/models",
  closed: { path: "/metrics", status: 403 },
  dialects: ["openai", "anthropic"],
};

const llamaCpp: System = {
  id: "llama-cpp",
  title: "llama.cpp",
  ports: [8080],
  probes: ["/v1/models", "/"],
  is: (_, answer) => serverOf(answer) === "llama.cpp",
  keyProbe: "/props",
  preset: "llama-cpp",
  proof: "/v1/models",
  closed: { path: "/slots", status: 403 },
  dialects: ["openai", "anthropic"],
};

const lmStudio: System = {
  id: "lm-studio",
  title: "LM Studio",
  ports: [1234],
  probes: ["/"],
  is: (_, { text }) => text.includes("Unexpected endpoint or method. (GET /)"),
  preset: "generic",
  // Loading, unloading and downloading models is for whoever runs the machine.
  with: { admin: ["/api/v1/models/load", "/api/v1/models/unload", "/api/v1/models/download/**"] },
  proof: "/v1/models",
  closed: { path: "/api/v1/models/load", status: 403 },
  dialects: ["openai"],
};

const dexto: System = {
  id: "dexto",
  title: "Dexto",
  ports: [3001, 3000],
  probes: ["/.well-known/agent-card.json"],
  is: (_, answer) =>
    textAt(answer, "protocolVersion") !== "" && textAt(answer, "url").endsWith("/mcp"),
  preset: "dexto",
  proof: "/api/agents",
  closed: { path: "/api/agent/config", status: 403 },
  dialects: [],
  note: "Set DEXTO_BASE_URL to the gateway's address, or Dexto's agent card names another one.",
};

const anvil: System = {
  id: "anvil",
  title: "anvil-serving",
  ports: [8000],
  probes: ["/healthz"],
  is: (_, answer) => serverOf(answer) === "anvil",
  preset: "anvil",
  proof: "/v1/models",
  closed: { path: "/metrics", status: 403 },
  dialects: ["openai", "anthropic"],
};

const authsome: System = {
  id: "authsome",
  title: "Authsome",
  ports: [7998],
  probes: ["/api/health"],
  is: (_, answer) => textAt(answer, "encryption_backend") !== "",
  preset: "authsome",
  proof: "/api/health",
  closed: { path: "/docs", status: 404 },
  dialects: [],
  note: "Set AUTHSOME_BASE_URL to the gateway's address. Tokens go into the header x-gatehouse-key, beside Authsome's own proofs.",
};

const openWebUi: System = {
  id: "open-webui",
  title: "Open WebUI",
  ports: [3000, 8080],
  probes: ["/"],
  is: (_, { text }) => /<title>[^<]*Open WebUI/i.test(text),
  preset: "generic",
  tokens: { header: "x-gatehouse-key", authorization: false },
  proof: "/health",
  dialects: [],
  note: "Open WebUI has a login of its own in Authorization; our tokens go into the header x-gatehouse-key, which browsers do not send by themselves.",
};

const routstrd: System = {
  id: "routstrd",
  title: "routstrd",
  ports: [8008, 8009],
  probes: ["/ping"],
  is: (_, answer) => textAt(answer, "output") === "pong",
  preset: "routstrd",
  proof: "/status",
  dialects: ["openai", "anthropic", "routstrd"],
};

const openai: System = {
  id: "openai",
  title: "OpenAI's API",
  ports: [],
  probes: [],
  is: () => false,
  preset: "openai",
  proof: "/v1/models",
  closed: { path: "/v1/organization/users", status: 404 },
  dialects: ["openai"],
};

const anthropic: System = {
  id: "anthropic",
  title: "Anthropic's API",
  ports: [],
  probes: [],
  is: () => false,
  preset: "anthropic",
  proof: "/v1/models",
  closed: { path: "/v1/organizations/users", status: 404 },
  dialects: ["anthropic"],
};

/** Anything else. */
export const PLAIN_HTTP: System = {
  id: "http",
  title: "an HTTP service",
  ports: [],
  probes: ["/"],
  is: () => false,
  preset: "generic",
  proof: "/",
  dialects: [],
};

/** Those that can be recognised by what they answer, the most certain first. */
export const RECOGNISED: readonly System[] = [
  ollama,
  llamaCpp,
  anvil,
  lmStudio,
  openWebUi,
  routstrd,
  dexto,
  authsome,
  vllm,
];

const VENDORS: Readonly<Record<string, System>> = {
  "api.openai.com": openai,
  "api.anthropic.com": anthropic,
};

/** A vendor's API is known by its name. */
export function vendorOf(url: string): System | null {
  const host = URL.parse(url)?.hostname ?? "";
  return VENDORS[host] ?? null;
}

/** The system for a preset that somebody chose. */
export function systemForPreset(preset: string): System {
  const all = [...RECOGNISED, openai, anthropic];
  return all.find((system) => system.id === preset) ?? { ...PLAIN_HTTP, preset };
}

/** A list of models in OpenAI's shape; empty for anything else. */
export function modelsOf(answer: HttpAnswer): readonly { id: string; owner: string }[] {
  const body = jsonOf(answer);
  if (answer.status !== 200 || !isRecord(body) || !Array.isArray(body.data)) return [];
  return body.data.flatMap((model: unknown) => {
    if (!isRecord(model) || typeof model.id !== "string") return [];
    return [{ id: model.id, owner: typeof model.owned_by === "string" ? model.owned_by : "" }];
  });
}

/** Whether it is OpenAI's list of models at all, be it empty. */
export function isModelList(answer: HttpAnswer): boolean {
  const body = jsonOf(answer);
  return answer.status === 200 && isRecord(body) && Array.isArray(body.data);
}

function serverOf({ headers }: HttpAnswer): string {
  return headers.server ?? "";
}

function textAt(answer: HttpAnswer, key: string): string {
  const body = answer.status === 200 ? jsonOf(answer) : undefined;
  const value = isRecord(body) ? body[key] : undefined;
  return typeof value === "string" ? value : "";
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
