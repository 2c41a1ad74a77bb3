/**
 * What the operator can set about the strategy `nip98`.
 *
 * Invariant: what parses can be used: durations and sizes have been read once, keys are public keys, and no key is
 * both an admin and a user.
 */
import { parseDuration, parseSize, z } from "gatehouse";
import { readPublicKey } from "./member-input.ts";

const MIN_AGE_MS = 1000;
const MAX_AGE_MS = 3_600_000;
const MAX_BODY_BYTES = 1024 * 1024 * 1024;

const key = () =>
  z.string().refine((text) => readPublicKey(text) !== null, {
    error: "expected a public key: npub1… or 64 hex digits (never nsec1…)",
  });

/** Keys beside `use`. */
export const settingsSchema = () =>
  z
    .strictObject({
      admins: z
        .array(key())
        .default([])
        .describe(
          "Public keys (npub1… or hex) that are members with role admin. Taken off the list they are removed. Default none.",
        ),
      users: z.array(key()).default([]).describe("The same with role user. Default none."),
      max_age: z
        .string()
        .refine((text) => isBetween(parseDuration(text), MIN_AGE_MS, MAX_AGE_MS), {
          error: "expected a duration from 1s to 1h, such as 60s",
        })
        .default("60s")
        .describe(
          "How far created_at may be from our clock, in the past and in the future, 1s to 1h. Default 60s.",
        ),
      payload: z
        .enum(["required", "optional"])
        .default("required")
        .describe(
          "required: a body needs its SHA-256 in the payload tag, and a tag needs its body; optional: checked only when both are there, as forward-auth needs. Default required.",
        ),
      max_body: z
        .string()
        .refine((text) => isBetween(parseSize(text), 0, MAX_BODY_BYTES), {
          error: "expected a size up to 1GiB, such as 10MiB",
        })
        .default("10MiB")
        .describe(
          "Largest body that is held in memory to be hashed, up to 1GiB; a larger one is refused. Default 10MiB.",
        ),
      replay: z
        .enum(["unsafe", "all"])
        .default("unsafe")
        .describe(
          "Which proofs work once only: unsafe is every method but GET, HEAD, OPTIONS and TRACE; all is every method. Default unsafe.",
        ),
      bootstrap: z
        .enum(["off", "first"])
        .default("off")
        .describe(
          "first lets whoever comes first add the first admin with POST on the surface npubs, once ever. Default off.",
        ),
      database: z
        .string()
        .min(1)
        .optional()
        .describe(
          "Path of routstrd's SQLite file, relative to the config file, to keep members in its table. Default: the state database.",
        ),
    })
    .refine(({ admins, users }) => !overlaps(admins, users), {
      error: "a key is in both admins and users; list it once",
      path: ["users"],
    });

/** {@link settingsSchema}, parsed. */
export type Settings = z.infer<ReturnType<typeof settingsSchema>>;

function isBetween(value: number | null, min: number, max: number): boolean {
  return value !== null && value >= min && value <= max;
}

function overlaps(a: readonly string[], b: readonly string[]): boolean {
  const keys = new Set(a.map(readPublicKey));
  return b.some((text) => keys.has(readPublicKey(text)));
}
