{{/* What would not work, or would not be what was meant, is refused before anything is rendered. */}}

{{- define "gatehouse.checks" -}}
{{- $rusty := .Values.rustyValkeyForwardAuth }}
{{- $isMany := include "gatehouse.isMany" . }}
{{- $sources := 0 }}
{{- if .Values.config }}{{ $sources = add1 $sources }}{{ end }}
{{- if .Values.existingConfigMap }}{{ $sources = add1 $sources }}{{ end }}
{{- if $rusty.enabled }}{{ $sources = add1 $sources }}{{ end }}
{{- if ne (int $sources) 1 }}
{{- fail "say what to serve, in one way: config (a Gatehouse configuration), existingConfigMap, or rustyValkeyForwardAuth.enabled" }}
{{- end }}
{{- if .Values.config }}
{{- if not .Values.config.routes }}
{{- fail "config.routes: expected at least one route" }}
{{- end }}
{{- $keepsTokens := include "gatehouse.uses" (list . "bearer-sqlite") }}
{{- if and $keepsTokens $isMany }}
{{- fail "config: bearer-sqlite keeps its tokens in one pod's volume, and there is more than one gateway: use valkey-hash, or one replica" }}
{{- end }}
{{- if and $keepsTokens (not .Values.persistence.enabled) (not .Values.allowEphemeralState) }}
{{- fail "config: bearer-sqlite would lose its tokens with the pod: set persistence.enabled, or allowEphemeralState" }}
{{- end }}
{{- if and $isMany (include "gatehouse.uses" (list . "nip98")) (not .Values.config.shared) }}
{{- fail "config.shared: with more than one gateway and nip98 a used proof must be known to all of them: name a Valkey" }}
{{- end }}
{{- if .Values.readiness.strategy }}
{{- if not (hasKey (default dict .Values.config.strategies) .Values.readiness.strategy) }}
{{- fail (printf "readiness.strategy: config has no strategy %s" .Values.readiness.strategy) }}
{{- end }}
{{- end }}
{{- else if .Values.readiness.strategy }}
{{- fail "readiness.strategy goes with config; otherwise say probes.readinessPath" }}
{{- end }}
{{- if and .Values.persistence.enabled $isMany }}
{{- fail "persistence: several gateways cannot share one state directory; what they share is in Valkey (docs/replicas.md)" }}
{{- end }}
{{- if and (eq .Values.image.tag "latest") (not .Values.image.digest) }}
{{- fail "image.tag: latest is another image tomorrow: name a version, or a digest" }}
{{- end }}
{{- if .Values.serviceMonitor.enabled }}
{{- if not .Values.existingConfigMap }}
{{- $access := include "gatehouse.metricsAccess" . }}
{{- if not $access }}
{{- fail "serviceMonitor: nothing would answer: config.routes needs a route with surface: metrics, such as { match: { path: /metrics }, access: [ops], surface: metrics }" }}
{{- end }}
{{- if and (eq $access "guarded") (not .Values.serviceMonitor.authorization.existingSecret) }}
{{- fail "serviceMonitor.authorization.existingSecret: the route with surface: metrics asks for a credential: name a Secret with a token for it" }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
