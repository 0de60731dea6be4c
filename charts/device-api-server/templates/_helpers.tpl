{{/* Names. */}}
{{- define "device-api.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "device-api.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else if contains .Chart.Name .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "device-api.name" .) | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Of all objects of the release. */}}
{{- define "device-api.release" -}}
app.kubernetes.io/name: {{ include "device-api.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Of the daemon's pods, and not of the test's. */}}
{{- define "device-api.selector" -}}
{{ include "device-api.release" . }}
app.kubernetes.io/component: daemon
{{- end }}

{{- define "device-api.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "device-api.release" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "device-api.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "device-api.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "device-api.image" -}}
{{- with .Values.image }}
{{- if .digest }}
{{- printf "%s@%s" .repository .digest }}
{{- else }}
{{- printf "%s:%s" .repository (default $.Chart.AppVersion .tag) }}
{{- end }}
{{- end }}
{{- end }}

{{/* Where things are in the pod. */}}
{{- define "device-api.policyDir" -}}/etc/device-api/policies{{- end }}
{{- define "device-api.tlsDir" -}}/etc/device-api/tls{{- end }}
{{- define "device-api.stateDir" -}}/var/lib/device-api{{- end }}

{{/* Name of the ConfigMap that holds policies; empty: there is none. */}}
{{- define "device-api.policyConfigMap" -}}
{{- if eq .Values.policies.source "inline" }}
{{- printf "%s-policies" (include "device-api.fullname" .) }}
{{- else if eq .Values.policies.source "configMap" }}
{{- .Values.policies.configMap }}
{{- end }}
{{- end }}

{{/* The daemon's configuration file: what follows from the values, and below it what config adds. */}}
{{- define "device-api.configuration" -}}
{{- $own := dict
  "unix-socket" (list (printf "%s/%s" .Values.socket.hostPath .Values.socket.name))
  "grpc-address" (.Values.grpc.address | default "")
  "admin-address" "0.0.0.0"
  "health-port" .Values.ports.health
  "metrics-port" .Values.ports.metrics
  "log-format" .Values.log.format
  "verbose" .Values.log.verbosity
  "enable-nvml-provider" .Values.nvml.enabled
  "unlisted-policies" .Values.policies.unlisted
}}
{{- if .Values.nvml.driverRoot }}
{{- $_ := set $own "nvml-driver-root" .Values.nvml.driverRoot }}
{{- end }}
{{- if eq .Values.state.type "memory" }}
{{- $_ := set $own "store" "memory" }}
{{- end }}
{{- $_ := set $own "state-dir" (include "device-api.stateDir" .) }}
{{- if .Values.kernelLog.enabled }}
{{- $_ := set $own "kmsg-path" "/dev/kmsg" }}
{{- end }}
{{- if ne .Values.policies.source "bundled" }}
{{- $_ := set $own "policy-dir" (include "device-api.policyDir" .) }}
{{- end }}
{{- if .Values.policies.safeMode }}
{{- $_ := set $own "safe-mode" true }}
{{- end }}
{{- with .Values.writers.uids }}
{{- $_ := set $own "allow-write-uid" . }}
{{- end }}
{{- with .Values.writers.gids }}
{{- $_ := set $own "allow-write-gid" . }}
{{- end }}
{{- if .Values.tls.enabled }}
{{- $_ := set $own "tls-cert" (printf "%s/tls.crt" (include "device-api.tlsDir" .)) }}
{{- $_ := set $own "tls-key" (printf "%s/tls.key" (include "device-api.tlsDir" .)) }}
{{- if .Values.tls.clientAuth }}
{{- $_ := set $own "tls-client-ca" (printf "%s/ca.crt" (include "device-api.tlsDir" .)) }}
{{- end }}
{{- with .Values.tls.writers }}
{{- $_ := set $own "tcp-writers" . }}
{{- end }}
{{- end }}
{{- range $key, $value := merge $own (.Values.config | default dict) }}
{{ $key }}: {{ toJson $value }}
{{- end }}
{{- end }}

{{/* Settings of the daemon that another value of the chart says, since more hangs on them than a line of the file. */}}
{{- define "device-api.saidElsewhere" -}}
admin-address: ports (the kubelet probes the pod's address)
allow-write-gid: writers.gids
allow-write-uid: writers.uids
enable-nvml-provider: nvml.enabled
grpc-address: grpc.address
health-port: ports.health
kmsg-path: kernelLog.enabled
limit: config.limits
log-format: log.format
metrics-port: ports.metrics
nvml-driver-root: nvml.driverRoot
policy-dir: policies.source
safe-mode: policies.safeMode
state-dir: state.hostPath
store: state.type
tcp-writers: tls.writers
tls-cert: tls.secretName
tls-client-ca: tls.clientAuth
tls-key: tls.secretName
unix-socket: socket.hostPath and socket.name
unlisted-policies: policies.unlisted
verbose: log.verbosity
{{- end }}

{{/* Who the daemon is. A device that only root may open is read by root. */}}
{{- define "device-api.uid" -}}
{{- ternary 0 (int64 .Values.podSecurity.runAsUser) .Values.kernelLog.enabled }}
{{- end }}
{{- define "device-api.gid" -}}
{{- int64 .Values.podSecurity.runAsGroup }}
{{- end }}

{{/* Seconds that preStop waits. */}}
{{- define "device-api.preStop" -}}3{{- end }}

{{/* "true" where there is a cluster to ask: helm template has none, and lookup finds nothing there. */}}
{{- define "device-api.isLive" -}}
{{- if lookup "v1" "Namespace" "" "kube-system" }}true{{ end }}
{{- end }}
