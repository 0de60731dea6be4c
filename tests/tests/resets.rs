//! GPU resets as operators make them: with the commands that `devicectl gpu explain` prints, of which the last tells
//! the daemon, since NVML shows nothing of most resets (design N7, H12); and what links do after one.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use device_api_proto::native::{Condition, ConditionStatus, Gpu, Health};
use device_api_tests::{Builder, Node, binary, condition_of, health_of};
use rustix::process::Signal;

fn devicectl(node: &Node, args: &[&str]) -> Result<String> {
    let said = Command::new(binary("devicectl")?)
        .arg("--socket")
        .arg(node.socket())
        .args(args)
        .output()?;
    ensure!(said.status.success(), "{args:?}: {said:?}");
    Ok(String::from_utf8(said.stdout)?)
}

fn problem<'a>(gpu: &'a Gpu, type_: &str) -> Option<&'a Condition> {
    condition_of(gpu, type_).filter(|condition| condition.status() == ConditionStatus::True)
}

/// Programs of an operator's machine: `devicectl`, and an `nvidia-smi` that resets simulated GPUs. As the real one, it
/// names the GPU by its address, and refuses while anybody has the driver open.
fn programs(node: &Node) -> Result<PathBuf> {
    let folder = node.dir().join("bin");
    fs::create_dir(&folder)?;
    std::os::unix::fs::symlink(binary("devicectl")?, folder.join("devicectl"))?;
    let index = |(index, gpu): (usize, nvml_sim::profile::Identity)| {
        format!("    {}) gpu={index} ;;\n", gpu.pci)
    };
    let gpus: String = node.gpus().into_iter().enumerate().map(index).collect();
    let sim = binary("nvml-sim")?;
    let sim = sim.display();
    let script = format!(
        "#!/bin/sh\n\
         [ \"$1\" = --gpu-reset ] && [ \"$2\" = -i ] && [ $# = 3 ] || exit 2\n\
         case \"$3\" in\n{gpus}    *) echo \"no GPU at $3\" >&2; exit 6 ;;\nesac\n\
         '{sim}' --json status | grep -q '\"users\":0,' || {{ echo 'In use by another client' >&2; exit 19; }}\n\
         exec '{sim}' gpu-reset --gpu \"$gpu\"\n"
    );
    let file = folder.join("nvidia-smi");
    fs::write(&file, script)?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
    Ok(folder)
}

/// What `explain` says to run for all of a GPU.
fn remedy(node: &Node, gpu: u32) -> Result<String> {
    let explained = devicectl(node, &["gpu", "explain", &gpu.to_string()])?;
    let mut lines = explained.lines().take_while(|line| !line.is_empty());
    let remedy = lines.find_map(|line| line.trim().strip_prefix("Run:"));
    let remedy = remedy.with_context(|| format!("no command in\n{explained}"))?;
    Ok(remedy.trim().to_owned())
}

/// Types a command as it was printed.
fn typed(node: &Node, programs: &Path, command: &str) -> Result<String> {
    let path = format!("{}:{}", programs.display(), std::env::var("PATH")?);
    let ran = Command::new("sh")
        .args(["-c", command])
        .env("PATH", path)
        .env("DEVICE_API_SOCKET", node.socket())
        .env("NVML_SIM_SOCKET", node.sim_socket())
        .output()?;
    ensure!(ran.status.success(), "{command}: {ran:?}");
    Ok(String::from_utf8(ran.stdout)?)
}

#[tokio::test]
async fn h12_n7_what_explain_says_to_run_heals_a_gpu_whose_reset_shows_in_nothing() -> Result<()> {
    let node = Node::start()?;
    let programs = programs(&node)?;
    let mut client = node.healthy().await?;
    let faults = [(1, 119), (2, 48), (3, 95)];
    let mut watch = client.watch(0).await?;
    for (gpu, code) in faults {
        node.sim()?.xid(gpu, &[code])?;
    }
    for (gpu, code) in faults {
        let is_so = |gpu: &Gpu| {
            let status = gpu.status.clone().unwrap_or_default();
            health_of(gpu) == Health::Unhealthy && status.recommended_action == "COMPONENT_RESET"
        };
        let what = format!("to be reset for XID {code}");
        client
            .watch(0)
            .await?
            .until(&node.uuid(gpu)?, &what, is_so)
            .await?;
    }
    for (at, (gpu, code)) in faults.into_iter().enumerate() {
        let name = node.uuid(gpu)?;
        let said = typed(&node, &programs, &remedy(&node, gpu)?)?;
        ensure!(
            said.contains(&format!("That {name} was reset is noted.")),
            "{said}"
        );
        let line = node
            .daemon
            .wait_for_nth(&["GPU recovered", "gpu-reset"], at + 1)?;
        let evidence = "nvidia-smi --gpu-reset";
        ensure!(
            line.contains("reported by uid:") && line.contains(evidence),
            "{line}"
        );
        let is_well = |gpu: &Gpu| {
            let read = condition_of(gpu, "NvmlReachable");
            let is_read = read.is_some_and(|read| read.reason == "Answers");
            health_of(gpu) == Health::Healthy && is_read
        };
        let well = format!("Healthy after XID {code}");
        let gpu = watch.until(&name, &well, is_well).await?;
        for condition in ["XidCriticalError", "FaultFloor", "PolicyFallback"] {
            ensure!(problem(&gpu, condition).is_none(), "{code}: {gpu:?}");
        }
        // It is of this GPU alone.
        for (other, code) in faults.into_iter().skip(at + 1) {
            let other = client.get(&node.uuid(other)?).await?;
            ensure!(health_of(&other) == Health::Unhealthy, "{code}: {other:?}");
        }
    }
    let audited = node
        .daemon
        .wait_for(&["audit", "ReportReset", "outcome=\"OK\""])?;
    ensure!(audited.contains(&node.uuid(1)?), "{audited}");
    // Seen again, it is a fault again.
    node.sim()?.xid(1, &[119])?;
    let unhealthy = |gpu: &Gpu| health_of(gpu) == Health::Unhealthy;
    watch
        .until(&node.uuid(1)?, "Unhealthy again", unhealthy)
        .await?;
    Ok(())
}

#[tokio::test]
async fn n7_n9_a_reset_is_reported_of_a_gpu_that_is_there_and_not_of_its_instances() -> Result<()> {
    let node = Node::start()?;
    let mut client = node.healthy().await?;
    let cut = node.cut_up(0, &["3g.40gb"])?;
    let instance = &cut.first().context("not cut up")?.uuid;
    client
        .watch(0)
        .await?
        .until(instance, "there", |_| true)
        .await?;
    let refused = |name: &str, reason: &str| -> Result<String> {
        let said = Command::new(binary("devicectl")?)
            .arg("--socket")
            .arg(node.socket())
            .args(["gpu", "report-reset", name, "--reason", reason])
            .output()?;
        ensure!(said.status.code() == Some(1), "{said:?}");
        Ok(String::from_utf8(said.stderr)?)
    };
    let said = refused(instance, "why")?;
    let parent = node.uuid(0)?;
    ensure!(
        said.contains(&format!("is reset with its GPU: report it of {parent}")),
        "{said}"
    );
    ensure!(refused("99", "why")?.contains("\"99\" not found"));
    ensure!(refused("1", " ")?.contains("reason: required"));
    Ok(())
}

/// Links take a while; limits are read as often as all else.
fn settling(nvlink_s: u64, pcie_s: u64) -> Result<Builder> {
    let builder = Node::builder()?.gpus(2);
    let file = builder.dir().join("policies.yaml");
    let policies = format!(
        "policies:\n  - name: nvml-health\n    config: {{nvlink_settle_s: {nvlink_s}, pcie_settle_s: {pcie_s}}}\n"
    );
    fs::write(&file, policies)?;
    Ok(builder
        .flag("policies-file", file.to_string_lossy())
        .flag("nvml-limit-interval", "200ms"))
}

#[tokio::test]
async fn n7_links_that_are_bad_after_a_reported_reset_are_told_of_again() -> Result<()> {
    let node = settling(1, 1)?.start()?;
    let mut client = node.healthy().await?;
    let mut watch = client.watch(0).await?;
    let name = node.uuid(0)?;
    let all = ["NvLink", "PcieLink"];
    node.sim()?
        .set(0, &[("nvlink.3.up", 0), ("pcie.link-width", 8)])?;
    let stand = |gpu: &Gpu| {
        all.iter()
            .all(|condition| problem(gpu, condition).is_some())
    };
    let before = watch.until(&name, "badly linked", stand).await?;
    devicectl(
        &node,
        &["gpu", "report-reset", &name, "--reason", "by the chassis"],
    )?;
    let since = |gpu: &Gpu, condition: &str| {
        problem(gpu, condition).and_then(|found| found.last_transition_time)
    };
    let are_back = |gpu: &Gpu| {
        let mut all = all.iter();
        stand(gpu) && all.all(|condition| since(gpu, condition) != since(&before, condition))
    };
    watch.until(&name, "badly linked again", are_back).await?;
    node.sim()?
        .set(0, &[("nvlink.3.up", 1), ("pcie.link-width", 16)])?;
    let healthy = |gpu: &Gpu| health_of(gpu) == Health::Healthy;
    watch.until(&name, "well linked", healthy).await?;
    Ok(())
}

#[tokio::test]
async fn n7_links_that_train_after_a_reset_that_is_noticed_are_no_problem_and_those_that_do_not_are()
-> Result<()> {
    let node = settling(5, 5)?.start()?;
    let mut client = node.healthy().await?;
    let mut watch = client.watch(0).await?;
    let (trains, stays) = (node.uuid(0)?, node.uuid(1)?);
    let mut sim = node.sim()?;
    for (gpu, name) in [(0, &trains), (1, &stays)] {
        sim.set(gpu, &[("row-remap.pending", 1)])?;
        let pending = |gpu: &Gpu| problem(gpu, "RowRemap").is_some();
        watch.until(name, "to be reset", pending).await?;
    }
    devicectl(
        &node,
        &["nvml", "release", "--for", "reset", "--ttl", "10m"],
    )?;
    for gpu in [0, 1] {
        sim.gpu_reset(gpu)?;
        sim.set(gpu, &[("nvlink.3.up", 0), ("pcie.link-width", 8)])?;
    }
    devicectl(&node, &["nvml", "attach"])?;
    node.daemon
        .wait_for_nth(&["GPU recovered", "no row remap is pending any more"], 2)?;
    sim.set(0, &[("nvlink.3.up", 1), ("pcie.link-width", 16)])?;
    let all = ["NvLink", "PcieLink"];
    loop {
        let Some(gpu) = watch.next().await?.gpu else {
            continue;
        };
        let mut told = all
            .iter()
            .filter(|condition| problem(&gpu, condition).is_some());
        if gpu.name == trains {
            ensure!(told.next().is_none(), "its links trained in time: {gpu:?}");
        } else if told.count() == all.len() {
            return Ok(());
        }
    }
}

#[tokio::test]
async fn n7_a_recovery_action_that_is_none_when_the_daemon_is_back_ends_what_names_it() -> Result<()>
{
    let mut node = Node::start()?;
    let mut client = node.healthy().await?;
    let name = node.uuid(1)?;
    node.sim()?.recovery_action(1, 1)?;
    let asked = |gpu: &Gpu| problem(gpu, "RecoveryActionRequired").is_some();
    let mut watch = client.watch(0).await?;
    watch.until(&name, "to be reset", asked).await?;
    node.stop(Signal::TERM)?;
    // The simulated machine ends with the daemon: its next GPUs are as new.
    node.start_again()?;
    let mut client = node.native().await?;
    let mut watch = client.watch(0).await?;
    let healthy = |gpu: &Gpu| health_of(gpu) == Health::Healthy;
    let gpu = watch.until(&name, "well", healthy).await?;
    for type_ in ["RecoveryActionRequired", "FaultFloor"] {
        ensure!(problem(&gpu, type_).is_none(), "{gpu:?}");
    }
    Ok(())
}

#[tokio::test]
async fn n7_a_driver_that_is_only_loaded_anew_under_a_release_for_a_reset_has_reset_nothing()
-> Result<()> {
    let node = Node::start()?;
    let mut client = node.healthy().await?;
    let name = node.uuid(2)?;
    let mut sim = node.sim()?;
    let mut watch = client.watch(0).await?;
    sim.set(2, &[("ecc.volatile.dram.corrected", 3)])?;
    sim.xid(2, &[64])?;
    let bad = |gpu: &Gpu| health_of(gpu) == Health::Unhealthy;
    watch.until(&name, "to be reset", bad).await?;
    let is = |gpu: &Gpu, reason: &str| {
        condition_of(gpu, "NvmlReachable").is_some_and(|reached| reached.reason == reason)
    };
    devicectl(
        &node,
        &["nvml", "release", "--for", "reset", "--ttl", "10m"],
    )?;
    let released = |gpu: &Gpu| is(gpu, "Released");
    watch.until(&name, "let go of", released).await?;
    sim.unload()?;
    sim.load()?;
    devicectl(&node, &["nvml", "attach"])?;
    // A reset is told of before the GPU is.
    let answers = |gpu: &Gpu| is(gpu, "Answers");
    let gpu = watch.until(&name, "back", answers).await?;
    ensure!(bad(&gpu), "it was taken for a reset: {gpu:?}");
    Ok(())
}
