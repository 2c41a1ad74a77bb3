/**
 * The Helm chart: what its values come to, judged by Kubernetes' schemas and by the executable itself.
 *
 * A structural check, no Helm: test/support/chart-template.ts knows the part of its language that our templates use, and
 * refuses the rest. A cluster, Helm's own lint and its life cycle are not tried.
 *
 * Invariant: every example of packaging/helm/gatehouse/ci is rendered, validated and, where it has a configuration, checked
 * by `gatehouse config validate`.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { parse } from "yaml";
import { runBinary } from "./support/binary.ts";
import {
  CHART,
  exampleValues,
  type Manifest,
  namedValues,
  onlyOf,
  renderChart,
  type Values,
  withDefaults,
} from "./support/chart.ts";
import {
  deploymentOf,
  environmentOf,
  example,
  kindsOf,
  PLAIN,
  podOf,
  writeConfig,
} from "./support/chart-pods.ts";
import { execute } from "./support/chart-render.ts";
import { parseTemplate } from "./support/chart-template.ts";
import { kubernetesProblems } from "./support/kubernetes.ts";
import { removeScratch } from "./support/scratch.ts";

afterAll(removeScratch);

const EXAMPLES = [...exampleValues()];

describe("the chart", () => {
  const chart = parse(readFileSync(join(CHART, "Chart.yaml"), "utf8"));

  test("has the version of the executable, and names the Kubernetes that it needs", () => {
    const { version } = JSON.parse(
      readFileSync(resolve(import.meta.dir, "../package.json"), "utf8"),
    );
    expect(chart).toMatchObject({
      apiVersion: "v2",
      name: "gatehouse",
      type: "application",
      version,
    });
    expect(chart.appVersion).toBe(version);
    expect(chart.kubeVersion).toBe(">=1.30.0-0");
  });

  test("its templates name no value that values.yaml does not have", () => {
    const values = withDefaults({});
    const missing = namedValues().filter((path) => !isIn(values, path.split(".")));
    expect(missing).toEqual([
      "config.routes",
      "config.server",
      "config.shared",
      "config.strategies",
    ]);
  });

  test("everything in values.yaml is looked at by a template", () => {
    const named = namedValues();
    const unused = Object.keys(withDefaults({})).filter(
      (key) => !named.some((path) => path === key || path.startsWith(`${key}.`)),
    );
    expect(unused).toEqual([]);
  });

  test("values that it does not have are refused", () => {
    expect(() => renderChart({ ...PLAIN, replicas: 2 })).toThrow('Unrecognized key: "replicas"');
    expect(() => renderChart({ ...PLAIN, image: { digest: "sha256:short" } })).toThrow();
    expect(() => renderChart({ ...PLAIN, containerPort: "8008" })).toThrow();
  });
});

describe("the check of the chart", () => {
  test("finds a key that Kubernetes would drop without a word, and a value of another type", () => {
    const deployment = structuredClone(onlyOf("Deployment", renderChart(PLAIN)));
    const { template } = deployment.spec as { template: { spec: Record<string, unknown> } };
    template.spec.securityContxt = template.spec.securityContext;
    expect(kubernetesProblems(deployment)).toContain(
      "apps/v1 Deployment/spec/template/spec/securityContxt is not in the schema",
    );
    template.spec.terminationGracePeriodSeconds = "60";
    expect(kubernetesProblems(deployment).join()).toContain("/terminationGracePeriodSeconds");
    expect(kubernetesProblems({ ...deployment, kind: "Deploymnt" })).toHaveLength(1);
  });

  test("does so for the kind of the Prometheus operator too", () => {
    const monitor = onlyOf("ServiceMonitor", renderChart(example("metrics")));
    expect(kubernetesProblems(monitor)).toEqual([]);
    const changed = structuredClone(monitor) as Manifest & {
      readonly spec: { readonly endpoints: readonly Record<string, unknown>[] };
    };
    const [endpoint = {}] = changed.spec.endpoints;
    endpoint.scrapeTimout = "5s";
    expect(kubernetesProblems(changed)).toEqual([
      "monitoring.coreos.com/v1 ServiceMonitor/spec/endpoints/0/scrapeTimout is not in the schema",
    ]);
    endpoint.interval = "soon";
    expect(kubernetesProblems(changed).join()).toContain("/interval");
  });

  test.each([
    ["{{ if .a }}", "has no end"],
    ["{{ end }}", "without a beginning"],
    ["{{ .a", "not closed"],
    ["{{ block }}x{{ end }}", "without a beginning"],
    ["{{ (.a }}", "bracket"],
    ["{{ .a | }}", "empty command"],
    ["{{ 'a' }}", "is not known here"],
  ])("refuses a template that is not well formed, or beyond it: %s", (source, message) => {
    expect(() => parseTemplate(source, new Map())).toThrow(message);
  });

  test.each([
    ["{{ lookup }}", "the function lookup is not known here"],
    ["{{ .a.b }}", "nil pointer"],
    ["{{ $x }}", "there is no variable"],
    ['{{ printf "%s" 1 2 }}', "takes 1 arguments"],
    ["{{ .map }}", "is no text"],
  ])("refuses what Go would not carry out: %s", (source, message) => {
    const templates = new Map([["t", parseTemplate(source, new Map())]]);
    expect(() => execute(templates, "t", { map: {} })).toThrow(message);
  });

  test("the schema of the values has no expression that Go cannot read", () => {
    const schema = readFileSync(join(CHART, "values.schema.json"), "utf8");
    expect(schema).not.toMatch(/\(\?[=!<]|\\\\[1-9]/);
  });
});

function isIn(value: unknown, path: readonly string[]): boolean {
  const [key, ...rest] = path;
  if (key === undefined) return true;
  if (typeof value !== "object" || value === null || !Object.hasOwn(value, key)) return false;
  return isIn(Reflect.get(value, key), rest);
}

describe.each([...EXAMPLES, ["one gateway, nothing around it", PLAIN] as const])(
  "%s",
  (_, values) => {
    const rendered = renderChart(values);

    test("is what Kubernetes' schemas know, with no key besides", () => {
      expect(rendered.manifests.flatMap(kubernetesProblems)).toEqual([]);
    });

    test("has names and labels that belong together", () => {
      const names = rendered.manifests.map(({ kind, metadata }) => `${kind} ${metadata.name}`);
      expect(new Set(names).size).toBe(names.length);
      const { template } = deploymentOf(rendered);
      const { selector } = onlyOf("Deployment", rendered).spec as {
        selector: { matchLabels: object };
      };
      expect(template.metadata.labels).toMatchObject(selector.matchLabels);
      const service = onlyOf("Service", rendered).spec as { selector: object };
      expect(template.metadata.labels).toMatchObject(service.selector);
      const test = onlyOf("Pod", rendered).metadata.labels ?? {};
      expect(test).not.toMatchObject(service.selector);
    });

    test("runs without rights: no root, no writable root, no capability, no token of Kubernetes", () => {
      const pod = podOf(rendered);
      expect(pod).toMatchObject({
        automountServiceAccountToken: false,
        enableServiceLinks: false,
        securityContext: {
          runAsNonRoot: true,
          runAsUser: 65532,
          seccompProfile: { type: "RuntimeDefault" },
        },
      });
      expect(pod.containers).toHaveLength(1);
      expect(pod.containers[0].securityContext).toEqual({
        allowPrivilegeEscalation: false,
        readOnlyRootFilesystem: true,
        capabilities: { drop: ["ALL"] },
      });
      expect(pod.containers[0].image).not.toEndWith(":latest");
    });

    test("every mount has its volume, and every volume is mounted", () => {
      const { volumes, containers } = podOf(rendered);
      const mounted = new Set(containers[0].volumeMounts.map(({ name }) => name));
      expect([...mounted].toSorted()).toEqual(volumes.map(({ name }) => name).toSorted());
    });

    test("liveness is asked where no store is looked at", () => {
      const { livenessProbe, startupProbe } = podOf(rendered).containers[0];
      expect(livenessProbe.httpGet.path).toMatch(/^\/(?:healthz|health\/live)$/);
      expect(startupProbe.httpGet).toEqual(livenessProbe.httpGet);
    });

    test("no secret is in a ConfigMap, a variable or a note", () => {
      const open = [...rendered.manifests.filter(({ kind }) => kind !== "Secret"), rendered.notes];
      expect(JSON.stringify(open)).not.toContain("not-a-key");
    });

    test("its configuration, if it is here, is right", async () => {
      const { config } = withDefaults(values);
      if (Object.keys(config as object).length === 0) return;
      const checked = await runBinary(["config", "validate", "-c", writeConfig(rendered)], {
        env: environmentOf(rendered),
      });
      expect(checked).toMatchObject({ code: 0, stderr: "" });
    });
  },
);

describe("what would not work is refused, with what to do", () => {
  const { config } = PLAIN as { config: Record<string, unknown> };
  const withMetrics = (access: unknown): Record<string, unknown> => ({
    ...config,
    routes: [{ match: { path: "/metrics" }, access, surface: "metrics" }],
  });
  const withStrategy = (use: string, more: Values = {}): Values => ({
    config: { ...config, strategies: { one: { use } } },
    ...more,
  });

  test.each<[string, Values, string]>([
    ["nothing to serve", {}, "say what to serve, in one way"],
    [
      "two configurations",
      { ...PLAIN, existingConfigMap: "mine" },
      "say what to serve, in one way",
    ],
    ["no routes", { config: { strategies: {} } }, "config.routes: expected at least one route"],
    [
      "tokens that each pod would have for itself",
      withStrategy("bearer-sqlite", { replicaCount: 2 }),
      "use valkey-hash, or one replica",
    ],
    ["tokens that go with the pod", withStrategy("bearer-sqlite"), "set persistence.enabled"],
    [
      "proofs that each pod would take once",
      withStrategy("nip98", { autoscaling: { enabled: true } }),
      "config.shared",
    ],
    [
      "one state directory for two",
      { ...PLAIN, replicaCount: 2, persistence: { enabled: true } },
      "cannot share one state directory",
    ],
    [
      "readiness of a strategy that is not there",
      { ...PLAIN, readiness: { strategy: "keys" } },
      "config has no strategy keys",
    ],
    [
      "readiness of a configuration that is elsewhere",
      { existingConfigMap: "mine", readiness: { strategy: "keys" } },
      "probes.readinessPath",
    ],
    ["an image that is another tomorrow", { ...PLAIN, image: { tag: "latest" } }, "name a version"],
    [
      "a monitor of metrics that no route has",
      { ...PLAIN, serviceMonitor: { enabled: true } },
      "config.routes needs a route with surface: metrics",
    ],
    [
      "a monitor beside a preset that has none",
      { rustyValkeyForwardAuth: { enabled: true }, serviceMonitor: { enabled: true } },
      "config.routes needs a route with surface: metrics",
    ],
    [
      "a monitor without the credential that the route asks for",
      { config: withMetrics(["ops"]), serviceMonitor: { enabled: true } },
      "name a Secret with a token for it",
    ],
    [
      "a scrape interval that is none",
      { config: withMetrics("public"), serviceMonitor: { enabled: true, interval: "30" } },
      "serviceMonitor.interval",
    ],
  ])("%s", (_, values, message) => {
    expect(() => renderChart(values)).toThrow(message);
  });

  test("metrics that are public need no credential, and of another ConfigMap nothing is known", () => {
    const endpointOf = (values: Values) => {
      const { spec } = onlyOf("ServiceMonitor", renderChart(values));
      return (spec as { endpoints: readonly object[] }).endpoints;
    };
    const whole = { port: "http", path: "/metrics", interval: "30s", scrapeTimeout: "10s" };
    const on = { serviceMonitor: { enabled: true } };
    expect(endpointOf({ config: withMetrics("public"), ...on })).toEqual([whole]);
    expect(endpointOf({ existingConfigMap: "mine", ...on })).toEqual([whole]);
  });

  test("losing tokens with the pod is possible when it is meant", () => {
    expect(
      kindsOf(renderChart(withStrategy("bearer-sqlite", { allowEphemeralState: true }))),
    ).toContain("Deployment");
  });
});
