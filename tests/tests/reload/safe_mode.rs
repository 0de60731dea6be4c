//! `--safe-mode` starts without WebAssembly: floor and fallback judge (design H7, H8).

use anyhow::{Context as _, Result, ensure};
use device_api_proto::native::{ConditionStatus, Gpu, Health, PolicyPhase, owner};
use device_api_tests::{Native, Node, condition_of, health_of, http};
use rustix::process::Signal;

use crate::rig::{Rig, tally};

/// Floor and fallback: the host's own table.
#[tokio::test]
async fn h7_in_safe_mode_the_host_judges_without_any_policy() -> Result<()> {
    let builder = Node::builder()?.gpus(2);
    let policies = builder.dir().join("policies");
    std::fs::create_dir(&policies)?;
    std::fs::write(policies.join("tally.wasm"), tally("version=1")?)?;
    let rig = Rig::on(policies, &[("safe-mode", "true")])(builder)?;
    // The daemon serves before it has NVML.
    let mut client = rig.node.healthy().await?;
    let mut watch = client.watch(0).await?;
    let (fatal, harmless) = (rig.node.uuid(0)?, rig.node.uuid(1)?);
    rig.xid(0, 79)?;
    let unhealthy = |gpu: &_| health_of(gpu) == Health::Unhealthy;
    let gpu = watch.until(&fatal, "Unhealthy", unhealthy).await?;
    let floor = condition_of(&gpu, "FaultFloor").context("no floor")?;
    assert_eq!(floor.status(), ConditionStatus::True);
    let owner = floor.owner.as_ref().context("no owner")?;
    assert_eq!(owner.kind(), owner::Kind::Host);

    rig.xid(1, 31)?;
    let assumed = |gpu: &_| condition_of(gpu, "PolicyFallback").is_some();
    let gpu = watch
        .until(&harmless, "judged by the vendor's class", assumed)
        .await?;
    assert_eq!(health_of(&gpu), Health::Healthy, "{gpu:?}");
    for gpu in client.list().await?.gpus {
        let conditions = gpu.status.unwrap_or_default().conditions;
        let of_a_policy = conditions.iter().find(|condition| {
            let owner = condition.owner.as_ref();
            owner.is_some_and(|owner| owner.kind() == owner::Kind::Policy)
        });
        assert_eq!(of_a_policy, None);
    }

    for bundled in ["xid-policy", "nvml-health"] {
        let policy = client.policy(bundled).await?;
        let is_off = policy.active.is_none() && policy.phase() == PolicyPhase::Paused;
        assert!(is_off && policy.detail.contains("safe mode"), "{policy:?}");
    }
    assert!(client.policy("tally").await.is_err(), "nothing is loaded");
    assert!(client.reload().await.is_err(), "and nothing will be");
    let (code, detail) = http(&rig.node.address("/healthz")?, "/readyz")?;
    assert!(
        code == 200 && detail.contains("safe mode"),
        "{code} {detail}"
    );
    Ok(())
}

/// Waits until something was observed of a GPU in this run, and it is so.
async fn until_health(client: &mut Native, rig: &Rig, gpu: u32, health: Health) -> Result<Gpu> {
    let mut last = None;
    let is_it = |gpu: &Gpu| {
        last = Some(gpu.clone());
        let probing = condition_of(gpu, "Probing");
        let is_seen = probing.is_none_or(|probing| probing.reason != "Restarted");
        is_seen && health_of(gpu) == health
    };
    let mut watch = client.watch(0).await?;
    let name = rig.node.uuid(gpu)?;
    let found = watch.until(&name, health.as_str_name(), is_it).await;
    found.with_context(|| format!("GPU {gpu} was {last:?}"))
}

/// What is said in safe mode of a policy, and that nothing is advised which is refused.
fn tells_of_safe_mode(rig: &Rig, args: &[&str]) -> Result<()> {
    let (code, said) = rig.devicectl(args)?;
    ensure!(
        code == Some(0)
            && said.contains("safe mode: no policy is run; start without --safe-mode")
            && !said.contains("devicectl policy"),
        "{said}"
    );
    Ok(())
}

/// What the policies of the run before said is no reason to call a GPU unknown, nor what nobody judges one to
/// call it healthy.
#[tokio::test]
async fn h7_h8_safe_mode_after_a_run_leaves_gpus_without_a_fault_healthy_and_heals_no_other()
-> Result<()> {
    let builder = Node::builder()?.gpus(3);
    let config = builder.dir().join("config.yaml");
    std::fs::write(&config, "safe-mode: false\n")?;
    let policies = builder.dir().join("policies");
    std::fs::create_dir(&policies)?;
    let flags = [("config", &*config.to_string_lossy())];
    let mut rig = Rig::on(policies, &flags)(builder)?;
    let mut client = rig.ready().await?;
    rig.xid(1, 119)?;
    let before = until_health(&mut client, &rig, 1, Health::Unhealthy).await?;
    ensure!(condition_of(&before, "XidCriticalError").is_some());

    rig.node.stop(Signal::TERM)?;
    std::fs::write(&config, "safe-mode: true\n")?;
    rig.node.start_again()?;
    let mut client = rig.node.native().await?;
    for (gpu, health) in [
        (0, Health::Healthy),
        (1, Health::Unhealthy),
        (2, Health::Healthy),
    ] {
        let gpu = until_health(&mut client, &rig, gpu, health).await?;
        let ready = condition_of(&gpu, "PolicyReady").context("not told")?;
        assert_eq!(
            (ready.status(), &*ready.reason),
            (ConditionStatus::False, "SafeMode")
        );
    }
    // An application's fault makes one of them no healthier than the others.
    let mut watch = client.watch(0).await?;
    rig.xid(2, 31)?;
    let assumed =
        |gpu: &Gpu| condition_of(gpu, "PolicyFallback").is_some_and(|it| it.reason == "NotJudged");
    let gpu = watch.until(&rig.node.uuid(2)?, "assumed", assumed).await?;
    assert_eq!(health_of(&gpu), Health::Healthy);
    rig.xid(0, 79)?;
    until_health(&mut client, &rig, 0, Health::Unhealthy).await?;
    tells_of_safe_mode(&rig, &["policy", "list"])?;
    tells_of_safe_mode(&rig, &["policy", "describe", "xid-policy"])?;

    // And back: the policies judge what was assumed.
    rig.node.stop(Signal::TERM)?;
    std::fs::write(&config, "safe-mode: false\n")?;
    rig.node.start_again()?;
    let mut client = rig.node.native().await?;
    let mut watch = client.watch(0).await?;
    let judged = |gpu: &Gpu| {
        let status = |type_| condition_of(gpu, type_).map(|condition| condition.status());
        status("XidApplicationError") == Some(ConditionStatus::True)
            && status("PolicyFallback") != Some(ConditionStatus::True)
            && status("PolicyReady") == Some(ConditionStatus::True)
    };
    let gpu = watch.until(&rig.node.uuid(2)?, "judged", judged).await?;
    assert_eq!(health_of(&gpu), Health::Healthy);
    until_health(&mut client, &rig, 1, Health::Unhealthy).await?;
    Ok(())
}
