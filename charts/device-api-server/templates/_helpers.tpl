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
  "grpc-address" .Values.grpc.address
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
{{- range $key, $value := merge $own .Values.config }}
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

{{/* What contradicts itself, or can't work, ends the install with a sentence. */}}
{{- define "device-api.validate" -}}
{{- $v := .Values }}
{{- $elsewhere := include "device-api.saidElsewhere" . | fromYaml }}
{{- range $key, $_ := $v.config }}
{{- with get $elsewhere $key }}
{{- fail (printf "config.%s: the chart says it by %s; set that" $key .) }}
{{- end }}
{{- end }}
{{- range $entry := $v.extraEnv }}
{{- if hasPrefix "DEVICE_API_" $entry.name }}
{{- fail (printf "extraEnv: %s would override what the chart configures; use config, or the value that README.md names" $entry.name) }}
{{- end }}
{{- end }}
{{- range $at, $labels := dict "commonLabels" $v.commonLabels "podLabels" $v.podLabels }}
{{- range $label, $_ := $labels }}
{{- if or (hasPrefix "app.kubernetes.io/" $label) (eq $label "helm.sh/chart") }}
{{- fail (printf "%s: %s is the chart's own label; choose another" $at $label) }}
{{- end }}
{{- end }}
{{- end }}
{{- with index $v.config "shutdown-timeout" }}
{{- if not (regexMatch "^[0-9]+(us|ms|s|m|h)$" (toString .)) }}
{{- fail (printf "config.shutdown-timeout: %v is no duration, such as 10s" .) }}
{{- end }}
{{- $unit := regexFind "[a-z]+$" . }}
{{- $seconds := mulf (regexFind "^[0-9]+" . | float64) (get (dict "us" 0.000001 "ms" 0.001 "s" 1.0 "m" 60.0 "h" 3600.0) $unit) }}
{{- $needed := addf $seconds (include "device-api.preStop" $ | float64) 1.0 }}
{{- if gt $needed (float64 $v.terminationGracePeriodSeconds) }}
{{- fail (printf "terminationGracePeriodSeconds: %d is too little for config.shutdown-timeout=%s, with the %s s of preStop and one to end: %v at least" (int $v.terminationGracePeriodSeconds) . (include "device-api.preStop" $) (ceil $needed | int)) }}
{{- end }}
{{- end }}
{{- range $kind, $ids := $v.writers }}
{{- range $ids }}
{{- if eq (int64 .) 65534 }}
{{- fail (printf "writers.%s: 65534 is whoever the kernel can't tell, hence anyone; run the writer under a number of its own" $kind) }}
{{- end }}
{{- end }}
{{- end }}
{{- $tcp := $v.grpc.address }}
{{- if $tcp }}
{{- $port := regexFind "[0-9]+$" $tcp | int }}
{{- if gt $port 65535 }}
{{- fail (printf "grpc.address: there is no port %d" $port) }}
{{- end }}
{{- range $name, $other := $v.ports }}
{{- if eq $port (int $other) }}
{{- fail (printf "grpc.address: port %d is ports.%s; choose another" $port $name) }}
{{- end }}
{{- end }}
{{- end }}
{{- if and $tcp (not $v.tls.enabled) (not (regexMatch "^(127\\.[0-9.]+|\\[::1\\]):[0-9]+$" $tcp)) }}
{{- fail (printf "grpc.address: %s is no loopback address, and there is no TLS: set tls.enabled and tls.secretName, or an address of 127.0.0.1" $tcp) }}
{{- end }}
{{- if and $v.tls.enabled (not $tcp) }}
{{- fail "tls.enabled: TLS is for TCP, and grpc.address is empty: set an address, or tls.enabled=false" }}
{{- end }}
{{- if and $v.tls.enabled (not $v.tls.secretName) }}
{{- fail "tls.secretName: tls.enabled needs the name of a kubernetes.io/tls Secret of this namespace" }}
{{- end }}
{{- if and $v.tls.writers (not (and $v.tls.enabled $v.tls.clientAuth)) }}
{{- fail "tls.writers: writers are known by their certificates: set tls.enabled and tls.clientAuth" }}
{{- end }}
{{- $p := $v.policies }}
{{- if and (eq $p.source "inline") (not $p.inline.components) (not $p.inline.manifest) }}
{{- fail "policies.inline: policies.source=inline, and there is neither a component nor a manifest: see README.md, Policies" }}
{{- end }}
{{- if and (ne $p.source "inline") (or $p.inline.components $p.inline.manifest) }}
{{- fail (printf "policies.inline: it is only read with policies.source=inline, and that is %s" $p.source) }}
{{- end }}
{{- range $source, $value := dict "configMap" $p.configMap "image" $p.image.reference "hostPath" $p.hostPath }}
{{- $key := ternary "policies.image.reference" (printf "policies.%s" $source) (eq $source "image") }}
{{- if and (eq $p.source $source) (not $value) }}
{{- fail (printf "%s: policies.source=%s needs it" $key $source) }}
{{- end }}
{{- if and (ne $p.source $source) $value }}
{{- fail (printf "%s: it is only read with policies.source=%s, and that is %s" $key $source $p.source) }}
{{- end }}
{{- end }}
{{- if and (eq $p.source "image") (semverCompare "<1.33.0-0" .Capabilities.KubeVersion.Version) }}
{{- fail (printf "policies.source: image volumes need Kubernetes 1.33, and this is %s: use configMap or hostPath" .Capabilities.KubeVersion.Version) }}
{{- end }}
{{- $bytes := 0 }}
{{- range $p.inline.components }}
{{- $bytes = add $bytes (div (mul 3 (len (nospace .))) 4) }}
{{- end }}
{{- if gt (add $bytes (len $p.inline.manifest)) 1000000 }}
{{- fail (printf "policies.inline: %d bytes, and a ConfigMap holds 1 MiB: use policies.source=image or hostPath" $bytes) }}
{{- end }}
{{- if eq (int $v.ports.health) (int $v.ports.metrics) }}
{{- fail (printf "ports: health and metrics are both %d" (int $v.ports.health)) }}
{{- end }}
{{- if and $v.nvml.enabled (not $v.nvml.runtimeClassName) (not $v.nvml.driverRoot) }}
{{- fail "nvml: nothing brings the driver's library into the pod: set nvml.runtimeClassName or nvml.driverRoot, or nvml.enabled=false" }}
{{- end }}
{{- if and $v.nvml.enabled $v.nvml.runtimeClassName (include "device-api.isLive" .) (not (lookup "node.k8s.io/v1" "RuntimeClass" "" $v.nvml.runtimeClassName)) }}
{{- fail (printf "nvml.runtimeClassName: the cluster has no RuntimeClass %q: install the NVIDIA container toolkit or the GPU operator, or set nvml.runtimeClassName=\"\" with nvml.driverRoot" $v.nvml.runtimeClassName) }}
{{- end }}
{{- if and $v.metrics.serviceMonitor.enabled (not $v.metrics.service.enabled) }}
{{- fail "metrics.serviceMonitor: it selects the metrics Service: set metrics.service.enabled" }}
{{- end }}
{{- end }}

{{/* "true" where there is a cluster to ask: helm template has none, and lookup finds nothing there. */}}
{{- define "device-api.isLive" -}}
{{- if lookup "v1" "Namespace" "" "kube-system" }}true{{ end }}
{{- end }}
