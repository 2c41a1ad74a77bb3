/**
 * `gatehouse init` where a configuration is there already: what is added, what stays, and what `--undo` makes of it.
 *
 * Invariant: what somebody wrote is never lost: not by a change, not by a change that fails, not by undoing it.
 */
import { afterAll, afterEach, beforeEach, describe, expect, test } from "bun:test";
import { appendFileSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { runBinary, startBinary } from "../support/binary.ts";
import { freePort, type InitPlace, initJson, initPlace, runInit } from "../support/init.ts";
import { ollamaStandIn } from "../support/standins/ollama.ts";
import { openWebUiStandIn, plainStandIn } from "../support/standins/others.ts";
import { vllmStandIn } from "../support/standins/vllm.ts";

const ollama = ollamaStandIn();
const plain = plainStandIn();
const webUi = openWebUiStandIn();
const vllm = vllmStandIn("the-key-of-vllm-itself");
afterAll(async () => {
  for (const one of [ollama, plain, webUi, vllm]) await one.stop();
});

let place: InitPlace;
let port: number;
beforeEach(async () => {
  place = initPlace();
  port = await freePort();
});
afterEach(() => place.remove());

/** Written by hand, with remarks in every corner. */
function handWritten(): string {
  return `# kept by hand
version: 1
server: { listen: "127.0.0.1:${port}" } # where
strategies:
  team: { use: bearer-sqlite }   # all of us
upstreams:
  ollama: { url: "${ollama.url}" }
# what follows is for everybody
routes:
  - { preset: ollama, with: { upstream: ollama, access: [team] } } # the models
`;
}

async function change(
  ...args: readonly string[]
): Promise<{ code: number; stdout: string; stderr: string }> {
  return runInit(place, "--yes", "--json", "-c", join(place.home, "mine/config.yaml"), ...args);
}

describe("a configuration of somebody's own", () => {
  let file: string;
  beforeEach(() => {
    file = place.write("mine/config.yaml", handWritten());
  });

  test("gets another upstream; everything else stays, and undoing brings back the old text", async () => {
    const before = place.tree();
    const { code, stdout, stderr } = await change(
      "--upstream",
      `app=${plain.url}`,
      "--host",
      "app.localhost",
    );
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    const answer = JSON.parse(stdout);
    expect(answer).toMatchObject({ changed: true, token: null });
    expect(answer.checks.map((one: { code: string }) => one.code)).toEqual([
      "refused",
      "refused",
      "not_tried",
      "upstream_hidden",
    ]);
    expect(answer.diff.filter((line: string) => line.startsWith("-"))).toEqual([]);
    const text = readFileSync(file, "utf8");
    expect(
      text
        .split("\n")
        .filter((line) => !answer.diff.includes(`+${line}`))
        .join("\n"),
    ).toBe(handWritten());
    expect(readFileSync(answer.backup, "utf8")).toBe(handWritten());
    const validate = await runBinary(["config", "validate", "-c", file], { env: place.env });
    expect(validate.code).toBe(0);

    await runInit(place, "--undo", "--yes", "-c", file);
    expect(readFileSync(file, "utf8")).toBe(handWritten());
    expect(place.tree()).toEqual(before);
  });

  test("gets a token and another place to listen", async () => {
    const other = await freePort();
    const { stdout } = await change("--name", "laptop", "--listen", `127.0.0.1:${other}`);
    const answer = JSON.parse(stdout);
    expect(answer.token).toMatch(/^gate_/);
    expect(readFileSync(file, "utf8")).toBe(
      handWritten().replace(/"127\.0\.0\.1:\d+"/, `127.0.0.1:${other}`),
    );
    const gateway = await startBinary(["serve", "-c", file], { env: place.env });
    const headers = { authorization: `Bearer ${answer.token}` };
    expect((await fetch(`http://127.0.0.1:${other}/api/version`, { headers })).status).toBe(200);
    await gateway.stop();
  });

  test("says what is not changed by questions, and changes nothing for what is so already", async () => {
    const before = place.tree();
    const { code, stderr } = await runInit(
      place,
      ...[
        "--yes",
        "-c",
        file,
        "--upstream",
        `${ollama.url}/`,
        "--listen",
        `127.0.0.1:${port}`,
        "--access",
        "npubs",
      ],
    );
    expect({ code, stderr }).toEqual({
      code: 0,
      stderr: `note: access of ${file} stays as it is; change it with an editor\n`,
    });
    expect(place.tree()).toEqual(before);
  });

  test("an upstream that would get everything is not added", async () => {
    const before = place.tree();
    const { code, stderr } = await change("--upstream", plain.url);
    expect(code).toBe(2);
    expect(stderr).toContain("app needs a host name of its own beside what is guarded already");
    expect(place.tree()).toEqual(before);
  });

  test("a change that would be wrong is not written, and its secrets are not left", async () => {
    const taken =
      "  - { match: { host: v.localhost, path: /** }, access: [team], upstream: ollama }\n";
    writeFileSync(file, handWritten().replace("routes:\n", `routes:\n${taken}`));
    const key = place.write("vllm.key", "the-key-of-vllm-itself\n");
    const before = place.tree();
    const { code, stderr } = await change(
      "--upstream",
      vllm.url,
      "--host",
      "v.localhost",
      "--key-file",
      key,
    );
    expect(code).toBe(78);
    expect(stderr).toContain("the changed configuration would be wrong; nothing was changed");
    expect(place.tree()).toEqual(before);
  });

  test("an upstream whose preset wants something of the listener gets it", async () => {
    const { code, stderr } = await change(
      "--upstream",
      plain.url,
      "--preset",
      "anvil",
      "--host",
      "anvil.localhost",
      "--key-env",
      "PATH",
    );
    expect({ code, stderr }).toMatchObject({ code: 0 });
    expect(readFileSync(file, "utf8")).toContain("health_path: null");
  });

  test("an upstream with a key of its own gets it from a file", async () => {
    const key = place.write("vllm.key", "the-key-of-vllm-itself\n");
    const { code, stdout } = await change(
      "--upstream",
      vllm.url,
      "--host",
      "vllm.localhost",
      "--key-file",
      key,
      "--name",
      "x",
    );
    expect(code).toBe(0);
    const answer = JSON.parse(stdout);
    expect(answer.checks.map((one: { code: string }) => one.code)).toEqual([
      "refused",
      "refused",
      "let_through",
      "closed",
      "upstream_hidden",
    ]);
    expect(readFileSync(file, "utf8")).toContain("${file:./secrets/vllm-key}");
    expect(readFileSync(file, "utf8")).not.toContain("the-key-of-vllm-itself");
  });

  test("one that has Authorization for itself gets tokens of its own", async () => {
    const { code, stdout } = await change("--upstream", webUi.url, "--host", "chat.localhost");
    expect(code).toBe(0);
    const answer = JSON.parse(stdout);
    expect(answer.token).toMatch(/^gate_/);
    expect(answer.checks.map((one: { code: string }) => one.code)).toContain("let_through");
    expect(readFileSync(file, "utf8")).toContain("open-webui-team:");
  });

  test("behind a link the file itself is changed, not the link", async () => {
    const link = join(place.home, "link.yaml");
    symlinkSync(file, link);
    const other = await freePort();
    const { code } = await runInit(
      place,
      "--yes",
      "--json",
      "-c",
      link,
      "--listen",
      `127.0.0.1:${other}`,
    );
    expect(code).toBe(0);
    expect(readFileSync(file, "utf8")).toContain(`listen: 127.0.0.1:${other}`);
    expect(place.tree().find((line) => line.startsWith("link.yaml"))).toContain("->");
  });

  test("while a gateway runs on it: it is said that it has to be started anew", async () => {
    const gateway = await startBinary(["serve", "-c", file], { env: place.env });
    const { code, stdout } = await runInit(
      place,
      "--yes",
      "-c",
      file,
      "--upstream",
      `app=${plain.url}`,
      "--host",
      "app.localhost",
    );
    expect(code).toBe(0);
    expect(stdout).toContain("another process listens there");
    expect(stdout.replaceAll(/\s+/g, " ")).toContain(
      `A gateway runs on it (process ${gateway.pid}): start it anew`,
    );
    await gateway.stop();
  });
});

describe("what is undone", () => {
  test("a configuration that was changed by hand since stays, and is said; the rest goes", async () => {
    const answer = await initJson(place, "--upstream", ollama.url, "--listen", `127.0.0.1:${port}`);
    appendFileSync(answer.config, "# my remark\n");
    const { code, stdout } = await runInit(place, "--undo", "--yes", "--dir", place.dir);
    expect(code).toBe(0);
    expect(stdout).toContain(`kept ${answer.config}: it was changed since`);
    expect(stdout).toContain(`removed ${join(place.dir, "state")}`);
    expect(place.tree().map((line) => line.split(" ")[0])).toEqual([
      "bin",
      "gate",
      "gate/config.yaml",
    ]);
  });

  test("what somebody else put there stays", async () => {
    await initJson(place, "--upstream", ollama.url, "--listen", `127.0.0.1:${port}`);
    place.write("gate/state/notes.txt", "mine");
    const { stdout } = await runInit(place, "--undo", "--yes", "--dir", place.dir);
    expect(stdout).toContain("there is something else in it: notes.txt");
    expect(place.tree().map((line) => line.split(" ")[0])).toEqual([
      "bin",
      "gate",
      "gate/state",
      "gate/state/notes.txt",
    ]);
  });

  test("state that was there before stays, but for the token", async () => {
    const first = await initJson(place, "--upstream", ollama.url, "--listen", `127.0.0.1:${port}`);
    rmSync(join(place.dir, ".gatehouse-init.json"));
    rmSync(first.config);
    rmSync(join(place.dir, "gatehouse.schema.json"));
    const second = await initJson(
      place,
      "--upstream",
      ollama.url,
      "--listen",
      `127.0.0.1:${port}`,
      "--name",
      "second",
    );
    expect(second.notes.join()).toContain("was there before: tokens in it work as they did");
    const config = place.write(
      "copy.yaml",
      readFileSync(second.config, "utf8").replace("./state", join(place.dir, "state")),
    );
    const { stdout } = await runInit(place, "--undo", "--yes", "--dir", place.dir);
    expect(stdout).toContain(`removed token ${second.id}`);
    const list = await runBinary(["token", "list", "-c", config, "--json"], { env: place.env });
    const tokens = JSON.parse(list.stdout) as { name: string; revoked_at: string | null }[];
    expect(tokens.map(({ name, revoked_at }) => [name, revoked_at === null]).sort()).toEqual([
      ["first", true],
      ["second", false],
    ]);
  });

  test("needs a yes for tokens, which without a terminal is a flag", async () => {
    await initJson(place, "--upstream", ollama.url, "--listen", `127.0.0.1:${port}`);
    const before = place.tree();
    const { code, stderr } = await runInit(place, "--undo", "--dir", place.dir);
    expect(code).toBe(2);
    expect(stderr).toContain("holds the tokens that were made");
    expect(stderr).toContain("--yes");
    expect(place.tree()).toEqual(before);
  });

  test("as one object, also as `uninstall`; a second time there is nothing", async () => {
    await initJson(place, "--upstream", ollama.url, "--listen", `127.0.0.1:${port}`);
    const { code, stdout } = await runBinary(["uninstall", "--yes", "--json", "--dir", place.dir], {
      cwd: place.home,
      env: place.env,
    });
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ kept: [] });
    const again = await runBinary(["uninstall", "--yes", "--dir", place.dir], {
      cwd: place.home,
      env: place.env,
    });
    expect(again.code).toBe(1);
    expect(again.stderr).toContain("there is nothing to undo");
  });

  test("a journal that is damaged is not guessed about", async () => {
    await initJson(place, "--upstream", ollama.url, "--listen", `127.0.0.1:${port}`);
    place.write(
      "gate/.gatehouse-init.json",
      '{"journal":1,"made":[{"kind":"file","path":"/etc/passwd"}]}',
    );
    const before = place.tree();
    const { code, stderr } = await runInit(place, "--undo", "--yes", "--dir", place.dir);
    expect(code).toBe(1);
    expect(stderr).toContain("is damaged, or of a newer version");
    expect(place.tree()).toEqual(before);
  });
});
