/**
 * Kubernetes' own schemas, and of the Prometheus operator's, for what our chart renders.
 *
 * Invariant: a key that the schema does not have is a problem too. Kubernetes drops such keys without a word, and what a
 * mistyped `securityContext` was to forbid would be allowed.
 */
import { ServiceMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/ServiceMonitor";
import { validate as deployment } from "kubernetes-models/_schemas/IoK8sApiAppsV1Deployment";
import { validate as autoscaler } from "kubernetes-models/_schemas/IoK8sApiAutoscalingV2HorizontalPodAutoscaler";
import { validate as configMap } from "kubernetes-models/_schemas/IoK8sApiCoreV1ConfigMap";
import { validate as volumeClaim } from "kubernetes-models/_schemas/IoK8sApiCoreV1PersistentVolumeClaim";
import { validate as pod } from "kubernetes-models/_schemas/IoK8sApiCoreV1Pod";
import { validate as secret } from "kubernetes-models/_schemas/IoK8sApiCoreV1Secret";
import { validate as service } from "kubernetes-models/_schemas/IoK8sApiCoreV1Service";
import { validate as serviceAccount } from "kubernetes-models/_schemas/IoK8sApiCoreV1ServiceAccount";
import { validate as ingress } from "kubernetes-models/_schemas/IoK8sApiNetworkingV1Ingress";
import { validate as networkPolicy } from "kubernetes-models/_schemas/IoK8sApiNetworkingV1NetworkPolicy";
import { validate as disruptionBudget } from "kubernetes-models/_schemas/IoK8sApiPolicyV1PodDisruptionBudget";
import type { Manifest } from "./chart.ts";

/** What the package's functions are: compiled schemas. */
interface Schema {
  (value: unknown): boolean;
  readonly errors?: readonly { readonly instancePath: string; readonly message?: string }[] | null;
}

/** That package has no schemas to import, but a model whose check looks at nothing but the object it is called on. */
function schemaOf(model: { readonly prototype: { validate(): void } }): Schema {
  let errors: Schema["errors"] = null;
  const check = (value: unknown): boolean => {
    try {
      Reflect.apply(model.prototype.validate, value, []);
      return true;
    } catch (error) {
      errors = [{ instancePath: "", message: error instanceof Error ? error.message : "refused" }];
      return false;
    }
  };
  return Object.defineProperty(check, "errors", { get: () => errors });
}

/** By `apiVersion kind`. */
const SCHEMAS: Readonly<Record<string, unknown>> = {
  "apps/v1 Deployment": deployment,
  "autoscaling/v2 HorizontalPodAutoscaler": autoscaler,
  "monitoring.coreos.com/v1 ServiceMonitor": schemaOf(ServiceMonitor),
  "networking.k8s.io/v1 Ingress": ingress,
  "networking.k8s.io/v1 NetworkPolicy": networkPolicy,
  "policy/v1 PodDisruptionBudget": disruptionBudget,
  "v1 ConfigMap": configMap,
  "v1 PersistentVolumeClaim": volumeClaim,
  "v1 Pod": pod,
  "v1 Secret": secret,
  "v1 Service": service,
  "v1 ServiceAccount": serviceAccount,
};

/** Everything that is wrong with an object, one text each; empty when nothing is. */
export function kubernetesProblems(manifest: Manifest): readonly string[] {
  const name = `${manifest.apiVersion} ${manifest.kind}`;
  const schema = SCHEMAS[name] as Schema | undefined;
  if (schema === undefined) return [`no schema of ${name}`];
  const seen = new Set<string>();
  if (!schema(watched(manifest, "", seen))) {
    const errors = schema.errors ?? [];
    return errors.map(
      ({ instancePath, ...rest }) => `${name}${instancePath} ${JSON.stringify(rest)}`,
    );
  }
  return pathsOf(manifest, "")
    .filter((path) => !seen.has(path))
    .map((path) => `${name}${path} is not in the schema`);
}

/** The schemas are code that reads every key it knows: what it never reads it does not know. */
function watched(value: unknown, path: string, seen: Set<string>): unknown {
  if (typeof value !== "object" || value === null) return value;
  return new Proxy(value, {
    get(target, key, receiver) {
      const found: unknown = Reflect.get(target, key, receiver);
      if (typeof key !== "string" || !Object.hasOwn(target, key)) return found;
      seen.add(`${path}/${key}`);
      return watched(found, `${path}/${key}`, seen);
    },
  });
}

function pathsOf(value: unknown, path: string): readonly string[] {
  if (typeof value !== "object" || value === null) return [];
  return Object.entries(value).flatMap(([key, one]) => [
    `${path}/${key}`,
    ...pathsOf(one, `${path}/${key}`),
  ]);
}
