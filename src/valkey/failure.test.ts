/** What is said about a failure. */
import { expect, test } from "bun:test";
import { ValkeyError } from "../contract/valkey.ts";
import { failure } from "./failure.ts";

test("neither the command nor the rest of the server's words is passed on", () => {
  const error = Object.assign(new Error("ERR unknown command 'AUTH', with args: canary-pw"), {
    command: { name: "auth", args: ["canary-pw"] },
  });
  const found = failure("localhost:1", error);
  expect(found).toBeInstanceOf(ValkeyError);
  expect(Bun.inspect(found)).not.toContain("canary-pw");
  expect(found.code).toBe("ERR");
});

test.each<[string, () => unknown]>([
  ["ECONNREFUSED", () => Object.assign(new Error("connect"), { code: "ECONNREFUSED" })],
  ["WRONGPASS", () => new Error("WRONGPASS invalid username-password pair")],
  ["OFFLINE", () => new Error("Connection is closed.")],
  ["NOAUTH", () => Object.assign(new Error("x"), { lastNodeError: new Error("NOAUTH Auth") })],
  ["UNKNOWN", () => "no error at all"],
])("what means %s is said so, in our words", (code, make) => {
  const found = failure("10.0.0.5:6379", make());
  expect(found.code).toBe(code);
  expect(found.message).toMatch(new RegExp(`^valkey at 10\\.0\\.0\\.5:6379: .+ \\(${code}\\)$`));
});
