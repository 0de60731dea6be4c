//! A fault seen by NVML, or by the kernel log, goes through a sandboxed policy and reaches a gRPC
//! consumer: the real daemon, a real socket, the real components.

use anyhow::{Context as _, Result, ensure};
use device_api_proto::native::{Condition, ConditionStatus, Gpu, Health, owner};
use device_api_tests::{Node, condition_of, health_of};
use nvml_sim::control::Only;

fn problem<'a>(gpu: &'a Gpu, type_: &str) -> Option<&'a Condition> {
    condition_of(gpu, type_).filter(|condition| condition.status() == ConditionStatus::True)
}

/// Whether a GPU has that problem: what to wait for, since on a starved machine health may follow from
/// the host's fallback first.
fn has(type_: &'static str) -> impl FnMut(&Gpu) -> bool {
    move |gpu| problem(gpu, type_).is_some()
}

fn action(gpu: &Gpu) -> &str {
    gpu.status
        .as_ref()
        .map_or("", |status| &status.recommended_action)
}

#[tokio::test]
async fn a_healthy_node_says_so_and_knows_its_gpus() -> Result<()> {
    let node = Node::start()?;
    let mut client = node.healthy().await?;
    let list = client.list().await?;
    assert_eq!(list.gpus.len(), 8);
    for identity in node.gpus() {
        let gpu = client.get(&identity.uuid).await?;
        let spec = gpu.spec.context("no spec")?;
        assert_eq!(spec.product, "NVIDIA H100 80GB HBM3");
        assert_eq!(spec.architecture, "Hopper");
        assert_eq!(spec.pci_address, identity.pci.to_string());
        assert_eq!(spec.index, Some(identity.index));
        assert!(spec.memory_bytes > Some(80_000_000_000) && !spec.driver_version.is_empty());
        assert!(spec.simulated, "what a simulated GPU reports is a drill");
        assert!(gpu.resource_version <= list.resource_version);
    }
    Ok(())
}

#[tokio::test]
async fn xid_79_reaches_a_watcher_through_the_policy_with_its_evidence() -> Result<()> {
    let node = Node::start()?;
    let mut client = node.healthy().await?;
    let name = node.uuid(5)?;
    let mut watch = client.watch(0).await?;
    let answer = node.sim()?.xid(5, &[79])?;
    ensure!(answer.delivered == Some(true), "{answer:?}");
    let gpu = watch
        .until(&name, "told of XID 79", has("XidCriticalError"))
        .await?;
    assert_eq!(
        (health_of(&gpu), action(&gpu)),
        (Health::Unhealthy, "RESTART_BM")
    );
    let status = gpu.status.clone().context("no status")?;
    assert_eq!(status.health_condition, "XidCriticalError");
    let condition = problem(&gpu, "XidCriticalError").context("the policy said nothing")?;
    let owner = condition.owner.clone().context("no owner")?;
    assert_eq!(
        (owner.kind(), &*owner.name),
        (owner::Kind::Policy, "xid-policy")
    );
    assert_eq!(owner.digest.len(), 64, "{owner:?}");
    assert!(
        condition.drill && condition.counted,
        "a drill, and this node enforces drills"
    );
    assert!(!condition.clears.is_empty());
    let evidence = condition.evidence.first().context("no evidence")?;
    assert_eq!(evidence.source, "nvml");
    assert!(
        problem(&gpu, "FaultFloor").is_none(),
        "the policy reported it; the floor had nothing to add"
    );
    let ready = condition_of(&gpu, "Ready").context("no Ready")?;
    assert_eq!(ready.status(), ConditionStatus::False);
    for other in node.gpus().iter().filter(|other| other.index != 5) {
        assert_eq!(
            health_of(&client.get(&other.uuid).await?),
            Health::Healthy,
            "GPU {}",
            other.index
        );
    }
    Ok(())
}

/// Off the floor: what stands here, the policy alone has said.
#[tokio::test]
async fn xid_119_is_the_policys_own_word() -> Result<()> {
    let node = Node::start()?;
    let mut client = node.healthy().await?;
    let name = node.uuid(0)?;
    let mut watch = client.watch(0).await?;
    node.sim()?.xid(0, &[119])?;
    let told = |gpu: &Gpu| problem(gpu, "XidCriticalError").is_some();
    let gpu = watch.until(&name, "told of XID 119", told).await?;
    assert_eq!(
        (health_of(&gpu), action(&gpu)),
        (Health::Unhealthy, "COMPONENT_RESET")
    );
    let owner = problem(&gpu, "XidCriticalError")
        .and_then(|condition| condition.owner.clone())
        .context("no owner")?;
    assert_eq!(owner.name, "xid-policy");
    let assumed = problem(&gpu, "PolicyFallback");
    assert!(assumed.is_none(), "nothing is assumed in its place");
    Ok(())
}

#[tokio::test]
async fn xid_31_is_an_applications_fault_and_the_gpu_stays_healthy() -> Result<()> {
    let node = Node::start()?;
    let mut client = node.healthy().await?;
    let name = node.uuid(2)?;
    let mut watch = client.watch(0).await?;
    node.sim()?.xid(2, &[31])?;
    let gpu = watch
        .until(&name, "told of XID 31", |gpu| {
            problem(gpu, "XidApplicationError").is_some()
        })
        .await?;
    assert_eq!((health_of(&gpu), action(&gpu)), (Health::Healthy, "NONE"));
    let message = &problem(&gpu, "XidApplicationError")
        .context("gone")?
        .message;
    assert!(
        message.contains("XID 31") && message.contains("healthy"),
        "it says why: {message}"
    );
    Ok(())
}

#[tokio::test]
async fn one_fault_from_two_sources_is_one_incident_with_both_pieces_of_evidence() -> Result<()> {
    let node = Node::start()?;
    let mut client = node.healthy().await?;
    let gpu = node.gpus().into_iter().nth(4).context("no GPU 4")?;
    let mut watch = client.watch(0).await?;
    node.sim()?.xid(4, &[79])?;
    let told = watch
        .until(&gpu.uuid, "told of", has("XidCriticalError"))
        .await?;
    let incident = problem(&told, "XidCriticalError")
        .context("not told")?
        .incident;
    let line = format!(
        "NVRM: Xid (PCI:{}): 79, pid=1, name=x, GPU has fallen off the bus.",
        gpu.pci.kernel()
    );
    // The second line is of another fault: once it is told, the first was taken in.
    let after = format!(
        "NVRM: Xid (PCI:{}): 31, pid=1, name=x, MMU Fault",
        gpu.pci.kernel()
    );
    node.kernel_log([line.as_str(), after.as_str()])?;
    let told = watch
        .until(&gpu.uuid, "told of XID 31", |gpu| {
            problem(gpu, "XidApplicationError").is_some()
        })
        .await?;
    let condition = problem(&told, "XidCriticalError").context("gone")?;
    assert_eq!(condition.incident, incident);
    let sources: Vec<_> = condition
        .evidence
        .iter()
        .map(|evidence| &*evidence.source)
        .collect();
    assert_eq!(sources, ["nvml", "kmsg"]);
    Ok(())
}

#[tokio::test]
async fn the_kernel_log_tells_what_nvml_can_not() -> Result<()> {
    let node = Node::start()?;
    let mut client = node.healthy().await?;
    let gpu = node.gpus().into_iter().nth(6).context("no GPU 6")?;
    let mut watch = client.watch(0).await?;
    node.kernel_log([format!(
        "[ 12.5] NVRM: Xid (PCI:{}): 95, pid=1, Uncontained: FBHUB.",
        gpu.pci.kernel()
    )
    .as_str()])?;
    let told = watch
        .until(&gpu.uuid, "told of", has("XidCriticalError"))
        .await?;
    assert_eq!(action(&told), "COMPONENT_RESET");
    let evidence = problem(&told, "XidCriticalError")
        .and_then(|condition| condition.evidence.first().cloned());
    assert_eq!(
        evidence.map(|evidence| evidence.source).as_deref(),
        Some("kmsg")
    );
    Ok(())
}

#[tokio::test]
async fn a_lost_gpu_is_told_from_the_others_and_recovers_when_it_returns() -> Result<()> {
    let node = Node::start()?;
    let mut client = node.healthy().await?;
    let name = node.uuid(3)?;
    let mut watch = client.watch(0).await?;
    node.sim()?.lost(3)?;
    let gpu = watch
        .until(&name, "told of its loss", has("GpuLost"))
        .await?;
    assert_eq!(action(&gpu), "RESTART_BM");
    assert_eq!(
        gpu.status.clone().context("no status")?.health_condition,
        "GpuLost"
    );
    for other in node.gpus().iter().filter(|other| other.index != 3) {
        let healthy = |gpu: &Gpu| health_of(gpu) == Health::Healthy;
        client
            .watch(0)
            .await?
            .until(&other.uuid, "probed and Healthy", healthy)
            .await?;
    }
    node.sim()?.found(3)?;
    watch
        .until(&name, "Healthy again", |gpu| {
            health_of(gpu) == Health::Healthy
        })
        .await?;
    Ok(())
}

#[tokio::test]
async fn readings_become_conditions_and_go_again() -> Result<()> {
    let node = Node::start()?;
    let mut client = node.healthy().await?;
    let name = node.uuid(1)?;
    let mut watch = client.watch(0).await?;
    node.sim()?.temperature(1, 95)?;
    let gpu = watch
        .until(&name, "too hot", |gpu| {
            problem(gpu, "Temperature").is_some()
        })
        .await?;
    assert_ne!(health_of(&gpu), Health::Healthy);
    node.sim()?.temperature(1, 40)?;
    watch
        .until(&name, "cool", |gpu| health_of(gpu) == Health::Healthy)
        .await?;
    Ok(())
}

#[tokio::test]
async fn a_double_bit_error_that_was_contained_is_no_reset() -> Result<()> {
    let node = Node::start()?;
    let mut client = node.healthy().await?;
    let (contained, alone) = (node.uuid(0)?, node.uuid(1)?);
    let mut watch = client.watch(0).await?;
    node.sim()?.xid(0, &[48, 63, 94])?;
    node.sim()?.xid(1, &[48])?;
    // The lone one becomes fatal after the window; the other, which came earlier, has not by then.
    watch
        .until(&alone, "Unhealthy", |gpu| {
            health_of(gpu) == Health::Unhealthy
        })
        .await?;
    let degraded = |gpu: &Gpu| health_of(gpu) == Health::Degraded;
    let mut watch = client.watch(0).await?;
    watch
        .until(&contained, "Degraded and no more", degraded)
        .await?;
    Ok(())
}

#[tokio::test]
async fn n8_without_enforcement_a_drill_is_shown_and_changes_no_health() -> Result<()> {
    let node = Node::builder()?.flag("drills", "report").start()?;
    let mut client = node.healthy().await?;
    let name = node.uuid(5)?;
    let mut watch = client.watch(0).await?;
    node.sim()?.xid(5, &[79])?;
    let gpu = watch
        .until(&name, "told of XID 79", |gpu| {
            problem(gpu, "XidCriticalError").is_some()
        })
        .await?;
    assert_eq!((health_of(&gpu), action(&gpu)), (Health::Healthy, "NONE"));
    let condition = problem(&gpu, "XidCriticalError").context("gone")?;
    assert!(condition.drill && !condition.counted);
    Ok(())
}

#[tokio::test]
async fn the_same_fault_again_is_no_new_version() -> Result<()> {
    let node = Node::start()?;
    let mut client = node.healthy().await?;
    let name = node.uuid(5)?;
    let mut watch = client.watch(0).await?;
    node.sim()?.xid(5, &[119])?;
    let critical = |gpu: &Gpu| problem(gpu, "XidCriticalError").is_some();
    let before = watch.until(&name, "told of XID 119", critical).await?;
    node.sim()?.xid(5, &[119])?;
    // Another fault, behind it: once that is told, the repeat was judged.
    node.sim()?.xid(5, &[31])?;
    let application = |gpu: &Gpu| problem(gpu, "XidApplicationError").is_some();
    let after = watch.until(&name, "told of XID 31", application).await?;
    assert_eq!(
        after.resource_version,
        before.resource_version + 1,
        "C5: a write that changes nothing bumps nothing"
    );
    Ok(())
}

#[tokio::test]
async fn when_the_driver_goes_nobody_is_called_healthy_and_faults_outlive_it() -> Result<()> {
    let node = Node::start()?;
    let mut client = node.healthy().await?;
    let (fine, broken) = (node.uuid(0)?, node.uuid(5)?);
    let mut watch = client.watch(0).await?;
    node.sim()?.xid(5, &[79])?;
    let unhealthy = |gpu: &Gpu| health_of(gpu) == Health::Unhealthy;
    watch.until(&broken, "Unhealthy", unhealthy).await?;
    node.sim()?.unload()?;
    watch
        .until(&fine, "Unknown", |gpu| health_of(gpu) == Health::Unknown)
        .await?;
    node.sim()?.load()?;
    watch
        .until(&fine, "Healthy again", |gpu| {
            health_of(gpu) == Health::Healthy
        })
        .await?;
    assert!(
        unhealthy(&client.get(&broken).await?),
        "a reloaded driver heals nothing"
    );
    Ok(())
}

/// `only: kmsg` needs a kernel log that the simulator writes to itself.
#[tokio::test]
async fn the_simulators_own_kernel_lines_arrive() -> Result<()> {
    let builder = Node::builder()?;
    let kmsg = builder.dir().join("kmsg").display().to_string();
    let node = builder.env("NVML_SIM_KMSG", &kmsg).start()?;
    let mut client = node.healthy().await?;
    let name = node.uuid(7)?;
    let mut watch = client.watch(0).await?;
    let request = nvml_sim::control::Request::Xid {
        gpu: 7,
        codes: vec![79],
        count: 1,
        only: Some(Only::Kmsg),
    };
    node.sim()?.request(&request)?;
    let gpu = watch
        .until(&name, "told of", has("XidCriticalError"))
        .await?;
    let sources: Vec<_> = problem(&gpu, "XidCriticalError")
        .context("not told")?
        .evidence
        .iter()
        .map(|e| e.source.clone())
        .collect();
    assert_eq!(sources, ["kmsg"]);
    Ok(())
}
