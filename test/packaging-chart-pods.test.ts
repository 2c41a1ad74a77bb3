/**
 * What the pods of the Helm chart are and do: several gateways, one with a volume, one in place of
 * rusty-valkey-forward-auth, one whose Valkey goes away.
 *
 * Rendered as packaging-chart.test.ts says; no Helm and no cluster.
 *
 * Invariant: what a rendered configuration promises is asked of the executable.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { runBinary } from "./support/binary.ts";
import { onlyOf, renderChart, type Values } from "./support/chart.ts";
import {
  dataOf,
  deploymentOf,
  environmentOf,
  example,
  kindsOf,
  PLAIN,
  podOf,
  startRendered,
  variablesOf,
} from "./support/chart-pods.ts";
import { kubernetesProblems } from "./support/kubernetes.ts";
import { removeScratch } from "./support/scratch.ts";
import { startValkey, TEST_SALT, type TestValkey, until, valkeyMissing } from "./support/valkey.ts";

const started: TestValkey[] = [];
afterAll(async () => {
  for (const valkey of started) await valkey.stop();
  removeScratch();
});

describe("several gateways", () => {
  const replicas = renderChart(example("replicas"));

  test("are replaced one by one, spread over nodes, and never all taken away at once", () => {
    const { replicas: count, strategy } = deploymentOf(replicas);
    expect([count, strategy]).toEqual([
      3,
      { type: "RollingUpdate", rollingUpdate: { maxUnavailable: 0, maxSurge: 1 } },
    ]);
    expect(onlyOf("PodDisruptionBudget", replicas).spec).toMatchObject({ maxUnavailable: 1 });
    expect(podOf(replicas).topologySpreadConstraints).toMatchObject([
      { topologyKey: "kubernetes.io/hostname", whenUnsatisfiable: "ScheduleAnyway" },
    ]);
  });

  test("an old one still takes requests while the others learn that it goes", () => {
    const pod = podOf(replicas);
    expect(pod.containers[0]).toMatchObject({ lifecycle: { preStop: { sleep: { seconds: 5 } } } });
    expect(pod.terminationGracePeriodSeconds as number).toBeGreaterThan(5 + 30);
  });

  test("take the image by its digest, and secrets of the operator's as files", () => {
    const { containers, volumes } = podOf(replicas);
    expect(containers[0].image).toMatch(/^registry\.example\.com\/gatehouse@sha256:[0-9a-f]{64}$/);
    expect(kindsOf(replicas)).not.toContain("Secret");
    expect(volumes.find(({ name }) => name === "credentials")).toEqual({
      name: "credentials",
      projected: {
        // 0440
        defaultMode: 288,
        sources: [
          {
            secret: {
              name: "gatehouse-valkey",
              items: [{ key: "password", path: "valkey-password" }],
            },
          },
          { secret: { name: "gatehouse-salt" } },
        ],
      },
    });
  });

  test("are the only way to what they guard", () => {
    const policies = replicas.manifests.filter(({ kind }) => kind === "NetworkPolicy");
    const [own, guarded] = policies.map(({ spec }) => spec as Readonly<Record<string, unknown>>);
    expect(own).toMatchObject({ policyTypes: ["Ingress", "Egress"] });
    expect(JSON.stringify(own?.egress)).toContain('{"port":53,"protocol":"UDP"}');
    const labels = deploymentOf(replicas).template.metadata.labels ?? {};
    expect(guarded).toMatchObject({
      podSelector: { matchLabels: { app: "ollama" } },
      policyTypes: ["Ingress"],
      ingress: [{ ports: [{ port: 11434, protocol: "TCP" }] }],
    });
    const [rule] = (guarded?.ingress ?? []) as [
      { from: [{ podSelector: { matchLabels: object } }] },
    ];
    expect(labels).toMatchObject(rule.from[0].podSelector.matchLabels);
  });

  test("as many as the load needs: the number is the autoscaler's alone", () => {
    const rendered = renderChart(example("autoscaling"));
    expect(deploymentOf(rendered).replicas).toBeUndefined();
    expect(onlyOf("HorizontalPodAutoscaler", rendered).spec).toMatchObject({
      scaleTargetRef: { kind: "Deployment", name: onlyOf("Deployment", rendered).metadata.name },
      minReplicas: 2,
      maxReplicas: 6,
    });
    expect(kindsOf(rendered)).not.toContain("ServiceAccount");
    expect(podOf(rendered).serviceAccountName).toBe("gateways");
  });
});

describe("one gateway", () => {
  test("with tokens of its own has a volume that outlives the release, and no second one beside it", () => {
    const rendered = renderChart(example("single"));
    expect(deploymentOf(rendered).strategy).toEqual({ type: "Recreate" });
    const claim = onlyOf("PersistentVolumeClaim", rendered);
    expect(claim.metadata.annotations?.["helm.sh/resource-policy"]).toBe("keep");
    expect(podOf(rendered).volumes).toContainEqual({
      name: "state",
      persistentVolumeClaim: { claimName: claim.metadata.name },
    });
    expect(kindsOf(rendered)).not.toContain("PodDisruptionBudget");
  });

  test("a monitor finds the Service's port and asks with the token of the Secret", () => {
    const rendered = renderChart(example("metrics"));
    const { metadata, spec } = onlyOf("ServiceMonitor", rendered);
    expect(metadata.labels).toMatchObject({ release: "prometheus" });
    const { selector, endpoints } = spec as {
      selector: { matchLabels: object };
      endpoints: readonly { readonly port: string }[];
    };
    const service = onlyOf("Service", rendered);
    expect(service.metadata.labels).toMatchObject(selector.matchLabels);
    const { ports } = service.spec as { ports: readonly { readonly name: string }[] };
    expect(ports.map(({ name }) => name)).toEqual(endpoints.map(({ port }) => port));
    expect(endpoints).toEqual([
      {
        port: "http",
        path: "/metrics",
        interval: "15s",
        scrapeTimeout: "5s",
        authorization: {
          type: "Bearer",
          credentials: { name: "gatehouse-scrape", key: "token" },
        },
      },
    ] as unknown as typeof endpoints);
    expect(rendered.notes).toContain("networkPolicy.ingressFrom has it");
  });

  test("what a monitor asks is answered with numbers, to whom it has the token of", async () => {
    const rendered = renderChart(example("metrics"));
    const env = environmentOf(rendered);
    const running = await startRendered(rendered, env);
    const ask = (token: string) =>
      fetch(`${running.url}/metrics`, { headers: { authorization: `Bearer ${token}` } });
    const answer = await ask(env.GATEHOUSE_SCRAPE_TOKEN ?? "");
    expect([answer.status, await answer.text()]).toEqual([
      200,
      expect.stringContaining("gatehouse_build_info"),
    ]);
    expect((await ask("another-token-0123456789")).status).toBe(401);
    await running.stop();
  });

  test("without anything around it is a Deployment, a Service and an account", () => {
    const kinds = ["ConfigMap", "Deployment", "Pod", "Service", "ServiceAccount"];
    expect(kindsOf(renderChart(PLAIN))).toEqual(kinds);
  });

  test("secrets in the values become a Secret, and files for ${cred:}", () => {
    const rendered = renderChart(example("single"));
    const { "openai-key": key = "" } = dataOf(onlyOf("Secret", rendered));
    expect(Buffer.from(key, "base64").toString()).toBe("not-a-key");
    expect(variablesOf(rendered).get("CREDENTIALS_DIRECTORY")?.value).toBe(
      "/run/secrets/gatehouse",
    );
  });

  test("a changed configuration or secret makes new pods", () => {
    const sums = (values: Values) =>
      deploymentOf(renderChart(values)).template.metadata.annotations ?? {};
    const before = sums(PLAIN);
    const changed = sums({ ...PLAIN, containerPort: 9000 });
    expect(changed["checksum/config"]).not.toBe(before["checksum/config"] ?? "");
    expect(changed["checksum/secret"]).toBe(before["checksum/secret"] ?? "");
    const other = sums({ ...PLAIN, secrets: { values: { key: "other" } } });
    expect(other["checksum/secret"]).not.toBe(before["checksum/secret"] ?? "");
  });
});

describe("in place of the chart of rusty-valkey-forward-auth", () => {
  const rendered = renderChart(example("rusty-valkey-forward-auth"));

  test("its values become the preset's variables, the audiences among them", async () => {
    const { args } = podOf(rendered).containers[0];
    const [verb, ...flags] = args;
    expect([verb, ...flags.slice(0, 2)]).toEqual([
      "serve",
      "--preset",
      "rusty-valkey-forward-auth",
    ]);
    // The page is mounted in the container, not here.
    const env = { ...environmentOf(rendered), TOKEN_SALT: TEST_SALT };
    const { FRONTEND_DOCS_HTML_FILE: _, ...rest } = env as Record<string, string>;
    const shown = await runBinary(
      ["config", "show", "--json", "--preset", "rusty-valkey-forward-auth"],
      { env: rest },
    );
    expect(shown).toMatchObject({ code: 0 });
    const { strategies } = JSON.parse(shown.stdout);
    expect(strategies.login).toMatchObject({
      issuer: "https://id.example.com/realms/main",
      audience: ["api", "tokens"],
      admin_group: "operators",
      admin_group_case_sensitive: true,
      groups_claim: "realm_access.roles",
      refresh: "120s",
    });
    expect(strategies.tokens).toMatchObject({ url: "redis://valkey:6379/0", username: "auth" });
    expect(strategies.site.values.app_name).toBe("Tokens");
  });

  test("secrets stay where they are, or go into a Secret", () => {
    const variables = variablesOf(rendered);
    expect(variables.get("TOKEN_SALT")?.valueFrom?.secretKeyRef).toEqual({
      name: "forward-auth-config",
      key: "token-salt",
    });
    const { "valkey-username": user = "" } = dataOf(onlyOf("Secret", rendered));
    expect(Buffer.from(user, "base64").toString()).toBe("auth");
    expect(variables.get("VALKEY_USERNAME")?.value).toBeUndefined();
  });

  test("liveness no longer depends on Valkey, readiness does", () => {
    const { livenessProbe, readinessProbe } = podOf(rendered).containers[0];
    expect(livenessProbe.httpGet.path).toBe("/health/live");
    expect(readinessProbe.httpGet.path).toBe("/health/ready");
  });

  test("settings.toml and the page of the documentation are mounted as files", () => {
    const base = example("rusty-valkey-forward-auth") as { rustyValkeyForwardAuth: Values };
    const settingsToml = '[oauth]\naudiences = ["api"]\n';
    const with_ = {
      ...base,
      rustyValkeyForwardAuth: { ...base.rustyValkeyForwardAuth, settingsToml },
    };
    const both = renderChart(with_);
    const variables = variablesOf(both);
    expect(variables.get("CONFIG_FILE")?.value).toBe("/etc/gatehouse/settings.toml");
    const mounts = podOf(both).containers[0].volumeMounts.map(({ mountPath }) => mountPath);
    expect(mounts).toEqual(
      expect.arrayContaining(["/etc/gatehouse/settings.toml", "/etc/gatehouse/docs.html"]),
    );
    expect(dataOf(onlyOf("ConfigMap", both))["docs.html"]).toBe("<h1>Our API</h1>");
    const { "settings.toml": text = "" } = dataOf(onlyOf("Secret", both));
    expect(Buffer.from(text, "base64").toString()).toBe(settingsToml);
    expect(both.manifests.flatMap(kubernetesProblems)).toEqual([]);
  });
});

describe.skipIf(valkeyMissing !== null)("a pod whose Valkey goes away", () => {
  test("stays alive and gets no requests, until Valkey is back", async () => {
    const valkey = await startValkey();
    started.push(valkey);
    const rendered = renderChart({
      config: {
        strategies: { keys: { use: "valkey-hash", url: valkey.url, salt: "${env:SALT}" } },
        routes: [{ match: { path: "/**" }, access: ["keys"] }],
      },
      readiness: { strategy: "keys" },
    });
    const { livenessProbe, readinessProbe } = podOf(rendered).containers[0];
    const running = await startRendered(rendered, { SALT: TEST_SALT });
    const status = async ({ httpGet }: typeof livenessProbe) =>
      (await fetch(`${running.url}${httpGet.path}`)).status;
    await until(async () => (await status(readinessProbe)) === 200);
    await valkey.kill();
    await until(async () => (await status(readinessProbe)) === 503);
    expect(await status(livenessProbe)).toBe(200);
    await valkey.restart();
    await until(async () => (await status(readinessProbe)) === 200);
    await running.stop();
  });
});
