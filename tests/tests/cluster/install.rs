//! Install and uninstall: what is there, what it may do, and what is left.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::helm::RELEASE;
use crate::release::{FULL_NAME, Release};
use crate::server::TIMEOUT;
use crate::shared::cluster;

/// Every object that the chart can bring.
const EVERYTHING: &str = "{metrics: {serviceMonitor: {enabled: true}, prometheusRule: {enabled: true}, \
    dashboard: {enabled: true}}, networkPolicy: {enabled: true}, \
    podDisruptionBudget: {enabled: true, minAvailable: 1}, policies: {source: inline, inline: {manifest: 'policies: []'}}}";

#[test]
#[ignore = "needs an API server: cargo xtask e2e"]
fn defaults_install_where_the_runtime_class_is_and_nowhere_else() -> Result<()> {
    let Some(cluster) = cluster()? else {
        return Ok(());
    };
    let why = cluster.before_the_class.as_ref().err();
    let why = why.context("taken without a RuntimeClass")?;
    for word in [
        "nvml.runtimeClassName",
        "no RuntimeClass \"nvidia\"",
        "GPU operator",
    ] {
        ensure!(why.contains(word), "{why}");
    }
    let left = cluster.inventory("without-class")?;
    ensure!(left == ["serviceaccount/default"], "left: {left:?}");

    let release = Release::new(cluster, "defaults", "privileged")?;
    let notes = release.install("")?;
    let expected = [
        "configmap/gpus-device-api-server-configuration",
        "daemonset.apps/gpus-device-api-server",
        "secret/sh.helm.release.v1.gpus.v1",
        "service/gpus-device-api-server-metrics",
        "serviceaccount/default",
        "serviceaccount/gpus-device-api-server",
    ];
    let found = release.inventory()?;
    ensure!(found == expected, "{found:?}");
    ensure!(release.status()? == (1, "deployed".to_owned()));

    // What the notes tell to type names what is there.
    let mut names = 0;
    for word in notes.split_whitespace() {
        if let Some(name) = word.strip_prefix("daemonset/") {
            release.get(&["daemonset", name])?;
            names += 1;
        }
    }
    ensure!(names == 2, "{notes}");
    Ok(())
}

#[test]
#[ignore = "needs an API server: cargo xtask e2e"]
fn uninstall_leaves_what_was_there_before_and_nothing_else() -> Result<()> {
    let Some(cluster) = cluster()? else {
        return Ok(());
    };
    let release = Release::new(cluster, "uninstall", "privileged")?;
    let of_the_site = |kind: &str, name: &str| json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": release.namespace}});
    release.cluster.create(&[
        of_the_site("ConfigMap", "site-policies"),
        of_the_site("Secret", "device-api-tls"),
    ])?;
    let before = release.inventory()?;
    release.install(EVERYTHING)?;
    let installed = release.inventory()?;
    ensure!(installed.len() == before.len() + 11, "{installed:?}");

    // What is on the nodes stays: nothing of the chart runs at an uninstall that could remove it.
    let hooks = release.done(&["get", "hooks", RELEASE], "")?;
    let hooks: Vec<_> = hooks
        .lines()
        .filter_map(|line| line.trim().strip_prefix("helm.sh/hook: "))
        .collect();
    ensure!(hooks == ["test"], "{hooks:?}");

    release.done(&["uninstall", RELEASE, "--wait", TIMEOUT], "")?;
    let after = release.inventory()?;
    ensure!(after == before, "{after:?} is not {before:?}");
    ensure!(release.helm(&["status", RELEASE], "")?.is_err());
    // A name that was used is free again.
    release.install(EVERYTHING)?;
    ensure!(release.inventory()? == installed);
    Ok(())
}

/// The daemon's own rights, beside those that any account has.
#[test]
#[ignore = "needs an API server: cargo xtask e2e"]
fn the_service_account_has_no_token_and_no_rights() -> Result<()> {
    let Some(cluster) = cluster()? else {
        return Ok(());
    };
    let release = Release::new(cluster, "account", "privileged")?;
    release.install(EVERYTHING)?;
    let rights = |account: &str| {
        let who = format!("--as=system:serviceaccount:{}:{account}", release.namespace);
        let ask = ["auth", "can-i", "--list", "--namespace", &release.namespace];
        release.cluster.done(&[&ask[..], &[&who]].concat())
    };
    ensure!(rights(FULL_NAME)? == rights("default")?);

    let tokens = |pod: &Value| -> Result<usize> {
        let kept = release.asked(std::slice::from_ref(pod))?;
        let kept = kept.map_err(anyhow::Error::msg)?;
        let volumes = kept["spec"]["volumes"].as_array().context("no volumes")?;
        let sources = volumes.iter().flat_map(|volume| {
            let sources = volume["projected"]["sources"].as_array();
            sources.into_iter().flatten()
        });
        Ok(sources
            .filter(|source| !source["serviceAccountToken"].is_null())
            .count())
    };
    // The account says no, and so does the pod: either is enough, and without both the server would mount one.
    let mut pod = release.pod()?;
    ensure!(tokens(&pod)? == 0, "a token in the daemon's pod");
    let mut of_another = pod.clone();
    of_another["spec"]["serviceAccountName"] = "default".into();
    ensure!(tokens(&of_another)? == 0, "a token by the account default");
    for pod in [&mut pod, &mut of_another] {
        let spec = pod["spec"].as_object_mut().context("no spec")?;
        spec.remove("automountServiceAccountToken");
    }
    ensure!(tokens(&pod)? == 0, "a token by the account of the chart");
    ensure!(tokens(&of_another)? == 1, "the server mounts no tokens");
    Ok(())
}

/// What a NetworkPolicy, a budget and a Service select: the daemon's pods, and not the test's.
#[test]
#[ignore = "needs an API server: cargo xtask e2e"]
fn selectors_find_the_daemon_and_nothing_else() -> Result<()> {
    let Some(cluster) = cluster()? else {
        return Ok(());
    };
    let release = Release::new(cluster, "selectors", "privileged")?;
    release.install(EVERYTHING)?;
    let hook = release.done(&["get", "hooks", RELEASE], "")?;
    let hook = hook.trim_start_matches("---\n");
    let hook: Value = serde_saphyr::from_str(hook).context("the test's pod")?;
    release.cluster.create(&[release.pod()?, hook])?;
    let service = format!("{FULL_NAME}-metrics");
    for (kind, name, path) in [
        ("networkpolicy", FULL_NAME, "/spec/podSelector/matchLabels"),
        (
            "poddisruptionbudget",
            FULL_NAME,
            "/spec/selector/matchLabels",
        ),
        ("daemonset", FULL_NAME, "/spec/selector/matchLabels"),
        ("service", &service, "/spec/selector"),
    ] {
        let object = release.get(&[kind, name])?;
        let labels = object.pointer(path).and_then(Value::as_object);
        let labels = labels.with_context(|| format!("{kind}: no {path}"))?;
        let terms: Vec<_> = labels
            .iter()
            .map(|(label, value)| format!("{label}={}", value.as_str().unwrap_or_default()))
            .collect();
        let found = release.get(&["pods", "--selector", &terms.join(",")])?;
        let found = found["items"].as_array().context("no items")?;
        let names: Vec<_> = found.iter().map(|pod| &pod["metadata"]["name"]).collect();
        ensure!(names == ["daemon"], "{kind} selects {names:?}");
    }
    // Nothing out; in by the names of ports that the pod has.
    let policy = release.get(&["networkpolicy", FULL_NAME])?;
    ensure!(policy["spec"]["policyTypes"] == json!(["Ingress", "Egress"]));
    ensure!(policy["spec"]["egress"].is_null(), "{policy}");
    let open = policy["spec"]["ingress"][0]["ports"].as_array();
    let open: Vec<_> = open
        .context("no ports")?
        .iter()
        .map(|port| &port["port"])
        .collect();
    let pod = release.pod()?;
    let ports = pod["spec"]["containers"][0]["ports"].as_array();
    let names: Vec<_> = ports
        .context("no ports")?
        .iter()
        .map(|port| &port["name"])
        .collect();
    ensure!(
        open.len() == 2 && open.iter().all(|port| names.contains(port)),
        "{open:?}"
    );
    Ok(())
}
