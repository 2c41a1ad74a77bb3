/**
 * Did-you-mean: the nearest of the names that would have been right.
 *
 * Invariant: a suggestion is only made when it is close; a wrong one is worse than none.
 */

/** The candidate within about a third of the word's length, or undefined. Case, `-` and `_` do not count. */
export function closest(word: string, candidates: Iterable<string>): string | undefined {
  // Nobody mistypes a name into something this long, and the cost is quadratic.
  if (word.length > 64) return undefined;
  const wanted = fold(word);
  let best: string | undefined;
  let bestDistance = wanted.length < 2 ? 0 : Math.ceil(wanted.length / 3) + 1;
  for (const candidate of candidates) {
    const distance = editDistance(wanted, fold(candidate));
    if (distance < bestDistance) [best, bestDistance] = [candidate, distance];
  }
  return best;
}

/** A hint for a name that does not exist: the near one, else all of them, else `none`. */
export function nameHint(word: string, candidates: readonly string[], none: string): string {
  const near = closest(word, candidates);
  if (near !== undefined) return `did you mean \`${near}\`?`;
  return candidates.length === 0 ? none : `there is ${candidates.slice(0, 20).join(", ")}`;
}

/** Lower case with `_` for `-`, so that names from variables and files compare. */
export function fold(name: string): string {
  return name.toLowerCase().replaceAll("-", "_");
}

/** Damerau-Levenshtein distance with adjacent swaps (optimal string alignment). */
function editDistance(a: string, b: string): number {
  if (Math.abs(a.length - b.length) > 24) return Number.POSITIVE_INFINITY;
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let row = 1; row <= a.length; row++) {
    const current = [row];
    for (let column = 1; column <= b.length; column++) {
      const isSame = a[row - 1] === b[column - 1];
      let cost = Math.min(
        at(last, column) + 1,
        at(current, column - 1) + 1,
        at(last, column - 1) + (isSame ? 0 : 1),
      );
      const isSwap = row > 1 && column > 1 && a[row - 1] === b[column - 2];
      if (isSwap && a[row - 2] === b[column - 1])
        cost = Math.min(cost, at(beforeLast, column - 2) + 1);
      current.push(cost);
    }
    [beforeLast, last] = [last, current];
  }
  return at(last, b.length);
}

function at(row: readonly number[], column: number): number {
  return row[column] ?? Number.POSITIVE_INFINITY;
}
