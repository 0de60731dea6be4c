//! Providers write, keep what they wrote alive, and write again when they are asked to.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use device_api_proto::native::{ConditionStatus, Gpu};
use device_api_tests::{Node, binary, condition_of};
use rustix::process::Signal;

use crate::example::Example;
use crate::toolchains;

/// A provider registers, writes, beats, and writes again when the daemon, restarted, asks it to. P1, P2, C7.
async fn check_provider(mut command: Command) -> Result<()> {
    let mut node = Node::start()?;
    let mut client = node.healthy().await?;
    let name = node.uuid(0)?;
    let mut watch = client.watch(0).await?;
    command.args(["--gpu", &name, "--lease", "3", "--name", "rack-agent"]);
    let mut example = Example::start(command, &node)?;
    example.until_starts_with("REGISTERED rack-agent")?;
    let is_dry = |gpu: &Gpu| {
        condition_of(gpu, "CoolantLeak").map(|leak| leak.status()) == Some(ConditionStatus::False)
    };
    let gpu = watch.until(&name, "told to be dry", is_dry).await?;
    let owner = condition_of(&gpu, "CoolantLeak").and_then(|leak| leak.owner.clone());
    assert_eq!(owner.context("no owner")?.name, "rack-agent");
    example.until_starts_with("HEARTBEAT")?;

    node.stop(Signal::KILL)?;
    node.start_again()?;
    example.until_starts_with("WROTE CoolantLeak")?;
    let mut client = node.native().await?;
    let mut watch = client.watch(0).await?;
    watch.until(&name, "told to be dry again", is_dry).await?;
    example.until_starts_with("HEARTBEAT")?;
    Ok(())
}

#[tokio::test]
async fn rust_provider_writes_again_after_a_restart() -> Result<()> {
    check_provider(Command::new(binary("example-provider")?)).await
}

#[tokio::test]
async fn python_provider_writes_again_after_a_restart() -> Result<()> {
    let Some(python) = toolchains::python()? else {
        return Ok(());
    };
    check_provider(python.script("provider.py")).await
}

/// A wet sensor makes the GPU Degraded, and ends with the beats asked for.
#[tokio::test]
async fn rust_provider_tells_of_a_leak_and_ends() -> Result<()> {
    let node = Node::start()?;
    let mut client = node.healthy().await?;
    let name = node.uuid(0)?;
    let mut command = Command::new(binary("example-provider")?);
    command.args(["--gpu", &name, "--lease", "1", "--beats", "1", "--leaking"]);
    let mut example = Example::start(command, &node)?;
    let wrote = example.until_starts_with("WROTE CoolantLeak")?;
    ensure!(wrote.ends_with("health=DEGRADED"), "{wrote}");
    example.until_starts_with("HEARTBEAT")?;
    ensure!(example.child.wait()?.success(), "{:?}", example.seen);
    let gpu = client.get(&name).await?;
    let status = gpu.status.context("no status")?;
    assert_eq!(status.recommended_action, "CONTACT_SUPPORT");
    assert_eq!(status.recommended_action_condition, "CoolantLeak");
    Ok(())
}
