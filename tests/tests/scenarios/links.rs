//! NVLink: a storm of 45 with few roots; a link that comes and goes until it stays down.

use std::time::Duration;

use anyhow::{Context as _, Result};
use device_api_proto::native::Health;

use crate::stage::{Stage, State};

/// Of the storm, for each GPU: by NVML, by the kernel's lines.
const STORM: (u64, u64) = (500, 2);

const RESTART_THE_APPLICATION: State<'static> = (
    Health::Healthy,
    "NONE",
    &[(
        "XidApplicationError",
        "ApplicationFault|FollowsEarlierFault",
    )],
);

#[tokio::test]
async fn n4_n5_xid_45_storm() -> Result<()> {
    let mut stage = Stage::set("xid-45-storm").await?;
    stage.step(Duration::from_millis(20), 2)?;
    stage.step(Duration::from_millis(20), 3)?;
    let mut roots = vec![
        "4: xid 149 by kmsg+nvml".to_owned(),
        "4: xid 45 of xid 149 by kmsg+nvml".to_owned(),
        "4: reading by nvml".to_owned(),
    ];
    for gpu in 5..8 {
        // Where its line came with a 45, the 45 has the word: that makes no difference.
        roots.push(format!("{gpu}: xid 145 by kmsg+nvml"));
        roots.push(format!("{gpu}: xid 45 of xid 145 by kmsg+nvml"));
    }
    let told = stage.incidents(&roots).await?;
    for (gpu, root) in [(4, 149), (5, 145), (6, 145), (7, 145)] {
        let name = stage.node.uuid(gpu)?;
        let of = |code: u64| {
            let mut all = told.iter();
            let one = all.find(|one| one.device == name && one.code == Some(code));
            one.with_context(|| format!("no {code} of {gpu}"))
        };
        assert_eq!(of(45)?.root, of(root)?.id, "GPU {gpu}");
    }
    let down: State<'_> = (
        Health::Degraded,
        "CONTACT_SUPPORT",
        &[
            ("NvLink", "LinkDown"),
            ("XidApplicationError", "FollowsEarlierFault"),
            ("XidDegraded", "UndecodedNvLinkError"),
        ],
    );
    stage.gpu_until(4, down).await?;
    for gpu in 5..8 {
        stage.gpu_until(gpu, RESTART_THE_APPLICATION).await?;
    }
    for gpu in 4..8 {
        let name = stage.node.uuid(gpu)?;
        let all = stage.client.incidents().await?;
        let mut of_gpu = all.into_iter().filter(|one| one.device == name);
        let storm = of_gpu.find(|one| one.code == Some(45)).context("no 45")?;
        let count = |source: &str| {
            let account = storm.accounts.iter().find(|it| it.source == source);
            account.map_or(0, |it| it.count)
        };
        assert_eq!((count("nvml"), count("kmsg")), STORM, "GPU {gpu}");
        assert_eq!(storm.count, STORM.0 + STORM.1, "{storm:#?}");
    }
    stage.others_are_well(&[4, 5, 6, 7]).await?;
    stage.is_over()
}

/// The words of the scenario's lines have the layout of drivers before R575.
const DRIVER: &str = "570.172.08";

#[tokio::test]
async fn n4_n6_nvlink_flap() -> Result<()> {
    let mut stage = Stage::set_on("nvlink-flap", Some(DRIVER)).await?;
    // A 145 that the vendor's table says to ignore.
    let flapped: State<'_> = (
        Health::Healthy,
        "NONE",
        &[("XidApplicationError", "Informational")],
    );
    let down: State<'_> = (
        Health::Degraded,
        "CONTACT_SUPPORT",
        &[
            ("NvLink", "LinkDown"),
            ("XidApplicationError", "Informational"),
        ],
    );
    let mut flaps = Vec::new();
    for (up, next) in [(2, 3), (4, 5)] {
        stage.gpu_until(0, down).await?;
        stage.step(Duration::from_secs(2), up)?;
        stage.gpu_until(0, flapped).await?;
        stage.others_are_well(&[0]).await?;
        // Each time that the link goes is an incident of its own; the 145 goes on.
        flaps.push("0: reading by nvml, closed by policy");
        let told = [&flaps[..], &["0: xid 145 by kmsg"]].concat();
        stage.incidents(&told).await?;
        stage.step(Duration::from_secs(20), next)?;
    }
    let gone: State<'_> = (
        Health::Unhealthy,
        "CONTACT_SUPPORT",
        &[
            ("Fabric", "DegradedBandwidth"),
            ("NvLink", "LinkDown"),
            ("XidApplicationError", "Informational"),
            ("XidCriticalError", "GpuResetRequired"),
        ],
    );
    stage.gpu_until(0, gone).await?;
    let end = [
        "0: xid 145 by kmsg",
        "0: xid 149 by kmsg+nvml",
        "0: reading by nvml",
        "0: reading by nvml",
    ];
    stage.incidents(&[&flaps[..], &end].concat()).await?;
    stage.others_are_well(&[0]).await?;
    stage.is_over()
}
