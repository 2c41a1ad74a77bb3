{{/* The configuration: what the chart knows, and over it what the values say. */}}

{{- define "gatehouse.config" -}}
{{- $listen := printf "0.0.0.0:%d" (int .Values.containerPort) }}
{{- $known := dict "version" 1 "server" (dict "listen" $listen) "state_dir" "/var/lib/gatehouse/state" }}
{{- $config := mergeOverwrite $known (deepCopy .Values.config) }}
{{- if .Values.readiness.strategy }}
{{- $match := dict "path" .Values.readiness.path "methods" (list "GET" "HEAD") }}
{{- $ready := dict "match" $match "access" "public" "surface" (printf "%s.health" .Values.readiness.strategy) }}
{{- $_ := set $config "routes" (concat (list $ready) $config.routes) }}
{{- end }}
{{- toYaml $config }}
{{- end }}

{{- define "gatehouse.livenessPath" -}}
{{- $server := default dict .Values.config.server }}
{{- $default := default "/healthz" $server.health_path }}
{{- if .Values.rustyValkeyForwardAuth.enabled }}{{ $default = "/health/live" }}{{ end }}
{{- default $default .Values.probes.livenessPath }}
{{- end }}

{{- define "gatehouse.readinessPath" -}}
{{- $default := include "gatehouse.livenessPath" . }}
{{- if .Values.readiness.strategy }}{{ $default = .Values.readiness.path }}{{ end }}
{{- if .Values.rustyValkeyForwardAuth.enabled }}{{ $default = "/health/ready" }}{{ end }}
{{- default $default .Values.probes.readinessPath }}
{{- end }}

{{/* Who may read the metrics by the config of the values: "public", "guarded", or nothing where no route has them. */}}
{{- define "gatehouse.metricsAccess" -}}
{{- $found := "" }}
{{- range $route := .Values.config.routes }}
{{- if eq (default "" $route.surface) "metrics" }}
{{- if kindIs "string" $route.access }}
{{- $found = "public" }}
{{- else if not $found }}
{{- $found = "guarded" }}
{{- end }}
{{- end }}
{{- end }}
{{- $found }}
{{- end }}
