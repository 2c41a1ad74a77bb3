/**
 * What a set-up says at its end: the grade, the checks, the token, what to paste, what comes next.
 *
 * Invariant: the token is printed once, on standard output; with `--json` that is exactly one object. Lines that are to
 * be pasted are never broken.
 */

import type { CliContext } from "../context.ts";
import type { Finding, GroupedFinding } from "../doctor/finding.ts";
import { type Layout, layoutFor, renderFindings } from "../doctor/report.ts";
import { GRADES, type Grade } from "../probe/grade.ts";
import type { InitOptions } from "./answers.ts";
import { tokenOf } from "./credentials.ts";
import type { Decision } from "./decision.ts";
import type { FirstToken } from "./make.ts";
import { quoted, type Snippet, snippetsFor, TOKEN_VARIABLE, urlOf } from "./paste.ts";
import { serviceStart } from "./service.ts";
import { filled } from "./words.ts";

/** Everything that is said. */
export interface Result {
  readonly decision: Decision;
  readonly tokens: readonly FirstToken[];
  readonly checks: readonly Finding[];
  readonly notes: readonly string[];
  /** Words before a verb that works on the state; empty: this program alone. */
  readonly command: readonly string[];
}

/** The best grade that is left with a finding of this code, on the scale of `doctor --probe`. Others: B. */
const BEST: Readonly<Record<string, Grade>> = {
  upstream_exposed: "C",
  in_clear: "C",
  not_closed: "C",
  not_let_through: "D",
  gateway_silent: "D",
};

/** One hole decides: the grade is that of the worst finding. */
export function gradeOf(checks: readonly Finding[]): Grade {
  const grades = checks.map(({ code, severity }): Grade => {
    if (severity === "ok" || severity === "info") return "A";
    // Everybody who finds the machine can go past the gateway.
    if (code === "upstream_exposed" && severity === "error") return "F";
    return BEST[code] ?? "B";
  });
  return grades.toSorted().at(-1) ?? "A";
}

/** The command that serves the configuration, as it can be pasted. */
export function startCommand(configFile: string, service: Decision["service"]): string {
  if (service !== null) return serviceStart(service);
  return [...selfCommand(), "serve", "-c", configFile].map(quoted).join(" ");
}

/** This program: the executable, or the runtime with the source that it runs. */
export function selfCommand(): readonly string[] {
  const isCompiled = import.meta.path.startsWith("/$bunfs/") || import.meta.path.includes("~BUN");
  return isCompiled ? [process.execPath] : [process.execPath, process.argv[1] ?? ""];
}

/** One object on standard output. */
export function reportJson(context: CliContext, result: Result): void {
  const { decision, tokens, checks, notes } = result;
  const { places, service, url, upstreams, strategies } = decision;
  const [first] = tokens;
  const staticToken = strategies.find((one) => one.staticToken !== null)?.staticToken ?? null;
  const facts = {
    config: places.configFile,
    token: first?.issued.token ?? staticToken,
    id: first?.issued.record.id ?? null,
    start: startCommand(places.configFile, service),
    url,
    upstreams: upstreams.map((one) => ({
      name: one.name,
      url: one.url,
      preset: one.preset.name,
      address: urlOf(url, one),
    })),
    access: strategies.map(({ name, use }) => ({ name, use })),
    tokens: tokens.map(({ strategy, issued: { token, record } }) => ({
      strategy,
      id: record.id,
      name: record.name,
      token,
    })),
    state: places.stateDir,
    service: service === null ? null : { scope: service.scope, name: service.name },
    grade: gradeOf(checks),
    checks,
    notes,
    undo: undoCommand(decision),
  };
  context.out(`${JSON.stringify(facts, null, 2)}\n`);
}

/** For people. */
export function reportText(context: CliContext, options: InitOptions, result: Result): void {
  const { checks, notes } = result;
  const layout = layoutFor(context, options.color);
  const grade = gradeOf(checks);
  const grouped: readonly GroupedFinding[] = checks.map((one) => ({ ...one, group: "Checks" }));
  const parts = [
    `\n${filled(`Grade ${grade}: ${GRADES[grade]}`, layout.width)}\n`,
    renderFindings(grouped, layout),
    ...tokenPart(result, layout),
    ...pasteParts(result, layout),
    nextPart(result, layout),
    ...notes.map((note) => `${filled(`note: ${note}`, layout.width)}\n`),
  ];
  context.out(parts.join("\n"));
}

function tokenPart({ decision, tokens }: Result, layout: Layout): readonly string[] {
  const shown = [
    ...tokens.map(({ strategy, issued }) => ({ strategy, token: issued.token, isHashed: true })),
    ...decision.strategies.flatMap(({ name, staticToken }) =>
      staticToken === null ? [] : [{ strategy: name, token: staticToken, isHashed: false }],
    ),
  ];
  return shown.map(({ strategy, token, isHashed }, index) => {
    const how = isHashed
      ? "It is shown this once: only a keyed hash of it is kept."
      : `It is shown this once; the service reads it from ${decision.places.secretsDir}.`;
    const variable = index === 0 ? TOKEN_VARIABLE : `${TOKEN_VARIABLE}_${index + 1}`;
    return `Token of ${strategy}\n${filled(how, layout.width)}\n\nexport ${variable}=${token}\n`;
  });
}

function pasteParts({ decision, tokens }: Result, layout: Layout): readonly string[] {
  const { upstreams, strategies, url } = decision;
  return upstreams.map((upstream) => {
    const mine = strategies.filter((one) => one.upstreams.includes(upstream.name));
    const snippets = snippetsFor(upstream, {
      url: urlOf(url, upstream),
      hasToken: tokenOf(decision, tokens, upstream) !== null,
      isSigned: mine.some(({ knowsMembers }) => knowsMembers),
    });
    const { note, title } = upstream.system;
    const heading = `Use ${upstream.name} (${title}) at ${urlOf(url, upstream)}`;
    const said = [heading, ...(note === undefined ? [] : [note])];
    return [
      ...said.map((text) => `${filled(text, layout.width)}\n`),
      ...snippets.map(snippetText),
    ].join("\n");
  });
}

function snippetText({ title, lines }: Snippet): string {
  return `# ${title}\n${lines.join("\n")}\n`;
}

function nextPart({ decision, command }: Result, layout: Layout): string {
  const { places, service, strategies } = decision;
  const serve =
    service === null
      ? [
          filled("Nothing runs yet. Start it with:", layout.width),
          startCommand(places.configFile, service),
        ]
      : [filled(`It runs as ${service.name}.service, also after a restart.`, layout.width)];
  const self = selfCommand().map(quoted).join(" ");
  const onState = command.length === 0 ? self : command.map(quoted).join(" ");
  const config = quoted(places.configFile);
  return `${[
    "Next",
    ...serve,
    ...(strategies.some(({ keepsTokens }) => keepsTokens)
      ? [`# another token\n${onState} token create -c ${config} --name NAME`]
      : []),
    ...(strategies.some(({ knowsMembers }) => knowsMembers)
      ? [`# another member\n${onState} npub add -c ${config} NPUB`]
      : []),
    `# change something\n${self} init -c ${config}`,
    `# take it all away\n${undoCommand(decision)}`,
  ].join("\n")}\n`;
}

function undoCommand({ places }: Pick<Decision, "places">): string {
  return [...selfCommand(), "init", "--undo", "-c", places.configFile].map(quoted).join(" ");
}
