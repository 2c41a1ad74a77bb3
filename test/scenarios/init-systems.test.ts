/**
 * What `init` recognises, which ways in it sets up, and what its proof finds: one server, one strategy after the other.
 *
 * Invariant: servers are recognised by what they answer, on whatever port; a grade is never better than what came back.
 */
import { afterAll, afterEach, beforeEach, describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parse } from "yaml";
import { createDatabase } from "../../plugins/routstrd/daemon.fixture.ts";
import { runBinary } from "../support/binary.ts";
import {
  codesOf,
  type InitAnswer,
  type InitPlace,
  initJson,
  initPlace,
  runInit,
} from "../support/init.ts";
import { newKey } from "../support/nostr.ts";
import { anvilStandIn } from "../support/standins/anvil.ts";
import { authsomeStandIn } from "../support/standins/authsome.ts";
import { dextoStandIn } from "../support/standins/dexto.ts";
import { llamaCppStandIn } from "../support/standins/llama-cpp.ts";
import { ollamaStandIn } from "../support/standins/ollama.ts";
import {
  lmStudioStandIn,
  openaiLikeStandIn,
  openWebUiStandIn,
  plainStandIn,
  routstrdStandIn,
} from "../support/standins/others.ts";
import { vllmStandIn } from "../support/standins/vllm.ts";
import { A_KEY, GOOD_CERTIFICATE } from "../support/tls-fixtures.ts";
import { startValkey, TEST_SALT, valkeyMissing } from "../support/valkey.ts";

const KEY = "the-upstreams-own-key-0123";
const ollama = ollamaStandIn();
const servers = {
  vllm: vllmStandIn(),
  keyedVllm: vllmStandIn(KEY),
  llama: llamaCppStandIn(KEY),
  dexto: dextoStandIn(KEY),
  authsome: authsomeStandIn(),
  lmStudio: lmStudioStandIn(),
  openWebUi: openWebUiStandIn(),
  routstrd: routstrdStandIn(),
  plain: plainStandIn(),
  openaiLike: openaiLikeStandIn(),
};
const anvil = anvilStandIn(KEY);
afterAll(async () => {
  await ollama.stop();
  for (const server of Object.values(servers)) await server.stop();
  await anvil.stop();
});

let place: InitPlace;
beforeEach(() => {
  place = initPlace();
});
afterEach(() => place.remove());

interface Written {
  readonly server: Record<string, unknown>;
  readonly strategies: Record<string, Record<string, unknown>>;
  readonly upstreams: Record<string, Record<string, unknown>>;
  readonly routes: readonly { readonly preset: string; readonly with: Record<string, unknown> }[];
}

function written({ config }: InitAnswer): Written {
  return parse(readFileSync(config, "utf8")) as Written;
}

const FREE = ["--listen", "127.0.0.1:0"];

describe("recognised by what it answers", () => {
  const cases: readonly (readonly [string, string, string, string])[] = [
    ["Ollama", ollama.url, "ollama", "ollama"],
    ["vLLM", servers.vllm.url, "vllm", "vllm"],
    ["LM Studio", servers.lmStudio.url, "lm-studio", "generic"],
    ["Open WebUI", servers.openWebUi.url, "open-webui", "generic"],
    ["Authsome", servers.authsome.url, "authsome", "authsome"],
    ["any HTTP service", servers.plain.url, "app", "generic"],
    ["an OpenAI-compatible server", servers.openaiLike.url, "app", "generic"],
  ];
  for (const [title, url, name, preset] of cases) {
    test(title, async () => {
      const answer = await initJson(place, ...FREE, "--upstream", url);
      const { upstreams, routes } = written(answer);
      expect(upstreams).toEqual({
        [name]: { url, ...(preset === "ollama" ? {} : upstreams[name]) },
      });
      expect(routes.map((route) => route.preset)).toEqual([preset]);
      expect(answer.grade).toBe("A");
      expect(codesOf(answer).slice(0, 3)).toEqual(["refused", "refused", "let_through"]);
    });
  }

  const keyed: readonly (readonly [string, string, string, string])[] = [
    ["llama.cpp with a key", servers.llama.url, "llama-cpp", "LLAMA_API_KEY"],
    ["vLLM with a key", servers.keyedVllm.url, "vllm", "VLLM_API_KEY"],
    ["Dexto", servers.dexto.url, "dexto", "DEXTO_SERVER_API_KEY"],
    ["anvil-serving", `http://${anvil.address}`, "anvil", "ANVIL_ROUTER_TOKEN"],
  ];
  for (const [title, url, name, variable] of keyed) {
    test(`${title}: its own key goes into a file, and is wanted before anything is made`, async () => {
      const before = place.tree();
      const without = await runInit(
        place,
        "--yes",
        "--no-service",
        "--dir",
        place.dir,
        "--upstream",
        url,
        ...FREE,
      );
      expect(without.stderr).toContain(`Set ${variable}, or name a file: --key-file FILE`);
      expect(without.code).toBe(2);
      expect(place.tree()).toEqual(before);
      const file = place.write("key.txt", `${KEY}\n`);
      const answer = await initJson(place, ...FREE, "--upstream", url, "--key-file", file);
      expect(answer.grade).toBe("A");
      const { upstreams } = written(answer);
      expect(JSON.stringify(upstreams[name])).toContain(`\${file:./secrets/${name}-key}`);
      expect(readFileSync(answer.config, "utf8")).not.toContain(KEY);
    });
  }

  test("a vendor by its name; nothing is asked of it but whether it is there", async () => {
    const { code, stderr } = await runInit(
      place,
      ...[
        "--yes",
        "--no-service",
        "--dir",
        place.dir,
        ...FREE,
        "--upstream",
        "https://api.openai.com",
        "--offline",
      ],
    );
    expect({ code, stderr }).toMatchObject({ code: 2 });
    expect(stderr).toContain("OpenAI's API at https://api.openai.com wants a key of its own");
  });

  test("a gateway on a socket of this machine", async () => {
    const path = join(place.home, "app.sock");
    const server = Bun.serve({ unix: path, fetch: () => new Response("hello") });
    const answer = await initJson(place, ...FREE, "--upstream", `unix:${path}`);
    await server.stop(true);
    expect(answer.grade).toBe("A");
  });
});

describe("who may enter", () => {
  test("npubs: the proof signs with a key that is gone afterwards", async () => {
    const { npub } = newKey();
    const answer = await initJson(
      place,
      ...FREE,
      "--upstream",
      ollama.url,
      "--access",
      "npubs",
      "--npub",
      npub,
    );
    expect(answer).toMatchObject({ token: null, id: null, grade: "A" });
    expect(codesOf(answer)).toContain("let_through");
    expect(written(answer).strategies.nostr).toEqual({ use: "nip98", admins: [npub] });
    expect(written(answer).server.public_url).toBe(answer.url);
    const { stdout } = await runBinary(["npub", "list", "-c", answer.config, "--json"], {
      env: place.env,
    });
    expect(JSON.parse(stdout)).toMatchObject([{ npub, role: "admin" }]);
    expect(JSON.parse(stdout)).toHaveLength(1);
  });

  test("npubs without one: nobody could enter", async () => {
    const { code, stderr } = await runInit(
      place,
      ...[
        "--yes",
        "--no-service",
        "--dir",
        place.dir,
        ...FREE,
        "--upstream",
        ollama.url,
        "--access",
        "npubs",
      ],
    );
    expect({ code, stderr: stderr.trim() }).toMatchObject({ code: 2 });
    expect(stderr).toContain("--npub NPUB");
  });

  test("a static token, made here or taken from the shell", async () => {
    const made = await initJson(place, ...FREE, "--upstream", ollama.url, "--access", "static");
    expect(made.token).toMatch(/^[0-9a-f]{64}$/);
    expect(made.grade).toBe("A");
    const other = {
      ...place,
      env: { ...place.env, MY_TOKEN: "a-token-that-i-have-already" },
      dir: join(place.home, "other"),
    };
    const taken = await initJson(
      other,
      ...[...FREE, "--upstream", ollama.url, "--access", "static", "--set", "static.env=MY_TOKEN"],
    );
    expect(taken).toMatchObject({ token: null, grade: "A" });
    expect(readFileSync(join(other.dir, "secrets", "ops-token"), "utf8")).toBe(
      "a-token-that-i-have-already\n",
    );
  });

  test("an issuer: what cannot be tried is said", async () => {
    const settings = ["oidc.issuer=https://id.example.com", "oidc.audience=llm"];
    const answer = await initJson(
      place,
      ...[...FREE, "--upstream", ollama.url, "--access", "oidc"],
      ...settings.flatMap((setting) => ["--set", setting]),
    );
    expect(answer).toMatchObject({ token: null, grade: "A" });
    expect(codesOf(answer)).toEqual(["refused", "refused", "not_tried", "upstream_hidden"]);
  });

  if (valkeyMissing !== null) {
    test(`Valkey (not run: ${valkeyMissing})`, () => {});
  } else {
    test("Valkey: the token lies there, and goes when it is undone", async () => {
      const valkey = await startValkey();
      const env = { ...place.env, SALT: TEST_SALT };
      const withSalt = { ...place, env };
      const answer = await initJson(
        withSalt,
        ...[...FREE, "--upstream", ollama.url, "--access", "valkey"],
        ...[
          "--set",
          `valkey.url=redis://127.0.0.1:${valkey.port}`,
          "--set",
          "valkey.salt=${env:SALT}",
        ],
      );
      expect(answer.grade).toBe("A");
      const list = async (): Promise<readonly { revoked_at: string | null }[]> => {
        const { stdout } = await runBinary(["token", "list", "-c", answer.config, "--json"], {
          env,
        });
        return JSON.parse(stdout);
      };
      expect(await list()).toHaveLength(1);
      const copy = place.write(
        "copy.yaml",
        readFileSync(answer.config, "utf8").replace("./secrets", `${place.home}/kept`),
      );
      place.write("kept/keys-salt", `${TEST_SALT}\n`);
      const undone = await runInit(withSalt, "--undo", "--yes", "--dir", place.dir);
      expect(undone.stdout).toContain("removed token ");
      const { stdout } = await runBinary(["token", "list", "-c", copy, "--json"], { env });
      expect(
        JSON.parse(stdout).filter((one: { revoked_at: string | null }) => one.revoked_at === null),
      ).toEqual([]);
    });
  }

  test("two ways in and two upstreams, each with its host name", async () => {
    const file = place.write(
      "answers.yaml",
      `upstreams:
  - { url: "${ollama.url}", host: ollama.localhost }
  - { url: "${servers.authsome.url}", host: vault.localhost }
access: [tokens, static]
listen: 127.0.0.1:0
`,
    );
    const answer = await initJson(place, "--answers", file);
    expect(answer.grade).toBe("A");
    const { strategies, routes } = written(answer);
    expect(Object.keys(strategies).sort()).toEqual([
      "authsome-ops",
      "authsome-team",
      "ops",
      "team",
    ]);
    expect(strategies["authsome-team"]).toMatchObject({
      header: "x-gatehouse-key",
      authorization: false,
    });
    expect(routes.map((route) => route.with.host)).toEqual(["ollama.localhost", "vault.localhost"]);
  });

  test("two upstreams without host names, or with one for both", async () => {
    const two = [
      "--yes",
      "--no-service",
      "--dir",
      place.dir,
      "--upstream",
      ollama.url,
      "--upstream",
      `b=${servers.plain.url}`,
    ];
    const { code, stderr } = await runInit(place, ...two);
    expect({ code, stderr }).toMatchObject({ code: 2 });
    expect(stderr).toContain("each needs a host name of its own, and ollama has none");
  });

  test("a routstrd daemon: its own database, and members by npub", async () => {
    const database = join(place.home, ".routstrd", "routstr.db");
    place.write(".routstrd/.keep", "");
    createDatabase(database, { clients: [] });
    const { npub } = newKey();
    const answer = await initJson(
      place,
      ...FREE,
      "--upstream",
      servers.routstrd.url,
      "--npub",
      npub,
    );
    expect(answer).toMatchObject({ token: null, grade: "A" });
    expect(codesOf(answer)).toContain("let_through");
    const { strategies, routes } = written(answer);
    expect(strategies).toMatchObject({
      clients: { use: "routstrd", database },
      members: { use: "nip98", database, admins: [npub] },
    });
    expect(routes).toMatchObject([
      { preset: "routstrd", with: { bearer: "clients", nostr: "members" } },
    ]);
  });
});

describe("where clients connect", () => {
  test("behind a proxy: its address is believed, and clients have theirs", async () => {
    const answer = await initJson(
      place,
      ...[
        ...FREE,
        "--upstream",
        ollama.url,
        "--clients",
        "proxy",
        "--public-url",
        "https://llm.example.com",
      ],
    );
    expect(answer).toMatchObject({ url: "https://llm.example.com", grade: "A" });
    expect(written(answer).server).toMatchObject({
      public_url: "https://llm.example.com",
      trusted_proxies: ["127.0.0.1/32", "::1/128"],
    });
  });

  test("anywhere, with TLS", async () => {
    const files = [
      "--tls-cert",
      place.write("cert.pem", GOOD_CERTIFICATE),
      "--tls-key",
      place.write("key.pem", A_KEY),
    ];
    const answer = await initJson(
      place,
      ...[
        "--upstream",
        ollama.url,
        "--clients",
        "public",
        "--domain",
        "localhost",
        ...files,
        "--listen",
        "0.0.0.0:0",
      ],
    );
    expect(answer.grade).toBe("A");
    expect(answer.url).toMatch(/^https:\/\/localhost:\d+$/);
  });

  test("anywhere, without: it is said, and how to mend it", async () => {
    const answer = await initJson(place, "--upstream", ollama.url, "--listen", "0.0.0.0:0");
    expect(answer.grade).toBe("C");
    expect(answer.checks).toContainEqual(
      expect.objectContaining({ code: "in_clear", severity: "warning" }),
    );
  });
});

test("a model server that listens everywhere is reachable past the gateway: it says so, and what to do", async () => {
  if (!existsSync("/proc/net/tcp")) return console.log("not run: there is no /proc/net/tcp");
  const open = Bun.serve({
    hostname: "0.0.0.0",
    port: 0,
    fetch: () => new Response("Ollama is running"),
  });
  const answer = await initJson(place, ...FREE, "--upstream", `http://127.0.0.1:${open.port}`);
  const { port } = open;
  await open.stop(true);
  const [exposed] = answer.checks.filter(({ code }) => code === "upstream_exposed");
  expect(exposed?.what).toContain(`0.0.0.0:${port}`);
  expect(exposed?.next).toContain("OLLAMA_HOST=127.0.0.1");
  expect(["C", "F"]).toContain(answer.grade);
  // A public address of this machine makes it worse.
  expect(exposed?.severity).toBe(answer.grade === "F" ? "error" : "warning");
});
