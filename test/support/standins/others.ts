/**
 * Small stand-ins for servers that have no preset of their own, or whose preset is tested elsewhere: as much as tells
 * one from the other.
 *
 * Invariant: as the rest: they decide by themselves alone and keep what reached them.
 */
import { modelList } from "./dialects.ts";
import { json, type StandIn, standIn, text } from "./standin.ts";

/** LM Studio: 200 for whatever it does not know. */
export function lmStudioStandIn(): StandIn {
  return standIn({
    endpoints: { "GET /v1/models": modelList },
    notFound: ({ method, target }) =>
      json({ error: `Unexpected endpoint or method. (${method} ${target})` }),
  });
}

/** Open WebUI: its page for every path, and a health endpoint. */
export function openWebUiStandIn(): StandIn {
  return standIn({
    endpoints: { "GET /health": () => json({ status: true }) },
    notFound: () => text("<!doctype html><html><head><title>Open WebUI</title></head></html>"),
  });
}

/** A routstrd daemon's HTTP side. */
export function routstrdStandIn(): StandIn {
  return standIn({
    endpoints: {
      "GET /health": () => json({ ok: true }),
      "GET /ping": () => json({ output: "pong" }),
      "GET /status": () => json({ output: { daemon: "running" } }),
      "GET /v1/models": modelList,
    },
    notFound: () => json({ error: "Not found." }, 404),
  });
}

/** Something with a page at `/` and nothing else. */
export function plainStandIn(): StandIn {
  return standIn({ endpoints: { "GET /": () => text("hello") }, notFound: () => text("no", 404) });
}

/** Something that speaks OpenAI's language and is none of those that are known. */
export function openaiLikeStandIn(): StandIn {
  return standIn({
    endpoints: { "GET /v1/models": modelList },
    notFound: () => json({ error: { message: "not found" } }, 404),
  });
}
