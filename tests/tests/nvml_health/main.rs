//! What NVML's readings say of a GPU: the simulated NVML's figures change, a condition comes, they change back, and
//! it goes. docs/nvml-health.md has the whole table; here is that it holds from the driver's library to a watcher.

mod steps;

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use device_api_proto::native::{Condition, ConditionStatus, Gpu, Health};
use device_api_tests::{Builder, Native, Node, Watch, binary, condition_of, health_of};
use nvml_sim::control::{EccKind, Reasons, Request};
use nvml_sim::profile::Profile;

/// What the driver asks for.
const RECOVERY: &str = "RecoveryActionRequired";

/// Waits are as short as they may be, and limits are read as often as all else.
const POLICIES: &str = "
policies:
  - name: nvml-health
    config:
      throttle_quiet_s: 1
      pcie_settle_s: 1
      nvlink_settle_s: 1
      fabric_settle_s: 1
      rates:
        pcie.replays: {count: 9, within_s: 60, quiet_s: 1}
        nvlink.symbol-errors: {count: 9, quiet_s: 1}
        ecc.volatile.corrected: {count: 100, within_s: 600, quiet_s: 1, severity: info, action: NONE}
";

fn builder() -> Result<Builder> {
    let builder = Node::builder()?;
    let file = builder.dir().join("policies.yaml");
    std::fs::write(&file, POLICIES)?;
    Ok(builder
        .flag("policies-file", file.to_string_lossy())
        .flag("nvml-limit-interval", "200ms"))
}

fn problem<'a>(gpu: &'a Gpu, type_: &str) -> Option<&'a Condition> {
    condition_of(gpu, type_).filter(|condition| condition.status() == ConditionStatus::True)
}

/// What a GPU shows of a condition.
struct Expected {
    condition: &'static str,
    reason: &'static str,
    health: Health,
    action: &'static str,
}

fn expected(
    condition: &'static str,
    reason: &'static str,
    health: Health,
    action: &'static str,
) -> Expected {
    Expected {
        condition,
        reason,
        health,
        action,
    }
}

/// Waits for a problem with that reason, and looks at what it makes of the GPU.
async fn raised(watch: &mut Watch, name: &str, expected: &Expected) -> Result<()> {
    let Expected {
        condition, reason, ..
    } = expected;
    let is_so = |gpu: &Gpu| problem(gpu, condition).is_some_and(|found| found.reason == *reason);
    let what = format!("{condition} {reason}");
    let gpu = watch.until(name, &what, is_so).await?;
    let status = gpu.status.clone().context("no status")?;
    let shown = (health_of(&gpu), status.recommended_action.as_str());
    ensure!(
        shown == (expected.health, expected.action),
        "{what}: {shown:?}"
    );
    let found = problem(&gpu, condition).context("gone")?;
    ensure!(
        !found.clears.is_empty() && !found.message.is_empty(),
        "{found:?}"
    );
    Ok(())
}

async fn healthy(watch: &mut Watch, name: &str, after: &Expected) -> Result<()> {
    let is_so =
        |gpu: &Gpu| health_of(gpu) == Health::Healthy && problem(gpu, after.condition).is_none();
    let what = format!("Healthy after {} {}", after.condition, after.reason);
    watch.until(name, &what, is_so).await?;
    Ok(())
}

type Figures = &'static [(&'static str, u64)];

/// What is wrong, what then is said, and what ends it.
type Story = (Figures, Expected, Figures);

fn stories() -> Vec<Story> {
    let mut stories = board();
    stories.extend(links());
    stories
}

fn board() -> Vec<Story> {
    use Health::{Degraded, Healthy, Unhealthy};
    let support = "CONTACT_SUPPORT";
    vec![
        (
            &[("temperature.gpu", 90)],
            expected("Temperature", "Slowdown", Degraded, "NONE"),
            &[("temperature.gpu", 40)],
        ),
        (
            &[("temperature.gpu", 95)],
            expected("Temperature", "NearShutdown", Unhealthy, support),
            &[("temperature.gpu", 40)],
        ),
        (
            &[("temperature.memory", 97)],
            expected("MemoryTemperature", "Slowdown", Degraded, "NONE"),
            &[("temperature.memory", 50)],
        ),
        (
            &[("power.limit", 150_000)],
            expected("PowerLimit", "BelowBoardRange", Degraded, "NONE"),
            &[("power.limit", 700_000)],
        ),
        (
            &[("row-remap.pending", 1)],
            expected("RowRemap", "RemapPending", Degraded, "COMPONENT_RESET"),
            &[("row-remap.pending", 0)],
        ),
        (
            &[("ecc.sram.threshold-exceeded", 1)],
            expected("SramErrors", "ThresholdExceeded", Degraded, support),
            &[("ecc.sram.threshold-exceeded", 0)],
        ),
        (
            &[("ecc.volatile.dram.corrected", 500)],
            expected("EccErrorRate", "CorrectedErrors", Healthy, "NONE"),
            &[],
        ),
    ]
}

fn links() -> Vec<Story> {
    use Health::{Degraded, Unhealthy};
    let support = "CONTACT_SUPPORT";
    vec![
        (
            &[("pcie.link-width", 8)],
            expected("PcieLink", "LinkWidthReduced", Degraded, support),
            &[("pcie.link-width", 16)],
        ),
        (
            &[("pcie.link-generation", 3), ("utilization.gpu", 90)],
            expected("PcieLink", "LinkGenerationReduced", Degraded, support),
            &[("pcie.link-generation", 5)],
        ),
        (
            &[("pcie.replays", 40)],
            expected("PcieErrorRate", "Replays", Degraded, "RUN_FIELDDIAG"),
            &[],
        ),
        (
            &[("nvlink.14.up", 0)],
            expected("NvLink", "LinkDown", Degraded, support),
            &[("nvlink.14.up", 1)],
        ),
        (
            &[("fabric.status", 21)],
            expected("Fabric", "RegistrationFailed", Unhealthy, support),
            &[("fabric.status", 0)],
        ),
        (
            &[("fabric.health-mask", 0x1a9)],
            expected("Fabric", "DegradedBandwidth", Degraded, support),
            &[("fabric.health-mask", 0x1aa)],
        ),
        (
            &[("fabric.state", 1)],
            expected("Fabric", "NotRegistered", Degraded, "NONE"),
            &[("fabric.state", 3)],
        ),
    ]
}

#[tokio::test]
async fn each_reading_brings_its_condition_and_takes_it_away() -> Result<()> {
    let node = builder()?.start()?;
    let mut client = node.healthy().await?;
    let mut sim = node.sim()?;
    for (index, (bad, expected, good)) in (0_u32..).zip(stories()) {
        let gpu = index % 8;
        let name = node.uuid(gpu)?;
        let mut watch = client.watch(0).await?;
        sim.set(gpu, bad)?;
        raised(&mut watch, &name, &expected).await?;
        if !good.is_empty() {
            sim.set(gpu, good)?;
        }
        healthy(&mut watch, &name, &expected).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_power_brake_holds_the_clocks_down_until_it_has_let_go_for_a_while() -> Result<()> {
    let node = builder()?.gpus(2).start()?;
    let mut client = node.healthy().await?;
    let name = node.uuid(1)?;
    let mut watch = client.watch(0).await?;
    let throttle = |mask| Request::Throttle {
        gpu: 1,
        reasons: Reasons::Mask(mask),
    };
    let brake = expected(
        "ClockThrottle",
        "HardwarePowerBrake",
        Health::Degraded,
        "NONE",
    );
    node.sim()?.request(&throttle(0x88))?;
    raised(&mut watch, &name, &brake).await?;
    node.sim()?.request(&throttle(0))?;
    healthy(&mut watch, &name, &brake).await?;
    Ok(())
}

/// Waits until all was read once more, whatever was read when this began.
async fn read_once_more(node: &Node) -> Result<()> {
    let rounds = || -> Result<u64> {
        let metrics = node.metrics()?;
        let name = "device_api_server_nvml_polls_total ";
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        Ok(line.context("no count of rounds")?.trim().parse()?)
    };
    // One under way, one of the inventory alone, and one that reads.
    let enough = rounds()? + 3;
    let asked = async {
        while rounds()? < enough {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    };
    let bound = Duration::from_secs(60);
    let waited = tokio::time::timeout(bound, asked).await;
    waited.context("NVML is read no more")?
}

/// A link that is narrow is so until its width says otherwise, however well all else is.
#[tokio::test]
async fn a_reading_that_fails_ends_nothing_and_one_that_works_again_does() -> Result<()> {
    let node = builder()?.gpus(1).start()?;
    let mut client = node.healthy().await?;
    let name = node.uuid(0)?;
    let mut watch = client.watch(0).await?;
    let mut sim = node.sim()?;
    let support = "CONTACT_SUPPORT";
    let narrow = expected("PcieLink", "LinkWidthReduced", Health::Degraded, support);
    sim.set(0, &[("pcie.link-width", 8)])?;
    raised(&mut watch, &name, &narrow).await?;
    let call = "nvmlDeviceGetCurrPcieLinkWidth".to_owned();
    sim.request(&Request::Fail {
        gpu: Some(0),
        call: Some(call.clone()),
        code: 999,
        times: None,
    })?;
    read_once_more(&node).await?;
    // It works, and rests: twice news of the link, and each once more than it takes for an end.
    for (percent, replays) in [(90, 40), (0, 80)] {
        sim.set(
            0,
            &[("utilization.gpu", percent), ("pcie.replays", replays)],
        )?;
        let rate = |gpu: &Gpu| problem(gpu, "PcieErrorRate").is_some();
        watch.until(&name, "told of replays", rate).await?;
        let over = |gpu: &Gpu| problem(gpu, "PcieErrorRate").is_none();
        let gpu = watch.until(&name, "no replays any more", over).await?;
        ensure!(problem(&gpu, narrow.condition).is_some(), "{gpu:?}");
    }
    sim.request(&Request::Unfail {
        gpu: Some(0),
        call: Some(call),
    })?;
    sim.set(0, &[("pcie.link-width", 16)])?;
    healthy(&mut watch, &name, &narrow).await
}

/// A reset does what waits for one, and gives no spare rows back.
#[tokio::test]
async fn n7_a_reset_ends_a_pending_remap_and_not_one_that_failed() -> Result<()> {
    let node = builder()?.gpus(2).start()?;
    let mut client = node.healthy().await?;
    let (waits, failed) = (node.uuid(0)?, node.uuid(1)?);
    let mut watch = client.watch(0).await?;
    let mut sim = node.sim()?;
    let pending = expected(
        "RowRemap",
        "RemapPending",
        Health::Degraded,
        "COMPONENT_RESET",
    );
    let failure = expected(
        "RowRemap",
        "RemapFailed",
        Health::Unhealthy,
        "CONTACT_SUPPORT",
    );
    sim.set(0, &[("row-remap.pending", 1)])?;
    raised(&mut watch, &waits, &pending).await?;
    sim.set(1, &[("row-remap.pending", 1), ("row-remap.failure", 1)])?;
    raised(&mut watch, &failed, &failure).await?;
    for gpu in [1, 0] {
        sim.gpu_reset(gpu)?;
    }
    healthy(&mut watch, &waits, &pending).await?;
    node.daemon
        .wait_for_nth(&["GPU recovered", "no row remap is pending any more"], 2)?;
    let gpu = client.get(&failed).await?;
    ensure!(problem(&gpu, "RowRemap").is_some(), "{gpu:?}");
    sim.set(1, &[("row-remap.failure", 0)])?;
    healthy(&mut watch, &failed, &failure).await?;
    Ok(())
}

/// Whoever reads the GPU after the reset was noticed never sees it without what the reset did not mend.
#[tokio::test]
async fn c2_n7_a_reset_after_which_a_remap_is_pending_still_heals_nothing() -> Result<()> {
    let node = builder()?.gpus(1).start()?;
    let mut client = node.healthy().await?;
    let name = node.uuid(0)?;
    let mut watch = client.watch(0).await?;
    let mut sim = node.sim()?;
    let pending = expected(
        "RowRemap",
        "RemapPending",
        Health::Degraded,
        "COMPONENT_RESET",
    );
    sim.set(0, &[("row-remap.pending", 1)])?;
    raised(&mut watch, &name, &pending).await?;
    sim.recovery_action(0, 1)?;
    let asked = |gpu: &Gpu| problem(gpu, RECOVERY).is_some();
    watch.until(&name, "asked for a reset", asked).await?;
    sim.recovery_action(0, 0)?;
    node.daemon
        .wait_for(&["GPU recovered", "recovery action"])?;
    let gpu = client.get(&name).await?;
    ensure!(problem(&gpu, pending.condition).is_some(), "{gpu:?}");
    let is_so =
        |gpu: &Gpu| problem(gpu, RECOVERY).is_none() && problem(gpu, pending.condition).is_some();
    watch.until(&name, "reset, and pending", is_so).await?;
    // What is told next was read after it.
    sim.temperature(0, 91)?;
    let hot = |gpu: &Gpu| problem(gpu, "Temperature").is_some();
    let gpu = watch.until(&name, "hot", hot).await?;
    ensure!(problem(&gpu, pending.condition).is_some(), "{gpu:?}");
    sim.set(0, &[("row-remap.pending", 0), ("temperature.gpu", 40)])?;
    healthy(&mut watch, &name, &pending).await
}

#[tokio::test]
async fn n7_what_an_operator_cleared_and_still_is_so_comes_back_with_its_next_reading() -> Result<()>
{
    let node = builder()?.gpus(1).start()?;
    let mut client = node.healthy().await?;
    let name = node.uuid(0)?;
    let mut watch = client.watch(0).await?;
    let mut sim = node.sim()?;
    sim.set(
        0,
        &[
            ("temperature.gpu", 90),
            ("row-remap.failure", 1),
            ("ecc.sram.threshold-exceeded", 1),
            ("nvlink.3.up", 0),
        ],
    )?;
    sim.recovery_action(0, 2)?;
    let all = ["Temperature", "RowRemap", "SramErrors", "NvLink", RECOVERY];
    let stand = |gpu: &Gpu| {
        all.iter()
            .all(|condition| problem(gpu, condition).is_some())
    };
    let mut gpu = watch.until(&name, "all that is wrong", stand).await?;
    for condition in all {
        let since = problem(&gpu, condition).and_then(|found| found.last_transition_time);
        let said = Command::new(binary("devicectl")?)
            .arg("--socket")
            .arg(node.socket())
            .args(["gpu", "clear", &name, condition, "--reason", "a try"])
            .output()?;
        ensure!(said.status.success(), "{said:?}");
        let is_back = |gpu: &Gpu| {
            problem(gpu, condition).is_some_and(|found| found.last_transition_time != since)
        };
        let what = format!("{condition} back");
        gpu = watch.until(&name, &what, is_back).await?;
        ensure!(stand(&gpu), "{gpu:?}");
    }
    Ok(())
}

/// `nvidia-smi --reset-ecc-errors` zeroes counters, and heals nothing.
#[tokio::test]
async fn n7_counters_that_are_zeroed_are_neither_a_fault_nor_the_end_of_one() -> Result<()> {
    let node = builder()?.gpus(2).start()?;
    let mut client = node.healthy().await?;
    let (bad, fine) = (node.uuid(0)?, node.uuid(1)?);
    let mut watch = client.watch(0).await?;
    let mut sim = node.sim()?;
    let errors = expected(
        "EccErrors",
        "UncorrectableErrors",
        Health::Degraded,
        "COMPONENT_RESET",
    );
    sim.set(0, &[("pcie.replays", 3)])?;
    sim.ecc(0, EccKind::Uncorrected, 2)?;
    raised(&mut watch, &bad, &errors).await?;
    // The counter has been read when the rate that it shares its readings with is told.
    sim.set(0, &[("ecc.volatile.dram.corrected", 500)])?;
    let rate = |gpu: &Gpu| problem(gpu, "EccErrorRate").is_some();
    watch.until(&bad, "told of corrected errors", rate).await?;
    let zeroed = [
        ("ecc.volatile.dram.corrected", 0),
        ("ecc.volatile.dram.uncorrected", 0),
    ];
    for gpu in [0, 1] {
        sim.set(gpu, &zeroed)?;
    }
    node.daemon
        .wait_for(&["volatile ECC counters were zeroed"])?;
    // What is told next was read after it.
    sim.temperature(0, 91)?;
    let hot = |gpu: &Gpu| problem(gpu, "Temperature").is_some();
    let gpu = watch.until(&bad, "hot", hot).await?;
    ensure!(problem(&gpu, "EccErrors").is_some(), "{gpu:?}");
    let gpu = client.get(&fine).await?;
    ensure!(health_of(&gpu) == Health::Healthy, "{gpu:?}");
    // One more, so that there is something to fall; then a reset, which the PCIe counter tells from the other.
    sim.ecc(0, EccKind::Uncorrected, 1)?;
    let one = |gpu: &Gpu| {
        problem(gpu, "EccErrors").is_some_and(|found| found.message.starts_with("1 unc"))
    };
    watch.until(&bad, "told of one more", one).await?;
    sim.gpu_reset(0)?;
    healthy(&mut watch, &bad, &errors).await?;
    node.daemon
        .wait_for(&["GPU recovered", "pcie.replays fell from 3 to 0"])?;
    Ok(())
}

/// Boards before Ampere.
#[tokio::test]
async fn retired_pages_wait_for_a_reset_and_are_of_a_number() -> Result<()> {
    let node = builder()?.gpus(1).env("NVML_SIM_PROFILE", "v100").start()?;
    let mut client = node.native().await?;
    let name = v100()?;
    let mut watch = client.watch(0).await?;
    let pending = expected(
        "RetiredPages",
        "RetirementPending",
        Health::Degraded,
        "COMPONENT_RESET",
    );
    let full = expected(
        "RetiredPages",
        "LimitReached",
        Health::Unhealthy,
        "RUN_FIELDDIAG",
    );
    healthy(&mut watch, &name, &pending).await?;
    let mut sim = node.sim()?;
    sim.set(0, &[("retired-pages.pending", 1)])?;
    raised(&mut watch, &name, &pending).await?;
    sim.gpu_reset(0)?;
    healthy(&mut watch, &name, &pending).await?;
    sim.set(
        0,
        &[
            ("retired-pages.single-bit", 50),
            ("retired-pages.double-bit", 13),
        ],
    )?;
    raised(&mut watch, &name, &full).await?;
    sim.set(0, &[("retired-pages.single-bit", 0)])?;
    healthy(&mut watch, &name, &full).await?;
    // What such a board does not have is not judged.
    let gpu = client.get(&name).await?;
    for absent in ["RowRemap", "Fabric"] {
        ensure!(condition_of(&gpu, absent).is_none(), "{absent}: {gpu:?}");
    }
    Ok(())
}

fn v100() -> Result<String> {
    let profile = Profile::named("v100").context("no such profile")?;
    Ok(profile.gpu(0).context("no GPU")?.uuid)
}

#[tokio::test]
async fn n1_while_a_call_hangs_nobody_knows_and_then_the_gpu_is_judged_anew() -> Result<()> {
    let node = builder()?.gpus(2).start()?;
    let mut client: Native = node.healthy().await?;
    let name = node.uuid(0)?;
    let mut watch = client.watch(0).await?;
    let mut sim = node.sim()?;
    sim.hang(Some(0), "nvmlDeviceGetPowerUsage")?;
    let mute = |gpu: &Gpu| {
        let reachable = condition_of(gpu, "NvmlReachable");
        reachable.is_some_and(|found| {
            found.status() == ConditionStatus::Unknown
                && found.message.contains("nvmlDeviceGetPowerUsage")
        })
    };
    let gpu = watch.until(&name, "mute", mute).await?;
    ensure!(health_of(&gpu) == Health::Unknown, "{gpu:?}");
    sim.set(0, &[("row-remap.failure", 1)])?;
    sim.unhang()?;
    let failure = expected(
        "RowRemap",
        "RemapFailed",
        Health::Unhealthy,
        "CONTACT_SUPPORT",
    );
    let is_so = |gpu: &Gpu| {
        problem(gpu, failure.condition).is_some()
            && condition_of(gpu, "NvmlReachable")
                .is_some_and(|found| found.status() == ConditionStatus::True)
    };
    watch.until(&name, "judged anew", is_so).await?;
    sim.set(0, &[("row-remap.failure", 0)])?;
    healthy(&mut watch, &name, &failure).await?;
    Ok(())
}
