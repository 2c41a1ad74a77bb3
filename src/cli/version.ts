/**
 * Which build this is: `gatehouse version`.
 *
 * Invariant: the facts are put in when the executable is built; nothing is read from disk to answer.
 */
import { EXIT, type ExitCode } from "../errors.ts";
import type { CliContext, CommonOptions } from "./context.ts";

/** Put in by build.ts; there is none when the sources are run directly. */
declare const GATEHOUSE_VERSION: string | undefined;
declare const GATEHOUSE_COMMIT: string | undefined;

/** The version in package.json, or `0.0.0-dev` when the sources are run directly. */
export const VERSION: string =
  typeof GATEHOUSE_VERSION === "string" ? GATEHOUSE_VERSION : "0.0.0-dev";

/** Short commit the executable was built from; empty when it is not known. */
export const COMMIT: string = typeof GATEHOUSE_COMMIT === "string" ? GATEHOUSE_COMMIT : "";

/** `gatehouse 1.2.3 (0123abcd4567)`, in one line without its end. */
export function versionLine(): string {
  return COMMIT === "" ? `gatehouse ${VERSION}` : `gatehouse ${VERSION} (${COMMIT})`;
}

/** `gatehouse version`: one line, or an object with `--json`. */
export function version(context: Pick<CliContext, "out">, options: CommonOptions): ExitCode {
  const facts = {
    version: VERSION,
    commit: COMMIT === "" ? null : COMMIT,
    runtime: `bun ${Bun.version}`,
    os: process.platform,
    arch: process.arch,
  };
  context.out(`${options.json === true ? JSON.stringify(facts) : versionLine()}\n`);
  return EXIT.ok;
}
