//! The driver goes and another comes, below a daemon that lets go of it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use device_api_proto::native::nvml_service_client::NvmlServiceClient;
use device_api_proto::native::{
    AttachNvmlRequest, ConditionStatus, Gpu, Health, NvmlReleasePurpose, NvmlState,
    ReleaseNvmlRequest,
};
use device_api_tests::{condition_of, health_of};

use crate::stage::{Stage, State, WELL};

const BEFORE: &str = "580.82.07";
const AFTER: &str = "580.95.05";

/// From before the upgrade, and not of the driver's making.
const BROKEN: State<'static> = (
    Health::Unhealthy,
    "COMPONENT_RESET",
    &[("XidCriticalError", "GpuResetRequired")],
);

fn reached(gpu: &Gpu) -> Option<(ConditionStatus, &str)> {
    let reached = condition_of(gpu, "NvmlReachable")?;
    Some((reached.status(), &reached.reason))
}

fn version(gpu: &Gpu) -> &str {
    let spec = gpu.spec.as_ref();
    spec.map_or("", |spec| &spec.driver_version)
}

#[tokio::test]
async fn n2_n7_driver_upgrade_in_flight() -> Result<()> {
    let mut stage = Stage::set("driver-upgrade-in-flight").await?;
    let mut nvml = NvmlServiceClient::new(stage.client.channel.clone());
    stage.node.sim()?.xid(6, &[119])?;
    stage.gpu_until(6, BROKEN).await?;
    // The library's file is new, and who has the old one open works on.
    for gpu in stage.node.gpus() {
        let told = stage.client.get(&gpu.uuid).await?;
        assert_eq!(version(&told), BEFORE);
    }
    let release = ReleaseNvmlRequest {
        purpose: NvmlReleasePurpose::Upgrade.into(),
        ttl: Some(prost_types::Duration {
            seconds: 3600,
            nanos: 0,
        }),
    };
    let answer = nvml.release_nvml(release).await?.into_inner();
    ensure!(answer.busy.is_none(), "{answer:?}");
    stage.done(2)?;

    // Too early: the module is still the old one.
    let attach = AttachNvmlRequest::default();
    let answer = nvml.attach_nvml(attach).await?.into_inner();
    assert_eq!(answer.state(), NvmlState::Missing);
    ensure!(answer.detail.contains("VERSION_MISMATCH"), "{answer:?}");
    stage.node.daemon.wait_for(&["LIB_RM_VERSION_MISMATCH"])?;
    let first = stage.node.uuid(0)?;
    let without = |gpu: &Gpu| {
        reached(gpu) == Some((ConditionStatus::Unknown, "DriverGone"))
            && health_of(gpu) == Health::Unknown
    };
    stage.until_it(&first, "without a driver", without).await?;

    // The kernel's log is read on, through all of it.
    stage.step(Duration::from_secs(5), 3)?;
    let pci = stage.node.gpus().get(2).context("no GPU 2")?.pci;
    let line = format!(
        "NVRM: Xid (PCI:{}): 119, pid=1, name=x, Timeout waiting for RPC from GSP",
        pci.kernel()
    );
    stage.node.kernel_log([&*line])?;
    let second = stage.node.uuid(2)?;
    let unhealthy = |gpu: &Gpu| health_of(gpu) == Health::Unhealthy;
    stage
        .until_it(&second, "told of by the kernel", unhealthy)
        .await?;

    stage.step(Duration::from_secs(10), 4)?;
    let answer = nvml.attach_nvml(attach).await?.into_inner();
    assert_eq!(answer.state(), NvmlState::Ready, "{answer:?}");
    let status = nvml.get_nvml_status(device_api_proto::native::GetNvmlStatusRequest {});
    let status = status.await?.into_inner();
    assert_eq!((&*status.driver_version, status.gpus), (AFTER, Some(8)));
    for gpu in stage.node.gpus() {
        let state = if [2, 6].contains(&gpu.index) {
            BROKEN
        } else {
            WELL
        };
        let told = stage.gpu_until(gpu.index, state).await?;
        assert_eq!(version(&told), AFTER, "GPU {}", gpu.index);
        assert_eq!(reached(&told), Some((ConditionStatus::True, "Answers")));
    }
    // An upgrade is no incident, and ends none.
    stage
        .incidents(&["2: xid 119 by kmsg", "6: xid 119 by kmsg+nvml"])
        .await?;
    stage.is_over()
}
