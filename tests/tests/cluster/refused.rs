//! Wrong values at an install and at an upgrade: refused with their path, and nothing has changed.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::helm::RELEASE;
use crate::release::Release;
use crate::shared::cluster;

/// Values that Helm refuses by the schema, or since they contradict themselves; and words of each refusal.
const BY_HELM: &[(&str, &[&str])] = &[
    ("nvlm: {enabled: false}", &["nvlm"]),
    (
        "metrics: {serviceMonitor: {intervall: 30s}}",
        &["metrics", "serviceMonitor", "intervall"],
    ),
    ("config: {helth-port: 1}", &["config", "helth-port"]),
    ("ports: {health: many}", &["ports", "health"]),
    (
        "grpc: {address: '0.0.0.0:50051'}",
        &["grpc.address", "tls.enabled"],
    ),
    (
        "policies: {source: configMap}",
        &["policies.configMap", "needs it"],
    ),
    (
        "nvml: {runtimeClassName: other}",
        &["nvml.runtimeClassName", "no RuntimeClass \"other\""],
    ),
    ("affinity: {nodeAfinity: {}}", &["affinity", "nodeAfinity"]),
];

/// Parts of a pod: the server knows them, and no schema of ours.
const BY_THE_SERVER: &[(&str, &[&str])] = &[(
    "tolerations: [{operator: Perhaps}]",
    &["tolerations[0].operator", "Perhaps"],
)];

#[test]
#[ignore = "needs an API server: cargo xtask e2e"]
fn wrong_values_are_refused_with_their_path_and_change_nothing() -> Result<()> {
    let Some(cluster) = cluster()? else {
        return Ok(());
    };
    let release = Release::new(cluster, "wrong", "privileged")?;
    let refused = |verb: &str, values: &str, words: &[&str]| -> Result<()> {
        let why = release.helm(&[verb, RELEASE, "CHART"], values)?;
        let why = why.err().with_context(|| format!("{verb} took {values}"))?;
        for word in words {
            ensure!(why.contains(word), "{verb} {values}: no {word:?} in {why}");
        }
        Ok(())
    };
    let empty = release.inventory()?;
    for (values, words) in BY_HELM {
        refused("install", values, words)?;
        let left = release.inventory()?;
        ensure!(left == empty, "{values} left {left:?}");
    }
    for (values, words) in BY_THE_SERVER {
        // Helm keeps what the server took before; no pod comes of it, and an uninstall takes it away.
        refused("install", values, words)?;
        ensure!(release.status()? == (1, "failed".to_owned()));
        let sets = release.get(&["daemonsets"])?;
        ensure!(sets["items"] == json!([]), "{values}: {sets}");
        release.done(&["uninstall", RELEASE], "")?;
        let left = release.inventory()?;
        ensure!(left == empty, "{values} left {left:?}");
    }

    release.install("{}")?;
    let before = release.get(&["daemonset"])?;
    for (values, words) in BY_HELM.iter().chain(BY_THE_SERVER) {
        refused("upgrade", values, words)?;
        ensure!(
            release.get(&["daemonset"])? == before,
            "{values} changed the DaemonSet"
        );
    }
    Ok(())
}
