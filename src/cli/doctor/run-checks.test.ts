/** Checks run beside each other, and none of them can spoil the report. */
import { expect, test } from "bun:test";
import { ok } from "./finding.ts";
import { runChecks } from "./run-checks.ts";
import type { Check, Subject } from "./subject.ts";

const SUBJECT = { redact: (text: string) => text.replaceAll("canary", "[redacted]") } as Subject;
const check = (name: string, run: Check["run"]): Check => ({ group: "G", name, run });
const never = new Promise<never>(() => {});

test("one that throws or never ends is a finding of its own, and the others are there, in order", async () => {
  const findings = await runChecks(
    [
      check("first", () => [ok("first", "fine")]),
      check("throwing", () => {
        throw new Error("the canary is out");
      }),
      check("rejecting", () => Promise.reject(new Error("no"))),
      check("endless", () => never),
      check("last", async () => [ok("last", "fine")]),
    ],
    SUBJECT,
    { eachMs: 50, allMs: 5000 },
  );
  expect(findings.map(({ code }) => code)).toEqual([
    "first",
    "check_not_made",
    "check_not_made",
    "check_not_made",
    "last",
  ]);
  expect(findings[1]?.what).toBe("throwing could not be looked at: the [redacted] is out");
  expect(findings[3]?.what).toContain("no end within");
  expect(findings.every(({ group }) => group === "G")).toBe(true);
});

test("the deadline for all ends each of them", async () => {
  const findings = await runChecks([check("endless", () => never)], SUBJECT, {
    eachMs: 60_000,
    allMs: 20,
  });
  expect(findings.map(({ code }) => code)).toEqual(["check_not_made"]);
});
