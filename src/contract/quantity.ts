/**
 * Quantities as people write them in the config: `30s`, `10MiB`.
 *
 * Invariant: what comes out is a whole number of milliseconds or bytes; what cannot be read is `null`, never 0.
 */

const DURATION_UNITS: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
  w: 604_800_000,
};

const SIZE_UNITS: Readonly<Record<string, number>> = {
  B: 1,
  kB: 1000,
  KB: 1000,
  KiB: 1024,
  MB: 1_000_000,
  MiB: 1_048_576,
  GB: 1_000_000_000,
  GiB: 1_073_741_824,
};

/** `500ms`, `30s`, `5m`, `24h`, `30d`, `2w` in milliseconds; `null` when it is not a duration. */
export function parseDuration(text: string): number | null {
  return parse(text, /^(\d{1,9})(ms|s|m|h|d|w)$/, DURATION_UNITS);
}

/** `512B`, `64KiB`, `10MiB`, `1GB` in bytes; `null` when it is not a size. */
export function parseSize(text: string): number | null {
  return parse(text, /^(\d{1,9})(B|kB|KB|KiB|MB|MiB|GB|GiB)$/, SIZE_UNITS);
}

function parse(text: string, form: RegExp, units: Readonly<Record<string, number>>): number | null {
  const match = form.exec(text.trim());
  const unit = units[match?.[2] ?? ""];
  return match?.[1] === undefined || unit === undefined ? null : Number(match[1]) * unit;
}
