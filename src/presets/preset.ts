/**
 * What a preset is: named, printable config that reproduces another system's behaviour.
 *
 * Invariant: a preset is data. It expands to routes in the words of the config file, which then pass every check
 * that hand-written routes pass; it has no code on the way of a request.
 */
import type { z } from "zod";

/** A route as it would be written in the file. */
export type WrittenRoute = Readonly<Record<string, unknown>>;

/** What a whole config is made from when there is no file. */
export interface ServeSources {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly cwd: string;
  /** Flags by name without dashes: `port`, `host`, `upstream`, `db-path`, `auth-env`. */
  readonly flags: Readonly<Record<string, string>>;
}

/** A config document, or what is wrong with the environment, one line each. */
export type ServeDocument =
  | { readonly document: Readonly<Record<string, unknown>>; readonly notes: readonly string[] }
  | { readonly problems: readonly string[] };

/** How a system is usually met, for `serve --preset` and for whoever writes a first config. */
export interface Usual {
  /** Where it listens unless somebody chose otherwise. */
  readonly upstream: string;
  /** A key of its own, which the gateway sets on every request to it. */
  readonly key?: {
    /** The variable that holds it. */
    readonly env: string;
    readonly header: string;
    /** Before the key, such as `Bearer `. */
    readonly prefix: string;
    /** The system also runs without one. */
    readonly isOptional: boolean;
  };
  /** Settings of the strategy that keeps tokens, where the defaults do not fit. */
  readonly tokens?: WrittenRoute;
}

export interface Preset {
  readonly name: string;
  readonly description: string;
  /** Strict schema of `with`. */
  readonly options: z.ZodObject;
  /** The routes for options that have been parsed with {@link options}. */
  routes(options: Readonly<Record<string, unknown>>): readonly WrittenRoute[];
  readonly usual?: Usual;
  /** `serve --preset NAME` without a file. Absent: the preset is for `routes` only. */
  serve?(sources: ServeSources): ServeDocument;
}

/**
 * Types the options and forgets them again, so that presets fit into one list. The schema is made when somebody asks
 * for it: a start pays only for the presets that its config names.
 */
export function definePreset<Options extends z.ZodObject>(
  preset: Omit<Preset, "options" | "routes"> & {
    readonly options: () => Options;
    routes(options: z.infer<Options>): readonly WrittenRoute[];
  },
): Preset {
  let made: Options | null = null;
  const options = (): Options => {
    made ??= preset.options();
    return made;
  };
  return {
    ...preset,
    get options() {
      return options();
    },
    routes: (given) => preset.routes(options().parse(given)),
  };
}
