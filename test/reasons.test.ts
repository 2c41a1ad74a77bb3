/**
 * The reasons of refusals: each is documented as it is, and each that can happen has a test that makes it happen.
 *
 * Invariant: a reason nobody documents or tests cannot be added, and one called unreachable has no producer.
 */
import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { REJECT_REASONS } from "../src/contract/outcome.ts";
import { REASONS, type Reason } from "../src/reasons.ts";

const ROOT = join(import.meta.dir, "..");
const ALL = Object.keys(REASONS) as Reason[];

const FRAMING = "test/scenarios/framing.test.ts";
const PATHS = "test/scenarios/paths.test.ts";
const CREDENTIALS = "test/scenarios/credentials.test.ts";
const POLICIES = "test/scenarios/policies.test.ts";
const FORWARD_AUTH = "test/scenarios/forward-auth.test.ts";
const ANSWERS = "test/scenarios/answers.test.ts";

/** Reason to the test that produces it; `null`: nothing in src produces it yet. */
const TESTS: Readonly<Partial<Record<Reason, string | null>>> = {
  bad_request: FRAMING,
  head_too_large: FRAMING,
  uri_too_long: FRAMING,
  unsupported_transfer_encoding: FRAMING,
  unsupported_method: FRAMING,
  unsupported_version: FRAMING,
  expectation_failed: FRAMING,
  request_timeout: ANSWERS,
  path_ambiguous: PATHS,
  path_malformed: PATHS,
  credential_in_url: CREDENTIALS,
  untrusted_proxy: FORWARD_AUTH,
  original_unreadable: FORWARD_AUTH,
  no_route: ANSWERS,
  no_upstream: CREDENTIALS,
  no_credential: CREDENTIALS,
  invalid_token: CREDENTIALS,
  malformed_credential: CREDENTIALS,
  ambiguous_credential: CREDENTIALS,
  insufficient_role: CREDENTIALS,
  insufficient_scope: CREDENTIALS,
  strategy_fault: CREDENTIALS,
  internal_fault: CREDENTIALS,
  token_revoked: "plugins/bearer-sqlite/index.test.ts",
  token_expired: "plugins/bearer-sqlite/index.test.ts",
  token_not_yet_valid: "plugins/bearer-sqlite/index.test.ts",
  signature_invalid: "test/external/signed-link.test.ts",
  replayed: "test/external/signed-link.test.ts",
  stale_proof: "test/external/signed-link.test.ts",
  not_registered: "test/external/signed-link.test.ts",
  body_too_large: ANSWERS,
  body_malformed: ANSWERS,
  body_timeout: ANSWERS,
  upstream_unreachable: ANSWERS,
  upstream_timeout: ANSWERS,
  upstream_broken: ANSWERS,
  client_closed: ANSWERS,
  scheme_refused: POLICIES,
  model_denied: POLICIES,
  model_unreadable: POLICIES,
};

/** Every strategy's reason passes the gateway in a test that goes through the whole list. */
const SWEPT = { file: CREDENTIALS, by: "test.each([...REJECT_REASONS])" };

interface Documented {
  readonly status: number;
  readonly public: string;
  readonly meaning: string;
  readonly advice: string;
}

function documented(): Map<string, Documented> {
  const text = readFileSync(join(ROOT, "docs/reasons.md"), "utf8");
  const rows = [...text.matchAll(/^\| `(\w+)` \| (\d{3}) \| `(\w+)` \| (.+?) \| (.+?) \|$/gm)];
  const found = rows.map(([, reason = "", status, shown = "", meaning = "", advice = ""]) => {
    return [reason, { status: Number(status), public: shown, meaning, advice }] as const;
  });
  expect(new Set(found.map(([reason]) => reason)).size).toBe(found.length);
  return new Map(found);
}

function sourcesBut(except: readonly string[]): string {
  return ["src", "plugins"]
    .flatMap((dir) =>
      readdirSync(join(ROOT, dir), { recursive: true, encoding: "utf8" }).map((name) =>
        join(dir, name),
      ),
    )
    .filter((path) => path.endsWith(".ts") && !path.endsWith(".test.ts") && !except.includes(path))
    .map((path) => readFileSync(join(ROOT, path), "utf8"))
    .join("\n");
}

const has = (text: string, reason: string) =>
  new RegExp(`["']${reason}["']|\\b${reason}:|Reason: ${reason}\\b`).test(text);

describe("docs/reasons.md", () => {
  test("lists every reason once and nothing else", () => {
    expect([...documented().keys()].sort()).toEqual([...ALL].sort());
  });

  test.each([...ALL])("%s is documented with its status and public reason", (reason) => {
    const entry = documented().get(reason);
    expect(entry).toMatchObject({ status: REASONS[reason].status, public: REASONS[reason].public });
    expect(entry?.meaning.length).toBeGreaterThan(10);
    expect(entry?.advice.length).toBeGreaterThan(5);
  });
});

describe("reasons", () => {
  test.each([...ALL])("%s has a test that produces it, or nothing produces it", (reason) => {
    const file = TESTS[reason];
    if (file === null) {
      expect(has(sourcesBut(["src/reasons.ts"]), reason)).toBe(false);
      return;
    }
    const isSwept = REJECT_REASONS.some((one) => one === reason);
    if (file === undefined) {
      expect([reason, isSwept]).toEqual([reason, true]);
      expect(readFileSync(join(ROOT, SWEPT.file), "utf8")).toContain(SWEPT.by);
      return;
    }
    expect(has(readFileSync(join(ROOT, file), "utf8"), reason)).toBe(true);
  });

  test("what an outsider learns about a token that does not work is one and the same", () => {
    for (const reason of REJECT_REASONS.filter((one) => one.startsWith("token_"))) {
      expect(REASONS[reason]).toBe(REASONS.invalid_token);
    }
  });

  test("a public reason is a reason with the same status, and its sentence names nothing inside", () => {
    for (const reason of ALL) {
      const entry = REASONS[reason];
      expect(REASONS[entry.public].status).toBe(entry.status);
      expect(entry.detail).toMatch(/^[A-Z][^{}$]*\.$/);
    }
  });

  test("a code is snake_case, and only a 4xx or 5xx", () => {
    for (const reason of ALL) {
      expect(reason).toMatch(/^[a-z]+(?:_[a-z]+)*$/);
      expect(REASONS[reason].status).toBeGreaterThanOrEqual(400);
    }
  });
});
