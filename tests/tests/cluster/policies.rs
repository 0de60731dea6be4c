//! The commands of the README that bring policies, and that a changed policy restarts nothing.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use device_api_tests::guests;
use device_api_tests::tools::works;
use serde_json::Value;

use crate::helm::RELEASE;
use crate::release::{FULL_NAME, Release};
use crate::shared::cluster;

fn base64(folder: &std::path::Path) -> Result<()> {
    let mut shell = Command::new("sh");
    shell.args(["-c", "base64 thermal.wasm > thermal.b64"]);
    works(shell.current_dir(folder)).map_err(anyhow::Error::msg)
}

/// `--set-file` of a component that base64 wrapped into lines: the server holds its very bytes.
#[test]
#[ignore = "needs an API server: cargo xtask e2e"]
fn a_component_reaches_the_cluster_whole_by_set_file() -> Result<()> {
    let Some(cluster) = cluster()? else {
        return Ok(());
    };
    let release = Release::new(cluster, "inline", "privileged")?;
    let folder = tempfile::tempdir()?;
    let manifest = "policies:\n  - name: thermal\n";
    fs::write(folder.path().join("policies.yaml"), manifest)?;
    let name = format!("{FULL_NAME}-policies");
    let mut pods = None;
    for component in [guests::SLOW_GUEST, guests::TALLY_GUEST] {
        fs::write(folder.path().join("thermal.wasm"), component)?;
        base64(folder.path())?;
        let mut helm = release
            .cluster
            .helm_command(&["upgrade", "--install", RELEASE, "CHART"]);
        helm.current_dir(folder.path())
            .args(["--namespace", &release.namespace])
            .args(["--set", "policies.source=inline"])
            .args([
                "--set-file",
                r"policies.inline.components.thermal\.wasm=thermal.b64",
            ])
            .args(["--set-file", "policies.inline.manifest=policies.yaml"]);
        works(&mut helm).map_err(anyhow::Error::msg)?;

        let map = release.get(&["configmap", &name])?;
        ensure!(map["data"]["policies.yaml"] == manifest, "{}", map["data"]);
        let held = map["binaryData"]["thermal.wasm"]
            .as_str()
            .context("no component")?;
        let wrapped = fs::read_to_string(folder.path().join("thermal.b64"))?;
        ensure!(held == wrapped.replace('\n', ""), "another component");
        let generation = release.get(&["daemonset", FULL_NAME])?["metadata"]["generation"].take();
        ensure!(
            *pods.get_or_insert(generation.clone()) == generation,
            "new pods"
        );
    }
    Ok(())
}

/// `kubectl create configmap --from-file`, and a change of it.
#[test]
#[ignore = "needs an API server: cargo xtask e2e"]
fn a_config_map_of_the_site_is_mounted_and_changed_under_the_pods() -> Result<()> {
    let Some(cluster) = cluster()? else {
        return Ok(());
    };
    let release = Release::new(cluster, "site", "privileged")?;
    let folder = tempfile::tempdir()?;
    let from = format!("--from-file={}", folder.path().display());
    fs::write(folder.path().join("thermal.wasm"), guests::SLOW_GUEST)?;
    fs::write(folder.path().join("policies.yaml"), "policies: []\n")?;
    let namespace = ["--namespace", &*release.namespace];
    let create = ["create", "configmap", "site-policies", &from];
    release.cluster.done(&[&create, &namespace[..]].concat())?;
    release.install("policies: {source: configMap, configMap: site-policies}")?;

    let set = release.get(&["daemonset", FULL_NAME])?;
    let volumes = set["spec"]["template"]["spec"]["volumes"].as_array();
    let is_it = |volume: &&Value| volume["configMap"]["name"] == "site-policies";
    let volume = volumes.context("no volumes")?.iter().find(is_it);
    volume.context("the map is not mounted")?;
    let map = release.get(&["configmap", "site-policies"])?;
    ensure!(map["binaryData"]["thermal.wasm"].is_string(), "{map}");

    fs::write(folder.path().join("thermal.wasm"), guests::TALLY_GUEST)?;
    let made = ["--dry-run=client", "--output=json"];
    let made = release
        .cluster
        .done(&[&create, &namespace[..], &made].concat())?;
    let replaced = release
        .cluster
        .kubectl(&["replace", "--filename=-"], &made)?;
    replaced.map_err(anyhow::Error::msg)?;
    let changed = release.get(&["configmap", "site-policies"])?;
    ensure!(changed["binaryData"] != map["binaryData"]);
    // Not written to at all.
    let version = |set: &Value| set["metadata"]["resourceVersion"].clone();
    ensure!(version(&release.get(&["daemonset", FULL_NAME])?) == version(&set));
    Ok(())
}
