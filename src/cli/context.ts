/**
 * What a command is given instead of globals, so that every command runs the same in a test.
 *
 * Invariant: commands return an exit code or throw OperatorError; only main.ts ends the process.
 */
import type { Plugin } from "../contract/plugin.ts";
import type { ExitCode } from "../errors.ts";

export interface CliContext {
  readonly version: string;
  /** Bundled plugins, from registry.ts. */
  readonly plugins: readonly Plugin[];
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly cwd: string;
  readonly stdinIsTerminal: boolean;
  readonly stdoutIsTerminal: boolean;
  /** Writes to standard output, as it is. A reader that went away is no error. */
  out(text: string): void;
  /**
   * The same for what is said only once, such as a new token: throws when nobody reads it. Absent: `out` is as good.
   */
  deliver?(text: string): void;
  /** Writes to standard error, as it is. */
  err(text: string): void;
  /** All of standard input as text. */
  readStdin(): Promise<string>;
  /** Ends when the process is asked to stop (SIGTERM, SIGINT). */
  readonly stop: AbortSignal;
  /**
   * Calls `listener` for each SIGHUP, which otherwise ends the process. When it came because the terminal is gone, the
   * process is asked to stop instead. Absent: nobody can ask.
   */
  onReload?(listener: () => void): void;
}

/** Options that every command takes. */
export interface CommonOptions {
  /** `-c, --config FILE`. */
  readonly config?: string;
  /** `--preset NAME` instead of a file. */
  readonly preset?: string;
  /** `--json`. */
  readonly json?: boolean;
  /** `--no-color` gives false. */
  readonly color?: boolean;
}

/** What a command's action is: it returns the exit code. */
export type Action = (context: CliContext) => Promise<ExitCode> | ExitCode;
