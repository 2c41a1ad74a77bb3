/**
 * Why the import of an external plugin failed, in one line with file, line and column.
 *
 * Invariant: no source text is quoted, since a source line may hold what should not be in a log.
 */
import { EXIT, errorMessage, OperatorError } from "./errors.ts";

const PIN = /\?sha256=[0-9a-f]{64}(?:&try=\d+)?/g;

/** The error to show for `error`, which importing the plugin file at `path` gave. */
export function importFailure(error: unknown, path: string): OperatorError {
  // Ours already: a file that the plugin imports did not pass the checks.
  if (error instanceof OperatorError) return error;
  // Several syntax errors come as one; all but the first are usually its consequences.
  const first = error instanceof AggregateError ? (error.errors[0] ?? error) : error;
  const message = errorMessage(first).replace(PIN, "").replaceAll(/\s+/g, " ");
  const place = positionOf(first) ?? stackPosition(first, path) ?? path;
  return new OperatorError(
    EXIT.config,
    `plugin file ${path} cannot be imported: ${message} (${place})`,
    hintOf(message),
  );
}

/** `file:line:column` of a message of the compiler. */
function positionOf(error: unknown): string | null {
  if (typeof error !== "object" || error === null || !("position" in error)) return null;
  const { position } = error;
  if (typeof position !== "object" || position === null) return null;
  if (!("file" in position && "line" in position && "column" in position)) return null;
  return `${position.file}:${position.line}:${position.column}`.replace(PIN, "");
}

/** The topmost frame of a thrown error that is not inside the executable. */
function stackPosition(error: unknown, path: string): string | null {
  const stack = error instanceof Error ? (error.stack ?? "") : "";
  const directory = path.slice(0, path.lastIndexOf("/") + 1);
  const frames = stack.split("\n").map((line) => line.replace(PIN, ""));
  const frame = frames.find((line) => line.includes(directory) && /:\d+:\d+\)?$/.test(line));
  return frame?.slice(frame.indexOf(directory)).replace(/\)$/, "") ?? null;
}

function hintOf(message: string): string | undefined {
  if (/Cannot find package/.test(message)) {
    return 'A plugin has no packages but "gatehouse" (which exports z) and what Bun brings; bundle others into its file.';
  }
  if (/not found in module 'gatehouse'/.test(message)) {
    return "This Gatehouse does not export that; look into docs/plugin-guide.md.";
  }
  return undefined;
}
