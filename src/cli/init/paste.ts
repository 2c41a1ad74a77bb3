/**
 * What to paste into clients: curl, SDKs, Claude Code, opencode, routstrd.
 *
 * Invariant: each line does what it says when it is pasted; the token itself is in none of them, only the variable that
 * holds it.
 */
import type { Dialect } from "./systems.ts";
import type { Guarded } from "./upstreams.ts";

/** A heading and lines that are not broken. */
export interface Snippet {
  readonly title: string;
  readonly lines: readonly string[];
}

/** The variable that the lines take the token from. */
export const TOKEN_VARIABLE = "GATEHOUSE_TOKEN";

/** What fits an upstream. @param url origin that clients use for it */
export function snippetsFor(
  upstream: Guarded,
  {
    url,
    hasToken,
    isSigned,
  }: { readonly url: string; readonly hasToken: boolean; readonly isSigned: boolean },
): readonly Snippet[] {
  const { system } = upstream;
  const speaks = (dialect: Dialect): boolean => system.dialects.includes(dialect);
  if (!hasToken) {
    const proven = isSigned ? signed(url, system.proof) : [curl(upstream, url, false)];
    return [...proven, ...ifTrue(speaks("routstrd"), routstrd(url))];
  }
  // Clients that take a URL reach no socket.
  if (url.startsWith("unix:")) return [curl(upstream, url, true)];
  return [
    curl(upstream, url, true),
    ...ifTrue(speaks("openai"), openai(url)),
    ...ifTrue(speaks("anthropic"), anthropic(url)),
    ...ifTrue(speaks("anthropic"), claudeCode(url, upstream.models)),
    ...ifTrue(speaks("openai"), opencode(url, upstream)),
  ];
}

/** Origin of an upstream that has a host name of its own. */
export function urlOf(url: string, { host }: Pick<Guarded, "host">): string {
  if (host === null || host.startsWith("*") || url.startsWith("unix:")) return url;
  const origin = new URL(url);
  origin.hostname = host;
  return origin.origin;
}

function ifTrue(condition: boolean, snippet: Snippet): readonly Snippet[] {
  return condition ? [snippet] : [];
}

function curl({ system, tokenSettings }: Guarded, url: string, hasToken: boolean): Snippet {
  const header =
    tokenSettings?.authorization === false && typeof tokenSettings.header === "string"
      ? `${tokenSettings.header}: `
      : "Authorization: Bearer ";
  const place = url.startsWith("unix:")
    ? `--unix-socket ${quoted(url.slice("unix:".length))} http://localhost${system.proof}`
    : `${url}${system.proof}`;
  const title = hasToken ? "curl" : `curl, with a token of your issuer in ${TOKEN_VARIABLE}`;
  return { title, lines: [`curl -H "${header}$${TOKEN_VARIABLE}" ${place}`] };
}

/** The `openai` packages of Python and JavaScript read both. */
function openai(url: string): Snippet {
  return {
    title: "OpenAI SDKs",
    lines: [`export OPENAI_BASE_URL=${url}/v1`, `export OPENAI_API_KEY="$${TOKEN_VARIABLE}"`],
  };
}

/** The `anthropic` packages read both, and add /v1 themselves; ANTHROPIC_AUTH_TOKEN would do as well. */
function anthropic(url: string): Snippet {
  return {
    title: "Anthropic SDKs",
    lines: [`export ANTHROPIC_BASE_URL=${url}`, `export ANTHROPIC_API_KEY="$${TOKEN_VARIABLE}"`],
  };
}

/** ANTHROPIC_AUTH_TOKEN goes before a login; a key beside it makes Claude Code warn. */
function claudeCode(url: string, models: readonly string[]): Snippet {
  const [model] = models;
  return {
    title: "Claude Code",
    lines: [
      `export ANTHROPIC_BASE_URL=${url}`,
      `export ANTHROPIC_AUTH_TOKEN="$${TOKEN_VARIABLE}"`,
      "unset ANTHROPIC_API_KEY",
      model === undefined ? "claude" : `claude --model ${quoted(model)}`,
    ],
  };
}

/** `{env:NAME}` is replaced by opencode when it reads the file. */
function opencode(url: string, { name, models }: Guarded): Snippet {
  const listed = models.length === 0 ? ["MODEL"] : models;
  const provider = {
    npm: "@ai-sdk/openai-compatible",
    name: `Gatehouse (${name})`,
    options: { baseURL: `${url}/v1`, apiKey: `{env:${TOKEN_VARIABLE}}` },
    models: Object.fromEntries(listed.map((model) => [model, { name: model }])),
  };
  const config = { $schema: "https://opencode.ai/config.json", provider: { gatehouse: provider } };
  return {
    title: "opencode (opencode.json)",
    lines: JSON.stringify(config, null, 2).split("\n"),
  };
}

function signed(url: string, proof: string): readonly Snippet[] {
  return [
    {
      title: "curl, signed with your key (me.nsec)",
      lines: [`curl -H "$(gatehouse sign GET ${url}${proof} --key-file me.nsec)" ${url}${proof}`],
    },
  ];
}

function routstrd(url: string): Snippet {
  return {
    title: "routstrd, and keys for its clients",
    lines: [
      `routstrd remote ${url}`,
      `ROUTSTRD_AUTH_URL=${url} gatehouse clients add --name laptop --key-file me.nsec`,
    ],
  };
}

/** One word for a shell. */
export function quoted(word: string): string {
  return /^[A-Za-z0-9_@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
