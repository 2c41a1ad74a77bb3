{{/* The `config` of rusty-valkey-forward-auth's chart as the variables that `serve --preset` reads. */}}

{{/* A variable, when there is a value. Takes a list of name and value. */}}
{{- define "gatehouse.variable" -}}
{{- $value := index . 1 }}
{{- if $value }}
- name: {{ index . 0 }}
  value: {{ printf "%v" $value | quote }}
{{- end }}
{{- end }}

{{/* A variable from a Secret: theirs, or the chart's. Takes a list of root, name, reference, value and key. */}}
{{- define "gatehouse.secretVariable" -}}
{{- $reference := default dict (index . 2) }}
{{- if and $reference.name $reference.key }}
- name: {{ index . 1 }}
  valueFrom: { secretKeyRef: { name: {{ $reference.name | quote }}, key: {{ $reference.key | quote }} } }
{{- else if index . 3 }}
- name: {{ index . 1 }}
  valueFrom: { secretKeyRef: { name: {{ include "gatehouse.fullname" (index . 0) }}, key: {{ index . 4 }} } }
{{- end }}
{{- end }}

{{- define "gatehouse.rustyEnv" -}}
{{- $config := .Values.rustyValkeyForwardAuth.config }}
{{- $valkey := default dict $config.valkey }}
{{- $cors := default dict $config.cors }}
{{- $oauth := default dict $config.oauth }}
{{- $claims := default dict $oauth.claims }}
{{- $admin := default dict $oauth.admin }}
{{- $frontend := default dict $config.frontend }}
{{- include "gatehouse.variable" (list "VALKEY_URL" $valkey.url) }}
{{- include "gatehouse.secretVariable" (list . "VALKEY_USERNAME" $valkey.usernameSecret $valkey.username "valkey-username") }}
{{- include "gatehouse.secretVariable" (list . "VALKEY_PASSWORD" $valkey.passwordSecret $valkey.password "valkey-password") }}
{{- include "gatehouse.secretVariable" (list . "TOKEN_SALT" $config.tokenSaltSecret $config.tokenSalt "token-salt") }}
{{- include "gatehouse.variable" (list "CORS_ENABLED" $cors.enabled) }}
{{- include "gatehouse.variable" (list "CORS_ALLOW_ORIGINS" (join "," (default list $cors.allowOrigins))) }}
{{- include "gatehouse.variable" (list "OAUTH_ISSUER_URL" $oauth.issuerUrl) }}
{{- include "gatehouse.variable" (list "OAUTH_JWKS_URL" $oauth.jwksUrl) }}
{{- include "gatehouse.variable" (list "OAUTH_AUDIENCES" (join "," (default list $oauth.audiences))) }}
{{- include "gatehouse.variable" (list "OAUTH_JWKS_REFRESH_SECS" (default "" $oauth.jwksRefreshIntervalSecs)) }}
{{- include "gatehouse.variable" (list "OAUTH_SUBJECT_CLAIM" $claims.subject) }}
{{- include "gatehouse.variable" (list "OAUTH_GROUPS_CLAIM" $claims.groups) }}
{{- include "gatehouse.variable" (list "OAUTH_ADMIN_GROUP" $admin.group) }}
{{- include "gatehouse.variable" (list "OAUTH_ADMIN_CASE_SENSITIVE" $admin.groupCaseSensitive) }}
{{- include "gatehouse.variable" (list "FRONTEND_APP_NAME" $frontend.appName) }}
{{- include "gatehouse.variable" (list "FRONTEND_API_BASE_URL" $frontend.apiBaseUrl) }}
{{- include "gatehouse.variable" (list "FRONTEND_API_DOCS_PATH" $frontend.apiDocsPath) }}
{{- include "gatehouse.variable" (list "FRONTEND_OIDC_AUTHORITY" $frontend.oidcAuthority) }}
{{- include "gatehouse.variable" (list "FRONTEND_OIDC_CLIENT_ID" $frontend.oidcClientId) }}
{{- include "gatehouse.variable" (list "FRONTEND_OIDC_REDIRECT_URI" $frontend.oidcRedirectUri) }}
{{- if $frontend.docsHtmlContent }}
- name: FRONTEND_DOCS_HTML_FILE
  value: /etc/gatehouse/docs.html
{{- end }}
{{- if .Values.rustyValkeyForwardAuth.settingsToml }}
- name: CONFIG_FILE
  value: /etc/gatehouse/settings.toml
{{- end }}
{{- end }}

{{/* What goes into the chart's own Secret, by key: a map as YAML. */}}
{{- define "gatehouse.rustySecrets" -}}
{{- $config := .Values.rustyValkeyForwardAuth.config }}
{{- $valkey := default dict $config.valkey }}
{{- $found := dict }}
{{- if $valkey.username }}{{ $_ := set $found "valkey-username" $valkey.username }}{{ end }}
{{- if $valkey.password }}{{ $_ := set $found "valkey-password" $valkey.password }}{{ end }}
{{- if $config.tokenSalt }}{{ $_ := set $found "token-salt" $config.tokenSalt }}{{ end }}
{{- if .Values.rustyValkeyForwardAuth.settingsToml }}{{ $_ := set $found "settings.toml" .Values.rustyValkeyForwardAuth.settingsToml }}{{ end }}
{{- toYaml $found }}
{{- end }}
