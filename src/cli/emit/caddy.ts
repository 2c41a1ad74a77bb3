/**
 * The snippet for Caddy: `forward_auth` in a `route`, with everything a client may not say deleted before it.
 *
 * Invariant: holds for Caddy 2.5.1 and newer. Some versions leave a client's header in place when the answer has
 * none, so headers are deleted before the question, not only overwritten after it. Caddy keeps where to connect with
 * the request, and `reverse_proxy` overwrites it: a connection that was begun for a question and comes about after its
 * answer leads to the application (seen with 2.6.2: one of some 10,000 requests passed). So no connection is kept.
 */
import { hostPort } from "../../host-port.ts";
import type { Address, Facts } from "./facts.ts";
import { NAMES, PREFIXES, shown } from "./names.ts";

/** A site for the Caddyfile. */
export function caddySnippet(facts: Facts): string {
  const { path, gateway, upstream, hosts, copied, credentials, notes } = facts;
  const inPrefix = (name: string): boolean => PREFIXES.some((prefix) => name.startsWith(prefix));
  const removed = [...new Set([...NAMES, ...copied])].filter((name) => !inPrefix(name));
  return `# Gatehouse decides, Caddy 2.5.1 or newer forwards. Made by \`gatehouse emit caddy\`.
# Put this into the Caddyfile, then: caddy reload --config /etc/caddy/Caddyfile
${notes.map((note) => `# Note: ${note}\n`).join("")}${hosts.join(", ")} {
	# route keeps the order of what is in it; Caddy would sort it otherwise, and delete what the answer said.
	route {
		# WebSockets pass. A client must not list headers in Connection (Caddy removes what is listed, also who was
		# proven), nor open a tunnel of another kind (h2c).
		@websocket header_regexp Upgrade (?i)^websocket$
		@plain not header_regexp Upgrade (?i)^websocket$
		request_header @websocket Connection Upgrade
		request_header @plain -Connection

		# What only a proxy may say. Backends read _ and . as -, so such names go as well.
		request_header -*_*
		request_header -*.*
${PREFIXES.map((prefix) => `		request_header -${shown(prefix)}*`).join("\n")}
${removed.map((name) => `		request_header -${shown(name)}`).join("\n")}
		request_header X-Request-Id {http.request.uuid}

		# The question. The answer is passed on unless it is 2xx; who was proven is copied to the request.
		forward_auth ${caddyAddress(gateway)} {
			uri ${path}
${copied.length === 0 ? "" : `			copy_headers ${copied.map(shown).join(" ")}\n`}			# A connection for each question. Among kept ones Caddy 2.6 may have one to the application, and later versions
			# too where a unix socket is involved; the application would then answer the question, with 200.
			transport http {
				keepalive off
			}
		}

${credentialLines(credentials)}
		# No rewrite between the question and this: what was judged is what goes on.
		reverse_proxy ${caddyAddress(upstream)} {
			flush_interval -1  # answers stream
		}
	}
}
`;
}

function credentialLines(credentials: readonly string[]): string {
  if (credentials.length === 0) {
    return "		# Credentials go on to the application: every route says forward_credential.";
  }
  return [
    "		# Credentials were for the gateway; the application must not see them, on public paths either.",
    ...credentials.map((name) => `		request_header -${shown(name)}`),
  ].join("\n");
}

function caddyAddress(address: Address): string {
  if (address.kind === "unix") return `unix/${address.path}`;
  return `${address.tls ? "https://" : ""}${hostPort(address.host, address.port)}`;
}
