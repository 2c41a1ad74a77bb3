/**
 * The interview: asks what cannot be known, and nothing that was answered already.
 *
 * Invariant: makes nothing. Every answer is checked when it is given, so that what comes out can be decided; a secret
 * that was typed is kept apart from the answers.
 */
import { existsSync } from "node:fs";
import { listenText } from "../../config/address.ts";
import { PRESETS } from "../../presets/list.ts";
import type { CliContext } from "../context.ts";
import { listeners } from "../doctor/proc-net.ts";
import { ACCESS, type AccessKind, accessOf, askQuestions } from "./access.ts";
import { checkedListen, domainProblem, listenProblem, nextFree } from "./addresses.ts";
import type { Answers, UpstreamAnswer } from "./answers.ts";
import type { Interruption } from "./interruption.ts";
import type { Prompter } from "./prompts.ts";
import { type Found, scan } from "./scan.ts";
import type { ServiceChoices } from "./service.ts";
import { pluginOf, routstrdDatabase } from "./strategies.ts";
import { checkedUrl, type LookUp } from "./upstreams.ts";
import { problemOf } from "./words.ts";

/** What the interview works with. */
export interface Interviewing {
  readonly context: CliContext;
  readonly prompter: Prompter;
  readonly interruption: Interruption;
  readonly lookUp: LookUp;
  readonly services: ServiceChoices;
  /** Filled with what is typed; see `Typed`. */
  readonly typed: Map<string, string>;
}

/** The answers, complete as far as questions go. @throws Stopped */
export async function interview(given: Answers, interviewing: Interviewing): Promise<Answers> {
  const withUpstreams = await askUpstreams(given, interviewing);
  const withAccess = await askAccess(withUpstreams, interviewing);
  const withClients = await askClients(withAccess, interviewing);
  const withHosts = await askHosts(withClients, interviewing);
  return askService(withHosts, interviewing);
}

const ANOTHER = "another address";

/** Those that run here, or one that is typed. */
export async function askUpstreams(given: Answers, interviewing: Interviewing): Promise<Answers> {
  const { prompter, interruption } = interviewing;
  if (given.upstreams !== undefined) {
    const upstreams: UpstreamAnswer[] = [];
    for (const one of given.upstreams) upstreams.push(await askReachable(one, interviewing));
    return { ...given, upstreams, offline: true };
  }
  const found = await interruption.until(scan(listeners(), interruption.signal));
  const urls = found.length === 0 ? [ANOTHER] : await askWhich(prompter, found);
  const upstreams: UpstreamAnswer[] = [];
  for (const url of urls) {
    const typed = url === ANOTHER ? await askUrl(prompter, "http://127.0.0.1:11434") : url;
    upstreams.push(await askReachable({ url: typed }, interviewing));
  }
  // Whoever is unreachable now was asked about.
  return { ...given, upstreams, offline: true };
}

async function askWhich(prompter: Prompter, found: readonly Found[]): Promise<readonly string[]> {
  const choices = found.map(({ url, system, models }) => ({
    value: url,
    label: `${system.title} at ${url}`,
    ...(models.length === 0 ? {} : { hint: models.slice(0, 3).join(", ") }),
  }));
  const another = { value: ANOTHER, label: "Another address" };
  return prompter.several(
    "What should be guarded?",
    [...choices, another],
    [found[0]?.url ?? ANOTHER],
  );
}

function askUrl(prompter: Prompter, initial: string): Promise<string> {
  return prompter.text("Where does it listen?", {
    initial,
    validate: (text) => problemOf(() => checkedUrl(text.trim())),
  });
}

/** Until it answers, or is wanted all the same. */
async function askReachable(
  answer: UpstreamAnswer,
  interviewing: Interviewing,
): Promise<UpstreamAnswer> {
  const { prompter, interruption, lookUp } = interviewing;
  let current = answer;
  while (true) {
    const found = await interruption.until(lookUp(checkedUrl(current.url), current.preset ?? null));
    if (found.problem === null) {
      await askKey(current, found, interviewing);
      return current;
    }
    const goOn = await prompter.confirm(
      `${current.url} does not answer (${found.problem}). Guard it all the same?`,
      false,
    );
    if (goOn) return current;
    current = { ...current, url: await askUrl(prompter, current.url) };
  }
}

/** The key that the upstream itself wants. */
async function askKey(
  answer: UpstreamAnswer,
  found: Found,
  { context, prompter, typed }: Interviewing,
): Promise<void> {
  const key = PRESETS.find(({ name }) => name === found.system.preset)?.usual?.key;
  if (key === undefined || (key.isOptional && !found.wantsKey)) return;
  if (answer.key_env !== undefined || answer.key_file !== undefined) return;
  if ((context.env[key.env] ?? "").trim() !== "") {
    prompter.say(`${found.system.title}: its own key is taken from ${key.env}.`);
    return;
  }
  const text = await prompter.hidden(
    `${found.system.title} wants a key of its own. Which one?`,
    (said) => (said.trim() === "" ? "it cannot be empty" : undefined),
  );
  typed.set(`key:${found.url}`, text);
}

async function askAccess(given: Answers, interviewing: Interviewing): Promise<Answers> {
  const { context, prompter, typed, lookUp } = interviewing;
  const systems = await Promise.all(
    (given.upstreams ?? []).map(
      async ({ url, preset }) => (await lookUp(checkedUrl(url), preset ?? null)).system,
    ),
  );
  const hasOthers = systems.some(({ preset }) => preset !== "routstrd");
  const isRoutstrd = systems.some(({ preset }) => preset === "routstrd");
  const access = hasOthers ? (given.access ?? (await askKinds(prompter))) : undefined;
  const settings: NonNullable<Answers["settings"]> = { ...given.settings };
  const kinds: AccessKind[] = access === undefined ? [] : [...access];
  if (isRoutstrd && !kinds.includes("npubs")) kinds.push("npubs");
  for (const kind of kinds) {
    const plugin = pluginOf(context, accessOf(kind).use);
    settings[kind] = await askSettings(
      { kind, plugin, before: settings[kind] ?? {} },
      { prompter, typed },
    );
  }
  if (isRoutstrd && settings.routstrd?.database === undefined) {
    const database = routstrdDatabase(context);
    const plugin = pluginOf(context, "routstrd");
    settings.routstrd =
      database === undefined
        ? await askSettings({ kind: "routstrd", plugin, before: {} }, { prompter, typed })
        : { database };
  }
  return { ...given, ...(access === undefined ? {} : { access: [...access] }), settings };
}

function askKinds(prompter: Prompter): Promise<readonly AccessKind[]> {
  const choices = ACCESS.map(({ kind, title, hint }) => ({ value: kind, label: title, hint }));
  return prompter.several("Who may enter?", choices, ["tokens"]);
}

/** Secrets are kept apart. */
async function askSettings(
  {
    kind,
    plugin,
    before,
  }: {
    readonly kind: string;
    readonly plugin: ReturnType<typeof pluginOf>;
    readonly before: Readonly<Record<string, unknown>>;
  },
  { prompter, typed }: Pick<Interviewing, "prompter" | "typed">,
): Promise<Record<string, unknown>> {
  const answers = await askQuestions(plugin, before, prompter);
  const kept = Object.entries(answers).filter(([id, value]) => {
    const isSecret = plugin.questions?.some((one) => one.id === id && one.kind === "secret");
    if (isSecret !== true || before[id] !== undefined) return true;
    typed.set(`${kind}.${id}`, String(value));
    return false;
  });
  return Object.fromEntries(kept);
}

async function askClients(given: Answers, interviewing: Interviewing): Promise<Answers> {
  const { prompter } = interviewing;
  const isKnown =
    given.clients !== undefined || given.domain !== undefined || given.listen !== undefined;
  const clients = isKnown
    ? given.clients
    : await prompter.one(
        "Where do clients connect from?",
        [
          { value: "this-machine", label: "This machine", hint: "127.0.0.1" },
          { value: "proxy", label: "Through a reverse proxy on this machine", hint: "it does TLS" },
          { value: "public", label: "Anywhere", hint: "with TLS files of yours" },
        ],
        "this-machine",
      );
  const answers = clients === undefined ? given : { ...given, clients };
  if (clients === "proxy") return askProxy(answers, prompter);
  if (clients === "public") return askPublic(answers, prompter);
  return askListen(answers, prompter);
}

/** Another port when the usual one is taken. */
async function askListen(given: Answers, prompter: Prompter): Promise<Answers> {
  const wanted = checkedListen(given.listen ?? "127.0.0.1:8008");
  const problem = wanted.kind === "tcp" && wanted.port === 0 ? null : listenProblem(wanted);
  if (problem === null || wanted.kind === "unix") {
    return given.listen === undefined ? { ...given, listen: listenText(wanted) } : given;
  }
  prompter.warn(problem.message);
  const free = nextFree(wanted.host, wanted.port);
  const listen = await prompter.text("Where should the gateway listen?", {
    initial: listenText({ ...wanted, port: free ?? wanted.port }),
    validate: (text) =>
      problemOf(() => {
        const again = listenProblem(checkedListen(text.trim()));
        if (again !== null) throw again;
      }),
  });
  return { ...given, listen };
}

async function askProxy(given: Answers, prompter: Prompter): Promise<Answers> {
  const public_url =
    given.public_url ??
    (await prompter.text("Under which address do clients reach it?", {
      initial: "https://",
      validate: (text) =>
        /^https?:\/\/[^/?#@\s]+\/?$/.test(text.trim())
          ? undefined
          : "expected an origin such as https://llm.example.com",
    }));
  return askListen({ ...given, public_url: public_url.replace(/\/$/, "") }, prompter);
}

async function askPublic(given: Answers, prompter: Prompter): Promise<Answers> {
  const domain = given.domain ?? (await askDomain(prompter));
  // The usual one, where that may be had.
  const port = process.geteuid?.() === 0 ? 443 : 8443;
  const answers = { ...given, domain, listen: given.listen ?? `0.0.0.0:${port}` };
  if (given.tls !== undefined) return askListen(answers, prompter);
  const usual = `/etc/letsencrypt/live/${domain}`;
  const has = existsSync(`${usual}/fullchain.pem`);
  if (!has)
    prompter.say(`A certificate can be had with: certbot certonly --standalone -d ${domain}`);
  const there = (text: string): string | undefined =>
    existsSync(text.trim()) ? undefined : "there is no such file";
  const cert = await prompter.text("Which file is the certificate chain (PEM)?", {
    ...(has ? { initial: `${usual}/fullchain.pem` } : {}),
    validate: there,
  });
  const key = await prompter.text("Which file is its key (PEM)?", {
    ...(has ? { initial: `${usual}/privkey.pem` } : {}),
    validate: there,
  });
  return askListen({ ...answers, tls: { cert, key } }, prompter);
}

/** Until it leads somewhere, or is wanted all the same. */
async function askDomain(prompter: Prompter): Promise<string> {
  let initial = "";
  while (true) {
    const domain = await prompter.text("Under which name do clients reach it?", {
      ...(initial === "" ? {} : { initial }),
      validate: (text) => (text.trim() === "" ? "a name such as llm.example.com" : undefined),
    });
    const problem = await domainProblem(domain);
    if (problem === null) return domain;
    if (await prompter.confirm(`${problem.message}. Use it all the same?`, false)) return domain;
    initial = domain;
  }
}

/** With several upstreams the host name says which one is meant. */
async function askHosts(given: Answers, { prompter, lookUp }: Interviewing): Promise<Answers> {
  const upstreams = given.upstreams ?? [];
  if (upstreams.length < 2) return given;
  const site = given.domain ?? URL.parse(given.public_url ?? "")?.hostname ?? "localhost";
  const named: UpstreamAnswer[] = [];
  for (const one of upstreams) {
    const { system } = await lookUp(checkedUrl(one.url), one.preset ?? null);
    const initial = `${one.name ?? system.id}.${site}`;
    const host =
      one.host ??
      (await prompter.text(`Under which host name is ${system.title} (${one.url})?`, { initial }));
    named.push({ ...one, host });
  }
  return { ...given, upstreams: named };
}

async function askService(given: Answers, { prompter, services }: Interviewing): Promise<Answers> {
  if (given.service !== undefined) return given;
  const choices = [
    ...(services.system === null
      ? [
          {
            value: "system" as const,
            label: "Yes, as a service of this machine",
            hint: "hardened, own account",
          },
        ]
      : []),
    ...(services.user === null
      ? [{ value: "user" as const, label: "Yes, as a service of mine", hint: "systemctl --user" }]
      : []),
    { value: "none" as const, label: "No", hint: "I start it myself" },
  ];
  if (choices.length === 1) {
    prompter.say(`No service: ${services.system ?? services.user ?? "there is no systemd"}.`);
    return { ...given, service: "none" };
  }
  return { ...given, service: await prompter.one("Should it run as a service?", choices) };
}
