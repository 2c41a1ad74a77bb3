/** The unit: what is in it for which configuration, and what systemd's own tools say about it. */
import { describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { scratch } from "../../../test/support/gateway.ts";
import {
  NO_SYSTEMD_ANALYZE,
  SERVICE_CONFIG,
  type ServiceParts,
  serviceParts,
  systemdAnalyze,
} from "../../../test/support/service.ts";
import { systemUnit, userUnit } from "./systemd-unit.ts";

if (NO_SYSTEMD_ANALYZE !== null) process.stderr.write(`units: not judged, ${NO_SYSTEMD_ANALYZE}\n`);

/** The values of a key, in order. */
function values(unit: string, key: string): string[] {
  return unit
    .split("\n")
    .filter((line) => line.startsWith(`${key}=`))
    .map((line) => line.slice(key.length + 1));
}

const unitOf = async (...args: Parameters<typeof serviceParts>): Promise<string> => {
  const parts = await serviceParts(...args);
  return systemUnit(parts, parts.places);
};

const listening = (listen: string, more = ""): string =>
  SERVICE_CONFIG.replace("{ listen: 127.0.0.1:8008 }", `{ listen: ${listen} ${more} }`);

describe("A system unit", () => {
  test("is told when the gateway is ready, watches it, and does not retry a wrong configuration", async () => {
    const unit = await unitOf();
    expect(values(unit, "Type")).toEqual(["notify"]);
    expect(values(unit, "NotifyAccess")).toEqual(["main"]);
    expect(values(unit, "WatchdogSec")).toEqual(["30s"]);
    expect(values(unit, "Restart")).toEqual(["on-failure"]);
    expect(values(unit, "RestartPreventExitStatus")).toEqual(["78"]);
    expect(values(unit, "ExecStart")).toEqual([
      "/usr/bin/gatehouse serve -c /etc/gatehouse/config.yaml",
    ]);
    expect(values(unit, "ExecReload")).toEqual([
      "/usr/bin/gatehouse reload -c /etc/gatehouse/config.yaml",
    ]);
  });

  test("never switches the just-in-time compiler off", async () => {
    expect(await unitOf()).not.toContain("MemoryDenyWriteExecute");
  });

  test("waits longer for the end than the gateway itself", async () => {
    const unit = await unitOf(listening("127.0.0.1:8008", ", drain: 2m"));
    const [stop = ""] = values(unit, "TimeoutStopSec");
    // The drain, 5 s for each strategy to close and 1 s for close frames.
    expect(Number(stop.replace("s", ""))).toBeGreaterThan(120 + 5 + 1);
  });

  test("runs without any capability, and with one exactly when a port is low or it was asked for", async () => {
    const capabilities = async (...args: Parameters<typeof serviceParts>) => {
      const unit = await unitOf(...args);
      return [...values(unit, "CapabilityBoundingSet"), ...values(unit, "AmbientCapabilities")];
    };
    const bind = "CAP_NET_BIND_SERVICE";
    expect(await capabilities()).toEqual(["", ""]);
    expect(await capabilities(listening("127.0.0.1:1024"))).toEqual(["", ""]);
    expect(await capabilities(listening("127.0.0.1:0"))).toEqual(["", ""]);
    expect(await capabilities(listening('["127.0.0.1:8008", ":443"]'))).toEqual([bind, bind]);
    expect(await capabilities(SERVICE_CONFIG, { lowPorts: true })).toEqual([bind, bind]);
  });

  test("has an account and a state directory of its own", async () => {
    const unit = await unitOf();
    expect(values(unit, "DynamicUser")).toEqual(["yes"]);
    expect(values(unit, "User")).toEqual(["gatehouse"]);
    expect(values(unit, "StateDirectory")).toEqual(["gatehouse"]);
    expect(values(unit, "StateDirectoryMode")).toEqual(["0700"]);
    expect(values(unit, "RuntimeDirectory")).toEqual(["gatehouse"]);
    expect(values(unit, "ConfigurationDirectory")).toEqual(["gatehouse"]);
    expect(values(unit, "ReadWritePaths")).toEqual([]);
    expect(values(unit, "UMask")).toEqual(["0077"]);
  });

  test("opens a state directory elsewhere for an account that can own it", async () => {
    const text = SERVICE_CONFIG.replace("/var/lib/gatehouse", "/srv/my gate/state");
    const unit = await unitOf(text, { account: "gate" });
    expect(values(unit, "User")).toEqual(["gate"]);
    expect(values(unit, "DynamicUser")).toEqual([]);
    expect(values(unit, "StateDirectory")).toEqual([]);
    expect(values(unit, "ReadWritePaths")).toEqual(['"/srv/my gate/state"']);
  });

  test("writes percent signs so that systemd does not read them as its own", async () => {
    const unit = await unitOf(SERVICE_CONFIG, { config: "/etc/gate%h/my config.yaml" });
    expect(values(unit, "ExecStart")).toEqual([
      '/usr/bin/gatehouse serve -c "/etc/gate%%h/my config.yaml"',
    ]);
  });

  test("passes credentials, sealed ones too, and no environment but the file that was named", async () => {
    const parts = await serviceParts(SERVICE_CONFIG, { environmentFile: "/etc/gatehouse/env" });
    const credentials = [
      { name: "api-key", path: "/etc/gatehouse/credentials/api-key", isEncrypted: false },
      { name: "salt", path: "/etc/gatehouse/credentials/salt.cred", isEncrypted: true },
    ];
    const unit = systemUnit({ ...parts, credentials }, parts.places);
    expect(values(unit, "LoadCredential")).toEqual(["api-key:/etc/gatehouse/credentials/api-key"]);
    expect(values(unit, "LoadCredentialEncrypted")).toEqual([
      "salt:/etc/gatehouse/credentials/salt.cred",
    ]);
    expect(values(unit, "EnvironmentFile")).toEqual(["/etc/gatehouse/env"]);
    expect(values(unit, "Environment")).toEqual([]);
  });

  test("hides home directories, but for what the configuration names in them", async () => {
    expect(values(await unitOf(), "ProtectHome")).toEqual(["yes"]);
    const text = SERVICE_CONFIG.replace("use: bearer-sqlite", "use: static-env, file: ./tokens");
    const unit = await unitOf(text, { config: "/home/alice/gate/config.yaml" });
    expect(values(unit, "ProtectHome")).toEqual(["tmpfs"]);
    expect(values(unit, "BindReadOnlyPaths")).toEqual([
      "-/home/alice/gate/config.yaml",
      "-/home/alice/gate/tokens",
    ]);
    expect(unit).toContain("# Note: home directories are hidden");
  });

  test("is the same text every time", async () => {
    expect(await unitOf()).toBe(await unitOf());
  });
});

/** Everything that a unit can hold, for systemd to judge. */
const CASES: readonly (readonly [string, Parameters<typeof serviceParts>])[] = [
  ["the usual one", []],
  ["one on port 443 and a socket", [listening('[":443", "unix:/run/gatehouse/g.sock"]')]],
  ["one with an account", [SERVICE_CONFIG.replace("/var/lib/", "/srv/a b%/"), { account: "gate" }]],
  ["one with a home", [SERVICE_CONFIG, { config: "/home/a b/gate/config.yaml" }]],
];

describe.skipIf(NO_SYSTEMD_ANALYZE !== null)("systemd, asked about a system unit,", () => {
  const written = (parts: ServiceParts): string => {
    const path = join(scratch(), "gatehouse.service");
    // The executable must be one that is there.
    const input = { ...parts.input, exec: process.execPath };
    const credentials = [
      { name: "key", path: "/etc/gatehouse/credentials/key", isEncrypted: true },
    ];
    writeFileSync(path, systemUnit({ ...parts, input, credentials }, parts.places));
    return path;
  };

  test.each(CASES)("finds nothing wrong with %s", async (_, args) => {
    const path = written(await serviceParts(...args));
    expect(systemdAnalyze("verify", "--man=no", path)).toEqual({ code: 0, said: "" });
  });

  test.each(CASES)("calls the exposure of %s 1.5 at most", async (_, args) => {
    const path = written(await serviceParts(...args));
    const { said } = systemdAnalyze("security", "--offline=true", path);
    const exposure = /Overall exposure level for \S+: ([\d.]+)/.exec(said)?.[1];
    expect(Number(exposure)).toBeLessThanOrEqual(1.5);
  });

  test("finds nothing wrong with a user unit", async () => {
    const parts = await serviceParts(SERVICE_CONFIG, { scope: "user", exec: process.execPath });
    const path = join(scratch(), "gatehouse.service");
    writeFileSync(path, userUnit(parts));
    const { code, said } = systemdAnalyze("--user", "verify", "--man=no", path);
    expect({ code, said }).toEqual({ code: 0, said: "" });
  });

  test("does complain when there is something to complain about", async () => {
    const path = written(await serviceParts());
    writeFileSync(path, (await Bun.file(path).text()).replace("UMask=", "UMusk="));
    expect(systemdAnalyze("verify", "--man=no", path).said).toContain("UMusk");
  });
});

describe("A user unit", () => {
  test("has the filters that need no root, and nothing that does", async () => {
    const unit = userUnit(await serviceParts(SERVICE_CONFIG, { scope: "user" }));
    expect(values(unit, "SystemCallFilter")[0]).toBe("@system-service");
    expect(values(unit, "NoNewPrivileges")).toEqual(["yes"]);
    expect(values(unit, "WantedBy")).toEqual(["default.target"]);
    for (const key of ["User", "DynamicUser", "ProtectSystem", "CapabilityBoundingSet", "Wants"]) {
      expect(values(unit, key)).toEqual([]);
    }
  });
});
