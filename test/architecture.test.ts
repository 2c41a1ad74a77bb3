/**
 * Who may import whom, and a few rules of the house that no linter knows. Each rule says why it is there.
 *
 * Invariant: a rule about a path that does not exist fails, so that a rename cannot switch a rule off; a new
 * directory in src/ fails until somebody decides what it may import.
 */
import { describe, expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { isBuiltin } from "node:module";
import { dirname, join, normalize, resolve } from "node:path";

const ROOT = resolve(import.meta.dir, "..");

/** Packages that plugins may use beside the contract. Each is named with its reason in the design. */
const PLUGIN_PACKAGES: readonly string[] = [
  "@noble/hashes/blake3.js",
  "jose",
  "nostr-tools/nip19",
  "nostr-tools/wasm",
  "nostr-wasm",
];

interface Import {
  /** Repository path, or the name of a package or built-in module. */
  readonly target: string;
  readonly isType: boolean;
  /** Loaded when the line is reached. */
  readonly isDynamic: boolean;
}

interface Source {
  /** Repository path. */
  readonly path: string;
  readonly text: string;
  /** Without comments. */
  readonly code: string;
  readonly imports: readonly Import[];
}

/** `from` are files or, with a slash at the end, directories. */
interface Rule {
  readonly title: string;
  readonly reason: string;
  readonly from: readonly string[];
  /** Paths the rule names besides `from`; they must exist. */
  readonly names: readonly string[];
  allows(imported: Import, source: Source): boolean;
}

const STEPS = ["router", "authenticate", "authorize", "forward", "upgrade", "respond", "audit"].map(
  (name) => `src/${name}.ts`,
);
/** Parts of the way of a request that have no name in its story but are bound by the same rule. */
const HELPERS = [
  "src/before-asking.ts",
  "src/check.ts",
  "src/dialects.ts",
  "src/headers.ts",
  "src/matching.ts",
  "src/models.ts",
  "src/surface.ts",
  "src/streams.ts",
  "src/cors.ts",
];
/** Instead of node:fs where a file is read that a configuration names. */
const FILE_READER = "src/regular-file.ts";
const HOST_PORT = "src/host-port.ts";
const LIBC = "src/libc.ts";
const LEAVES = ["src/errors.ts", "src/clock.ts", "src/log.ts", FILE_READER, HOST_PORT, LIBC];

const RULES: readonly Rule[] = [
  {
    title: "a plugin imports the contract, its own files, built-ins and listed packages",
    reason: "what a bundled plugin can do, an external file can do with the same source text",
    from: ["plugins/"],
    names: [],
    allows: ({ target }, { path }) =>
      target === "gatehouse" ||
      target.startsWith(pluginFolder(path)) ||
      isRuntime(target) ||
      PLUGIN_PACKAGES.includes(target),
  },
  {
    title: "registry.ts alone imports plugins",
    reason: "the list of bundled plugins is in one place, written out",
    from: ["src/"],
    names: ["src/registry.ts"],
    allows: ({ target }, { path }) => !target.startsWith("plugins/") || path === "src/registry.ts",
  },
  {
    title: "main.ts alone imports registry.ts",
    reason: "everything else is given the plugins, so tests and embedders choose their own",
    from: ["src/", "plugins/"],
    names: ["src/main.ts", "src/registry.ts"],
    allows: ({ target }, { path }) => target !== "src/registry.ts" || path === "src/main.ts",
  },
  {
    title: "contract/ imports itself and the schema library",
    reason: "it is the published surface; whatever it pulled in would be published with it",
    from: ["src/contract/"],
    names: [],
    allows: ({ target, isType }) =>
      target.startsWith("src/contract/") || target === "zod" || (isType && isRuntime(target)),
  },
  {
    title: "leaves import nothing but leaves and the contract",
    reason: "everybody imports them, so anything they import is imported by everybody",
    from: LEAVES,
    names: [],
    allows: ({ target }) =>
      LEAVES.includes(target) || target.startsWith("src/contract/") || !target.startsWith("src/"),
  },
  {
    title: "a step never imports gateway.ts, server.ts or another step",
    reason:
      "a star, not a mesh: each step is read, tested and replaced alone, and nothing calls back up",
    from: STEPS,
    names: ["src/gateway.ts", "src/server.ts"],
    allows: ({ target }) =>
      target !== "src/gateway.ts" && target !== "src/server.ts" && !STEPS.includes(target),
  },
  {
    title: "the way of a request never imports store/",
    reason: "strategies reach the database through their host; the core decides without state",
    from: [...STEPS, ...HELPERS, "src/gateway.ts", "src/server.ts"],
    names: ["src/store/"],
    allows: ({ target }) => !target.startsWith("src/store/"),
  },
  {
    title: "wire/ imports itself, errors and clock",
    reason: "bytes on sockets know nothing of routes, identities or configuration",
    from: ["src/wire/"],
    names: ["src/errors.ts", "src/clock.ts"],
    allows: ({ target }) =>
      ["src/errors.ts", "src/clock.ts"].includes(target) || isOwn(target, "src/wire/"),
  },
  {
    title: "config/ imports itself, presets, leaves and the contract",
    reason:
      "parsing has no side effects, so `config validate` does exactly what `serve` does first",
    from: ["src/config/"],
    names: ["src/contract/", "src/presets/"],
    allows: ({ target }) =>
      LEAVES.includes(target) ||
      target.startsWith("src/contract/") ||
      target.startsWith("src/presets/") ||
      isOwn(target, "src/config/"),
  },
  {
    title: "presets/ import themselves, built-ins, two leaves and the schema library",
    reason:
      "a preset is data that expands to config; code of its own would be a way around the checks",
    from: ["src/presets/"],
    names: [],
    allows: ({ target }) =>
      isOwn(target, "src/presets/") ||
      [FILE_READER, HOST_PORT, "zod"].includes(target) ||
      isRuntime(target),
  },
  {
    title: "store/ imports itself, leaves and the contract",
    reason: "the database outlives every feature that uses it",
    from: ["src/store/"],
    names: ["src/contract/"],
    allows: ({ target }) =>
      LEAVES.includes(target) || target.startsWith("src/contract/") || isOwn(target, "src/store/"),
  },
  {
    title: "valkey/ imports itself, the contract, two leaves and its client",
    reason: "connections know nothing of what is kept behind them",
    from: ["src/valkey/"],
    names: ["src/valkey/connections.ts"],
    allows: ({ target }) =>
      target.startsWith("src/contract/") ||
      [FILE_READER, LIBC].includes(target) ||
      isOwn(target, "src/valkey/"),
  },
  {
    title:
      "the Valkey client is imported in src/valkey/ and nothing of that but connections.ts outside",
    reason: "its errors and its debug output hold passwords: whoever uses it must silence both",
    from: ["src/", "plugins/"],
    names: ["src/valkey/connections.ts"],
    allows: ({ target }, { path }) =>
      path.startsWith("src/valkey/") ||
      target === "src/valkey/connections.ts" ||
      !(target.startsWith("src/valkey/") || ["iovalkey", "debug"].includes(target)),
  },
  {
    title: "cli/ is imported by main.ts and itself alone",
    reason: "commands are clients of the core; the core runs without any of them",
    from: ["src/", "plugins/"],
    names: ["src/cli/", "src/main.ts"],
    allows: ({ target }, { path }) =>
      !target.startsWith("src/cli/") || path === "src/main.ts" || path.startsWith("src/cli/"),
  },
  {
    title: "admin/ is imported by cli/ and itself alone",
    reason: "its endpoints are a client of the core, which is given them and runs without any",
    from: ["src/", "plugins/"],
    names: ["src/admin/", "src/cli/"],
    allows: ({ target }, { path }) =>
      !target.startsWith("src/admin/") ||
      path.startsWith("src/admin/") ||
      path.startsWith("src/cli/"),
  },
  {
    title: "hono is imported in admin/token-api/ alone",
    reason: "nothing of it is loaded by a start that does not serve the token API",
    from: ["src/", "plugins/"],
    names: ["src/admin/token-api/"],
    allows: ({ target }, { path }) =>
      !/^(@hono\/|hono(\/|$))/.test(target) || path.startsWith("src/admin/token-api/"),
  },
  {
    title:
      "the Prometheus client is imported in metrics.ts alone, and that is loaded where it is used",
    reason: "nothing of it is loaded by a start that keeps no numbers",
    from: ["src/", "plugins/"],
    names: ["src/metrics.ts", "src/start.ts"],
    allows: ({ target, isType, isDynamic }, { path }) =>
      target === "@prometheus-io/client"
        ? path === "src/metrics.ts"
        : target !== "src/metrics.ts" || isType || (path === "src/start.ts" && isDynamic),
  },
  {
    title: "admin/token-api/ is imported by itself alone, and loaded where it is used",
    reason: "a static import would load it at every start",
    from: ["src/"],
    names: ["src/admin/token-api/", "src/admin/surfaces.ts"],
    allows: ({ target, isDynamic }, { path }) =>
      !target.startsWith("src/admin/token-api/") ||
      path.startsWith("src/admin/token-api/") ||
      (path === "src/admin/surfaces.ts" && isDynamic),
  },
];

const KNOWN_DIRECTORIES = [
  "admin",
  "cli",
  "config",
  "contract",
  "presets",
  "store",
  "valkey",
  "wire",
];

const sources = [...sourcesBelow("src"), ...sourcesBelow("plugins")];
const shipped = sources.filter(({ path }) => !path.endsWith(".test.ts"));

describe("imports", () => {
  for (const rule of RULES) {
    test(`${rule.title}: ${rule.reason}`, () => {
      const missing = [...rule.from, ...rule.names].filter((path) => !existsSync(join(ROOT, path)));
      expect(missing).toEqual([]);
      const broken = shipped
        .filter(({ path }) => rule.from.some((from) => isIn(path, from)))
        .flatMap((source) =>
          source.imports
            .filter((imported) => !rule.allows(imported, source))
            .map(({ target }) => `${source.path} imports ${target}`),
        );
      expect(broken).toEqual([]);
    });
  }

  test("every relative import names a file that exists, extension included", () => {
    const broken = shipped.flatMap(({ path, imports }) =>
      imports
        .filter(({ target }) => /^(src|plugins|test)\//.test(target))
        .filter(({ target }) => !/\.[a-z]+$/.test(target) || !existsSync(join(ROOT, target)))
        .map(({ target }) => `${path} imports ${target}`),
    );
    expect(broken).toEqual([]);
  });

  test("every directory of src/ has a rule about what it may import", () => {
    const directories = readdirSync(join(ROOT, "src"), { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map(({ name }) => name);
    expect(directories.sort()).toEqual(KNOWN_DIRECTORIES);
  });

  test("the scanner sees static, type-only, side-effect, re-exporting and dynamic imports", () => {
    const text = `/** import x from "./no.ts"; */
import a, { b } from "./a.ts";
import type { T } from "./t.ts";
import {
  c,
} from "./c.ts";
import "./side.ts";
export { d } from "./d.ts";
export * from "zod";
// import y from "./no.ts";
const e = await import("./e.ts");
`;
    const found = importsOf("src/x.ts", withoutComments(text));
    expect(found.map(({ target }) => target).sort()).toEqual(
      ["a", "c", "d", "e", "side", "t"].map((name) => `src/${name}.ts`).concat("zod"),
    );
    expect(found.filter(({ isType }) => isType).map(({ target }) => target)).toEqual(["src/t.ts"]);
    const dynamic = found.filter(({ isDynamic }) => isDynamic);
    expect(dynamic.map(({ target }) => target)).toEqual(["src/e.ts"]);
  });
});

describe("house rules", () => {
  test("only main.ts ends the process: a command that exits cannot be tested or cleaned up after", () => {
    expect(existsSync(join(ROOT, "src/main.ts"))).toBe(true);
    expect(using(/\bprocess\s*\.\s*(exit|abort|kill)\b|\bprocess\s*\.\s*exitCode\s*=/)).toEqual([
      "src/main.ts",
    ]);
  });

  test("nothing writes to the console: output goes through the log or the command's context", () => {
    expect(using(/\bconsole\s*\./)).toEqual([]);
  });

  test("every file opens with a docblock that says what it owns", () => {
    const bare = shipped.filter(({ text }) => !/^(#!.*\n)?\/\*\*/.test(text));
    expect(bare.map(({ path }) => path)).toEqual([]);
  });

  test("no file is longer than 500 lines: beyond that it is about two things", () => {
    const long = [...sources, ...sourcesBelow("test")].filter(
      ({ text }) => text.split("\n").length > 501,
    );
    expect(long.map(({ path }) => path)).toEqual([]);
  });

  test("src/ has no index.ts: importing a file names the file", () => {
    const barrels = sources.filter(({ path }) => /^src\/.*index\.[cm]?ts$/.test(path));
    expect(barrels.map(({ path }) => path)).toEqual([]);
  });

  test("a plugin's name is its folder's, and each folder has tests and the contract suite", async () => {
    const folders = readdirSync(join(ROOT, "plugins"));
    const { bundledPlugins } = await import("../src/registry.ts");
    expect(bundledPlugins.map(({ name }) => name).sort()).toEqual(folders.sort());
    const without = folders.filter(
      (name) => !existsSync(join(ROOT, "plugins", name, "contract.test.ts")),
    );
    expect(without).toEqual([]);
  });
});

function using(pattern: RegExp): string[] {
  return shipped.filter(({ code }) => pattern.test(code)).map(({ path }) => path);
}

function isIn(path: string, fileOrDirectory: string): boolean {
  return fileOrDirectory.endsWith("/")
    ? path.startsWith(fileOrDirectory)
    : path === fileOrDirectory;
}

/** In `directory`, or nothing of this repository's at all. */
function isOwn(target: string, directory: string): boolean {
  return target.startsWith(directory) || !/^(src|plugins|test)\//.test(target);
}

function isRuntime(target: string): boolean {
  return target === "bun" || target.startsWith("bun:") || isBuiltin(target);
}

function pluginFolder(path: string): string {
  return `${path.split("/").slice(0, 2).join("/")}/`;
}

function sourcesBelow(directory: string): Source[] {
  return readdirSync(join(ROOT, directory), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && /\.[cm]?[jt]sx?$/.test(entry.name))
    .map((entry) => {
      const absolute = join(entry.parentPath, entry.name);
      const path = absolute.slice(ROOT.length + 1);
      const text = readFileSync(absolute, "utf8");
      const code = withoutComments(text);
      return { path, text, code, imports: importsOf(path, code) };
    });
}

function withoutComments(text: string): string {
  return text.replaceAll(/\/\*\*?[\s][\s\S]*?\*\//g, "").replaceAll(/(^|\s)\/\/.*$/gm, "$1");
}

function importsOf(path: string, code: string): Import[] {
  const forms = [
    /^[ \t]*(?:import|export)\b(?<clause>[^"'`;()]*?)\bfrom\s*["'](?<name>[^"']+)["']/gm,
    /^[ \t]*import(?<clause>)\s*["'](?<name>[^"']+)["']/gm,
    /\b(?:import|require)(?<clause>)\s*\(\s*["'`](?<name>[^"'`]+)["'`]/g,
  ];
  return forms.flatMap((form, at) =>
    [...code.matchAll(form)].map(({ groups }) => {
      const name = groups?.name ?? "";
      const target = name.startsWith(".") ? normalize(join(dirname(path), name)) : name;
      return { target, isType: /^\s+type\b/.test(groups?.clause ?? ""), isDynamic: at === 2 };
    }),
  );
}
