/** Where the file is looked for. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { join } from "node:path";
import { type TempDir, tempDir } from "../../test/support/config.ts";
import { findConfigFile } from "./find.ts";

let directory: TempDir;
beforeEach(() => {
  directory = tempDir();
});
afterEach(() => directory.remove());

test("the places are searched in order, and the first that has a file wins", () => {
  const { path: cwd } = directory;
  const env = { HOME: join(cwd, "home") };
  const searched = [
    join(cwd, "gatehouse.yaml"),
    join(cwd, "config.yaml"),
    join(cwd, "home/.config/gatehouse/config.yaml"),
    "/etc/gatehouse/config.yaml",
  ];
  expect(findConfigFile({ env, cwd }).searched).toEqual(searched);
  for (const name of ["home/.config/gatehouse/config.yaml", "config.yaml", "gatehouse.yaml"]) {
    directory.write(name, "");
    expect(findConfigFile({ env, cwd }).file).toBe(join(cwd, name));
  }
});

test("XDG_CONFIG_HOME takes the place of ~/.config, and a relative one is ignored", () => {
  const { path: cwd } = directory;
  const env = { HOME: "/home/x", XDG_CONFIG_HOME: "/xdg" };
  expect(findConfigFile({ env, cwd }).searched).toContain("/xdg/gatehouse/config.yaml");
  expect(findConfigFile({ env: { XDG_CONFIG_HOME: "xdg" }, cwd }).searched).toHaveLength(3);
});

test("GATEHOUSE_CONFIG is the answer even if the file does not exist", () => {
  const { path: cwd } = directory;
  directory.write("gatehouse.yaml", "");
  const found = findConfigFile({ env: { GATEHOUSE_CONFIG: "other.yaml" }, cwd });
  expect(found).toEqual({ file: join(cwd, "other.yaml"), searched: [join(cwd, "other.yaml")] });
  expect(findConfigFile({ env: { GATEHOUSE_CONFIG: " " }, cwd }).file).toBe(
    join(cwd, "gatehouse.yaml"),
  );
});
