//! MIG instances as consumers see them (design N9): devices with a parent, whose health follows from it.

use std::os::unix::fs::symlink;

use anyhow::{Context as _, Result};
use device_api_proto::native::{
    ConditionStatus, EventType, Gpu, Health, ListGpusRequest, WatchGpusRequest,
};
use device_api_proto::upstream;
use device_api_tests::{Native, Node, PATIENCE, condition_of, health_of};
use nvml_sim::control::{MigStatus, Only, Request};
use rustix::process::Signal;

/// On which all this happens; another is there, too.
const GPU: u32 = 1;

fn healthy(gpu: &Gpu) -> bool {
    health_of(gpu) == Health::Healthy
}

fn is_problem(gpu: &Gpu, type_: &str) -> bool {
    condition_of(gpu, type_).is_some_and(|condition| condition.status() == ConditionStatus::True)
}

fn is_whole(gpu: &Gpu) -> bool {
    let spec = gpu.spec.as_ref();
    spec.is_some_and(|spec| spec.mig_instances.is_empty())
}

/// A node of two GPUs, one of which is cut up; all is Healthy.
async fn cut_up(profiles: &[&str]) -> Result<(Node, Native, Vec<MigStatus>)> {
    let node = Node::builder()?.gpus(2).start()?;
    let mut client = node.healthy().await?;
    let cut = node.cut_up(GPU, profiles)?;
    all_healthy(&mut client, &cut).await?;
    Ok((node, client, cut))
}

async fn all_healthy(client: &mut Native, cut: &[MigStatus]) -> Result<()> {
    for mig in cut {
        let mut watch = client.watch(0).await?;
        watch.until(&mig.uuid, "Healthy", healthy).await?;
    }
    Ok(())
}

async fn healths(client: &mut Native, names: &[&str]) -> Result<Vec<Health>> {
    let mut healths = Vec::new();
    for name in names {
        healths.push(health_of(&client.get(name).await?));
    }
    Ok(healths)
}

fn mig_xid(node: &Node, gpu_instance: u32, code: u64) -> Result<()> {
    node.sim()?.request(&Request::MigXid {
        gpu: GPU,
        gpu_instance,
        compute_instance: Some(0),
        codes: vec![code],
        only: Some(Only::Nvml),
    })?;
    Ok(())
}

#[tokio::test]
async fn n9_instances_are_listed_with_parent_profile_and_place() -> Result<()> {
    let (node, mut client, cut) = cut_up(&["3g.40gb", "1g.10gb", "1g.10gb"]).await?;
    let parent = node.uuid(GPU)?;
    let request = ListGpusRequest {
        field_selector: format!("spec.mig_parent={parent}"),
        ..Default::default()
    };
    let list = client.gpus.list_gpus(request).await?.into_inner();
    assert_eq!(list.gpus.len(), 3);
    assert_eq!(client.list().await?.gpus.len(), 5);
    let of_gpu = client.get(&parent).await?.spec.context("no spec")?;
    for mig in &cut {
        let gpu = client.get(&mig.uuid).await?;
        let spec = gpu.spec.context("no spec")?;
        assert_eq!(
            (&spec.mig_parent, &spec.mig_profile),
            (&parent, &mig.profile)
        );
        assert_eq!(
            (spec.mig_gpu_instance, spec.mig_compute_instance),
            (Some(mig.gpu_instance), Some(mig.compute_instance))
        );
        assert_eq!(
            (&spec.product, &spec.pci_address),
            (&of_gpu.product, &of_gpu.pci_address)
        );
        assert!(spec.memory_bytes > Some(8 << 30) && spec.memory_bytes < of_gpu.memory_bytes);
        let mut listed = of_gpu.mig_instances.iter();
        assert!(listed.any(|listed| listed.uuid == mig.uuid));
    }
    // The upstream dialect has no word for a part of a GPU.
    let mut upstream = node.upstream().await?;
    let list = upstream
        .gpus
        .list_gpus(upstream::ListGpusRequest::default());
    let list = list.await?.into_inner().gpu_list.context("no list")?;
    assert_eq!(list.items.len(), 2);
    let request = upstream::GetGpuRequest {
        name: cut.first().context("none")?.uuid.clone(),
        ..Default::default()
    };
    let refused = upstream.gpus.get_gpu(request).await;
    assert_eq!(
        refused.map_err(|status| status.code()).err(),
        Some(tonic::Code::NotFound)
    );
    Ok(())
}

#[tokio::test]
async fn n9_an_instances_fault_stays_on_it_and_its_gpus_reaches_all() -> Result<()> {
    let (node, mut client, cut) = cut_up(&["3g.40gb", "1g.10gb", "1g.10gb"]).await?;
    let (gpu, other) = (node.uuid(GPU)?, node.uuid(0)?);
    let [a, b, c] = cut.as_slice() else {
        anyhow::bail!("{cut:?}");
    };
    let names = [&*gpu, &*other, &*a.uuid, &*b.uuid, &*c.uuid];
    let (fine, bad) = (Health::Healthy, Health::Unhealthy);
    let critical = |gpu: &Gpu| is_problem(gpu, "XidCriticalError");
    let mut watch = client.watch(0).await?;

    // As NVML tells of it.
    mig_xid(&node, b.gpu_instance, 62)?;
    let told = watch.until(&b.uuid, "told of XID 62", critical).await?;
    assert_eq!(health_of(&told), bad);
    assert_eq!(
        healths(&mut client, &names).await?,
        [fine, fine, fine, bad, fine]
    );
    // As the kernel log does.
    let pci = &node.gpus().remove(1).pci;
    let line = format!(
        "[ 9.000000] NVRM: Xid (PCI:{} GPU-I:{:02}): 62, pid=7194, 0x1",
        pci.kernel(),
        c.gpu_instance
    );
    node.kernel_log([&*line])?;
    watch.until(&c.uuid, "told of XID 62", critical).await?;
    assert_eq!(
        healths(&mut client, &names).await?,
        [fine, fine, fine, bad, bad]
    );
    // An application's fault breaks nothing.
    mig_xid(&node, a.gpu_instance, 31)?;
    let application = |gpu: &Gpu| is_problem(gpu, "XidApplicationError");
    let told = watch.until(&a.uuid, "told of XID 31", application).await?;
    assert_eq!(health_of(&told), fine);

    node.sim()?.xid(GPU, &[79])?;
    watch.until(&gpu, "told of XID 79", critical).await?;
    assert_eq!(
        healths(&mut client, &names).await?,
        [bad, fine, bad, bad, bad]
    );
    let inherited = client.get(&a.uuid).await?;
    let status = inherited.status.context("no status")?;
    assert_eq!(status.recommended_action, "RESTART_BM");
    Ok(())
}

#[tokio::test]
async fn n9_reconfiguration_deletes_the_old_instances_and_the_new_begin_clean() -> Result<()> {
    let (node, mut client, cut) = cut_up(&["1g.10gb", "1g.10gb"]).await?;
    let old = cut.first().context("not cut up")?;
    let critical = |gpu: &Gpu| is_problem(gpu, "XidCriticalError");
    let mut watch = client.watch(0).await?;
    mig_xid(&node, old.gpu_instance, 62)?;
    let told = watch.until(&old.uuid, "told of XID 62", critical).await?;
    let request = WatchGpusRequest {
        resource_version: told.resource_version,
        ..Default::default()
    };
    let mut stream = client.gpus.watch_gpus(request).await?.into_inner();

    let new = node.cut_up(GPU, &["1g.10gb", "1g.10gb"])?;
    let is_old = |name: &str| cut.iter().any(|mig| mig.uuid == name);
    assert!(new.iter().all(|mig| !is_old(&mig.uuid)));
    assert_eq!(
        new.first().map(|mig| mig.gpu_instance),
        Some(old.gpu_instance),
        "in the place of the old"
    );
    let mut deleted = Vec::new();
    while deleted.len() < cut.len() {
        let event = tokio::time::timeout(PATIENCE, stream.message()).await??;
        let event = event.context("the watch ended")?;
        let gpu = event.gpu.clone().context("no GPU")?;
        if is_old(&gpu.name) && event.r#type() == EventType::Deleted {
            deleted.push(gpu.name);
        }
    }
    all_healthy(&mut client, &new).await?;
    for mig in &new {
        let gpu = client.get(&mig.uuid).await?;
        assert!(condition_of(&gpu, "XidCriticalError").is_none(), "{gpu:?}");
    }
    assert_eq!(client.list().await?.gpus.len(), 4);
    assert!(client.get(&old.uuid).await.is_err());

    node.sim()?.request(&Request::MigMode {
        gpu: GPU,
        on: false,
    })?;
    let mut watch = client.watch(0).await?;
    watch
        .until(&node.uuid(GPU)?, "whole again", is_whole)
        .await?;
    assert_eq!(client.list().await?.gpus.len(), 2);
    Ok(())
}

#[tokio::test]
async fn n9_c7_a_killed_daemon_comes_back_with_its_instances_and_heals_none() -> Result<()> {
    let builder = Node::builder()?.gpus(2);
    let library = builder.dir().join("libnvidia-ml.so.1");
    symlink(nvml_sim::find_library()?, &library)?;
    let flag = library.display().to_string();
    let mut node = builder.flag("nvml-library", flag).start()?;
    let mut client = node.healthy().await?;
    let cut = node.cut_up(GPU, &["1g.10gb", "1g.10gb"])?;
    all_healthy(&mut client, &cut).await?;
    let [bad, fine] = cut.as_slice() else {
        anyhow::bail!("{cut:?}");
    };
    let critical = |gpu: &Gpu| is_problem(gpu, "XidCriticalError");
    let mut watch = client.watch(0).await?;
    mig_xid(&node, bad.gpu_instance, 62)?;
    let before = watch.until(&bad.uuid, "told of XID 62", critical).await?;

    // Nobody tells the next run which instances there are.
    std::fs::remove_file(&library)?;
    // Orderly, so that all that was decided is durable.
    node.stop(Signal::TERM)?;
    node.start_again()?;
    let mut client = node.native().await?;
    let gpu = node.uuid(GPU)?;
    let (unknown, unhealthy) = (Health::Unknown, Health::Unhealthy);
    assert_eq!(
        healths(&mut client, &[&gpu, &bad.uuid, &fine.uuid]).await?,
        [unknown, unhealthy, unknown]
    );
    let after = client.get(&bad.uuid).await?;
    assert_eq!(after.uid, before.uid);
    assert_eq!(after.spec.context("no spec")?.mig_parent, gpu);

    // The simulated library begins anew, as after a boot: there are none any more.
    symlink(nvml_sim::find_library()?, &library)?;
    let mut watch = client.watch(0).await?;
    watch
        .until(&gpu, "whole and Healthy", |gpu| {
            is_whole(gpu) && healthy(gpu)
        })
        .await?;
    assert_eq!(client.list().await?.gpus.len(), 2);
    Ok(())
}
