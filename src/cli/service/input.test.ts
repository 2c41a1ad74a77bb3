/** What may go into a unit, and what comes back out of one. */
import { describe, expect, test } from "bun:test";
import { SYSTEM_INPUT } from "../../../test/support/service.ts";
import { readInput, recordInput, serviceInput, whichService } from "./input.ts";

const at = { config: "/etc/gatehouse/config.yaml", self: "/usr/bin/gatehouse" };
const context = { cwd: "/work" };

describe("The input of a service", () => {
  test("is a system service called gatehouse of this executable, unless it is said otherwise", () => {
    expect(serviceInput(context, {}, at)).toEqual(SYSTEM_INPUT);
  });

  test("has absolute paths", () => {
    const input = serviceInput(
      context,
      { readWrite: ["data"], environmentFile: "env", exec: "./g", userAccount: "gate" },
      at,
    );
    expect(input).toMatchObject({
      readWrite: ["/work/data"],
      environmentFile: "/work/env",
      exec: "/work/g",
      account: "gate",
    });
  });

  test.each(["", "Gate", "gate house", "../x", "-x", "x@y", "gate.service", "x".repeat(32)])(
    "refuses the name %j",
    (name) => {
      expect(() => whichService(context, { name })).toThrow("--name takes");
    },
  );

  test.each(['/a"b', "/a'b", "/a\nExecStartPre=/bin/sh", "/a\\b", "/a:b", "/a$b", "/a;b", "/a`b`"])(
    "refuses the path %j, which a unit would read as something else",
    (path) => {
      for (const options of [{ exec: path }, { environmentFile: path }, { readWrite: [path] }]) {
        expect(() => serviceInput(context, options, at)).toThrow("means something else");
      }
      expect(() => serviceInput(context, {}, { ...at, config: path })).toThrow("something else");
    },
  );

  test("refuses root, accounts for user services, both scopes at once, and a root of another user", () => {
    expect(() => serviceInput(context, { userAccount: "root" }, at)).toThrow("not run as root");
    expect(() => serviceInput(context, { userAccount: "a b" }, at)).toThrow("name of an account");
    expect(() => serviceInput(context, { userAccount: "a", user: true }, at)).toThrow("system");
    expect(() => whichService(context, { system: true, user: true })).toThrow("exclude");
    expect(() => whichService(context, { user: true, root: "/x" })).toThrow("--root");
  });

  test("comes back from its record as it was", () => {
    const input = { ...SYSTEM_INPUT, account: "gate", lowPorts: true, readWrite: ["/srv/a b"] };
    const line = recordInput(input);
    expect(line).not.toContain("\n");
    expect(readInput(line)).toEqual(input);
  });

  test.each([
    "",
    "{}",
    "null",
    JSON.stringify({ ...SYSTEM_INPUT, exec: "/a\nb" }),
    JSON.stringify({ ...SYSTEM_INPUT, account: "$(id)" }),
    JSON.stringify({ ...SYSTEM_INPUT, more: 1 }),
  ])("is not read from the line %j", (line) => {
    expect(readInput(line)).toBeNull();
  });
});
