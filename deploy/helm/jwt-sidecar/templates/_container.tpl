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
    - containerPort: {{ include "jwt-sidecar.port" (list $values.config.listen 8080) }}
    - containerPort: {{ $health }}
  startupProbe:
    httpGet: {path: /startupz, port: {{ $health }}}
    periodSeconds: 1
    failureThreshold: 60
  readinessProbe:
    httpGet: {path: /readyz, port: {{ $health }}}
    periodSeconds: 2
  livenessProbe:
    httpGet: {path: /livez, port: {{ $health }}}
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
    runAsUser: 65532
    runAsGroup: 65532
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
    name: {{ .Release.Name }}-jwt-sidecar
{{- with (index .Values "jwt-sidecar").volumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Labels for the pod, by which the NetworkPolicy and the PodMonitor find it. */}}
{{- define "jwt-sidecar.labels" -}}
jwt-sidecar/release: {{ .Release.Name }}
{{- end }}

{{/* The port that a Service leads to: a number, since names of native sidecars' ports are not found before Kubernetes 1.32. */}}
{{- define "jwt-sidecar.servicePort" -}}
{{- include "jwt-sidecar.port" (list (index .Values "jwt-sidecar").config.listen 8080) -}}
{{- end }}

{{/* The port of a listener, as the configuration has it: (list "0.0.0.0:8080" 8080). */}}
{{- define "jwt-sidecar.port" -}}
{{- if first . }}{{ first . | splitList ":" | last }}{{ else }}{{ last . }}{{ end -}}
{{- end }}
