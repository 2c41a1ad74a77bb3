/**
 * The files that an external plugin consists of: its own and what it imports by a relative path.
 *
 * Invariant: sources are read, never run, and each file appears once, however they import one another.
 */
import { readFileSync, statSync } from "node:fs";
import { dirname, extname, resolve } from "node:path";

const MAX_SOURCE_BYTES = 4 * 1024 * 1024;
/** As the runtime tries them when an import names no extension. */
const ENDINGS = [
  "",
  ".ts",
  ".js",
  ".mjs",
  ".cjs",
  ".tsx",
  ".jsx",
  ".json",
  "/index.ts",
  "/index.js",
];

/** `path` and everything it imports relatively, absolute; a file that cannot be read or parsed imports nothing. */
export function sourceTree(path: string): readonly string[] {
  const found = new Set<string>();
  const open = [path];
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    if (found.has(next)) continue;
    found.add(next);
    open.push(...importsOf(next));
  }
  return [...found];
}

function importsOf(path: string): string[] {
  const loader = { ".tsx": "tsx", ".jsx": "jsx", ".js": "js", ".mjs": "js", ".cjs": "js" } as const;
  const ending = extname(path);
  if (
    ending === ".json" ||
    (statSync(path, { throwIfNoEntry: false })?.size ?? 0) > MAX_SOURCE_BYTES
  ) {
    return [];
  }
  try {
    const transpiler = new Bun.Transpiler({
      loader: Object.entries(loader).find(([one]) => one === ending)?.[1] ?? "ts",
    });
    return transpiler
      .scanImports(readFileSync(path))
      .filter((one) => /^\.{1,2}\//.test(one.path))
      .map((one) => existing(resolve(dirname(path), one.path)))
      .filter((one) => one !== null);
  } catch {
    return [];
  }
}

function existing(path: string): string | null {
  const found = ENDINGS.map((ending) => path + ending).find(
    (one) => statSync(one, { throwIfNoEntry: false })?.isFile() === true,
  );
  return found ?? null;
}
