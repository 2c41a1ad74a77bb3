/** Types of dockerfile.mjs, for the tests. */

/** One instruction of a Dockerfile. */
export interface Instruction {
  readonly line: number;
  readonly name: string;
  readonly flags: Readonly<Record<string, string>>;
  readonly words: readonly string[];
  readonly text: string;
}

/** What carrying a Dockerfile out takes. */
export interface CarryOutOptions {
  /** Empty; one directory a stage is made in it. */
  readonly directory: string;
  /** Real path of a file of the build context. */
  source(path: string): string;
  /** Fills a directory with what a base image holds. */
  base(image: string, directory: string): void;
  /** Build arguments. */
  readonly args: Readonly<Record<string, string>>;
  /** Whether owners can be set, which takes root. */
  readonly canOwn: boolean;
}

export function parseDockerfile(source: string): readonly Instruction[];

export function carryOut(
  instructions: readonly Instruction[],
  options: CarryOutOptions,
): { readonly root: string; readonly config: unknown };
