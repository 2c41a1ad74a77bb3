/**
 * Any HTTP service: everything behind a credential, but for paths that are opened one by one.
 *
 * Invariant: what is open is one exact path, for reading; a pattern cannot be opened by accident.
 */
import { z } from "zod";
import { definePreset, type ServeDocument, type ServeSources } from "./preset.ts";
import { common, onlyIf, routesFrom } from "./rules.ts";
import { serveWithTokens } from "./serving.ts";

const options = () =>
  z.strictObject({
    ...common,
    open: z
      .array(
        z
          .string()
          .regex(/^\/[^*]*$/, { error: "expected one exact path, without *, such as /health" }),
      )
      .default([])
      .describe("Exact paths that are open to anyone, for reading. Default none."),
    admin: z
      .array(z.string().startsWith("/"))
      .default([])
      .describe("Path patterns that are for role admin. Default none."),
  });

const usual = { upstream: "http://127.0.0.1:9000" };

function serve(sources: ServeSources): ServeDocument {
  const made = serveWithTokens("generic", usual)(sources);
  if ("problems" in made || sources.flags.upstream !== undefined) return made;
  return { ...made, notes: [`guarding ${usual.upstream}: name another with --upstream URL`] };
}

/** @see docs/presets.md */
export const generic = definePreset({
  name: "generic",
  description: "Any HTTP service: everything behind a credential",
  options,
  routes: (given) =>
    routesFrom(given, [
      ...onlyIf(given.open.length > 0, { for: "anyone", path: given.open }),
      ...onlyIf(given.admin.length > 0, { for: "admins", path: given.admin }),
      { for: "everybody", path: ["/**"] },
    ]),
  usual,
  serve,
});
