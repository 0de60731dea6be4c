//! What a GPU's own hardware does: it falls off the bus; its memory runs out of spare rows.

use std::time::Duration;

use anyhow::{Context as _, Result};
use device_api_proto::native::{Health, Incident};
use device_api_tests::condition_of;

use crate::stage::{Stage, State, WELL};

#[tokio::test]
async fn n1_n5_off_the_bus_under_load() -> Result<()> {
    let mut stage = Stage::set("off-the-bus-under-load").await?;
    stage.others_are_well(&[]).await?;

    // A call hangs, and the kernel and NVML's events tell of 79.
    stage.step(Duration::from_secs(2), 2)?;
    let fallen = (
        Health::Unhealthy,
        "RESTART_BM",
        &[
            ("GpuLost", "NoAnswer"),
            ("NvmlReachable", "NoAnswer"),
            ("XidCriticalError", "NodeRebootRequired"),
        ][..],
    );
    let gpu = stage.gpu_until(3, fallen).await?;
    let evidence = condition_of(&gpu, "XidCriticalError").map(|it| it.evidence.clone());
    assert!(!evidence.unwrap_or_default().is_empty(), "{gpu:#?}");
    stage.incidents(&["3: xid 79 by kmsg+nvml"]).await?;
    stage.others_are_well(&[3]).await?;

    // It answers no more; what NVML tells and the line without a code are the fault that is known.
    stage.step(Duration::from_millis(100), 3)?;
    stage.step(Duration::from_secs(3), 4)?;
    let lost = (
        Health::Unhealthy,
        "RESTART_BM",
        &[
            ("GpuLost", "NoAnswer"),
            ("NvmlReachable", "NoAnswer"),
            ("RecoveryActionRequired", "NodeRebootRequired"),
            ("XidCriticalError", "NodeRebootRequired"),
        ][..],
    );
    stage.gpu_until(3, lost).await?;
    let told = ["3: xid 79 by kmsg+nvml", "3: xid 154 of xid 79 by kmsg"];
    let incidents = stage.incidents(&told).await?;
    assert!(incidents.iter().all(|one| one.drill), "{incidents:#?}");
    stage.others_are_well(&[3]).await?;
    stage.is_over()
}

/// A contained error, and a row that waits for a reset to be replaced.
const CONTAINED: State<'static> = (
    Health::Degraded,
    "COMPONENT_RESET",
    &[
        ("RecoveryActionRequired", "DrainAndReset"),
        ("RowRemap", "RemapPending"),
        ("XidApplicationError", "ContainedError|RowRemapRecorded"),
        ("XidDegraded", "DrainAndReset"),
    ],
);

/// No row is left to be replaced.
const FAILED: State<'static> = (
    Health::Unhealthy,
    "CONTACT_SUPPORT",
    &[
        ("RecoveryActionRequired", "GpuResetRequired"),
        ("RowRemap", "RemapFailed"),
        ("XidApplicationError", "ContainedError|RowRemapRecorded"),
        ("XidCriticalError", "GpuResetRequired"),
        ("XidDegraded", "DrainAndReset"),
    ],
);

/// The newest of an XID.
fn newest(told: &[Incident], code: u64) -> Result<&Incident> {
    let its = told.iter().filter(|one| one.code == Some(code));
    its.max_by_key(|one| one.id)
        .with_context(|| format!("no {code}: {told:#?}"))
}

#[tokio::test]
async fn n4_n7_row_remap_failure() -> Result<()> {
    let mut stage = Stage::set("row-remap-failure").await?;
    // Eleven rows were replaced long ago.
    stage.others_are_well(&[]).await?;

    stage.step(Duration::from_secs(1), 2)?;
    stage.gpu_until(2, CONTAINED).await?;
    // Which of a batch has the policy's word is a matter of milliseconds, and makes no difference.
    let event = "2: ecc by nvml";
    let double = "2: xid 48 by kmsg+nvml";
    let contained = "2: xid 94 of xid 48 by kmsg+nvml";
    let first = [
        event,
        double,
        "2: xid 63 of xid 48 by kmsg+nvml",
        contained,
        "2: xid 154 of xid 48 by field-230+kmsg",
        "2: reading by nvml",
    ];
    let told = stage.incidents(&first).await?;
    let before = newest(&told, 48)?.id;

    // The reset does what is pending.
    stage.step(Duration::from_secs(30), 3)?;
    stage.gpu_until(2, WELL).await?;
    let mut all = first
        .map(|line| format!("{line}, closed by gpu-reset"))
        .to_vec();
    stage.incidents(&all).await?;

    // No row is left.
    stage.step(Duration::from_secs(120), 4)?;
    stage.gpu_until(2, FAILED).await?;
    let next = [
        event,
        double,
        contained,
        "2: xid 64 of xid 48 by kmsg+nvml",
        "2: xid 154 of xid 48 by field-230+kmsg",
        "2: reading by nvml",
    ];
    all.extend(next.map(str::to_owned));
    let told = stage.incidents(&all).await?;
    let after = newest(&told, 48)?.id;
    assert!(after > before, "{told:#?}");
    for code in [64, 94, 154] {
        assert_eq!(newest(&told, code)?.root, after, "{code}");
    }

    // A reset heals all but what it can't.
    stage.step(Duration::from_secs(30), 5)?;
    let used_up = (
        Health::Unhealthy,
        "CONTACT_SUPPORT",
        &[("RowRemap", "RemapFailed")][..],
    );
    stage.gpu_until(2, used_up).await?;
    stage.others_are_well(&[2]).await?;
    stage.is_over()
}
