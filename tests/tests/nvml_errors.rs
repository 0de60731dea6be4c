//! Calls of NVML's that fail, as a consumer meets them: nothing is Healthy that tells nothing, and nothing that stood
//! goes because a call failed.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use device_api_proto::native::{ConditionStatus, Gpu, Health};
use device_api_tests::{Node, PATIENCE, condition_of, health_of, http};
use nvml_sim::control::{Only, Request};

const READY: &str = "NvmlReachable";

fn is(health: Health) -> impl FnMut(&Gpu) -> bool {
    move |gpu| health_of(gpu) == health
}

fn fail(node: &Node, gpu: Option<u32>, call: Option<&str>, code: u32) -> Result<()> {
    node.sim()?.request(&Request::Fail {
        gpu,
        call: call.map(str::to_owned),
        code,
        times: None,
    })?;
    Ok(())
}

fn unfail(node: &Node) -> Result<()> {
    let all = Request::Unfail {
        gpu: None,
        call: None,
    };
    node.sim()?.request(&all)?;
    Ok(())
}

/// The value of a metric without labels.
fn metric(node: &Node, name: &str) -> Result<u64> {
    let metrics = node.metrics()?;
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(line.context("no such metric")?.parse()?)
}

fn until(what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !done()? {
        ensure!(start.elapsed() < PATIENCE, "not in time: {what}");
    }
    Ok(())
}

/// Waits for that many more rounds of readings.
fn rounds(node: &Node, n: u64) -> Result<()> {
    let polls = || metric(node, "device_api_server_nvml_polls_total");
    let before = polls()?;
    until("more rounds", || Ok(polls()? >= before + n))
}

/// Lines of the log, of that level or graver, with these words.
fn lines(node: &Node, words: &str) -> usize {
    let log = node.daemon.log();
    log.iter().filter(|line| line.contains(words)).count()
}

#[tokio::test]
async fn n1_in_a_storm_of_errors_nobody_knows_and_who_asks_for_a_reset_gets_one() -> Result<()> {
    let node = Node::start()?;
    let mut client = node.healthy().await?;
    let (resets, errs, well) = (node.uuid(1)?, node.uuid(2)?, node.uuid(3)?);
    let mut watch = client.watch(0).await?;
    fail(&node, Some(2), None, 999)?;
    let gpu = watch.until(&errs, "nobody knows", |gpu| {
        condition_of(gpu, READY).is_some_and(|ready| ready.reason == "Errors")
    });
    let gpu = gpu.await?;
    let ready = condition_of(&gpu, READY).context("gone")?;
    ensure!(
        ready.status() == ConditionStatus::Unknown && health_of(&gpu) == Health::Unknown,
        "{gpu:?}"
    );
    ensure!(ready.message.contains("answered UNKNOWN"), "{ready:?}");
    ensure!(health_of(&client.get(&well).await?) == Health::Healthy);

    fail(&node, Some(1), None, 16)?;
    let gpu = watch
        .until(&resets, "to be reset", is(Health::Unhealthy))
        .await?;
    let action = gpu.status.context("no status")?.recommended_action;
    ensure!(action == "COMPONENT_RESET", "{action}");

    // Said once each, however long it lasts.
    rounds(&node, 4)?;
    ensure!(lines(&node, "answers with errors only") == 2);
    unfail(&node)?;
    for gpu in [&errs, &resets] {
        let mut watch = client.watch(0).await?;
        watch
            .until(gpu, "Healthy again", is(Health::Healthy))
            .await?;
    }
    Ok(())
}

#[tokio::test]
async fn n9_a_failed_call_takes_no_instance_away_and_nothing_that_stands_against_it() -> Result<()>
{
    let builder = Node::builder()?.gpus(2);
    let node = builder.flag("nvml-inventory-interval", "200ms").start()?;
    let mut client = node.healthy().await?;
    let cut = node.cut_up(1, &["3g.40gb", "1g.10gb"])?;
    let faulty = cut.first().context("none")?;
    let mut watch = client.watch(0).await?;
    for mig in &cut {
        let mut watch = client.watch(0).await?;
        watch
            .until(&mig.uuid, "Healthy", is(Health::Healthy))
            .await?;
    }
    node.sim()?.request(&Request::MigXid {
        gpu: 1,
        gpu_instance: faulty.gpu_instance,
        compute_instance: Some(0),
        codes: vec![119],
        only: Some(Only::Nvml),
    })?;
    watch
        .until(&faulty.uuid, "Unhealthy", is(Health::Unhealthy))
        .await?;
    for call in [
        "nvmlDeviceGetMigMode",
        "nvmlDeviceGetMigDeviceHandleByIndex",
        "nvmlDeviceGetUUID",
        "nvmlDeviceGetGpuInstanceId",
    ] {
        fail(&node, Some(1), Some(call), 999)?;
        rounds(&node, 3)?;
        unfail(&node)?;
        rounds(&node, 3)?;
        for mig in &cut {
            client.get(&mig.uuid).await.context(call)?;
        }
        let gpu = client.get(&faulty.uuid).await?;
        ensure!(health_of(&gpu) == Health::Unhealthy, "{call}: {gpu:?}");
    }
    ensure!(lines(&node, "MIG instances gone") == 0);
    Ok(())
}

#[tokio::test]
async fn n4_a_gpu_of_which_nvml_gives_no_address_is_named_by_the_kernel_log_still() -> Result<()> {
    let builder = Node::builder()?.gpus(2);
    let node = builder.flag("nvml-inventory-interval", "200ms").start()?;
    let mut client = node.healthy().await?;
    let gpu = node.gpus().into_iter().nth(1).context("no GPU 1")?;
    fail(&node, Some(1), Some("nvmlDeviceGetPciInfo_v3"), 999)?;
    rounds(&node, 4)?;
    let line = format!(
        "NVRM: Xid (PCI:{}): 95, pid='<unknown>', name=<unknown>, Uncontained ECC error",
        gpu.pci.kernel()
    );
    node.kernel_log([&*line])?;
    let mut watch = client.watch(0).await?;
    watch
        .until(&gpu.uuid, "Unhealthy", is(Health::Unhealthy))
        .await?;
    Ok(())
}

#[tokio::test]
async fn n3_events_that_can_t_be_waited_for_are_told_and_waited_for_later() -> Result<()> {
    let node = Node::builder()?.gpus(2).start()?;
    let mut client = node.healthy().await?;
    let name = node.uuid(1)?;
    let running = || metric(&node, "device_api_server_nvml_health_monitor_running");
    let ready = || -> Result<String> { Ok(http(&node.address("/healthz")?, "/readyz")?.1) };
    ensure!(running()? == 1);
    node.sim()?.request(&Request::Unload)?;
    node.daemon.wait_for(&["no NVML, looking for it again"])?;
    fail(&node, Some(1), Some("nvmlDeviceRegisterEvents"), 999)?;
    node.sim()?.request(&Request::Load)?;
    node.daemon.wait_for_nth(&["NVML is in use"], 2)?;
    until("who hears nothing is named", || {
        Ok(ready()?.contains(&format!("no events of {name}: nvmlDeviceRegisterEvents")))
    })?;
    ensure!(running()? == 0);
    unfail(&node)?;
    until("events are waited for", || Ok(running()? == 1))?;
    ensure!(!ready()?.contains("no events of"));
    node.sim()?.request(&Request::Xid {
        gpu: 1,
        codes: vec![95],
        count: 1,
        only: Some(Only::Nvml),
    })?;
    let mut watch = client.watch(0).await?;
    watch
        .until(&name, "Unhealthy", is(Health::Unhealthy))
        .await?;
    Ok(())
}

#[tokio::test]
async fn n3_a_storm_of_failing_waits_is_said_once() -> Result<()> {
    let node = Node::builder()?.gpus(2).start()?;
    node.healthy().await?;
    fail(&node, None, Some("nvmlEventSetWait_v2"), 999)?;
    fail(&node, None, Some("nvmlDeviceRegisterEvents"), 999)?;
    let failed = || metric(&node, "device_api_server_nvml_failed_waits_total");
    until("many fail", || Ok(failed()? >= 6))?;
    ensure!(lines(&node, "waiting for events fails") == 1);
    ensure!(
        lines(&node, "no events of this GPU") == 2,
        "one for each GPU"
    );
    Ok(())
}
