//! Consumers' pods: they mount the directory and join by its group.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::page::Page;

/// The pod that docs/install.md applies, at a release of that page.
#[tokio::test]
async fn a_consumer_gets_in_by_the_group_and_not_without_it() -> Result<()> {
    let page = Page::read()?;
    let Some(mut release) = page.install()? else {
        return Ok(());
    };
    let _running = release.started().await?;
    release.healthy().await?;
    let mut pod = page.pod("consumer.yaml")?;
    let mut container = pod["containers"][0].clone();
    container["args"] = json!(["--socket=/var/run/device-api/device.sock", "get", "gpus"]);
    // What it leaves to the runtime, and this one wants to hear.
    container["securityContext"] = json!({
        "readOnlyRootFilesystem": true,
        "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]},
    });
    let (status, said) = release.machine.start(&pod, &container)?.end()?;
    ensure!(status.success(), "{status}\n{said}");

    // The pod of `helm test`, which is nobody in particular but of that group, too.
    let (test, its) = (release.test.clone(), release.test["containers"][0].clone());
    let (status, said) = release.machine.start(&test, &its)?.end()?;
    ensure!(status.success(), "{status}\n{said}");

    pod["securityContext"]["supplementalGroups"] = json!([]);
    let (status, said) = release.machine.start(&pod, &container)?.end()?;
    ensure!(!status.success(), "whoever mounts the directory gets in");
    ensure!(said.contains("ermission denied"), "{said}");
    Ok(())
}
