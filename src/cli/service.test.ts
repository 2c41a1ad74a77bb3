/**
 * `service install|uninstall|status` of the executable, on a stand-in for systemctl; below `--root` on the real one.
 */
import { describe, expect, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { binaryPath, runBinary } from "../../test/support/binary.ts";
import { scratch } from "../../test/support/gateway.ts";
import { SERVICE_CONFIG } from "../../test/support/service.ts";
import { type FakeSystemd, fakeSystemd } from "../../test/support/systemctl.ts";

const CONFIG = `version: 1
server: { listen: 127.0.0.1:0 }
state_dir: ./state
strategies: { team: { use: bearer-sqlite } }
routes: [{ match: { path: /** }, access: [team] }]
`;

/** A user with a configuration; `service` runs a verb as that user. */
function user(config = CONFIG) {
  const systemd = fakeSystemd();
  const file = join(systemd.home, "gate.yaml");
  writeFileSync(file, config, { mode: 0o600 });
  const service = (verb: string, ...more: string[]) =>
    runBinary(["service", verb, "--user", ...more], { cwd: systemd.home, env: systemd.env });
  const install = (...more: string[]) => service("install", "-c", file, ...more);
  return { systemd, file, service, install };
}

/** Orders, without questions. */
const orders = (systemd: FakeSystemd): string[] =>
  systemd.asked().filter((line) => !/^(show|is-enabled)/.test(line));

describe("service install", () => {
  test("writes what print shows, enables, starts, and says what it did", async () => {
    const { systemd, install, service, file } = user();
    const printed = await service("print", "-c", file);
    expect(printed.code).toBe(0);
    expect(existsSync(systemd.unitPath)).toBe(false);
    systemd.asked();
    const { code, stdout, stderr } = await install();
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(readFileSync(systemd.unitPath, "utf8")).toBe(printed.stdout);
    expect(statSync(systemd.unitPath).mode & 0o777).toBe(0o644);
    const unit = "gatehouse.service";
    expect(orders(systemd)).toEqual([
      "daemon-reload",
      `enable ${unit}`,
      `reset-failed ${unit}`,
      `start ${unit}`,
    ]);
    expect(stdout).toContain(`wrote ${systemd.unitPath}\nenabled ${unit}\nstarted ${unit}\n`);
    expect(stdout).toContain("gatehouse is active: 1 route = fine");
    expect(stdout).toContain("loginctl enable-linger");
  });

  test("changes nothing the second time", async () => {
    const { systemd, install } = user();
    await install();
    const before = statSync(systemd.unitPath);
    orders(systemd);
    const { code, stdout } = await install("--json");
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ change: "unchanged", steps: [], active: "active" });
    expect(statSync(systemd.unitPath)).toMatchObject({ ino: before.ino, mtimeMs: before.mtimeMs });
    expect(orders(systemd)).toEqual([]);
  });

  test("starts and enables again what somebody stopped, without touching the unit", async () => {
    const { systemd, install } = user();
    await install();
    systemd.deactivate();
    orders(systemd);
    const { code, stdout } = await install();
    expect(code).toBe(0);
    expect(orders(systemd)).toEqual(["reset-failed gatehouse.service", "start gatehouse.service"]);
    expect(stdout).not.toContain("wrote");
  });

  test("shows the difference that another configuration makes, and restarts", async () => {
    const { systemd, install, file } = user();
    await install();
    orders(systemd);
    writeFileSync(file, CONFIG.replace("127.0.0.1:0", "127.0.0.1:0, drain: 2m"));
    const { code, stdout } = await install();
    expect(code).toBe(0);
    expect(stdout).toStartWith("-TimeoutStopSec=45s\n+TimeoutStopSec=135s\n");
    expect(orders(systemd)).toEqual([
      "daemon-reload",
      "reset-failed gatehouse.service",
      "restart gatehouse.service",
    ]);
    expect(readFileSync(systemd.unitPath, "utf8")).toContain("TimeoutStopSec=135s");
  });

  test("that does not come up leaves nothing behind and says what the service said", async () => {
    const { systemd, install } = user();
    systemd.letStart(false);
    const { code, stderr } = await install();
    expect(code).toBe(1);
    expect(stderr).toContain("the service did not start (exit-code); everything is as it was");
    expect(stderr).toContain("error: cannot listen on 127.0.0.1:80: not permitted");
    expect(readdirSync(join(systemd.unitPath, ".."))).toEqual([]);
    expect([systemd.isActive(), systemd.isEnabled()]).toEqual([false, false]);
    expect(orders(systemd).slice(-2)).toEqual(["daemon-reload", "reset-failed gatehouse.service"]);
  });

  test("of a change that does not come up puts the unit back", async () => {
    const { systemd, install, file } = user();
    await install();
    const before = readFileSync(systemd.unitPath, "utf8");
    writeFileSync(file, CONFIG.replace("127.0.0.1:0", "127.0.0.1:0, drain: 2m"));
    systemd.letStart(false);
    const { code, stderr } = await install();
    expect(code).toBe(1);
    expect(stderr).toContain("the unit is as it was before, but with this configuration");
    expect(readFileSync(systemd.unitPath, "utf8")).toBe(before);
    expect(systemd.isEnabled()).toBe(true);
    expect(orders(systemd).at(-1)).toBe("restart gatehouse.service");
  });

  test.each([
    ["somebody else wrote", (path: string) => writeFileSync(path, "[Service]\nExecStart=/x\n")],
    ["is masked", (path: string) => symlinkSync("/dev/null", path)],
  ])("leaves a unit alone that %s", async (_, put) => {
    const { systemd, install } = user();
    mkdirSync(join(systemd.unitPath, ".."), { recursive: true });
    put(systemd.unitPath);
    const before = readFileSync(systemd.unitPath, "utf8");
    const { code, stderr } = await install();
    expect(code).toBe(73);
    expect(stderr).toContain("that Gatehouse did not write");
    expect(stderr).toContain("--name");
    expect(readFileSync(systemd.unitPath, "utf8")).toBe(before);
    expect(orders(systemd)).toEqual([]);
  });

  test("keeps what somebody changed in the unit, beside it", async () => {
    const { systemd, install } = user();
    await install();
    const edited = `${readFileSync(systemd.unitPath, "utf8")}# mine\n`;
    writeFileSync(systemd.unitPath, edited);
    const { code, stdout } = await install();
    expect(code).toBe(0);
    expect(stdout).toContain("-# mine\n");
    expect(readFileSync(`${systemd.unitPath}.changed`, "utf8")).toBe(edited);
    expect(readFileSync(systemd.unitPath, "utf8")).not.toContain("# mine");
  });

  test("runs systemctl without the secrets of the shell", async () => {
    const { systemd, file } = user();
    const env = { ...systemd.env, OPENAI_API_KEY: "sk-canary", LD_PRELOAD: "" };
    await runBinary(["service", "install", "--user", "-c", file], { cwd: systemd.home, env });
    expect(systemd.seenEnv()).toContain("XDG_RUNTIME_DIR=");
    expect(systemd.seenEnv()).not.toMatch(/canary|LD_PRELOAD/);
  });
});

describe("service install refuses before it changes anything:", () => {
  async function refused(config: string, prepare: (dir: string) => void, ...more: string[]) {
    const { systemd, install } = user(config);
    prepare(systemd.home);
    const { code, stderr } = await install(...more);
    expect(existsSync(systemd.unitPath)).toBe(false);
    expect(orders(systemd)).toEqual([]);
    return { code, stderr };
  }
  const nothing = (): void => {};

  test("a configuration that is wrong", async () => {
    const { code, stderr } = await refused(`${CONFIG}bogus: 1\n`, nothing);
    expect(code).toBe(78);
    expect(stderr).toContain("bogus: unknown key");
  });

  test("a configuration whose state directory is open to others, as serve does", async () => {
    const { code, stderr } = await refused(CONFIG, (dir) => {
      mkdirSync(join(dir, "state"));
      chmodSync(join(dir, "state"), 0o755);
    });
    expect(code).toBe(78);
    expect(stderr).toContain("is open to other users");
  });

  const VARIABLE = CONFIG.replace("use: bearer-sqlite", "use: static-env, env: OPS_TOKEN");

  test("variables that the service will not have", async () => {
    const { code, stderr } = await refused(VARIABLE, nothing);
    expect(code).toBe(78);
    expect(stderr).toContain("takes OPS_TOKEN from the environment");
    expect(stderr).toContain("${cred:ops_token}");
    expect(stderr).toContain("--environment-file");
  });

  test("a file of variables that is open to others, lacks one, or is not there", async () => {
    const file = (mode: number, text: string) => (dir: string) => {
      writeFileSync(join(dir, "env"), text);
      chmodSync(join(dir, "env"), mode);
    };
    const given = ["--environment-file", "env"];
    const secret = "OPS_TOKEN=ops-token-0123456789-abcdefghij\n";
    expect((await refused(VARIABLE, file(0o644, secret), ...given)).stderr).toContain("chmod 600");
    expect((await refused(VARIABLE, file(0o600, "A=b\n"), ...given)).stderr).toContain(
      "env lacks OPS_TOKEN",
    );
    expect((await refused(VARIABLE, nothing, ...given)).stderr).toContain("ENOENT");
  });

  const CREDENTIAL = `${CONFIG}upstreams: { api: { url: "http://127.0.0.1:9", headers: { x-key: "\${cred:api-key}" } } }\n`;

  test("a credential that is not there, or open to others", async () => {
    const { code, stderr } = await refused(CREDENTIAL, nothing);
    expect(code).toBe(78);
    expect(stderr).toContain("credential api-key is not there");
    expect(stderr).toContain("systemd-creds encrypt --name=api-key");
    const open = await refused(CREDENTIAL, (dir) => {
      mkdirSync(join(dir, "credentials"));
      writeFileSync(join(dir, "credentials/api-key"), "sk-canary");
      chmodSync(join(dir, "credentials/api-key"), 0o644);
    });
    expect(open.stderr).toContain("is open to others");
    expect(open.stderr).not.toContain("canary");
  });

  test("a port that another program has", async () => {
    using taken = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
    const config = CONFIG.replace("127.0.0.1:0", `127.0.0.1:${taken.port}`);
    const { code, stderr } = await refused(config, nothing);
    expect(code).toBe(78);
    expect(stderr).toContain(`another program listens on 127.0.0.1:${taken.port}`);
  });

  test("an executable that is none, with every other problem in the same answer", async () => {
    const { stderr } = await refused(CREDENTIAL, nothing, "--exec", "gate.yaml");
    expect(stderr).toContain("is not an executable file");
    expect(stderr).toContain("credential api-key is not there");
  });

  test("a preset instead of a file", async () => {
    const { code, stderr } = await runBinary(["service", "print", "--preset", "routstrd"]);
    expect(code).toBe(2);
    expect(stderr).toContain("config show --preset routstrd");
  });
});

describe("service install with what the configuration asks for", () => {
  test("names the sources of credentials and variables, never their values", async () => {
    const { systemd, install } = user(
      CONFIG.replace(
        "use: bearer-sqlite",
        'use: static-env, env: OPS_TOKEN, name: "${cred:label}"',
      ),
    );
    mkdirSync(join(systemd.home, "credentials"), { mode: 0o700 });
    writeFileSync(join(systemd.home, "credentials/label"), "label-canary", { mode: 0o600 });
    const token = "ops-canary-0123456789-abcdefghij";
    writeFileSync(join(systemd.home, "env"), `OPS_TOKEN="${token}"\n`, { mode: 0o600 });
    const { code, stdout, stderr } = await install("--environment-file", "env");
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    const unit = readFileSync(systemd.unitPath, "utf8");
    expect(unit).toContain(`LoadCredential=label:${systemd.home}/credentials/label\n`);
    expect(unit).toContain(`EnvironmentFile=${systemd.home}/env\n`);
    expect(`${unit}${stdout}`).not.toContain("canary");
  });

  test("mentions variables of this shell that the service will not have", async () => {
    const { systemd, file } = user();
    const env = { ...systemd.env, GATEHOUSE_STATE_DIR: "/elsewhere" };
    const { code, stdout } = await runBinary(["service", "install", "--user", "-c", file], {
      cwd: systemd.home,
      env,
    });
    expect(code).toBe(0);
    expect(stdout).toContain("GATEHOUSE_STATE_DIR is set in this shell; the service will not");
  });
});

describe("service uninstall", () => {
  test("takes away the unit, and leaves state and configuration", async () => {
    const { systemd, install, service, file } = user();
    await install();
    mkdirSync(join(systemd.home, "state"), { mode: 0o700 });
    orders(systemd);
    const { code, stdout } = await service("uninstall");
    expect(code).toBe(0);
    expect(stdout).toContain(`removed ${systemd.unitPath}\n`);
    expect(stdout).toContain(`these stay: ${file}`);
    expect(orders(systemd)).toEqual([
      "disable --now gatehouse.service",
      "daemon-reload",
      "reset-failed gatehouse.service",
    ]);
    expect(readdirSync(join(systemd.unitPath, ".."))).toEqual([]);
    expect([existsSync(file), existsSync(join(systemd.home, "state"))]).toEqual([true, true]);
    const again = await service("uninstall", "--json");
    expect(again.code).toBe(0);
    expect(JSON.parse(again.stdout)).toMatchObject({ removed: false, steps: [] });
  });

  test("leaves a unit alone that somebody else wrote", async () => {
    const { systemd, service } = user();
    mkdirSync(join(systemd.unitPath, ".."), { recursive: true });
    writeFileSync(systemd.unitPath, "[Service]\n");
    const { code, stderr } = await service("uninstall");
    expect(code).toBe(1);
    expect(stderr).toContain("Gatehouse did not install this unit");
    expect(readFileSync(systemd.unitPath, "utf8")).toBe("[Service]\n");
  });
});

describe("service status", () => {
  test("is 3 with what to do when nothing is installed", async () => {
    const { systemd, service } = user();
    const { code, stdout } = await service("status");
    expect(code).toBe(3);
    expect(stdout).toBe(
      `wrong: ${systemd.unitPath} is not there\n  mend: gatehouse service install --user -c FILE\n`,
    );
  });

  test("is 0 when all is well, and says how commands on the state begin", async () => {
    const { install, service, file } = user();
    await install();
    const { code, stdout } = await service("status");
    expect(code).toBe(0);
    expect(stdout).toStartWith("gatehouse is enabled and active, process ");
    expect(stdout).toContain(`commands on its state: ${await binaryPath()} token list -c ${file}`);
    const { stdout: json } = await service("status", "--json");
    expect(JSON.parse(json)).toMatchObject({
      ...{ ok: true, installed: true, ours: true, edited: false, enabled: "enabled" },
      ...{ active: "active", status: "1 route = fine", drift: [], problems: [] },
    });
  });

  test("finds a service that is down", async () => {
    const { systemd, install, service } = user();
    await install();
    systemd.deactivate();
    const { code, stdout } = await service("status");
    expect(code).toBe(3);
    expect(stdout).toContain("wrong: it is inactive (exit-code)");
    expect(stdout).toContain("systemctl --user start gatehouse");
  });

  test("finds a configuration that the unit does not fit any more, and one that is broken", async () => {
    const { install, service, file } = user();
    await install();
    writeFileSync(file, CONFIG.replace("127.0.0.1:0", "127.0.0.1:0, drain: 2m"));
    const drifted = await service("status");
    expect(drifted.code).toBe(3);
    expect(drifted.stdout).toContain("  -TimeoutStopSec=45s\n  +TimeoutStopSec=135s\n");
    expect(drifted.stdout).toContain(`mend: gatehouse service install -c ${file} --user`);
    writeFileSync(file, "bogus: 1\n");
    const broken = await service("status", "--json");
    expect(broken.code).toBe(3);
    const [problem] = JSON.parse(broken.stdout).problems;
    expect(problem.message).toContain("bogus: unknown key");
  });

  test("finds a unit that was changed by hand, and names what adds to it", async () => {
    const { systemd, install, service } = user();
    await install();
    writeFileSync(systemd.unitPath, `${readFileSync(systemd.unitPath, "utf8")}# mine\n`);
    mkdirSync(`${systemd.unitPath}.d`);
    writeFileSync(`${systemd.unitPath}.d/more.conf`, "[Service]\n");
    const { code, stdout } = await service("status");
    expect(code).toBe(3);
    expect(stdout).toContain("was changed by hand\n  mend: move the changes to a drop-in");
    expect(stdout).toContain(`changed by ${systemd.unitPath}.d/more.conf\n`);
  });
});

describe("Without a service manager", () => {
  test.each(["install", "uninstall", "status"])(
    "%s is 69 and names what there is",
    async (verb) => {
      const empty = scratch();
      const env = { HOME: empty, PATH: empty };
      const { code, stderr } = await runBinary(["service", verb], { cwd: empty, env });
      expect(code).toBe(69);
      expect(stderr).toContain("there is no systemd on this machine");
      expect(stderr).toContain("print --openrc");
    },
  );

  test("of the user, install is 69 and says how to get one", async () => {
    const { systemd, install } = user();
    writeFileSync(join(systemd.home, "run/deaf"), "");
    const { code, stderr } = await install();
    expect(code).toBe(69);
    expect(stderr).toContain("Failed to connect to bus");
    expect(existsSync(systemd.unitPath)).toBe(false);
  });
});

const systemctl = Bun.which("systemctl");
if (systemctl === null) process.stderr.write("service: no systemctl, so --root is not tried\n");

describe.skipIf(systemctl === null)("Below --root, with the real systemctl,", () => {
  test("install enables the unit, status finds it, uninstall takes it away", async () => {
    const root = scratch();
    mkdirSync(join(root, "etc/gatehouse"), { recursive: true });
    const config = join(root, "etc/gatehouse/config.yaml");
    writeFileSync(config, SERVICE_CONFIG, { mode: 0o644 });
    const service = (verb: string, ...more: string[]) =>
      runBinary(["service", verb, "--root", root, ...more], { env: { HOME: root } });
    const installed = await service("install", "-c", config, "--exec", "/usr/bin/gatehouse");
    expect(installed).toMatchObject({ code: 0, stderr: "" });
    const unit = join(root, "etc/systemd/system/gatehouse.service");
    const wanted = join(root, "etc/systemd/system/multi-user.target.wants/gatehouse.service");
    // As that system will see it.
    expect(readFileSync(unit, "utf8")).toContain(
      "ExecStart=/usr/bin/gatehouse serve -c /etc/gatehouse/config.yaml\n",
    );
    expect(lstatSync(wanted).isSymbolicLink()).toBe(true);
    const again = await service("install", "-c", config, "--exec", "/usr/bin/gatehouse", "--json");
    expect(JSON.parse(again.stdout)).toMatchObject({ change: "unchanged", steps: [] });
    const status = await service("status");
    expect(status).toMatchObject({ code: 0, stderr: "" });
    expect(status.stdout).toStartWith("gatehouse is enabled\n");
    writeFileSync(config, SERVICE_CONFIG.replace("127.0.0.1:8008", ":443"));
    const drifted = await service("status");
    expect(drifted.code).toBe(3);
    expect(drifted.stdout).toContain("+AmbientCapabilities=CAP_NET_BIND_SERVICE");
    expect((await service("uninstall")).code).toBe(0);
    expect([existsSync(unit), existsSync(config)]).toEqual([false, true]);
    expect(() => lstatSync(wanted)).toThrow("ENOENT");
  });

  test("install takes only a configuration of that system", async () => {
    const root = scratch();
    const config = join(scratch(), "config.yaml");
    writeFileSync(config, SERVICE_CONFIG);
    const { code, stderr } = await runBinary(["service", "install", "--root", root, "-c", config]);
    expect(code).toBe(2);
    expect(stderr).toContain("is not below");
    expect(readdirSync(root)).toEqual([]);
  });
});
