/**
 * What running init again will change: chosen from a list, or read off the flags.
 *
 * Invariant: makes nothing. The text that comes out differs from the old one only by what was asked for; what the
 * flags ask for and is so already is no change.
 */
import { listenText, parseUpstreamUrl } from "../../config/address.ts";
import { EXIT, OperatorError } from "../../errors.ts";
import { checkedListen, freePort, listenProblem } from "./addresses.ts";
import type { Answers } from "./answers.ts";
import { type Existing, editable, placeForRoute, usualAccess } from "./existing.ts";
import { askUpstreams } from "./interview.ts";
import { type Run, remark } from "./run.ts";
import { serviceFor } from "./service.ts";
import { addEntry, addItem, setValue } from "./splice.ts";
import type { Secret } from "./strategies.ts";
import { type Guarded, guardedUpstreams } from "./upstreams.ts";
import { problemOf } from "./words.ts";

/** A change that can be carried out. */
export interface PlannedChange {
  readonly what: "change" | "nothing" | "undo";
  /** Of the configuration, after it. */
  readonly text: string;
  readonly upstreams: readonly Guarded[];
  readonly secrets: readonly Secret[];
  /** A token to make, in a strategy that keeps some. */
  readonly token: { readonly name: string; readonly strategy: string } | null;
  /** A service to install. */
  readonly service: "system" | "user" | null;
}

/** @throws OperatorError for a change that cannot be, Stopped */
export async function plannedChange(run: Run, existing: Existing): Promise<PlannedChange> {
  const { prompter } = run;
  if (prompter === null) return asAnswered(run, existing);
  const action = await prompter.one(`${existing.file} is there already. What should change?`, [
    { value: "upstream", label: "Guard something more" },
    { value: "token", label: "Make another token" },
    { value: "listen", label: "Listen somewhere else" },
    ...(serviceFor(run.context, existing.file, []) === null && hasService(run)
      ? [{ value: "service" as const, label: "Run it as a service" }]
      : []),
    { value: "undo", label: "Take away what init made" },
    { value: "nothing", label: "Nothing" },
  ]);
  switch (action) {
    case "upstream":
      return addedUpstreams(run, existing, await askedUpstreams(run));
    case "token":
      return addedToken(existing, await askedToken(run, existing));
    case "listen":
      return otherListen(existing, await askedListen(run, existing));
    case "service":
      return { ...none(existing), what: "change", service: await askedService(run) };
    default:
      return { ...none(existing), what: action };
  }
}

function none({ text }: Existing): PlannedChange {
  return { what: "nothing", text, upstreams: [], secrets: [], token: null, service: null };
}

function hasService({ services }: Run): boolean {
  return services.system === null || services.user === null;
}

/** What the flags say and the configuration does not. */
async function asAnswered(run: Run, existing: Existing): Promise<PlannedChange> {
  const { answers, context } = run;
  for (const key of untouched(answers)) {
    remark(run, `${key} of ${existing.file} stays as it is; change it with an editor`);
  }
  const wanted = (answers.upstreams ?? []).filter(({ url }) => !isGuarded(existing, url));
  let planned = none(existing);
  if (wanted.length > 0) {
    planned = await addedUpstreams(run, existing, { ...answers, upstreams: wanted });
  }
  if (answers.listen !== undefined) {
    const moved = otherListen({ ...existing, text: planned.text }, answers.listen);
    planned = {
      ...planned,
      what: moved.what === "change" ? "change" : planned.what,
      text: moved.text,
    };
  }
  if (answers.token?.name !== undefined) {
    const strategy = existing.keepers[0] ?? "";
    const token = addedToken(existing, { name: answers.token.name, strategy });
    planned = { ...planned, what: "change", token: token.token };
  }
  const isThere = serviceFor(context, existing.file, namesOf(answers)) !== null;
  if (answers.service !== undefined && answers.service !== "none" && !isThere) {
    planned = { ...planned, what: "change", service: answers.service };
  }
  return planned;
}

function namesOf({ service_name: name }: Answers): readonly string[] {
  return name === undefined ? [] : [name];
}

/** Answers about what init does not change in a configuration that is there. */
function untouched(answers: Answers): readonly string[] {
  const keys = [
    "access",
    "settings",
    "clients",
    "public_url",
    "trusted_proxies",
    "domain",
    "tls",
  ] as const;
  return keys.filter((key) => answers[key] !== undefined);
}

/** Whether an upstream with that address is there, however it is written. */
function isGuarded({ config }: Existing, url: string): boolean {
  const parsed = parseUpstreamUrl(url);
  if (!("value" in parsed)) return false;
  const { target, basePath } = parsed.value;
  return config.upstreams.some(
    (one) => Bun.deepEquals(one.target, target) && one.basePath === basePath,
  );
}

async function askedUpstreams(run: Run): Promise<Answers> {
  const { prompter, interruption, context, lookUp, services, typed, answers } = run;
  if (prompter === null) return answers;
  const asked = await askUpstreams(answers, {
    context,
    prompter,
    interruption,
    lookUp,
    services,
    typed,
  });
  const upstreams = [];
  for (const one of asked.upstreams ?? []) {
    const { system } = await lookUp(one.url, one.preset ?? null);
    const host = await prompter.text(`Under which host name is ${system.title}?`, {
      initial: one.host ?? `${one.name ?? system.id}.localhost`,
      validate: (text) => (text.trim() === "" ? "a name such as llm.example.com" : undefined),
    });
    upstreams.push({ ...one, host });
  }
  return { ...asked, upstreams };
}

async function addedUpstreams(
  run: Run,
  existing: Existing,
  answers: Answers,
): Promise<PlannedChange> {
  const { context, lookUp, typed } = run;
  const service = serviceFor(context, existing.file, namesOf(answers));
  const taken = existing.config.upstreams.map(({ name }) => name);
  const upstreams = await guardedUpstreams(answers, {
    context,
    service: service === null ? null : { ...service, account: null },
    typed,
    lookUp,
    taken,
  });
  let { text } = existing;
  const access = usualAccess(existing);
  for (const one of upstreams) {
    refuseWithoutHost(existing, one);
    const mine = one.tokenSettings === null ? access : [`${one.name}-team`];
    const written = {
      preset: one.preset.name,
      with: { upstream: one.name, access: mine, ...site(one), ...one.with },
    };
    if (one.tokenSettings !== null) {
      text = addEntry(text, "strategies", [
        mine[0] ?? "",
        { use: "bearer-sqlite", ...one.tokenSettings },
      ]);
    }
    text = withServerKeys(text, one);
    text = addEntry(text, "upstreams", [one.name, { url: one.url, ...one.keys }]);
    text = addItem(text, "routes", { item: written, at: placeForRoute(editable(text)) });
  }
  const [special] = upstreams.filter(({ tokenSettings }) => tokenSettings !== null);
  return {
    ...none(existing),
    what: "change",
    text,
    upstreams,
    secrets: upstreams.flatMap(({ secret }) => secret ?? []),
    token: special === undefined ? null : { name: "first", strategy: `${special.name}-team` },
  };
}

/** What its preset wants of the listener, where nobody said otherwise. */
function withServerKeys(text: string, { server }: Guarded): string {
  return Object.entries(server).reduce((before, [key, value]) => {
    const isSet = editable(before).hasIn(["server", key]);
    return isSet ? before : setValue(before, ["server", key], value);
  }, text);
}

function site({ host }: Guarded): object {
  return host === null ? {} : { host };
}

/** One that takes every host would take everything from what is there, or get nothing. */
function refuseWithoutHost({ config }: Existing, { name, host, preset }: Guarded): void {
  if (preset.name === "routstrd") {
    throw new OperatorError(
      EXIT.usage,
      "a routstrd daemon is not added to a configuration by questions",
      "Give it a gateway of its own (--dir DIR), or write it with an editor (docs/routstrd.md).",
    );
  }
  if (host !== null || config.routes.length === 0) return;
  throw new OperatorError(
    EXIT.usage,
    `${name} needs a host name of its own beside what is guarded already`,
    "Name it: --host llm.example.com",
  );
}

function addedToken(
  existing: Existing,
  token: { readonly name: string; readonly strategy: string },
): PlannedChange {
  if (existing.keepers.length === 0) {
    throw new OperatorError(
      EXIT.usage,
      `no strategy of ${existing.file} keeps tokens`,
      "Add one with `use: bearer-sqlite`.",
    );
  }
  return { ...none(existing), what: "change", token };
}

async function askedToken(
  { prompter, answers }: Run,
  { keepers }: Existing,
): Promise<{ readonly name: string; readonly strategy: string }> {
  const [first = ""] = keepers;
  if (prompter === null || first === "") return { name: "", strategy: first };
  const name = await prompter.text("What or who is it for?", {
    initial: answers.token?.name ?? "",
    validate: (text) => (text.trim() === "" ? "a name, such as laptop" : undefined),
  });
  if (keepers.length === 1) return { name, strategy: first };
  const choices = keepers.map((keeper) => ({ value: keeper, label: keeper }));
  return { name, strategy: await prompter.one("In which strategy?", choices, first) };
}

/** Another place for the one listener; nothing when it listens there. */
function otherListen(existing: Existing, text: string): PlannedChange {
  const given = checkedListen(text);
  const isFree = given.kind === "tcp" && given.port === 0;
  const wanted = isFree ? { ...given, port: freePort(given.host) } : given;
  const { listen } = existing.config.server;
  if (listen.some((one) => listenText(one) === listenText(wanted))) return none(existing);
  if (listen.length > 1) {
    throw new OperatorError(
      EXIT.usage,
      `${existing.file} has ${listen.length} listeners`,
      "Change them with an editor, then: gatehouse config validate",
    );
  }
  const problem = listenProblem(wanted);
  if (problem !== null) throw problem;
  const changed = setValue(existing.text, ["server", "listen"], listenText(wanted));
  return { ...none(existing), what: "change", text: changed };
}

async function askedListen({ prompter }: Run, { config }: Existing): Promise<string> {
  const [first] = config.server.listen;
  const now = first === undefined ? "127.0.0.1:8008" : listenText(first);
  if (prompter === null) return now;
  return prompter.text("Where should the gateway listen?", {
    initial: now,
    validate: (text) =>
      problemOf(() => {
        const wanted = checkedListen(text.trim());
        const problem = listenText(wanted) === now ? null : listenProblem(wanted);
        if (problem !== null) throw problem;
      }),
  });
}

async function askedService({ prompter, services }: Run): Promise<"system" | "user"> {
  if (services.system !== null) return "user";
  if (services.user !== null || prompter === null) return "system";
  return prompter.one("Whose service?", [
    { value: "system", label: "The machine's", hint: "hardened, own account" },
    { value: "user", label: "Mine", hint: "systemctl --user" },
  ]);
}
