//! client-go's informers on the upstream dialect.

use std::process::Command;

use anyhow::{Result, ensure};
use device_api_proto::native::{self, ConditionStatus};
use device_api_tests::Node;
use rustix::process::Signal;

use crate::example::{BROKEN, Example, informer_says, number, settled};
use crate::toolchains;

/// client-go's own informer, as NVSentinel's clients set it up, with the setting that they need.
#[tokio::test]
async fn go_informer_of_kubernetes_0_35_syncs_with_watch_list_off() -> Result<()> {
    let Some(go) = toolchains::go("examples/go/informer")? else {
        return Ok(());
    };
    let mut command = Command::new(go.join("informer"));
    command.env("KUBE_FEATURE_WatchListClient", "false");
    let mut node = Node::start()?;
    settled(&node, false).await?;
    let mut example = Example::start(command, &node)?;
    example.until("SYNCED", |line| line == "SYNCED gpus=8")?;

    node.sim()?.xid(BROKEN, &[79])?;
    settled(&node, true).await?;
    acknowledged(&node).await?;
    example.until_it_knows(&node, informer_says).await?;

    // Killed: a daemon that drains may end a second watch at once, and a reflector that saw nothing in a watch
    // of less than a second lists again, for reasons of its own.
    example
        .goes_on_after(&mut node, Signal::KILL, informer_says)
        .await?;

    node.stop(Signal::KILL)?;
    node.forget_state()?;
    node.start_again()?;
    example.until_starts_with("EXPIRED")?;
    let listed = example.until_starts_with("LIST ")?;
    ensure!(
        number(&listed, "asked=")? > 0,
        "with the old version, which is no error: {listed}"
    );
    settled(&node, false).await?;
    example.until_it_knows(&node, informer_says).await?;
    Ok(())
}

/// Writes something that counts for nothing, so that all that was decided before it is durable when this
/// returns (C6).
async fn acknowledged(node: &Node) -> Result<()> {
    let status = native::GpuStatus {
        conditions: vec![native::Condition {
            r#type: "Inspected".to_owned(),
            status: ConditionStatus::True.into(),
            ..native::Condition::default()
        }],
        ..native::GpuStatus::default()
    };
    let request = native::UpdateGpuStatusRequest {
        name: node.uuid(0)?,
        status: Some(status),
        ..native::UpdateGpuStatusRequest::default()
    };
    let mut client = node.native().await?;
    client.gpus.update_gpu_status(request).await?;
    Ok(())
}

/// What docs/upstream-clients.md warns of: it gets every event, and waits for a bookmark for ever.
#[tokio::test]
async fn go_informer_of_kubernetes_0_35_never_syncs_with_watch_list_on() -> Result<()> {
    let Some(go) = toolchains::go("examples/go/informer")? else {
        return Ok(());
    };
    let mut command = Command::new(go.join("informer"));
    command.env_remove("KUBE_FEATURE_WatchListClient");
    let node = Node::start()?;
    settled(&node, false).await?;
    let mut example = Example::start(command, &node)?;
    for _ in node.gpus() {
        example.until_starts_with("EVENT ADDED ")?;
    }
    node.sim()?.xid(BROKEN, &[79])?;
    example.until_starts_with("EVENT MODIFIED ")?;
    let told = |line: &String| {
        ["SYNCED", "ADD ", "LIST"]
            .iter()
            .any(|w| line.starts_with(w))
    };
    ensure!(
        !example.seen.iter().any(told),
        "the warning in docs/upstream-clients.md is out of date:\n{}",
        example.seen.join("\n")
    );
    Ok(())
}
