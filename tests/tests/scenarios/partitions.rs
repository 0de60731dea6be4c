//! MIG: instances that end under whoever looks at them, and a fault of one of the new ones.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use device_api_proto::native::{EventType, Gpu, Health, WatchGpusRequest};
use device_api_tests::PATIENCE;

use crate::stage::{Stage, State, WELL};

const GPU: u32 = 1;

/// The instance that has a fault, by its GPU instance's number.
const FAULTY: u32 = 7;

/// The instances of the GPU that are listed, by the number of their GPU instance, once they are of these profiles.
async fn cut_into(stage: &mut Stage, profiles: &[&str]) -> Result<BTreeMap<u32, String>> {
    let parent = stage.node.uuid(GPU)?;
    let mut watch = stage.client.watch(0).await?;
    let mut wanted = profiles.to_vec();
    wanted.sort_unstable();
    let is_cut = |gpu: &Gpu| {
        let all = gpu.spec.iter().flat_map(|spec| &spec.mig_instances);
        let mut profiles: Vec<_> = all.map(|one| &*one.profile).collect();
        profiles.sort_unstable();
        profiles == wanted
    };
    watch
        .until(&parent, &format!("{profiles:?}"), is_cut)
        .await?;
    let listed = stage.client.list().await?.gpus;
    let of_gpu = listed.into_iter().filter_map(|gpu| {
        let spec = gpu.spec?;
        (spec.mig_parent == parent).then_some((spec.mig_gpu_instance, gpu.name))
    });
    let instances: BTreeMap<u32, String> = of_gpu
        .map(|(id, name)| Ok((id.context("no number")?, name)))
        .collect::<Result<_>>()?;
    ensure!(instances.len() == profiles.len(), "{instances:?}");
    Ok(instances)
}

#[tokio::test]
async fn n9_mig_reconfiguration() -> Result<()> {
    let mut stage = Stage::set("mig-reconfiguration").await?;
    let old = cut_into(&mut stage, &["3g.40gb", "3g.40gb"]).await?;
    for name in old.values() {
        stage.until(name, WELL).await?;
    }
    let since = stage.client.list().await?.resource_version;
    let request = WatchGpusRequest {
        resource_version: since,
        ..Default::default()
    };
    let mut stream = stage.client.gpus.watch_gpus(request).await?.into_inner();

    stage.step(Duration::from_secs(10), 2)?;
    let mut left: Vec<_> = old.values().collect();
    while !left.is_empty() {
        let event = tokio::time::timeout(PATIENCE, stream.message()).await??;
        let event = event.context("the watch ended")?;
        if event.r#type() == EventType::Deleted {
            let name = event.gpu.context("of nobody")?.name;
            let before = left.len();
            left.retain(|old| **old != name);
            ensure!(left.len() < before, "{name} was deleted");
        }
    }
    let new = cut_into(&mut stage, &["1g.10gb", "1g.10gb", "2g.20gb", "3g.40gb"]).await?;
    ensure!(new.values().all(|name| old.values().all(|old| old != name)));
    for name in new.values() {
        stage.until(name, WELL).await?;
    }
    stage.incidents::<&str>(&[]).await?;

    stage.step(Duration::from_secs(5), 3)?;
    let faulty = new.get(&FAULTY).context("no such instance")?;
    let told: State<'_> = (
        Health::Healthy,
        "NONE",
        &[("XidApplicationError", "Informational")],
    );
    stage.until(faulty, told).await?;
    let incidents = stage.incidents(&["1: xid 43 by kmsg+nvml"]).await?;
    assert_eq!(incidents.first().map(|one| &one.instance), Some(faulty));
    for name in new.values().filter(|name| *name != faulty) {
        let others = stage.client.get(name).await?;
        ensure!(crate::stage::problems(&others).is_empty(), "{others:#?}");
    }
    stage.others_are_well(&[]).await?;

    // What the instance had ends with it.
    stage.step(Duration::from_secs(10), 4)?;
    cut_into(&mut stage, &[]).await?;
    stage
        .incidents(&["1: xid 43 by kmsg+nvml, closed by mig-reconfigured"])
        .await?;
    assert_eq!(stage.client.list().await?.gpus.len(), 8);
    stage.others_are_well(&[]).await?;
    stage.is_over()
}
