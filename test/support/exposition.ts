/**
 * A strict reader of Prometheus' text format, version 0.0.4, for what our metrics come to.
 *
 * Invariant: whatever is not well formed, not announced, or there twice is an error; a histogram whose buckets do not grow
 * to its count is one too. It is stricter than Prometheus, which takes much of that.
 */

/** One series with its value. */
export interface Sample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/** What a text says. */
export interface Exposition {
  readonly samples: readonly Sample[];
  /** `counter`, `gauge` or `histogram`, by the name of the family. */
  readonly types: ReadonlyMap<string, string>;
  /** The sum of the series of this name with at least these labels; 0 when there is none. */
  sum(name: string, labels?: Readonly<Record<string, string>>): number;
}

interface Family {
  readonly name: string;
  type: string;
  isHelped: boolean;
}

const NAME = "[a-zA-Z_:][a-zA-Z0-9_:]*";
const COMMENT = new RegExp(`^# (HELP|TYPE) (${NAME}) (\\S.*)$`);
const SAMPLE = new RegExp(`^(${NAME})(?:\\{(.*)\\})? (\\S+)$`);
const LABEL = /([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)/y;
const VALUE = /^(?:[+-]?(?:\d+(?:\.\d+)?(?:e[+-]?\d+)?|Inf)|NaN)$/i;
const TYPES = ["counter", "gauge", "histogram"];

/** @throws Error that quotes the first line that is wrong */
export function readExposition(text: string): Exposition {
  if (!text.endsWith("\n")) throw new Error("the last line has no end");
  const families = new Map<string, Family>();
  const samples: Sample[] = [];
  const seen = new Set<string>();
  let family: Family | null = null;
  for (const line of text.split("\n")) {
    if (line === "") continue;
    if (line.startsWith("#")) {
      family = announced(line, family, families);
      continue;
    }
    const sample = sampleOf(line);
    if (family === null || !isOf(sample.name, family)) throw new Error(`not announced: ${line}`);
    const key = `${sample.name} ${JSON.stringify(Object.entries(sample.labels).toSorted())}`;
    if (seen.has(key)) throw new Error(`twice: ${line}`);
    seen.add(key);
    samples.push(sample);
  }
  for (const { name, type } of families.values()) if (type === "histogram") grow(name, samples);
  const types = new Map([...families.values()].map(({ name, type }) => [name, type]));
  return { samples, types, sum: (name, labels = {}) => sumOf(samples, name, labels) };
}

/** HELP and then TYPE, once for each family, before its samples. */
function announced(line: string, before: Family | null, families: Map<string, Family>): Family {
  const [, kind, name = "", rest = ""] = COMMENT.exec(line) ?? [];
  if (kind === "HELP") {
    if (families.has(name)) throw new Error(`announced twice: ${line}`);
    const family = { name, type: "", isHelped: true };
    families.set(name, family);
    return family;
  }
  if (kind !== "TYPE" || before?.name !== name || before.type !== "" || !TYPES.includes(rest)) {
    throw new Error(`not an announcement: ${line}`);
  }
  if ((rest === "counter") !== name.endsWith("_total")) throw new Error(`counters end: ${line}`);
  before.type = rest;
  return before;
}

function sampleOf(line: string): Sample {
  const [, name, labels = "", value = ""] = SAMPLE.exec(line) ?? [];
  if (name === undefined || !VALUE.test(value)) throw new Error(`not a sample: ${line}`);
  const found: Record<string, string> = {};
  LABEL.lastIndex = 0;
  while (LABEL.lastIndex < labels.length) {
    const [, label, text = ""] = LABEL.exec(labels) ?? [];
    if (label === undefined || Object.hasOwn(found, label)) throw new Error(`labels: ${line}`);
    found[label] = text.replaceAll(/\\(.)/g, (_, char) => (char === "n" ? "\n" : char));
  }
  if (labels.endsWith(",")) throw new Error(`labels: ${line}`);
  return { name, labels: found, value: Number(value.replace(/inf/i, "Infinity")) };
}

function isOf(name: string, { name: family, type }: Family): boolean {
  if (type !== "histogram") return type !== "" && name === family;
  return ["_bucket", "_sum", "_count"].some((end) => name === family + end);
}

/** The buckets of each series in order, none smaller than the one before, the last for everything. */
function grow(name: string, samples: readonly Sample[]): void {
  const buckets = Map.groupBy(
    samples.filter((sample) => sample.name === `${name}_bucket`),
    ({ labels: { le: _, ...others } }) => JSON.stringify(Object.entries(others).toSorted()),
  );
  for (const series of buckets.values()) {
    const bounds = series.map(({ labels }) => Number(labels.le?.replace("+Inf", "Infinity")));
    const values = series.map(({ value }) => value);
    const [
      {
        labels: { le: _, ...others },
      } = { labels: {} as Record<string, string> },
    ] = series;
    const count = sumOf(samples, `${name}_count`, others);
    const isRight =
      isGrowing(bounds, 1) && isGrowing(values, 0) && bounds.at(-1) === Number.POSITIVE_INFINITY;
    if (!isRight || values.at(-1) !== count) throw new Error(`not a histogram: ${name}`);
  }
}

/** Each at least `step` further, where `step` is 0 or, for strictly, 1. */
function isGrowing(values: readonly number[], step: 0 | 1): boolean {
  return values.every((value, at) => {
    const before = values[at - 1];
    return before === undefined || (step === 1 ? value > before : value >= before);
  });
}

function sumOf(
  samples: readonly Sample[],
  name: string,
  labels: Readonly<Record<string, string>>,
): number {
  return samples
    .filter((sample) => sample.name === name)
    .filter((sample) => Object.entries(labels).every(([key, one]) => sample.labels[key] === one))
    .reduce((total, { value }) => total + value, 0);
}
