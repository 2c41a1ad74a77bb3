/**
 * The snippet for Envoy: a whole static configuration with the `ext_authz` filter.
 *
 * Invariant: what a client may not say is removed before the question, who was proven is set by the answer, and
 * credentials go when the request leaves; no order in the file can be changed without breaking one of them.
 */

import { isIP } from "node:net";
import { hostPort } from "../../host-port.ts";
import type { Address, Facts } from "./facts.ts";
import { strippedNames } from "./names.ts";

/** Headers of the client that the gateway is told besides credentials: for its log and the shape of its errors. */
const TOLD = [
  "x-forwarded-for",
  "x-forwarded-proto",
  "x-request-id",
  "user-agent",
  "accept",
  "origin",
  "cookie",
  "anthropic-version",
];

/** Set by Envoy itself, in place of what a client says (`use_remote_address`). */
const OWN = ["x-forwarded-for", "x-forwarded-proto"];

/** A bootstrap file. */
export function envoySnippet(facts: Facts): string {
  return `${head(facts)}static_resources:
  listeners:
  - name: app
    address: { socket_address: { address: 0.0.0.0, port_value: 8080 } }  # add your TLS transport_socket
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: app
          # X-Forwarded-Proto and X-Request-Id are Envoy's word, and so is the last entry of X-Forwarded-For.
          use_remote_address: true
          # The path is judged as it goes on, so it may be put in order before; what is left is judged in every reading.
          normalize_path: true
          merge_slashes: true
          common_http_protocol_options:
            # Backends read _ as -.
            headers_with_underscores_action: DROP_HEADER
          stream_idle_timeout: 0s  # answers stream
          upgrade_configs:
          - upgrade_type: websocket  # and no other upgrade
          route_config:
            virtual_hosts:
            - name: app
              domains: ["*"]
              # Envoy appends to what a client wrote into it.
              request_headers_to_add:
              - header: { key: x-forwarded-for, value: "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%" }
                append_action: OVERWRITE_IF_EXISTS_OR_ADD
${credentialLines(facts)}              routes:
              - match: { prefix: / }
                route: { cluster: app, timeout: 0s }
          http_filters:
          # What only a proxy may say; before the question, because a client's own words would be refused there.
          - name: envoy.filters.http.header_mutation
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation
              mutations:
                request_mutations:
${strippedNames([...OWN, ...facts.copied])
  .concat(facts.copied)
  .map((name) => `                - remove: ${name}`)
  .join("\n")}
${authorization(facts)}
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
  clusters:
${cluster("gatehouse", facts.gateway)}
${cluster("app", facts.upstream)}
`;
}

function head({ notes }: Facts): string {
  return `# Gatehouse decides, Envoy 1.27 or newer forwards. Made by \`gatehouse emit envoy\`.
# Envoy adds its own address to X-Forwarded-For of a question: write it into server.trusted_proxies, too, or the
# gateway's log shows Envoy in place of the client.
${notes.map((note) => `# Note: ${note}\n`).join("")}`;
}

function credentialLines({ credentials }: Facts): string {
  if (credentials.length === 0) {
    return "              # Credentials go on to the application: every route says forward_credential.\n";
  }
  return `              # Credentials were for the gateway. Removed when the request leaves, after the question.
              request_headers_to_remove: [${credentials.join(", ")}]
`;
}

function authorization({ path, gateway, copied, credentials }: Facts): string {
  const told = [...new Set([...credentials, ...TOLD])];
  return `          - name: envoy.filters.http.ext_authz
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz
              transport_api_version: V3
              # No answer, or a fault, is never a pass.
              failure_mode_allow: false
              status_on_error: { code: ServiceUnavailable }
              # The answer chooses no route; a second choice of route could skip this filter.
              clear_route_cache: false
              # What strategies read, and what the log shows: add a header that one of your own needs.
              allowed_headers:
                patterns:
${exactly(told, "                ")}
              http_service:
                server_uri: { uri: "${originOf(gateway)}", cluster: gatehouse, timeout: 30s }
                # The original path follows it.
                path_prefix: ${path}
                # Refusals pass as they are: allowed_client_headers is left out, which means every header.
${copied.length === 0 ? "" : upstreamHeaders(copied)}`.trimEnd();
}

function upstreamHeaders(copied: readonly string[]): string {
  return `                # Who was proven, over what is there. The gateway always answers all of them.
                authorization_response:
                  allowed_upstream_headers:
                    patterns:
${exactly(copied, "                    ")}`;
}

function exactly(names: readonly string[], indent: string): string {
  return names.map((name) => `${indent}- { exact: ${name}, ignore_case: true }`).join("\n");
}

function originOf(address: Address): string {
  if (address.kind === "unix") return "http://gatehouse";
  return `${address.tls ? "https" : "http"}://${hostPort(address.host, address.port)}`;
}

function cluster(name: string, address: Address): string {
  const socket =
    address.kind === "unix"
      ? `{ pipe: { path: ${address.path} } }`
      : `{ socket_address: { address: "${address.host}", port_value: ${address.port} } }`;
  const isNamed = address.kind === "tcp" && isIP(address.host) === 0;
  return `  - name: ${name}
    type: ${isNamed ? "STRICT_DNS" : "STATIC"}
    load_assignment:
      cluster_name: ${name}
      endpoints:
      - lb_endpoints:
        - endpoint: { address: ${socket} }
${address.kind === "tcp" && address.tls ? tlsLines(address.host) : ""}`.trimEnd();
}

function tlsLines(host: string): string {
  return `    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: ${host}
        common_tls_context:
          validation_context:
            trusted_ca: { filename: /etc/ssl/certs/ca-certificates.crt }
            match_typed_subject_alt_names:
            - { san_type: DNS, matcher: { exact: ${host} } }
`;
}
