/**
 * `gatehouse demo`, against the executable: what it prints is what a newcomer pastes.
 *
 * Invariant: the printed lines are run as they are printed, by a shell.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { binaryPath, type Running, runBinary, startBinary } from "./support/binary.ts";

interface Shown {
  readonly status: number;
  readonly text: string;
}

/** Runs a line of the demo in a shell. */
async function shell(line: string): Promise<string> {
  const child = Bun.spawn(["sh", "-c", line], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "ignore",
  });
  const text = await child.stdout.text();
  expect(await child.exited).toBe(0);
  return text;
}

/** What a line of the demo shows. Without curl the same request is made from what the line says. */
async function show(line: string): Promise<Shown> {
  if (Bun.which("curl") !== null) {
    const text = await shell(line.replace(/^curl /, "curl -s -w '\\n%{http_code}' "));
    const at = text.lastIndexOf("\n");
    return { status: Number(text.slice(at + 1)), text: text.slice(0, at) };
  }
  console.log("there is no curl on this machine: the request is made with fetch instead");
  const headers = [...line.matchAll(/-H '([^:]+): ([^']+)'/g)].map(
    ([, name = "", value = ""]): [string, string] => [name, value],
  );
  const body = /-d '([^']+)'/.exec(line)?.[1];
  const url = /http:\S+$/.exec(line)?.[0] ?? "";
  const init = body === undefined ? { headers } : { headers, body, method: "POST" };
  const response = await fetch(url, init);
  return { status: response.status, text: await response.text() };
}

/** The demo with its explanation; ended with `stop`. */
async function startExplained(temporary: string) {
  const child = Bun.spawn([await binaryPath(), "demo", "--port", "0"], {
    env: { PATH: process.env.PATH ?? "", TMPDIR: temporary },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  const decoder = new TextDecoder();
  const reader = child.stdout.getReader();
  let said = "";
  while (!said.includes("Ctrl-C")) {
    const { value, done } = await reader.read();
    if (done) throw new Error(`the demo ended: ${said}${await child.stderr.text()}`);
    said += decoder.decode(value, { stream: true });
  }
  return { child, said };
}

describe("gatehouse demo", () => {
  let temporary = "";

  beforeAll(() => {
    temporary = mkdtempSync(join(tmpdir(), "gatehouse-demo-test-"));
  });

  afterAll(() => rmSync(temporary, { recursive: true, force: true }));

  test("the three printed lines show a refusal, an echo without the token and a streamed chat", async () => {
    const { child, said } = await startExplained(temporary);
    try {
      const token = /token +(\S+)/.exec(said)?.[1] ?? "";
      const lines = said.split("\n").flatMap((line) => /^ +(curl .+)$/.exec(line)?.[1] ?? []);
      expect(lines).toHaveLength(3);
      const [refused, echoed, chat] = await Promise.all(lines.map(show));
      expect(refused?.status).toBe(401);
      expect(echoed?.status).toBe(200);
      expect(echoed?.text).toContain('"path": "/echo"');
      expect(token.length).toBeGreaterThan(40);
      expect(echoed?.text).not.toContain(token);
      expect(chat?.status).toBe(200);
      expect(chat?.text.match(/^data: /gm)?.length).toBeGreaterThan(3);
      expect(chat?.text).toContain("data: [DONE]");
    } finally {
      child.kill("SIGTERM");
      await child.exited;
    }
    expect(child.exitCode).toBe(0);
  });

  test("with --json it prints one object and ends within a second, leaving nothing behind", async () => {
    const demo = await startBinary(["demo", "--json", "--port", "0"], {
      env: { TMPDIR: temporary },
    });
    const facts: unknown = JSON.parse(demo.stdout());
    expect(facts).toEqual({
      address: demo.url,
      token: expect.any(String),
      upstream: expect.stringMatching(/^http:\/\/127\.0\.0\.1:\d+$/),
    });
    expect((await fetch(`${demo.url}/health`)).status).toBe(200);
    const began = performance.now();
    demo.signal("SIGINT");
    const { code } = await demo.ended;
    expect(code).toBe(0);
    expect(performance.now() - began).toBeLessThan(1000);
    expect(readdirSync(temporary)).toEqual([]);
  });

  test("it ends within a second although an answer is being streamed", async () => {
    const demo = await startBinary(["demo", "--json", "--port", "0"], {
      env: { TMPDIR: temporary },
    });
    const { token } = JSON.parse(demo.stdout());
    const response = await fetch(`${demo.url}/v1/messages`, {
      method: "POST",
      headers: { "x-api-key": token },
      body: JSON.stringify({ stream: true, messages: [{ role: "user", content: "hello" }] }),
    });
    const reader = response.body?.getReader();
    expect(new TextDecoder().decode((await reader?.read())?.value)).toContain("message_start");
    const began = performance.now();
    const [{ code }] = await Promise.all([demo.stop(), reader?.cancel().catch(() => {})]);
    expect(code).toBe(0);
    expect(performance.now() - began).toBeLessThan(1000);
    expect(existsSync(temporary) && readdirSync(temporary)).toEqual([]);
  });

  test("a port that was asked for and is taken is an error, the default one gives way", async () => {
    const first: Running = await startBinary(["demo", "--json", "--port", "0"]);
    try {
      const port = first.address.split(":")[1] ?? "";
      const { code, stderr } = await runBinary(["demo", "--port", port]);
      expect(code).toBe(69);
      expect(stderr).toContain(`port ${port} is taken`);
    } finally {
      await first.stop();
    }
  });
});
