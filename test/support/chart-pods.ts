/**
 * The pods of our chart as tests see them, and what runs in them: the configuration, variables and secrets that the
 * container has.
 *
 * Invariant: what is run is what was rendered; only where it listens and keeps its state is this machine's.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Running, startBinary } from "./binary.ts";
import { exampleValues, type Manifest, onlyOf, type Rendered, type Values } from "./chart.ts";
import { scratchDirectory } from "./scratch.ts";
import { TEST_SALT } from "./valkey.ts";

/** Values of one of the examples. */
export const example = (name: string): Values => exampleValues().get(`${name}-values.yaml`) ?? {};

/** One gateway, nothing around it. */
export const PLAIN: Values = {
  config: {
    strategies: { ops: { use: "static-env", env: "OPS" } },
    upstreams: { api: { url: "http://api:9000" } },
    routes: [{ match: { path: "/**" }, access: ["ops"], upstream: "api" }],
  },
};

const MADE_UP = "made-up-secret-0123456789";

/** The parts of a pod that these tests look at. */
export interface PodSpec {
  readonly containers: readonly [Container];
  readonly volumes: readonly Readonly<Record<string, unknown>>[];
  readonly securityContext?: unknown;
  readonly [field: string]: unknown;
}

export interface Container {
  readonly image: string;
  readonly args: readonly string[];
  readonly env?: readonly Variable[];
  readonly livenessProbe: { readonly httpGet: { readonly path: string } };
  readonly readinessProbe: { readonly httpGet: { readonly path: string } };
  readonly startupProbe: { readonly httpGet: { readonly path: string } };
  readonly volumeMounts: readonly Readonly<Record<string, unknown>>[];
  readonly securityContext?: unknown;
}

export interface Variable {
  readonly name: string;
  readonly value?: string;
  readonly valueFrom?: { readonly secretKeyRef: { readonly name: string; readonly key: string } };
}

export interface DeploymentSpec {
  readonly replicas?: number;
  readonly strategy: { readonly type: string; readonly rollingUpdate?: object };
  readonly template: {
    readonly metadata: Pick<Manifest["metadata"], "labels" | "annotations">;
    readonly spec: PodSpec;
  };
}

export const deploymentOf = (rendered: Rendered) =>
  onlyOf("Deployment", rendered).spec as unknown as DeploymentSpec;
export const podOf = (rendered: Rendered) => deploymentOf(rendered).template.spec;
export const kindsOf = ({ manifests }: Rendered) => manifests.map(({ kind }) => kind).toSorted();
export const dataOf = (manifest: Manifest) => manifest.data as Readonly<Record<string, string>>;
export const variablesOf = (rendered: Rendered): ReadonlyMap<string, Variable> =>
  new Map((podOf(rendered).containers[0].env ?? []).map((one) => [one.name, one]));

/** The ConfigMap's file, as it is mounted. */
export function writeConfig(rendered: Rendered): string {
  const { "config.yaml": text = "" } = dataOf(onlyOf("ConfigMap", rendered));
  const path = join(scratchDirectory(), "config.yaml");
  writeFileSync(path, text, { mode: 0o644 });
  return path;
}

/** What the container has: its variables, and the files of its secrets. What is in Secrets of others is made up. */
export function environmentOf(rendered: Rendered): Record<string, string> {
  const own = rendered.manifests.find(({ kind }) => kind === "Secret");
  const values = own === undefined ? {} : dataOf(own);
  const environment: Record<string, string> = {};
  for (const { name, value, valueFrom } of variablesOf(rendered).values()) {
    const { secretKeyRef: from } = valueFrom ?? {};
    const isOwn = from !== undefined && from.name === own?.metadata.name;
    const kept = isOwn ? Buffer.from(values[from.key] ?? "", "base64").toString() : MADE_UP;
    environment[name] = value ?? kept;
  }
  if (environment.CREDENTIALS_DIRECTORY !== undefined) {
    environment.CREDENTIALS_DIRECTORY = writeCredentials(rendered);
  }
  if (variablesOf(rendered).size === 0) environment.OPS = MADE_UP;
  return environment;
}

function writeCredentials(rendered: Rendered): string {
  const directory = join(scratchDirectory(), "credentials");
  mkdirSync(directory);
  const own = rendered.manifests.find(({ kind }) => kind === "Secret");
  for (const [name, value] of Object.entries(own === undefined ? {} : dataOf(own))) {
    writeFileSync(join(directory, name), Buffer.from(value, "base64"));
  }
  for (const name of ["valkey-password", "token-salt"]) {
    writeFileSync(join(directory, name), TEST_SALT);
  }
  return directory;
}

/** Started as the container does it, but where this machine lets it. */
export function startRendered(rendered: Rendered, env: Record<string, string>): Promise<Running> {
  const config = writeConfig(rendered);
  return startBinary(["serve", "-c", config], {
    env: {
      ...env,
      GATEHOUSE_SERVER__LISTEN: "127.0.0.1:0",
      GATEHOUSE_STATE_DIR: join(scratchDirectory(), "state"),
    },
  });
}
