//! Consumers see the fault, go on after a restart, and list again when they must.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Result, ensure};
use device_api_proto::native::Gpu;
use device_api_tests::{Node, binary};
use rustix::process::Signal;

use crate::example::{BROKEN, Example, Says, native_says, number, settled, upstream_says};
use crate::toolchains;

/// Breaks a GPU, restarts the daemon, and lets it forget its history: a consumer sees the fault, goes on
/// where it was without a list, and lists again when it must. C7, W1.
async fn check_consumer(command: Command, says: Says) -> Result<()> {
    let mut node = Node::start()?;
    settled(&node, false).await?;
    let mut example = Example::start(command, &node)?;
    example.until_starts_with("LIST ")?;
    example.until_starts_with("WATCH after=")?;

    node.sim()?.xid(BROKEN, &[79])?;
    settled(&node, true).await?;
    let gpus = example.until_it_knows(&node, says).await?;
    let name = node.uuid(BROKEN)?;
    let version_of = |gpus: &BTreeMap<String, Gpu>| gpus.get(&name).map(|gpu| gpu.resource_version);
    let broken = version_of(&gpus);

    let last = example.versions()?.into_iter().max();
    let since = example.goes_on_after(&mut node, Signal::TERM, says).await?;
    let is_told = |line: &&String| line.starts_with("ENDED ");
    ensure!(since.iter().any(|line| is_told(&line)), "{since:?}");
    let from = since.iter().filter(|line| line.starts_with("WATCH after="));
    for line in from {
        ensure!(
            Some(number(line, "after=")?) >= last,
            "from where it was: {line}"
        );
    }
    let gpus = example.until_it_knows(&node, says).await?;
    ensure!(
        broken.is_some() && version_of(&gpus) >= broken,
        "C5: versions never go back"
    );
    let healed = |line: &&String| {
        line.contains(&name) && (line.contains("=HEALTHY") || line.contains("ready=True"))
    };
    ensure!(
        since.iter().filter(healed).count() == 0,
        "C7: a restart never heals:\n{}",
        since.join("\n")
    );
    let versions = example.versions()?;
    ensure!(
        versions.is_sorted_by(|a, b| a < b),
        "nothing came twice, or late: {versions:?}"
    );

    // A daemon that has lost its state knows no version of before.
    node.stop(Signal::TERM)?;
    node.forget_state()?;
    node.start_again()?;
    example.until_starts_with("EXPIRED")?;
    let listed = example.until_starts_with("LIST ")?;
    settled(&node, false).await?;
    example.until_it_knows(&node, says).await?;
    if listed.contains("asked=") {
        ensure!(
            number(&listed, "asked=")? >= versions.into_iter().max().unwrap_or_default(),
            "the list after an expiry names the old version: {listed}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn rust_consumer_resumes_after_a_restart_and_lists_again_on_expiry() -> Result<()> {
    check_consumer(Command::new(binary("example-consumer")?), native_says).await
}

#[tokio::test]
async fn go_consumer_resumes_after_a_restart_and_lists_again_on_expiry() -> Result<()> {
    let Some(go) = toolchains::go("examples/go")? else {
        return Ok(());
    };
    check_consumer(Command::new(go.join("consumer")), native_says).await
}

#[tokio::test]
async fn go_upstream_client_resumes_and_lists_with_the_old_version() -> Result<()> {
    let Some(go) = toolchains::go("examples/go")? else {
        return Ok(());
    };
    check_consumer(Command::new(go.join("upstream")), upstream_says).await
}

#[tokio::test]
async fn python_consumer_resumes_after_a_restart_and_lists_again_on_expiry() -> Result<()> {
    let Some(python) = toolchains::python()? else {
        return Ok(());
    };
    check_consumer(python.script("consumer.py"), native_says).await
}

/// As many events as were asked for, and then a good end.
async fn check_end(mut command: Command) -> Result<()> {
    let node = Node::start()?;
    settled(&node, false).await?;
    command.args(["--events", "1"]);
    let mut example = Example::start(command, &node)?;
    example.until_starts_with("WATCH after=")?;
    node.sim()?.xid(BROKEN, &[79])?;
    example.until_starts_with("MODIFIED ")?;
    let ended = example.child.wait()?;
    ensure!(ended.success(), "{ended}: {:?}", example.seen);
    Ok(())
}

#[tokio::test]
async fn consumers_end_after_the_events_asked_for() -> Result<()> {
    check_end(Command::new(binary("example-consumer")?)).await?;
    if let Some(go) = toolchains::go("examples/go")? {
        check_end(Command::new(go.join("consumer"))).await?;
    }
    if let Some(python) = toolchains::python()? {
        check_end(python.script("consumer.py")).await?;
    }
    Ok(())
}
