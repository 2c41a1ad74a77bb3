/**
 * Foreign tokens on standard input: one alone, or one JSON object per line.
 *
 * Invariant: an error names lines and fields, never what stands there; the parser's own message would quote it.
 */
import { z } from "zod";
import type { TokenDraft } from "../contract/tokens.ts";
import { EXIT, OperatorError } from "../errors.ts";
import { instant } from "./token-input.ts";

/** One entry of `--json-lines`. */
export interface ForeignLine {
  /** From 1. */
  readonly line: number;
  readonly token: string;
  readonly draft: TokenDraft;
}

/** Most lines complained about at once. */
const MAX_COMPLAINTS = 20;

const time = z
  .string()
  .transform(instant)
  .refine((ms) => ms !== null, { error: "expected a time such as 2030-12-31T23:59:59Z" })
  .nullish();

const entry = z.strictObject({
  token: z.string(),
  name: z.string(),
  owner: z.string().nullish(),
  role: z.enum(["admin", "user"], { error: "expected admin or user" }).nullish(),
  scopes: z.array(z.string()).nullish(),
  expires_at: time,
  not_before: time,
});

/** The token that is the only line. @throws OperatorError with EXIT.usage */
export function readForeign(input: string): string {
  const token = input.replace(/\r?\n$/, "");
  if (token.trim() === "") throw new OperatorError(EXIT.usage, "no token on standard input");
  if (/[\r\n]/.test(token)) {
    throw new OperatorError(
      EXIT.usage,
      "standard input has more than one line; expected one token",
      "For many tokens use --json-lines.",
    );
  }
  return token;
}

/** Every line that is not blank. @throws OperatorError with EXIT.usage that lists the lines that are wrong */
export function readForeignLines(input: string, createdBy: string): readonly ForeignLine[] {
  const complaints: string[] = [];
  const entries: ForeignLine[] = [];
  const lineOfToken = new Map<string, number>();
  for (const [index, text] of input.split(/\r?\n/).entries()) {
    if (text.trim() === "") continue;
    const line = index + 1;
    const read = readLine(text, line, createdBy);
    if (typeof read === "string") {
      complaints.push(`line ${line}: ${read}`);
      continue;
    }
    const before = lineOfToken.get(read.token);
    if (before !== undefined) complaints.push(`line ${line}: the same token as in line ${before}`);
    lineOfToken.set(read.token, line);
    entries.push(read);
  }
  if (complaints.length > 0) refuse(complaints);
  if (entries.length === 0) throw new OperatorError(EXIT.usage, "no token on standard input");
  return entries;
}

/** A complaint, or the entry. */
function readLine(text: string, line: number, createdBy: string): ForeignLine | string {
  const parsed = entry.safeParse(parseJson(text));
  if (!parsed.success) return parsed.error.issues.map(complaint).join("; ");
  const { token, name, owner, role, scopes, expires_at, not_before } = parsed.data;
  const draft: TokenDraft = {
    name,
    createdBy,
    ...(owner == null ? {} : { owner }),
    ...(role == null ? {} : { role }),
    ...(scopes == null ? {} : { scopes }),
    ...(expires_at == null ? {} : { expiresAtMs: expires_at }),
    ...(not_before == null ? {} : { notBeforeMs: not_before }),
  };
  return { line, token, draft };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function complaint(issue: z.core.$ZodIssue): string {
  // A key that is not known may be a token in the wrong place.
  if (issue.code === "unrecognized_keys") return "unknown key";
  const field = issue.path[0];
  if (field === undefined) return "expected a JSON object";
  return `${String(field)}: ${issue.message}`;
}

function refuse(complaints: readonly string[]): never {
  const shown = complaints.slice(0, MAX_COMPLAINTS);
  const rest = complaints.length - shown.length;
  const more = rest > 0 ? [`and ${rest} more`] : [];
  throw new OperatorError(EXIT.usage, `nothing was imported: ${[...shown, ...more].join("; ")}`);
}
