/**
 * Adds to a configuration by putting text into it: an entry of a map, an item of a list, another value.
 *
 * Invariant: every byte that is not about the change stays: comments, order, blank lines, the way it is written. What
 * is put in is printed by the YAML library.
 */
import {
  type Document,
  isAlias,
  isMap,
  isPair,
  isScalar,
  isSeq,
  type Node,
  stringify,
  type YAMLMap,
  type YAMLSeq,
} from "yaml";
import { EXIT, OperatorError } from "../../errors.ts";
import { printed } from "./config-text.ts";
import { editable } from "./existing.ts";

/** Adds `name: value` to the map called `section` at the top. @throws OperatorError when it cannot be done safely */
export function addEntry(text: string, section: string, entry: readonly [string, unknown]): string {
  const [name, value] = entry;
  const map = editable(text).get(section, true);
  if (map === undefined || isEmpty(map)) return addSection(text, section, { [name]: value });
  if (!isMap(map)) throw byHand(section);
  if (map.flow === true)
    return addToFlow(
      text,
      map,
      flowText({ [name]: value })
        .slice(1, -1)
        .trim(),
    );
  const indent = indentOf(text, startOf(map.items[0]?.key));
  return putAfter(text, endOf(map), indented(printed({ [name]: value }), indent));
}

/** Puts an item at a place of the list called `section` at the top. @throws OperatorError as above */
export function addItem(
  text: string,
  section: string,
  { item, at }: { readonly item: unknown; readonly at: number },
): string {
  const list = editable(text).get(section, true);
  if (list === undefined || isEmpty(list)) return addSection(text, section, [item]);
  if (!isSeq(list)) throw byHand(section);
  if (list.flow === true) return addToFlowList(text, list, { item, at });
  const before = at === 0 ? null : list.items[at - 1];
  const dash = text.lastIndexOf("-", startOf(list.items[0]));
  const put = indented(printed([item]), indentOf(text, dash));
  // Directly below the heading, so that remarks stay with what they are about.
  if (before === null) return putAfter(text, endOfHeading(text, section), put);
  return putAfter(text, endOf(before), put);
}

/** Sets one value that is there, or adds it. @throws OperatorError when a list or a map stands there */
export function setValue(text: string, path: readonly [string, string], value: unknown): string {
  const [section, key] = path;
  const document = editable(text);
  const node = document.getIn(path, true);
  if (node === undefined) return addEntry(text, section, [key, value]);
  if (!isScalar(node) || node.range == null) throw byHand(`${section}.${key}`);
  const [start, end] = node.range;
  return text.slice(0, start) + printed(value).trimEnd() + text.slice(end);
}

function byHand(what: string): OperatorError {
  return new OperatorError(
    EXIT.config,
    `${what} is written in a way that is not changed safely by questions; nothing was changed`,
    "Change it with an editor, then: gatehouse config validate",
  );
}

/** `upstreams:` with nothing, or `{}`. */
function isEmpty(node: unknown): boolean {
  if (isScalar(node)) return node.value === null;
  return (isMap(node) || isSeq(node)) && node.items.length === 0;
}

function addSection(text: string, section: string, value: unknown): string {
  const document: Document = editable(text);
  const body = printed({ [section]: value });
  if (!document.has(section)) return `${text.replace(/\n*$/, "\n")}\n${body}`;
  const node = document.get(section, true);
  const heading = new RegExp(`^${section}:`, "m").exec(text);
  if (heading === null) throw byHand(section);
  const end = isScalar(node) || isMap(node) || isSeq(node) ? (node.range?.[1] ?? 0) : 0;
  const from = heading.index;
  return (
    text.slice(0, from) + body.trimEnd() + text.slice(Math.max(end, from + section.length + 1))
  );
}

function addToFlow(text: string, map: YAMLMap, inside: string): string {
  const at = endOf(map.items.at(-1));
  return `${text.slice(0, at)}, ${inside}${text.slice(at)}`;
}

function addToFlowList(
  text: string,
  list: YAMLSeq,
  { item, at }: { readonly item: unknown; readonly at: number },
): string {
  const start = at === 0 ? startOf(list.items[0]) : endOf(list.items[at - 1]);
  const put = at === 0 ? `${flowText(item)}, ` : `, ${flowText(item)}`;
  return text.slice(0, start) + put + text.slice(start);
}

/** On one line. */
function flowText(value: unknown): string {
  return stringify(value, { collectionStyle: "flow", lineWidth: 0 }).trimEnd();
}

/** Whole lines behind the line on which `at` is. */
function putAfter(text: string, at: number, lines: string): string {
  const newline = text.indexOf("\n", at);
  if (newline === -1) return `${text}\n${lines}`;
  return text.slice(0, newline + 1) + lines + text.slice(newline + 1);
}

function endOfHeading(text: string, section: string): number {
  const heading = new RegExp(`^["']?${section}["']?[ \\t]*:`, "m").exec(text);
  if (heading === null) throw byHand(section);
  return heading.index + heading[0].length;
}

function indented(text: string, indent: number): string {
  const blanks = " ".repeat(indent);
  return text.replace(/^(?=.)/gm, blanks);
}

function indentOf(text: string, at: number): number {
  return at - (text.lastIndexOf("\n", at - 1) + 1);
}

function startOf(node: unknown): number {
  return (node as Node | undefined)?.range?.[0] ?? 0;
}

/** Where the last thing in it ends; for brackets, behind the closing one. */
function endOf(node: unknown): number {
  if (isPair(node)) return endOf(node.value ?? node.key);
  if ((isMap(node) || isSeq(node)) && node.flow !== true && node.items.length > 0) {
    return endOf(node.items.at(-1));
  }
  if (isMap(node) || isSeq(node) || isScalar(node) || isAlias(node)) {
    const [start, end] = node.range ?? [0, 0];
    // A text of several lines ends with their line break.
    const isBlock = isScalar(node) && node.type?.startsWith("BLOCK_") === true;
    return isBlock ? Math.max(start, end - 1) : end;
  }
  return 0;
}
