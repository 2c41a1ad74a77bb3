/** `clients`, against a server that checks signatures with nostr-tools and answers as routstrd-auth does. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { unpackEventFromToken, validateToken } from "nostr-tools/nip98";
import { newKey, sha256 } from "../../test/support/nostr.ts";
import { EXIT, OperatorError } from "../errors.ts";
import { clientsAdd, clientsDelete, clientsList } from "./clients.ts";
import type { CliContext } from "./context.ts";

const ALICE = newKey();
const KEY = `sk-${"ab".repeat(24)}`;
const CLIENT = {
  id: "laptop",
  name: "My \u001b[31mLaptop",
  apiKey: KEY,
  createdAt: 1_767_225_600_000,
  ownerNpub: ALICE.npub,
};

let server: ReturnType<typeof Bun.serve>;
let answer: (request: Request, body: string) => Response;
let seen: string[];
let out: string;
let err: string;

beforeAll(() => {
  server = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    async fetch(request) {
      const body = await request.text();
      const { pathname } = new URL(request.url);
      seen.push(`${request.method} ${pathname} ${body}`);
      const token = request.headers.get("authorization") ?? "";
      const url = `http://127.0.0.1:${server.port}${pathname}`;
      if (!(await validateToken(token, url, request.method)))
        return new Response("bad", { status: 400 });
      const event = await unpackEventFromToken(token);
      const payload = event.tags.find(([name]) => name === "payload")?.[1];
      if (payload !== (body === "" ? undefined : sha256(body)))
        return new Response("payload", { status: 400 });
      return answer(request, body);
    },
  });
});
afterAll(() => server.stop(true));
beforeEach(() => {
  seen = [];
  out = "";
  err = "";
  answer = () => Response.json({ output: { clients: [CLIENT], totalCount: 1 } });
});

function context(env: Record<string, string> = {}): CliContext {
  return {
    version: "0.0.0",
    plugins: [],
    env: { NOSTR_NSEC: ALICE.nsec, ROUTSTRD_AUTH_URL: `http://127.0.0.1:${server.port}/`, ...env },
    cwd: "/",
    stdinIsTerminal: false,
    stdoutIsTerminal: false,
    out(text) {
      out += text;
    },
    err(text) {
      err += text;
    },
    readStdin: async () => "",
    stop: new AbortController().signal,
  };
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

describe("clients list", () => {
  test("is a table without keys and without what would move the cursor", async () => {
    expect(await clientsList(context(), {})).toBe(EXIT.ok);
    expect(seen).toEqual(["GET /clients "]);
    expect(out).toContain("laptop");
    expect(out).toContain("2026-01-01");
    expect(out).toContain("…abab");
    expect(out).not.toContain(KEY);
    expect(out).not.toContain("\u001b");
  });

  test("shows keys when it is asked to, and is JSON with --json", async () => {
    await clientsList(context(), { showKeys: true });
    expect(out).toContain(KEY);
    out = "";
    await clientsList(context(), { json: true });
    expect(JSON.parse(out)).toEqual([
      {
        id: "laptop",
        name: CLIENT.name,
        created_at: "2026-01-01T00:00:00Z",
        last_used_at: null,
        owner: ALICE.npub,
      },
    ]);
  });
});

describe("clients add and delete", () => {
  test("the new key is alone on standard output", async () => {
    answer = () => Response.json({ output: { message: "ok", client: CLIENT } });
    expect(await clientsAdd(context(), { name: "My  Laptop!" })).toBe(EXIT.ok);
    expect(seen).toEqual(['POST /clients/add {"name":"My  Laptop!","id":"my-laptop"}']);
    expect(out).toBe(`${KEY}\n`);
    expect(err).toContain("laptop");
    await clientsAdd(context(), { name: "x", id: "other" });
    expect(seen[1]).toContain('"id":"other"');
    expect((await refusal(() => clientsAdd(context(), { name: "!!" }))).exitCode).toBe(EXIT.usage);
  });

  test("delete names the id", async () => {
    answer = () => Response.json({ output: { message: "ok", id: "laptop" } });
    expect(await clientsDelete(context(), { id: "laptop" })).toBe(EXIT.ok);
    expect(seen).toEqual(['POST /clients/delete {"id":"laptop"}']);
    expect(out).toBe("");
  });
});

describe("troubles", () => {
  test.each<[string, () => Response, number, string]>([
    [
      "401",
      () => Response.json({ error: "clock\u001b[2J" }, { status: 401 }),
      EXIT.permission,
      "clock",
    ],
    ["403", () => Response.json({ error: "no" }, { status: 403 }), EXIT.permission, "403: no"],
    ["409", () => Response.json({ error: "twice" }, { status: 409 }), EXIT.failure, "twice"],
    ["a problem", () => Response.json({ detail: "why" }, { status: 503 }), EXIT.failure, "why"],
    ["text", () => new Response("Upstream unreachable", { status: 502 }), EXIT.failure, "502"],
    ["a redirect", () => Response.redirect("http://127.0.0.1:9/"), EXIT.failure, "302"],
    ["200 with an error", () => Response.json({ error: "odd" }), EXIT.failure, "odd"],
    ["200 with text", () => new Response("hello"), EXIT.failure, "200"],
    ["another shape", () => Response.json({ output: { clients: {} } }), EXIT.failure, "right URL"],
  ])("%s", async (_, reply, exitCode, text) => {
    answer = reply;
    const error = await refusal(() => clientsList(context(), {}));
    expect(error.exitCode).toBe(exitCode as 1);
    expect(error.message).toContain(text);
    expect(error.message).not.toContain("\u001b");
  });

  test("nobody there, no URL, a URL that is none", async () => {
    const down = await refusal(() => clientsList(context(), { url: "http://127.0.0.1:9" }));
    expect(down.exitCode).toBe(EXIT.unavailable);
    const none = await refusal(() => clientsList(context({ ROUTSTRD_AUTH_URL: "" }), {}));
    expect(none.message).toContain("ROUTSTRD_AUTH_URL");
    for (const url of ["llm.example.com", "https://h/?a", "https://u@h/"]) {
      expect((await refusal(() => clientsList(context(), { url }))).exitCode).toBe(EXIT.usage);
    }
  });
});
