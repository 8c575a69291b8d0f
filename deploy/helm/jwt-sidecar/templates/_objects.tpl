{{/*
The configuration. With this annotation of the pod a change of it is rolled out; without, running sidecars take it over:
  checksum/jwt-sidecar: {{ include "jwt-sidecar.configmap" . | sha256sum }}
*/}}
{{- define "jwt-sidecar.configmap" -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "jwt-sidecar.name" . }}
data:
  config.yaml: |
    {{- toYaml (index .Values "jwt-sidecar").config | nindent 4 }}
{{- end }}

{{/* Allows connections only to the sidecar's ports. The first protection is a backend that listens on loopback or a unix socket. */}}
{{- define "jwt-sidecar.networkpolicy" -}}
{{- $values := index .Values "jwt-sidecar" -}}
{{- if $values.networkPolicy.enabled -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "jwt-sidecar.name" . }}
spec:
  podSelector:
    matchLabels:
      {{- include "jwt-sidecar.labels" . | nindent 6 }}
  policyTypes: [Ingress]
  ingress:
    - ports:
        - port: {{ include "jwt-sidecar.servicePort" . }}
          protocol: TCP
    - ports:
        - port: {{ include "jwt-sidecar.port" (list (dig "health" "listen" "" $values.config) 8081) }}
          protocol: TCP
      from:
        - namespaceSelector:
            matchLabels:
              kubernetes.io/metadata.name: {{ $values.networkPolicy.metricsNamespace }}
{{- if $values.networkPolicy.egress }}
---
# Allows DNS and key sets over https, for a namespace that denies egress by default. The policy is for the whole pod.
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "jwt-sidecar.name" . }}-egress
spec:
  podSelector:
    matchLabels:
      {{- include "jwt-sidecar.labels" . | nindent 6 }}
  policyTypes: [Egress]
  egress:
    - ports:
        - {port: 53, protocol: UDP}
        - {port: 53, protocol: TCP}
      to:
        - namespaceSelector:
            matchLabels:
              kubernetes.io/metadata.name: kube-system
    - ports:
        - {port: 443, protocol: TCP}
{{- end }}
{{- end }}
{{- end }}

{{- define "jwt-sidecar.podmonitor" -}}
{{- $values := index .Values "jwt-sidecar" -}}
{{- if $values.podMonitor.enabled -}}
apiVersion: monitoring.coreos.com/v1
kind: PodMonitor
metadata:
  name: {{ include "jwt-sidecar.name" . }}
  {{- with $values.podMonitor.labels }}
  labels:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  selector:
    matchLabels:
      {{- include "jwt-sidecar.labels" . | nindent 6 }}
  podMetricsEndpoints:
    - portNumber: {{ include "jwt-sidecar.port" (list (dig "health" "listen" "" $values.config) 8081) }}
      path: /metrics
      interval: {{ $values.podMonitor.interval }}
{{- end }}
{{- end }}

{{/* The alerts cover every sidecar that their Prometheus scrapes, so one release of a cluster is enough. */}}
{{- define "jwt-sidecar.prometheusrule" -}}
{{- $values := index .Values "jwt-sidecar" -}}
{{- if $values.prometheusRule.enabled -}}
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: {{ include "jwt-sidecar.name" . }}
  {{- with $values.prometheusRule.labels }}
  labels:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- include "jwt-sidecar.rules" . | nindent 2 }}
{{- end }}
{{- end }}
