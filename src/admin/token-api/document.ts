/**
 * The OpenAPI document of the token API, as it is mounted.
 *
 * Invariant: only what a route really leads to is in it, under the path at which it is reached. No example looks like a
 * secret.
 */
import { OpenAPIHono } from "@hono/zod-openapi";
import { basesOf, isReached } from "../mount.ts";
import { ROUTES } from "./routes.ts";
import { ENDPOINT } from "./surface.ts";

/** A route of the config whose surface is the token API. */
export interface Mounted {
  readonly patterns: readonly string[];
  /** Empty: every method. */
  readonly methods: readonly string[];
}

export type OpenApiDocument = ReturnType<OpenAPIHono["getOpenAPI31Document"]>;

const ABOUT = `Tokens for programs, made by the people they belong to.

Every request carries a credential in a header, never in a cookie; a browser sends none by itself, and bodies must be JSON, so other sites cannot ask in somebody's name. Every answer has X-Request-Id; refusals are application/problem+json.`;

/** @param publicUrls where clients reach the gateway; empty: at the origin of the document */
export function openApiDocument(
  mounted: readonly Mounted[],
  publicUrls: readonly string[],
): OpenApiDocument {
  const app = new OpenAPIHono();
  app.openAPIRegistry.registerComponent("securitySchemes", "bearer", {
    type: "http",
    scheme: "bearer",
    description: "A credential of one of the strategies that the route accepts.",
  });
  const seen = new Map<string, number>();
  for (const { path, route } of mounted.flatMap(reached)) {
    const place = `${route.method} ${path}`;
    if (seen.has(place)) continue;
    seen.set(place, 1);
    const times = seen.get(route.operationId) ?? 0;
    seen.set(route.operationId, times + 1);
    // An operation that is mounted in several places has a name of its own in each.
    const operationId = times === 0 ? route.operationId : `${route.operationId}${times + 1}`;
    app.openAPIRegistry.registerPath({ ...route, operationId, path });
  }
  return app.getOpenAPI31Document({
    openapi: "3.1.0",
    info: { title: "Gatehouse token API", version: "1.0.0", description: ABOUT },
    servers: (publicUrls.length === 0 ? ["/"] : publicUrls).map((url) => ({ url })),
  });
}

/** The operations that a route of the config leads to, and where. */
function reached({ patterns, methods }: Mounted) {
  return basesOf(patterns, ENDPOINT).flatMap((base) =>
    Object.values(ROUTES)
      .map((route) => ({ route, path: base + route.path }))
      .filter(({ path }) => isReached(path, patterns))
      .filter(({ route }) => methods.length === 0 || methods.includes(route.method.toUpperCase())),
  );
}
