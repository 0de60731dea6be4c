//! GPUs that are taken out and put in, while the daemon runs and while it does not (N7): the real daemon, over a
//! simulated NVML, and what an operator does about it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use device_api_proto::native::{ConditionStatus, Gpu, Health};
use device_api_tests::{Native, Node, binary, condition_of, health_of};
use nvml_sim::control::Request;
use rustix::process::Signal;

/// Runs it, and gives what it prints.
fn devicectl(socket: &Path, args: &[&str]) -> Result<String> {
    let mut command = Command::new(binary("devicectl")?);
    let output = command.arg("--socket").arg(socket).args(args).output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, error) = (text(&output.stdout), text(&output.stderr));
    ensure!(output.status.success(), "{args:?}: {out}{error}");
    Ok(out)
}

fn is_gone(gpu: &Gpu) -> bool {
    condition_of(gpu, "Gone").is_some_and(|gone| gone.status() == ConditionStatus::Unknown)
}

fn action(gpu: &Gpu) -> &str {
    gpu.status
        .as_ref()
        .map_or("", |status| &status.recommended_action)
}

fn is_problem(gpu: &Gpu, type_: &str) -> bool {
    condition_of(gpu, type_).is_some_and(|condition| condition.status() == ConditionStatus::True)
}

/// The GPU that is at an index now.
async fn at_index(client: &mut Native, index: u32) -> Result<String> {
    let listed = client.list().await?;
    let at = |gpu: &Gpu| {
        gpu.spec
            .as_ref()
            .is_some_and(|spec| spec.index == Some(index))
    };
    let mut here = listed.gpus.into_iter().filter(at);
    let found = here.next().context("nobody is there")?;
    ensure!(here.next().is_none(), "{} and another one", found.name);
    Ok(found.name)
}

/// Waits until a GPU is gone, with nothing to be done about it.
async fn gone(client: &mut Native, name: &str) -> Result<Gpu> {
    client.watch(0).await?.until(name, "gone", is_gone).await?;
    let gpu = client.get(name).await?;
    ensure!(health_of(&gpu) == Health::Unknown, "{gpu:?}");
    ensure!(action(&gpu) == "NONE", "{gpu:?}");
    ensure!(condition_of(&gpu, "Probing").is_none(), "{gpu:?}");
    Ok(gpu)
}

/// What it says of one that is gone helps, and does no harm.
fn explained(socket: &Path, old: &str, new: &str) -> Result<()> {
    let said = devicectl(socket, &["gpu", "explain", old])?;
    for words in [new, &format!("devicectl gpu delete {old}")] {
        ensure!(said.contains(words), "no {words:?} in\n{said}");
    }
    for words in ["drain", "reboot", "gpu-reset", "once another GPU"] {
        ensure!(!said.contains(words), "{words:?} in\n{said}");
    }
    Ok(())
}

#[tokio::test]
async fn n7_gpus_that_were_replaced_while_the_daemon_was_down_are_gone() -> Result<()> {
    let mut node = Node::start()?;
    let mut client = node.healthy().await?;
    let old = node.uuid(6)?;
    let mut watch = client.watch(0).await?;
    node.sim()?.xid(6, &[95])?;
    let unhealthy = |gpu: &Gpu| health_of(gpu) == Health::Unhealthy;
    watch.until(&old, "Unhealthy", unhealthy).await?;
    node.stop(Signal::TERM)?;
    node.set_env("NVML_SIM_PROFILE", "h200");
    node.start_again()?;
    node.daemon.wait_for(&["NVML is in use"])?;

    let mut client = node.native().await?;
    let gpu = gone(&mut client, &old).await?;
    assert!(
        is_problem(&gpu, "XidCriticalError"),
        "what stood is kept: {gpu:?}"
    );
    for other in node.gpus() {
        gone(&mut client, &other.uuid).await?;
    }
    let new = at_index(&mut client, 6).await?;
    assert_ne!(new, old);
    let said = devicectl(node.socket(), &["gpu", "explain", "6"])?;
    assert!(said.contains(&new), "{said}");
    explained(node.socket(), &old, &new)?;

    // The entry goes, by the command that it names.
    let said = devicectl(node.socket(), &["gpu", "delete", &old])?;
    assert!(said.contains(&format!("{old} is deleted")), "{said}");
    assert_eq!(client.list().await?.gpus.len(), 15);
    Ok(())
}

#[tokio::test]
async fn n7_a_gpu_that_a_reboot_leaves_without_a_successor_is_lost() -> Result<()> {
    let builder = Node::builder()?;
    let boot = builder.dir().join("boot");
    let ids = ["first", "second"].map(|first| format!("{first}\n"));
    std::fs::write(&boot, &ids[0])?;
    let mut node = builder
        .flag("boot-id-file", boot.to_string_lossy())
        .start()?;
    node.healthy().await?;
    let missing = node.uuid(7)?;
    node.stop(Signal::TERM)?;
    std::fs::write(&boot, &ids[1])?;
    node.set_env("NVML_SIM_GPUS", "7");
    node.start_again()?;
    node.daemon.wait_for(&["NVML is in use"])?;

    let mut client = node.native().await?;
    let lost = |gpu: &Gpu| health_of(gpu) == Health::Unhealthy && is_problem(gpu, "GpuLost");
    client.watch(0).await?.until(&missing, "lost", lost).await?;
    let gpu = client.get(&missing).await?;
    assert!(!is_gone(&gpu), "nobody is in its slot: {gpu:?}");
    assert_eq!(action(&gpu), "RESTART_BM");
    assert_eq!(
        condition_of(&gpu, "Probing").map(|probing| probing.status()),
        Some(ConditionStatus::False)
    );
    Ok(())
}

#[tokio::test]
async fn n7_a_gpu_that_is_replaced_leaves_nothing_to_be_done_and_is_itself_when_it_is_back()
-> Result<()> {
    let mut node = Node::start()?;
    let mut client = node.healthy().await?;
    let old = node.uuid(4)?;
    let mut watch = client.watch(0).await?;
    node.sim()?.xid(4, &[95])?;
    let unhealthy = |gpu: &Gpu| health_of(gpu) == Health::Unhealthy;
    watch.until(&old, "Unhealthy", unhealthy).await?;
    node.sim()?.request(&Request::Replace { gpu: 4 })?;
    let gpu = gone(&mut client, &old).await?;
    assert!(is_problem(&gpu, "XidCriticalError"), "{gpu:?}");
    let swapped = |gpu: &Gpu| is_gone(gpu) && !is_problem(gpu, "GpuLost");
    client
        .watch(0)
        .await?
        .until(&old, "no loss any more", swapped)
        .await?;
    let new = at_index(&mut client, 4).await?;
    let healthy = |gpu: &Gpu| health_of(gpu) == Health::Healthy;
    client
        .watch(0)
        .await?
        .until(&new, "Healthy", healthy)
        .await?;
    let said = devicectl(node.socket(), &["gpu", "explain", "4"])?;
    assert!(said.contains(&new), "{said}");
    explained(node.socket(), &old, &new)?;
    devicectl(node.socket(), &["gpu", "delete", &old])?;

    // The machine gets it back: it is as bad as it was, and the other one is gone.
    node.stop(Signal::TERM)?;
    node.start_again()?;
    node.daemon.wait_for(&["NVML is in use"])?;
    let mut client = node.native().await?;
    client
        .watch(0)
        .await?
        .until(&old, "Unhealthy", unhealthy)
        .await?;
    assert!(is_problem(&client.get(&old).await?, "XidCriticalError"));
    gone(&mut client, &new).await?;
    assert_eq!(at_index(&mut client, 4).await?, old);
    explained(node.socket(), &new, &old)
}

#[tokio::test]
async fn a_gpu_that_is_there_is_not_deleted_unasked() -> Result<()> {
    let node = Node::start()?;
    let mut client = node.healthy().await?;
    let refused = devicectl(node.socket(), &["gpu", "delete", "3"]).unwrap_err();
    assert!(
        refused.to_string().contains("not known to be gone"),
        "{refused}"
    );
    assert_eq!(client.list().await?.gpus.len(), 8);
    let said = devicectl(
        node.socket(),
        &["gpu", "delete", "3", "--yes", "-o", "json"],
    )?;
    let said: serde_json::Value = serde_json::from_str(&said)?;
    assert_eq!(said["deleted"], serde_json::json!([node.uuid(3)?]));
    assert_eq!(client.list().await?.gpus.len(), 7);
    Ok(())
}

#[tokio::test]
async fn a_mig_instance_is_named_by_the_beginning_of_its_uuid() -> Result<()> {
    let node = Node::start()?;
    node.healthy().await?;
    let mig = node.cut_up(0, &["1g.10gb"])?;
    let uuid = mig.first().context("nothing was cut up")?.uuid.clone();
    let mut client = node.native().await?;
    client
        .watch(0)
        .await?
        .until(&uuid, "there", |_| true)
        .await?;
    let beginning = uuid.get(.."MIG-f76".len()).context("a short UUID")?;
    let said = devicectl(node.socket(), &["gpu", "explain", beginning])?;
    assert!(said.starts_with(&uuid), "{said}");
    Ok(())
}
