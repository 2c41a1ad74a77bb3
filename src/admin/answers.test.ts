/** Refusals, and their documentation. */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { REASONS } from "../reasons.ts";
import { PROBLEM_REASONS, Problem, problemAnswer, statusOf } from "./answers.ts";

test("every reason is documented with its status", () => {
  const text = readFileSync(join(import.meta.dir, "../../docs/token-api.md"), "utf8");
  const rows = [...text.matchAll(/^\| `(\w+)` \| (\d{3}) \|/gm)];
  const documented = new Map(rows.map(([, reason = "", status]) => [reason, Number(status)]));
  // The gateway's own answer when the store throws.
  documented.delete("strategy_fault");
  expect(documented).toEqual(new Map(PROBLEM_REASONS.map((reason) => [reason, statusOf(reason)])));
});

test("a reason that the gateway has as well has the same status there", () => {
  const shared = PROBLEM_REASONS.filter((reason) => reason in REASONS);
  expect(shared.length).toBeGreaterThan(3);
  for (const reason of shared) {
    expect(statusOf(reason)).toBe(REASONS[reason as keyof typeof REASONS].status);
  }
});

test("a 401 says how to authenticate, and every refusal says whose it is", async () => {
  const answer = problemAnswer(new Problem("no_credential"), "req-1");
  expect(answer.headers.get("www-authenticate")).toBe('Bearer realm="gatehouse"');
  expect(answer.headers.get("x-gatehouse-reason")).toBe("no_credential");
  expect(await answer.json()).toMatchObject({ status: 401, request_id: "req-1" });
});
