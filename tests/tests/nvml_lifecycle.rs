//! What NVML may do to a daemon (design N1 to N3), as a site sees it: conditions, `/readyz`, metrics and log say so; faults
//! that the kernel's log tells are judged meanwhile; and the whole daemon, policies included, costs next to nothing. The
//! parts are tested in `host/nvml/tests/simulated`; here is that they are joined.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use device_api_proto::native::{ConditionStatus, Gpu, Health};
use device_api_tests::{Builder, Native, Node, PATIENCE, condition_of, health_of, http};
use nvml_sim::control::Request;
use nvml_sim::old_driver;

const WATCHED: Duration = Duration::from_secs(2);

/// A tenth of a processor, for policies and readings as they are built for tests. A thread that spins uses a whole one.
const CPU_MAX: Duration = Duration::from_millis(200);

/// As sites have it: readings at the intervals that ship.
fn builder() -> Result<Builder> {
    Ok(Node::builder()?
        .flag("nvml-poll-interval", "1s")
        .flag("nvml-fault-interval", "1s")
        .flag("nvml-counter-interval", "5s"))
}

/// Processor time of each thread of the daemon until now, with its name.
fn cpu(node: &Node) -> Result<BTreeMap<(OsString, String), Duration>> {
    let tasks = fs::read_dir(format!("/proc/{}/task", node.daemon.pid()))?;
    let threads = tasks.filter_map(|task| {
        // It may have ended by now.
        let task = task.ok()?;
        let name = fs::read_to_string(task.path().join("comm")).ok()?;
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        let ns = text.split_whitespace().next()?.parse().ok()?;
        let thread = (task.file_name(), name.trim().to_owned());
        Some((thread, Duration::from_nanos(ns)))
    });
    Ok(threads.collect())
}

/// Nothing spins: there is no state to wait for, so this looks for a while.
async fn costs_nothing(node: &Node, what: &str) -> Result<()> {
    let before = cpu(node)?;
    tokio::time::sleep(WATCHED).await;
    let mut used = cpu(node)?;
    for (thread, until_now) in &mut used {
        let earlier = before.get(thread).copied().unwrap_or_default();
        *until_now = until_now.saturating_sub(earlier);
    }
    let all: Duration = used.values().sum();
    used.retain(|_, used| *used > CPU_MAX / 100);
    ensure!(all < CPU_MAX, "{what}: {all:?} of {WATCHED:?}: {used:#?}");
    Ok(())
}

fn reached(gpu: &Gpu) -> Option<(ConditionStatus, &str)> {
    let reached = condition_of(gpu, "NvmlReachable")?;
    Some((reached.status(), &reached.reason))
}

fn stands(gpu: &Gpu, type_: &str) -> bool {
    condition_of(gpu, type_).is_some_and(|it| it.status() == ConditionStatus::True)
}

fn is(health: Health) -> impl Fn(&Gpu) -> bool {
    move |gpu| health_of(gpu) == health
}

async fn until(
    client: &mut Native,
    name: &str,
    what: &str,
    is: impl Fn(&Gpu) -> bool,
) -> Result<Gpu> {
    client.watch(0).await?.until(name, what, is).await
}

/// XID 119 of a GPU as the kernel logs it.
fn fault(node: &Node, gpu: usize) -> Result<()> {
    let pci = node.gpus().get(gpu).context("no such GPU")?.pci.kernel();
    let line =
        format!("NVRM: Xid (PCI:{pci}): 119, pid=1, name=x, Timeout waiting for RPC from GSP");
    node.kernel_log([&*line])
}

/// The kernel's log flows: a fault that it tells is judged.
async fn is_heard(node: &Node, client: &mut Native, gpu: usize) -> Result<()> {
    fault(node, gpu)?;
    let name = node.uuid(u32::try_from(gpu)?)?;
    let told = |gpu: &Gpu| health_of(gpu) == Health::Unhealthy && stands(gpu, "XidCriticalError");
    until(client, &name, "told of by the kernel", told).await?;
    Ok(())
}

/// Waits until `/readyz`, which is 200 all the while, says these words of a component: it is told after the log is.
async fn ready_says(node: &Node, component: &str, words: &[&str]) -> Result<()> {
    let health = node.address("/healthz")?;
    let begins = format!("{component}:");
    let start = Instant::now();
    loop {
        let (code, told) = http(&health, "/readyz")?;
        ensure!(code == 200, "{code} {told}");
        let line = told.lines().find(|line| line.starts_with(&begins));
        let line = line.with_context(|| format!("nothing of {component} in {told:?}"))?;
        if words.iter().all(|word| line.contains(word)) {
            return Ok(());
        }
        ensure!(start.elapsed() < PATIENCE, "no {words:?}: {told}");
        tokio::task::yield_now().await;
    }
}

/// One series of the metrics.
fn metric(node: &Node, series: &str) -> Result<f64> {
    let all = node.metrics()?;
    let mut lines = all.lines();
    let line = lines.find_map(|line| line.strip_prefix(&format!("device_api_server_{series} ")));
    let value = line.with_context(|| format!("no {series} in\n{all}"))?;
    Ok(value.parse()?)
}

/// NVML is not in use, and this is why, in all the places where one looks.
async fn is_missing(node: &Node, why: &str) -> Result<()> {
    node.daemon
        .wait_for(&["no NVML, looking for it again", why])?;
    ready_says(node, "nvml", &["degraded", why]).await?;
    for (series, expected) in [
        ("nvml_provider_enabled", 1.0),
        ("nvml_health_monitor_running", 0.0),
        ("nvml_gpu_count", 0.0),
    ] {
        let value = metric(node, series)?;
        ensure!((value - expected).abs() < 0.5, "{series} is {value}");
    }
    Ok(())
}

/// It is in use, the `nth` time, with eight GPUs.
async fn is_back(node: &Node, client: &mut Native, nth: usize) -> Result<()> {
    node.daemon.wait_for_nth(&["NVML is in use"], nth)?;
    let answers = |gpu: &Gpu| reached(gpu) == Some((ConditionStatus::True, "Answers"));
    for gpu in node.gpus() {
        until(client, &gpu.uuid, "answering", answers).await?;
    }
    ready_says(node, "nvml", &["up", "8 GPUs"]).await?;
    let running = async {
        while metric(node, "nvml_health_monitor_running")? < 0.5 {
            tokio::task::yield_now().await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, running).await??;
    ensure!(metric(node, "nvml_gpu_count")? > 7.5);
    Ok(())
}

#[tokio::test]
async fn n1_n2_a_library_that_comes_late_is_taken_up_and_what_the_kernel_told_until_then_is_judged()
-> Result<()> {
    let builder = builder()?;
    let library = builder.dir().join("libnvidia-ml.so.1");
    let node = builder
        .flag("nvml-library", library.to_string_lossy())
        .start()?;
    let mut client = node.native().await?;
    is_missing(&node, "libnvidia-ml.so.1").await?;
    ensure!(client.list().await?.gpus.is_empty());
    // Nobody knows yet whose address this is.
    fault(&node, 3)?;
    costs_nothing(&node, "no library").await?;
    symlink(nvml_sim::find_library()?, &library)?;
    is_back(&node, &mut client, 1).await?;
    for gpu in node.gpus() {
        let health = if gpu.index == 3 {
            Health::Unhealthy
        } else {
            Health::Healthy
        };
        until(&mut client, &gpu.uuid, &format!("{health:?}"), is(health)).await?;
    }
    costs_nothing(&node, "all is well").await
}

#[tokio::test]
async fn n1_n2_a_driver_that_goes_comes_in_another_version_and_comes_whole_is_followed()
-> Result<()> {
    let node = builder()?.start()?;
    let mut client = node.healthy().await?;
    let name = node.uuid(0)?;
    let mut sim = node.sim()?;
    let gone = |gpu: &Gpu| {
        reached(gpu) == Some((ConditionStatus::Unknown, "DriverGone"))
            && health_of(gpu) == Health::Unknown
    };

    sim.unload()?;
    until(&mut client, &name, "without a driver", gone).await?;
    is_missing(&node, "DRIVER_NOT_LOADED").await?;
    is_heard(&node, &mut client, 1).await?;
    costs_nothing(&node, "no driver").await?;

    // The library is of another version than the module that is loaded.
    sim.request(&Request::Driver {
        version: None,
        library: Some("580.95.05".to_owned()),
    })?;
    sim.load()?;
    is_missing(&node, "LIB_RM_VERSION_MISMATCH").await?;
    is_heard(&node, &mut client, 2).await?;
    costs_nothing(&node, "another version").await?;
    ensure!(gone(&client.get(&name).await?), "nobody calls it Healthy");

    sim.unload()?;
    sim.request(&Request::Driver {
        version: Some("580.95.05".to_owned()),
        library: None,
    })?;
    sim.load()?;
    is_back(&node, &mut client, 2).await?;
    for gpu in node.gpus() {
        let told = client.get(&gpu.uuid).await?;
        let spec = told.spec.clone().unwrap_or_default();
        assert_eq!(spec.driver_version, "580.95.05");
        let is_broken = [1, 2].contains(&gpu.index);
        let expected = [Health::Healthy, Health::Unhealthy][usize::from(is_broken)];
        assert_eq!(
            health_of(&told),
            expected,
            "a driver heals nothing: {told:#?}"
        );
    }
    // That a driver came and went is no fault of any GPU's.
    let told = client.incidents().await?;
    let codes: Vec<_> = told.iter().map(|one| one.code).collect();
    assert_eq!(codes, [Some(119), Some(119)], "{told:#?}");
    Ok(())
}

#[tokio::test]
async fn n1_n3_of_a_lost_gpu_it_is_said_which_and_the_others_are_read_on() -> Result<()> {
    let node = builder()?.start()?;
    let mut client = node.healthy().await?;
    let lost = node.uuid(5)?;
    node.sim()?.lost(5)?;
    let is_lost = |gpu: &Gpu| stands(gpu, "GpuLost") && health_of(gpu) == Health::Unhealthy;
    until(&mut client, &lost, "lost", is_lost).await?;
    node.daemon.wait_for(&["GPU lost", &lost, "GPU_IS_LOST"])?;
    for gpu in node.gpus().iter().filter(|gpu| gpu.index != 5) {
        until(&mut client, &gpu.uuid, "Healthy", is(Health::Healthy)).await?;
    }
    ready_says(&node, "nvml", &["up"]).await?;
    assert!((metric(&node, "cache_gpus_unhealthy")? - 1.0).abs() < 0.5);
    let incidents = client.incidents().await?;
    let [one] = &incidents[..] else {
        anyhow::bail!("{incidents:#?}");
    };
    assert_eq!((&*one.kind, &one.device), ("gpu-lost", &lost));
    costs_nothing(&node, "one is lost").await?;
    // Others are read on, and listened to.
    node.sim()?.temperature(2, 95)?;
    let hot = |gpu: &Gpu| stands(gpu, "Temperature");
    until(&mut client, &node.uuid(2)?, "too hot", hot).await?;
    is_heard(&node, &mut client, 1).await?;
    node.sim()?.found(5)?;
    until(&mut client, &lost, "Healthy again", is(Health::Healthy)).await?;
    Ok(())
}

#[tokio::test]
async fn n1_while_calls_hang_the_kernels_log_and_the_other_gpus_flow() -> Result<()> {
    let node = builder()?.start()?;
    let mut client = node.healthy().await?;
    let hung = node.uuid(4)?;
    node.sim()?.hang(Some(4), "nvmlDeviceGetTemperature")?;
    let hangs = |gpu: &Gpu| {
        reached(gpu) == Some((ConditionStatus::Unknown, "CallHangs"))
            && health_of(gpu) == Health::Unknown
    };
    until(&mut client, &hung, "Unknown: a call hangs", hangs).await?;
    node.daemon
        .wait_for(&["nvmlDeviceGetTemperature", &hung, "has hung"])?;
    ready_says(
        &node,
        "nvml-calls",
        &["degraded", "nvmlDeviceGetTemperature", &hung],
    )
    .await?;
    assert!(metric(&node, "nvml_hung_calls_total")? > 0.5);
    for gpu in node.gpus().iter().filter(|gpu| gpu.index != 4) {
        until(&mut client, &gpu.uuid, "Healthy", is(Health::Healthy)).await?;
    }
    costs_nothing(&node, "a call hangs").await?;
    node.sim()?.temperature(2, 95)?;
    let hot = |gpu: &Gpu| stands(gpu, "Temperature");
    until(&mut client, &node.uuid(2)?, "too hot", hot).await?;
    // Of the one that hangs the kernel has the last word.
    is_heard(&node, &mut client, 4).await?;

    // All calls of all GPUs.
    node.sim()?.request(&Request::Hang {
        gpu: None,
        call: None,
    })?;
    let unknown = is(Health::Unknown);
    for gpu in [0, 7] {
        until(&mut client, &node.uuid(gpu)?, "Unknown", &unknown).await?;
    }
    costs_nothing(&node, "all calls hang").await?;
    is_heard(&node, &mut client, 6).await?;
    node.sim()?.unhang()?;
    until(&mut client, &node.uuid(0)?, "Healthy", is(Health::Healthy)).await?;
    assert_eq!(health_of(&client.get(&hung).await?), Health::Unhealthy);
    Ok(())
}

/// What a GPU that answers with errors only is shown as is another test's.
#[tokio::test]
async fn n1_n2_in_storms_of_errors_the_kernels_log_flows_and_nothing_spins() -> Result<()> {
    let node = builder()?.start()?;
    let mut client = node.healthy().await?;
    // UNKNOWN, TIMEOUT, GPU_IS_LOST, UNINITIALIZED, from every call.
    for (gpu, code) in (1..).zip([999, 10, 15, 1]) {
        let failed = metric(&node, "nvml_failed_calls_total")?;
        node.sim()?.request(&Request::Fail {
            gpu: None,
            call: None,
            code,
            times: None,
        })?;
        is_heard(&node, &mut client, gpu).await?;
        costs_nothing(&node, &format!("every call answers {code}")).await?;
        // A GPU that is lost, and a driver that is gone, are told of otherwise.
        if [999, 10].contains(&code) {
            let now = metric(&node, "nvml_failed_calls_total")?;
            ensure!(now > failed, "{code}: {now} failed calls as before");
        }
        node.sim()?.request(&Request::Unfail {
            gpu: None,
            call: None,
        })?;
        until(&mut client, &node.uuid(7)?, "Healthy", is(Health::Healthy)).await?;
    }
    Ok(())
}

#[tokio::test]
async fn n2_a_driver_that_lacks_symbols_is_served_with_what_it_has() -> Result<()> {
    let builder = builder()?;
    let copy = builder.dir().join("libnvidia-ml.so.1");
    let missing = old_driver::missing_before(450);
    old_driver::copy_without(&nvml_sim::find_library()?, &missing, &copy)?;
    let node = builder
        .env("NVML_SIM_DRIVER", "450.248.02")
        .flag("nvml-library", copy.to_string_lossy())
        .start()?;
    let mut client = node.healthy().await?;
    ready_says(&node, "nvml", &["up", "8 GPUs"]).await?;
    assert!(metric(&node, "nvml_failed_calls_total")? < 0.5);
    let name = node.uuid(1)?;
    let gpu = client.get(&name).await?;
    let spec = gpu.spec.clone().context("no spec")?;
    assert_eq!(spec.driver_version, "450.248.02");
    assert_eq!(spec.memory_bytes, Some(81_559 << 20), "by the older call");
    let hardware = spec.hardware.context("no hardware")?;
    assert!(hardware.fabric.is_none(), "{hardware:#?}");
    // What it can't tell is neither well nor a problem.
    for absent in ["Fabric", "SramErrors"] {
        assert!(condition_of(&gpu, absent).is_none(), "{absent}: {gpu:#?}");
    }
    // Where an older call tells the same, it is judged.
    node.sim()?.temperature(1, 95)?;
    let hot = |gpu: &Gpu| stands(gpu, "Temperature");
    until(&mut client, &name, "too hot", hot).await?;
    is_heard(&node, &mut client, 2).await?;
    costs_nothing(&node, "an old driver").await
}

#[tokio::test]
async fn n2_n7_another_board_in_the_slot_is_in_log_and_metrics_and_costs_nothing() -> Result<()> {
    let node = builder()?.start()?;
    let mut client = node.healthy().await?;
    let old = node.uuid(4)?;
    node.sim()?.request(&Request::Replace { gpu: 4 })?;
    let gone = |gpu: &Gpu| {
        let gone = condition_of(gpu, "Gone");
        gone.is_some_and(|gone| gone.reason == "Replaced") && health_of(gpu) == Health::Unknown
    };
    until(&mut client, &old, "gone", gone).await?;
    let gpus = node.sim()?.status()?.gpus;
    let new = &gpus.get(4).context("no GPU 4")?.uuid;
    assert_ne!(*new, old);
    until(&mut client, new, "Healthy", is(Health::Healthy)).await?;
    node.daemon.wait_for(&["GPU recovered", &old, new])?;
    assert!(metric(&node, "nvml_recoveries_total")? > 0.5);
    assert!((metric(&node, "nvml_gpu_count")? - 8.0).abs() < 0.5);
    ready_says(&node, "nvml", &["up", "8 GPUs"]).await?;
    costs_nothing(&node, "one was replaced").await?;
    // The address is the new one's.
    is_heard_of(&node, &mut client, 4, new).await?;
    assert!(!stands(&client.get(&old).await?, "XidCriticalError"));
    Ok(())
}

/// As [`is_heard`], where another GPU than the first is in the slot.
async fn is_heard_of(node: &Node, client: &mut Native, slot: usize, name: &str) -> Result<()> {
    fault(node, slot)?;
    let told = |gpu: &Gpu| health_of(gpu) == Health::Unhealthy && stands(gpu, "XidCriticalError");
    until(client, name, "told of by the kernel", told).await?;
    Ok(())
}
