/**
 * The service files in packaging/ are what this version prints for a plain configuration. After a change that is
 * meant: UPDATE_PACKAGING=1 node scripts/bun.mjs test src/cli/service/packaging.test.ts
 */
import { describe, expect, test } from "bun:test";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { SERVICE_CONFIG, serviceParts } from "../../../test/support/service.ts";
import { launchdPlist } from "./launchd.ts";
import { openrcScript } from "./openrc.ts";
import { systemUnit } from "./systemd-unit.ts";

const PACKAGING = join(import.meta.dir, "../../../packaging");

const parts = await serviceParts();
const onMac = await serviceParts(
  SERVICE_CONFIG.replace("/var/lib/gatehouse", "/usr/local/var/gatehouse"),
  { exec: "/usr/local/bin/gatehouse", config: "/usr/local/etc/gatehouse/config.yaml" },
);

const FILES: readonly (readonly [string, string])[] = [
  ["systemd/gatehouse.service", systemUnit(parts, parts.places)],
  ["openrc/gatehouse", openrcScript(parts)],
  ["launchd/local.gatehouse.plist", launchdPlist(onMac)],
];

describe("packaging/", () => {
  test.each(FILES)("%s is what this version prints", (name, text) => {
    const path = join(PACKAGING, name);
    if (process.env.UPDATE_PACKAGING === "1") {
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(path, text);
    }
    expect(readFileSync(path, "utf8")).toBe(text);
  });
});
