/** Names at the top level of JSON, among everything that looks like one. */
import { expect, test } from "bun:test";
import { countTopLevelNames } from "./json-names.ts";

const count = (json: string) => countTopLevelNames(json, (name) => name === "a");

test.each([
  ['{"a":1}', 1],
  ['{"a":1,"a":2}', 2],
  ['{"a" \t\r\n :1,"\\u0061":2}', 2],
  ['{"b":"a","c":["a",{"a":1}],"d":{"a":2}}', 0],
  ['{"b":"\\"a\\":1","a":1}', 1],
  ['{"b\\\\":1,"a":2,"c":"\\\\\\""}', 1],
  ['{"b":"{[","a":1,"c":"]}","a":2}', 2],
  ['"a"', 0],
  ['["a"]', 0],
  ["{}", 0],
])("%s has it %i times", (json, times) => {
  JSON.parse(json);
  expect(count(json)).toBe(times);
});

test.each([
  ["letters", "x".repeat(9_000_000)],
  ["escapes", "\\\\".repeat(4_500_000)],
  ["escaped quotes", '\\"'.repeat(4_500_000)],
])("a name behind millions of %s is found", (_, text) => {
  expect(count(`{"a":"${text}","a":2}`)).toBe(2);
});
