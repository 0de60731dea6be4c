//! What can't work is refused at the install, with the path of the value and what to do.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use crate::contradictions::CONTRADICTIONS;
use crate::helm::Chart;

/// Directories of the host that have another owner, or many.
const OF_OTHERS: [&str; 20] = [
    "/run",
    "/var/run",
    "/usr",
    "/etc",
    "/etc/kubernetes",
    "/usr/local/lib",
    "/var/lib",
    "/var/log",
    "/var/tmp",
    "/tmp",
    "/srv",
    "/dev/shm",
    "/proc/sys",
    "/home/ops",
    "/var/lib/kubelet",
    "/var/lib/kubelet/device-plugins",
    "/var/lib/containerd",
    "/run/systemd",
    "/var/run/nvidia",
    "/var/run/user/1000",
];

/// Such as others' are like.
const OF_OUR_OWN: [&str; 6] = [
    "/run/gpus",
    "/var/lib/gpus",
    "/var/lib/kubelet/plugins/gpus",
    "/opt/gpus/run",
    "/home/ops/gpus",
    "/tmp/gpus",
];

/// Where the image has what the daemon runs on; the last as the host calls it, too.
const OF_THE_IMAGE: [&str; 9] = [
    "/usr",
    "/usr/bin",
    "/usr/lib/nvidia",
    "/lib64",
    "/etc/nvidia",
    "/proc/driver/nvidia",
    "/var",
    "/var/lib",
    "/var/run",
];

/// Roots of drivers, of sites that there are.
const DRIVERS: [&str; 6] = [
    "/run/nvidia/driver",
    "/var/run/nvidia/driver",
    "/usr/local/nvidia",
    "/var/lib/nvidia/driver",
    "/home/kubernetes/bin/nvidia",
    "/opt/nvidia",
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
    (
        "metrics: {serviceMonitor: {interval: 30s1m}}",
        &["metrics", "serviceMonitor", "interval"],
    ),
    (
        "metrics: {serviceMonitor: {interval: 0s}}",
        &["metrics", "serviceMonitor", "interval"],
    ),
    (
        "metrics: {serviceMonitor: {interval: ''}}",
        &["metrics", "serviceMonitor", "interval"],
    ),
    ("fullnameOverride: a.b", &["fullnameOverride"]),
    ("fullnameOverride: 1gpus", &["fullnameOverride"]),
    // A condition of the parent's, and there is none.
    ("enabled: false", &["enabled"]),
    // A share of the pods is a share of what the scale subresource says, and a DaemonSet has none.
    (
        "podDisruptionBudget: {enabled: true, minAvailable: 10%}",
        &["podDisruptionBudget", "minAvailable"],
    ),
    (
        "podDisruptionBudget: {enabled: true, maxUnavailable: 1}",
        &["podDisruptionBudget", "maxUnavailable"],
    ),
    ("config: {helth-port: 1}", &["config", "helth-port"]),
    (
        "config: {limits: {watches: {a: b}}}",
        &["config", "limits", "watches"],
    ),
    ("policies: {source: git}", &["policies", "source"]),
    (
        "policies: {source: inline, inline: {components: {a.txt: 'AGFzbQ0AAQA='}}}",
        &["components", "a.txt"],
    ),
    ("policies: {unlisted: ignore}", &["policies", "unlisted"]),
    ("socket: {hostPath: var/run}", &["socket", "hostPath"]),
    ("socket: {name: a/b}", &["socket", "name"]),
    ("socket: {name: ..}", &["socket", "name"]),
    ("nameOverride: Bad_Name", &["nameOverride"]),
    ("image: {repository: 'a:b'}", &["image", "repository"]),
    ("image: {tag: '1 2'}", &["image", "tag"]),
    ("tls: {secretName: Foo_bar}", &["tls", "secretName"]),
    (
        "policies: {configMap: Bad_Name}",
        &["policies", "configMap"],
    ),
    (
        "policies: {image: {reference: 'a b'}}",
        &["policies", "image", "reference"],
    ),
    (
        "config: {shutdown-timeout: soon}",
        &["config", "shutdown-timeout"],
    ),
    ("state: {type: disk}", &["state", "type"]),
    ("grpc: {address: 'localhost:50051'}", &["grpc", "address"]),
    ("grpc: {address: '127.0.0.256:50051'}", &["grpc", "address"]),
    // To Helm, `off` without quotes is false.
    ("config: {insecure-tcp: off}", &["config", "insecure-tcp"]),
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
    (
        "extraEnv: [{name: A, vaule: x}]",
        &["extraEnv", "0", "vaule"],
    ),
    (
        "extraEnv: [{name: A, valueFrom: {secretKeyRef: {nam: s, key: k}}}]",
        &["extraEnv", "secretKeyRef", "nam"],
    ),
    (
        "imagePullSecrets: [{nam: x}]",
        &["imagePullSecrets", "0", "nam"],
    ),
    (
        "networkPolicy: {enabled: true, metricsFrom: [{namespaceSelectr: {}}]}",
        &["metricsFrom", "0", "namespaceSelectr"],
    ),
    (
        "networkPolicy: {enabled: true, metricsFrom: [{podSelector: {matchLabel: {a: b}}}]}",
        &["metricsFrom", "podSelector", "matchLabel"],
    ),
    ("affinity: {nodeAfinity: {}}", &["affinity", "nodeAfinity"]),
    (
        "affinity: {nodeAffinity: {requiredDuringScheduling: {}}}",
        &["affinity", "nodeAffinity", "requiredDuringScheduling"],
    ),
    (
        "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: \
         {nodeSelectorTerms: [{matchExpresions: []}]}}}",
        &["affinity", "nodeSelectorTerms", "0", "matchExpresions"],
    ),
    (
        "affinity: {podAntiAffinity: {preferredDuringSchedulingIgnoredDuringExecution: \
         [{weight: 1, podAffinityTerm: {topologykey: a}}]}}",
        &["affinity", "podAffinityTerm", "topologyKey"],
    ),
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
    let templates = crate::helm::folder()?.join("templates");
    let text = |name: &str| fs::read_to_string(templates.join(name));
    let text = text("_helpers.tpl")? + &text("_validate.tpl")?;
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
    said += &refused(&chart, "socket: {hostPath: /var/run}", &[], &[])?;

    let messages = messages()?;
    ensure!(messages.len() > 35, "{messages:?}");
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
fn a_directory_that_others_use_is_not_given_to_the_daemon() -> Result<()> {
    let Some(chart) = Chart::find()? else {
        return Ok(());
    };
    for value in ["socket", "state"] {
        for path in OF_OTHERS {
            let why = [
                &format!("{value}.hostPath: {path} belongs to"),
                "name a directory of its own",
            ];
            refused(&chart, &format!("{value}: {{hostPath: {path}}}"), &[], &why)?;
        }
        for path in OF_OUR_OWN {
            chart.rendered(&format!("{value}: {{hostPath: {path}}}"))?;
        }
    }
    // `/` has no part that could be a name.
    refused(
        &chart,
        "state: {hostPath: /}",
        &[],
        &["state", "hostPath", "pattern"],
    )?;
    Ok(())
}

#[test]
fn a_drivers_root_hides_nothing_of_the_image() -> Result<()> {
    let Some(chart) = Chart::find()? else {
        return Ok(());
    };
    for path in OF_THE_IMAGE {
        let why = format!("nvml.driverRoot: {path} would hide");
        refused(
            &chart,
            &format!("nvml: {{driverRoot: {path}}}"),
            &[],
            &[&why],
        )?;
    }
    for path in DRIVERS {
        chart.rendered(&format!("nvml: {{driverRoot: {path}}}"))?;
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
