/** `gatehouse doctor --probe` against gates that are wrong on purpose: each fault is found, and graded. */
import { afterEach, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { runBinary } from "../support/binary.ts";
import {
  type BrokenGate,
  brokenGate,
  type Fault,
  GATE_TOKEN,
  type GateOptions,
} from "../support/broken-gate.ts";
import { type Examined, examine, examined } from "../support/doctor.ts";
import { scratch } from "../support/gateway.ts";
import { rawUpstream } from "../support/raw.ts";

const TOKEN = { TOKEN: GATE_TOKEN };
const FAST = ["--rate", "1000", "--token-env", "TOKEN"];

const gates: BrokenGate[] = [];
afterEach(() => {
  for (const gate of gates.splice(0)) gate.stop();
});

function start(options: GateOptions): BrokenGate {
  const gate = brokenGate(options);
  gates.push(gate);
  return gate;
}

function attack(
  gate: BrokenGate,
  args: readonly string[] = FAST,
  path = "/admin",
): Promise<Examined> {
  return examine(["--probe", `${gate.url}${path}`, ...args], { env: TOKEN });
}

/** /public is open; the built-in paths do not name it, a configuration does. */
function configFile(upstreamUrl: string): string {
  const file = join(scratch(), "gatehouse.yaml");
  void Bun.write(
    file,
    `version: 1
strategies: { ops: { use: static-env, env: NOT_NEEDED_HERE } }
upstreams: { api: { url: "${upstreamUrl}" } }
routes:
  - { match: { path: /public/** }, access: public, upstream: api }
  - { match: { path: /** }, access: [ops], upstream: api }
`,
  );
  return file;
}

describe("the gate without a fault", () => {
  test.each([false, true])(
    "is graded A (an upstream that shows what it gets: %p)",
    async (echoes) => {
      const gate = start({ echoes });
      const config = configFile("http://127.0.0.2:1");
      const report = await attack(gate, [...FAST, "-c", config]);
      expect(report.codes("error")).toEqual([]);
      expect(report.codes("warning")).toEqual([]);
      expect(report.grade).toBe("A");
      expect(report.exitCode).toBe(0);
      for (const code of [
        "guarded",
        "challenge",
        "wrong_credential",
        "token_exact",
        "token_single",
        "identity_opens_nothing",
        "spellings_guarded",
        "path_tricks",
        "methods_guarded",
        "headers_open_nothing",
        "headers_lead_nowhere",
        "framing_strict",
        "forms_guarded",
        "cors",
        "errors_quiet",
        "upstream_not_direct",
      ]) {
        expect(report.find(code)?.severity, code).toBe("ok");
      }
      if (echoes) {
        expect(report.find("identity_kept_out")?.severity).toBe("ok");
        expect(report.find("identity_not_removable")?.severity).toBe("ok");
      } else {
        expect(report.find("identity_undecided")?.severity).toBe("info");
      }
    },
  );

  test("gets GET, HEAD and OPTIONS alone, no token in a URL, and every request says who sends it", async () => {
    const gate = start({});
    const report = await attack(gate, [...FAST, "-c", configFile("http://127.0.0.2:1")]);
    expect(new Set(gate.got.map(({ method }) => method))).toEqual(
      new Set(["GET", "HEAD", "OPTIONS"]),
    );
    expect(gate.got.filter(({ target }) => target.includes(GATE_TOKEN))).toEqual([]);
    expect(gate.got.length).toBeLessThan(400);
    expect(report.text).not.toContain(GATE_TOKEN);
    expect(report.text.toLowerCase()).not.toContain(GATE_TOKEN.toLowerCase().slice(0, 12));
    expect(report.find("methods_not_tried")?.next).toContain("--write");
  });

  test("--write sends the others, without the token", async () => {
    const gate = start({});
    await attack(gate, [...FAST, "--write"]);
    const methods = new Set(gate.got.map(({ method }) => method));
    for (const method of ["POST", "PUT", "PATCH", "DELETE", "TRACE"])
      expect(methods).toContain(method);
    const writing = gate.got.filter(({ method }) => !["GET", "HEAD", "OPTIONS"].includes(method));
    expect(writing.filter(({ head }) => head.includes(GATE_TOKEN))).toEqual([]);
  });

  test("without a token what only a token shows is said to be open", async () => {
    const report = await attack(start({}), ["--rate", "1000"]);
    expect(report.find("no_token")?.next).toContain("--token-env");
    expect(report.grade).toBe("A");
  });

  test("a token that does not pass is said, and costs the best grade", async () => {
    const gate = start({});
    const report = await examine(["--probe", `${gate.url}/admin`, ...FAST], {
      env: { TOKEN: "another-token-0123" },
    });
    expect(report.find("token_refused")?.severity).toBe("warning");
    expect(report.grade).toBe("B");
    expect(report.exitCode).toBe(0);
    expect(
      (
        await examine(["--probe", `${gate.url}/admin`, ...FAST, "--strict"], {
          env: { TOKEN: "another-token-0123" },
        })
      ).exitCode,
    ).toBe(3);
  });
});

/** Fault, what is found, with an upstream that shows what it gets or not, the grade. */
const CASES: readonly (readonly [Fault, string, boolean, string])[] = [
  ["open_path", "path_open", false, "F"],
  ["any_credential", "wrong_credential_passes", false, "F"],
  ["case_blind_token", "token_inexact", false, "F"],
  ["first_of_two", "token_ambiguous", false, "C"],
  ["comma_list", "token_inexact", false, "F"],
  ["trusts_identity", "identity_opens", false, "F"],
  ["passes_identity", "identity_forged", true, "F"],
  ["removable_identity", "identity_removable", true, "D"],
  ["believes_identity_behind", "identity_changes_answer", false, "C"],
  ["decodes_after_check", "path_trick", false, "F"],
  ["decodes_after_check", "path_trick", true, "F"],
  ["passes_doubtful_paths", "path_doubtful", true, "C"],
  ["guards_exact_path", "path_spelling_open", false, "F"],
  ["guards_get_only", "method_open", false, "F"],
  ["open_options", "options_open", false, "C"],
  ["echoes_trace", "trace_echoes", false, "D"],
  ["believes_original_url", "header_opens", false, "F"],
  ["believes_health_checkers", "header_opens", false, "F"],
  ["reroutes_behind", "header_reroutes", false, "F"],
  ["open_http_10", "form_open", false, "F"],
  ["open_absolute_form", "form_open", false, "F"],
  ["tunnels_h2c", "form_open", false, "F"],
  ["tunnels_h2c", "h2c_tunnel", false, "F"],
  ["accepts_both_lengths", "framing_lenient", false, "C"],
  ["accepts_two_hosts", "head_lenient", false, "A"],
  ["reflects_origin", "cors_reflects", false, "D"],
  ["shows_stack", "error_stack", false, "B"],
  ["shows_inside", "error_inside", false, "B"],
  ["no_challenge", "challenge_missing", false, "B"],
  ["host_in_location", "host_in_location", false, "B"],
  ["passes_token", "credential_forwarded", true, "B"],
];

describe("each fault alone", () => {
  test.each(CASES)("%s: %s (shows: %p), grade %s", async (fault, code, echoes, grade) => {
    const gate = start({ faults: [fault], echoes });
    const config = configFile("http://127.0.0.2:1");
    const more = fault === "echoes_trace" ? ["--write"] : [];
    const report = await attack(gate, [...FAST, "-c", config, ...more]);
    const found = report.find(code);
    expect(found?.what, report.text).toBeString();
    expect(report.grade).toBe(grade);
    expect(report.exitCode).toBe(report.codes("error").length > 0 ? 3 : 0);
    if (found?.severity !== "info") expect([found?.why, found?.next]).not.toContain(null);
    expect(report.text).not.toContain(GATE_TOKEN);
  });
});

describe("without a configuration", () => {
  test("what nobody guards is graded F", async () => {
    const open = rawUpstream();
    const report = await examine(["--probe", `http://${open.address}`, "--rate", "1000"]);
    expect(report.find("nothing_guarded")?.severity).toBe("error");
    expect(report.grade).toBe("F");
    open.stop();
  });

  test("where nothing is found, that is what is said", async () => {
    const empty = rawUpstream((_, write, close) => {
      write("HTTP/1.1 404 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
      close();
    });
    const report = await examine(["--probe", `http://${empty.address}`, "--rate", "1000"]);
    expect(report.find("nothing_found")?.severity).toBe("info");
    expect(report.exitCode).toBe(0);
    empty.stop();
  });
});

describe("the way around", () => {
  test("an upstream that listens everywhere is reached past the gate; one that does not is not", async () => {
    const gate = start({});
    const exposed = Bun.serve({ hostname: "0.0.0.0", port: 0, fetch: () => new Response("open") });
    const report = await attack(gate, [
      ...FAST,
      "-c",
      configFile(`http://127.0.0.2:${exposed.port}`),
    ]);
    expect(report.find("upstream_direct")?.what).toContain(`port ${exposed.port} (it answers 200)`);
    expect(report.grade).toBe("F");
    await exposed.stop(true);
    const hidden = Bun.serve({ hostname: "127.0.0.2", port: 0, fetch: () => new Response("open") });
    const fine = await attack(gate, [...FAST, "-c", configFile(`http://127.0.0.2:${hidden.port}`)]);
    expect(fine.find("upstream_not_direct")?.severity).toBe("ok");
    await hidden.stop(true);
  });
});

describe("manners", () => {
  test("a redirect is not followed, to wherever it leads", async () => {
    const elsewhere = rawUpstream();
    const gate = start({ faults: ["redirects_away"], away: `http://${elsewhere.address}` });
    await attack(gate, [...FAST, "-c", configFile("http://127.0.0.2:1")]);
    expect(gate.got.some(({ target }) => target === "/")).toBe(true);
    expect(elsewhere.seen).toEqual([]);
    elsewhere.stop();
  });

  test("a public host needs --yes where nobody can be asked", async () => {
    const { code, stderr, stdout } = await runBinary(["doctor", "--probe", "http://198.51.100.7/"]);
    expect(code).toBe(2);
    expect(stderr).toContain("--yes");
    expect(stdout).toBe("");
  });

  test("what is going to be sent is said first", async () => {
    const gate = start({});
    const { stderr } = await runBinary([
      "doctor",
      "--probe",
      `${gate.url}/admin`,
      "--rate",
      "1000",
    ]);
    expect(stderr).toContain(
      `GET, HEAD and OPTIONS; at most 1000 a second) to ${gate.url} and to no other host`,
    );
  });

  test("a chain that falls silent ends the probe, and what was found counts", async () => {
    const gate = start({ faults: ["goes_silent", "open_path"] });
    const child = await runBinary(
      ["doctor", "--probe", `${gate.url}/admin`, "--rate", "1000", "--json"],
      { timeoutMs: 40_000 },
    );
    const report = examined(child.code, child.stdout, child.stderr);
    expect(report.find("probe_ended")?.severity).toBe("warning");
    expect(report.grade).not.toBe("A");
  });

  test.each<[string, readonly string[], string]>([
    ["no URL", ["not a url"], "http:// or https://"],
    ["another scheme", ["ftp://localhost/"], "http:// or https://"],
    ["a credential in the URL", ["http://user:canary-pw@localhost/"], "holds a credential"],
    [
      "both sources of a token",
      ["http://localhost/", "--token-env", "A", "--token-file", "b"],
      "exclude each other",
    ],
    [
      "the token in place of a name",
      ["http://localhost/", "--token-env", "canary-pw$"],
      "name of a variable",
    ],
    ["a variable that is not set", ["http://localhost/", "--token-env", "NOT_SET_HERE"], "not set"],
    ["a file that is not there", ["http://localhost/", "--token-file", "/nonexistent"], "ENOENT"],
    ["a rate of nothing", ["http://localhost/", "--rate", "0"], "--rate"],
  ])("%s is refused with advice", async (_, args, text) => {
    const { code, stderr, stdout } = await runBinary(["doctor", "--probe", ...args]);
    expect(code).toBe(2);
    expect(stderr).toContain(text);
    expect(`${stdout}${stderr}`).not.toContain("canary-pw");
  });

  test("nobody there, and a name that is none, are 69", async () => {
    const down = await runBinary(["doctor", "--probe", "http://127.0.0.1:1/"]);
    expect(down.code).toBe(69);
    const nowhere = await runBinary(["doctor", "--probe", "http://no-such-host.invalid/"]);
    expect(nowhere.code).toBe(69);
    expect(nowhere.stderr).toContain("cannot be found");
  });
});
