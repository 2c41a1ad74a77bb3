/**
 * From a path to a file of the directory.
 *
 * Invariant: the path is decoded once; what then has a dot segment, a hidden name, a backslash or a NUL is no file,
 * and neither is one whose real path lies outside.
 */
import { realpathSync } from "node:fs";
import { readFile, realpath, stat } from "node:fs/promises";
import { join, sep } from "node:path";

/** Larger files are not for a gate to serve. */
const MAX_BYTES = 16_777_216;

/** Answers GET; the caller sees to HEAD. */
export interface Site {
  answer(path: string): Promise<Response>;
}

/** @param dir absolute; may not be there yet */
export function openSite(dir: string, hasPage: boolean): Site {
  return {
    async answer(path) {
      const root = realOrNull(dir);
      if (root === null) return missing();
      const name = fileName(path);
      const file = name === null ? null : await found(root, name);
      if (file !== null) return served(file, 200);
      const page = hasPage ? await found(root, "index.html") : null;
      return page === null ? missing() : served(page, 404);
    },
  };
}

function realOrNull(dir: string): string | null {
  try {
    return realpathSync(dir);
  } catch {
    return null;
  }
}

/** Below the directory; `null` when no file can be meant. */
function fileName(path: string): string | null {
  let text: string;
  try {
    text = decodeURIComponent(path);
  } catch {
    return null;
  }
  if (text.endsWith("/")) text += "index.html";
  const segments = text.split("/").slice(1);
  const isPlain = segments.every(
    (one) => one !== "" && !one.startsWith(".") && !/[\\\0]/.test(one),
  );
  return isPlain ? segments.join("/") : null;
}

/** The real path of a readable file inside, or `null`. @throws when the disk fails in another way */
async function found(root: string, name: string): Promise<string | null> {
  try {
    const path = await realpath(join(root, name));
    if (!path.startsWith(root + sep)) return null;
    const facts = await stat(path);
    return facts.isFile() && facts.size <= MAX_BYTES ? path : null;
  } catch (error) {
    if (isAbsence(error)) return null;
    throw error;
  }
}

function isAbsence(error: unknown): boolean {
  const code = error instanceof Error && "code" in error ? error.code : null;
  return ["ENOENT", "ENOTDIR", "EACCES", "ENAMETOOLONG", "ELOOP"].includes(String(code));
}

async function served(path: string, status: number): Promise<Response> {
  const headers = {
    "content-type": Bun.file(path).type,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "content-security-policy": "frame-ancestors 'none'; object-src 'none'; base-uri 'self'",
  };
  return new Response(new Uint8Array(await readFile(path)), { status, headers });
}

function missing(): Response {
  return new Response("not found\n", {
    status: 404,
    headers: { "content-type": "text/plain; charset=utf-8", "x-content-type-options": "nosniff" },
  });
}
