/**
 * How tokens are shown: JSON in snake_case with RFC 3339 times, or text for people.
 *
 * Invariant: what a key means and which keys there are does not change between versions; new ones may be added.
 */
import type { IssuedToken, TokenRecord } from "../contract/tokens.ts";

/** A token as JSON. Times that are not set are null. */
export interface RecordJson {
  readonly id: string;
  readonly name: string;
  readonly owner: string | null;
  readonly role: string;
  readonly scopes: readonly string[];
  readonly state: TokenState;
  readonly created_at: string;
  readonly created_by: string | null;
  readonly not_before: string | null;
  readonly expires_at: string | null;
  readonly last_used_at: string | null;
  readonly grace_until: string | null;
  readonly revoked_at: string | null;
  readonly revoked_reason: string | null;
  readonly foreign: boolean;
}

/** What a token is worth at a moment. */
export type TokenState = "active" | "revoked" | "expired" | "not_yet_valid";

const HEADINGS = ["ID", "NAME", "OWNER", "ROLE", "STATE", "EXPIRES", "LAST USED"];

/** The answer of `create` and `rotate`. */
export function issuedJson({ token, record }: IssuedToken): Readonly<Record<string, unknown>> {
  const grace = record.graceUntilMs === null ? {} : { grace_until: timeText(record.graceUntilMs) };
  return {
    id: record.id,
    token,
    name: record.name,
    expires_at: timeOrNull(record.expiresAtMs),
    ...grace,
  };
}

/** One token; `state` is judged at `nowMs`. */
export function recordJson(record: TokenRecord, nowMs: number): RecordJson {
  return {
    id: record.id,
    name: record.name,
    owner: record.owner,
    role: record.role,
    scopes: record.scopes,
    state: stateOf(record, nowMs),
    created_at: timeText(record.createdAtMs),
    created_by: record.createdBy,
    not_before: timeOrNull(record.notBeforeMs),
    expires_at: timeOrNull(record.expiresAtMs),
    last_used_at: timeOrNull(record.lastUsedAtMs),
    grace_until: timeOrNull(record.graceUntilMs),
    revoked_at: timeOrNull(record.revokedAtMs),
    revoked_reason: record.revokedReason,
    foreign: record.foreign,
  };
}

/** Columns, aligned, one line a token. */
export function table(records: readonly TokenRecord[], nowMs: number): string {
  const rows = [HEADINGS, ...records.map((record) => cells(record, nowMs))];
  const widths = HEADINGS.map((_, column) =>
    Math.max(...rows.map((row) => Bun.stringWidth(row[column] ?? ""))),
  );
  const line = (row: readonly string[]) =>
    row
      .map((cell, column) => pad(cell, widths[column] ?? 0))
      .join("  ")
      .trimEnd();
  return `${rows.map(line).join("\n")}\n`;
}

/** Everything about one token, one fact a line. */
export function details(record: TokenRecord, nowMs: number): string {
  const { scopes, ...facts } = recordJson(record, nowMs);
  const shown = { ...facts, scopes: scopes.join(" ") };
  const lines = Object.entries(shown)
    .filter(([, value]) => value !== null && value !== "" && value !== false)
    .map(([key, value]) => `${`${key.replaceAll("_", " ")}:`.padEnd(16)}${value}`);
  return `${lines.join("\n")}\n`;
}

/** RFC 3339 in UTC, without a fraction when it is zero. */
export function timeText(ms: number): string {
  return new Date(ms).toISOString().replace(".000Z", "Z");
}

function timeOrNull(ms: number | null): string | null {
  return ms === null ? null : timeText(ms);
}

function stateOf(record: TokenRecord, nowMs: number): TokenState {
  if (record.revokedAtMs !== null) return "revoked";
  if (record.expiresAtMs !== null && nowMs >= record.expiresAtMs) return "expired";
  if (record.notBeforeMs !== null && nowMs < record.notBeforeMs) return "not_yet_valid";
  return "active";
}

function cells(record: TokenRecord, nowMs: number): string[] {
  return [
    record.id,
    record.name || "-",
    record.owner ?? "-",
    record.role,
    stateOf(record, nowMs).replaceAll("_", " "),
    record.expiresAtMs === null ? "never" : toMinute(record.expiresAtMs),
    record.lastUsedAtMs === null ? "never" : toMinute(record.lastUsedAtMs),
  ];
}

function toMinute(ms: number): string {
  return new Date(ms).toISOString().slice(0, 16).replace("T", " ");
}

function pad(cell: string, width: number): string {
  return cell + " ".repeat(Math.max(0, width - Bun.stringWidth(cell)));
}
