//! Values that must render, each for what hangs on it.

/// By a name, in YAML.
pub(crate) const MATRIX: &[(&str, &str)] = &[
    ("defaults", "{}"),
    ("no NVML", "nvml: {enabled: false}"),
    (
        "a driver container",
        "nvml: {runtimeClassName: '', driverRoot: /run/nvidia/driver}",
    ),
    (
        "a runtime class and a driver root",
        "nvml: {driverRoot: /run/nvidia/driver}",
    ),
    ("kernel log", "kernelLog: {enabled: true}"),
    (
        "kernel log, a drill",
        "{kernelLog: {enabled: true}, config: {kmsg-drill: true, drills: enforce}}",
    ),
    ("state in memory", "state: {type: memory}"),
    ("directories of the administrator", "ownDirectories: false"),
    ("no TCP", "grpc: {address: ''}"),
    ("TCP on IPv6's loopback", "grpc: {address: '[::1]:50052'}"),
    (
        "TLS",
        "{grpc: {address: '0.0.0.0:50051'}, networkPolicy: {enabled: true}, tls: {enabled: true, secretName: device-api-tls, \
         writers: ['uri:spiffe://example.org/agent', 'cn:agent']}}",
    ),
    (
        "TLS without clients' certificates",
        "{grpc: {address: '[::]:50051'}, tls: {enabled: true, secretName: device-api-tls, clientAuth: false}}",
    ),
    (
        "writers",
        "writers: {uids: [1001, 4294967294], gids: [2000]}",
    ),
    (
        "policies inline",
        "policies: {source: inline, unlisted: refuse, inline: {manifest: \"policies:\\n  - name: xid-policy\\n\", \
         components: {thermal.wasm: 'AGFzbQ0AAQA='}}}",
    ),
    (
        "a manifest alone",
        "policies: {source: inline, inline: {manifest: 'policies: []'}}",
    ),
    (
        "a component alone",
        "policies: {source: inline, inline: {components: {a.wasm: 'AGFzbQ0AAQA='}}}",
    ),
    (
        "policies of a ConfigMap",
        "policies: {source: configMap, configMap: site-policies}",
    ),
    (
        "policies of an image",
        "policies: {source: image, image: {reference: 'example.org/policies:1@sha256:00', pullPolicy: Always}}",
    ),
    (
        "policies of the node",
        "policies: {source: hostPath, hostPath: /opt/policies}",
    ),
    ("safe mode", "policies: {safeMode: true}"),
    (
        "settings of the daemon",
        "config: {limits: {watches: 8192, request-time: 10s}, policy-deadline: 10ms, policy-memory: 33554432, platform: vm, \
         nvml-ignored-xids: '43,45', nvml-poll-interval: 5s, provider-timeout: ['uid:1001=30s'], \
         polarity: ['Site*=true-is-problem'], shutdown-timeout: 1m, insecure-tcp: 'off', boot-id-file: /proc/sys/kernel/random/boot_id}\n\
         terminationGracePeriodSeconds: 90",
    ),
    ("a long log", "log: {format: text, verbosity: 2}"),
    (
        "other ports",
        "{ports: {health: 18081, metrics: 19090}, metrics: {serviceMonitor: {enabled: true}}}",
    ),
    (
        "another user",
        "podSecurity: {runAsUser: 4242, runAsGroup: 4243}",
    ),
    (
        "numbers as OpenShift gives them",
        "{podSecurity: {runAsUser: 1000660000, runAsGroup: 1000660000}, \
         tolerations: [{operator: Exists, effect: NoExecute, tolerationSeconds: 86400000}]}",
    ),
    (
        "no RuntimeClass to be seen",
        "nvml: {checkRuntimeClass: false}",
    ),
    (
        "other directories",
        "{socket: {hostPath: /run/site/gpus, name: api.sock}, state: {hostPath: /srv/gpus}}",
    ),
    (
        "everything besides",
        "{metrics: {service: {annotations: {a: b}}, serviceMonitor: {enabled: true, interval: 1m30s, labels: {release: prom}}, \
         prometheusRule: {enabled: true, labels: {release: prom}}, dashboard: {enabled: true}}, \
         networkPolicy: {enabled: true, metricsFrom: [{namespaceSelector: {}}]}, \
         podDisruptionBudget: {enabled: true, minAvailable: 3}, updateStrategy: {maxUnavailable: 25%}, \
         podAnnotations: {c: d}, podLabels: {e: f, app.kubernetes.io/created-by: site}, \
         commonLabels: {team: gpu, app.kubernetes.io/part-of: stack}, extraEnv: [{name: RUST_LOG, value: info}], \
         imagePullSecrets: [{name: pull}], image: {repository: example.org/das, digest: \
         'sha256:0000000000000000000000000000000000000000000000000000000000000000'}, \
         affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: \
         [{matchExpressions: [{key: a, operator: Exists}]}]}}}, serviceAccount: {annotations: {g: h}}, \
         resources: {requests: {cpu: 100m, memory: 128Mi}, limits: {cpu: 2, memory: 640Mi}}}",
    ),
    (
        "as little as can be",
        "{metrics: {service: {enabled: false}}, tests: {enabled: false}, serviceAccount: {create: false}, \
         nodeSelector: {nvidia.com/gpu.present: null}, tolerations: [], priorityClassName: '', resources: {limits: null}}",
    ),
    (
        "other names",
        "{nameOverride: gpu-api, metrics: {prometheusRule: {enabled: true}}}",
    ),
];
