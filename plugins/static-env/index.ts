/**
 * static-env: one or several fixed tokens from an environment variable or a file, presented as
 * `Authorization: Bearer` (RFC 6750 section 2.1) or in a header such as `x-api-key`.
 *
 * Invariant: tokens are read once, when an instance starts; identities are named by strategy and position, never by
 * anything that follows from a token.
 */
import { closeSync, constants, fstatSync, openSync, readFileSync } from "node:fs";
import { resolve } from "node:path";
import {
  ABSENT,
  accept,
  definePlugin,
  type Identity,
  type Outcome,
  readCredential,
  type Surroundings,
  UNKNOWN,
  z,
} from "gatehouse";
import { findToken, parseTokens, type TokenDigests } from "./verify.ts";

const MAX_FILE_BYTES = 1024 * 1024;

const config = () =>
  z
    .strictObject({
      env: z
        .string()
        .regex(/^[A-Za-z_][A-Za-z0-9_]*$/, {
          error: "expected the name of an environment variable (not its value)",
        })
        .optional()
        .describe(
          "Name of the environment variable that holds the token, or several separated by commas or white space.",
        ),
      file: z
        .string()
        .min(1)
        .optional()
        .describe(
          "Path of a file that holds the token or tokens, relative to the config file; others must not be able to read it.",
        ),
      header: z
        .string()
        .regex(/^[!#$%&'*+.^`|~0-9A-Za-z-]{1,100}$/, { error: "expected a header name" })
        .refine((name) => name.toLowerCase() !== "authorization", {
          error: "Authorization is always looked at; name another header",
        })
        .default("x-api-key")
        .describe("Header that is read when there is no Authorization. Default x-api-key."),
      authorization: z
        .boolean()
        .default(true)
        .describe(
          "Read Authorization. false where that header is the upstream's own: it then passes untouched and only `header` is read. Default true.",
        ),
      role: z
        .enum(["admin", "user"])
        .default("user")
        .describe("Role of whoever presents a token. Default user."),
      name: z
        .string()
        .min(1)
        .max(200)
        .optional()
        .describe("Label for logs and for the upstream. Default: none."),
    })
    .refine((value) => (value.env === undefined) !== (value.file === undefined), {
      error: "expected exactly one of env and file",
    });

/**
 * By which token an identity was proven. Beside the instances, because after a reload the next one is asked about what
 * the one before let in; and not in the identity, which is written into logs.
 */
const ISSUED = new WeakMap<Identity, Buffer>();

export default definePlugin({
  name: "static-env",
  contract: 1,
  offers: { tokens: false, surfaces: [] },
  config,
  questions: [
    {
      id: "env",
      kind: "text",
      message: "Which environment variable holds the token?",
      initial: "GATEHOUSE_TOKEN",
    },
  ],
  check(settings, surroundings) {
    try {
      loadTokens(settings, surroundings);
      return [];
    } catch (error) {
      return [error instanceof Error ? error.message : String(error)];
    }
  },
  init(settings, host) {
    const digests = loadTokens(settings, host);
    const header = settings.header.toLowerCase();
    const { authorization } = settings;
    const accepted = digests.map((digest, index): Outcome => {
      const id = digests.length === 1 ? host.strategy : `${host.strategy}:${index + 1}`;
      const name = settings.name === undefined ? {} : { name: settings.name };
      const identity: Identity = { id, role: settings.role, ...name };
      ISSUED.set(identity, digest);
      return accept(identity);
    });
    return {
      credentialHeaders: authorization ? ["authorization", header] : [header],
      isKeptOnReload: settings.file === undefined,
      isCurrent: (identity) => isAmong(digests, ISSUED.get(identity)),
      challenges: () => (authorization ? [{ scheme: "Bearer" }] : []),
      authenticate(request): Outcome {
        const credential = readCredential(request, { header, authorization });
        switch (credential.found) {
          case "none":
            return ABSENT;
          case "malformed":
            return { outcome: "reject", reason: "malformed_credential" };
          case "ambiguous":
            return { outcome: "reject", reason: "ambiguous_credential" };
          case "one":
            return accepted[findToken(digests, credential.value)] ?? UNKNOWN;
        }
      },
    };
  },
});

function isAmong(digests: TokenDigests, digest: Buffer | undefined): boolean {
  return digest !== undefined && digests.some((known) => known.equals(digest));
}

function loadTokens(
  settings: z.infer<ReturnType<typeof config>>,
  surroundings: Surroundings,
): TokenDigests {
  if (settings.file !== undefined) return fromFile(resolve(surroundings.configDir, settings.file));
  const name = settings.env ?? "";
  const value = surroundings.env[name];
  if (value === undefined) {
    throw new Error(
      `environment variable ${name} is not set; set it, or name a file with \`file\` instead of \`env\``,
    );
  }
  return parseTokens(value, `environment variable ${name}`);
}

/** Checked and read through one descriptor, so that what was checked is what is read. */
function fromFile(path: string): TokenDigests {
  const descriptor = open(path);
  try {
    const stats = fstatSync(descriptor);
    if (!stats.isFile()) throw new Error(`token file ${path} is not a regular file`);
    if ((stats.mode & 0o006) !== 0) {
      throw new Error(`token file ${path} is open to every user; run: chmod 600 ${path}`);
    }
    if (stats.size > MAX_FILE_BYTES) throw new Error(`token file ${path} is larger than 1 MiB`);
    return parseTokens(readFileSync(descriptor, "utf8"), `token file ${path}`);
  } finally {
    closeSync(descriptor);
  }
}

function open(path: string): number {
  try {
    // NONBLOCK: opening a pipe must not wait for somebody to write to it.
    return openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : "error";
    throw new Error(`token file ${path} cannot be read (${code})`);
  }
}
