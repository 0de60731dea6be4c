//! The daemon's pod, case by case: what it may, what it sees, and what it is asked.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::helm::Chart;
use crate::matrix::MATRIX;

pub(crate) fn list<'a>(of: &'a Value, key: &str) -> &'a [Value] {
    of[key].as_array().map_or(&[], Vec::as_slice)
}

fn strings<'a>(of: &'a [Value], key: &str) -> Vec<&'a str> {
    of.iter().filter_map(|item| item[key].as_str()).collect()
}

/// Volumes that the restricted Pod Security Standard has nothing against.
const VOLUMES: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

/// What that standard says against a pod.
fn restricted(pod: &Value) -> Vec<String> {
    let mut objections = Vec::new();
    for volume in list(pod, "volumes") {
        let fields = volume.as_object().into_iter().flatten();
        let sources = fields
            .map(|(key, _)| key.as_str())
            .filter(|key| *key != "name");
        objections.extend(
            sources
                .filter(|key| !VOLUMES.contains(key))
                .map(str::to_owned),
        );
    }
    for key in ["hostNetwork", "hostPID", "hostIPC"] {
        if pod[key] == true {
            objections.push(key.to_owned());
        }
    }
    let containers = list(pod, "containers")
        .iter()
        .chain(list(pod, "initContainers"));
    objections.extend(containers.flat_map(|container| restricted_container(pod, container)));
    objections.sort();
    objections.dedup();
    objections
}

fn restricted_container(pod: &Value, container: &Value) -> Vec<String> {
    let own = &container["securityContext"];
    let either = |key: &str| {
        if own[key].is_null() {
            &pod["securityContext"][key]
        } else {
            &own[key]
        }
    };
    let adds = list(&own["capabilities"], "add");
    let checks = [
        (own["privileged"] == true, "privileged"),
        (
            own["allowPrivilegeEscalation"] != false,
            "allowPrivilegeEscalation",
        ),
        (either("runAsNonRoot") != true, "runAsNonRoot"),
        (either("runAsUser") == 0, "runAsUser"),
        (
            either("seccompProfile")["type"] != "RuntimeDefault",
            "seccompProfile",
        ),
        (
            own["capabilities"]["drop"] != json!(["ALL"]),
            "capabilities.drop",
        ),
        (
            adds.iter().any(|add| add != "NET_BIND_SERVICE"),
            "capabilities.add",
        ),
    ];
    let bad = checks.iter().filter(|(is_bad, _)| *is_bad);
    bad.map(|(_, what)| format!("{what} of {}", container["name"]))
        .collect()
}

fn objections(chart: &Chart, values: &str) -> Result<Vec<String>> {
    Ok(restricted(chart.rendered(values)?.pod()?))
}

#[test]
fn a_restricted_namespace_objects_to_the_hosts_directories_and_to_whoever_owns_them() -> Result<()>
{
    let Some(chart) = Chart::find()? else {
        return Ok(());
    };
    let of_root = ["capabilities.add", "hostPath", "runAsNonRoot", "runAsUser"];
    let of_root = of_root.map(|what| match what {
        "hostPath" => what.to_owned(),
        _ => format!("{what} of \"own-directories\""),
    });
    for (case, values) in MATRIX {
        let found = objections(&chart, values)?;
        if case.starts_with("kernel log") {
            let privileged = r#"privileged of "device-api-server""#.to_owned();
            ensure!(found.contains(&privileged), "{case}: {found:?}");
        } else if *case == "directories of the administrator" {
            ensure!(found == ["hostPath"], "{case}: {found:?}");
        } else {
            ensure!(found == of_root, "{case}: {found:?}");
        }
    }
    let test = chart.rendered("{}")?;
    let test = restricted(&test.the("Pod")?["spec"]);
    ensure!(test == ["hostPath"], "the test's pod: {test:?}");
    Ok(())
}

#[test]
fn what_needs_root_has_one_capability_and_what_does_not_has_none() -> Result<()> {
    let Some(chart) = Chart::find()? else {
        return Ok(());
    };
    for (case, values) in MATRIX {
        let rendered = chart.rendered(values)?;
        let pod = rendered.pod()?;
        for init in list(pod, "initContainers") {
            let own = &init["securityContext"];
            ensure!(
                own["capabilities"] == json!({"drop": ["ALL"], "add": ["CHOWN"]}),
                "{case}: {own}"
            );
            ensure!(
                own["readOnlyRootFilesystem"] == true && own["privileged"].is_null(),
                "{case}: {own}"
            );
        }
        let [daemon] = list(pod, "containers") else {
            anyhow::bail!("{case}: one container");
        };
        let own = &daemon["securityContext"];
        ensure!(own["readOnlyRootFilesystem"] == true, "{case}: {own}");
        if own["privileged"] == true {
            // The API server refuses the two together.
            ensure!(
                own["allowPrivilegeEscalation"].is_null() && own["runAsUser"] == 0,
                "{case}: {own}"
            );
        } else {
            ensure!(
                own["runAsUser"] != 0 && own["capabilities"] == json!({"drop": ["ALL"]}),
                "{case}: {own}"
            );
        }
        for object in [pod, &rendered.the("DaemonSet")?["spec"]["template"]["spec"]] {
            ensure!(
                object["automountServiceAccountToken"] == false,
                "{case}: no token"
            );
        }
        for kind in rendered.kinds() {
            ensure!(
                !kind.contains("Role"),
                "{case}: the daemon asks nothing of the API server: {kind}"
            );
        }
        ensure!(
            !pod.to_string().contains("nvidia.com/gpu\":"),
            "{case}: a GPU is no resource of ours"
        );
    }
    Ok(())
}

/// Elsewhere there is no socket, and a kubelet does not start it.
#[test]
fn the_tests_pod_goes_where_the_daemons_go_and_is_of_their_group() -> Result<()> {
    let Some(chart) = Chart::find()? else {
        return Ok(());
    };
    let mut tried = BTreeSet::new();
    for (case, values) in MATRIX {
        let rendered = chart.rendered(values)?;
        let Ok(test) = rendered.the("Pod") else {
            ensure!(values.contains("tests: {enabled: false}"), "{case}: no pod");
            continue;
        };
        let (test, pod) = (&test["spec"], rendered.pod()?);
        for key in ["nodeSelector", "tolerations", "affinity"] {
            ensure!(test[key] == pod[key], "{case}: {key}: {}", test[key]);
            tried.extend((!pod[key].is_null()).then_some(key));
        }
        let group = &pod["containers"][0]["securityContext"]["runAsGroup"];
        ensure!(
            test["securityContext"]["supplementalGroups"] == json!([group]) && group.is_u64(),
            "{case}: {group} is not in {test}"
        );
    }
    ensure!(tried.len() == 3, "only {tried:?}");
    Ok(())
}

/// Whether a path lies in one of the mounts.
fn is_mounted(path: &str, mounts: &[&str]) -> bool {
    mounts
        .iter()
        .any(|mount| path == *mount || path.starts_with(&format!("{mount}/")))
}

#[test]
fn every_mount_has_its_volume_and_every_path_of_the_configuration_is_mounted() -> Result<()> {
    let Some(chart) = Chart::find()? else {
        return Ok(());
    };
    for (case, values) in MATRIX {
        let rendered = chart.rendered(values)?;
        let pod = rendered.pod()?;
        let daemon = &pod["containers"][0];
        let volumes: BTreeSet<_> = strings(list(pod, "volumes"), "name").into_iter().collect();
        let mounted: BTreeSet<_> = strings(list(daemon, "volumeMounts"), "name")
            .into_iter()
            .collect();
        ensure!(volumes == mounted, "{case}: {volumes:?} is not {mounted:?}");
        for init in list(pod, "initContainers") {
            let mounts = strings(list(init, "volumeMounts"), "mountPath");
            let dirs = strings_of_flags(init, &["--socket-dir=", "--state-dir="]);
            ensure!(mounts == dirs, "{case}: {mounts:?} is not {dirs:?}");
            let user = &daemon["securityContext"];
            let owner = format!("--owner={}:{}", user["runAsUser"], user["runAsGroup"]);
            ensure!(
                list(init, "args").contains(&json!(owner)),
                "{case}: {owner}"
            );
        }

        let mounts = strings(list(daemon, "volumeMounts"), "mountPath");
        let configuration: Value = serde_saphyr::from_str(rendered.configuration()?)?;
        for key in [
            "state-dir",
            "policy-dir",
            "tls-cert",
            "tls-key",
            "tls-client-ca",
            "kmsg-path",
            "nvml-driver-root",
        ] {
            if let Some(path) = configuration[key].as_str() {
                ensure!(
                    is_mounted(path, &mounts),
                    "{case}: {key} {path} is in none of {mounts:?}"
                );
            }
        }
        let socket = configuration["unix-socket"][0]
            .as_str()
            .context("no socket")?;
        ensure!(
            is_mounted(socket, &mounts),
            "{case}: {socket} is in none of {mounts:?}"
        );
        let variables = list(daemon, "env");
        ensure!(
            variables.contains(&json!({"name": "DEVICE_API_SOCKET", "value": socket})),
            "{case}: {variables:?}"
        );
        let file = strings_of_flags(daemon, &["--config="]);
        ensure!(is_mounted(file[0], &mounts), "{case}: {file:?}");
    }
    Ok(())
}

fn strings_of_flags<'a>(container: &'a Value, flags: &[&str]) -> Vec<&'a str> {
    let args = list(container, "args").iter().filter_map(Value::as_str);
    args.filter_map(|arg| flags.iter().find_map(|flag| arg.strip_prefix(flag)))
        .collect()
}

#[test]
fn probes_ask_for_different_things_on_ports_that_are_there() -> Result<()> {
    let Some(chart) = Chart::find()? else {
        return Ok(());
    };
    for (case, values) in MATRIX {
        let rendered = chart.rendered(values)?;
        let daemon = &rendered.pod()?["containers"][0];
        let configuration: Value = serde_saphyr::from_str(rendered.configuration()?)?;
        let ports = list(daemon, "ports");
        for (port, key) in [("health", "health-port"), ("metrics", "metrics-port")] {
            let expected = json!({"name": port, "containerPort": configuration[key]});
            ensure!(
                ports.contains(&expected),
                "{case}: {ports:?} lacks {expected}"
            );
        }
        let path = |probe: &str| {
            let get = &daemon[probe]["httpGet"];
            ensure!(get["port"] == "health", "{case}: {probe} {get}");
            Ok(get["path"].as_str().unwrap_or_default())
        };
        // Has begun; is not stuck; answers now.
        ensure!(path("startupProbe")? == "/readyz", "{case}");
        ensure!(path("livenessProbe")? == "/healthz", "{case}");
        ensure!(path("readinessProbe")? == "/readyz", "{case}");
        let seconds = |probe: &str| {
            let probe = &daemon[probe];
            probe["periodSeconds"]
                .as_u64()
                .zip(probe["failureThreshold"].as_u64())
                .map(|(a, b)| a * b)
        };
        ensure!(seconds("startupProbe") == Some(120), "{case}");
        ensure!(
            seconds("livenessProbe") > seconds("readinessProbe"),
            "{case}: a slow node is not restarted"
        );
    }
    Ok(())
}
