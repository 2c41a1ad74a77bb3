/**
 * The first run: from answers to a gateway that was proven.
 *
 * Invariant: nothing is made before everything is decided; whatever goes wrong after that, the machine is as it was.
 */

import { listenText } from "../../config/address.ts";
import { EXIT, type ExitCode, OperatorError } from "../../errors.ts";
import { type Finding, warning } from "../doctor/finding.ts";
import { listeners } from "../doctor/proc-net.ts";
import type { Answers } from "./answers.ts";
import { openCredentials } from "./credentials.ts";
import { type Decision, decide, isInClear, kindsText } from "./decision.ts";
import { exposureOf } from "./exposure.ts";
import { interview } from "./interview.ts";
import { Journal } from "./journal.ts";
import { type MadeThings, make } from "./make.ts";
import type { ServiceScope } from "./places.ts";
import { isOpen, prove } from "./prove.ts";
import { type Result, reportJson, reportText } from "./report.ts";
import { orTakeBack, progress, type Run, remark } from "./run.ts";
import { scan } from "./scan.ts";
import { takeAwayTools } from "./service.ts";

/** Sets up. Exit code 3 when the gateway runs, but somebody who should enter may not. */
export async function setUp(run: Run): Promise<ExitCode> {
  const { context, options, prompter, interruption, services, lookUp, typed } = run;
  const answers =
    prompter === null
      ? await withFound(run)
      : await interview(run.answers, { context, prompter, interruption, lookUp, services, typed });
  const scope = scopeOf(run, answers);
  const decision = await decide(answers, { context, options, scope, lookUp, typed });
  interruption.check();
  for (const note of decision.notes) remark(run, note);
  await agree(run, answers, decision);
  const { places } = decision;
  const journal = Journal.open(places.configDir, places.configFile);
  const result = await orTakeBack(
    { journal, tools: takeAwayTools(context, places) },
    async (): Promise<Result> => {
      const made = await make({ context, decision, journal, interruption, done: progress(run) });
      const checks = await proven(run, decision, made);
      if (isOpen(checks)) throw letIn(checks);
      const notes = [...decision.notes, ...made.notes];
      const all = { decision, tokens: made.tokens, checks, notes, command: made.command };
      interruption.check();
      journal.finish();
      prompter?.end("Made, and proven");
      if (options.json === true) reportJson(context, all);
      else reportText(context, options, all);
      return all;
    },
  );
  return isShut(result.checks) ? EXIT.negative : EXIT.ok;
}

/** Without anybody to ask, the one model server that runs here is meant. @throws OperatorError otherwise */
async function withFound({ answers, interruption }: Run): Promise<Answers> {
  if (answers.upstreams !== undefined) return answers;
  const found = await interruption.until(scan(listeners(), interruption.signal));
  const [first, ...others] = found.filter(({ system }) => system.id !== "http");
  if (first !== undefined && others.length === 0) {
    return { ...answers, upstreams: [{ url: first.url }] };
  }
  const seen = found.map(({ url, system }) => `${system.title} at ${url}`).join(", ");
  throw new OperatorError(
    EXIT.usage,
    `what should be guarded is not known${seen === "" ? "" : ` (here are ${seen})`}`,
    "Name it: --upstream http://127.0.0.1:11434",
  );
}

/** @throws OperatorError for a service that this machine cannot run */
export function scopeOf(
  { options, services, prompter }: Run,
  { service, dir }: Answers,
): ServiceScope {
  if (service === "none") return null;
  if (service !== undefined) {
    const problem = services[service];
    if (problem === null) return service;
    const isRoots = problem.includes("installed by root");
    throw new OperatorError(
      isRoots ? EXIT.permission : EXIT.unavailable,
      problem,
      isRoots
        ? "Or run it as a service of your own: --service user; or start it yourself: --no-service."
        : "Go on without: --no-service.",
    );
  }
  // A place of one's own is a gateway of one's own, until somebody asks for more.
  if (prompter !== null || dir !== undefined || options.config !== undefined) return null;
  if (services.system === null) return "system";
  return services.user === null && process.geteuid?.() !== 0 ? "user" : null;
}

async function agree(run: Run, answers: Answers, decision: Decision): Promise<void> {
  const { prompter } = run;
  if (prompter === null) return;
  const { places, upstreams, listen, url, service } = decision;
  const guarded = upstreams.map(({ name, url: at }) => `${name} (${at})`).join(", ");
  const lines = [
    `Guard ${guarded}`,
    `Let in: ${kindsText(answers)}`,
    `Clients use ${url}`,
    ...(url.endsWith(listenText(listen)) ? [] : [`It listens on ${listenText(listen)}`]),
    `Configuration ${places.configFile}`,
    `State ${places.stateDir}`,
    service === null ? "No service" : `Service ${service.name} (${service.scope})`,
  ];
  prompter.say(lines.join("\n"));
  if (await prompter.confirm("Make it, and prove that it holds?", true)) return;
  throw new OperatorError(EXIT.failure, "nothing was made");
}

async function proven(
  run: Run,
  decision: Decision,
  { tokens }: MadeThings,
): Promise<readonly Finding[]> {
  const { context, interruption } = run;
  const credentials = await openCredentials(context, decision, tokens);
  try {
    const checks = await prove({
      context,
      decision,
      interruption,
      role: credentials.role,
      credentialFor: credentials.credentialFor,
    });
    const listening = listeners();
    return [
      ...checks,
      ...decision.upstreams.map((upstream) => exposureOf(upstream, listening)),
      ...clearFindings(decision),
    ];
  } finally {
    await credentials.close();
  }
}

function clearFindings(decision: Decision): readonly Finding[] {
  if (!isInClear(decision)) return [];
  return [
    warning("in_clear", `clients reach ${decision.url} over the network without TLS`, {
      why: "Whoever is on the way reads their tokens.",
      next: "name a certificate in server.tls, or let a proxy with TLS stand in front",
    }),
  ];
}

function letIn(checks: readonly Finding[]): OperatorError {
  const what = checks.filter(({ code }) => code === "let_in").map((one) => one.what);
  return new OperatorError(EXIT.failure, `the proof failed: ${what.join("; ")}`);
}

/** Whoever should enter may not. */
function isShut(checks: readonly Finding[]): boolean {
  return checks.some(({ code }) => code === "not_let_through" || code === "gateway_silent");
}
