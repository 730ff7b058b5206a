{{/* The name of all objects: the release's, with the chart's appended unless the release's contains it. */}}
{{- define "tpi-stream.name" -}}
{{- $name := .Release.Name -}}
{{- if not (contains .Chart.Name $name) }}{{ $name = printf "%s-%s" $name .Chart.Name }}{{ end -}}
{{- $name | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{- define "tpi-stream.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "tpi-stream.labels" -}}
{{ include "tpi-stream.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- end }}

{{/* An image. Takes a list of the root context and the values of the image. */}}
{{- define "tpi-stream.image" -}}
{{- $root := index . 0 -}}{{- $image := index . 1 -}}
{{- printf "%s:%s" $image.repository ($image.tag | default $root.Chart.AppVersion) | quote -}}
{{- end }}

{{/* Rejects invalid values with a message that says what is allowed. */}}
{{- define "tpi-stream.check" -}}
{{- $grace := int .Values.terminationGracePeriodSeconds -}}
{{- if lt $grace 30 -}}
{{- fail (printf "terminationGracePeriodSeconds: %d is too short: must be 30 or more, so that the daemon can end each stream" $grace) -}}
{{- end -}}
{{- $drain := int (get .Values.settings "TPI_DRAIN_SECONDS" | default 5) -}}
{{- if lt $grace (add 20 $drain | int) -}}
{{- fail (printf "terminationGracePeriodSeconds: %d is too short for TPI_DRAIN_SECONDS=%d: must be %d or more" $grace $drain (add 20 $drain)) -}}
{{- end -}}
{{- if and (not .Values.valkey.sentinels) (not .Values.valkey.url) -}}
{{- fail "valkey.url or valkey.sentinels must be set" -}}
{{- end -}}
{{- if and .Values.valkey.sentinels (contains "," .Values.valkey.url) -}}
{{- fail "valkey.url must be one URL if valkey.sentinels is set: only its user and its scheme are used" -}}
{{- end -}}
{{- if and .Values.valkey.tlsSecret.name (not (regexMatch "^(valkey|redis)s://" .Values.valkey.url)) -}}
{{- fail "valkey.tlsSecret: valkey.url must be a valkeys:// or rediss:// URL" -}}
{{- end -}}
{{- $own := list "INSTANCE_TENANT_ID" "TPI_LISTEN" "TPI_IDENTITY" "TPI_PROJECT_ACCESS" "TPI_APP_URL" "VALKEY_URL" "VALKEY_PASSWORD_FILE" "VALKEY_SENTINELS" "VALKEY_SENTINEL_MASTER" "VALKEY_SENTINEL_PASSWORD" "VALKEY_SENTINEL_PASSWORD_FILE" "VALKEY_TLS_CA" "VALKEY_TLS_CERT" "VALKEY_TLS_KEY" "SSE_PER_TENANT_CAP" "SSE_PER_USER_CAP" "SSE_ISSUES_PER_TENANT_CAP" "SSE_ISSUES_PER_USER_CAP" "SSE_LIVE_PER_TENANT_CAP" "SSE_LIVE_PER_USER_CAP" "SSE_COMBINED_PER_TENANT_CAP" "SSE_COMBINED_PER_USER_CAP" "TPI_STATUS" -}}
{{- range $name, $value := .Values.settings -}}
{{- if has $name $own -}}
{{- fail (printf "settings.%s: not allowed: the chart sets it from another value; see values.yaml" $name) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* The annotations of the Ingress by controller; ingress.annotations takes precedence. */}}
{{- define "tpi-stream.annotations.ingress-nginx" -}}
nginx.ingress.kubernetes.io/use-regex: 'true'
nginx.ingress.kubernetes.io/proxy-buffering: 'off'
nginx.ingress.kubernetes.io/proxy-read-timeout: '3600'
nginx.ingress.kubernetes.io/proxy-send-timeout: '3600'
{{- end }}
{{- define "tpi-stream.annotations.traefik" -}}
traefik.ingress.kubernetes.io/router.pathmatcher: PathRegexp
traefik.ingress.kubernetes.io/router.entrypoints: websecure
traefik.ingress.kubernetes.io/router.tls: 'true'
{{- end }}
{{- define "tpi-stream.annotations.alb" -}}
alb.ingress.kubernetes.io/scheme: internet-facing
alb.ingress.kubernetes.io/load-balancer-attributes: idle_timeout.timeout_seconds=3600
alb.ingress.kubernetes.io/group.order: '-10'
alb.ingress.kubernetes.io/listen-ports: '[{"HTTPS": 443}]'
alb.ingress.kubernetes.io/target-type: ip
alb.ingress.kubernetes.io/healthcheck-port: '8081'
alb.ingress.kubernetes.io/healthcheck-path: /api/streams/health/live
alb.ingress.kubernetes.io/healthcheck-interval-seconds: '10'
alb.ingress.kubernetes.io/target-group-attributes: deregistration_delay.timeout_seconds=30
{{- end }}

{{/* The paths of the streams by controller; contrib/kubernetes, traefik and alb explain them. */}}
{{- define "tpi-stream.paths.ingress-nginx" -}}
- path: '/api/(notifications/|issues/|test-runs/[0-9]+/|milestones/[0-9]+/|projects/[0-9]+/(test-runs|milestones)/)?stream$'
  pathType: ImplementationSpecific
{{- end }}
{{- define "tpi-stream.paths.traefik" -}}
- path: '/?^/api/(?:notifications/|issues/|test-runs/[0-9]+/|milestones/[0-9]+/|projects/[0-9]+/(?:test-runs|milestones)/)?stream$'
  pathType: ImplementationSpecific
{{- end }}
{{- define "tpi-stream.paths.alb" -}}
- path: /api/stream
  pathType: Exact
- path: /api/notifications/stream
  pathType: Exact
- path: /api/issues/stream
  pathType: Exact
- path: /api/test-runs/*/stream
  pathType: ImplementationSpecific
- path: /api/milestones/*/stream
  pathType: ImplementationSpecific
- path: /api/projects/*/test-runs/stream
  pathType: ImplementationSpecific
- path: /api/projects/*/milestones/stream
  pathType: ImplementationSpecific
{{- end }}

{{/* The peers that may connect if networkPolicy.from is empty. */}}
{{- define "tpi-stream.peers" -}}
{{- if eq .Values.ingress.controller "alb" -}}
- ipBlock: {cidr: 10.0.0.0/8}
- ipBlock: {cidr: 172.16.0.0/12}
- ipBlock: {cidr: 192.168.0.0/16}
{{- else -}}
- namespaceSelector:
    matchLabels:
      kubernetes.io/metadata.name: {{ .Values.ingress.controller }}
{{- end -}}
{{- end }}

{{/* The port of an address, [scheme://][user@]host[:port][/path][?query]. Takes a list of the address and the default
port. A Unix socket has none. */}}
{{- define "tpi-stream.port" -}}
{{- $address := index . 0 -}}
{{- if not (hasPrefix "unix:" $address) -}}
{{- $authority := regexReplaceAll "^[a-z]+://([^/?]*).*$" $address "${1}" -}}
{{- regexFind ":[0-9]+$" $authority | trimPrefix ":" | default (index . 1 | toString) | atoi -}}
{{- end -}}
{{- end }}

{{/* The ports to connect to, separated by commas: those of networkPolicy, or those in the daemon's settings. */}}
{{- define "tpi-stream.valkeyPorts" -}}
{{- $ports := list -}}
{{- if .Values.networkPolicy.valkeyPorts -}}
{{- $ports = .Values.networkPolicy.valkeyPorts -}}
{{- else if .Values.valkey.sentinels -}}
{{- /* Only the sentinels know the primary's port. */ -}}
{{- $ports = list "6379" -}}
{{- range .Values.valkey.sentinels }}{{ $ports = append $ports (include "tpi-stream.port" (list . 26379)) }}{{ end -}}
{{- else -}}
{{- range splitList "," .Values.valkey.url }}{{ $ports = append $ports (include "tpi-stream.port" (list . 6379)) }}{{ end -}}
{{- end -}}
{{- $ports | compact | uniq | join "," -}}
{{- end }}
{{- define "tpi-stream.applicationPorts" -}}
{{- if .Values.networkPolicy.applicationPorts -}}
{{- join "," .Values.networkPolicy.applicationPorts -}}
{{- else -}}
{{- include "tpi-stream.port" (list .Values.applicationUrl (hasPrefix "https:" .Values.applicationUrl | ternary 443 80)) -}}
{{- end -}}
{{- end }}
