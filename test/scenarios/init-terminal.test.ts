/**
 * `gatehouse init` in a real pseudo-terminal: the interview from its first question to a guarded server and back, and
 * every way to leave it.
 *
 * Invariant: whoever leaves, at whatever question or step, leaves nothing behind.
 */
import { afterAll, afterEach, beforeEach, describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { binaryPath, runBinary, startBinary } from "../support/binary.ts";
import {
  freePort,
  type InitPlace,
  initJson,
  initPlace,
  initTerminal,
  runInit,
} from "../support/init.ts";
import type {
  InterviewOrder,
  InterviewResult,
  InterviewStep,
} from "../support/interview.fixture.ts";
import { inOwnNetwork, NO_OWN_NETWORK } from "../support/network.ts";
import { newKey } from "../support/nostr.ts";
import { ollamaStandIn } from "../support/standins/ollama.ts";
import { KEYS, type TerminalProgram } from "../support/terminal.ts";

const upstream = ollamaStandIn();
afterAll(() => upstream.stop());

let place: InitPlace;
let before: readonly string[];
beforeEach(() => {
  place = initPlace();
  before = place.tree();
});
afterEach(() => place.remove());

/** A question and what is typed then. */
type Step = readonly [question: string, ...keys: string[]];

async function answer(program: TerminalProgram, steps: readonly Step[]): Promise<void> {
  for (const [question, ...keys] of steps) {
    await program.waitFor(question);
    program.type(...keys);
  }
}

const dirArgs = (): readonly string[] => ["--dir", place.dir, "--no-service"];

/** On a machine of their own, where only these servers listen. */
async function interviewedAll(
  servers: Readonly<Record<string, number>>,
  all: readonly { readonly place: InitPlace; readonly steps: readonly InterviewStep[] }[],
  env: Readonly<Record<string, string>> = {},
): Promise<readonly InterviewResult[]> {
  const binary = await binaryPath();
  const interviews = all.map(({ place: { dir, home, env: own }, steps }) => ({
    command: [binary, "init", "--dir", dir],
    cwd: home,
    env: { ...own, ...env },
    steps,
  }));
  const order: InterviewOrder = { servers, interviews };
  const fixture = join(import.meta.dir, "../support/interview.fixture.ts");
  const said = await inOwnNetwork([process.execPath, fixture, JSON.stringify(order)]);
  return JSON.parse(said) as InterviewResult[];
}

async function interviewed(
  servers: Readonly<Record<string, number>>,
  steps: readonly InterviewStep[],
  env: Readonly<Record<string, string>> = {},
): Promise<InterviewResult> {
  const [result] = await interviewedAll(servers, [{ place, steps }], env);
  if (result === undefined) throw new Error("no result");
  return result;
}

const { npub } = newKey();

/** What a listing shows and what is typed: every question that can be asked where there is no systemd. */
const EVERY_QUESTION: readonly InterviewStep[] = [
  {
    question: "What should be guarded?",
    pick: ["Dexto at http://127.0.0.1:3001", "Another address"],
  },
  {
    question: "Dexto wants a key of its own. Which one?",
    keys: ["the-upstreams-own-key-0123", "enter"],
  },
  { question: "Where does it listen?", keys: ["clear", "localhost:11434", "enter"] },
  { question: "is http:// missing?", keys: ["clear", "http://127.0.0.1:9", "enter"] },
  { question: "does not answer (ECONNREFUSED). Guard it all the same?", keys: ["n"] },
  { question: "Where does it listen?", keys: ["clear", "http://127.0.0.1:11434", "enter"] },
  // Tokens, Nostr keys, and the static token.
  { question: "Who may enter?", pick: ["Tokens", "Nostr keys", "One static token"] },
  { question: "Which npub is the admin's?", keys: ["nsec1nope", "enter"] },
  { question: "expected a public key", keys: ["clear", npub, "enter"] },
  { question: "Which environment variable holds the token?", keys: ["enter"] },
  { question: "Where do clients connect from?", keys: ["down", "enter"] },
  { question: "Under which address do clients reach it?", keys: ["llm.example.com", "enter"] },
  { question: "is taken by", keys: [] },
  { question: "Where should the gateway listen?", keys: ["enter"] },
  { question: "Under which host name is Dexto", keys: ["enter"] },
  { question: "Under which host name is Ollama", keys: ["enter"] },
  { question: "Make it, and prove that it holds?", keys: ["enter"] },
];
const EVERY_SERVER = { ollama: 11434, dexto: 3001, routstrd: 8008 };

if (NO_OWN_NETWORK !== null) {
  test(`with a look at what listens here (not run: ${NO_OWN_NETWORK})`, () => {});
} else {
  describe("with a look at what listens here", () => {
    test("a model server in its usual place is guarded with three times Enter", async () => {
      const { code, text, written } = await interviewed({ ollama: 11434 }, [
        { question: "What should be guarded?", pick: ["Ollama at http://127.0.0.1:11434"] },
        { question: "Who may enter?", keys: ["enter"] },
        { question: "Where do clients connect from?", keys: ["enter"] },
        { question: "Make it, and prove that it holds?", keys: ["enter"] },
      ]);
      expect(text).toContain("Grade A: nothing was found that anybody could use");
      expect(code).toBe(0);
      expect(written).toMatch(/export GATEHOUSE_TOKEN=gate_/);
      expect(readFileSync(join(place.dir, "config.yaml"), "utf8")).toContain(
        "listen: 127.0.0.1:8008",
      );
    });

    test("everything that it knows is recognised", async () => {
      const servers = {
        ...{ ollama: 11434, vllm: 8000, "llama-cpp": 8080, "lm-studio": 1234, dexto: 3001 },
        ...{
          anvil: 8001,
          authsome: 7998,
          "open-webui": 3000,
          routstrd: 8008,
          plain: 9000,
          openai: 9001,
        },
      };
      const { code, written } = await interviewed(servers, [
        { question: "What should be guarded?" },
        { question: "Another address", keys: ["ctrlC"] },
      ]);
      expect(code).toBe(1);
      for (const [title, port] of [
        ...[
          ["Ollama", 11434],
          ["vLLM", 8000],
          ["llama.cpp", 8080],
          ["LM Studio", 1234],
          ["Dexto", 3001],
        ],
        ...[
          ["anvil-serving", 8001],
          ["Authsome", 7998],
          ["Open WebUI", 3000],
          ["routstrd", 8008],
        ],
        ...[
          ["an HTTP service", 9000],
          ["an OpenAI-compatible server", 9001],
        ],
      ]) {
        expect(written).toContain(`${title} at http://127.0.0.1:${port}`);
      }
    });

    test("every question that there is, with wrong answers in between", async () => {
      const { code, text } = await interviewed(EVERY_SERVER, EVERY_QUESTION, {
        GATEHOUSE_TOKEN: "a-token-that-i-have-already",
      });
      expect(text).toContain("Grade A");
      expect(code).toBe(0);
      const config = readFileSync(join(place.dir, "config.yaml"), "utf8");
      expect(config).toContain("public_url: https://llm.example.com");
      expect(config).toContain(`admins: [${npub}]`);
      expect(config).toContain("listen: 127.0.0.1:8009");
      expect(config).toContain("host: ollama.llm.example.com");
    });

    test("Ctrl-C at each of them leaves nothing behind", async () => {
      const all = EVERY_QUESTION.map(({ question }, index) => ({
        place: initPlace(),
        steps: [...EVERY_QUESTION.slice(0, index), { question, keys: ["ctrlC"] }],
      }));
      const trees = all.map((one) => one.place.tree());
      const results = await interviewedAll(EVERY_SERVER, all);
      for (const [index, { code, text }] of results.entries()) {
        const { question } = EVERY_QUESTION[index] ?? { question: "" };
        const tree = all[index]?.place.tree();
        expect({ question, code, tree }).toEqual({ question, code: 1, tree: trees[index] ?? [] });
        expect(text).toContain("stopped; nothing was changed");
      }
      expect(results).toHaveLength(EVERY_QUESTION.length);
      for (const one of all) one.place.remove();
    });

    test("read aloud: numbers and lines, with wrong answers in between", async () => {
      const steps = [
        { question: "Ollama at http://127.0.0.1:11434" },
        { question: "Numbers, with commas [1]:", keys: ["\n"] },
        { question: "5) OpenID Connect" },
        { question: "Numbers, with commas [1]:", keys: ["9\n"] },
        { question: "numbers from 1 to 5, such as 1,2", keys: ["1,2\n"] },
        { question: "Which npub is the admin's?", keys: ["npub1\n"] },
        { question: "expected a public key", keys: [`${npub}\n`] },
        { question: "3) Anywhere (with TLS files of yours)", keys: ["2\n"] },
        { question: "reach it? [https://]", keys: ["https://llm.example.com\n"] },
        { question: "Make it, and prove that it holds? [Y/n]", keys: ["what\n"] },
        { question: "y or n", keys: ["n\n"] },
      ];
      const { code, text } = await interviewed({ ollama: 11434 }, steps, { ACCESSIBLE: "1" });
      expect(text).toContain("nothing was made");
      expect(code).toBe(1);
      expect(place.tree()).toEqual(before);
    });

    test("where nothing listens one is asked for it at once", async () => {
      const { code, text } = await interviewed({}, [
        { question: "Where does it listen?", keys: ["ctrlC"] },
      ]);
      expect(text).not.toContain("What should be guarded?");
      expect(code).toBe(1);
    });
  });
}

describe("from the first question to a guarded server and back", () => {
  test("and the token lets one in until it is undone", async () => {
    const program = await initTerminal(place, [
      ...dirArgs(),
      "--upstream",
      upstream.url,
      "--listen",
      "127.0.0.1:0",
    ]);
    await program.waitFor("Who may enter?");
    program.type(KEYS.enter);
    await program.waitFor(`Guard ollama (${upstream.url})`);
    await answer(program, [["Make it, and prove that it holds?", KEYS.enter]]);
    await program.waitFor("Grade A: nothing was found that anybody could use");
    await program.waitFor("take it all away");
    expect(await program.ended).toBe(0);

    const token = /export GATEHOUSE_TOKEN=(gate_\w+)/.exec(program.written())?.[1] ?? "";
    const config = join(place.dir, "config.yaml");
    const gateway = await startBinary(["serve", "-c", config], { env: place.env });
    const seen = upstream.seen.length;
    expect((await fetch(`${gateway.url}/api/version`)).status).toBe(401);
    expect(upstream.seen).toHaveLength(seen);
    const headers = { authorization: `Bearer ${token}` };
    expect((await fetch(`${gateway.url}/api/version`, { headers })).status).toBe(200);

    const early = await runInit(place, "--undo", "--yes", "--dir", place.dir);
    expect(early).toMatchObject({ code: 69 });
    expect(early.stderr).toContain(`in use by process ${gateway.pid}`);
    await gateway.stop();

    const undo = await initTerminal(place, ["--undo", "--dir", place.dir]);
    await answer(undo, [["Remove them?", "y"]]);
    expect(await undo.ended).toBe(0);
    expect(place.tree()).toEqual(before);
  });
});

describe("left otherwise, nothing is left behind", () => {
  test("Escape, SIGTERM, a window that is closed", async () => {
    for (const leave of [
      (program: TerminalProgram) => program.type(KEYS.escape),
      (program: TerminalProgram) => program.signal("SIGTERM"),
      (program: TerminalProgram) => program.hangUp(),
    ]) {
      const program = await initTerminal(place, [...dirArgs(), "--upstream", upstream.url]);
      await program.waitFor("Who may enter?");
      leave(program);
      expect(await program.ended).toBe(1);
      expect(place.tree()).toEqual(before);
    }
  });

  test("a no at the end", async () => {
    const program = await initTerminal(place, [
      ...dirArgs(),
      "--upstream",
      upstream.url,
      "--listen",
      "127.0.0.1:0",
    ]);
    await answer(program, [
      ["Who may enter?", KEYS.enter],
      ["Make it, and prove that it holds?", "n"],
    ]);
    expect(await program.ended).toBe(1);
    expect(program.text()).toContain("nothing was made");
    expect(place.tree()).toEqual(before);
  });
});

describe("left while it works, what was made is taken away", () => {
  for (const [title, leave] of [
    ["Ctrl-C", (program: TerminalProgram) => program.type(KEYS.ctrlC)],
    ["SIGTERM", (program: TerminalProgram) => program.signal("SIGTERM")],
    ["a window that is closed", (program: TerminalProgram) => program.hangUp()],
  ] as const) {
    test(`${title} in the middle of the proof`, async () => {
      const asked = Promise.withResolvers<void>();
      // Answers while it is looked at, and is silent when the proof comes with a token.
      const slow = Bun.serve({
        hostname: "127.0.0.1",
        port: 0,
        idleTimeout: 0,
        fetch(request) {
          if (request.headers.get("x-gatehouse-identity") === null)
            return new Response("Ollama is running");
          asked.resolve();
          return new Promise<Response>(() => {});
        },
      });
      const url = `http://127.0.0.1:${slow.port}`;
      const program = await initTerminal(place, [
        ...dirArgs(),
        "--upstream",
        url,
        "--listen",
        "127.0.0.1:0",
      ]);
      await answer(program, [
        ["Who may enter?", KEYS.enter],
        ["Make it, and prove that it holds?", KEYS.enter],
      ]);
      await asked.promise;
      expect(place.tree().length).toBeGreaterThan(before.length);
      leave(program);
      expect(await program.ended).toBe(1);
      expect(place.tree()).toEqual(before);
      await slow.stop(true);
    });
  }
});

describe("on a terminal that is", () => {
  const through = async (program: TerminalProgram): Promise<void> => {
    await answer(program, [
      ["Who may enter?", KEYS.enter],
      ["Make it, and prove that it holds?", KEYS.enter],
    ]);
    await program.waitFor("take it all away");
    expect(await program.ended).toBe(0);
  };
  const args = (): readonly string[] => [
    ...dirArgs(),
    "--upstream",
    upstream.url,
    "--listen",
    "127.0.0.1:0",
  ];

  test("40 columns wide: only what is to be pasted is longer", async () => {
    const program = await initTerminal(place, args(), { columns: 40 });
    await through(program);
    const long = program
      .overflowing()
      .filter((line) => !/export |curl |"|^\/|claude |\/gate\//.test(line));
    expect(long).toEqual([]);
  });

  test("without colours, whoever asks for that", async () => {
    for (const [env, more] of [
      [{ NO_COLOR: "1" }, []],
      [{ TERM: "dumb" }, []],
    ] as const) {
      const program = await initTerminal(place, [...args(), ...more], { env });
      await through(program);
      expect(program.written()).not.toMatch(/\u001b\[[0-9;]*m/);
      await runInit(place, "--undo", "--yes", "--dir", place.dir);
    }
  });

  test("dumb: nothing moves the cursor", async () => {
    const program = await initTerminal(place, args(), { env: { TERM: "dumb" } });
    await through(program);
    expect(program.written()).not.toMatch(/\u001b\[\d*[ABCDJ]/);
  });

  test("read aloud, and left with Ctrl-C or the end of the input", async () => {
    for (const key of [KEYS.ctrlC, "\u0004"]) {
      const program = await initTerminal(place, [...dirArgs(), "--upstream", upstream.url], {
        env: { ACCESSIBLE: "1" },
      });
      await answer(program, [["Numbers, with commas [1]:", key]]);
      expect(await program.ended).toBe(1);
      expect(program.text()).toContain("stopped; nothing was changed");
      expect(place.tree()).toEqual(before);
    }
  });

  test("of a CI job", async () => {
    await through(await initTerminal(place, args(), { env: { CI: "true" } }));
  });
});

describe("run again, it offers to change", () => {
  beforeEach(async () => {
    await initJson(place, "--upstream", upstream.url, "--listen", "127.0.0.1:0");
  });
  const config = (): string => readFileSync(join(place.dir, "config.yaml"), "utf8");

  test("nothing", async () => {
    const there = place.tree();
    const program = await initTerminal(place, dirArgs());
    await answer(program, [["What should change?", KEYS.up, KEYS.enter]]);
    await program.waitFor("Nothing was changed");
    expect(await program.ended).toBe(0);
    expect(place.tree()).toEqual(there);
  });

  test("another token", async () => {
    const program = await initTerminal(place, dirArgs());
    await answer(program, [
      ["What should change?", KEYS.down, KEYS.enter],
      ["What or who is it for?", "laptop", KEYS.enter],
    ]);
    await program.waitFor("export GATEHOUSE_TOKEN=gate_");
    expect(await program.ended).toBe(0);
    const { stdout } = await runBinary(
      ["token", "list", "-c", join(place.dir, "config.yaml"), "--json"],
      { env: place.env },
    );
    expect(
      JSON.parse(stdout)
        .map((one: { name: string }) => one.name)
        .sort(),
    ).toEqual(["first", "laptop"]);
  });

  test("another address, after a look at the difference; the old text is kept", async () => {
    const old = config();
    const port = await freePort();
    const program = await initTerminal(place, dirArgs());
    await answer(program, [
      ["What should change?", KEYS.down, KEYS.down, KEYS.enter],
      ["Where should the gateway listen?", KEYS.clear, `127.0.0.1:${port}`, KEYS.enter],
      [`+  listen: 127.0.0.1:${port}`, ""],
      ["Write it?", KEYS.enter],
    ]);
    expect(await program.ended).toBe(0);
    expect(config()).toBe(old.replace(/listen: .*/, `listen: 127.0.0.1:${port}`));
    const backup =
      place
        .tree()
        .find((line) => line.includes(".bak"))
        ?.split(" ")[0] ?? "";
    expect(readFileSync(join(place.home, backup), "utf8")).toBe(old);
    await runInit(place, "--undo", "--yes", "--dir", place.dir);
    expect(place.tree()).toEqual(before);
  });

  test("Ctrl-C at each of its questions", async () => {
    const there = place.tree();
    const port = await freePort();
    const steps: readonly Step[] = [
      ["What should change?", KEYS.down, KEYS.down, KEYS.enter],
      ["Where should the gateway listen?", KEYS.clear, `127.0.0.1:${port}`, KEYS.enter],
      ["Write it?", KEYS.enter],
    ];
    for (const [index, [question]] of steps.entries()) {
      const program = await initTerminal(place, dirArgs());
      await answer(program, steps.slice(0, index));
      await program.waitFor(question);
      program.type(KEYS.ctrlC);
      expect(await program.ended).toBe(1);
      expect(place.tree()).toEqual(there);
    }
  });

  test("take it away", async () => {
    const program = await initTerminal(place, dirArgs());
    await answer(program, [
      ["What should change?", KEYS.up, KEYS.up, KEYS.enter],
      ["Remove them?", "y"],
    ]);
    expect(await program.ended).toBe(0);
    expect(place.tree()).toEqual(before);
  });
});
