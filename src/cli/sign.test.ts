/** `sign`: the header is good for nostr-tools and for the strategy; keys come from anywhere but the arguments. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { unpackEventFromToken, validateToken } from "nostr-tools/nip98";
import plugin from "../../plugins/nip98/index.ts";
import { temporaryDirectory, testHost } from "../../test/support/host.ts";
import { newKey, sha256 } from "../../test/support/nostr.ts";
import { authRequest } from "../../test/support/request.ts";
import { EXIT, OperatorError } from "../errors.ts";
import type { CliContext } from "./context.ts";
import { runProgram } from "./program.ts";
import { type SignOptions, type SignSeams, sign } from "./sign.ts";

const ALICE = newKey();
const HEX = Buffer.from(ALICE.secret).toString("hex");
const URL = "https://llm.example.com/v1/chat?x=%2F";

let directory: string;
let out: string;

beforeEach(() => {
  directory = temporaryDirectory();
  out = "";
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

function context(env: Record<string, string> = {}, stdinIsTerminal = false): CliContext {
  return {
    version: "0.0.0",
    plugins: [plugin],
    env,
    cwd: directory,
    stdinIsTerminal,
    stdoutIsTerminal: false,
    out(text) {
      out += text;
    },
    err() {},
    readStdin: async () => "",
    stop: new AbortController().signal,
  };
}

async function header(options: Partial<SignOptions> = {}, seams: SignSeams = {}): Promise<string> {
  out = "";
  await sign(context({ NOSTR_NSEC: ALICE.nsec }), { method: "GET", url: URL, ...options }, seams);
  return out;
}

async function refusal(work: () => unknown): Promise<OperatorError> {
  try {
    await work();
  } catch (error) {
    if (error instanceof OperatorError) return error;
    throw error;
  }
  throw new Error("it was accepted");
}

function keyFile(text: string, mode = 0o600): string {
  writeFileSync(join(directory, "key"), text, { mode });
  return "key";
}

describe("the header", () => {
  test("is one line that curl takes and nostr-tools accepts", async () => {
    const line = await header({ method: "get" });
    expect(line).toMatch(/^Authorization: Nostr [A-Za-z0-9+/]+=*\n$/);
    const token = line.trim().replace("Authorization: ", "");
    expect(await validateToken(token, URL, "GET")).toBe(true);
    const event = await unpackEventFromToken(token);
    expect(event.pubkey).toBe(ALICE.pubkey);
    expect(event.tags.map(([name]) => name)).toEqual(["u", "method", "nonce"]);
  });

  test("differs each time, also within one second", async () => {
    const events = await Promise.all(
      [await header(), await header()].map((line) =>
        unpackEventFromToken(line.trim().replace("Authorization: ", "")),
      ),
    );
    expect(events[0]?.id).not.toBe(events[1]?.id);
  });

  test("holds the hash of the file, or of standard input, byte for byte", async () => {
    const bytes = new Uint8Array([0xef, 0xbb, 0xbf, 0x7b, 0x7d, 0xff, 0x0a]);
    writeFileSync(join(directory, "body"), bytes);
    for (const line of [
      await header({ method: "POST", body: "body" }),
      await header({ method: "POST", body: "-" }, { readBytes: async () => bytes }),
    ]) {
      const { tags } = await unpackEventFromToken(line.trim().replace("Authorization: ", ""));
      expect(tags).toContainEqual(["payload", sha256(bytes)]);
    }
  });

  test("passes the strategy", async () => {
    const host = testHost({ nowMs: Date.now() });
    const instance = await plugin.init(plugin.config.parse({ users: [ALICE.npub] }), host.host);
    writeFileSync(join(directory, "body"), "{}");
    const line = await header({ method: "POST", body: "body" });
    const authorization = line.trim().replace("Authorization: ", "");
    const request = { method: "POST", urls: [URL], body: "{}", headers: { authorization } };
    expect((await instance.authenticate(authRequest(request))).outcome).toBe("accept");
    await instance.close?.();
    host.dispose();
  });

  test("with --json it is an object", async () => {
    expect(JSON.parse(await header({ json: true })).authorization).toStartWith("Nostr ");
  });

  test.each([
    ["https://h.example", "https://h.example/"],
    ["https://h.example?a", "https://h.example/?a"],
    ["HTTP://H.example:80/a//b?c=%20", "HTTP://H.example:80/a//b?c=%20"],
    [`https://h.example/npubs/${ALICE.pubkey}`, `https://h.example/npubs/${ALICE.pubkey}`],
  ])("%s is signed as %s", async (url, expected) => {
    const line = await header({ url });
    const { tags } = await unpackEventFromToken(line.trim().replace("Authorization: ", ""));
    expect(tags[0]).toEqual(["u", expected]);
  });

  test.each([
    "llm.example.com/v1",
    "ftp://h.example/",
    "https://user:pass@h.example/",
    "https://h.example/#x",
    "https://h.example/a b",
    "https://h.example/é",
    "https://h.example/a/../b",
    "https://h.example/%2e%2e/b",
    "https:///a",
    "",
  ])("%p is no URL to sign", async (url) => {
    expect((await refusal(() => header({ url }))).exitCode).toBe(EXIT.usage);
  });

  test("a method that is none and a file that is not there are refused", async () => {
    expect((await refusal(() => header({ method: URL, url: "GET" }))).exitCode).toBe(EXIT.usage);
    expect((await refusal(() => header({ body: "none" }))).message).toContain("ENOENT");
  });
});

describe("the key", () => {
  const options = { method: "GET", url: URL };

  test("comes from a file, the environment or a question", async () => {
    const file = keyFile(`${ALICE.nsec}\n`);
    expect(await sign(context(), { ...options, keyFile: file })).toBe(EXIT.ok);
    expect(await sign(context({ NOSTR_NSEC: HEX.toUpperCase() }), options)).toBe(EXIT.ok);
    expect(await sign(context({ NOSTR_SECRET_KEY: ALICE.nsec }), options)).toBe(EXIT.ok);
    expect(await sign(context({}, true), options, { ask: async () => ALICE.nsec })).toBe(EXIT.ok);
    for (const line of out.trim().split("\n")) {
      const event = await unpackEventFromToken(line.replace("Authorization: ", ""));
      expect(event.pubkey).toBe(ALICE.pubkey);
    }
    expect((await refusal(() => sign(context(), options))).hint).toContain("gatehouse npub new");
  });

  test.each([0o644, 0o640, 0o604])("a file of mode %o is refused", async (mode) => {
    const error = await refusal(() =>
      sign(context(), { ...options, keyFile: keyFile(ALICE.nsec, mode) }),
    );
    expect(error.exitCode).toBe(EXIT.permission);
    expect(error.hint).toContain("chmod 600");
  });

  test.each([
    ["a public key", ALICE.npub],
    ["zero", "0".repeat(64)],
    ["the order of the curve", "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141"],
    ["a typo", ALICE.nsec.replace(/.$/, (last) => (last === "q" ? "p" : "q"))],
    ["nothing", ""],
    ["two keys", `${ALICE.nsec}\n${ALICE.nsec}`],
    ["10,000 characters", "a".repeat(10_000)],
  ])("a file with %s is refused without repeating it", async (_, text) => {
    const error = await refusal(() => sign(context(), { ...options, keyFile: keyFile(text) }));
    expect(error.exitCode).toBe(EXIT.usage);
    if (text.length > 10) expect(`${error.message} ${error.hint}`).not.toContain(text);
  });

  test("a file that is not there, or no file, is refused", async () => {
    for (const file of ["none", "."]) {
      const error = await refusal(() => sign(context(), { ...options, keyFile: file }));
      expect(error.exitCode).toBe(EXIT.usage);
    }
  });

  test.each([
    [["sign", "GET", URL, ALICE.nsec]],
    [["sign", "GET", URL, "--key-file", ALICE.nsec]],
    [["sign", "GET", URL, `--key-file=${ALICE.nsec}`]],
    [["sign", "GET", `${URL}&k=${ALICE.nsec.toUpperCase()}`]],
    [["sign", HEX]],
    [["sign", "GET", URL, "--key-file", HEX]],
    [["sign", "GET", URL, `--key=${HEX.toUpperCase()}`]],
    [["clients", "list", "--url", URL, "--key-file", HEX]],
    [["npub", "new", "--key-file", HEX]],
    [["npub", "add", ALICE.nsec]],
    [["token", "create", "--name", ALICE.nsec]],
    [[ALICE.nsec]],
  ])("is refused among the arguments, with advice and without an echo (%#)", async (args) => {
    let said = "";
    const say = (text: string) => {
      said += text;
    };
    const host = { out: say, err: say, context: async () => context() };
    const error = await refusal(() => runProgram(args, host));
    expect(error.exitCode).toBe(EXIT.usage);
    expect(error.hint).toContain("--key-file");
    for (const key of [ALICE.nsec, HEX]) {
      expect(`${said} ${error.message} ${error.hint}`.toLowerCase()).not.toContain(key);
    }
  });

  test("a public key among the arguments is fine where one belongs", async () => {
    const host = {
      out: () => {},
      err: () => {},
      context: async () => context({ NOSTR_NSEC: HEX }),
    };
    const url = `https://h.example/npubs/${ALICE.pubkey}`;
    expect(await runProgram(["sign", "DELETE", url], host)).toBe(EXIT.ok);
  });
});
