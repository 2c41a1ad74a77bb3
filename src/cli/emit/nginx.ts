/**
 * The snippet for nginx: `auth_request` on a whole server.
 *
 * Invariant: the host and the bytes of the path that are asked about are those that go to the application, and
 * whatever location is added to the server is guarded as well.
 */
import { hostPort } from "../../host-port.ts";
import type { Address, Facts } from "./facts.ts";
import { FOREIGN_WORDS, shown, strippedNames } from "./names.ts";

/** Headers that the server sets on every request to the application, with nginx's variables. */
const SET: readonly (readonly [string, string])[] = [
  ["host", "$gatehouse_host"],
  ["x-forwarded-for", "$remote_addr"],
  ["x-forwarded-proto", "$scheme"],
  ["x-forwarded-host", "$gatehouse_host"],
  ["x-real-ip", "$remote_addr"],
  ["x-request-id", "$request_id"],
  ["upgrade", "$gatehouse_upgrade"],
  ["connection", "$gatehouse_connection"],
];

/** The snippet, for the http level. */
export function nginxSnippet(facts: Facts): string {
  return `${[head(facts), httpLevel(facts), server(facts)].join("\n\n")}\n`;
}

function head({ notes }: Facts): string {
  return [
    "# Gatehouse decides, nginx 1.11 or newer forwards. Made by `gatehouse emit nginx`.",
    "# Put this into /etc/nginx/conf.d/ (the http level), then: nginx -t && nginx -s reload",
    "# For a second application repeat the server block, with an upstream of its own.",
    ...notes.map((note) => `# Note: ${note}`),
  ].join("\n");
}

function httpLevel({ gateway, upstream }: Facts): string {
  return `upstream gatehouse {
    server ${serverText(gateway)};
    keepalive 32;  # one connection carries many questions
}

upstream gatehouse_app {
    server ${serverText(upstream)};  # your application
    keepalive 32;
}

# The host that is asked about, and that the application is told: the one that chose the server block below.
# A request line and a Host header that name two hosts give an empty one, which is refused.
map "$host $http_host" $gatehouse_host {
    default "";
    "~^(?<gatehouse_alone>[^ ]+) $" $gatehouse_alone;
    "~^(?<gatehouse_name>[^ ]+) (?<gatehouse_sent>(?i:\\k<gatehouse_name>)\\.?(:[0-9]+)?)$" $gatehouse_sent;
}

# WebSockets pass; any other upgrade (h2c) would open a tunnel that nobody looks into.
map $http_upgrade $gatehouse_upgrade {
    default "";
    "~*^websocket$" websocket;
}
map $gatehouse_upgrade $gatehouse_connection {
    default "";
    websocket upgrade;
}`;
}

function server(facts: Facts): string {
  return `server {
    listen 80;  # or 443 ssl, with your certificate
    server_name ${facts.hosts.join(" ")};
    client_max_body_size 100m;  # nginx alone refuses more than 1m; here, because it holds for the question as well

    # Every location is guarded, also those that you add. For one that is not (ACME): auth_request off;
    auth_request /.gatehouse;
    auth_request_set $gatehouse_reason $upstream_http_x_gatehouse_reason;
${lines(facts.copied.map((name) => `auth_request_set ${variable(name)} $upstream_http_${underscored(name)};`))}${question(facts)}

${refusals()}

    # Headers of every request to the application. A location that sets one of its own has to repeat them all, because
    # nginx inherits all or none.
${applicationHeaders(facts)}
    proxy_headers_hash_max_size 1024;
    proxy_headers_hash_bucket_size 128;

    location / {
        # No path here: with one, nginx would send a path that nobody judged.
        proxy_pass http://gatehouse_app;
        proxy_http_version 1.1;
        proxy_buffering off;          # answers stream
        proxy_request_buffering off;  # and so do uploads
        proxy_read_timeout 600s;
    }
}`;
}

function question({ path, gateway }: Facts): string {
  const header = (name: string, value: string): string =>
    `        proxy_set_header ${shown(name)} ${value};`;
  return `
    # The question. Nobody can come here from outside.
    location = /.gatehouse {
        internal;
        auth_request off;
        proxy_pass ${scheme(gateway)}://gatehouse${path};
${tlsLines(gateway)}        proxy_http_version 1.1;
        proxy_set_header Connection "";
        # The body stays here until the answer is in.
        proxy_pass_request_body off;
        proxy_set_header Content-Length "";
        # The request as it came, byte for byte: this is also what goes to the application.
        proxy_set_header X-Original-Method $request_method;
        proxy_set_header X-Original-URL $scheme://$gatehouse_host$request_uri;
        proxy_set_header X-Forwarded-For $remote_addr;
        proxy_set_header X-Request-Id $request_id;  # with $request_id in log_format both logs agree
        # What a client wrote into these is not what is asked; the gateway would refuse to answer.
${[...FOREIGN_WORDS, "x-forwarded-host", "x-forwarded-proto"]
  .filter((name) => !["x-original-method", "x-original-url"].includes(name))
  .map((name) => header(name, '""'))
  .join("\n")}
    }`;
}

/** nginx understands no refusal but 401 and 403, and makes 500 of everything else. */
function refusals(): string {
  const page = (status: number, more = ""): string => `    location @gatehouse_${status} {
        default_type application/problem+json;
        add_header X-Gatehouse-Reason $gatehouse_reason always;
        add_header X-Request-Id $request_id always;${more}
        return ${status} '{"status":${status},"reason":"$gatehouse_reason","request_id":"$request_id"}\\n';
    }`;
  return `    # Refusals tell the gateway's reason; a 401 keeps its WWW-Authenticate. nginx makes 500 of a gateway that is down
    # or cannot check a credential; clients are told 503, and nothing goes to the application.
    error_page 401 @gatehouse_401;
    error_page 403 @gatehouse_403;
    error_page 500 =503 @gatehouse_503;
${page(401)}
${page(403)}
${page(503, "\n        add_header Retry-After 5 always;")}`;
}

function applicationHeaders({ copied, credentials }: Facts): string {
  const own = SET.filter(([name]) => !copied.includes(name));
  const kept = [...copied, ...own.map(([name]) => name)];
  const set = (name: string, value: string): string =>
    `    proxy_set_header ${shown(name)} ${value};`;
  return [
    "    # Who was proven, in place of what the client says; empty is not sent.",
    ...copied.map((name) => set(name, variable(name))),
    ...credentialLines(credentials, kept, set),
    "    # What only a proxy may say. Names with _ and other signs are dropped by nginx (ignore_invalid_headers).",
    ...own.map(([name, value]) => set(name, value)),
    ...strippedNames([...kept, ...credentials]).map((name) => set(name, '""')),
  ].join("\n");
}

function credentialLines(
  credentials: readonly string[],
  kept: readonly string[],
  set: (name: string, value: string) => string,
): readonly string[] {
  if (credentials.length === 0) {
    return ["    # Credentials go on to the application: every route says forward_credential."];
  }
  return [
    "    # Credentials were for the gateway; the application must not see them, on public paths either.",
    ...credentials.filter((name) => !kept.includes(name)).map((name) => set(name, '""')),
  ];
}

function tlsLines(gateway: Address): string {
  if (gateway.kind === "unix" || !gateway.tls) return "";
  return `        proxy_ssl_server_name on;
        proxy_ssl_name ${gateway.host};
        proxy_ssl_verify on;
        proxy_ssl_trusted_certificate /etc/ssl/certs/ca-certificates.crt;
`;
}

function scheme(address: Address): "http" | "https" {
  return address.kind === "tcp" && address.tls ? "https" : "http";
}

function serverText(address: Address): string {
  if (address.kind === "unix") return `unix:${address.path}`;
  return hostPort(address.host, address.port);
}

/** nginx's variables have no `-`. */
function underscored(name: string): string {
  return name.replaceAll("-", "_");
}

function variable(name: string): string {
  return `$gatehouse_copied_${underscored(name)}`;
}

function lines(texts: readonly string[]): string {
  return texts.map((text) => `    ${text}\n`).join("");
}
