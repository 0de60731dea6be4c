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
{{- include "device-api.validateLabels" . }}
{{- $fullname := include "device-api.fullname" . }}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $fullname) }}
{{- fail (printf "fullnameOverride: %s is no name that a Service may have (a-z, 0-9 and -, a letter first): set another, or install under another name" $fullname) }}
{{- end }}
{{- if and $v.image.tag $v.image.digest }}
{{- fail (printf "image.tag: %s is not looked at, as image.digest is set (a released chart has that of its image): set image.digest to that image's, or to nothing" $v.image.tag) }}
{{- end }}
{{- include "device-api.validateConfig" . }}
{{- include "device-api.validateDirectories" . }}
{{- include "device-api.validateResources" . }}
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
{{- if and $tcp (not $v.tls.enabled) (not (include "device-api.isLoopback" $tcp)) }}
{{- fail (printf "grpc.address: %s is no loopback address, and there is no TLS: set tls.enabled and tls.secretName, or an address of 127.0.0.1" $tcp) }}
{{- end }}
{{- if and $v.tls.enabled (not $tcp) }}
{{- fail "tls.enabled: TLS is for TCP, and grpc.address is empty: set an address, or tls.enabled=false" }}
{{- end }}
{{- if and $v.tls.enabled (not $v.tls.secretName) }}
{{- fail "tls.secretName: tls.enabled needs the name of a kubernetes.io/tls Secret of this namespace" }}
{{- end }}
{{- if and $v.tls.secretName (not $v.tls.enabled) }}
{{- fail (printf "tls.secretName: %s is used with tls.enabled alone: set it, or leave the name out" $v.tls.secretName) }}
{{- end }}
{{- if and $v.tls.enabled $tcp (include "device-api.isLoopback" $tcp) }}
{{- fail (printf "tls.enabled: grpc.address is %s, which nobody outside of the pod can reach: set 0.0.0.0:50051, or tls.enabled=false" $tcp) }}
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
{{- range $name, $_ := $p.inline.components }}
{{- if not (hasPrefix "AGFzbQ0AAQ" (nospace .)) }}
{{- fail (printf "policies.inline.components: %s is no base64 of a WebAssembly component; `base64 %s > FILE`, and --set-file that FILE" $name $name) }}
{{- end }}
{{- $bytes = add $bytes (div (mul 3 (len (nospace .))) 4) }}
{{- end }}
{{- if gt (add $bytes (len ($p.inline.manifest | default ""))) 1000000 }}
{{- fail (printf "policies.inline: %d bytes, and a ConfigMap holds 1 MiB: use policies.source=image or hostPath" $bytes) }}
{{- end }}
{{- if eq (int $v.ports.health) (int $v.ports.metrics) }}
{{- fail (printf "ports: health and metrics are both %d" (int $v.ports.health)) }}
{{- end }}
{{- if and $v.nvml.driverRoot (not $v.nvml.enabled) }}
{{- fail (printf "nvml.driverRoot: %s is looked through with nvml.enabled alone: set it, or leave the root out" $v.nvml.driverRoot) }}
{{- end }}
{{- if and $v.nvml.enabled (not $v.nvml.runtimeClassName) (not $v.nvml.driverRoot) }}
{{- fail "nvml: nothing brings the driver's library into the pod: set nvml.runtimeClassName or nvml.driverRoot, or nvml.enabled=false" }}
{{- end }}
{{- if and $v.nvml.enabled $v.nvml.runtimeClassName $v.nvml.checkRuntimeClass (include "device-api.isLive" .) (not (lookup "node.k8s.io/v1" "RuntimeClass" "" $v.nvml.runtimeClassName)) }}
{{- fail (printf "nvml.runtimeClassName: the cluster has no RuntimeClass %q: install the NVIDIA container toolkit or the GPU operator; or, as only a privileged container has the devices without it, set nvml.runtimeClassName=\"\" with nvml.driverRoot and kernelLog.enabled" $v.nvml.runtimeClassName) }}
{{- end }}
{{- if and $v.networkPolicy.metricsFrom (not $v.networkPolicy.enabled) }}
{{- fail "networkPolicy.metricsFrom: without networkPolicy.enabled anybody may scrape: set it, or leave the peers out" }}
{{- end }}
{{- if and $v.serviceAccount.annotations (not $v.serviceAccount.create) }}
{{- fail "serviceAccount.annotations: none is created that could have them: set serviceAccount.create, or annotate yours" }}
{{- end }}
{{- if and $v.podDisruptionBudget.enabled (lt (int $v.podDisruptionBudget.minAvailable) 1) }}
{{- fail "podDisruptionBudget.minAvailable: podDisruptionBudget.enabled needs it: how many of the daemon's pods, of all nodes, an eviction has to leave ready" }}
{{- end }}
{{- if and $v.metrics.serviceMonitor.enabled (not $v.metrics.service.enabled) }}
{{- fail "metrics.serviceMonitor: it selects the metrics Service: set metrics.service.enabled" }}
{{- end }}
{{- end }}

{{/* An amount, in microseconds or bytes: of `30s`, `uid:1001=30s`, `16MiB` or a number. */}}
{{- define "device-api.amount" -}}
{{- $units := dict "" 1 "us" 1 "µs" 1 "ms" 1000 "s" 1000000 "m" 60000000 "h" 3600000000 "Ki" 1024 "KiB" 1024 "Mi" 1048576 "MiB" 1048576 "Gi" 1073741824 "GiB" 1073741824 }}
{{- $text := regexFind "[0-9]+[A-Za-zµ]*$" (include "device-api.word" .) }}
{{- mulf (regexFind "^[0-9]+" $text | float64) (get $units (regexReplaceAll "^[0-9]+" $text "")) }}
{{- end }}

{{/* A value as one would write it; a number of a file is a float to Helm. */}}
{{- define "device-api.word" -}}
{{- if kindIs "string" . }}{{ . }}{{ else }}{{ int64 . }}{{ end }}
{{- end }}

{{- define "device-api.validateAmount" -}}
{{- $amount := include "device-api.amount" .value | float64 }}
{{- $min := first .bounds }}
{{- $max := last .bounds }}
{{- if or (lt $amount (include "device-api.amount" $min | float64)) (gt $amount (include "device-api.amount" $max | float64)) }}
{{- fail (printf "%s: %s is not within %s to %s" .at (include "device-api.word" .value) $min $max) }}
{{- end }}
{{- end }}

{{/* What the daemon would refuse, and the schema can't: amounts out of bounds, and settings that don't go together. */}}
{{- define "device-api.validateConfig" -}}
{{- $v := .Values }}
{{- $config := $v.config | default dict }}
{{- $known := .Files.Get "files/bounds.yaml" | fromYaml }}
{{- range $key, $bounds := omit $known "limits" "defaults" }}
{{- /* At most half of barrier-wait; where that is set, the daemon compares. */}}
{{- if and (hasKey $config $key) (not (and (eq $key "policy-deadline") (hasKey ($config.limits | default dict) "barrier-wait"))) }}
{{- $value := get $config $key }}
{{- range $one := ternary $value (list $value) (kindIs "slice" $value) }}
{{- include "device-api.validateAmount" (dict "at" (printf "config.%s" $key) "value" $one "bounds" $bounds) }}
{{- end }}
{{- end }}
{{- end }}
{{- range $name, $value := $config.limits }}
{{- with get $known.limits $name }}
{{- include "device-api.validateAmount" (dict "at" (printf "config.limits.%s" $name) "value" $value "bounds" .) }}
{{- end }}
{{- end }}
{{- $timeout := get $config "shutdown-timeout" | default (get $known.defaults "shutdown-timeout") }}
{{- $seconds := divf (include "device-api.amount" $timeout | float64) 1000000 }}
{{- $needed := addf $seconds (include "device-api.preStop" . | float64) 1 | ceil | int }}
{{- if gt $needed (int $v.terminationGracePeriodSeconds) }}
{{- fail (printf "terminationGracePeriodSeconds: %d is too little for config.shutdown-timeout, which is %s, with the %s s of preStop and one to end: %d at least" (int $v.terminationGracePeriodSeconds) $timeout (include "device-api.preStop" .) $needed) }}
{{- end }}
{{- if and (eq (get $config "kmsg-drill" | toString) "true") (not $v.kernelLog.enabled) }}
{{- fail "config.kmsg-drill: no kernel log is read: set kernelLog.enabled, or leave it out" }}
{{- end }}
{{- $insecure := get $config "insecure-tcp" }}
{{- if and $insecure (ne $insecure "off") $v.tls.enabled }}
{{- fail (printf "config.insecure-tcp: %s is for TCP without TLS, and tls.enabled is set: leave one out" $insecure) }}
{{- end }}
{{- with get $config "policies-file" }}
{{- if or (eq $v.policies.source "bundled") (not (hasPrefix (printf "%s/" (include "device-api.policyDir" $)) .)) }}
{{- fail (printf "config.policies-file: %s is not in the pod: with another policies.source than bundled, a file of it is in %s" . (include "device-api.policyDir" $)) }}
{{- end }}
{{- end }}
{{- end }}

{{/* "true" of an address that only the pod itself can reach. */}}
{{- define "device-api.isLoopback" -}}
{{- if regexMatch "^(127\\.[0-9.]+|\\[::1\\]):[0-9]+$" . }}true{{ end }}
{{- end }}

{{/* Labels and annotations that the chart sets, or that two values set: the object would have them twice. */}}
{{- define "device-api.validateLabels" -}}
{{- $v := .Values }}
{{- $m := $v.metrics }}
{{- $common := $v.commonLabels | default dict }}
{{- $own := list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" "app.kubernetes.io/version" "app.kubernetes.io/managed-by" "helm.sh/chart" }}
{{- range $at, $labels := dict "commonLabels" $common "podLabels" $v.podLabels "metrics.serviceMonitor.labels" $m.serviceMonitor.labels "metrics.prometheusRule.labels" $m.prometheusRule.labels "metrics.dashboard.labels" $m.dashboard.labels }}
{{- range $label, $_ := $labels }}
{{- if has $label $own }}
{{- fail (printf "%s: %s is the chart's own label; choose another" $at $label) }}
{{- end }}
{{- if and (ne $at "commonLabels") (hasKey $common $label) }}
{{- fail (printf "%s: %s is in commonLabels as well; leave one out" $at $label) }}
{{- end }}
{{- end }}
{{- end }}
{{- range $key := list "checksum/configuration" "kubectl.kubernetes.io/default-container" }}
{{- if hasKey ($v.podAnnotations | default dict) $key }}
{{- fail (printf "podAnnotations: %s is the chart's own annotation; choose another" $key) }}
{{- end }}
{{- end }}
{{- end }}

{{/* A directory of the host as the host has it: /var/run is /run there. */}}
{{- define "device-api.onHost" -}}
{{- regexReplaceAll "^/var/run(/|$)" . "/run${1}" }}
{{- end }}

{{/* The daemon becomes the owner of both, so they are nobody else's; and none lies in another. */}}
{{- define "device-api.validateDirectories" -}}
{{- $v := .Values }}
{{- $taken := list
  "^/[^/]+$"
  "^/(bin|boot|dev|etc|lib|lib32|lib64|proc|sbin|sys|usr)/"
  "^/(home|snap|var)/[^/]+$"
  "^/opt/(cni|containerd|nvidia)$"
  "^/run/(containerd|crio|cri-dockerd|dbus|docker|k3s|lock|log|mount|netns|nvidia|secrets|sshd|systemd|udev|user)$"
  "^/run/nvidia/(driver|mps|toolkit|validations)$"
  "^/run/user/[0-9]+$"
  "^/var/lib/(apt|buildkit|calico|cilium|cni|containerd|containers|cri-dockerd|dbus|docker|dpkg|etcd|kubelet|lxc|lxd|nfs|nvidia|rancher|rook|rpm|snapd|systemd)$"
  "^/var/lib/kubelet/(device-plugins|pki|plugins|plugins_registry|pod-resources|pods|seccomp)$"
  "^/var/log/(audit|containers|journal|pods)$"
}}
{{- range $at, $path := dict "socket.hostPath" $v.socket.hostPath "state.hostPath" $v.state.hostPath }}
{{- if regexMatch "/\\.\\.?(/|$)" $path }}
{{- fail (printf "%s: %s has . or .. in it: write the path that it comes to" $at $path) }}
{{- end }}
{{- range $taken }}
{{- if regexMatch . (include "device-api.onHost" $path) }}
{{- fail (printf "%s: %s belongs to the system or another program, and the daemon would become its owner on every node: name a directory of its own, such as /var/lib/device-api or /var/run/device-api" $at $path) }}
{{- end }}
{{- end }}
{{- end }}
{{- $host := dict "socket.hostPath" $v.socket.hostPath }}
{{- if eq $v.state.type "hostPath" }}
{{- $_ := set $host "state.hostPath" $v.state.hostPath }}
{{- end }}
{{- with $v.policies.hostPath }}
{{- $_ := set $host "policies.hostPath" . }}
{{- end }}
{{- include "device-api.validateApart" (dict "paths" $host "where" "on the host") }}
{{- $pod := dict "socket.hostPath" $v.socket.hostPath "the state" (include "device-api.stateDir" .) "the configuration" "/etc/device-api" }}
{{- with $v.nvml.driverRoot }}
{{- $_ := set $pod "nvml.driverRoot" . }}
{{- if regexMatch "^/((bin|boot|dev|etc|lib|lib32|lib64|proc|sbin|sys)(/.*)?|usr(/(bin|lib|lib32|lib64|libexec|sbin|share)(/.*)?)?|var(/lib)?|run)$" (include "device-api.onHost" .) }}
{{- fail (printf "nvml.driverRoot: %s would hide what the pod has there: name the root of a driver container, such as /run/nvidia/driver" .) }}
{{- end }}
{{- end }}
{{- include "device-api.validateApart" (dict "paths" $pod "where" "in the pod") }}
{{- end }}

{{- define "device-api.validateApart" -}}
{{- $paths := .paths }}
{{- $where := .where }}
{{- range $a, $path := $paths }}
{{- range $b, $other := $paths }}
{{- if and (ne $a $b) (hasPrefix (printf "%s/" (include "device-api.onHost" $other)) (printf "%s/" (include "device-api.onHost" $path))) }}
{{- fail (printf "%s: %s is, or lies in, %s of %s %s: choose directories apart" $a $path $other $b $where) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* A quantity of Kubernetes, as a number. */}}
{{- define "device-api.quantity" -}}
{{- if kindIs "string" . }}
{{- $units := dict "" 1 "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 }}
{{- mulf (regexFind "^[0-9.]+" . | float64) (get $units (regexFind "[A-Za-z]*$" .)) }}
{{- else }}
{{- float64 . }}
{{- end }}
{{- end }}

{{- define "device-api.validateResources" -}}
{{- $resources := .Values.resources | default dict }}
{{- $limits := $resources.limits | default dict }}
{{- range $resource, $request := $resources.requests }}
{{- with get $limits $resource }}
{{- if gt (include "device-api.quantity" $request | float64) (include "device-api.quantity" . | float64) }}
{{- fail (printf "resources.requests.%s: %v is more than resources.limits.%s, which is %v" $resource $request $resource .) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
