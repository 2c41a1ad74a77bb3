/**
 * The compose files: what they publish, what they allow, and whether the configurations that they mount do what the
 * files around them promise.
 *
 * Invariant: the executable judges every configuration, with the environment and secrets of its compose file; what is
 * not in front of the gateway is on an internal network.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { cpSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { parse } from "yaml";
import { z } from "zod";
import { type Running, runBinary, startBinary } from "./support/binary.ts";
import { removeScratch, scratchDirectory } from "./support/scratch.ts";
import { startValkey, type TestValkey, valkeyMissing } from "./support/valkey.ts";

const started: TestValkey[] = [];
afterAll(async () => {
  for (const valkey of started) await valkey.stop();
  removeScratch();
});

const ROOT = resolve(import.meta.dir, "..");
const COMPOSE = join(ROOT, "packaging/compose");
const NAMES = ["gateway", "ollama", "traefik"] as const;
type Name = (typeof NAMES)[number];
const QUIET = { stdout: "ignore", stderr: "ignore" } as const;

/** The keys that these files may use. One that is mistyped is found here, because compose ignores none but fails late. */
const service = z.strictObject({
  image: z.string(),
  build: z.strictObject({ context: z.string(), dockerfile: z.string() }).optional(),
  restart: z.enum(["unless-stopped", "no"]),
  profiles: z.array(z.string()).optional(),
  user: z.string().optional(),
  entrypoint: z.array(z.string()).optional(),
  command: z.array(z.string()).optional(),
  ports: z.array(z.string()).default([]),
  networks: z
    .union([
      z.array(z.string()),
      z.record(z.string(), z.strictObject({ ipv4_address: z.string().optional() })),
    ])
    .default(["default"]),
  volumes: z.array(z.string()).default([]),
  environment: z.record(z.string(), z.union([z.string(), z.number()])).default({}),
  secrets: z.array(z.string()).default([]),
  labels: z.array(z.string()).default([]),
  depends_on: z.record(z.string(), z.strictObject({ condition: z.string() })).optional(),
  read_only: z.boolean().default(false),
  tmpfs: z.array(z.string()).optional(),
  cap_drop: z.array(z.string()).default([]),
  cap_add: z.array(z.string()).default([]),
  security_opt: z.array(z.string()).default([]),
  pids_limit: z.int().optional(),
  mem_limit: z.string().optional(),
  ulimits: z.record(z.string(), z.int()).optional(),
  stop_grace_period: z.string().optional(),
  healthcheck: z
    .strictObject({
      test: z.array(z.string()),
      interval: z.string(),
      timeout: z.string(),
      retries: z.int(),
      start_period: z.string().optional(),
    })
    .optional(),
  logging: z
    .strictObject({ driver: z.string(), options: z.record(z.string(), z.string()) })
    .optional(),
});
const network = z.strictObject({
  internal: z.boolean().default(false),
  ipam: z.strictObject({ config: z.array(z.strictObject({ subnet: z.string() })) }).optional(),
});
const file = z.strictObject({
  name: z.string(),
  services: z.record(z.string(), service),
  networks: z.record(z.string(), network).default({}),
  volumes: z.record(z.string(), z.strictObject({})).default({}),
  secrets: z.record(z.string(), z.strictObject({ file: z.string() })).default({}),
});
type ComposeFile = z.infer<typeof file>;
type Service = z.infer<typeof service>;

const FILES = Object.fromEntries(
  NAMES.map((name) => [
    name,
    file.parse(parse(readFileSync(join(COMPOSE, name, "compose.yaml"), "utf8"))),
  ]),
) as Readonly<Record<Name, ComposeFile>>;
const SERVICES = NAMES.flatMap((name) =>
  Object.entries(FILES[name].services).map(([id, one]) => [`${name}: ${id}`, one] as const),
);

/** The application's image has no program to ask with, and `pull` ends by itself. */
const WITHOUT_HEALTH = ["traefik: app", "ollama: pull"];
/** Reads the Docker socket, which belongs to root, and writes its own configuration at the start. */
const SOCKET_PROXY = "traefik: docker-api";

const networksOf = ({ networks }: Service): readonly string[] =>
  Array.isArray(networks) ? networks : Object.keys(networks);

function gatewayOf(name: Name): Service {
  const { gatehouse } = FILES[name].services;
  if (gatehouse === undefined) throw new Error(`${name} has no gateway`);
  return gatehouse;
}

describe("every service", () => {
  test.each(SERVICES)("%s: an image by version, a restart policy, a health check", (name, one) => {
    expect(one.image).toMatch(/^[a-z0-9./-]+:(?!latest)(?:v?\d|\$\{\w+:-\d)/);
    expect(one.restart).toBe(name === "ollama: pull" ? "no" : "unless-stopped");
    expect(one.healthcheck !== undefined).toBe(!WITHOUT_HEALTH.includes(name));
  });

  test.each(SERVICES)("%s: no rights that it does not need", (name, one) => {
    expect(one.security_opt).toContain("no-new-privileges:true");
    expect(one.cap_drop).toEqual(name === SOCKET_PROXY ? [] : ["ALL"]);
    expect(one.cap_add).toEqual(name === "traefik: traefik" ? ["NET_BIND_SERVICE"] : []);
  });

  test.each(SERVICES)("%s: no secret in its environment, its command or its labels", (_, one) => {
    const said = JSON.stringify([one.environment, one.command, one.labels]);
    expect(said).not.toMatch(/password|secret=|token=|salt|api_key/i);
  });

  test.each(NAMES)("%s: names that it uses are declared, and those declared are used", (name) => {
    const { services, networks, volumes, secrets } = FILES[name];
    const all = Object.values(services);
    const used = (list: readonly string[]) => [...new Set(list)].toSorted();
    const declared = ["default", ...Object.keys(networks)];
    for (const one of all.flatMap(networksOf)) expect(declared).toContain(one);
    const named = all.flatMap((one) => one.volumes).filter((volume) => /^\w/.test(volume));
    expect(used(named.map((volume) => volume.split(":")[0] ?? ""))).toEqual(
      used(Object.keys(volumes)),
    );
    expect(used(all.flatMap((one) => one.secrets))).toEqual(used(Object.keys(secrets)));
  });
});

describe("what is reached from outside", () => {
  test.each([
    ["gateway", ["gatehouse"]],
    ["ollama", ["gatehouse"]],
    ["traefik", ["traefik"]],
  ] as const)("%s: only %p", (name, front) => {
    const published = Object.entries(FILES[name].services).filter(
      ([, one]) => one.ports.length > 0,
    );
    expect(published.map(([id]) => id)).toEqual([...front]);
  });

  test.each(["gateway", "ollama"] as const)("%s: without TLS on this machine only", (name) => {
    expect(gatewayOf(name).ports).toEqual(["${PUBLISH:-127.0.0.1:8008}:8008"]);
  });

  test.each([
    ["ollama", ["ollama"]],
    ["traefik", ["gatehouse", "valkey", "app", "docker-api"]],
  ] as const)("%s: %p are on internal networks alone", (name, behind) => {
    const { services, networks } = FILES[name];
    for (const id of behind) {
      const one = services[id];
      if (one === undefined) throw new Error(`there is no ${id}`);
      for (const network of networksOf(one)) {
        expect([id, network, networks[network]?.internal]).toEqual([id, network, true]);
      }
    }
  });

  test("traefik: the application and Valkey share no network, and neither is on that of the other's", () => {
    const { services } = FILES.traefik;
    const on = (id: string) => (services[id] === undefined ? [] : networksOf(services[id]));
    expect(on("app")).toEqual(["apps"]);
    expect(on("valkey")).toEqual(["store"]);
    expect(on("gatehouse")).toEqual(["ask", "store"]);
  });
});

describe("the gateway's container", () => {
  test.each(NAMES)("%s: read-only, with its configuration and one volume", (name) => {
    const one = gatewayOf(name);
    expect(one).toMatchObject({
      read_only: true,
      stop_grace_period: "45s",
      image: `gatehouse:${version()}`,
    });
    expect(one.volumes).toEqual([
      "./config.yaml:/etc/gatehouse/config.yaml:ro",
      "state:/var/lib/gatehouse",
    ]);
    expect(one.ulimits?.core).toBe(0);
    const dockerfile = join(COMPOSE, name, one.build?.context ?? "", one.build?.dockerfile ?? "");
    expect(statSync(dockerfile).isFile()).toBeTrue();
  });

  test.each(NAMES)("%s: stops after the gateway's own deadline", async (name) => {
    const shown = await runBinary(
      ["config", "show", "--expanded", "--json", "-c", configOf(name)],
      {
        env: await environmentOf(name),
      },
    );
    expect(shown.code).toBe(0);
    const drain = JSON.parse(shown.stdout).server.drain;
    expect(Number.parseInt(gatewayOf(name).stop_grace_period ?? "0", 10)).toBeGreaterThan(
      Number.parseInt(drain, 10),
    );
  });

  test.each(NAMES)(
    "%s: its configuration is right, with the secrets and environment it has",
    async (name) => {
      const checked = await runBinary(["config", "validate", "-c", configOf(name)], {
        env: await environmentOf(name),
      });
      expect(checked.stderr).toBe("");
      expect(checked).toMatchObject({ code: 0 });
    },
  );

  test.each(["gateway", "traefik"] as const)(
    "%s: without its secrets it does not start",
    async (name) => {
      const checked = await runBinary(["config", "validate", "-c", configOf(name)], {
        env: { ...(await environmentOf(name)), CREDENTIALS_DIRECTORY: scratchDirectory() },
      });
      expect(checked.code).toBe(78);
    },
  );
});

function configOf(name: Name): string {
  return join(COMPOSE, name, "config.yaml");
}

function version(): string {
  return JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8")).version;
}

const made = new Map<Name, string>();

/** Of the gateway's container, with the secrets that the compose file mounts, made as its comments say. */
async function environmentOf(name: Name): Promise<Record<string, string>> {
  const { environment, secrets } = gatewayOf(name);
  if (secrets.length === 0) return {};
  expect(environment.CREDENTIALS_DIRECTORY).toBe("/run/secrets");
  const directory = made.get(name) ?? (await makeSecrets(name));
  made.set(name, directory);
  return { CREDENTIALS_DIRECTORY: join(directory, "secrets") };
}

async function makeSecrets(name: Name): Promise<string> {
  const directory = scratchDirectory();
  if (name === "traefik") {
    cpSync(join(COMPOSE, name, "secrets.sh"), join(directory, "secrets.sh"));
    await makeBySecretsScript(directory);
    return directory;
  }
  mkdirSync(join(directory, "secrets"), { mode: 0o700 });
  for (const secret of gatewayOf(name).secrets) {
    writeFileSync(join(directory, "secrets", secret), "sk-stand-in-for-a-key");
  }
  return directory;
}

async function makeBySecretsScript(directory: string): Promise<void> {
  const child = Bun.spawn(["/bin/sh", join(directory, "secrets.sh")], { stderr: "pipe" });
  if ((await child.exited) !== 0) throw new Error(await child.stderr.text());
}

/** The gateway as its compose file starts it, but on a socket and with its state elsewhere. */
async function served(
  name: Name,
  changes: { readonly config?: string; readonly env?: Record<string, string> } = {},
): Promise<{ running: Running; env: Record<string, string>; config: string }> {
  const directory = scratchDirectory();
  const env = {
    ...(await environmentOf(name)),
    GATEHOUSE_SERVER__LISTEN: `unix:${join(directory, "gate.sock")}`,
    GATEHOUSE_STATE_DIR: join(directory, "state"),
    ...changes.env,
  };
  const config = changes.config ?? configOf(name);
  return { running: await startBinary(["serve", "-c", config], { env }), env, config };
}

function ask(
  running: Running,
  path: string,
  headers: Record<string, string> = {},
): Promise<Response> {
  return fetch(`http://gateway${path}`, {
    unix: running.address.replace(/^unix:/, ""),
    headers,
    redirect: "manual",
  });
}

describe("served", () => {
  test.each(["gateway", "ollama"] as const)(
    "%s: the health check says yes, and nobody passes without a token",
    async (name) => {
      const { running, env, config } = await served(name);
      const [form, program, ...args] = gatewayOf(name).healthcheck?.test ?? [];
      expect([form, program]).toEqual(["CMD", "/usr/bin/gatehouse"]);
      const healthy = await runBinary(args, { env: { ...env, GATEHOUSE_CONFIG: config } });
      expect(healthy).toMatchObject({ code: 0, stderr: "" });
      expect((await ask(running, "/v1/models")).status).toBe(401);
      await running.stop();
      const gone = await runBinary(args, { env: { ...env, GATEHOUSE_CONFIG: config } });
      expect(gone.code).toBe(3);
    },
  );

  test.skipIf(valkeyMissing !== null)(
    "traefik: with a Valkey that has the users of secrets.sh, a token decides",
    async () => {
      const { CREDENTIALS_DIRECTORY: secrets = "" } = await environmentOf("traefik");
      const valkey = await startValkey(["--aclfile", join(secrets, "valkey-users")]);
      started.push(valkey);
      const config = join(scratchDirectory(), "config.yaml");
      const text = readFileSync(configOf("traefik"), "utf8").replace(
        "redis://valkey:6379",
        valkey.url,
      );
      // The socket's peers have no address; in the container it is Traefik's on the network `ask`.
      writeFileSync(config, text.replace("172.31.250.2/32", "unix"), { mode: 0o644 });
      const { running, env } = await served("traefik", { config });
      const healthy = await runBinary(["healthcheck", "-c", config], { env });
      expect(healthy).toMatchObject({ code: 0 });
      const created = await runBinary(["token", "create", "-c", config, "--name", "alice"], {
        env,
      });
      expect(created).toMatchObject({ code: 0 });
      const question = {
        "x-forwarded-method": "GET",
        "x-forwarded-proto": "https",
        "x-forwarded-host": "app.example.com",
        "x-forwarded-uri": "/",
      };
      expect((await ask(running, "/auth/traefik", question)).status).toBe(401);
      const authorization = `Bearer ${created.stdout.trim()}`;
      const allowed = await ask(running, "/auth/traefik", { ...question, authorization });
      expect(allowed.status).toBe(200);
      expect(allowed.headers.get("x-gatehouse-strategy")).toBe("keys");
      await running.stop();
    },
  );
});

describe("traefik", () => {
  test("its labels are what `gatehouse emit traefik` prints for the configuration", async () => {
    const emitted = await runBinary(
      [
        "emit",
        "traefik",
        "--labels",
        "-c",
        configOf("traefik"),
        "--gateway",
        "http://gatehouse:8008",
      ],
      { env: await environmentOf("traefik") },
    );
    expect(emitted.code).toBe(0);
    const labels = FILES.traefik.services.app?.labels ?? [];
    const own = labels.filter((label) => label.startsWith("traefik.http.middlewares."));
    expect(own).toEqual(parse(emitted.stdout));
    expect(labels).toContain("traefik.http.routers.app.middlewares=gatehouse");
    expect(labels).toContain("traefik.enable=true");
  });

  test("the gateway believes Traefik's address on the network between them, and no other", () => {
    const networks = FILES.traefik.services.traefik?.networks;
    const address = Array.isArray(networks) ? undefined : networks?.ask?.ipv4_address;
    const [range] = FILES.traefik.networks.ask?.ipam?.config ?? [];
    expect(range?.subnet).toBe("172.31.250.0/29");
    expect(address).toBe("172.31.250.2");
    const { server } = parse(readFileSync(configOf("traefik"), "utf8"));
    expect(server.trusted_proxies).toEqual([`${address}/32`]);
  });

  test("what clients say about themselves is not believed, and a container is published only when it says so", () => {
    const command = FILES.traefik.services.traefik?.command ?? [];
    expect(command).toContain("--providers.docker.exposedbydefault=false");
    expect(command.join("\n")).not.toMatch(/forwardedheaders\.insecure|api\.insecure|trustedips/i);
    expect(command).toContain("--entrypoints.websecure.http.aliasheadersstrategy=delete");
    const network = `--providers.docker.network=${FILES.traefik.name}_apps`;
    expect(command).toContain(network);
  });

  test("the Docker socket is read by the one service that passes on nothing but containers", () => {
    const withSocket = SERVICES.filter(([, one]) =>
      one.volumes.some((path) => path.includes("docker.sock")),
    );
    expect(withSocket.map(([name]) => name)).toEqual([SOCKET_PROXY]);
    expect(FILES.traefik.services["docker-api"]?.environment).toEqual({ CONTAINERS: 1 });
  });

  test("secrets.sh makes secrets that others cannot reach, and never replaces one", async () => {
    const directory = scratchDirectory();
    cpSync(join(COMPOSE, "traefik/secrets.sh"), join(directory, "secrets.sh"));
    await makeBySecretsScript(directory);
    const read = (name: string) => readFileSync(join(directory, "secrets", name), "utf8");
    const names = Object.keys(FILES.traefik.secrets);
    const before = names.map(read);
    expect(statSync(join(directory, "secrets")).mode & 0o777).toBe(0o700);
    expect(read("token-salt")).toMatch(/^[0-9a-f]{64}\n$/);
    // Its digest alone, so that whoever reads Valkey's file does not have it.
    expect(read("valkey-users")).not.toContain(read("valkey-password").trim());
    await makeBySecretsScript(directory);
    expect(names.map(read)).toEqual(before);
  });
});

describe("docker compose", async () => {
  const docker = Bun.which("docker");
  const has =
    docker !== null && (await Bun.spawn([docker, "compose", "version"], QUIET).exited) === 0;
  if (!has) console.log("docker compose is not here: its own reading of the files is not tried");

  test.skipIf(!has).each(NAMES)("%s: reads it", async (name) => {
    const env = { ...process.env, APP_HOST: "app.example.com", ACME_EMAIL: "you@example.com" };
    const command = [
      "docker",
      "compose",
      "--file",
      join(COMPOSE, name, "compose.yaml"),
      "config",
      "--quiet",
    ];
    const child = Bun.spawn(command, { env, stdout: "ignore", stderr: "pipe" });
    expect([await child.exited, await child.stderr.text()]).toEqual([0, ""]);
  });
});
