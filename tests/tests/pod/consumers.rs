//! A consumer's pod, as docs/install.md has it: it mounts the directory and joins by its group.

use anyhow::{Context as _, Result, ensure};
use device_api_tests::tools::root;
use serde_json::{Value, json};

use crate::release::Release;

/// The pod that docs/install.md applies.
fn documented() -> Result<Value> {
    let page = std::fs::read_to_string(root()?.join("docs/install.md"))?;
    let blocks = page.split("\n```").skip(1).step_by(2);
    let mut pods = blocks
        .filter_map(|block| block.strip_prefix("yaml\n"))
        .filter(|block| block.contains("kind: Pod\n"));
    let pod: Value = serde_saphyr::from_str(pods.next().context("no pod in docs/install.md")?)?;
    Ok(pod["spec"].clone())
}

#[tokio::test]
async fn a_consumer_gets_in_by_the_group_and_not_without_it() -> Result<()> {
    let Some(mut release) = Release::install("")? else {
        return Ok(());
    };
    let _running = release.started().await?;
    release.healthy().await?;
    let mut pod = documented()?;
    let mut container = pod["containers"][0].clone();
    container["args"] = json!(["--socket=/var/run/device-api/device.sock", "get", "gpus"]);
    // What it leaves to the runtime, and this one wants to hear.
    container["securityContext"] = json!({
        "readOnlyRootFilesystem": true,
        "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]},
    });
    // The page gives the daemon a group of its own; the chart's default is this one.
    pod["securityContext"]["supplementalGroups"] = json!([65534]);
    let (status, said) = release.machine.start(&pod, &container)?.end()?;
    ensure!(status.success(), "{status}\n{said}");

    pod["securityContext"]["supplementalGroups"] = json!([]);
    let (status, said) = release.machine.start(&pod, &container)?.end()?;
    ensure!(!status.success(), "whoever mounts the directory gets in");
    ensure!(said.contains("ermission denied"), "{said}");
    Ok(())
}
