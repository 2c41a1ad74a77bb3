/**
 * The process: argv -> command -> exit code. Standard streams, signals and the last resort for errors.
 *
 * Invariants: the only `process.exit`, and the only importer of registry.ts. What goes wrong is one line on
 * standard error, never a stack unless GATEHOUSE_DEBUG=1 asks for it.
 */
import { writeSync } from "node:fs";
import { isatty } from "node:tty";
import type { CliContext } from "./cli/context.ts";
import { runProgram } from "./cli/program.ts";
import { VERSION } from "./cli/version.ts";
import { EXIT, errorCode, errorMessage, OperatorError } from "./errors.ts";

/** A terminal and a process manager may both deliver one and the same request to stop. */
const SAME_SIGNAL_MS = 100;

const args = process.argv.slice(2);
process.on("uncaughtException", (error) => end(report(error)));
process.on("unhandledRejection", (error) => end(report(error)));
end(await main());

async function main(): Promise<number> {
  try {
    return await runProgram(args, { out: (text) => write(1, text), err, context });
  } catch (error) {
    return report(error);
  }
}

function end(code: number): never {
  process.exit(code);
}

async function context(): Promise<CliContext> {
  // Loaded here and not at the top: `version` and `help` need none of it and start in half the time.
  const { bundledPlugins } = await import("./registry.ts");
  let stopping: Stopping | undefined;
  const stop = (): Stopping => {
    stopping ??= stopOnSignals();
    return stopping;
  };
  return {
    version: VERSION,
    plugins: bundledPlugins,
    env: process.env,
    cwd: process.cwd(),
    stdinIsTerminal: isatty(0),
    stdoutIsTerminal: isatty(1),
    out: (text) => write(1, text),
    deliver: (text) => writeAll(1, text),
    err,
    readStdin: () => Bun.stdin.text(),
    // A command that never asks for this keeps the default: a signal ends it at once.
    get stop(): AbortSignal {
      return stop().signal;
    },
    onReload(listener) {
      const terminals = [0, 1, 2].filter((fd) => isatty(fd));
      // On Windows it says nothing else.
      const isGone = (): boolean =>
        process.platform === "win32" || terminals.some((fd) => !isatty(fd));
      process.on("SIGHUP", () => (isGone() ? stop().ask() : listener()));
    },
  };
}

interface Stopping {
  readonly signal: AbortSignal;
  ask(): void;
}

/** The first SIGTERM or SIGINT asks, the second one insists. */
function stopOnSignals(): Stopping {
  const controller = new AbortController();
  let askedAtMs = 0;
  const onSignal = (exitCode: number) => () => {
    if (!controller.signal.aborted) {
      askedAtMs = performance.now();
      controller.abort();
    } else if (performance.now() - askedAtMs > SAME_SIGNAL_MS) {
      end(exitCode);
    }
  };
  process.on("SIGINT", onSignal(130));
  process.on("SIGTERM", onSignal(143));
  return { signal: controller.signal, ask: () => controller.abort() };
}

/** Says what went wrong; returns the exit code. */
function report(error: unknown): number {
  if (errorCode(error) === "EPIPE") return EXIT.ok;
  const isExpected = error instanceof OperatorError;
  err(`error: ${isExpected ? "" : "unexpected: "}${errorMessage(error)}\n`);
  if (isExpected && error.hint !== undefined) err(`hint: ${error.hint}\n`);
  if (process.env.GATEHOUSE_DEBUG === "1" && error instanceof Error) err(`${error.stack}\n`);
  else if (!isExpected) err("hint: set GATEHOUSE_DEBUG=1 to see where it happened\n");
  return isExpected ? error.exitCode : EXIT.failure;
}

function err(text: string): void {
  write(2, text);
}

/** {@link writeAll} for what can be said again: a reader that went away is no error. */
function write(fd: number, text: string): void {
  try {
    writeAll(fd, text);
  } catch (error) {
    const code = errorCode(error);
    // EIO is a terminal that was closed: nobody is there to be told. A result that is not printed is another matter.
    if (code !== "EPIPE" && !(code === "EIO" && fd === 2)) throw error;
  }
}

/** Writes all of it before it returns, so that nothing is lost at exit. */
function writeAll(fd: number, text: string): void {
  let rest: Uint8Array = Buffer.from(text);
  while (rest.length > 0) {
    try {
      rest = rest.subarray(writeSync(fd, rest));
    } catch (error) {
      if (errorCode(error) !== "EAGAIN") throw error;
      // The other end made the pipe non-blocking and reads slowly.
      Bun.sleepSync(1);
    }
  }
}
