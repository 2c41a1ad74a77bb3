/** Did-you-mean: near names are offered, far ones are not. */
import { expect, test } from "bun:test";
import { closest, nameHint } from "./suggest.ts";

test.each([
  ["upstrem", "upstream"],
  ["ustream", "upstream"],
  ["upstraem", "upstream"],
  ["Upstream", "upstream"],
  ["max-body", "max_body"],
  ["strategy", undefined],
  ["x", undefined],
  ["u".repeat(200), undefined],
])("of upstream and max_body, %s is nearest to %p", (word, expected) => {
  expect(closest(word, ["upstream", "max_body"])).toBe(expected as string);
});

test("a hint names the near candidate, else all of them, else what was said for none", () => {
  expect(nameHint("temm", ["team", "ops"], "none")).toBe("did you mean `team`?");
  expect(nameHint("zzzzzz", ["team", "ops"], "none")).toBe("there is team, ops");
  expect(nameHint("team", [], "none")).toBe("none");
});
