/**
 * The schema of a config value that is a secret.
 *
 * Invariant: such a value is written as a reference (`${env:NAME}`, `${file:/path}`, `${cred:name}`) and is only
 * resolved when the strategy is built; the loader refuses a literal.
 */
import { z } from "zod";

/** A string that must come from a reference. In `init` it is the resolved value, never empty or blank. */
export function secret(description: string): z.ZodString {
  return z.string().min(1).meta({ description, secret: true });
}
