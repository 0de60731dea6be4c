//! The chart's limit of 256 MiB, with what needs the most: eight GPUs, a fault on each, and every policy compiled anew; and the
//! 640 MiB that an interpreter wants.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use device_api_proto::native::{Gpu, Health};
use device_api_tests::guests;
use device_api_tests::health_of;
use device_api_tests::tools::{root, skip};

use crate::cgroup::Cgroup;
use crate::container::Container;
use crate::manifest::memory_limit;
use crate::release::{Release, compiled, uuid};

/// What the alert `DeviceApiServerMemoryNearLimit` fires at.
const NEAR_PERCENT: u64 = 90;

const VALUES: &str = "
policies:
  source: configMap
  configMap: site-policies
";

/// Bytes that the daemon has of its program and libraries. On this machine others have read them first, so no group of ours
/// is charged; on a node they are its pod's.
fn mapped_files(running: &Container) -> Result<u64> {
    let status = running.status()?;
    let kibibytes = status
        .get("RssFile")
        .and_then(|rss| rss.strip_suffix(" kB"));
    Ok(kibibytes.context("no RssFile")?.parse::<u64>()? << 10)
}

#[tokio::test]
async fn the_stated_limit_suffices_for_the_daemon_and_its_compiler() -> Result<()> {
    let Some(mut release) = Release::install(VALUES)? else {
        return Ok(());
    };
    let limit = memory_limit(release.container())?;
    ensure!(limit == 256 << 20, "the documents say 256Mi");
    release
        .machine
        .config_map("site-policies", &[("tally.wasm", guests::TALLY_GUEST)])?;
    let running = release.started().await?;
    let mut client = release.healthy().await?;
    let mut watch = client.watch(0).await?;
    for gpu in 0..8 {
        release.sim()?.xid(gpu, &[79])?;
        let unhealthy = |gpu: &Gpu| health_of(gpu) == Health::Unhealthy;
        watch.until(&uuid(gpu)?, "Unhealthy", unhealthy).await?;
    }
    for policy in ["tally", "xid-policy", "nvml-health"] {
        let policy = compiled(&mut client, policy).await?;
        ensure!(policy.active.is_some(), "not compiled: {policy:?}");
    }
    let code = std::fs::read_dir(release.machine.path("/var/lib/device-api/code"))?;
    ensure!(code.count() >= 3, "nothing was compiled here");
    let Some(group) = &running.group else {
        let _: Option<()> = skip("no control group with a memory limit can be made here")?;
        return Ok(());
    };
    let (peak, working_set) = (group.peak()?, group.working_set()?);
    let mapped = mapped_files(&running)?;
    eprintln!(
        "of {limit} bytes: {peak:?} at the most, {working_set} now, and {mapped} of programs"
    );
    ensure!(group.killed()? == 0, "the kernel killed something");
    ensure!(
        (working_set + mapped) * 100 < limit * NEAR_PERCENT,
        "{working_set} and {mapped} of {limit}: the alert would fire"
    );
    let Some(peak) = peak else {
        let _: Option<()> =
            skip("no memory.peak here, which control groups have since Linux 5.19")?;
        return Ok(());
    };
    ensure!(
        peak <= limit && peak > 10 << 20,
        "{peak}: was it in the group?"
    );
    Ok(())
}

/// What the documents ask for where policies are Python's or JavaScript's, of which Python's are larger.
#[tokio::test]
async fn the_limit_that_is_stated_for_python_suffices_to_compile_it() -> Result<()> {
    const STATED: &str = "640Mi";
    const FOLDER: &str = "/opt/gpu-policies";
    // How long a busy machine takes for it is no matter here.
    const VALUES: &str = "
resources:
  limits: {memory: 640Mi}
policies:
  source: hostPath
  hostPath: /opt/gpu-policies
";
    const MANIFEST: &str = "policies: [{name: wasi-py, file: wasi-py.wasm, limits: {start-deadline: 10s, call-deadline: 25ms}}]";
    const PATIENT: [&str; 1] = ["--set=config.limits.compile-deadline=60m"];
    let readme = root()?.join("charts/device-api-server/README.md");
    ensure!(std::fs::read_to_string(readme)?.contains(&format!("some {STATED}")));
    // Where the policies' own tests have built it, or will find it.
    let workshop = Path::new(env!("CARGO_TARGET_TMPDIR")).join("wasi-guests");
    let Some(mut release) = Release::install_with(VALUES, &PATIENT)? else {
        return Ok(());
    };
    let Some(python) = guest_build::wasi::python(&workshop, "tests/guests/wasi-py")? else {
        return Ok(());
    };
    let folder = release.machine.path(FOLDER);
    std::fs::create_dir_all(&folder)?;
    std::fs::copy(python, folder.join("wasi-py.wasm"))?;
    std::fs::write(folder.join("policies.yaml"), MANIFEST)?;
    let running = release.started().await?;
    let mut client = release.healthy().await?;
    let policy = compiled(&mut client, "wasi-py").await?;
    ensure!(policy.active.is_some(), "not compiled: {policy:?}");
    let Some(group) = &running.group else {
        let _: Option<()> = skip("no control group with a memory limit can be made here")?;
        return Ok(());
    };
    let peak = group.peak()?;
    eprintln!("{peak:?} at the most, of {STATED}");
    ensure!(group.killed()? == 0, "the kernel killed something");
    Ok(())
}

/// That the limit of the tests above is one.
#[test]
fn a_limit_that_does_not_suffice_is_felt() -> Result<()> {
    const TOO_LITTLE: &str = "
resources:
  requests: {memory: 4Mi}
  limits: {memory: 6Mi}
";
    let Some(mut release) = Release::install(TOO_LITTLE)? else {
        return Ok(());
    };
    let mut running = release.start_pod()?;
    if running.group.is_none() {
        let _: Option<()> = skip("no control group with a memory limit can be made here")?;
        return Ok(());
    }
    let status = running.wait()?;
    let killed = running.group.as_ref().map(Cgroup::killed).transpose()?;
    ensure!(
        !status.success() && killed > Some(0),
        "{status}, {killed:?}"
    );
    Ok(())
}
