/**
 * Cross-origin rules of a route (Fetch standard): preflights, and the lines on every answer, ours or the upstream's.
 *
 * Invariant: an origin that is not listed gets no permission; there is never more than one set of CORS fields.
 */
import type { CorsConfig } from "./config/model.ts";
import { type Fields, firstValue } from "./wire/fields.ts";

/** Whether a request is a CORS preflight; a plain OPTIONS is not. */
export function isPreflight(method: string, fields: Fields): boolean {
  return (
    method === "OPTIONS" &&
    fields.lower.includes("origin") &&
    fields.lower.includes("access-control-request-method")
  );
}

/** The lines for an answer to this origin. */
export function corsFields(cors: CorsConfig, fields: Fields): string {
  const allowed = allowedOrigin(cors, firstValue(fields, "origin"));
  const vary = cors.origins.includes("*") ? "" : "Vary: Origin\r\n";
  if (allowed === null) return vary;
  let text = `${vary}Access-Control-Allow-Origin: ${allowed}\r\n`;
  if (cors.credentials) text += "Access-Control-Allow-Credentials: true\r\n";
  const expose = [...cors.expose, "x-request-id", "x-gatehouse-reason"];
  return `${text}Access-Control-Expose-Headers: ${expose.join(", ")}\r\n`;
}

/** The lines for a preflight; without permission it is answered all the same and the browser refuses. */
export function preflightFields(cors: CorsConfig, fields: Fields): string {
  const allowed = allowedOrigin(cors, firstValue(fields, "origin"));
  if (allowed === null) return "Vary: Origin\r\n";
  let text = `Vary: Origin\r\nAccess-Control-Allow-Origin: ${allowed}\r\n`;
  if (cors.credentials) text += "Access-Control-Allow-Credentials: true\r\n";
  text += `Access-Control-Allow-Methods: ${cors.methods.join(", ")}\r\n`;
  if (cors.headers.length > 0)
    text += `Access-Control-Allow-Headers: ${cors.headers.join(", ")}\r\n`;
  return `${text}Access-Control-Max-Age: ${cors.maxAgeSeconds}\r\n`;
}

function allowedOrigin(cors: CorsConfig, origin: string | undefined): string | null {
  if (origin === undefined) return null;
  if (cors.origins.includes("*")) return "*";
  return cors.origins.includes(origin) ? origin : null;
}
