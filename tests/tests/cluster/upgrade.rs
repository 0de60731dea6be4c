//! What an upgrade restarts, and that a rollback is the way back.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use device_api_tests::tools::works;
use serde_json::Value;

use crate::helm::RELEASE;
use crate::release::{FULL_NAME, Release};
use crate::shared::cluster;

/// What becomes of the DaemonSet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// Not even a new generation.
    Nothing,
    /// A new generation with the same pods.
    Strategy,
    /// New pods, of the same configuration.
    Pods,
    /// New pods, for their configuration is another.
    Configuration,
}

/// Values, each over the defaults alone, and what the step from those before to them does.
const STEPS: &[(&str, Change)] = &[
    ("{}", Change::Nothing),
    (
        "policies: {source: inline, inline: {manifest: 'policies: []'}}",
        Change::Configuration,
    ),
    (
        "policies: {source: inline, inline: {manifest: '{policies: [{name: xid-policy}]}'}}",
        Change::Nothing,
    ),
    (
        "policies: {source: inline, inline: {manifest: '{policies: [{name: xid-policy}]}', components: {a.wasm: 'AGFzbQ0AAQA='}}}",
        Change::Nothing,
    ),
    (
        "policies: {source: configMap, configMap: site-policies}",
        Change::Pods,
    ),
    ("{}", Change::Configuration),
    (
        "{metrics: {service: {annotations: {a: b}}, serviceMonitor: {enabled: true}, prometheusRule: {enabled: true}, \
         dashboard: {enabled: true}}, networkPolicy: {enabled: true}, \
         podDisruptionBudget: {enabled: true, minAvailable: 1}, serviceAccount: {annotations: {c: d}}, tests: {enabled: false}}",
        Change::Nothing,
    ),
    ("metrics: {service: {enabled: false}}", Change::Nothing),
    ("updateStrategy: {maxUnavailable: 25%}", Change::Strategy),
    ("{}", Change::Strategy),
    ("log: {verbosity: 1}", Change::Configuration),
    ("config: {policy-deadline: 10ms}", Change::Configuration),
    (
        "{config: {policy-deadline: 10ms}, image: {tag: other}}",
        Change::Pods,
    ),
    (
        "{config: {policy-deadline: 10ms}, image: {tag: other}, resources: {limits: {memory: 640Mi}}}",
        Change::Pods,
    ),
    (
        "{config: {policy-deadline: 10ms}, image: {tag: other}, podAnnotations: {a: b}}",
        Change::Pods,
    ),
    ("writers: {uids: [1001]}", Change::Configuration),
    ("ports: {metrics: 19090}", Change::Configuration),
];

/// What the server holds of the DaemonSet.
#[derive(Debug, PartialEq)]
struct State {
    generation: Value,
    /// The server counts what makes new pods by itself.
    pods: Value,
    checksum: Value,
    spec: Value,
}

fn state(release: &Release) -> Result<State> {
    let mut set = release.get(&["daemonset", FULL_NAME])?;
    let counted = "deprecated.daemonset.template.generation";
    let template = &set["spec"]["template"];
    let state = State {
        generation: set["metadata"]["generation"].clone(),
        pods: set["metadata"]["annotations"][counted].clone(),
        checksum: template["metadata"]["annotations"]["checksum/configuration"].clone(),
        spec: set["spec"].take(),
    };
    let all = [&state.generation, &state.pods, &state.checksum];
    ensure!(all.iter().all(|value| !value.is_null()), "{state:?}");
    Ok(state)
}

fn change(from: &State, to: &State) -> Result<Change> {
    Ok(
        match (
            from.generation != to.generation,
            from.pods != to.pods,
            from.checksum != to.checksum,
        ) {
            (false, false, false) => Change::Nothing,
            (true, false, false) => Change::Strategy,
            (true, true, false) => Change::Pods,
            (true, true, true) => Change::Configuration,
            _ => anyhow::bail!("{from:?} to {to:?}"),
        },
    )
}

#[test]
#[ignore = "needs an API server: cargo xtask e2e"]
fn an_upgrade_makes_new_pods_where_it_must_and_only_there() -> Result<()> {
    let Some(cluster) = cluster()? else {
        return Ok(());
    };
    let release = Release::new(cluster, "upgrade", "privileged")?;
    release.install("{}")?;
    let (first, objects) = (state(&release)?, release.inventory()?);
    let configuration = format!("{FULL_NAME}-configuration");
    let file = release.get(&["configmap", &configuration])?["data"].take();
    let mut before = state(&release)?;
    for (values, expected) in STEPS {
        release.upgrade(values)?;
        let after = state(&release)?;
        let found = change(&before, &after)?;
        ensure!(
            found == *expected,
            "to {values}: {found:?}, not {expected:?}"
        );
        before = after;
    }
    ensure!(before.spec != first.spec);

    release.done(&["rollback", RELEASE, "1"], "")?;
    let back = state(&release)?;
    ensure!(back.spec == first.spec, "{back:?} is not {first:?}");
    ensure!(release.get(&["configmap", &configuration])?["data"] == file);
    // Nothing that a revision between brought is left, but what Helm remembers of them.
    let is_ours = |name: &&String| !name.starts_with("secret/sh.helm.release.");
    let left: Vec<_> = release.inventory()?;
    let left: Vec<_> = left.iter().filter(is_ours).collect();
    let expected: Vec<_> = objects.iter().filter(is_ours).collect();
    ensure!(left == expected, "{left:?} is not {expected:?}");
    Ok(())
}

/// An upgrade that the server refuses leaves the pods alone, and the next one is none the worse.
#[test]
#[ignore = "needs an API server: cargo xtask e2e"]
fn a_refused_upgrade_changes_no_pod_and_the_next_one_works() -> Result<()> {
    let Some(cluster) = cluster()? else {
        return Ok(());
    };
    let release = Release::new(cluster, "refused-upgrade", "privileged")?;
    release.install("{}")?;
    let before = state(&release)?;
    // No schema of the chart's has it, nor a sentence of its own.
    let unknown = "tolerations: [{operator: Perhaps}]";
    let why = release.helm(&["upgrade", RELEASE, "CHART"], unknown)?;
    let why = why.err().context("a toleration of no kind was taken")?;
    ensure!(
        why.contains("tolerations[0].operator") && why.contains("Perhaps"),
        "{why}"
    );
    ensure!(release.status()? == (2, "failed".to_owned()));
    ensure!(state(&release)? == before);

    release.upgrade("{}")?;
    ensure!(release.status()? == (3, "deployed".to_owned()));
    ensure!(state(&release)? == before);
    Ok(())
}

/// The next version of the chart, and back.
#[test]
#[ignore = "needs an API server: cargo xtask e2e"]
fn a_newer_chart_takes_over_and_can_be_taken_back() -> Result<()> {
    let Some(cluster) = cluster()? else {
        return Ok(());
    };
    let release = Release::new(cluster, "newer", "privileged")?;
    release.install("{}")?;
    let before = state(&release)?;

    let folder = tempfile::tempdir()?;
    let newer = folder.path().join("device-api-server");
    let chart = &release.cluster.chart.folder;
    works(Command::new("cp").arg("-r").arg(chart).arg(&newer)).map_err(anyhow::Error::msg)?;
    let description = fs::read_to_string(newer.join("Chart.yaml"))?;
    let description: String = description
        .lines()
        .map(|line| match line.split_once(':') {
            Some(("version", _)) => "version: 99.0.0\n".to_owned(),
            Some(("appVersion", _)) => "appVersion: \"99.0.0\"\n".to_owned(),
            _ => format!("{line}\n"),
        })
        .collect();
    fs::write(newer.join("Chart.yaml"), description)?;
    let newer = newer.to_string_lossy();
    release.done(&["upgrade", RELEASE, &newer], "{}")?;
    let after = state(&release)?;
    ensure!(change(&before, &after)? == Change::Pods);
    let image = &after.spec["template"]["spec"]["containers"][0]["image"];
    ensure!(
        image
            .as_str()
            .is_some_and(|image| image.ends_with(":99.0.0")),
        "{image}"
    );
    ensure!(after.spec["updateStrategy"]["rollingUpdate"]["maxSurge"] == 0);

    release.done(&["rollback", RELEASE], "")?;
    ensure!(state(&release)?.spec == before.spec);
    Ok(())
}
