/**
 * The manual page gatehouse(1), in the man(7) macros that every Unix knows.
 *
 * Invariant: it is made from the verbs that there are, and no text of theirs can become a command of the page.
 */
import { leaves, type TreeArgument, type TreeOption, type TreeVerb } from "./command-tree.ts";
import { EXIT_MEANINGS } from "./exit-codes.ts";

/** Options that at least this part of the verbs have are said once. */
const COMMON_PART = 0.9;

const DESCRIPTION = `Gatehouse is one executable that stands in front of HTTP services and decides who may pass. It loads authentication strategies from a YAML file, chains them per route, and then forwards the request to an upstream or answers a reverse proxy's question.`;

const FILES: readonly (readonly [string, string])[] = [
  ["./gatehouse.yaml, ./config.yaml", "the configuration, when -c does not name another"],
  ["~/.config/gatehouse/config.yaml", "the same, of one user"],
  ["/etc/gatehouse/config.yaml", "the same, of the machine"],
  ["state_dir (./state beside the configuration)", "database and keys, mode 0700"],
];

const ENVIRONMENT: readonly (readonly [string, string])[] = [
  ["GATEHOUSE_CONFIG", "the configuration file, when -c does not name one"],
  [
    "GATEHOUSE_*",
    "every scalar key of the configuration: GATEHOUSE_STATE_DIR, GATEHOUSE_SERVER__LISTEN",
  ],
  ["NO_COLOR", "no colours"],
  ["GATEHOUSE_DEBUG", "1: where an unexpected error happened"],
];

/** The whole page, with a final line break. */
export function manualPage(tree: TreeVerb): string {
  const verbs = leaves(tree);
  const common = commonOptions(verbs);
  return [
    // No date and no version: the page of a version is the same wherever it is made.
    '.TH GATEHOUSE 1 "" "Gatehouse" "User Commands"',
    ".SH NAME",
    `gatehouse \\- ${escaped("decides who may pass to the HTTP services behind it")}`,
    ".SH SYNOPSIS",
    ".B gatehouse",
    ".I verb",
    "[options]",
    ".SH DESCRIPTION",
    text(DESCRIPTION),
    ".SH VERBS",
    ...verbs.flatMap((verb) => verbLines(verb, common)),
    ".SH COMMON OPTIONS",
    "Every verb takes these.",
    ...common.flatMap(optionLines),
    ".SH EXIT STATUS",
    ...Object.values(EXIT_MEANINGS).flatMap(({ code, meaning }) => item(String(code), meaning)),
    ".SH FILES",
    ...FILES.flatMap(([name, meaning]) => item(name, meaning)),
    ".SH ENVIRONMENT",
    ...ENVIRONMENT.flatMap(([name, meaning]) => item(name, meaning)),
    "",
  ].join("\n");
}

function commonOptions(verbs: readonly TreeVerb[]): readonly TreeOption[] {
  const counts = new Map<string, { readonly option: TreeOption; count: number }>();
  for (const option of verbs.flatMap(({ options }) => options)) {
    const key = JSON.stringify(option);
    const known = counts.get(key) ?? { option, count: 0 };
    counts.set(key, { ...known, count: known.count + 1 });
  }
  return [...counts.values()]
    .filter(({ count }) => count >= verbs.length * COMMON_PART)
    .map(({ option }) => option);
}

function verbLines(verb: TreeVerb, common: readonly TreeOption[]): string[] {
  const shared = new Set(common.map((option) => JSON.stringify(option)));
  const own = verb.options.filter((option) => !shared.has(JSON.stringify(option)));
  const usage = ["gatehouse", ...verb.path, ...verb.args.map(argumentText)].join(" ");
  return [
    `.SS ${escaped(usage)}`,
    text(sentence(verb.description)),
    ...own.flatMap(optionLines),
    ...(verb.examples.length === 0 ? [] : [".PP", "Example:"]),
    ...verb.examples.flatMap((line) => [".IP", ".EX", text(line), ".EE"]),
  ];
}

function argumentText({ name, isRequired, choices }: TreeArgument): string {
  const inner = choices.length > 0 ? choices.join("|") : `<${name}>`;
  return isRequired ? inner : `[${inner}]`;
}

function optionLines({ short, long, value, description, choices }: TreeOption): string[] {
  const names = [short, long].filter((name) => name !== null).join(", ");
  const may = choices.length > 0 ? ` (${choices.join(", ")})` : "";
  return item(value === null ? names : `${names} <${value}>`, `${description}${may}`);
}

function item(term: string, meaning: string): string[] {
  return [".TP", `.B ${escaped(term)}`, text(sentence(meaning))];
}

function sentence(words: string): string {
  // `host:port` stays what it is.
  const isWord = /^[a-z]+(?: |$)/.test(words);
  const first = isWord ? words.slice(0, 1).toUpperCase() + words.slice(1) : words;
  return /[.!?…]$/.test(first) ? first : `${first}.`;
}

/** A line of text: nothing at its start is taken for a command. */
function text(words: string): string {
  const safe = escaped(words);
  return /^[.']/.test(safe) ? `\\&${safe}` : safe;
}

/** groff_char(7): a plain hyphen would become a typographic one, which cannot be pasted into a shell. */
function escaped(words: string): string {
  return words
    .replaceAll("\n", " ")
    .replaceAll("\\", "\\e")
    .replaceAll("-", "\\-")
    .replaceAll("'", "\\(aq")
    .replaceAll("`", "\\(ga")
    .replaceAll("^", "\\(ha")
    .replaceAll("~", "\\(ti")
    .replaceAll('"', "\\(dq")
    .replace(/[^\x20-\x7e]/gu, (character) => {
      const hex = character.codePointAt(0)?.toString(16).toUpperCase() ?? "";
      return `\\[u${hex.padStart(4, "0")}]`;
    });
}
