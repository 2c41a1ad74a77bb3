/**
 * What a plugin is: the default export of one module, made with `definePlugin`.
 *
 * Invariant: bundled and external plugins are the same thing; the loader checks both by this shape.
 */
import type { z } from "zod";
import type { Host, Migration } from "./host.ts";
import type { MemberStore } from "./members.ts";
import type { Identity, Outcome } from "./outcome.ts";
import type { AuthRequest } from "./request.ts";
import type { TokenStore } from "./tokens.ts";

/** The version of this contract; a plugin states the one it was written for. */
export const CONTRACT_VERSION = 1;

/** What a 401 advertises (RFC 9110 section 11.6.1): a scheme and its parameters, without `realm` and `error`. */
export interface Challenge {
  /** `Bearer`, `Nostr`, `Basic`. */
  readonly scheme: string;
  readonly parameters?: Readonly<Record<string, string>>;
}

/** A state of affairs that the operator should know. */
export interface Condition {
  /** Stable snake_case. */
  readonly code: string;
  readonly severity: "info" | "warning" | "error";
  readonly text: string;
  /** The command that shows more or mends it. */
  readonly next?: string;
}

/** One step of the wizard, rendered by the host; the answers must parse with the plugin's `config`. */
export interface Question {
  /** The config key it answers. */
  readonly id: string;
  readonly kind: "text" | "secret" | "select" | "confirm";
  readonly message: string;
  readonly options?: readonly { readonly value: string; readonly label: string }[];
  readonly initial?: string | boolean;
}

/** Who asks a surface, as the route's strategies found. */
export interface SurfaceCaller {
  /** `null` when nobody was proven; only on routes that say `anonymous: true`. */
  readonly identity: Identity | null;
  /** Why nobody was proven (`no_credential`, `invalid_token`, …), `null` when somebody was. */
  readonly refusal: string | null;
  /** Name of the strategy that accepted or refused, `null` when none did. */
  readonly strategy: string | null;
  readonly clientAddress: string;
  readonly requestId: string;
  /**
   * Sends a request to the route's upstream and returns its whole answer (16 MiB at most), redirects not followed.
   * Only path and query of the URL count. `null` when the route has no upstream.
   */
  readonly upstream: ((request: Request) => Promise<Response>) | null;
}

/**
 * Endpoints that Gatehouse itself answers; mounted only where a route of the config says `surface: STRATEGY.NAME`.
 * The request's body is at most 1 MiB and has been read. A throw ends as 503. Gatehouse has `tokens`, `docs` and
 * `health` itself for every strategy (docs/token-api.md); one of the strategy's own with such a name goes first.
 */
export interface Surface {
  /** Lower-case slug. */
  readonly name: string;
  handle(request: Request, caller: SurfaceCaller): Response | Promise<Response>;
}

/** A running strategy. `authenticate` is on the way of every request: answer synchronously where you can. */
export interface StrategyInstance {
  /** A throw or rejected promise is a fault: the request ends with 503. */
  authenticate(request: AuthRequest): Outcome | Promise<Outcome>;
  challenges?(): readonly Challenge[];
  /**
   * Request headers that carry this strategy's credentials, lower case. They are removed before the upstream
   * unless the route says `forward_credential: true`. Default: `authorization`.
   */
  readonly credentialHeaders?: readonly string[];
  /**
   * Whether an identity that was accepted earlier would still be accepted, asked about once a second for each
   * open stream. `false` ends the stream. Absent: only `expiresAtMs` ends it.
   */
  isCurrent?(identity: Identity): boolean | Promise<boolean>;
  readonly tokens?: TokenStore;
  readonly members?: MemberStore;
  /**
   * Models that may be asked for, for routes that say `models: { from: THIS }`. A throw or `null` refuses, unless
   * the route says `fail_open`.
   */
  models?(): readonly string[] | null;
  readonly surfaces?: readonly Surface[];
  health?(): readonly Condition[];
  /**
   * True: a reload that changes nothing about this strategy in the config keeps this instance. Say so only when
   * whatever else `init` has read (files, databases) is followed by the instance itself. Default: each reload starts a
   * new one, and closes this one when its last request is over.
   */
  readonly isKeptOnReload?: boolean;
  /** Called once or more; must not throw. Flush here. */
  close?(): void | Promise<void>;
}

/** A subcommand contributed by a plugin. */
export interface PluginCommand {
  readonly name: string;
  readonly help: string;
  run(args: readonly string[], host: Host): Promise<number>;
}

/** Where a check may look. */
export interface Surroundings {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Directory of the config file. */
  readonly configDir: string;
}

/** What the instances of a plugin have, as far as it is known without starting one. */
export interface Offers {
  /** Whether they keep tokens. */
  readonly tokens: boolean;
  /** Names of their surfaces. */
  readonly surfaces: readonly string[];
}

/** See docs/plugin-guide.md. */
export interface Plugin<Schema extends z.ZodObject = z.ZodObject> {
  /** Lower-case slug; a bundled plugin's folder has the same name. */
  readonly name: string;
  /** {@link CONTRACT_VERSION} at the time of writing. */
  readonly contract: number;
  /** Strict object; each field described. Keys beside `use` in the config are parsed with it. */
  readonly config: Schema;
  /**
   * What `init` would refuse although the schema is satisfied (a variable that is not set, a file that others can
   * read), one sentence each, without opening, writing or connecting. Run by `config validate` and before `serve`
   * listens. Must not quote a secret.
   */
  check?(config: z.infer<Schema>, surroundings: Surroundings): readonly string[];
  /** Must release in `close` whatever it opens. A throw refuses the start. */
  init(config: z.infer<Schema>, host: Host): StrategyInstance | Promise<StrategyInstance>;
  readonly commands?: readonly PluginCommand[];
  readonly questions?: readonly Question[];
  /**
   * So that `config validate` can say that a route asks for a surface which is not there. Absent: that is found when
   * the strategy is started.
   */
  readonly offers?: Offers;
  /**
   * The steps that are passed to `host.database`, by namespace: so that a backup which a newer version made is refused
   * before it is put in place. Absent: that is found when the strategy is started.
   */
  readonly migrations?: Readonly<Record<string, readonly Migration[]>>;
}

/** A plugin as it is written: `config` may be a function, which is asked once, when somebody needs the schema. */
export type WrittenPlugin<Schema extends z.ZodObject> = Omit<Plugin<Schema>, "config"> & {
  readonly config: Schema | (() => Schema);
};

/** Gives the config type to `init` and freezes the object. Does nothing else. */
export function definePlugin<Schema extends z.ZodObject>(
  plugin: WrittenPlugin<Schema>,
): Plugin<Schema> {
  const { config } = plugin;
  if (typeof config !== "function") return Object.freeze({ ...plugin, config });
  let made: Schema | undefined;
  return Object.freeze({
    ...plugin,
    get config() {
      made ??= config();
      return made;
    },
  });
}
