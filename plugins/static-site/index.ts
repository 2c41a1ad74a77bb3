/**
 * static-site: files of one directory, and a few values as JSON, as surfaces. It knows nobody: asked about a request
 * it always says that its kind of credential is not there.
 *
 * Invariant: what is served lies in the directory, by its real path; a link that leads out of it is not followed.
 */
import { statSync } from "node:fs";
import { resolve } from "node:path";
import { ABSENT, definePlugin, type Surface, z } from "gatehouse";
import { openSite } from "./site.ts";

const value = () => z.union([z.string(), z.number(), z.boolean(), z.null()]);

const config = () =>
  z.strictObject({
    dir: z
      .string()
      .min(1)
      .describe(
        "Directory of the files, relative to the config file. When it is missing all is 404.",
      ),
    not_found: z
      .enum(["plain", "page"])
      .default("plain")
      .describe(
        "What a path without a file gets: plain 404, or 404 with index.html, for pages that route by themselves. Default plain.",
      ),
    values: z
      .record(z.string().min(1), value())
      .default({})
      .describe("What the surface `values` answers as a JSON object; public, never a secret."),
  });

export default definePlugin({
  name: "static-site",
  contract: 1,
  offers: { tokens: false, surfaces: ["files", "values"] },
  config,
  check(settings, { configDir }) {
    const path = resolve(configDir, settings.dir);
    const found = statSync(path, { throwIfNoEntry: false });
    return found === undefined || found.isDirectory() ? [] : [`dir: ${path} is no directory`];
  },
  init(settings, host) {
    const site = openSite(resolve(host.configDir, settings.dir), settings.not_found === "page");
    const json = JSON.stringify(settings.values);
    const values: Surface = {
      name: "values",
      handle: (request) =>
        onlyReading(
          request,
          () => new Response(json, { headers: { ...SAFE, "content-type": "application/json" } }),
        ),
    };
    const files: Surface = {
      name: "files",
      handle: (request) => onlyReading(request, () => site.answer(new URL(request.url).pathname)),
    };
    return {
      authenticate: () => ABSENT,
      credentialHeaders: [],
      surfaces: [files, values],
    };
  },
});

const SAFE = { "x-content-type-options": "nosniff", "referrer-policy": "no-referrer" };

function onlyReading(
  request: Request,
  answer: () => Response | Promise<Response>,
): Response | Promise<Response> {
  if (request.method === "GET" || request.method === "HEAD") return answer();
  return new Response(null, { status: 405, headers: { allow: "GET, HEAD" } });
}
