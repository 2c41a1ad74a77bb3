/**
 * What presets for APIs of others have in common.
 *
 * Invariant: the vendor learns who pays, not who asks: no identity and no address of a client goes there.
 */
import { z } from "zod";
import type { WrittenRoute } from "./preset.ts";

/** Keys of every route to a vendor. */
export const VENDOR: WrittenRoute = { identity_headers: "none", forwarded_headers: false };

/** Files, batches and the like belong to the key, so that everybody who may list them sees everybody's. */
export const storedOption = {
  stored: z
    .enum(["admin", "all"])
    .default("admin")
    .describe(
      "Who may use what the vendor keeps under the one key (files, batches and the like, which all its users share): admin or all. Default admin.",
    ),
};
