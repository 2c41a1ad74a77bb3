/**
 * `serve --preset rusty-valkey-forward-auth`: the environment and `settings.toml` of the original as a config document.
 *
 * Invariant: the environment goes before the file, secrets are references to where they are, and what the original
 * would have run with in an unsafe way (an empty salt, an issuer that nobody checks) is a problem or is checked.
 */

import { join, resolve } from "node:path";
import { hostPort } from "../host-port.ts";
import { readRegularFile } from "../regular-file.ts";
import type { ServeDocument, ServeSources } from "./preset.ts";

/** Where one setting was found. */
interface Setting {
  readonly value: string;
  /** A reference that yields the same value. */
  readonly reference: string;
}

/** Where settings are. */
interface Sources {
  readonly env: ServeSources["env"];
  readonly file: SettingsFile;
}

/** Looks a setting up by its variable and its key in the file; blank counts as not set. */
type Look = (variable: string | null, key: string) => Setting | null;

class Trouble {
  readonly problems: string[] = [];
  readonly notes: string[] = [];
}

/** @see docs/valkey-forward-auth.md */
export function serveForwardAuth(sources: ServeSources): ServeDocument {
  const trouble = new Trouble();
  const { env, cwd, flags } = sources;
  const file = readSettings(resolve(cwd, env.CONFIG_FILE ?? "settings.toml"), env, trouble);
  const strange = Object.keys(flags).filter((flag) => flag !== "port" && flag !== "host");
  if (strange.length > 0) {
    const means = "means nothing to the preset rusty-valkey-forward-auth; leave it out";
    return { problems: strange.map((flag) => `--${flag} ${means}`) };
  }
  const look = looker(env, file);
  const host = flags.host ?? look("ADDRESS", "address")?.value ?? "127.0.0.1";
  const port = flags.port ?? look("PORT", "port")?.value ?? "8080";
  if (!/^\d{1,5}$/.test(port)) trouble.problems.push("the port is not a number");
  const origins = originsOf(env, file, trouble);
  const document = {
    version: 1,
    server: {
      listen: hostPort(host, port),
      health_path: null,
    },
    strategies: {
      tokens: { use: "valkey-hash", ...valkeyOf(look, trouble), salt: saltOf(look, trouble) },
      login: loginOf(look, { env, file }, trouble),
      site: siteOf(look, cwd, trouble),
    },
    routes: [
      {
        preset: "rusty-valkey-forward-auth",
        with: {
          tokens: "tokens",
          login: "login",
          site: "site",
          ...(origins.length === 0 ? {} : { origins }),
        },
      },
    ],
  };
  const { problems, notes } = trouble;
  return problems.length > 0 ? { problems } : { document, notes };
}

/** The file's values and where it is; `values` is empty when there is no file. */
interface SettingsFile {
  readonly path: string;
  readonly values: unknown;
}

function readSettings(path: string, env: ServeSources["env"], trouble: Trouble): SettingsFile {
  try {
    return { path, values: Bun.TOML.parse(readRegularFile(path)) };
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : null;
    const isDefault = env.CONFIG_FILE === undefined;
    if (code === "ENOENT" && isDefault) return { path, values: {} };
    trouble.problems.push(
      typeof code === "string"
        ? `CONFIG_FILE ${path} cannot be read: ${code}`
        : `CONFIG_FILE ${path} is not TOML`,
    );
    return { path, values: {} };
  }
}

function looker(env: ServeSources["env"], file: SettingsFile): Look {
  return (variable, key) => {
    const set = variable === null ? undefined : env[variable];
    if (set !== undefined && set.trim() !== "") {
      return { value: set.trim(), reference: `\${env:${variable}}` };
    }
    const written = at(file.values, key);
    if (
      typeof written !== "string" &&
      typeof written !== "number" &&
      typeof written !== "boolean"
    ) {
      return null;
    }
    const value = String(written).trim();
    return value === "" ? null : { value, reference: `\${toml:${file.path}#${key}}` };
  };
}

function at(value: unknown, key: string): unknown {
  let found = value;
  for (const part of key.split(".")) {
    if (typeof found !== "object" || found === null || !Object.hasOwn(found, part))
      return undefined;
    found = Reflect.get(found, part);
  }
  return found;
}

/** The original falls back to a public salt when its own is blank; nobody gets that here. */
function saltOf(look: Look, trouble: Trouble): string {
  const salt = look("TOKEN_SALT", "token_salt");
  if (salt !== null) return salt.reference;
  trouble.problems.push(
    "TOKEN_SALT is not set or blank: 64 hex digits, the same as before; new ones come from openssl rand -hex 32",
  );
  return "${env:TOKEN_SALT}";
}

function valkeyOf(look: Look, trouble: Trouble): Readonly<Record<string, unknown>> {
  const text = look("VALKEY_URL", "valkey_url")?.value ?? "redis://127.0.0.1:6379";
  const url = URL.parse(text);
  const scheme = /^(redis|valkey)(s?)(?:-(cluster|sentinel))?:$/.exec(url?.protocol ?? "");
  if (url === null || scheme === null) {
    trouble.problems.push(
      "VALKEY_URL is none of redis://, rediss://, redis-cluster://, redis-sentinel:// and the same with valkey",
    );
    return {};
  }
  if (url.username !== "" || url.password !== "") {
    trouble.problems.push(
      "VALKEY_URL holds a user or password: put them into VALKEY_USERNAME and VALKEY_PASSWORD, so that they are in no log",
    );
  }
  const password = look("VALKEY_PASSWORD", "valkey_password");
  const username = look("VALKEY_USERNAME", "valkey_username");
  const account = {
    ...(username === null ? {} : { username: username.value }),
    ...(password === null ? {} : { password: password.reference }),
  };
  const [, , secure, kind] = scheme;
  const nodes = [url.host, ...url.searchParams.getAll("node")].map(withPort);
  const tls = secure === "s" ? { tls: {} } : {};
  if (kind === "cluster") return { cluster: { nodes }, ...account, ...tls };
  if (kind === "sentinel") {
    const name = url.searchParams.get("sentinelServiceName") ?? "mymaster";
    return { sentinel: { name, nodes }, ...account, ...tls };
  }
  const path = url.pathname === "/" ? "" : url.pathname;
  return { url: `redis${secure}://${withPort(url.host)}${path}`, ...account };
}

function withPort(host: string): string {
  return /:\d+$/.test(host) ? host : `${host}:6379`;
}

function loginOf(
  look: Look,
  { env, file }: Sources,
  trouble: Trouble,
): Readonly<Record<string, unknown>> {
  const issuer = look("OAUTH_ISSUER_URL", "oauth.issuer_url")?.value;
  if (issuer === undefined)
    trouble.problems.push("OAUTH_ISSUER_URL is not set: the issuer of the logins");
  const jwks = look("OAUTH_JWKS_URL", "oauth.jwks_url")?.value;
  const audiences = audiencesOf(look, file, trouble);
  if (audiences.length === 0) {
    trouble.notes.push(
      "OAUTH_AUDIENCES is not set: tokens that the issuer made for any other service are accepted as logins, as in the original",
    );
  }
  const seconds = Number(
    look("OAUTH_JWKS_REFRESH_SECS", "oauth.jwks_refresh_interval_secs")?.value ?? "300",
  );
  if (!Number.isSafeInteger(seconds) || seconds < 1) {
    trouble.problems.push("OAUTH_JWKS_REFRESH_SECS is not a number of seconds from 1 on");
  }
  const isExact = look("OAUTH_ADMIN_CASE_SENSITIVE", "oauth.admin.group_case_sensitive");
  const named = (variable: string, key: string, otherwise: string): string => {
    if (isBlank(env[variable] ?? at(file.values, key))) {
      trouble.problems.push(`${variable} (${key}) is blank; leave it out for ${otherwise}`);
    }
    return look(variable, key)?.value ?? otherwise;
  };
  return {
    use: "oidc",
    issuer: issuer ?? "",
    ...(jwks === undefined ? {} : { jwks_url: jwks }),
    audience: audiences.length === 0 ? "any" : audiences,
    subject_claim: named("OAUTH_SUBJECT_CLAIM", "oauth.claims.subject", "sub"),
    groups_claim: named("OAUTH_GROUPS_CLAIM", "oauth.claims.groups", "groups"),
    groups_split: true,
    admin_group: named("OAUTH_ADMIN_GROUP", "oauth.admin.group", "admin"),
    admin_group_case_sensitive: yesOrNo("OAUTH_ADMIN_CASE_SENSITIVE", isExact?.value, trouble),
    refresh: `${seconds}s`,
  };
}

/** Said, and nothing said with it: whoever means to switch something off must not get its default. */
function isBlank(said: unknown): boolean {
  return typeof said === "string" && said.trim() === "";
}

/** The original has no variable for them. What was meant to be a list must not become none, which is any. */
function audiencesOf(look: Look, file: SettingsFile, trouble: Trouble): readonly string[] {
  const variable = look("OAUTH_AUDIENCES", "oauth.audiences");
  const written = at(file.values, "oauth.audiences");
  const isList = variable === null && Array.isArray(written);
  const given: readonly unknown[] = isList ? written : split(variable?.value ?? "");
  const audiences = given.filter((one) => typeof one === "string" && one.trim() !== "") as string[];
  const isOdd = audiences.length < given.length || (variable !== null && given.length === 0);
  if (isOdd) trouble.problems.push("OAUTH_AUDIENCES (oauth.audiences) is no list of audiences");
  return audiences;
}

function originsOf(
  env: ServeSources["env"],
  file: SettingsFile,
  trouble: Trouble,
): readonly string[] {
  const said = env.CORS_ENABLED ?? String(at(file.values, "cors.enabled") ?? "");
  const isOn = yesOrNo("CORS_ENABLED", said, trouble);
  if (!isOn) return [];
  const written = at(file.values, "cors.allow_origins");
  const origins =
    env.CORS_ALLOW_ORIGINS === undefined
      ? Array.isArray(written)
        ? written.filter((one) => typeof one === "string")
        : []
      : split(env.CORS_ALLOW_ORIGINS);
  if (origins.length === 0) {
    trouble.problems.push("CORS_ENABLED is on and CORS_ALLOW_ORIGINS is empty: name the origins");
  }
  return origins.includes("*") ? ["*"] : origins;
}

/** What the frontend asks for first: seven keys, each always there. */
function siteOf(look: Look, cwd: string, trouble: Trouble): Readonly<Record<string, unknown>> {
  const of = (variable: string, key: string) => look(variable, `frontend.${key}`)?.value ?? null;
  const docsPath = of("FRONTEND_API_DOCS_PATH", "api_docs_path") ?? "/docs";
  const isAddress = /^https?:\/\//.test(docsPath) || docsPath.startsWith("/");
  return {
    use: "static-site",
    dir: resolve(cwd, look("STATIC_DIR", "static_dir")?.value ?? join("frontend", "dist")),
    not_found: "page",
    values: {
      app_name: of("FRONTEND_APP_NAME", "app_name") ?? "Rusty Valkey Forward Auth",
      api_base_url: of("FRONTEND_API_BASE_URL", "api_base_url")?.replace(/\/+$/, "") ?? null,
      oidc_authority:
        of("FRONTEND_OIDC_AUTHORITY", "oidc_authority") ??
        look("OAUTH_ISSUER_URL", "oauth.issuer_url")?.value ??
        null,
      oidc_client_id:
        of("FRONTEND_OIDC_CLIENT_ID", "oidc_client_id") ?? "rusty-valkey-forward-auth-dev",
      oidc_redirect_uri: of("FRONTEND_OIDC_REDIRECT_URI", "oidc_redirect_uri"),
      docs_html: docsHtml(look, cwd, trouble),
      api_docs_path: isAddress ? docsPath : `/${docsPath}`,
    },
  };
}

/** Put into the page as it is, so it must be the operator's own. */
function docsHtml(look: Look, cwd: string, trouble: Trouble): string | null {
  const file = look("FRONTEND_DOCS_HTML_FILE", "frontend.docs_html_file")?.value;
  if (file === undefined) return look("FRONTEND_DOCS_HTML", "frontend.docs_html")?.value ?? null;
  try {
    const text = readRegularFile(resolve(cwd, file));
    return text.trim() === "" ? null : text;
  } catch {
    trouble.problems.push(`FRONTEND_DOCS_HTML_FILE ${resolve(cwd, file)} cannot be read`);
    return null;
  }
}

function split(text: string): readonly string[] {
  return text.split(",").flatMap((one) => one.trim() || []);
}

/** Blank is no, as not said. A word that is neither must not be taken for the one that was not meant. */
function yesOrNo(variable: string, text: string | undefined, trouble: Trouble): boolean {
  const word = (text ?? "").trim().toLowerCase();
  const isYes = ["1", "true", "yes", "on"].includes(word);
  if (!isYes && !["", "0", "false", "no", "off"].includes(word)) {
    trouble.problems.push(`${variable} is neither true nor false`);
  }
  return isYes;
}
