/**
 * A stand-in for a hosted Authsome (accounts, claims, proofs; API below /api, 2026): which endpoints are open, bound to
 * a token in the URL, behind a session cookie, or behind a signed proof of method, path and body.
 *
 * Invariant: proofs are really verified, byte for byte and once, so that whatever changed on the way is noticed.
 */
import { createHash, generateKeyPairSync, type KeyObject, sign, verify } from "node:crypto";
import {
  type Endpoint,
  each,
  json,
  type SeenCall,
  type StandIn,
  standIn,
  text,
} from "./standin.ts";

const HANDLE = "brave-otter";
const COOKIE = "authsome_ui_session=cookie-value";

/** An agent that is registered and claimed. */
export interface Agent {
  /** The value of Authorization for a request. */
  prove(method: string, pathAndQuery: string, body?: string): string;
}

export interface AuthsomeStandIn extends StandIn {
  readonly agent: Agent;
}

const page: Endpoint = () =>
  new Response("<html>page</html>", { headers: { "content-type": "text/html; charset=utf-8" } });

function redirect(location: string, cookie?: string): Response {
  const headers = new Headers({ location });
  if (cookie !== undefined) {
    headers.append("set-cookie", `${cookie}; HttpOnly; Max-Age=3600; Path=/; SameSite=lax`);
  }
  return new Response(null, { status: 303, headers });
}

const done: Endpoint = (call) => json({ status: "ok", target: call.target });
const hash = (body: string) => createHash("sha256").update(body).digest("hex");

/** `PoP <jwt>`, as its client makes it. */
function proofOf(key: KeyObject, claims: object): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const input = `${part({ alg: "EdDSA", typ: "JWT" })}.${part(claims)}`;
  return `PoP ${input}.${sign(null, Buffer.from(input), key).toString("base64url")}`;
}

/** Why a proof is refused, or null. */
function proofProblem(call: SeenCall, key: KeyObject, used: Set<string>): string | null {
  const authorization = call.headers.get("authorization");
  if (authorization === null) return "Missing PoP authorization header";
  const [scheme, token = ""] = authorization.split(" ");
  if (scheme !== "PoP" || token === "") return "Expected Authorization: PoP <jwt>";
  const [head = "", claims = "", signature = ""] = token.split(".");
  const isSigned = verify(
    null,
    Buffer.from(`${head}.${claims}`),
    key,
    Buffer.from(signature, "base64url"),
  );
  if (!isSigned) return "Invalid proof JWT: Signature verification failed";
  const said = JSON.parse(Buffer.from(claims, "base64url").toString()) as Record<string, string>;
  if (said.htm !== call.method) return "Proof JWT method does not match request";
  if (said.htu !== call.target) return "Proof JWT URL does not match request";
  if (said.body_sha256 !== hash(call.body)) return "Proof JWT body hash does not match request";
  if (used.has(said.jti ?? "")) return "Proof JWT was already used";
  used.add(said.jti ?? "");
  return null;
}

/** Starts it. */
export function authsomeStandIn(): AuthsomeStandIn {
  const { privateKey, publicKey } = generateKeyPairSync("ed25519");
  const used = new Set<string>();
  const proven =
    (endpoint: Endpoint): Endpoint =>
    (call, parameters) => {
      const problem = proofProblem(call, publicKey, used);
      return problem === null ? endpoint(call, parameters) : json({ detail: problem }, 401);
    };
  const provenOrCookie =
    (endpoint: Endpoint): Endpoint =>
    (call, parameters) => {
      if (call.headers.has("authorization")) return proven(endpoint)(call, parameters);
      const isLoggedIn = call.headers.get("cookie")?.includes(COOKIE) === true;
      return isLoggedIn
        ? endpoint(call, parameters)
        : json({ detail: "Missing or invalid browser session" }, 401);
    };
  const proofs = (names: readonly string[]) => each(names, proven(done));
  const stand = standIn({
    endpoints: {
      "GET /api/health": () => json({ status: "ok", encryption_backend: "/home/x/master.key" }),
      ...each(["GET /docs", "GET /openapi.json"], page),
      ...each(
        [
          "GET /login/",
          "GET /claim/",
          "GET /auth/input/",
          "GET /auth/device/",
          "GET /auth/success/",
        ],
        page,
      ),
      ...each(["GET /", "GET /agents/", "GET /_next/static/x.js", "GET /logo.svg"], page),
      ...each(["GET /login", "GET /claim"], (call) => redirect(`${call.target}/`)),
      "GET /claim/:token": (_, [token]) => redirect(`/claim?token=${token}`),
      "GET /api/claim/:token": (_, [token]) => json({ token, identity: HANDLE, expired: false }),
      "POST /api/claim/:token/confirm": (call) =>
        redirect(call.headers.get("cookie")?.includes(COOKIE) ? "/" : "/login?next=%2F"),
      "POST /api/auth/login": (call) =>
        call.body.includes("password=right")
          ? redirect("/", COOKIE)
          : redirect("/login?error=invalid&tab=login"),
      "POST /api/auth/register": () => redirect("/", COOKIE),
      "POST /api/logout": () => redirect("/", "authsome_ui_session="),
      "GET /api/auth/callback/oauth": (call) =>
        redirect(
          call.target.includes("state=good")
            ? "/auth/success?session=s"
            : "/auth/success?error=missing_state",
        ),
      ...each(
        [
          "GET /api/auth/sessions/:id/input",
          "GET /api/auth/sessions/:id/device",
          "GET /api/auth/sessions/:id/status",
        ],
        done,
      ),
      ...each(["POST /api/auth/sessions/:id/input", "POST /auth/input"], () =>
        redirect("https://accounts.example.com/authorize?state=good"),
      ),
      "POST /api/identities/register": done,
      ...each(["GET /api/identities/by-did/:did", "GET /api/identities/:handle"], done),
      ...each(
        ["GET /api/whoami", "GET /api/connections", "GET /api/identities", "GET /api/audit/events"],
        provenOrCookie(done),
      ),
      ...proofs([
        "GET /api/ready",
        "POST /api/auth/sessions",
        "GET /api/auth/sessions/:id",
        "GET /api/connections/:provider/:name",
        "POST /api/credentials/resolve",
        "GET /api/proxy/routes",
        "GET /api/providers",
        "POST /api/providers",
        "DELETE /api/providers/:provider",
        "POST /api/connections/:provider/revoke",
        "POST /api/connections/:provider/:name/global",
        "DELETE /api/connections/:provider/global",
        "GET /api/principals",
      ]),
    },
    notAllowed: () => json({ detail: "Method Not Allowed" }, 405),
    notFound: () => text("Not Found", 404),
  });
  let serial = 0;
  const agent: Agent = {
    prove(method, htu, body = "") {
      serial += 1;
      const claims = { htm: method, htu, body_sha256: hash(body), jti: `jti-${serial}` };
      return proofOf(privateKey, { ...claims, sub: HANDLE, aud: "authsome-daemon" });
    },
  };
  return { ...stand, agent };
}
