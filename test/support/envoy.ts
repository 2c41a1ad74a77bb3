/**
 * Envoy, which no distribution has: what its documentation says it does with a request, driven by the file that
 * `gatehouse emit envoy` printed.
 *
 * Invariant: a key that is not modelled here throws, so that the snippet cannot gain a line without an effect in tests.
 *
 * envoyproxy.io, «External Authorization» (ext_authz.proto), «Header mutation», «HTTP connection manager», «HTTP header
 * sanitizing», «Route configuration». The question has the original's method and Host, its path behind path_prefix,
 * Content-Length 0, Authorization and of the other headers only allowed_headers; X-Forwarded-For gets Envoy's own
 * address. Status 200 passes, and allowed_upstream_headers override; 5xx or no answer is status_on_error; another answer
 * goes to the client. request_headers_to_remove are removed by the router, after all filters. With
 * use_remote_address X-Forwarded-For, -Proto and X-Request-Id are Envoy's own.
 */
import { parse } from "yaml";
import { z } from "zod";
import {
  emptyAnswer,
  exchange,
  type Fields,
  type Held,
  type StandIn,
  serveStandIn,
  withField,
  without,
  withoutNominated,
} from "./stand-in.ts";

const patterns = z.strictObject({
  patterns: z.array(z.strictObject({ exact: z.string(), ignore_case: z.literal(true) })),
});
const type = (name: string) => z.literal(`type.googleapis.com/envoy.extensions.filters.${name}`);
const filter = <Name extends string, Config extends z.ZodType>(name: Name, config: Config) =>
  z.strictObject({ name: z.literal(name), typed_config: config });

const headerMutation = filter(
  "envoy.filters.http.header_mutation",
  z.strictObject({
    "@type": type("http.header_mutation.v3.HeaderMutation"),
    mutations: z.strictObject({
      request_mutations: z.array(z.strictObject({ remove: z.string() })),
    }),
  }),
);
const extAuthz = filter(
  "envoy.filters.http.ext_authz",
  z.strictObject({
    "@type": type("http.ext_authz.v3.ExtAuthz"),
    transport_api_version: z.literal("V3"),
    failure_mode_allow: z.literal(false),
    status_on_error: z.strictObject({ code: z.literal("ServiceUnavailable") }),
    clear_route_cache: z.literal(false),
    allowed_headers: patterns,
    http_service: z.strictObject({
      server_uri: z.strictObject({ uri: z.url(), cluster: z.string(), timeout: z.string() }),
      path_prefix: z.string(),
      authorization_response: z.strictObject({ allowed_upstream_headers: patterns }).optional(),
    }),
  }),
);
const router = filter(
  "envoy.filters.http.router",
  z.strictObject({ "@type": type("http.router.v3.Router") }),
);

const manager = filter(
  "envoy.filters.network.http_connection_manager",
  z.strictObject({
    "@type": type("network.http_connection_manager.v3.HttpConnectionManager"),
    stat_prefix: z.string(),
    use_remote_address: z.literal(true),
    normalize_path: z.literal(true),
    merge_slashes: z.literal(true),
    common_http_protocol_options: z.strictObject({
      headers_with_underscores_action: z.literal("DROP_HEADER"),
    }),
    stream_idle_timeout: z.literal("0s"),
    upgrade_configs: z.tuple([z.strictObject({ upgrade_type: z.literal("websocket") })]),
    route_config: z.strictObject({
      virtual_hosts: z.tuple([
        z.strictObject({
          name: z.string(),
          domains: z.tuple([z.literal("*")]),
          request_headers_to_add: z.tuple([
            z.strictObject({
              header: z.strictObject({
                key: z.string(),
                value: z.literal("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"),
              }),
              append_action: z.literal("OVERWRITE_IF_EXISTS_OR_ADD"),
            }),
          ]),
          request_headers_to_remove: z.array(z.string()).optional(),
          routes: z.tuple([
            z.strictObject({
              match: z.strictObject({ prefix: z.literal("/") }),
              route: z.strictObject({ cluster: z.string(), timeout: z.literal("0s") }),
            }),
          ]),
        }),
      ]),
    }),
    http_filters: z.array(z.union([headerMutation, extAuthz, router])),
  }),
);

const address = z.strictObject({
  socket_address: z.strictObject({ address: z.string(), port_value: z.number() }),
});
const cluster = z.strictObject({
  name: z.string(),
  type: z.enum(["STATIC", "STRICT_DNS"]),
  load_assignment: z.strictObject({
    cluster_name: z.string(),
    endpoints: z.tuple([
      z.strictObject({
        lb_endpoints: z.tuple([z.strictObject({ endpoint: z.strictObject({ address }) })]),
      }),
    ]),
  }),
});
const document = z.strictObject({
  static_resources: z.strictObject({
    listeners: z.tuple([
      z.strictObject({
        name: z.string(),
        address,
        filter_chains: z.tuple([z.strictObject({ filters: z.tuple([manager]) })]),
      }),
    ]),
    clusters: z.array(cluster),
  }),
});

export function startEnvoy(text: string): Promise<StandIn> {
  const { listeners, clusters } = document.parse(parse(text)).static_resources;
  const { route_config, http_filters } = listeners[0].filter_chains[0].filters[0].typed_config;
  const [host] = route_config.virtual_hosts;
  const where = (name: string): string => {
    const found = clusters.find((one) => one.name === name);
    const socket = found?.load_assignment.endpoints[0].lb_endpoints[0].endpoint.address;
    if (socket === undefined) throw new Error(`there is no cluster ${name}`);
    return `${socket.socket_address.address}:${socket.socket_address.port_value}`;
  };
  return serveStandIn(async (client) => {
    let held = entered(client);
    for (const step of http_filters) {
      const next = await applied(step, held, where);
      if (typeof next === "string") return next;
      held = next;
    }
    const kept = without(held.fields, host.request_headers_to_remove ?? []);
    const fields = withField(kept, host.request_headers_to_add[0].header.key, "127.0.0.1");
    const to = where(host.routes[0].route.cluster);
    return (await exchange(to, { ...held, fields }))?.text ?? emptyAnswer(503);
  });
}

/** What the connection manager makes of a client's request. */
function entered(client: Held): Held {
  let fields: Fields = withoutNominated(client.fields).filter(([name]) => !name.includes("_"));
  const before = fields.filter(([name]) => name === "x-forwarded-for").map(([, value]) => value);
  fields = withField(fields, "x-forwarded-for", [...before, "127.0.0.1"].join(","));
  fields = withField(fields, "x-forwarded-proto", "http");
  fields = withField(fields, "x-request-id", crypto.randomUUID());
  const { pathname, search } = new URL(`http://envoy${client.target}`);
  return { ...client, fields, target: pathname.replace(/\/{2,}/g, "/") + search };
}

type Filter = z.infer<typeof headerMutation> | z.infer<typeof extAuthz> | z.infer<typeof router>;

async function applied(
  step: Filter,
  held: Held,
  where: (cluster: string) => string,
): Promise<Held | string> {
  if (step.name === "envoy.filters.http.router") return held;
  if (step.name === "envoy.filters.http.header_mutation") {
    const removed = step.typed_config.mutations.request_mutations.map(({ remove }) => remove);
    return { ...held, fields: without(held.fields, removed) };
  }
  const { http_service, allowed_headers } = step.typed_config;
  const told = ["authorization", ...allowed_headers.patterns.map(({ exact }) => exact)];
  const asked = held.fields.filter(([name]) => told.includes(name));
  const chain = asked.find(([name]) => name === "x-forwarded-for")?.[1] ?? "";
  const answer = await exchange(where(http_service.server_uri.cluster), {
    method: held.method,
    target: http_service.path_prefix + held.target,
    host: held.host,
    fields: [
      ...withField(asked, "x-forwarded-for", `${chain},127.0.0.1`),
      ["x-envoy-internal", "true"],
      ["content-length", "0"],
    ],
    body: "",
  });
  if (answer === null || answer.status >= 500) return emptyAnswer(503);
  if (answer.status !== 200) return answer.text;
  const copied = http_service.authorization_response?.allowed_upstream_headers.patterns ?? [];
  const names = copied.map(({ exact }) => exact);
  const taken = answer.fields.filter(([name]) => names.includes(name));
  return {
    ...held,
    fields: [
      ...without(
        held.fields,
        taken.map(([name]) => name),
      ),
      ...taken,
    ],
  };
}
