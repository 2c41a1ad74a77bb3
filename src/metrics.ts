/**
 * What Prometheus reads: requests and decisions counted as they are audited, and how the gateway is doing when it asks.
 *
 * Invariant: nothing that a client sends makes a series of its own. Every label is a position in the config, a number,
 * a name of the config or a word of a closed list; no credential, identity, path, host or address is ever one.
 */
import { readdirSync } from "node:fs";
import { Counter, Gauge, Histogram, Registry } from "@prometheus-io/client";
import type { AuditListener } from "./audit.ts";
import { REASONS } from "./reasons.ts";

/** How the gateway is doing; asked at each reading. */
export interface Vitals {
  readonly version: string;
  streamCount(): number;
  connectionCount(): number;
  lastReload(): LastReload;
}

/** The start counts as the first one. */
export interface LastReload {
  readonly isSuccessful: boolean;
  /** When the config in force was put in force, in milliseconds since 1970. */
  readonly successAtMs: number;
}

/** The numbers as text. */
export interface Exposition {
  /** With the version of the format. */
  readonly contentType: string;
  text(): Promise<string>;
}

/** Numbers that are kept for as long as the process runs. */
export interface Metrics {
  readonly listener: AuditListener;
  readonly exposition: Exposition;
}

/** From what a small model server's cache answers in to what a long generation streams, in seconds. */
const DURATION_BUCKETS = [
  0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600,
];

const METHODS: ReadonlySet<string> = new Set([
  "GET",
  "HEAD",
  "POST",
  "PUT",
  "PATCH",
  "DELETE",
  "OPTIONS",
]);

/** Begins to count. */
export function startMetrics(vitals: Vitals): Metrics {
  const registry = new Registry();
  addVitals(registry, vitals);
  addProcess(registry);
  return {
    listener: countingListener(registry),
    exposition: { contentType: registry.contentType, text: () => registry.metrics() },
  };
}

function countingListener(registry: Registry): AuditListener {
  const registers = [registry];
  const requests = new Counter({
    name: "gatehouse_http_requests_total",
    help: "Requests that were answered, by the route they matched, their method and the status of the answer.",
    labelNames: ["route", "method", "code"],
    registers,
  });
  const durations = new Histogram({
    name: "gatehouse_http_request_duration_seconds",
    help: "From the head of a request to the last byte of its answer; of a WebSocket to its close.",
    labelNames: ["route"],
    buckets: DURATION_BUCKETS,
    registers,
  });
  const decisions = new Counter({
    name: "gatehouse_auth_decisions_total",
    help: "Requests that were allowed, denied, challenged (401) or could not be decided (fault), and why.",
    labelNames: ["route", "strategy", "decision", "reason"],
    registers,
  });
  return {
    decision(request, { decision, reason, strategy }) {
      decisions.inc({
        route: routeLabel(request.route),
        strategy: strategy ?? "none",
        decision,
        reason: reason === null || !Object.hasOwn(REASONS, reason) ? "none" : reason,
      });
    },
    access(request, _, { status, durationMs }) {
      const route = routeLabel(request.route);
      const method = METHODS.has(request.method) ? request.method : "other";
      requests.inc({ route, method, code: status });
      durations.observe({ route }, durationMs / 1000);
    },
  };
}

function routeLabel(route: number | null): string | number {
  return route ?? "none";
}

function addVitals(registry: Registry, vitals: Vitals): void {
  const gauge = gaugeOf(registry);
  gauge(
    "gatehouse_streams_in_flight",
    "Streamed answers to requests with a credential, and WebSockets, that are open.",
    () => vitals.streamCount(),
  );
  gauge(
    "gatehouse_connections",
    "Connections of clients that are open, those that have become WebSockets left out.",
    () => vitals.connectionCount(),
  );
  gauge(
    "gatehouse_config_last_reload_successful",
    "1 when the configuration that was read last is in force, 0 when it was refused.",
    () => Number(vitals.lastReload().isSuccessful),
  );
  gauge(
    "gatehouse_config_last_reload_success_timestamp_seconds",
    "When the configuration in force was put in force, in seconds since 1970.",
    () => vitals.lastReload().successAtMs / 1000,
  );
  new Gauge({
    name: "gatehouse_build_info",
    help: "Always 1; the version is its label.",
    labelNames: ["version"],
    registers: [registry],
  }).set({ version: vitals.version }, 1);
}

/**
 * The library's own set cannot be had without two dozen metrics of another runtime, some of which are nonsense here, and
 * begins to count CPU time when it is made.
 */
function addProcess(registry: Registry): void {
  const gauge = gaugeOf(registry);
  gauge("process_resident_memory_bytes", "Resident memory.", () => process.memoryUsage.rss());
  const startedAtSeconds = Math.round(Date.now() / 1000 - process.uptime());
  gauge(
    "process_start_time_seconds",
    "When the process was started, in seconds since 1970.",
    () => startedAtSeconds,
  );
  new Counter({
    name: "process_cpu_seconds_total",
    help: "CPU time of the process, user and system.",
    registers: [registry],
    collect() {
      const { user, system } = process.cpuUsage();
      this.reset();
      this.inc((user + system) / 1e6);
    },
  });
  if (process.platform !== "linux") return;
  // One of them is that of the directory itself.
  gauge(
    "process_open_fds",
    "Open file descriptors.",
    () => readdirSync("/proc/self/fd").length - 1,
  );
}

function gaugeOf(registry: Registry): (name: string, help: string, value: () => number) => void {
  return (name, help, value) => {
    const made: Gauge = new Gauge({
      name,
      help,
      registers: [registry],
      collect: () => made.set(value()),
    });
  };
}
