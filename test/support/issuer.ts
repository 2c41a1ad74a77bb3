/**
 * A real issuer for tests: `oidc-provider` on a port of this machine, with a client that gets tokens for itself and
 * one that gets them for a person who logs in.
 *
 * Invariant: tokens come out of the issuer's own endpoints, by the flows that clients use; nothing here signs one.
 */
import { createHash, randomBytes } from "node:crypto";
import { createServer, type Server } from "node:http";
import { exportJWK, generateKeyPair } from "jose";
import Provider, { type Configuration, type JWK } from "oidc-provider";

/** What access tokens are asked for. */
export const RESOURCE = "https://api.example.com";

const SERVICE = { id: "service", secret: "service-secret-0123456789" };
const BROWSER = { id: "browser", redirect: "https://app.example.com/callback" };

/** Who logs in, and what the issuer knows of them. */
export interface Person {
  readonly sub: string;
  readonly claims: Readonly<Record<string, unknown>>;
}

/** A running issuer. */
export interface TestIssuer {
  /** As in `iss`. */
  readonly url: string;
  /** By client credentials: nobody's but the client's. */
  serviceToken(scope?: string): Promise<string>;
  /** By authorization code with PKCE, as a browser would: the access token and the ID token. */
  personTokens(person: Person): Promise<{ readonly access: string; readonly id: string }>;
  /** From now on it signs with a new key; the old one is no longer published. Its address stays. */
  rotate(): Promise<void>;
  stop(): Promise<void>;
}

/** Starts one. Access tokens are JWTs for {@link RESOURCE}, valid for ten minutes. */
export async function startIssuer(): Promise<TestIssuer> {
  const server = createServer();
  const { promise, resolve } = Promise.withResolvers<void>();
  server.listen(0, "127.0.0.1", resolve);
  await promise;
  const url = `http://127.0.0.1:${portOf(server)}`;
  const people = new Map<string, Person>();
  let callback = await provide(url, people);
  server.on("request", (request, response) => void callback(request, response));
  return {
    url,
    serviceToken: (scope) => serviceToken(url, scope ?? "read"),
    personTokens(person) {
      people.set(person.sub, person);
      return personTokens(url, person);
    },
    async rotate() {
      callback = await provide(url, people);
    },
    stop: () =>
      new Promise((done) => {
        server.close(() => done());
        server.closeAllConnections();
      }),
  };
}

function portOf(server: Server): number {
  const address = server.address();
  return typeof address === "object" && address !== null ? address.port : 0;
}

type Callback = ReturnType<Provider["callback"]>;

async function provide(url: string, people: ReadonlyMap<string, Person>): Promise<Callback> {
  const provider = new Provider(url, configuration(await newKey(), people));
  return provider.callback();
}

async function newKey(): Promise<JWK> {
  const { privateKey } = await generateKeyPair("RS256", { extractable: true });
  const kid = randomBytes(6).toString("hex");
  return { ...(await exportJWK(privateKey)), kid, alg: "RS256", use: "sig" } as JWK;
}

function configuration(key: JWK, people: ReadonlyMap<string, Person>): Configuration {
  const ten = 600;
  return {
    jwks: { keys: [key] },
    cookies: { keys: ["cookie-signing-key-for-tests"] },
    ttl: {
      AccessToken: ten,
      ClientCredentials: ten,
      IdToken: ten,
      Interaction: ten,
      Session: ten,
      Grant: ten,
    },
    claims: { openid: ["sub"], profile: ["preferred_username", "groups"] },
    clients: [
      {
        client_id: SERVICE.id,
        client_secret: SERVICE.secret,
        grant_types: ["client_credentials"],
        redirect_uris: [],
        response_types: [],
      },
      {
        client_id: BROWSER.id,
        token_endpoint_auth_method: "none",
        redirect_uris: [BROWSER.redirect],
      },
    ],
    conformIdTokenClaims: false,
    findAccount: (_, sub) => ({
      accountId: sub,
      claims: () => ({ sub, ...people.get(sub)?.claims }),
    }),
    extraTokenClaims: (_, token) =>
      "accountId" in token ? { ...people.get(String(token.accountId))?.claims } : {},
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => RESOURCE,
        useGrantedResource: () => true,
        getResourceServerInfo: () => ({
          scope: "read write",
          audience: RESOURCE,
          accessTokenFormat: "jwt",
          accessTokenTTL: ten,
          jwt: { sign: { alg: "RS256" } },
        }),
      },
    },
  };
}

async function serviceToken(url: string, scope: string): Promise<string> {
  const basic = Buffer.from(`${SERVICE.id}:${SERVICE.secret}`).toString("base64");
  const answer = await post(
    `${url}/token`,
    { grant_type: "client_credentials", resource: RESOURCE, scope },
    { authorization: `Basic ${basic}` },
  );
  return String(answer.access_token);
}

async function personTokens(url: string, { sub }: Person) {
  const verifier = randomBytes(32).toString("base64url");
  const query = new URLSearchParams({
    client_id: BROWSER.id,
    redirect_uri: BROWSER.redirect,
    response_type: "code",
    scope: "openid profile read",
    resource: RESOURCE,
    code_challenge: createHash("sha256").update(verifier).digest("base64url"),
    code_challenge_method: "S256",
  });
  const code = await logIn(`${url}/auth?${query}`, sub);
  const answer = await post(`${url}/token`, {
    grant_type: "authorization_code",
    client_id: BROWSER.id,
    redirect_uri: BROWSER.redirect,
    code,
    code_verifier: verifier,
  });
  return { access: String(answer.access_token), id: String(answer.id_token) };
}

/** Follows the issuer through its pages, filling in the login and agreeing to the rest, to the code. */
async function logIn(start: string, login: string): Promise<string> {
  const cookies = new Map<string, string>();
  let next = start;
  let form: URLSearchParams | null = null;
  for (let step = 0; step < 20; step += 1) {
    const response: Response = await fetch(next, {
      redirect: "manual",
      headers: { cookie: [...cookies].map(([name, value]) => `${name}=${value}`).join("; ") },
      ...(form === null ? {} : { method: "POST", body: form }),
    });
    for (const line of response.headers.getSetCookie()) {
      const [, name = "", value = ""] = /^([^=]+)=([^;]*)/.exec(line) ?? [];
      if (value === "") cookies.delete(name);
      else cookies.set(name, value);
    }
    const location = response.headers.get("location");
    if (location?.startsWith(BROWSER.redirect)) {
      const code = new URL(location).searchParams.get("code");
      if (code === null) throw new Error(`no code: ${location}`);
      return code;
    }
    const page = await response.text();
    form = location === null ? filledIn(page, login) : null;
    next = new URL(location ?? /action="([^"]+)"/.exec(page)?.[1] ?? "", next).href;
  }
  throw new Error("the login does not come to an end");
}

function filledIn(page: string, login: string): URLSearchParams {
  const prompt = /name="prompt" value="([^"]+)"/.exec(page)?.[1];
  if (prompt === undefined) throw new Error(`not a page of the login: ${page.slice(0, 500)}`);
  return new URLSearchParams({ prompt, ...(prompt === "login" ? { login, password: "any" } : {}) });
}

async function post(
  url: string,
  form: Record<string, string>,
  headers: Record<string, string> = {},
): Promise<Record<string, unknown>> {
  const response = await fetch(url, { method: "POST", body: new URLSearchParams(form), headers });
  const answer = (await response.json()) as Record<string, unknown>;
  if (response.status !== 200) throw new Error(`${url} answered ${JSON.stringify(answer)}`);
  return answer;
}
