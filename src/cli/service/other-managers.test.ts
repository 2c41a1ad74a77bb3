/** The files for OpenRC and launchd: what shells and property list readers say about them. */
import { describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { scratch } from "../../../test/support/gateway.ts";
import { SERVICE_CONFIG, serviceParts } from "../../../test/support/service.ts";
import { launchdPlist } from "./launchd.ts";
import { openrcScript } from "./openrc.ts";

const listening = (listen: string): string => SERVICE_CONFIG.replace("127.0.0.1:8008", listen);
const CREDENTIAL = SERVICE_CONFIG.replace('9000"', '9000", headers: { x-k: "${cred:key}" }');

function run(...command: [string, ...string[]]): { code: number; said: string } {
  const { exitCode, stdout, stderr } = Bun.spawnSync(command);
  return { code: exitCode, said: `${stdout}${stderr}` };
}

describe("The OpenRC script", () => {
  /** What the shell makes of it: variables, and the body of functions never run. */
  async function read(script: string, expression: string): Promise<string> {
    const path = join(scratch(), "gatehouse");
    writeFileSync(path, script);
    expect(run("sh", "-n", path)).toEqual({ code: 0, said: "" });
    return run("sh", "-c", `. "$0"; printf '%s' "${expression}"`, path).said;
  }

  test("is one for a shell, and starts the gateway as its account under a supervisor", async () => {
    const script = openrcScript(await serviceParts());
    expect(script).toStartWith("#!/sbin/openrc-run\n");
    const said = await read(script, "$supervisor|$command|$command_args|$command_user|$umask");
    expect(said).toBe(
      "supervise-daemon|/usr/bin/gatehouse|serve -c /etc/gatehouse/config.yaml|gatehouse:gatehouse|0077",
    );
    expect(await read(script, "$supervise_daemon_args|$capabilities")).toBe("--no-new-privs|");
    expect(await read(script, "$retry")).toBe("SIGTERM/45/SIGKILL/5");
  });

  test("asks for the capability that a low port takes, and makes the directory of a socket", async () => {
    const script = openrcScript(await serviceParts(listening('[":443", "unix:/run/gatehouse/s"]')));
    expect(await read(script, "$capabilities")).toBe("^cap_net_bind_service");
    expect(script).toContain('--owner "gatehouse:gatehouse" "/run/gatehouse"');
    expect(openrcScript(await serviceParts())).not.toContain("/run/gatehouse");
  });

  test("checks the configuration as the account before it starts", async () => {
    const script = openrcScript(await serviceParts(SERVICE_CONFIG, { account: "gate" }));
    expect(script).toContain(
      `su -s /bin/sh "gate" -c 'exec "/usr/bin/gatehouse" config validate -c "/etc/gatehouse/config.yaml"'`,
    );
  });

  test("is refused for what OpenRC does not have", async () => {
    const credential = await serviceParts(CREDENTIAL);
    expect(() => openrcScript(credential)).toThrow("OpenRC has no credentials");
    const blank = await serviceParts(SERVICE_CONFIG, { config: "/etc/my gate/config.yaml" });
    expect(() => openrcScript(blank)).toThrow("a path with a blank");
    const user = await serviceParts(SERVICE_CONFIG, { scope: "user" });
    expect(() => openrcScript(user)).toThrow("without --user");
  });
});

/** Readers of property lists, best first. */
const READERS: readonly (readonly [string, ...string[]])[] = [
  ["plutil", "-lint"],
  ["xmllint", "--noout", "--nonet"],
  ["python3", "-c", "import plistlib, sys; plistlib.load(open(sys.argv[1], 'rb'))"],
];
const reader = READERS.find(([program]) => Bun.which(program) !== null);
if (reader === undefined)
  process.stderr.write("launchd: no plutil, xmllint or python3 to read it\n");

describe("The launchd property list", () => {
  const fieldOf = (plist: string, key: string): string | undefined =>
    new RegExp(`<key>${key}</key>\\s*<(?:string|integer)>([^<]*)<`).exec(plist)?.[1];

  test("starts the gateway as its account, again after failures, with time to finish", async () => {
    const plist = launchdPlist(await serviceParts(listening("127.0.0.1:8008, drain: 60s")));
    expect(plist).toContain(
      "\t\t<string>/usr/bin/gatehouse</string>\n\t\t<string>serve</string>\n\t\t<string>-c</string>\n\t\t<string>/etc/gatehouse/config.yaml</string>\n",
    );
    expect(fieldOf(plist, "UserName")).toBe("_gatehouse");
    expect(fieldOf(plist, "Umask")).toBe(String(0o077));
    expect(fieldOf(plist, "ExitTimeOut")).toBe("75");
    expect(plist).toMatch(
      /<key>KeepAlive<\/key>\s*<dict>\s*<key>SuccessfulExit<\/key>\s*<false\/>/,
    );
  });

  test("of a user has no account", async () => {
    const plist = launchdPlist(await serviceParts(SERVICE_CONFIG, { scope: "user" }));
    expect(fieldOf(plist, "UserName")).toBeUndefined();
    expect(plist).toContain("~/Library/LaunchAgents/local.gatehouse.plist");
  });

  test.skipIf(reader === undefined)("is one, also with blanks in paths", async () => {
    const path = join(scratch(), "local.gatehouse.plist");
    const odd = { config: "/Users/a b/gate--way/config.yaml" } as const;
    for (const parts of [await serviceParts(), await serviceParts(SERVICE_CONFIG, odd)]) {
      writeFileSync(path, launchdPlist(parts));
      const { code, said } = run(...(reader ?? ["false"]), path);
      expect(code, said).toBe(0);
    }
    writeFileSync(path, launchdPlist(await serviceParts()).replace("</dict>", ""));
    expect(run(...(reader ?? ["true"]), path).code).not.toBe(0);
  });

  test("is refused for what launchd does not have", async () => {
    const credential = await serviceParts(CREDENTIAL);
    expect(() => launchdPlist(credential)).toThrow("passes no secrets");
    const low = await serviceParts(listening(":443"));
    expect(() => launchdPlist(low)).toThrow("does not run as root");
  });
});
