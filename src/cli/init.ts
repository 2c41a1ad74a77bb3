/**
 * `gatehouse init`: from download to guarded, and back with `--undo`.
 *
 * Invariant: looks first, asks only what it cannot know, and leaves the machine as it was unless it came to its end. A
 * configuration that is there is changed, never written over.
 */
import { dirname } from "node:path";
import { envSettings } from "../config/overrides.ts";
import { documentSchema } from "../config/schema.ts";
import { EXIT, type ExitCode, OperatorError } from "../errors.ts";
import type { CliContext } from "./context.ts";
import { type InitOptions, readAnswers } from "./init/answers.ts";
import { change } from "./init/change.ts";
import { listenForInterruption } from "./init/interruption.ts";
import { configFileFor, existingConfig, leftover } from "./init/places.ts";
import { isInteractive, openPrompter } from "./init/prompts.ts";
import { type Run, remark, rememberingLookUp } from "./init/run.ts";
import { type ServiceChoices, serviceChoices } from "./init/service.ts";
import { setUp } from "./init/set-up.ts";
import { takeLeftover, undo } from "./init/undo.ts";

/** Sets up, changes what is there, or with `undo` takes it away. */
export async function init(context: CliContext, options: InitOptions): Promise<ExitCode> {
  if (options.undo === true) return undo(context, options);
  const answers = readAnswers(context, options);
  const isAsking = options.yes !== true && isInteractive(context);
  if (!isAsking && options.yes !== true && options.answers === undefined) throw nobodyThere();
  refuseOverrides(context);
  const interruption = listenForInterruption(context);
  try {
    const prompter = isAsking ? await openPrompter(context, interruption) : null;
    prompter?.title(`Gatehouse ${context.version}`);
    const run: Run = {
      context,
      options,
      answers,
      interruption,
      prompter,
      lookUp: rememberingLookUp(interruption.signal),
      services: answers.service === "none" ? NO_SERVICE : await serviceChoices(context),
      typed: new Map(),
    };
    await clearLeftover(run);
    const { file, note } = existingConfig(context, options, answers);
    if (note !== null) remark(run, note);
    return file === null ? await setUp(run) : await change(run, file);
  } catch (error) {
    throw plainly(error);
  } finally {
    interruption.close();
  }
}

/** `gatehouse uninstall`. */
export function uninstall(context: CliContext, options: InitOptions): Promise<ExitCode> {
  return undo(context, options);
}

/** Nobody is asked for what is not wanted. */
const NO_SERVICE: ServiceChoices = { system: "no service is wanted", user: "no service is wanted" };

function nobodyThere(): OperatorError {
  return new OperatorError(
    EXIT.usage,
    "there is no terminal to ask on",
    "Answer beforehand: gatehouse init --yes --upstream URL [--listen ADDRESS] [--dir DIR] [--no-service], or --answers FILE",
  );
}

/** A variable goes before the file, so that what is proven would not be what is written. */
function refuseOverrides({ env }: CliContext): void {
  const names = envSettings(env, Object.keys(documentSchema.shape)).map(({ origin }) => origin);
  if (names.length === 0) return;
  throw new OperatorError(
    EXIT.usage,
    `${names.join(", ")} in this shell would go before what is written`,
    `Leave it out: env ${names.map((name) => `-u ${name}`).join(" ")} gatehouse init …`,
  );
}

/** A run that was killed could not take away what it had made. */
async function clearLeftover(run: Run): Promise<void> {
  const { context, options, answers, prompter } = run;
  const left = leftover(dirname(configFileFor(context, options, answers)));
  if (left === null) return;
  const what = `An earlier init was cut short; it had begun to make ${left.config}.`;
  if (prompter !== null && !(await prompter.confirm(`${what} Take that away first?`, true))) {
    throw new OperatorError(EXIT.failure, "nothing was changed");
  }
  const { removed, kept } = await takeLeftover(context, left);
  remark(run, `${what} Taken away: ${removed.join(", ") || "nothing"}.`);
  for (const { path, why } of kept) remark(run, `${path} stays: ${why}`);
}

/** Before anything was made there is nothing to take away. */
function plainly(error: unknown): unknown {
  const isBare = error instanceof OperatorError && error.name === "Stopped";
  return isBare ? new OperatorError(EXIT.failure, "stopped; nothing was changed") : error;
}
