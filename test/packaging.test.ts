/**
 * The container image, as far as it can be tried without a container engine: packaging/container/check.mjs carries the
 * Dockerfile out and runs what comes of it.
 *
 * Invariant: what could not be tried on this machine is printed with the reason, never passed over.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { carryOut, parseDockerfile } from "../packaging/container/dockerfile.mjs";
import { isIgnored, parseIgnoreFile } from "../packaging/container/ignore.mjs";
import { binaryPath } from "./support/binary.ts";
import { removeScratch, scratchDirectory } from "./support/scratch.ts";

afterAll(removeScratch);

const ROOT = resolve(import.meta.dir, "..");
const CONTAINER = join(ROOT, "packaging/container");
const DOCKERFILE = readFileSync(join(CONTAINER, "Dockerfile"), "utf8");
const isLinux = process.platform === "linux" && ["x64", "arm64"].includes(process.arch);
if (!isLinux) console.log(`container image: not tried on ${process.platform} ${process.arch}`);

describe.skipIf(!isLinux)("the image, carried out and run by check.mjs", async () => {
  const said = isLinux ? await checked() : null;
  const { image, tried } = said ?? { image: {}, tried: {} };

  test("is the executable, an unprivileged user, one volume and a health check", () => {
    expect(image).toMatchObject({
      user: "65532:65532",
      entrypoint: ["/usr/bin/gatehouse"],
      cmd: ["serve"],
      volumes: ["/var/lib/gatehouse"],
      ports: ["8008/tcp"],
      healthcheck: { command: ["/usr/bin/gatehouse", "healthcheck"] },
      env: { GATEHOUSE_CONFIG: "/etc/gatehouse/config.yaml" },
      stopSignal: "SIGTERM",
    });
    expect(image.labels["org.opencontainers.image.version"]).toBe(packageVersion());
  });

  test.skipIf(said?.isolated !== true)(
    "runs as that user, without rights, on a read-only root",
    () => {
      expect(tried).toMatchObject({
        user: "65532",
        groups: "",
        capabilities: "0000000000000000",
        no_new_privileges: "1",
        root_files: ["gatehouse"],
      });
      expect(tried.root_mount.split(",")).toContain("ro");
    },
  );

  test.skipIf(said?.isolated !== true)(
    "lets nobody pass without a token, and stops when it is told to",
    () => {
      expect(tried.health).toMatch(/^alive: http:\/\/127\.0\.0\.1:8008\/healthz/);
      expect(tried.without_token).toEqual({ status: 401, reached_upstream: 0 });
      expect(tried.with_token).toEqual({ status: 200, reached_upstream: 1 });
      expect(tried.stopped_with).toBe(0);
    },
  );

  test.skipIf(said?.isolated !== true)(
    "says what to do without a configuration, and serves nothing",
    () => {
      expect(tried.without_config.code).toBe(78);
      expect(tried.without_config.said).toContain("/etc/gatehouse/config.yaml does not exist");
    },
  );
});

/** What check.mjs prints. Its shape is the script's own matter, and looked at by the tests above. */
// biome-ignore lint/suspicious/noExplicitAny: it is JSON of another program
async function checked(): Promise<any> {
  const script = join(CONTAINER, "check.mjs");
  const run = Bun.spawn(["node", script, "--executable", await binaryPath()], {
    stdout: "pipe",
    stderr: "pipe",
  });
  const [stdout, stderr, code] = await Promise.all([
    run.stdout.text(),
    run.stderr.text(),
    run.exited,
  ]);
  if (code !== 0) throw new Error(`check.mjs ended with ${code}: ${stderr}`);
  const said = JSON.parse(stdout);
  console.log(`container image, not tried here: ${said.not_tried.join("; ")}`);
  return said;
}

function packageVersion(): string {
  return JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8")).version;
}

describe("the Dockerfile", () => {
  const instructions = parseDockerfile(DOCKERFILE);

  test("runs nothing while it is built, so every architecture is built anywhere", () => {
    expect(instructions.map(({ name }) => name)).not.toContain("RUN");
  });

  test.each([
    ["amd64", "dist/gatehouse-VERSION-linux-x64"],
    ["arm64", "dist/gatehouse-VERSION-linux-arm64"],
  ])("takes for %s its own executable and nothing else", (architecture, path) => {
    const asked = new Set<string>();
    const { root } = carryOut(instructions, {
      directory: scratchDirectory(),
      source: (wanted: string) => {
        asked.add(wanted);
        return wanted.startsWith("dist/") ? fakeFile(wanted) : join(ROOT, wanted);
      },
      base: (_image: string, directory: string) =>
        mkdirSync(join(directory, "var/lib"), { recursive: true }),
      args: { TARGETARCH: architecture },
      canOwn: false,
    });
    const executable = path.replace("VERSION", packageVersion());
    expect([...asked].toSorted()).toEqual(["LICENSE", executable, "packaging/container/state"]);
    expect(readFileSync(join(root, "usr/bin/gatehouse"), "utf8")).toBe(executable);
  });

  test("refuses an architecture that there is no executable for", () => {
    const build = () =>
      carryOut(instructions, {
        directory: scratchDirectory(),
        source: (path: string) => join(ROOT, path),
        base: () => {},
        args: { TARGETARCH: "riscv64" },
        canOwn: false,
      });
    expect(build).toThrow();
  });

  test.each([
    ["RUN apk add curl", "RUN apk add curl is not known"],
    ["CMD gatehouse serve", "needs a shell"],
    ["COPY --link a b", "--link a b is not known"],
    ["USER nonroot", "expected USER NUMBER:NUMBER"],
    ["COPY dist/* /", "expected COPY of one file"],
    ["COPY a${NOTHING} /", "has no value"],
  ])("is not taken for what the check does not understand: %s", (line, message) => {
    const build = () =>
      carryOut(parseDockerfile(`FROM scratch\n${line}\n`), {
        directory: scratchDirectory(),
        source: (path: string) => path,
        base: () => {},
        args: { TARGETARCH: "amd64" },
        canOwn: false,
      });
    expect(build).toThrow(message);
  });
});

function fakeFile(content: string): string {
  const path = join(scratchDirectory(), "file");
  writeFileSync(path, content);
  return path;
}

describe("the build context", () => {
  const rules = parseIgnoreFile(readFileSync(join(CONTAINER, "Dockerfile.dockerignore"), "utf8"));

  test.each([
    ".env",
    ".git/config",
    "state/pepper.key",
    "src/main.ts",
    "node_modules/zod/index.js",
    "dist/gatehouse",
    "dist/gatehouse-0.1.0-linux-x64-musl",
    "dist/gatehouse-0.1.0-linux-x64.maps/main.js.map",
    "packaging/compose/gateway/secrets/openai-key",
    "gatehouse.yaml",
  ])("has no %s", (path) => {
    expect(isIgnored(path, rules)).toBeTrue();
  });

  test.each([
    "LICENSE",
    "dist/gatehouse-0.1.0-linux-x64",
    "dist/gatehouse-0.1.0-linux-arm64",
    "packaging/container/state/.keep",
  ])("has %s", (path) => {
    expect(isIgnored(path, rules)).toBeFalse();
  });
});
