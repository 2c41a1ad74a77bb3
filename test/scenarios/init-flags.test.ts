/**
 * `gatehouse init` without a terminal: flags, answers from a file, its one JSON object, and what goes wrong.
 *
 * Invariant: whatever fails leaves the place as it was; what succeeds serves with the command that it names.
 */
import { afterAll, afterEach, beforeEach, describe, expect, test } from "bun:test";
import { chmodSync, existsSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { runBinary, startBinary } from "../support/binary.ts";
import {
  codesOf,
  freePort,
  type InitPlace,
  initJson,
  initPlace,
  runInit,
  runInitAsUser,
} from "../support/init.ts";
import { eventually } from "../support/raw.ts";
import { ollamaStandIn } from "../support/standins/ollama.ts";

const upstream = ollamaStandIn();
afterAll(() => upstream.stop());

let place: InitPlace;
beforeEach(() => {
  place = initPlace();
});
afterEach(() => place.remove());

/** Fails like that, and nothing of it is left. */
async function fails(
  args: readonly string[],
  wanted: { code: number; says: readonly string[] },
): Promise<void> {
  const before = place.tree();
  const { code, stdout, stderr } = await runInit(place, ...args);
  for (const text of wanted.says) expect(stderr).toContain(text);
  expect({ code, stdout }).toEqual({ code: wanted.code, stdout: "" });
  expect(place.tree()).toEqual(before);
}

/** A gateway started as it was pasted. */
async function served(start: string, url: string): Promise<{ stop(): Promise<void> }> {
  const child = Bun.spawn(["sh", "-c", `exec ${start}`], {
    env: { ...place.env },
    stdout: "pipe",
    stderr: "inherit",
  });
  const reader = child.stdout.getReader();
  let said = "";
  while (!said.includes("server.listening")) {
    const { done, value } = await reader.read();
    if (done) throw new Error(`it ended before it served ${url}: ${said}`);
    said += new TextDecoder().decode(value);
  }
  return {
    async stop() {
      child.kill();
      await child.exited;
    },
  };
}

describe("init --yes --json", () => {
  test("answers with one object, and the command that it names serves with that token alone", async () => {
    const answer = await initJson(place, "--upstream", upstream.url, "--listen", "127.0.0.1:0");
    expect(answer).toMatchObject({ config: join(place.dir, "config.yaml"), grade: "A" });
    expect(answer.token).toMatch(/^gate_/);
    expect(answer.token).toContain(answer.id ?? "no id");
    expect(codesOf(answer)).toEqual([
      "refused",
      "refused",
      "let_through",
      "closed",
      "upstream_hidden",
    ]);
    const gateway = await served(answer.start, answer.url);
    try {
      const seen = upstream.seen.length;
      expect((await fetch(`${answer.url}/api/version`)).status).toBe(401);
      expect(upstream.seen).toHaveLength(seen);
      const headers = { authorization: `Bearer ${answer.token}` };
      expect((await fetch(`${answer.url}/api/version`, { headers })).status).toBe(200);
    } finally {
      await gateway.stop();
    }
  });

  test("writes what the compiled executable calls right, for its owner alone, and the token nowhere", async () => {
    const answer = await initJson(place, "--upstream", upstream.url, "--listen", "127.0.0.1:0");
    const { code, stdout } = await runBinary(["config", "validate", "-c", answer.config], {
      env: place.env,
    });
    expect({ code, stdout }).toMatchObject({ code: 0 });
    const text = readFileSync(answer.config, "utf8");
    expect(text.split("\n")[0]).toBe("# yaml-language-server: $schema=./gatehouse.schema.json");
    expect(
      JSON.parse(readFileSync(join(place.dir, "gatehouse.schema.json"), "utf8")),
    ).toMatchObject({
      title: "Gatehouse configuration",
    });
    const mode = (path: string): string => (statSync(path).mode & 0o777).toString(8);
    expect(mode(place.dir)).toBe("700");
    expect(mode(answer.config)).toBe("600");
    expect(mode(join(place.dir, "state"))).toBe("700");
    expect(mode(join(place.dir, "state", "gatehouse.db"))).toBe("600");
    const secret = answer.token?.slice(-20) ?? "";
    const found = Bun.spawnSync(["grep", "-rlaF", secret, place.home]).stdout.toString();
    expect(found).toBe("");
  });

  test("in the usual place of a user", async () => {
    const args = ["--yes", "--no-service", "--upstream", upstream.url, "--listen", "127.0.0.1:0"];
    const ran = await runInitAsUser(place, ...args, "--json");
    if (ran === null) return console.log("not run: there is no setpriv");
    expect({ code: ran.code, stderr: ran.stderr }).toEqual({ code: 0, stderr: "" });
    expect(JSON.parse(ran.stdout)).toMatchObject({
      config: join(place.home, "config/gatehouse/config.yaml"),
      state: join(place.home, "state/gatehouse"),
    });
  });

  test("a second time changes nothing, shows no token and says so", async () => {
    const first = await initJson(place, "--upstream", upstream.url, "--listen", "127.0.0.1:0");
    const before = place.tree();
    const again = await initJson(place, "--upstream", upstream.url, "--listen", first.url.slice(7));
    expect(again).toMatchObject({
      changed: false,
      token: null,
      config: first.config,
      start: first.start,
    });
    expect(place.tree()).toEqual(before);
  });
});

describe("answers from a file", () => {
  test("in YAML, with everything said", async () => {
    const port = await freePort();
    const file = place.write(
      "answers.yaml",
      `upstreams:
  - { url: "${upstream.url}", name: models, preset: ollama }
access: [tokens, static]
token: { name: ci, role: admin, expires: 30d }
listen: 127.0.0.1:${port}
service: none
`,
    );
    const { code, stdout, stderr } = await runInit(
      place,
      "--answers",
      file,
      "--dir",
      place.dir,
      "--json",
    );
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    const answer = JSON.parse(stdout);
    expect(answer).toMatchObject({ url: `http://127.0.0.1:${port}`, grade: "A" });
    expect(answer.access).toEqual([
      { name: "team", use: "bearer-sqlite" },
      { name: "ops", use: "static-env" },
    ]);
    const shown = await runBinary(["token", "show", "ci", "-c", answer.config, "--json"], {
      env: place.env,
    });
    const record = JSON.parse(shown.stdout);
    expect(record).toMatchObject({ name: "ci", role: "admin" });
    expect(record.expires_at).toBeString();
    const secret = join(place.dir, "secrets", "ops-token");
    expect((statSync(secret).mode & 0o777).toString(8)).toBe("600");
  });

  test("in JSON; a flag goes before it", async () => {
    const file = place.write(
      "answers.json",
      JSON.stringify({ upstreams: [{ url: upstream.url }], listen: "127.0.0.1:1" }),
    );
    const { stdout } = await runInit(
      place,
      ...["--answers", file, "--dir", place.dir, "--listen", "127.0.0.1:0", "--json"],
    );
    expect(JSON.parse(stdout).url).not.toBe("http://127.0.0.1:1");
  });

  test("unknown keys are errors with their place and the near name", async () => {
    const file = place.write(
      "answers.yaml",
      "upstreams:\n  - ulr: http://127.0.0.1:1\nlisen: 127.0.0.1:1\n",
    );
    await fails(["--answers", file], {
      code: 2,
      says: [
        `${file}:2:5: upstreams[0].ulr: unknown key`,
        "did you mean `url`?",
        `${file}:3:1: lisen`,
        "`listen`",
      ],
    });
  });

  test("one that is not there, one that is no map, a value that is wrong", async () => {
    await fails(["--answers", "nowhere.yaml"], { code: 2, says: ["nowhere.yaml does not exist"] });
    await fails(["--answers", place.write("list.yaml", "- a\n")], {
      code: 2,
      says: ["expected a map"],
    });
    const file = place.write(
      "kind.yaml",
      `upstreams: [{ url: "${upstream.url}" }]\naccess: [passwords]\n`,
    );
    await fails(["--answers", file], { code: 2, says: ["access[0]", "expected tokens, npubs"] });
  });
});

describe("what goes wrong ends in a clear line, and everything is as before", () => {
  const yes = (...args: string[]): readonly string[] => [
    ...["--yes", "--no-service", "--dir", place.dir, "--upstream", upstream.url],
    ...args,
  ];

  test("no terminal and nothing answered beforehand", async () => {
    await fails([], {
      code: 2,
      says: ["there is no terminal to ask on", "--yes --upstream URL", "--answers FILE"],
    });
  });

  test("flags that cannot be", async () => {
    await fails(yes("--access", "passwords"), {
      code: 2,
      says: ["--access: expected tokens, npubs"],
    });
    await fails(yes("--preset", "olama"), {
      code: 2,
      says: ['no preset "olama"', "did you mean `ollama`?"],
    });
    await fails(yes("--listen", "8008"), { code: 2, says: ["--listen", "write 127.0.0.1:8008"] });
    await fails(yes("--role", "boss"), { code: 2, says: ["--role: expected admin or user"] });
    await fails(yes("--expires", "soon"), { code: 2, says: ["--expires: expected a duration"] });
    await fails(yes("--set", "url=x"), { code: 2, says: ["--set: expected KIND.SETTING=VALUE"] });
    await fails(yes("--set", "valky.url=x"), {
      code: 2,
      says: ["there is no valky", "did you mean `valkey`?"],
    });
    await fails(yes("--tls-cert", "a.pem"), {
      code: 2,
      says: ["--tls-cert and --tls-key go together"],
    });
    await fails(["--yes", "--host", "a.example.com"], {
      code: 2,
      says: ["--host goes with --upstream"],
    });
    await fails(["--yes", "--no-service", "--dir", place.dir, "--upstream", "localhost:1"], {
      code: 2,
      says: ["--upstream: expected http://host:port", "is http:// missing?"],
    });
  });

  test("a token or key among the arguments is refused with advice", async () => {
    await fails(yes("--name", "sk-abcdef0123456789"), {
      code: 2,
      says: ["not passed as arguments"],
    });
    await fails(
      yes(
        "--access",
        "valkey",
        "--set",
        "valkey.url=redis://127.0.0.1:1",
        "--set",
        `valkey.salt=${"ab".repeat(32)}`,
      ),
      {
        code: 2,
        says: ["a secret is not an argument", "'valkey.salt=${env:NAME}'"],
      },
    );
  });

  test("an upstream that does not answer, unless it may", async () => {
    const url = `http://127.0.0.1:${await freePort()}`;
    const args = ["--upstream", url, "--preset", "ollama", "--listen", "127.0.0.1:0"];
    await fails(["--yes", "--no-service", "--dir", place.dir, ...args], {
      code: 69,
      says: [`${url} does not answer: ECONNREFUSED`, "--offline"],
    });
    const answer = await initJson(place, ...args, "--offline");
    expect(answer.grade).toBe("B");
    expect(codesOf(answer)).toContain("upstream_unreachable");
  });

  test("a port that is taken: says by whom, and names one that is free", async () => {
    const port = upstream.url.split(":")[2];
    await fails(yes("--listen", `127.0.0.1:${port}`), {
      code: 69,
      says: [`127.0.0.1:${port} is taken by`, `process ${process.pid}`, "--listen 127.0.0.1:"],
    });
  });

  test("an address that is not this machine's", async () => {
    await fails(yes("--listen", "192.0.2.1:8008"), {
      code: 2,
      says: ["nobody can listen on 192.0.2.1:8008"],
    });
  });

  test("a domain that leads nowhere, and TLS files that are not there", async () => {
    const files = ["--tls-cert", "cert.pem", "--tls-key", "key.pem"];
    await fails(yes("--domain", "gate.invalid", ...files, "--listen", "127.0.0.1:0"), {
      code: 69,
      says: ["the name gate.invalid does not lead anywhere", "--offline"],
    });
    await fails(yes("--domain", "localhost", ...files, "--listen", "127.0.0.1:0"), {
      code: 78,
      says: ["server.tls.cert", "everything is as it was before"],
    });
    await fails(yes("--clients", "public"), { code: 2, says: ["need TLS", "certbot"] });
  });

  test("behind a proxy without the address that clients use", async () => {
    await fails(yes("--clients", "proxy"), { code: 2, says: ["--public-url"] });
  });

  test("a service where there is no systemd, and one of the machine without root", async () => {
    if (existsSync("/run/systemd/system")) return console.log("not run: this machine has systemd");
    const args = [
      "--yes",
      "--dir",
      place.dir,
      "--upstream",
      upstream.url,
      "--listen",
      "127.0.0.1:0",
    ];
    await fails([...args, "--service", "system"], { code: 69, says: ["systemd", "--no-service"] });
    await fails([...args, "--service", "user"], { code: 69, says: ["systemd", "--no-service"] });
  });

  test("a configuration of an earlier version, of a later one, and of none", async () => {
    for (const [version, says] of [
      ["version: 0\n", ["says version: 0", "of an earlier version: move it away"]],
      ["server: {}\n", ["says no version", "move it away"]],
      ["version: 2\n", ["says version: 2", "newer gatehouse"]],
    ] as const) {
      const file = place.write("old/config.yaml", version);
      await fails(["--yes", "-c", file, "--upstream", upstream.url], { code: 78, says });
    }
  });

  test("a configuration that is wrong is not made worse", async () => {
    const file = place.write(
      "bad/config.yaml",
      "version: 1\nroutes: [{ match: { path: / }, acces: public }]\n",
    );
    await fails(["--yes", "-c", file, "--upstream", upstream.url], {
      code: 78,
      says: [`${file}:2:`, "did you mean `access`?", "nothing was changed"],
    });
  });

  test("a file of somebody else where one of ours would be", async () => {
    place.write("gate/gatehouse.schema.json", "mine");
    await fails(yes("--listen", "127.0.0.1:0"), {
      code: 73,
      says: ["gatehouse.schema.json: EEXIST", "never writes over it"],
    });
  });

  test("a state directory that others can read", async () => {
    place.write("gate/state/gatehouse.db", "");
    chmodSync(join(place.dir, "state"), 0o755);
    await fails(yes("--listen", "127.0.0.1:0"), {
      code: 78,
      says: ["open to other users", "chmod 700"],
    });
  });
});

describe("what lies around", () => {
  const args = (): readonly string[] => [
    ...["--yes", "--json", "--no-service", "--upstream", upstream.url, "--listen", "127.0.0.1:0"],
  ];

  test("a config.yaml of another program is not taken for one of ours", async () => {
    const file = place.write("config.yaml", "model_list: []\n");
    const named = {
      ...place,
      env: { ...place.env, GATEHOUSE_CONFIG: join(place.home, "here/gate.yaml") },
    };
    const { code, stdout } = await runInit(named, ...args());
    expect(code).toBe(0);
    expect(JSON.parse(stdout).config).toBe(join(place.home, "here/gate.yaml"));
    expect(readFileSync(file, "utf8")).toBe("model_list: []\n");
  });

  test("one of ours is, wherever `serve` would find it", async () => {
    const made = await initJson(place, "--upstream", upstream.url, "--listen", "127.0.0.1:0");
    place.write(
      "gatehouse.yaml",
      readFileSync(made.config, "utf8").replace("./state", join(place.dir, "state")),
    );
    const { stdout } = await runInit(place, "--yes", "--json");
    expect(JSON.parse(stdout)).toMatchObject({
      changed: false,
      config: join(place.home, "gatehouse.yaml"),
    });
  });

  test("a variable that would go before what is written", async () => {
    const loud = { ...place, env: { ...place.env, GATEHOUSE_STATE_DIR: "/tmp/elsewhere" } };
    const before = place.tree();
    const { code, stderr } = await runInit(loud, ...args(), "--dir", place.dir);
    expect(code).toBe(2);
    expect(stderr).toContain("GATEHOUSE_STATE_DIR in this shell would go before what is written");
    expect(place.tree()).toEqual(before);
  });

  test("a journal that others could have written is not believed", async () => {
    await initJson(place, "--upstream", upstream.url, "--listen", "127.0.0.1:0");
    chmodSync(join(place.dir, ".gatehouse-init.json"), 0o666);
    const before = place.tree();
    const { code, stderr } = await runInit(place, "--undo", "--yes", "--dir", place.dir);
    expect(code).toBe(77);
    expect(stderr).toContain("is accessible to others");
    expect(place.tree()).toEqual(before);
  });

  test("a gateway that listens on a socket of this machine", async () => {
    const path = join(place.home, "gate.sock");
    const answer = await initJson(place, "--upstream", upstream.url, "--listen", `unix:${path}`);
    expect(answer).toMatchObject({ grade: "A", url: `unix:${path}` });
    expect(existsSync(path)).toBeFalse();
  });
});

test("what a gateway that was killed has left is taken away with the rest", async () => {
  const before = place.tree();
  const made = await initJson(place, "--upstream", upstream.url, "--listen", "127.0.0.1:0");
  const args = ["serve", "-c", String(made.config)];
  const gateway = await startBinary(args, { cwd: place.home, env: place.env });
  const socket = join(place.dir, "state", "control.sock");
  await eventually("it can be spoken to", () => existsSync(socket));
  await gateway.kill();
  expect(existsSync(socket)).toBeTrue();
  const { code } = await runInit(place, "--undo", "--yes", "--dir", place.dir);
  expect(code).toBe(0);
  expect(place.tree()).toEqual(before);
});

describe("an interrupted run", () => {
  test("that was killed is cleared away by the next one", async () => {
    const first = await initJson(place, "--upstream", upstream.url, "--listen", "127.0.0.1:0");
    const journal = join(place.dir, ".gatehouse-init.json");
    const record = JSON.parse(readFileSync(journal, "utf8"));
    writeFileSync(journal, JSON.stringify({ ...record, pid: 999_999_999 }));
    const second = await initJson(place, "--upstream", upstream.url, "--listen", "127.0.0.1:0");
    expect(second.token).not.toBe(first.token);
    expect(second.changed).toBeUndefined();
  });
});
