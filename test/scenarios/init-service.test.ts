/**
 * `gatehouse init` with a service: installed, started, proven, changed, taken away; and what is left when it does not
 * come up.
 *
 * Invariant: the service manager is a stand-in that runs real processes, so that no manager of the machine is touched.
 */
import { afterAll, afterEach, beforeEach, describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { freePort, type InitPlace, initPlace, initTerminal, runInit } from "../support/init.ts";
import { type StandInManager, standInManager } from "../support/stand-in-manager.ts";
import { ollamaStandIn } from "../support/standins/ollama.ts";
import { KEYS } from "../support/terminal.ts";

const upstream = ollamaStandIn();
afterAll(() => upstream.stop());

let place: InitPlace;
let manager: StandInManager | null = null;
beforeEach(() => {
  place = initPlace();
});
afterEach(() => {
  manager?.stop();
  place.remove();
});

const args = (...more: string[]): readonly string[] => [
  ...["--yes", "--json", "--service", "user", "--dir", place.dir, "--upstream", upstream.url],
  ...more,
];
/** What is there but for the manager's own files. */
const tree = (): readonly string[] =>
  place.tree().filter((line) => !/^manager|^config\/systemd|^config /.test(line));

describe("a service", () => {
  test("is installed, started and proven; and taken away with everything else", async () => {
    manager = standInManager(place);
    const before = tree();
    const { code, stdout, stderr } = await runInit(place, ...args("--listen", "127.0.0.1:0"));
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    const answer = JSON.parse(stdout);
    expect(answer).toMatchObject({
      grade: "A",
      service: { scope: "user", name: "gatehouse" },
      start: "systemctl --user start gatehouse",
    });
    expect(manager.pid()).not.toBeNull();
    const headers = { authorization: `Bearer ${answer.token}` };
    expect((await fetch(`${answer.url}/api/version`)).status).toBe(401);
    expect((await fetch(`${answer.url}/api/version`, { headers })).status).toBe(200);

    const undone = await runInit(place, "--undo", "--yes", "--dir", place.dir);
    expect({ code: undone.code, stderr: undone.stderr }).toEqual({ code: 0, stderr: "" });
    expect(undone.stdout).toContain("removed gatehouse.service");
    expect(manager.pid()).toBeNull();
    expect(existsSync(join(place.home, "config/systemd/user/gatehouse.service"))).toBeFalse();
    expect(tree()).toEqual(before);
  });

  test("is asked about when there is a manager", async () => {
    manager = standInManager(place);
    const program = await initTerminal(place, [
      "--dir",
      place.dir,
      "--upstream",
      upstream.url,
      "--listen",
      "127.0.0.1:0",
    ]);
    await program.waitFor("Who may enter?");
    program.type(KEYS.enter);
    await program.waitFor("Should it run as a service?");
    await program.waitFor("systemctl --user");
    program.type(KEYS.enter);
    await program.waitFor("Make it, and prove that it holds?");
    program.type(KEYS.enter);
    await program.waitFor("It runs as gatehouse.service");
    expect(await program.ended).toBe(0);
  });

  test("that does not start leaves nothing, and what it said is shown", async () => {
    manager = standInManager(place, { starts: 'sh -c "echo no such luck; exit 1"' });
    const before = tree();
    const { code, stdout, stderr } = await runInit(place, ...args("--listen", "127.0.0.1:0"));
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    expect(stderr).toContain("the service did not start");
    expect(stderr).toContain("no such luck");
    expect(stderr).toContain("everything is as it was before");
    expect(tree()).toEqual(before);
  });

  test("that lets somebody in without a token is not kept", async () => {
    const port = await freePort();
    const open = place.write(
      "open.ts",
      `Bun.serve({ port: ${port}, hostname: "127.0.0.1", fetch: () => new Response("come in") });`,
    );
    manager = standInManager(place, { starts: `env BUN_BE_BUN=1 ${process.execPath} ${open}` });
    const before = tree();
    const { code, stdout, stderr } = await runInit(place, ...args("--listen", `127.0.0.1:${port}`));
    expect(stderr).toContain(
      "the proof failed: ollama: without a token the answer is 200, not 401",
    );
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    expect(manager.pid()).toBeNull();
    expect(tree()).toEqual(before);
  });

  test("of another configuration is not taken over", async () => {
    manager = standInManager(place);
    await runInit(place, ...args("--listen", "127.0.0.1:0"));
    const before = tree();
    const other = join(place.home, "other");
    const { code, stderr } = await runInit(
      place,
      ...[
        "--yes",
        "--service",
        "user",
        "--dir",
        other,
        "--upstream",
        upstream.url,
        "--listen",
        "127.0.0.1:0",
      ],
    );
    expect(code).toBe(73);
    expect(stderr).toContain(
      `there is a service gatehouse already, for ${join(place.dir, "config.yaml")}`,
    );
    expect(stderr).toContain("--service-name NAME");
    expect(tree()).toEqual(before);
  });

  test("is started anew with a changed configuration, which is proven there", async () => {
    manager = standInManager(place);
    await runInit(place, ...args("--listen", "127.0.0.1:0"));
    const first = manager.pid();
    const { code, stdout, stderr } = await runInit(
      place,
      ...[
        "--yes",
        "--json",
        "--dir",
        place.dir,
        "--upstream",
        `b=${upstream.url}/v1`,
        "--preset",
        "generic",
        "--host",
        "b.localhost",
      ],
    );
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    const answer = JSON.parse(stdout);
    expect(answer.checks.map((one: { code: string }) => one.code)).toEqual([
      "refused",
      "refused",
      "not_tried",
      "upstream_hidden",
    ]);
    expect(manager.pid()).not.toBe(first);
    expect(manager.orders()).toContain("restart gatehouse.service");
  });

  test("that does not run with a change gets its old configuration back", async () => {
    const config = join(place.dir, "config.yaml");
    manager = standInManager(place, {
      starts: `sh -c "grep -q b.localhost ${config} && exit 1; exec $EXEC"`,
    });
    await runInit(place, ...args("--listen", "127.0.0.1:0"));
    const text = readFileSync(config, "utf8");
    const before = tree();
    const { code, stderr } = await runInit(
      place,
      ...[
        "--yes",
        "--dir",
        place.dir,
        "--upstream",
        `b=${upstream.url}/v1`,
        "--preset",
        "generic",
        "--host",
        "b.localhost",
      ],
    );
    expect(code).toBe(1);
    expect(stderr).toContain("everything is as it was before");
    expect(readFileSync(config, "utf8")).toBe(text);
    expect(manager.pid()).not.toBeNull();
    expect(
      tree().map((line) => line.replace(/(gatehouse-init\.json|gatehouse\.db\S*) .*/, "$1")),
    ).toEqual(
      before.map((line) => line.replace(/(gatehouse-init\.json|gatehouse\.db\S*) .*/, "$1")),
    );
  });
});
