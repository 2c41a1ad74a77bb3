/**
 * `gatehouse init` in a real pseudo-terminal: the interview from its first question to a guarded server and back, and
 * every way to leave it.
 *
 * Invariant: whoever leaves, at whatever question or step, leaves nothing behind.
 */
import { afterAll, afterEach, beforeEach, describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { runBinary, startBinary } from "../support/binary.ts";
import {
  freePort,
  type InitPlace,
  initJson,
  initPlace,
  initTerminal,
  runInit,
} from "../support/init.ts";
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

/** Lines of a question's choices as they stand on the screen. */
function choices(program: TerminalProgram): readonly string[] {
  return program
    .text()
    .split("\n")
    .filter((line) => /^│\s+[◻◼○●]/.test(line))
    .map((line) => line.slice(1).trim());
}

/** Chooses exactly one of several. */
async function pick(program: TerminalProgram, label: string): Promise<void> {
  const listed = choices(program);
  const wanted = listed.findIndex((line) => line.includes(label));
  if (wanted === -1) throw new Error(`no ${label} in\n${program.text()}`);
  // The first is chosen already.
  if (wanted === 0) return program.type(KEYS.enter);
  program.type(
    KEYS.space,
    ...Array.from({ length: wanted }, () => KEYS.down),
    KEYS.space,
    KEYS.enter,
  );
}

/** A question and what is typed then. */
type Step = readonly [question: string, ...keys: string[]];

async function answer(program: TerminalProgram, steps: readonly Step[]): Promise<void> {
  for (const [question, ...keys] of steps) {
    await program.waitFor(question);
    program.type(...keys);
  }
}

const dirArgs = (): readonly string[] => ["--dir", place.dir, "--no-service"];

describe("from the first question to a guarded server and back", () => {
  test("with nothing said beforehand", async () => {
    const port = await freePort();
    const program = await initTerminal(place, [...dirArgs(), "--listen", `127.0.0.1:${port}`]);
    await program.waitFor("What should be guarded?");
    await program.waitFor("Another address");
    await pick(program, upstream.url);
    await answer(program, [["Who may enter?", KEYS.enter]]);
    await program.waitFor(`Guard ollama (${upstream.url})`);
    await answer(program, [["Make it, and prove that it holds?", KEYS.enter]]);
    await program.waitFor("Grade A: guarded, nothing to mend");
    await program.waitFor("take it all away");
    expect(await program.ended).toBe(0);

    const token =
      /export GATEHOUSE_TOKEN=(\S+)/.exec(program.text().replaceAll("\n", ""))?.[1]?.slice(0, 56) ??
      "";
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

  test("every question: another address, all ways in, a proxy in front", async () => {
    const { npub } = newKey();
    const port = await freePort();
    const program = await initTerminal(place, ["--dir", place.dir], {
      env: { GATEHOUSE_TOKEN: "a-token-of-mine" },
    });
    await answer(program, longInterview(npub, port).slice(0, -1));
    await answer(program, [["Make it, and prove", KEYS.enter]]);
    // The proxy's address is a name that leads nowhere; what is proven is asked of the listener itself.
    await program.waitFor("Grade A");
    expect(await program.ended).toBe(0);
    const text = readFileSync(join(place.dir, "config.yaml"), "utf8");
    expect(text).toContain("public_url: https://llm.example.com");
    expect(text).toContain(`admins: [${npub}]`);
  });
});

/** All questions that this machine can be asked, but for those of a Valkey that is not there. */
function longInterview(npub: string, port: number): readonly Step[] {
  const [, , taken = ""] = upstream.url.split(":");
  return [
    ["Another address", ...onlyTheLast()],
    ["Where does it listen?", KEYS.clear, "localhost:11434", KEYS.enter],
    ["is http:// missing?", KEYS.clear, "http://127.0.0.1:9", KEYS.enter],
    ["does not answer (ECONNREFUSED). Guard it all the same?", "n"],
    ["Where does it listen?", KEYS.clear, upstream.url, KEYS.enter],
    // Tokens, Nostr keys, and the static token.
    ["Who may enter?", KEYS.down, KEYS.space, KEYS.down, KEYS.down, KEYS.space, KEYS.enter],
    ["Which npub is the admin's?", "nsec1nope", KEYS.enter],
    ["expected a public key", KEYS.clear, npub, KEYS.enter],
    ["Which environment variable holds the token?", KEYS.enter],
    ["Where do clients connect from?", KEYS.down, KEYS.enter],
    ["Under which address do clients reach it?", "llm.example.com", KEYS.enter],
    ...portSteps(taken, port),
    ["Make it, and prove that it holds?", KEYS.enter],
  ];
}

/** The usual port may be taken by whoever else tests here. */
function portSteps(_taken: string, _port: number): readonly Step[] {
  return [];
}

/** Takes the choice of the first away and chooses the last. */
function onlyTheLast(): readonly string[] {
  return [KEYS.space, KEYS.up, KEYS.space, KEYS.enter];
}

describe("left at any question, nothing is left behind", () => {
  const { npub } = newKey();
  const steps = longInterview(npub, 0);
  for (const [index, [question]] of steps.entries()) {
    test(`Ctrl-C at “${question}”`, async () => {
      const program = await initTerminal(place, ["--dir", place.dir]);
      await answer(program, steps.slice(0, index));
      await program.waitFor(question);
      program.type(KEYS.ctrlC);
      expect(await program.ended).toBe(1);
      expect(program.text()).toContain("stopped; nothing was changed");
      expect(place.tree()).toEqual(before);
    });
  }

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
