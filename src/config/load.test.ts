/** Documents of the wrong shape: every problem at once, where it is, what was expected. */
import { describe, expect, test } from "bun:test";
import { document, loadFine, loadText, problemsOf } from "../../test/support/config.ts";

async function issuesOf(text: string) {
  const { issues, config } = await loadText(text);
  expect(config === null).toBe(issues.length > 0);
  return issues;
}

describe("a key", () => {
  test("that is unknown is shown at the key, with the near one", async () => {
    expect(await issuesOf(document("servr: {}"))).toEqual([
      { path: "servr", line: 3, column: 1, message: "unknown key", hint: "did you mean `server`?" },
    ]);
  });

  test("that is unknown and near to nothing is answered with what is allowed", async () => {
    const [issue] = await issuesOf(document("logging: { colour_scheme: x }"));
    expect(issue).toMatchObject({ path: "logging.colour_scheme", line: 3, column: 12 });
    expect(issue?.hint).toBe("allowed here: level, access, format");
  });

  test("that is unknown inside a union is compared with that object's keys", async () => {
    const [issue] = await issuesOf(document("server: { tls: { crt: a, key: b } }"));
    expect(issue?.hint).toBeString();
    const route = "  - match: { path: /a }\n    access: public\n    identity_headers: { nam: x-a }";
    expect(await issuesOf(document("", route))).toMatchObject([
      { path: "routes[0].identity_headers.nam", line: 7, hint: "did you mean `name`?" },
    ]);
  });

  test("<< is explained, because YAML 1.2 has no merge keys", async () => {
    const [issue] = await issuesOf(document("logging: { <<: { level: info } }"));
    expect(issue?.hint).toBe("merge keys are not part of YAML 1.2");
  });

  test("that is missing is shown at what it is missing from, with its description", async () => {
    const [issue] = await issuesOf(document("upstreams:\n  api: { host: preserve }"));
    expect(issue).toMatchObject({
      path: "upstreams.api.url",
      line: 4,
      column: 3,
      message: "missing: expected text",
    });
    expect(issue?.hint).toContain("http://host:port");
  });

  test("with a bad name is shown at the name", async () => {
    const [issue] = await issuesOf(document("upstreams: { My API: { url: http://x } }"));
    expect(issue).toMatchObject({ path: "upstreams.My API", line: 3, column: 14 });
    expect(issue?.message).toContain("lower-case letters");
  });
});

describe("a value", () => {
  test.each([
    ["logging: { access: yes }", "logging.access: expected true or false, found text"],
    ["logging: { access: 1 }", "logging.access: expected true or false, found a number"],
    ["logging: { level: inf }", "logging.level: expected debug, info, warn or error"],
    ["logging: { level: 5 }", "logging.level: expected debug, info, warn or error, found a number"],
    ["logging: []", "logging: expected a map (key: value), found a list"],
    ["logging:", "logging: expected a map (key: value), found nothing"],
    ["server: { listen: 8008 }", "server.listen: expected text or a list, found a number"],
    ["server: { listen: [] }", "server.listen: expected at least 1 entry"],
    ["server: { listen: [x:1, 5] }", "server.listen[1]: expected text, found a number"],
    ["server: { tls: { cert: 1, key: k } }", "server.tls.cert: expected text, found a number"],
    ["server: { tls: x }", "server.tls: expected a map (key: value) or a list, found text"],
    ['server: { listen: "" }', "server.listen: expected text that is not empty"],
    [
      "server: { drain: 30 }",
      "server.drain: expected a duration such as 500ms, 30s, 5m, 24h or 30d, found a number",
    ],
    [
      "server: { drain: 5 minutes }",
      "server.drain: expected a duration such as 500ms, 30s, 5m, 24h or 30d",
    ],
    [
      "server: { limits: { head: 1000 } }",
      "server.limits.head: expected a size such as 64KiB, 10MiB or 1GB, found a number",
    ],
    [
      "server: { limits: { connections: 1.5 } }",
      "server.limits.connections: expected a whole number, found a number",
    ],
    ["server: { limits: { connections: 0 } }", "server.limits.connections: expected at least 1"],
    [
      "server: { limits: { connections: 9999999 } }",
      "server.limits.connections: expected at most 1000000",
    ],
    ["server: { health_path: healthz }", "server.health_path: expected text that starts with /"],
    [
      "upstreams: { api: { url: http://x, max_body: lots } }",
      "upstreams.api.max_body: expected a size such as 64KiB, 10MiB or 1GB",
    ],
    [
      "upstreams: { api: { url: http://x, headers: { x_y: a } } }",
      "upstreams.api.headers.x_y: expected a header name (letters, digits and -; no underscore)",
    ],
    ["upstreams: [a]", "upstreams: expected a map (key: value), found a list"],
  ])("of the wrong kind is refused: %s", async (line, problem) => {
    expect(await problemsOf(document(line))).toEqual([problem]);
  });

  test.each([
    ["version: 2\nroutes: [{ match: { path: / }, access: public }]", ["version: expected 1"]],
    [
      "version: '1'\nroutes: [{ match: { path: / }, access: public }]",
      ["version: expected 1, found text"],
    ],
    ["version: 1\nroutes: []", ["routes: expected at least one route"]],
    ["version: 1", ["routes: missing: expected a list"]],
    ["- version: 1", ["expected a map (key: value), found a list"]],
    ["just text", ["expected a map (key: value), found text"]],
    ["version: 1\nroutes: [5]", ["routes[0]: expected a map (key: value), found a number"]],
    [
      "version: 1\nroutes: [{ match: { path: / }, access: 5 }]",
      ["routes[0].access: expected public or a list of strategies, found a number"],
    ],
    [
      "version: 1\nroutes: [{ match: { path: / } }]",
      ["routes[0].access: missing: expected public or a list of strategies"],
    ],
  ])("%j has the problems %j", async (text, problems) => {
    expect(await problemsOf(text)).toEqual(problems);
  });

  test("that is nearly a choice is answered with the choice", async () => {
    const [issue] = await issuesOf(document("logging: { level: wran }"));
    expect(issue).toMatchObject({ line: 3, column: 19, hint: "did you mean `warn`?" });
  });

  test("that says yes is told about YAML 1.2", async () => {
    const [issue] = await issuesOf(document("logging: { access: yes }"));
    expect(issue?.hint).toBe("in YAML 1.2 only true and false are not text");
  });

  test("is never repeated, wherever a secret may have been put", async () => {
    const canary = "canary-5d1e";
    const places = [
      `state_dir: [${canary}]`,
      `logging: { level: ${canary} }`,
      `logging: { access: ${canary} }`,
      `server: { listen: ${canary} }`,
      `server: { drain: ${canary} }`,
      `server: { public_url: ${canary} }`,
      `server: { trusted_proxies: [${canary}] }`,
      `upstreams: { api: { url: "http://u:${canary}@x" } }`,
      `upstreams: { api: { url: ${canary}, max_body: ${canary} } }`,
      `upstreams: { api: { url: http://x, headers: { authorization: ${canary} } } }`,
      `upstreams: { api: { url: http://x, headers: { x-key: "\${${canary}}" } } }`,
    ];
    for (const line of places) {
      const issues = await issuesOf(document(line));
      expect(issues.length).toBeGreaterThan(0);
      expect(JSON.stringify(issues)).not.toContain(canary);
    }
  });
});

test("problems of every layer are reported together, in the order of the file", async () => {
  const text = `version: 1
server: { listen: nonsense, drian: 5s }
strategies: { team: { use: plain, extra: 1 }, gone: { use: nope } }
upstreams: { api: { url: "ftp://x", timeouts: { connect: 5 }, headers: { authorization: x } } }
routes:
  - match: { path: /a* }
    access: [teem]
    upstream: api
  - match: { path: /b }
    access: public
    require: { role: admin }
`;
  expect(await problemsOf(text)).toEqual([
    "server.listen: expected host:port, [ipv6]:port, :port or unix:/path",
    "server.drian: unknown key",
    "strategies.team.extra: unknown key",
    "strategies.gone.use: there is no plugin nope",
    "upstreams.api.url: expected http://host:port or https://host",
    "upstreams.api.timeouts.connect: expected a duration such as 500ms, 30s, 5m, 24h or 30d, found a number",
    "upstreams.api.headers.authorization: a secret is not written into this file",
    "routes[0].match.path: * and ** stand for whole segments: /v1/* or /v1/**, not /v1*",
    "routes[0].access[0]: unknown strategy `teem`",
    "routes[1].require: a public route has no identity that could satisfy this",
  ]);
});

test("loading does not depend on the process: the same text and variables give the same configuration", async () => {
  const [a, b] = [await loadFine(document()), await loadFine(document())];
  expect(a).toEqual(b);
  expect(Object.isFrozen(a)).toBe(true);
});
