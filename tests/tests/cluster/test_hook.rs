//! `helm test`, with this test in the kubelet's place.

use std::process::Stdio;
use std::time::SystemTime;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::helm::RELEASE;
use crate::release::{FULL_NAME, Release};
use crate::server::{PATIENCE, TIMEOUT};
use crate::shared::cluster;

/// Runs `helm test`, and gives its pod that end: the pod as it was, whether Helm was content, and what it said.
fn helm_test(release: &Release, phase: &str) -> Result<(Value, bool, String)> {
    let mut helm = release.cluster.helm_command(&["test", RELEASE, TIMEOUT]);
    helm.args(["--namespace", &release.namespace]);
    let helm = helm.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let ended = end(release, phase);
    let output = helm.wait_with_output()?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    let pod = ended.with_context(|| said.clone())?;
    Ok((pod, output.status.success(), said))
}

fn end(release: &Release, phase: &str) -> Result<Value> {
    let name = format!("{FULL_NAME}-test");
    let pod = format!("pod/{name}");
    let namespace = ["--namespace", &*release.namespace];
    let began = SystemTime::now();
    let held = loop {
        // Each question is a process that takes its time.
        let pods = release.get(&["pods"])?;
        let pods = pods["items"].as_array().context("no items")?;
        let is_new =
            |pod: &&Value| pod["metadata"]["name"] == *name && pod["status"]["phase"] == "Pending";
        if let Some(pod) = pods.iter().find(is_new) {
            break pod.clone();
        }
        let waited = began.elapsed().unwrap_or(PATIENCE);
        ensure!(waited < PATIENCE, "no pod after {PATIENCE:?}");
    };
    let status = format!(r#"{{"status": {{"phase": "{phase}"}}}}"#);
    let patch = [
        "patch",
        &pod,
        "--subresource=status",
        "--type=merge",
        "--patch",
        &status,
    ];
    release.cluster.done(&[&patch, &namespace[..]].concat())?;
    Ok(held)
}

#[test]
#[ignore = "needs an API server: cargo xtask e2e"]
fn helm_test_makes_its_pod_and_believes_how_it_ends() -> Result<()> {
    let Some(cluster) = cluster()? else {
        return Ok(());
    };
    let release = Release::new(cluster, "hook", "privileged")?;
    release.install("{}")?;
    let before = release.inventory()?;

    let (pod, content, said) = helm_test(&release, "Failed")?;
    ensure!(
        !content && said.contains("gpus-device-api-server-test"),
        "{said}"
    );
    // Left for its log to be read; the next test takes it away.
    ensure!(release.inventory()?.len() == before.len() + 1);
    let first = pod["metadata"]["uid"].clone();

    let (pod, content, said) = helm_test(&release, "Succeeded")?;
    ensure!(content && said.contains("Succeeded"), "{said}");
    ensure!(pod["metadata"]["uid"] != first, "the same pod");
    ensure!(release.inventory()? == before, "{:?}", release.inventory()?);

    // As the server has it: no token, nobody in particular, a member of the socket's group.
    let spec = &pod["spec"];
    ensure!(spec["automountServiceAccountToken"] == false, "{spec}");
    let volumes = spec["volumes"].as_array().context("no volumes")?;
    ensure!(volumes.len() == 1 && volumes[0]["hostPath"]["path"] == "/var/run/device-api");
    ensure!(spec["securityContext"]["supplementalGroups"][0] == 65534);
    Ok(())
}
