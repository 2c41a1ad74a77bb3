/**
 * The snippet for HAProxy: a front end, and a small Lua file that asks with HAProxy's own HTTP client.
 *
 * Invariant: needs nothing beside HAProxy 2.6 built with Lua, as distributions have it. Only the word `allow` that the
 * Lua file sets lets a request pass: a script that fails, or was not loaded, does not.
 */
import { hostPort } from "../../host-port.ts";
import type { Address, Facts } from "./facts.ts";
import { NAMES, PREFIXES } from "./names.ts";

/** Sections for haproxy.cfg. */
export function haproxySnippet(facts: Facts): string {
  const { upstream, copied, credentials, notes } = facts;
  const inPrefix = (name: string): boolean => PREFIXES.some((prefix) => name.startsWith(prefix));
  const removed = [...new Set([...NAMES, ...copied])].filter((name) => !inPrefix(name));
  const line = (text: string): string => `    http-request del-header ${text}\n`;
  return `# Gatehouse decides, HAProxy 2.6 or newer (with Lua) forwards. Made by \`gatehouse emit haproxy\`.
# Beside it: gatehouse emit haproxy --lua > /etc/haproxy/gatehouse.lua
# Add this to /etc/haproxy/haproxy.cfg, then: haproxy -c -f /etc/haproxy/haproxy.cfg && systemctl reload haproxy
${notes.map((note) => `# Note: ${note}\n`).join("")}global
    lua-load /etc/haproxy/gatehouse.lua

frontend gatehouse_app
    mode http
    bind :80  # or :443 ssl crt /etc/haproxy/app.pem
    timeout client 600s
    option http-no-delay  # answers stream; without it parts may wait for 200 ms

    # What is judged is what goes on: a path, whatever form it came in.
    http-request deny deny_status 400 unless { path_beg / }
    http-request set-uri %[pathq] unless { url_beg / }

    # What only a proxy may say. Backends read other signs in names as -, so such names go as well.
    http-request del-header [^A-Za-z0-9-] -m reg
${PREFIXES.map((prefix) => line(`${prefix} -m beg`)).join("")}${removed.map(line).join("")}    http-request del-header x-request-id
    http-request set-header X-Forwarded-For %[src]
    http-request set-header X-Forwarded-Proto http
    http-request set-header X-Forwarded-Proto https if { ssl_fc }
    http-request set-header X-Forwarded-Host %[req.fhdr(host)]

    # WebSockets pass; any other upgrade (h2c) would open a tunnel that nobody looks into.
    http-request del-header upgrade unless { req.fhdr(upgrade) -i -m str websocket }

    # The question. The script answers a refusal itself; without its word nothing passes.
    http-request lua.gatehouse
    http-request deny deny_status 503 hdr Retry-After 5 unless { var(txn.gatehouse) -m str allow }

${credentialLines(credentials, line)}    default_backend gatehouse_app

backend gatehouse_app
    mode http
    option http-no-delay
    timeout connect 5s
    timeout server 600s
    timeout tunnel 1h
    server app ${serverText(upstream)}  # your application
`;
}

function credentialLines(credentials: readonly string[], line: (text: string) => string): string {
  if (credentials.length === 0) {
    return "    # Credentials go on to the application: every route says forward_credential.\n";
  }
  return `    # Credentials were for the gateway; the application must not see them, on public paths either.
${credentials.map(line).join("")}`;
}

/** The Lua file. */
export function haproxyLua({ path, gateway, copied }: Facts): string {
  const host = gateway.kind === "unix" ? "gatehouse" : hostPort(gateway.host, gateway.port);
  const scheme = gateway.kind === "tcp" && gateway.tls ? "https" : "http";
  const where = gateway.kind === "unix" ? `\n    dst = "unix@${gateway.path}",` : "";
  return `-- Asks Gatehouse about each request. Made by \`gatehouse emit haproxy --lua\`; goes with the front end of
-- \`gatehouse emit haproxy\`, which lets nothing pass unless txn.gatehouse is "allow".

local URL = "${scheme}://${host}${path}"
local TIMEOUT_MS = 30000
-- Who was proven: copied from the answer, empty when it is unknown.
local COPIED = { ${[...copied, "x-request-id"].map((name) => `"${name}"`).join(", ")} }
-- Of one connection, or of the body, which stays here.
local LEFT_OUT = {
  "host", "connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade", "expect",
  "content-length", "transfer-encoding",
}

-- HAProxy's lists of values start at 0, those that it takes at 1.
local function lists(headers)
  local all = {}
  for name, values in pairs(headers) do
    local list = {}
    local index = 0
    while values[index] ~= nil do
      list[#list + 1] = values[index]
      index = index + 1
    end
    all[name] = list
  end
  for _, name in ipairs(LEFT_OUT) do
    all[name] = nil
  end
  return all
end

core.register_action("gatehouse", { "http-req" }, function(txn)
  local asked = lists(txn.http:req_get_headers())
  asked["x-forwarded-method"] = { txn.f:method() }
  asked["x-forwarded-uri"] = { txn.f:pathq() }
  local answer = core.httpclient():get {
    url = URL,${where}
    headers = asked,
    timeout = TIMEOUT_MS,
  }
  local status = answer ~= nil and answer.status or 0
  if status == 200 then
    for _, name in ipairs(COPIED) do
      local values = answer.headers[name]
      txn.http:req_set_header(name, values ~= nil and values[0] or "")
    end
    txn:set_var("txn.gatehouse", "allow")
  elseif status >= 400 and status < 600 and answer.headers["x-gatehouse-reason"] ~= nil then
    txn:done(txn:reply { status = status, headers = lists(answer.headers), body = answer.body })
  end
end, 0)
`;
}

function serverText(address: Address): string {
  return address.kind === "unix" ? `unix@${address.path}` : hostPort(address.host, address.port);
}
