/**
 * What every strategy must do, whoever wrote it: run by each bundled plugin and by the external examples.
 *
 * Invariant: the suite knows nothing of the strategy but the contract and one request that it accepts; it makes
 * every hostile variant from that request itself.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { credentialHeaders } from "../src/cli/emit/facts.ts";
import { type Outcome, REJECT_REASONS } from "../src/contract/outcome.ts";
import type { Plugin, StrategyInstance } from "../src/contract/plugin.ts";
import { instanceProblems, pluginProblems } from "../src/plugin-shape.ts";
import { bundledPlugins } from "../src/registry.ts";
import { type TestHost, testHost } from "./support/host.ts";
import { authRequest, headerLines, type RequestDescription } from "./support/request.ts";

/** One strategy to judge. */
export interface StrategyUnderTest {
  readonly plugin: Plugin;
  /** Keys beside `use`, references resolved. */
  readonly config: Readonly<Record<string, unknown>>;
  /**
   * A request that must be accepted. Called anew for each use, so a strategy that remembers proofs can make
   * a fresh one; one that keeps tokens creates one here.
   */
  accept(instance: StrategyInstance): RequestDescription | Promise<RequestDescription>;
  /** Header that carries the credential. Default `authorization`. */
  readonly carrier?: string;
  /** What must never show up anywhere, given the carrier's value. Default: the value without its scheme. */
  secretsOf?(value: string): readonly string[];
  /** Whether it needs `host.database`, so that a closed one must be a fault. Default false. */
  readonly hasStore?: boolean;
}

/** A credential of the right form that nobody holds. */
const STRANGER = "q7Zt1Vw9Xr4Ks2Lm8Np6Bc3Df5Gh0JyTaUeWiOo";
const TOKEN_CHARACTERS = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;

/** @param make is given the host that the instance will get, to put files beside the config if need be */
export function contractSuite(
  name: string,
  make: (host: TestHost) => StrategyUnderTest | Promise<StrategyUnderTest>,
): void {
  describe(`strategy contract: ${name}`, () => {
    let context: TestHost;
    let subject: StrategyUnderTest;
    let instance: StrategyInstance;
    /** Everything that left the strategy: outcomes, messages and stacks of what it threw. */
    const said: string[] = [];
    const presented: string[] = [];

    const carrier = (): string => subject.carrier ?? "authorization";
    const ask = async (description: RequestDescription): Promise<Outcome> => {
      try {
        const outcome = await instance.authenticate(authRequest(description));
        said.push(JSON.stringify(outcome));
        return outcome;
      } catch (error) {
        said.push(error instanceof Error ? `${error.message}\n${error.stack}` : String(error));
        throw error;
      }
    };
    /** An acceptable request whose credential was replaced by the given lines. */
    const variant = async (
      change: (value: string) => readonly string[],
    ): Promise<RequestDescription> => {
      const good = await subject.accept(instance);
      const lines = headerLines(good);
      const isCarrier = (key: string): boolean => key.toLowerCase() === carrier();
      const value = lines.find(([key]) => isCarrier(key))?.[1] ?? "";
      presented.push(...(subject.secretsOf?.(value) ?? [value.replace(/^\S+\s+/, "")]));
      const kept = lines.filter(([key]) => !isCarrier(key));
      const changed = change(value).map((text): [string, string] => [carrier(), text]);
      return { ...good, headers: [...kept, ...changed] };
    };

    beforeAll(async () => {
      context = testHost({ strategy: "subject" });
      subject = await make(context);
      const settings = subject.plugin.config.parse(subject.config);
      instance = await subject.plugin.init(settings, context.host);
    });
    afterAll(() => context.dispose());

    test("plugin and instance have the shape that the loader asks for", () => {
      expect(pluginProblems(subject.plugin)).toEqual([]);
      expect(instanceProblems(instance)).toEqual([]);
    });

    test("what the plugin says its instances offer is what they have", () => {
      const { offers } = subject.plugin;
      if (offers === undefined) return;
      const names = (instance.surfaces ?? []).map(({ name }) => name);
      expect(offers).toEqual({ tokens: instance.tokens !== undefined, surfaces: names });
    });

    test("every config field has a description", () => {
      const bare = Object.entries(subject.plugin.config.shape)
        .filter(([, field]) => !hasDescription(field))
        .map(([key]) => key);
      expect(bare).toEqual([]);
    });

    test("an unknown config key is refused", () => {
      const more = { ...subject.config, no_such_key: true };
      expect(subject.plugin.config.safeParse(more).success).toBe(false);
    });

    test("a request with the right credential is accepted with a complete identity", async () => {
      const outcome = await ask(await variant((value) => [value]));
      expect(outcome.outcome).toBe("accept");
      if (outcome.outcome !== "accept") return;
      expect(outcome.identity.id).toMatch(/^[\x21-\x7e]{1,200}$/);
      expect(["admin", "user", undefined]).toContain(outcome.identity.role);
      expect(outcome.identity.expiresAtMs ?? Number.MAX_SAFE_INTEGER).toBeGreaterThan(
        context.clock.nowMs(),
      );
    });

    test("a request without a credential is absent", async () => {
      expect(await ask({})).toEqual({ outcome: "absent" });
      expect(await ask(await variant(() => []))).toEqual({ outcome: "absent" });
    });

    test.each([
      ["Basic", "Basic dXNlcjpwYXNzd29yZA=="],
      ["Digest", 'Digest username="Mufasa", realm="x"'],
      ["Negotiate", "Negotiate YIIBHgYGKwYBBQUCoIIBEjCC"],
      ["a scheme that nobody knows", "Gatehouse-Contract-Suite abc"],
    ])("Authorization with another scheme (%s) is absent", async (_, value) => {
      expect(await ask({ headers: { authorization: value } })).toEqual({ outcome: "absent" });
    });

    test("an opaque credential that nobody holds is unknown or rejected", async () => {
      const outcome = await ask(
        await variant((value) => [value.replace(/^(\S+\s+)?.*$/s, `$1${STRANGER}`)]),
      );
      expect(["unknown", "reject"]).toContain(outcome.outcome);
    });

    test.each<[string, (value: string) => readonly string[]]>([
      ["without its last character", (value) => [value.slice(0, -1)]],
      ["cut to half", (value) => [value.slice(0, value.length / 2)]],
      ["cut to its scheme", (value) => [value.replace(/\S+$/, "").trim()]],
      ["with one more character", (value) => [`${value}a`]],
      ["oversized at 9 KB", (value) => [value + "a".repeat(9 * 1024)]],
      ["with non-ASCII characters", (value) => [`${value}\u00e9`]],
      ["with a no-break space at its end", (value) => [`${value}\u00a0`]],
      ["with a no-break space before it", (value) => [value.replace(/(\S+)$/, "\u00a0$1")]],
      ["with a NUL at its end", (value) => [`${value}\0`]],
      ["with a NUL inside", (value) => [`${value.slice(0, -4)}\0${value.slice(-4)}`]],
      ["with a line break inside", (value) => [`${value.slice(0, -4)}\r\n${value.slice(-4)}`]],
      ["sent twice", (value) => [value, value]],
      ["sent after a wrong one", (value) => [value.replace(/\S+$/, STRANGER), value]],
      ["sent before a wrong one", (value) => [value, value.replace(/\S+$/, STRANGER)]],
      ["joined with itself by a comma", (value) => [`${value}, ${value}`]],
      ["after a wrong one and a comma", (value) => [`Bearer nope, ${value}`]],
      ["before a comma and a wrong one", (value) => [`${value},nope`]],
    ])("a good credential %s is not accepted and is no fault", async (_, change) => {
      const outcome = await ask(await variant(change));
      expect(["absent", "unknown", "reject"]).toContain(outcome.outcome);
      if (outcome.outcome === "reject") expect(REJECT_REASONS).toContain(outcome.reason);
    });

    test("the headers that carry its credentials are named, so that they are not forwarded", () => {
      const names = instance.credentialHeaders ?? ["authorization"];
      expect(names).toContain(carrier());
      if (!bundledPlugins.some(({ name: bundled }) => bundled === subject.plugin.name)) return;
      // `gatehouse emit` finds them without starting the strategy.
      expect(credentialHeaders(subject.plugin, subject.config)).toEqual(names);
    });

    test("challenges are data that cannot break out of a header", () => {
      for (const { scheme, parameters = {} } of instance.challenges?.() ?? []) {
        expect(scheme).toMatch(TOKEN_CHARACTERS);
        for (const [key, value] of Object.entries(parameters)) {
          expect(key).toMatch(TOKEN_CHARACTERS);
          expect(["realm", "error", "error_description"]).not.toContain(key.toLowerCase());
          expect(value).toMatch(/^[\x20-\x7e]*$/);
        }
      }
    });

    test("health tells the operator in words and by a stable code", () => {
      for (const condition of instance.health?.() ?? []) {
        expect(condition.code).toMatch(/^[a-z][a-z0-9_]*$/);
        expect(["info", "warning", "error"]).toContain(condition.severity);
        expect(condition.text).not.toBe("");
      }
    });

    // The last three in this order: the first looks at all that was said, the others end the instance.
    test("nothing that was presented shows up in outcomes, logs, health or files", async () => {
      const health = JSON.stringify(instance.health?.() ?? []);
      const everything = [
        ...said,
        context.log.text(),
        health,
        ...filesBelow(context.host.stateDir),
      ];
      const secrets = presented.filter((text) => text.length >= 8);
      expect(secrets.length).toBeGreaterThan(0);
      for (const secret of secrets) {
        expect(everything.some((text) => text.includes(secret))).toBe(false);
      }
      expect(everything.some((text) => text.includes(STRANGER))).toBe(false);
    });

    test("a store that fails is a fault, never an answer about the credential", async () => {
      const good = await variant((value) => [value]);
      if (subject.hasStore !== true) return;
      context.breakDatabase();
      await expect(ask(good)).rejects.toThrow();
      for (const secret of presented.filter((text) => text.length >= 8)) {
        expect(said.at(-1)).not.toContain(secret);
      }
    });

    test("closing twice is fine", async () => {
      await instance.close?.();
      await instance.close?.();
    });
  });
}

function hasDescription(field: unknown): boolean {
  return (
    typeof field === "object" &&
    field !== null &&
    "description" in field &&
    typeof field.description === "string" &&
    field.description !== ""
  );
}

/** Contents of every file in `directory` and below, as bytes in Latin-1 so that nothing is lost. */
function filesBelow(directory: string): string[] {
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => readFileSync(join(entry.parentPath, entry.name), "latin1"));
}
