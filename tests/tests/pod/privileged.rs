//! The kernel's log, which makes the daemon root and the container privileged, and a driver's container, whose root holds the
//! library: docs/install.md, "Without a RuntimeClass".

use std::fs::OpenOptions;
use std::io::Write as _;

use anyhow::{Context as _, Result, ensure};
use device_api_proto::native::{Gpu, Health};
use device_api_tests::health_of;
use nvml_sim::profile::Profile;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::page::Page;
use crate::release::{Release, uuid};

#[tokio::test]
async fn it_reads_the_log_that_only_root_may_read_and_finds_the_library_of_a_container()
-> Result<()> {
    let flags = Page::read()?.without_a_class()?;
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    let Some(mut release) = Release::install_with("", &flags)? else {
        return Ok(());
    };
    ensure!(release.pod["runtimeClassName"].is_null(), "{}", release.pod);
    let libraries = release.machine.path("/run/nvidia/driver/usr/lib64");
    std::fs::create_dir_all(&libraries)?;
    std::fs::copy(
        nvml_sim::find_library()?,
        libraries.join("libnvidia-ml.so.1"),
    )?;
    // A pipe in the device's place, which no kernel but the test writes to.
    let log = release.machine.path("/dev/kmsg");
    std::fs::create_dir_all(log.parent().context("no parent")?)?;
    mknodat(CWD, &log, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
    let running = release.started().await?;
    let mut client = release.healthy().await?;
    ensure!(running.status()?["Uid"] == "0 0 0 0");

    let mut watch = client.watch(0).await?;
    let gpu = Profile::standard().gpu(3).context("no such GPU")?;
    let mut log = OpenOptions::new().write(true).open(log)?;
    writeln!(
        log,
        "NVRM: Xid (PCI:{}): 79, pid=0, GPU has fallen off the bus.",
        gpu.pci
    )?;
    let unhealthy = |gpu: &Gpu| health_of(gpu) == Health::Unhealthy;
    watch.until(&uuid(3)?, "Unhealthy", unhealthy).await?;
    Ok(())
}
