/**
 * Every preset that ships. Invariant: names are unique and never change their meaning.
 */
import type { Preset } from "./preset.ts";
import { routstrd } from "./routstrd.ts";

/** In the order in which they are listed to people. */
export const PRESETS: readonly Preset[] = [routstrd];
