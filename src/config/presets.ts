/**
 * Spells out `- preset: NAME` entries of `routes` before anything else looks at them.
 *
 * Invariant: what follows sees plain routes only; a problem in one that a preset made is reported at the entry that
 * asked for the preset.
 */
import type { Preset } from "../presets/preset.ts";
import type { ConfigPath, Reporter } from "./issues.ts";
import { nameHint } from "./suggest.ts";
import { reportZod, zodMessage } from "./zod-issues.ts";

/** A document without presets. */
export interface Expansion {
  readonly value: unknown;
  /** Where a path of the expanded document comes from in the file. */
  origin(path: ConfigPath): ConfigPath;
}

/** Expands; problems with the entries themselves are reported and the entry yields no routes. */
export async function expandPresets(written: unknown, report: Reporter): Promise<Expansion> {
  const isUsed = isRecord(written) && Array.isArray(written.routes) && written.routes.some(isEntry);
  if (!isUsed || !Array.isArray(written.routes)) {
    return { value: written, origin: (path) => path };
  }
  // Loaded only where one is used: a start without them does not wait for them.
  const { PRESETS } = await import("../presets/list.ts");
  const sources: { readonly index: number; readonly isMade: boolean }[] = [];
  const routes: unknown[] = [];
  written.routes.forEach((entry: unknown, index) => {
    const isPreset = isEntry(entry);
    for (const route of isPreset ? made({ entry, index, report, presets: PRESETS }) : [entry]) {
      routes.push(route);
      sources.push({ index, isMade: isPreset });
    }
  });
  return {
    value: { ...written, routes },
    origin(path) {
      const [first, position, ...rest] = path;
      const source = first === "routes" && typeof position === "number" ? sources[position] : null;
      if (!source) return path;
      return source.isMade ? ["routes", source.index, "preset"] : ["routes", source.index, ...rest];
    },
  };
}

function isEntry(entry: unknown): entry is Record<string, unknown> {
  return isRecord(entry) && Object.hasOwn(entry, "preset");
}

interface Entry {
  readonly entry: Record<string, unknown>;
  readonly index: number;
  readonly report: Reporter;
  readonly presets: readonly Preset[];
}

function made({ entry, index, report, presets }: Entry): readonly unknown[] {
  const base = ["routes", index];
  const preset = presetOf(entry.preset, { path: [...base, "preset"], report, presets });
  for (const key of Object.keys(entry)) {
    if (key === "preset" || key === "with") continue;
    const hint = "a preset takes its options under `with`";
    report.addKey([...base, key], `unknown key \`${key}\` beside preset`, hint);
  }
  if (preset === null) return [];
  const value = entry.with ?? {};
  const parsed = preset.options.safeParse(value, { error: zodMessage });
  if (!parsed.success) {
    reportZod(parsed.error, { report, schema: preset.options, value, base: [...base, "with"] });
    return [];
  }
  return preset.routes(parsed.data);
}

/** The maker of a whole config; reports and gives `null` when there is no such preset, or it has none. */
export async function findServingPreset(
  name: string,
  report: Reporter,
): Promise<NonNullable<Preset["serve"]> | null> {
  const { PRESETS } = await import("../presets/list.ts");
  const names = PRESETS.filter((preset) => preset.serve !== undefined).map((one) => one.name);
  const serve = PRESETS.find((preset) => preset.name === name)?.serve;
  if (serve !== undefined) return serve;
  report.addAt(
    0,
    0,
    `there is no preset \`${name}\` to serve`,
    nameHint(name, names, "there are none"),
  );
  return null;
}

function presetOf(
  name: unknown,
  { path, report, presets }: { path: ConfigPath; report: Reporter; presets: readonly Preset[] },
): Preset | null {
  const names = presets.map((preset) => preset.name);
  const found = presets.find((preset) => preset.name === name);
  if (found !== undefined) return found;
  const hint =
    typeof name === "string" ? nameHint(name, names, "there are none") : names.join(", ");
  report.add(path, "unknown preset", hint);
  return null;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
