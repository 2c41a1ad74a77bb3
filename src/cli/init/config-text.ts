/**
 * The configuration that a set-up writes: only what was decided, each part with a word on what it is for.
 *
 * Invariant: every value is printed by the YAML library, so that none can break out of its place; no secret is in it.
 */
import {
  Document,
  isMap,
  isPair,
  isScalar,
  type Node,
  type Pair,
  Scalar,
  YAMLMap,
  YAMLSeq,
} from "yaml";
import { listenText } from "../../config/address.ts";
import { SCHEMA_COMMENT } from "../../config/json-schema.ts";
import { VERSION } from "../version.ts";
import type { Decision } from "./decision.ts";
import { type ChosenStrategy, secretPath } from "./strategies.ts";
import type { Guarded } from "./upstreams.ts";

const PRINTED = { lineWidth: 0, flowCollectionPadding: false } as const;

/** A value as the configuration has it: lists of words on one line. */
export function printed(value: unknown): string {
  const document = new Document(value);
  flowLists(document.contents);
  return document.toString(PRINTED);
}

/** The whole file. */
export function configText(decision: Decision): string {
  const document = new Document(documentOf(decision));
  const root = document.contents;
  if (!isMap(root)) throw new TypeError("not a map");
  const pairs = new Map(root.items.map((pair) => [keyText(pair), pair]));
  for (const [key, comment] of Object.entries(commentsOf(decision))) {
    const pair = pairs.get(key);
    if (pair !== undefined) explain(pair, comment, key !== "version");
  }
  explainInside(pairs.get("server"), SERVER_COMMENTS);
  for (const { name, use } of decision.strategies) {
    explainInside(pairs.get("strategies"), { [name]: STRATEGY_COMMENTS[use] ?? use });
  }
  flowLists(root);
  document.commentBefore = headOf(decision);
  return document.toString(PRINTED);
}

/** The configuration as plain data. */
export function documentOf(decision: Decision): Readonly<Record<string, unknown>> {
  const { places, strategies, upstreams } = decision;
  return {
    version: 1,
    server: serverOf(decision),
    state_dir: places.stateText,
    strategies: Object.fromEntries(
      strategies.map(({ name, use, settings }) => [name, { use, ...settings }]),
    ),
    upstreams: Object.fromEntries(upstreams.map(({ name, url, keys }) => [name, { url, ...keys }])),
    routes: upstreams.map((upstream) => routeOf(upstream, strategies)),
  };
}

/** The entry of `routes` for an upstream. */
export function routeOf(
  { name, preset, host, with: options }: Guarded,
  strategies: readonly ChosenStrategy[],
): Readonly<Record<string, unknown>> {
  const mine = strategies.filter(({ upstreams }) => upstreams.includes(name));
  if (preset.name === "routstrd") {
    const [bearer, nostr] = [named(mine, "routstrd"), named(mine, "nip98")];
    return { preset: preset.name, with: { upstream: name, bearer, nostr, ...options } };
  }
  const access = mine.map((strategy) => strategy.name);
  const site = host === null ? {} : { host };
  return { preset: preset.name, with: { upstream: name, access, ...site, ...options } };
}

function named(strategies: readonly ChosenStrategy[], use: string): string {
  return strategies.find((one) => one.use === use)?.name ?? "";
}

function serverOf(decision: Decision): Readonly<Record<string, unknown>> {
  const { listen, publicUrl, trustedProxies, tls, service, upstreams } = decision;
  const isSystem = service?.scope === "system";
  return {
    listen: listenText(listen),
    ...(publicUrl === null ? {} : { public_url: publicUrl }),
    ...(trustedProxies.length === 0 ? {} : { trusted_proxies: [...trustedProxies] }),
    ...(tls === null
      ? {}
      : {
          tls: isSystem
            ? { cert: secretPath("tls-cert", service), key: secretPath("tls-key", service) }
            : { ...tls },
        }),
    ...Object.assign({}, ...upstreams.map(({ server }) => server)),
  };
}

function headOf({ places, service }: Decision): string {
  const reload =
    service === null
      ? `gatehouse reload -c ${places.configFile}`
      : `systemctl ${service.scope === "user" ? "--user " : ""}reload ${service.name}`;
  return `${SCHEMA_COMMENT.slice(1)}

 Gatehouse configuration, made by \`gatehouse init\` ${VERSION}. It is yours: edit it, check it with
 \`gatehouse config validate -c ${places.configFile}\`, then put it in force: \`${reload}\`.
 Every key with its default: \`gatehouse config show --expanded\`. Run \`gatehouse init\` again to change it by questions;
 \`gatehouse init --undo\` takes away what init made.`;
}

function commentsOf({ trustedProxies }: Decision): Readonly<Record<string, string>> {
  return {
    version: "Version of this file's format.",
    server: trustedProxies.length === 0 ? "Where clients connect." : "Where the proxy connects.",
    state_dir: "Database and keys, for their owner alone. `gatehouse backup` saves them.",
    strategies: "Who may enter.",
    upstreams:
      "What is guarded. Let it listen on this machine alone, or it can be reached past the gateway.",
    routes:
      "Which of its paths are for whom: docs/presets.md. The first route that matches wins; no match is 404.",
  };
}

const SERVER_COMMENTS: Readonly<Record<string, string>> = {
  public_url: "Origin under which clients reach it.",
  trusted_proxies: "Whose X-Forwarded-* is believed.",
  tls: "Read at the start: restart after a renewal.",
  health_path: "null: the path is the upstream's own.",
};

const STRATEGY_COMMENTS: Readonly<Record<string, string>> = {
  "bearer-sqlite": "Tokens: gatehouse token create --name NAME",
  "static-env": "One token, in a file that others cannot read.",
  nip98: "Requests signed with Nostr keys: gatehouse npub add NPUB",
  "valkey-hash": "Tokens whose keyed hashes lie in Valkey: gatehouse token create --name NAME",
  oidc: "JWTs of an issuer.",
  routstrd: "Client keys of the daemon: gatehouse clients add --name NAME",
};

function keyText(pair: Pair): string {
  return isScalar(pair.key) ? String(pair.key.value) : "";
}

/** A line above, and an empty one above that. */
function explain(pair: Pair, comment: string, hasSpace: boolean): void {
  const key = pair.key instanceof Scalar ? pair.key : new Scalar(pair.key);
  key.commentBefore = ` ${comment}`;
  key.spaceBefore = hasSpace;
  pair.key = key;
}

function explainInside(pair: Pair | undefined, comments: Readonly<Record<string, string>>): void {
  if (!(pair?.value instanceof YAMLMap)) return;
  for (const item of pair.value.items) {
    const comment = isPair(item) ? comments[keyText(item)] : undefined;
    if (comment !== undefined && item.key instanceof Scalar) item.key.commentBefore = ` ${comment}`;
  }
}

/** Short lists on one line. */
function flowLists(node: unknown): void {
  if (node instanceof YAMLSeq) {
    if (node.items.every((item) => isScalar(item))) node.flow = true;
    for (const item of node.items) flowLists(item);
  } else if (node instanceof YAMLMap) {
    for (const { value } of node.items as Pair<Node, Node>[]) flowLists(value);
  }
}
