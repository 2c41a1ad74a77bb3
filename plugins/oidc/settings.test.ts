/** What the configuration takes, and what it says to what it does not take. */
import { describe, expect, test } from "bun:test";
import plugin from "./index.ts";
import { ALGORITHMS, audiencesOf } from "./settings.ts";

const GOOD = { issuer: "https://id.example.com/realms/main", audience: "api" };

/** Each issue as `path: message`. */
function problems(config: Readonly<Record<string, unknown>>): string[] {
  const parsed = plugin.config.safeParse(config);
  return (parsed.error?.issues ?? []).map(({ path, message }) => `${path.join(".")}: ${message}`);
}

function withOne(config: Readonly<Record<string, unknown>>): string {
  const [problem = "accepted", ...more] = problems({ ...GOOD, ...config });
  return more.length === 0 ? problem : [problem, ...more].join(" | ");
}

test("issuer and audience are enough, and the rest has defaults that are safe", () => {
  expect(plugin.config.parse(GOOD)).toEqual({
    ...GOOD,
    algorithms: [...ALGORITHMS],
    token_type: "any",
    require_claims: {},
    leeway: "60s",
    refresh: "5m",
    refetch_interval: "5s",
    keep_keys: "24h",
    timeout: "5s",
    subject_claim: "sub",
    groups_claim: "groups",
    groups_split: false,
    admin_group_case_sensitive: true,
  });
});

test("without an audience nothing is accepted: it is named, or written off as any", () => {
  const [problem] = problems({ issuer: GOOD.issuer });
  expect(problem).toBe(
    "audience: say whom tokens must be for: one audience, a list of them, or any",
  );
  for (const audience of ["", [], [""], null, true, { any: true }]) {
    expect(withOne({ audience })).toStartWith("audience");
  }
  expect(audiencesOf({ audience: "any" })).toBeNull();
  expect(audiencesOf({ audience: ["any"] })).toEqual(["any"]);
  expect(audiencesOf({ audience: "api" })).toEqual(["api"]);
});

describe("issuer", () => {
  test.each([
    "https://id.example.com",
    "https://id.example.com/",
    "https://id.example.com:8443/a/b/",
    "http://localhost:8080/realms/main",
    "http://127.0.0.1:9000",
    "http://[::1]:9000",
  ])("%s is taken", (issuer) => {
    expect(withOne({ issuer })).toBe("accepted");
  });

  test.each([
    ["", "issuer: expected the issuer's URL, such as https://id.example.com/realms/main"],
    [
      "id.example.com",
      "issuer: expected the issuer's URL, such as https://id.example.com/realms/main",
    ],
    [
      "ftp://id.example.com",
      "issuer: expected the issuer's URL, such as https://id.example.com/realms/main",
    ],
    ["http://id.example.com", "issuer: expected https"],
    ["http://localhost.example.com", "issuer: expected https"],
    ["http://127.0.0.1.example.com", "issuer: expected https"],
    ["http://10.0.0.1", "issuer: expected https"],
    ["https://a:b@id.example.com", "issuer: an issuer has no user and no password"],
    ["https://id.example.com/?tenant=1", "issuer: an issuer has neither ? nor #"],
    ["https://id.example.com/#", "issuer: an issuer has neither ? nor #"],
    [
      "https://id.example.com/.well-known/openid-configuration",
      "issuer: this is the address of a document; write the part before /.well-known/",
    ],
  ])("%p is refused in words that help", (issuer, expected) => {
    expect(withOne({ issuer })).toStartWith(expected);
  });

  test("is only a name when the keys are elsewhere, and then the keys must come over https", () => {
    const issuer = "http://keycloak:8080/realms/main";
    expect(withOne({ issuer, jwks_url: "https://keys.example.com/" })).toBe("accepted");
    expect(withOne({ issuer, jwks_url: "http://127.0.0.1:8080/keys" })).toBe("accepted");
    for (const jwks_url of ["http://keycloak:8080/keys", "file:///etc/passwd", "data:,{}"]) {
      expect(withOne({ issuer, jwks_url })).toStartWith("jwks_url: expected https");
    }
    for (const jwks_url of ["", "keys.json", "https://u:p@keys.example.com/"]) {
      expect(withOne({ issuer, jwks_url })).toStartWith("jwks_url: expected");
    }
  });
});

test.each(["none", "HS256", "HS384", "HS512", "ES256K", "RSA-OAEP", "rs256", ""])(
  "the algorithm %p cannot be switched on",
  (algorithm) => {
    expect(withOne({ algorithms: ["RS256", algorithm] })).toStartWith("algorithms.1: ");
  },
);

test("a list of algorithms is not empty", () => {
  expect(withOne({ algorithms: [] })).toStartWith("algorithms: ");
  expect(withOne({ algorithms: ["ES256"] })).toBe("accepted");
});

test.each([
  ["leeway", ["0s", "10m"], ["11m", "500ms", "-1s", "1", "", "1500ms"]],
  ["refresh", ["1s", "1d"], ["0s", "2d", "often"]],
  ["refetch_interval", ["1s", "10m"], ["0s", "999ms", "1h"]],
  ["keep_keys", ["5m", "30d"], ["59s", "31d"]],
  ["timeout", ["100ms", "10s"], ["50ms", "11s"]],
])("%s has bounds", (key, good, bad) => {
  for (const value of good) {
    expect(
      withOne({ refresh: "1m", [key]: value, ...(value === "1d" && { keep_keys: "2d" }) }),
    ).toBe("accepted");
  }
  for (const value of bad)
    expect(withOne({ [key]: value })).toStartWith(`${key}: expected a duration`);
});

test("keys are kept at least until the next time that they are fetched", () => {
  expect(withOne({ refresh: "2h", keep_keys: "1h" })).toBe(
    "keep_keys: expected at least as long as refresh",
  );
});

test.each([
  [{ subject_claim: "" }, "subject_claim: "],
  [{ allow_groups: [] }, "allow_groups: "],
  [{ admin_group: "" }, "admin_group: "],
  [{ require_claims: { typ: [] } }, "require_claims.typ"],
  [{ require_claims: { typ: 1 } }, "require_claims.typ"],
  [{ token_type: "JWT" }, "token_type: "],
  [{ audiences: ["api"] }, ": Unrecognized key"],
])("%j is refused", (config, expected) => {
  expect(withOne(config)).toStartWith(expected);
});

test("what the wizard asks for is enough to start with", () => {
  const ids = plugin.questions?.map(({ id }) => id);
  expect(ids).toEqual(["issuer", "audience"]);
  expect(problems(GOOD)).toEqual([]);
});
