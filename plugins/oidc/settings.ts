/**
 * What the operator can set about the strategy `oidc`, and which addresses it may ask.
 *
 * Invariant: what parses can be used: durations are read, addresses are https or on this machine, an audience is
 * named or written off in so many words, and no setting can add an algorithm without a public key.
 */
import { parseDuration, z } from "gatehouse";

/** Every algorithm there is: signatures by a private key alone. Never `none`, never HMAC. */
export const ALGORITHMS = [
  "RS256",
  "RS384",
  "RS512",
  "PS256",
  "PS384",
  "PS512",
  "ES256",
  "ES384",
  "ES512",
  "EdDSA",
  "Ed25519",
] as const;

/** One of {@link ALGORITHMS}. */
export type Algorithm = (typeof ALGORITHMS)[number];

/** Between `min` and `max`, both included, in whole steps of `step`. */
function duration(min: string, max: string, step = "1ms") {
  const [low = 0, high = 0, whole = 1] = [min, max, step].map((text) => parseDuration(text) ?? 0);
  const isGood = (text: string): boolean => {
    const ms = parseDuration(text);
    return ms !== null && ms >= low && ms <= high && ms % whole === 0;
  };
  const steps = whole === 1 ? "" : " in whole seconds";
  return z.string().refine(isGood, { error: `expected a duration from ${min} to ${max}${steps}` });
}

const claim = z.string().min(1).max(200);

/** Which tokens are good, and whose keys say so. */
const proofs = () => ({
  issuer: z
    .string()
    .max(2000)
    .describe("The issuer's URL, letter for letter as it stands in `iss` of its tokens."),
  audience: z
    .union([z.string().min(1), z.array(z.string().min(1)).min(1)], {
      error: "say whom tokens must be for: one audience, a list of them, or any",
    })
    .describe(
      "What `aud` must name, or a list of which it must name one. The word any switches the check off.",
    ),
  jwks_url: z
    .string()
    .max(2000)
    .optional()
    .describe("Where the issuer's keys are. Default: found by discovery at the issuer."),
  algorithms: z
    .array(z.enum(ALGORITHMS))
    .min(1)
    .default([...ALGORITHMS])
    .describe("Signature algorithms that are accepted. Default: all that are listed."),
  token_type: z
    .enum(["any", "at+jwt"])
    .default("any")
    .describe(
      "at+jwt accepts only tokens whose header says so (RFC 9068); any also takes JWT and none. Default any.",
    ),
  require_claims: z
    .record(claim, z.union([z.string(), z.array(z.string()).min(1)]))
    .default({})
    .describe(
      "Claims by path that must have (or, if a list, contain) this text or one of these. Default none.",
    ),
  leeway: duration("0s", "10m", "1s")
    .default("60s")
    .describe("How far the clocks may differ for exp and nbf, 0s to 10m. Default 60s."),
  refresh: duration("1s", "1d")
    .default("5m")
    .describe("How often the keys are fetched in the background, 1s to 1d. Default 5m."),
  refetch_interval: duration("1s", "10m")
    .default("5s")
    .describe(
      "Shortest time between two fetches because of an unknown key id, 1s to 10m. Default 5s.",
    ),
  keep_keys: duration("1m", "30d")
    .default("24h")
    .describe(
      "How long keys are used while the issuer cannot be reached, 1m to 30d. Default 24h; then 503.",
    ),
  timeout: duration("100ms", "10s")
    .default("5s")
    .describe("How long the issuer may take for an answer, 100ms to 10s. Default 5s."),
});

/** What a good token says about whoever has it. */
const claims = () => ({
  subject_claim: claim
    .default("sub")
    .describe("Claim with the identity's id, a name or a path such as a.b. Default sub."),
  name_claim: claim
    .optional()
    .describe(
      "Claim with the identity's name. Default: the first of preferred_username, name and email.",
    ),
  groups_claim: claim
    .default("groups")
    .describe("Claim with the groups, a name or a path: realm_access.roles. Default groups."),
  groups_split: z
    .boolean()
    .default(false)
    .describe(
      "When the groups are one text: split it at white space, instead of taking it as one. Default false.",
    ),
  admin_group: z
    .string()
    .min(1)
    .optional()
    .describe("Members of this group have the role admin. Default: nobody has."),
  admin_group_case_sensitive: z
    .boolean()
    .default(true)
    .describe("false compares admin_group without regard to the case of A to Z. Default true."),
  allow_groups: z
    .array(z.string().min(1))
    .min(1)
    .optional()
    .describe("Accept only members of one of these groups. Default: everybody with a token."),
});

/** Keys beside `use`. */
export const settingsSchema = () =>
  z.strictObject({ ...proofs(), ...claims() }).superRefine((settings, issues) => {
    const say = (path: string, message: string): void => {
      issues.addIssue({ code: "custom", path: [path], message });
    };
    const { issuer, jwks_url } = settings;
    const problem = issuerProblem(issuer, jwks_url === undefined);
    if (problem !== null) say("issuer", problem);
    const keysProblem = jwks_url === undefined ? null : urlProblem(jwks_url);
    if (keysProblem !== null) say("jwks_url", keysProblem);
    if (milliseconds(settings.keep_keys) < milliseconds(settings.refresh)) {
      say("keep_keys", "expected at least as long as refresh");
    }
  });

/** Parsed settings. */
export type Settings = z.infer<ReturnType<typeof settingsSchema>>;

/** Of a duration that the schema let through. */
export function milliseconds(text: string): number {
  return parseDuration(text) ?? 0;
}

/** The audiences of which a token must name one; `null` when it need not. */
export function audiencesOf({ audience }: Pick<Settings, "audience">): string[] | null {
  if (typeof audience !== "string") return audience;
  return audience === "any" ? null : [audience];
}

/** With keys from elsewhere the issuer is a name that nobody connects to, so it may be plain http. */
function issuerProblem(issuer: string, isAsked: boolean): string | null {
  const url = URL.parse(issuer);
  if (url === null || !/^https?:$/.test(url.protocol)) {
    return "expected the issuer's URL, such as https://id.example.com/realms/main";
  }
  if (/\/\.well-known\//.test(url.pathname)) {
    return "this is the address of a document; write the part before /.well-known/";
  }
  if (url.search !== "" || url.hash !== "" || issuer.includes("?") || issuer.includes("#")) {
    return "an issuer has neither ? nor #";
  }
  if (url.username !== "" || url.password !== "") return "an issuer has no user and no password";
  return isAsked ? urlProblem(issuer) : null;
}

/** What is wrong with an address that keys are to be fetched from; `null` when nothing is. */
export function urlProblem(text: string): string | null {
  const url = URL.parse(text);
  if (url === null) return "expected a URL, such as https://id.example.com/keys";
  if (url.username !== "" || url.password !== "") return "expected no user and no password in it";
  if (url.protocol === "https:") return null;
  if (url.protocol === "http:" && isLoopback(url)) return null;
  return "expected https: whoever can change the keys on their way can let himself in (http only on this machine: localhost, 127.0.0.1, [::1])";
}

/** Whether the address is on this machine. */
function isLoopback({ hostname }: URL): boolean {
  return hostname === "localhost" || hostname === "[::1]" || /^127(\.\d{1,3}){3}$/.test(hostname);
}
