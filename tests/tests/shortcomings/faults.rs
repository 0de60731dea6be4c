//! What is made of faults: 7 and 12.

use anyhow::{Context as _, Result};
use device_api_tests::Node;
use nvml_sim::control::EccKind;

use crate::client::{is, until, watch};

/// 7. Its NVML provider took ECC events for XIDs. (NVML that errors: `n2_a_driver_that_goes_and_comes_is_followed`
/// and `n3_an_event_set_that_keeps_saying_lost_holds_nobody_up` of host/nvml.)
#[tokio::test]
async fn shortcoming_07_an_ecc_event_is_no_xid() -> Result<()> {
    let node = Node::start()?;
    node.healthy().await?;
    let mut client = node.upstream().await?;
    let name = node.uuid(0)?;
    let mut stream = watch(&mut client, "", "").await?;
    node.sim()?.ecc(0, EccKind::Corrected, 1)?;
    // Behind it: once that is told, the event was judged.
    node.sim()?.xid(0, &[31])?;
    let gpu = until(&mut stream, &name, is("XidApplicationError", "True")).await?;
    assert!(is("Ready", "True")(&gpu));
    assert!(!is("XidCriticalError", "True")(&gpu), "{gpu:?}");
    Ok(())
}

/// 7. It ignored a lost GPU, and never recovered a condition.
#[tokio::test]
async fn shortcoming_07_a_lost_gpu_is_told_and_conditions_recover() -> Result<()> {
    let node = Node::start()?;
    node.healthy().await?;
    let mut client = node.upstream().await?;
    let name = node.uuid(3)?;
    let mut stream = watch(&mut client, "", "").await?;
    node.sim()?.lost(3)?;
    let lost = until(&mut stream, &name, is("GpuLost", "True")).await?;
    assert!(is("Ready", "False")(&lost));
    node.sim()?.found(3)?;
    until(&mut stream, &name, is("Ready", "True")).await?;
    node.sim()?.temperature(3, 95)?;
    until(&mut stream, &name, is("Temperature", "True")).await?;
    node.sim()?.temperature(3, 40)?;
    until(&mut stream, &name, is("Temperature", "False")).await?;
    Ok(())
}

/// 12. Its critical XIDs missed these, which the vendor's catalogue calls for a reset or restart for…
const MISSED: [(u64, &str); 11] = [
    (46, "COMPONENT_RESET"),
    (62, "COMPONENT_RESET"),
    (109, "COMPONENT_RESET"),
    (110, "COMPONENT_RESET"),
    (136, "COMPONENT_RESET"),
    (140, "COMPONENT_RESET"),
    (143, "COMPONENT_RESET"),
    (151, "RESTART_BM"),
    (155, "COMPONENT_RESET"),
    (156, "COMPONENT_RESET"),
    (158, "COMPONENT_RESET"),
];

/// … and it called these fatal: a row that was remapped, and an error that was contained.
const MISREPORTED: [u64; 2] = [63, 94];

/// 12. Its list of critical XIDs missed eleven, and it reported 63 and 94 wrongly.
#[tokio::test]
async fn shortcoming_12_xids_are_classified_as_the_vendor_does() -> Result<()> {
    let count = u32::try_from(MISSED.len() + MISREPORTED.len())?;
    let node = Node::builder()?.gpus(count).start()?;
    node.healthy().await?;
    let mut client = node.upstream().await?;
    let mut stream = watch(&mut client, "", "").await?;
    for (gpu, (xid, action)) in (0..).zip(MISSED) {
        node.sim()?.xid(gpu, &[xid])?;
        let told = until(
            &mut stream,
            &node.uuid(gpu)?,
            is("XidCriticalError", "True"),
        )
        .await?;
        assert!(is("Ready", "False")(&told), "XID {xid}: {told:?}");
        let recommended = told.status.context("no status")?.recommended_action;
        assert_eq!(recommended, action, "XID {xid}");
    }
    for (gpu, xid) in (u32::try_from(MISSED.len())?..).zip(MISREPORTED) {
        node.sim()?.xid(gpu, &[xid])?;
        // An application's fault behind it: once that is told, the first was judged.
        node.sim()?.xid(gpu, &[31])?;
        let told = until(
            &mut stream,
            &node.uuid(gpu)?,
            is("XidApplicationError", "True"),
        )
        .await?;
        assert!(is("Ready", "True")(&told), "XID {xid}: {told:?}");
    }
    Ok(())
}
