/** `healthcheck --url` against real servers; the configured address is tested with the executable. */
import { describe, expect, test } from "bun:test";
import { EXIT, OperatorError } from "../errors.ts";
import type { CliContext } from "./context.ts";
import { healthcheck } from "./healthcheck.ts";

async function check(url: string, json = false) {
  const said = { out: "", err: "" };
  const context: CliContext = {
    version: "0.0.0",
    plugins: [],
    env: {},
    cwd: "/",
    stdinIsTerminal: false,
    stdoutIsTerminal: false,
    out: (text) => {
      said.out += text;
    },
    err: (text) => {
      said.err += text;
    },
    readStdin: async () => "",
    stop: new AbortController().signal,
  };
  return { code: await healthcheck(context, { url, json }), ...said };
}

function serve(fetch: (request: Request) => Response | Promise<Response>) {
  return Bun.serve({ hostname: "127.0.0.1", port: 0, fetch });
}

describe("healthcheck", () => {
  test("200 is alive", async () => {
    await using server = serve(() => new Response("ok"));
    const { code, out } = await check(`http://127.0.0.1:${server.port}/healthz`);
    expect(code).toBe(EXIT.ok);
    expect(out).toMatch(/^alive: http:\/\/127\.0\.0\.1:\d+\/healthz \(\d+ ms\)\n$/);
  });

  test("any other status is a negative check, also one that would be followed", async () => {
    await using server = serve((request) =>
      new URL(request.url).pathname === "/moved"
        ? Response.redirect("/healthz", 302)
        : new Response("draining", { status: 503 }),
    );
    const base = `http://127.0.0.1:${server.port}`;
    expect(await check(`${base}/healthz`)).toMatchObject({ code: EXIT.negative, out: "" });
    const moved = await check(`${base}/moved`, true);
    expect(moved.code).toBe(EXIT.negative);
    expect(JSON.parse(moved.out)).toMatchObject({ alive: false, status: 302, problem: null });
  });

  test("nobody listening is a negative check that says so", async () => {
    const server = serve(() => new Response());
    const url = `http://127.0.0.1:${server.port}/`;
    await server.stop(true);
    const { code, err } = await check(url);
    expect(code).toBe(EXIT.negative);
    expect(err).toContain("ECONNREFUSED");
  });

  test("no answer ends after two seconds", async () => {
    await using server = serve(() => new Promise<Response>(() => {}));
    const began = performance.now();
    const { code, err } = await check(`http://127.0.0.1:${server.port}/`);
    expect(code).toBe(EXIT.negative);
    expect(err).toContain("no answer within 2000 ms");
    expect(performance.now() - began).toBeWithin(1900, 3000);
    await server.stop(true);
  });

  test.each([["ftp://127.0.0.1/"], ["nonsense"], ["http://me:secret@127.0.0.1/"]])(
    "%s is a usage error that does not repeat a credential",
    async (url) => {
      const error = await check(url).catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(OperatorError);
      expect(error).toMatchObject({ exitCode: EXIT.usage });
      expect(String(error)).not.toContain("secret");
    },
  );
});
