/**
 * What the operator can set about the strategy `valkey-hash`.
 *
 * Invariant: what parses can be used: durations are read, salts are 32 bytes that are not public, and the keys that
 * say where its Valkey is are the contract's. Messages never repeat a value.
 */
import { checkValkeySettings, parseDuration, secret, valkeyShape, z } from "gatehouse";

/** The salt that rusty-valkey-forward-auth falls back to when its own is blank: printed in its source, so no secret. */
const PUBLIC_SALT = "3794447850d23a5db972dbe556437ec2edfe4294687843d7f0587bd9535beecf";
const SALT = /^[0-9a-f]{64}$/i;

/** Between `min` and `max`, both included. */
function duration(min: string, max: string) {
  const isBetween = (text: string): boolean => {
    const ms = parseDuration(text) ?? -1;
    return ms >= (parseDuration(min) ?? 0) && ms <= (parseDuration(max) ?? 0);
  };
  return z.string().refine(isBetween, { error: `expected a duration from ${min} to ${max}` });
}

const shape = () => ({
  ...valkeyShape(),
  salt: secret("Key of the token hashes: 64 hex digits, a reference."),
  previous_salt: secret("The salt before.")
    .optional()
    .describe("The salt before: its tokens still work, new ones are made with salt. Default none."),
  cache: z
    .boolean()
    .default(true)
    .describe("Keep accepted tokens in memory until Valkey says that they changed. Default true."),
  header: z
    .string()
    .regex(/^[A-Za-z0-9-]{1,100}$/, { error: "expected a header name (letters, digits and -)" })
    .refine((name) => name.toLowerCase() !== "authorization", {
      error: "Authorization is always read; name another header or null",
    })
    .nullable()
    .default(null)
    .describe("Header that is read when Authorization is absent or empty. Default null: none."),
  basic: z
    .boolean()
    .default(true)
    .describe(
      "Accept Basic with the token as password, or as user if that is blank. Default true.",
    ),
  format: z
    .enum(["plain", "checked"])
    .default("plain")
    .describe(
      "New tokens: plain is 32 letters and digits, checked is PREFIX_ID_SECRET with a checksum. Default plain.",
    ),
  prefix: z
    .string()
    .regex(/^[a-z][a-z0-9]{1,9}$/, { error: "expected 2 to 10 of a-z and 0-9, a letter first" })
    .default("gate")
    .describe("First part of checked tokens. Default gate."),
  last_used_interval: duration("1s", "1d")
    .default("30s")
    .describe("How often the times of last use are written, 1s to 1d. Default 30s."),
});

/** Keys beside `use`. */
export const settingsSchema = () =>
  z
    .strictObject(shape())
    .superRefine(checkValkeySettings)
    .superRefine((settings, issues) => {
      const say = (path: string, message: string): void => {
        issues.addIssue({ code: "custom", path: [path], message });
      };
      for (const key of ["salt", "previous_salt"] as const) {
        const problem = saltProblem(settings[key]);
        if (problem !== null) say(key, problem);
      }
      if (settings.salt.toLowerCase() === settings.previous_salt?.toLowerCase()) {
        say("previous_salt", "is the same as salt; leave it out");
      }
    });

/** Parsed settings. */
export type Settings = z.infer<ReturnType<typeof settingsSchema>>;

function saltProblem(salt: string | undefined): string | null {
  if (salt === undefined) return null;
  if (!SALT.test(salt)) return "expected 64 hex digits; make them with: openssl rand -hex 32";
  if (salt.toLowerCase() === PUBLIC_SALT) {
    return "this is the public default salt of rusty-valkey-forward-auth: whoever reads the hashes could guess tokens; use one of your own";
  }
  return null;
}
