//! What can't work is refused at the install, with the path of the value and what to do.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use crate::helm::Chart;

/// Values, and what the refusal says of them.
const CONTRADICTIONS: &[(&str, &[&str])] = &[
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
        "{tls: {enabled: true, secretName: s, clientAuth: false, writers: ['cn:a']}}",
        &["tls.writers"],
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
    (
        "config: {shutdown-timeout: soon}",
        &["config.shutdown-timeout", "soon is no duration"],
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
    (
        "extraEnv: [{name: DEVICE_API_STORE, value: memory}]",
        &["extraEnv", "DEVICE_API_STORE would override"],
    ),
    (
        "podLabels: {app.kubernetes.io/name: x}",
        &["podLabels", "app.kubernetes.io/name is the chart's own"],
    ),
    (
        "commonLabels: {helm.sh/chart: x}",
        &["commonLabels", "helm.sh/chart is the chart's own"],
    ),
    ("writers: {uids: [1, 65534]}", &["writers.uids", "65534"]),
    ("writers: {gids: [65534]}", &["writers.gids", "65534"]),
];

/// Values that the schema refuses, and the path it names.
const TYPOS: &[(&str, &[&str])] = &[
    ("nvlm: {enabled: false}", &["nvlm"]),
    ("nvml: {enable: false}", &["nvml", "enable"]),
    ("nvml: {enabled: 'no'}", &["nvml", "enabled"]),
    (
        "metrics: {serviceMonitor: {intervall: 30s}}",
        &["metrics", "serviceMonitor", "intervall"],
    ),
    (
        "metrics: {serviceMonitor: {interval: often}}",
        &["metrics", "serviceMonitor", "interval"],
    ),
    ("config: {helth-port: 1}", &["config", "helth-port"]),
    (
        "config: {limits: {watches: {a: b}}}",
        &["config", "limits", "watches"],
    ),
    ("policies: {source: git}", &["policies", "source"]),
    (
        "policies: {source: inline, inline: {components: {a.wasm: 'bm8gd2FzbQ=='}}}",
        &["components", "a.wasm"],
    ),
    (
        "policies: {source: inline, inline: {components: {a.txt: 'AGFzbQ0AAQA='}}}",
        &["components", "a.txt"],
    ),
    ("policies: {unlisted: ignore}", &["policies", "unlisted"]),
    ("socket: {hostPath: var/run}", &["socket", "hostPath"]),
    ("socket: {name: a/b}", &["socket", "name"]),
    ("state: {type: disk}", &["state", "type"]),
    ("grpc: {address: 'localhost:50051'}", &["grpc", "address"]),
    ("grpc: {address: '127.0.0.256:50051'}", &["grpc", "address"]),
    ("ports: {health: 80}", &["ports", "health"]),
    ("podSecurity: {runAsUser: 0}", &["podSecurity", "runAsUser"]),
    ("writers: {uids: [root]}", &["writers", "uids", "0"]),
    ("tls: {writers: [agent]}", &["tls", "writers", "0"]),
    (
        "resources: {limits: {memmory: 1Gi}}",
        &["resources", "limits", "memmory"],
    ),
    (
        "resources: {limits: {nvidia.com/gpu: 1}}",
        &["resources", "limits", "nvidia.com/gpu"],
    ),
    (
        "resources: {limits: {memory: 1GB}}",
        &["resources", "limits", "memory"],
    ),
    ("image: {digest: latest}", &["image", "digest"]),
    ("log: {verbosity: 3}", &["log", "verbosity"]),
    (
        "updateStrategy: {maxUnavailable: 0}",
        &["updateStrategy", "maxUnavailable"],
    ),
    (
        "terminationGracePeriodSeconds: 1",
        &["terminationGracePeriodSeconds"],
    ),
    ("extraEnv: [{value: a}]", &["extraEnv", "0", "name"]),
    ("affinity: {nodeAfinity: {}}", &["affinity", "nodeAfinity"]),
    (
        "tolerations: [{key: a, efect: NoSchedule}]",
        &["tolerations", "0", "efect"],
    ),
];

#[track_caller]
fn refused(chart: &Chart, values: &str, flags: &[&str], words: &[&str]) -> Result<String> {
    let why = chart
        .template(values, flags)?
        .err()
        .with_context(|| format!("taken: {values}"))?;
    for word in words {
        ensure!(
            why.contains(word),
            "{values}: the refusal lacks {word:?}:\n{why}"
        );
    }
    Ok(why)
}

/// The constant parts of every message that the templates can end with.
fn messages() -> Result<Vec<String>> {
    let templates = crate::helm::folder()?.join("templates/_helpers.tpl");
    let text = fs::read_to_string(templates)?;
    let fails = text
        .lines()
        .filter_map(|line| line.split_once("fail ").map(|(_, rest)| rest));
    let literal = |rest: &str| rest.split('"').nth(1).map(str::to_owned);
    Ok(fails.filter_map(literal).collect())
}

#[test]
fn every_contradiction_is_refused_and_every_refusal_is_tried() -> Result<()> {
    let Some(chart) = Chart::find()? else {
        return Ok(());
    };
    let mut said = String::new();
    for (values, words) in CONTRADICTIONS {
        said += &refused(&chart, values, &[], words)?;
    }
    let image = "policies: {source: image, image: {reference: a}}";
    said += &refused(
        &chart,
        image,
        &["--kube-version", "1.32.9"],
        &["policies.source", "Kubernetes 1.33", "v1.32.9"],
    )?;
    // More than a ConfigMap holds, of components that each would fit.
    let big = format!("AGFzbQ0AAQ{}", "A".repeat(700_000));
    let big = format!(
        "policies: {{source: inline, inline: {{components: {{a.wasm: '{big}', b.wasm: '{big}'}}}}}}"
    );
    said += &refused(
        &chart,
        &big,
        &[],
        &["policies.inline", "a ConfigMap holds 1 MiB"],
    )?;
    said += &crate::cluster::without_runtime_class(&chart)?;

    let messages = messages()?;
    ensure!(messages.len() > 20, "{messages:?}");
    for message in messages {
        let parts = message.split('%').map(|part| {
            part.trim_start_matches(['s', 'd', 'v', 'q'])
                .trim_end_matches('\\')
        });
        let longest = parts.max_by_key(|part| part.len()).unwrap_or_default();
        ensure!(said.contains(longest), "no case for {message:?}");
    }
    Ok(())
}

#[test]
fn a_typo_is_refused_with_its_path() -> Result<()> {
    let Some(chart) = Chart::find()? else {
        return Ok(());
    };
    for (values, words) in TYPOS {
        refused(&chart, values, &[], words)?;
    }
    refused(
        &chart,
        "{}",
        &["--kube-version", "1.29.0"],
        &["kubeVersion", ">=1.30.0-0"],
    )?;
    Ok(())
}
