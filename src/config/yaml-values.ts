/**
 * From YAML nodes to plain values, and from config paths back to nodes.
 *
 * Invariant: linear in the number of values. Duplicate keys and aliases are handled here because the library
 * compares keys pairwise and searches the document again for every alias.
 */
import {
  type Alias,
  isAlias,
  isMap,
  isScalar,
  isSeq,
  type Node,
  type Pair,
  type Scalar,
  type YAMLMap,
  type YAMLSeq,
} from "yaml";
import type { Locate, Place } from "./issues.ts";

/** What is wrong with the YAML itself, from 1. */
export interface YamlProblem {
  readonly line: number;
  readonly column: number;
  readonly message: string;
  readonly hint: string;
}

/** Reads a document once; knows its nodes afterwards. */
export interface Reader {
  read(node: unknown, depth: number): unknown;
  readonly problems: YamlProblem[];
  /** Whether reading was given up; the value is then not to be used. */
  isBroken(): boolean;
  /** The node an alias stands for, other nodes as they are. */
  target(node: unknown): unknown;
  pair(map: YAMLMap, key: string): Pair | undefined;
}

type At = (offset: number) => Place;

/** Message and hint. */
type Problem = readonly [string, string];

/** Deepest nesting that is read; ours needs six. */
export const MAX_DEPTH = 64;
/** Values after aliases are followed; a file full of honest YAML has about as many. */
const MAX_VALUES = 200_000;

const CYCLE: Problem = ["an alias inside its own anchor", "remove the alias"];
const CORE_TAGS = /^tag:yaml\.org,2002:(?:str|int|float|bool|null|map|seq)$|^!$/;

/** A reader; it takes nodes in document order, which makes "the anchor before the alias" one map lookup. */
export function createReader(at: At): Reader {
  const problems: YamlProblem[] = [];
  const anchors = new Map<string, Node>();
  const aliased = new Map<unknown, Node>();
  const pairs = new Map<YAMLMap, Map<string, Pair>>();
  const open = new Set<unknown>();
  let values = 0;
  let aliasDepth = 0;
  let isBroken = false;

  const complain = (node: unknown, message: string, hint: string) => {
    problems.push({ ...at(startOf(node)), message, hint });
  };
  const giveUp = (node: unknown, [message, hint]: Problem): undefined => {
    if (!isBroken) complain(node, message, hint);
    isBroken = true;
  };

  const remember = (node: unknown) => {
    // What is read again by way of an alias is older than what the same name may stand for by now.
    if (aliasDepth > 0 || !isValueNode(node) || node.anchor === undefined) return;
    anchors.set(node.anchor, node);
  };

  const read = (node: unknown, depth: number): unknown => {
    if (isBroken) return undefined;
    values += 1;
    const problem = excessOf(values, depth) ?? (open.has(node) ? CYCLE : tagProblem(node));
    if (problem !== null) return giveUp(node, problem);
    if (isAlias(node)) return follow(node, depth);
    remember(node);
    if (isScalar(node)) return node.value;
    open.add(node);
    const value = isMap(node) ? readMap(node, depth) : readList(node, depth);
    open.delete(node);
    return value;
  };

  const readList = (node: unknown, depth: number) =>
    isSeq(node) ? node.items.map((item) => read(item, depth + 1)) : null;

  const readMap = (map: YAMLMap, depth: number) => {
    const index = new Map<string, Pair>();
    const isFirstTime = !pairs.has(map);
    pairs.set(map, index);
    const entries: [string, unknown][] = [];
    for (const pair of map.items) {
      const key = isScalar(pair.key) ? String(pair.key.value) : String(pair.key);
      if (!index.has(key)) {
        index.set(key, pair);
        entries.push([key, read(pair.value, depth + 1)]);
      } else if (isFirstTime) {
        complain(pair.key, `the key \`${key}\` appears twice`, "remove one of them");
      }
    }
    // fromEntries defines properties, so that a key `__proto__` is only a key.
    return Object.fromEntries(entries);
  };

  const follow = (node: Alias, depth: number): unknown => {
    const name = node.source;
    const anchor = aliased.get(node) ?? anchors.get(name);
    if (anchor === undefined) {
      return giveUp(node, [`the alias *${name} leads nowhere`, `write &${name} before it`]);
    }
    aliased.set(node, anchor);
    aliasDepth += 1;
    const value = read(anchor, depth);
    aliasDepth -= 1;
    return value;
  };

  return {
    read,
    problems,
    isBroken: () => isBroken,
    target: (node) => aliased.get(node) ?? node,
    pair: (map, key) => pairs.get(map)?.get(key),
  };
}

function excessOf(values: number, depth: number): Problem | null {
  if (depth > MAX_DEPTH) return ["nested too deep", `at most ${MAX_DEPTH} levels are read`];
  return values > MAX_VALUES
    ? ["too many values once aliases are followed", "write fewer aliases"]
    : null;
}

function isValueNode(node: unknown): node is Scalar | YAMLMap | YAMLSeq {
  return isScalar(node) || isMap(node) || isSeq(node);
}

function tagProblem(node: unknown): Problem | null {
  const isForeign = isValueNode(node) && node.tag !== undefined && !CORE_TAGS.test(node.tag);
  return isForeign ? ["a tag (!name) that means nothing here", "remove the tag"] : null;
}

/** Finds places of paths; a scalar is pointed at itself, a block at the key that introduces it. */
export function createLocator(root: unknown, reader: Reader, at: At): Locate {
  return (path, what) => {
    let place = startOf(root);
    let node = reader.target(root);
    for (const [index, step] of path.entries()) {
      const member = memberOf(node, step, reader);
      if (member === null) break;
      node = reader.target(member.value);
      const isLast = index === path.length - 1;
      const isOwn = member.key === null || (isLast && what === "value" && isScalar(node));
      place = (isOwn ? startOf(member.value) : 0) || startOf(member.key) || place;
    }
    return at(place);
  };
}

function memberOf(node: unknown, step: string | number, reader: Reader) {
  if (isSeq(node)) {
    const item = typeof step === "number" ? node.items[step] : undefined;
    return item === undefined ? null : { key: null, value: item };
  }
  const pair = isMap(node) ? reader.pair(node, String(step)) : undefined;
  return pair === undefined ? null : { key: pair.key, value: pair.value };
}

/** Offset of a node, 0 when it has none (an empty value). */
function startOf(node: unknown): number {
  return (isValueNode(node) || isAlias(node) ? node.range?.[0] : null) ?? 0;
}
