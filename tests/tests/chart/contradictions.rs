//! Values that can't work, each fine for itself.

/// Values, and what the refusal says of them.
pub(crate) const CONTRADICTIONS: &[(&str, &[&str])] = &[
    (
        "grpc: {address: '0.0.0.0:50051'}",
        &[
            "grpc.address",
            "0.0.0.0:50051 is no loopback",
            "tls.enabled",
        ],
    ),
    (
        "grpc: {address: '[::]:50051'}",
        &["grpc.address", "is no loopback"],
    ),
    (
        "grpc: {address: '127.0.0.1:70000'}",
        &["grpc.address", "there is no port 70000"],
    ),
    (
        "grpc: {address: '127.0.0.1:9090'}",
        &["grpc.address", "port 9090 is ports.metrics"],
    ),
    (
        "{grpc: {address: ''}, tls: {enabled: true, secretName: s}}",
        &["tls.enabled", "grpc.address is empty"],
    ),
    (
        "tls: {enabled: true}",
        &["tls.secretName", "kubernetes.io/tls"],
    ),
    (
        "tls: {writers: ['cn:a']}",
        &["tls.writers", "tls.clientAuth"],
    ),
    (
        "{grpc: {address: '0.0.0.0:50051'}, tls: {enabled: true, secretName: s, clientAuth: false, writers: ['cn:a']}}",
        &["tls.writers"],
    ),
    (
        "tls: {enabled: true, secretName: s}",
        &[
            "tls.enabled",
            "127.0.0.1:50051",
            "nobody outside of the pod",
        ],
    ),
    (
        "policies: {source: inline}",
        &["policies.inline", "neither a component nor a manifest"],
    ),
    (
        "policies: {inline: {manifest: a}}",
        &[
            "policies.inline",
            "only read with policies.source=inline, and that is bundled",
        ],
    ),
    (
        "policies: {source: configMap}",
        &["policies.configMap", "policies.source=configMap needs it"],
    ),
    (
        "policies: {source: image}",
        &["policies.image.reference", "policies.source=image needs it"],
    ),
    (
        "policies: {source: hostPath}",
        &["policies.hostPath", "policies.source=hostPath needs it"],
    ),
    (
        "policies: {configMap: a}",
        &[
            "policies.configMap",
            "only read with policies.source=configMap",
        ],
    ),
    (
        "policies: {source: configMap, configMap: a, hostPath: /a}",
        &["policies.hostPath", "and that is configMap"],
    ),
    ("ports: {health: 9090}", &["ports", "both 9090"]),
    (
        "nvml: {runtimeClassName: ''}",
        &["nvml", "nvml.runtimeClassName or nvml.driverRoot"],
    ),
    (
        "metrics: {service: {enabled: false}, serviceMonitor: {enabled: true}}",
        &["metrics.serviceMonitor", "metrics.service.enabled"],
    ),
    (
        "config: {grpc-address: ''}",
        &["config.grpc-address", "by grpc.address; set that"],
    ),
    (
        "config: {kmsg-path: /dev/kmsg}",
        &["config.kmsg-path", "by kernelLog.enabled"],
    ),
    // Its amounts would have no bounds here.
    (
        "config: {limit: ['request-time=99h']}",
        &["config.limit:", "by config.limits; set that"],
    ),
    (
        "podDisruptionBudget: {enabled: true}",
        &[
            "podDisruptionBudget.minAvailable",
            "how many of the daemon's pods",
        ],
    ),
    // A Service is made by that name.
    (
        "nameOverride: '1.2'",
        &[
            "gpus-1.2 is no name that a Service may have",
            "fullnameOverride",
        ],
    ),
    (
        "config: {shutdown-timeout: 1m}",
        &[
            "terminationGracePeriodSeconds",
            "20 is too little",
            "64 at least",
        ],
    ),
    (
        "config: {shutdown-timeout: 16001ms}",
        &["terminationGracePeriodSeconds", "21 at least"],
    ),
    // The daemon's own time to end counts where none is set.
    (
        "terminationGracePeriodSeconds: 13",
        &[
            "terminationGracePeriodSeconds: 13 is too little",
            "which is 10s",
            "14 at least",
        ],
    ),
    (
        "config: {policy-deadline: 26ms}",
        &["config.policy-deadline", "26ms is not within 1ms to 25ms"],
    ),
    (
        "config: {policy-memory: 17179869184}",
        &["config.policy-memory", "17179869184 is not within"],
    ),
    (
        "config: {provider-timeout: ['uid:1=5s', 'uid:1001=25h']}",
        &["config.provider-timeout", "uid:1001=25h"],
    ),
    (
        "config: {limits: {request-time: 11m}}",
        &["config.limits.request-time", "11m is not within 1s to 10m"],
    ),
    (
        "config: {kmsg-drill: true}",
        &["config.kmsg-drill", "kernelLog.enabled"],
    ),
    (
        "{config: {insecure-tcp: read}, tls: {enabled: true, secretName: s}}",
        &["config.insecure-tcp", "tls.enabled"],
    ),
    (
        "config: {policies-file: /etc/device-api/policies/site.yaml}",
        &["config.policies-file", "is not in the pod"],
    ),
    (
        "{config: {policies-file: /nope.yaml}, policies: {source: configMap, configMap: a}}",
        &["config.policies-file", "is in /etc/device-api/policies"],
    ),
    (
        "{nvml: {enabled: false, driverRoot: /run/nvidia/driver}}",
        &["nvml.driverRoot", "nvml.enabled alone"],
    ),
    (
        "tls: {secretName: device-api-tls}",
        &["tls.secretName", "tls.enabled alone"],
    ),
    (
        "networkPolicy: {metricsFrom: [{podSelector: {}}]}",
        &["networkPolicy.metricsFrom", "networkPolicy.enabled"],
    ),
    (
        "serviceAccount: {create: false, annotations: {a: b}}",
        &["serviceAccount.annotations", "serviceAccount.create"],
    ),
    (
        "resources: {requests: {memory: 1Gi}}",
        &[
            "resources.requests.memory: 1Gi is more than",
            "which is 256Mi",
        ],
    ),
    (
        "resources: {requests: {cpu: 2}, limits: {cpu: 1500m}}",
        &["resources.requests.cpu"],
    ),
    (
        "socket: {hostPath: /var/lib/device-api/run}",
        &[
            "socket.hostPath",
            "lies in, /var/lib/device-api of state.hostPath on the host",
        ],
    ),
    (
        "state: {hostPath: /run/device-api}",
        &["/run/device-api of state.hostPath on the host"],
    ),
    (
        "{socket: {hostPath: /var/lib/device-api}, state: {hostPath: /srv/gpus}}",
        &["socket.hostPath", "of the state in the pod"],
    ),
    (
        "policies: {source: hostPath, hostPath: /var/lib/device-api/policies}",
        &["policies.hostPath", "of state.hostPath on the host"],
    ),
    (
        "nvml: {driverRoot: /run/device-api/driver}",
        &["nvml.driverRoot", "of socket.hostPath in the pod"],
    ),
    (
        "state: {hostPath: /srv/../etc}",
        &["state.hostPath", "has . or .. in it"],
    ),
    (
        "extraEnv: [{name: DEVICE_API_STORE, value: memory}]",
        &["extraEnv", "DEVICE_API_STORE would override"],
    ),
    (
        "podLabels: {app.kubernetes.io/name: x}",
        &["podLabels", "app.kubernetes.io/name is the chart's own"],
    ),
    (
        "metrics: {dashboard: {labels: {app.kubernetes.io/instance: x}}}",
        &["metrics.dashboard.labels", "is the chart's own label"],
    ),
    (
        "{podLabels: {team: a}, commonLabels: {team: b}}",
        &["podLabels", "team is in commonLabels as well"],
    ),
    (
        "podAnnotations: {checksum/configuration: x}",
        &["podAnnotations", "is the chart's own annotation"],
    ),
    (
        "image: {tag: 0.1.1, digest: 'sha256:0000000000000000000000000000000000000000000000000000000000000000'}",
        &["image.tag: 0.1.1 is not looked at", "image.digest"],
    ),
    (
        "nvml: {driverRoot: /usr}",
        &["nvml.driverRoot: /usr would hide"],
    ),
    (
        "policies: {source: inline, inline: {components: {a.wasm: 'bm8gd2FzbQ=='}}}",
        &[
            "policies.inline.components: a.wasm is no base64",
            "base64 a.wasm > FILE",
        ],
    ),
    (
        "commonLabels: {helm.sh/chart: x}",
        &["commonLabels", "helm.sh/chart is the chart's own"],
    ),
    ("writers: {uids: [1, 65534]}", &["writers.uids", "65534"]),
    ("writers: {gids: [65534]}", &["writers.gids", "65534"]),
];
