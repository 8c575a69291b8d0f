{{/* The sidecar: an item of initContainers, or with `native: false` of containers (put it last there). */}}
{{- define "jwt-sidecar.container" -}}
{{- $values := index .Values "jwt-sidecar" -}}
{{- $health := include "jwt-sidecar.port" (list (dig "health" "listen" "" $values.config) 8081) | int -}}
- name: jwt-sidecar
  {{- with $values.image }}
  image: {{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag }}{{ end }}
  imagePullPolicy: {{ .pullPolicy }}
  {{- end }}
  {{- if $values.native }}
  restartPolicy: Always
  {{- end }}
  ports:
    - {name: jwt-sidecar, containerPort: {{ include "jwt-sidecar.port" (list $values.config.listen 8080) }}}
    - {name: jwt-health, containerPort: {{ $health }}}
  startupProbe:
    httpGet: {path: /startupz, port: jwt-health}
    periodSeconds: 1
    failureThreshold: 60
  readinessProbe:
    httpGet: {path: /readyz/upstream, port: jwt-health}
    periodSeconds: 2
  livenessProbe:
    httpGet: {path: /livez, port: jwt-health}
    periodSeconds: 10
  lifecycle:
    preStop:
      exec:
        command: [jwt-sidecar, drain, -c, /etc/jwt-sidecar/config.yaml]
  {{- with $values.env }}
  env:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  resources:
    {{- toYaml $values.resources | nindent 4 }}
  securityContext:
    runAsNonRoot: true
    {{- if not $values.openshift }}
    runAsUser: 65532
    runAsGroup: 65532
    {{- end }}
    allowPrivilegeEscalation: false
    readOnlyRootFilesystem: true
    capabilities:
      drop: [ALL]
    seccompProfile:
      type: RuntimeDefault
  terminationMessagePolicy: FallbackToLogsOnError
  volumeMounts:
    - name: jwt-sidecar
      mountPath: /etc/jwt-sidecar
      readOnly: true
    {{- with $values.volumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}

{{/* Items of the pod's volumes. */}}
{{- define "jwt-sidecar.volumes" -}}
- name: jwt-sidecar
  configMap:
    name: {{ include "jwt-sidecar.name" . }}
{{- with (index .Values "jwt-sidecar").volumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Labels for the pod, by which the NetworkPolicy and the PodMonitor find it. */}}
{{- define "jwt-sidecar.labels" -}}
jwt-sidecar/application: {{ include "jwt-sidecar.name" . | trimSuffix "-jwt-sidecar" }}
{{- end }}

{{/* The name of every object: of the release and the chart, since a release may have several charts with a sidecar. */}}
{{- define "jwt-sidecar.name" -}}
{{- $application := contains .Chart.Name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) -}}
{{- printf "%s-jwt-sidecar" ($application | trunc 51 | trimSuffix "-") -}}
{{- end }}

{{/*
The `lifecycle` of the backend's container: it serves on while the cluster learns that its pod is leaving. Without this it has stopped
listening by the time the last requests come through the sidecar (502). Needs no shell in the image.
*/}}
{{- define "jwt-sidecar.backendLifecycle" -}}
preStop:
  sleep:
    seconds: 5
{{- end }}

{{/* terminationGracePeriodSeconds: the backend's preStop (5 s), its own end, the sidecar's shutdown (30 s), plus a reserve. */}}
{{- define "jwt-sidecar.gracePeriod" -}}
45
{{- end }}

{{/* The targetPort of a Service. A number: Services do not find named ports of native sidecars before Kubernetes 1.32. */}}
{{- define "jwt-sidecar.servicePort" -}}
{{- include "jwt-sidecar.port" (list (index .Values "jwt-sidecar").config.listen 8080) -}}
{{- end }}

{{/* The port of a listener, from (list "0.0.0.0:8080" 8080): of its address, of the first of several, or the default. */}}
{{- define "jwt-sidecar.port" -}}
{{- $listen := first . -}}
{{- if kindIs "slice" $listen }}{{ $listen = first $listen }}{{ end -}}
{{- if $listen }}{{ $listen | splitList ":" | last }}{{ else }}{{ last . }}{{ end -}}
{{- end }}
