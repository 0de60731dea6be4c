//! Who writes, and what stays of it: 6 and 9.

use anyhow::Result;
use device_api_proto::native::{self, Health};
use device_api_proto::upstream::Gpu;
use device_api_tests::{Node, condition_of, health_of};
use rustix::process::Signal;

use crate::client::{
    condition, create, empty, get, is, said, until, version_of, version_text, watch, write,
};

/// 6. Two providers erased each other's conditions. (Two of this dialect:
/// `p1_two_providers_lose_nothing_of_each_other`.)
#[tokio::test]
async fn shortcoming_06_a_whole_status_erases_nothing_of_others() -> Result<()> {
    let (node, mut client) = empty().await?;
    create(&mut client, "gpu-0", "").await?;
    let mut other = node.native().await?;
    let lease = other
        .providers
        .register_provider(native::RegisterProviderRequest {
            name: "agent".to_owned(),
            lease_duration: None,
        })
        .await?
        .into_inner();
    other
        .providers
        .update_gpu_condition(native::UpdateGpuConditionRequest {
            lease_id: lease.lease_id,
            name: "gpu-0".to_owned(),
            namespace: String::new(),
            condition: Some(native::Condition {
                r#type: "CoolantLeak".to_owned(),
                status: native::ConditionStatus::True.into(),
                polarity: native::Polarity::TrueIsProblem.into(),
                reason: "SensorWet".to_owned(),
                ..native::Condition::default()
            }),
        })
        .await?;
    let mut mine = vec![said("NVMLReady", "True"), said("GpuMemWatch", "False")];
    write(&mut client, "gpu-0", "", mine.clone()).await?;
    // With the version it has, leaving out one's own type removes it, and only one's own.
    mine.truncate(1);
    mine.push(said("CoolantLeak", "False"));
    let before = get(&mut client, "gpu-0").await?;
    let after = write(&mut client, "gpu-0", version_text(&before), mine).await?;
    assert!(is("NVMLReady", "True")(&after));
    assert!(condition(&after, "GpuMemWatch").is_none());
    assert!(
        is("CoolantLeak", "True")(&after),
        "another's stays as it was"
    );
    assert!(is("Ready", "False")(&after), "and counts");
    Ok(())
}

/// 6. A dead provider stayed "healthy" for ever. (Leases of the native dialect: `examples`.)
#[tokio::test]
async fn shortcoming_06_what_a_dead_provider_called_healthy_turns_unknown() -> Result<()> {
    let uid = rustix::process::getuid().as_raw();
    let node = Node::builder()?
        .without_nvml()
        .flag("provider-timeout", format!("uid:{uid}=1s"))
        .start()?;
    let mut client = node.upstream().await?;
    create(&mut client, "gpu-0", "").await?;
    write(&mut client, "gpu-0", "", vec![said("NVMLReady", "True")]).await?;
    drop(client);
    // TCP: who watches is then no connection of the provider's.
    let address = node.address("API: TCP")?;
    let channel = tonic::transport::Endpoint::new(format!("http://{address}"))?
        .connect()
        .await?;
    let mut watch = device_api_tests::Native::over(channel).watch(0).await?;
    let is_lost = |gpu: &native::Gpu| {
        condition_of(gpu, "NVMLReady").is_some_and(|ready| {
            ready.status() == native::ConditionStatus::Unknown && ready.reason == "ProviderLost"
        })
    };
    let gpu = watch.until("gpu-0", "its provider's loss", is_lost).await?;
    assert_eq!(health_of(&gpu), Health::Unknown);
    Ok(())
}

/// 9. State was lost at a restart: a bad GPU came back healthy.
#[tokio::test]
async fn shortcoming_09_a_bad_gpu_is_bad_after_a_kill() -> Result<()> {
    let mut node = Node::start()?;
    node.healthy().await?;
    let mut client = node.upstream().await?;
    let (bad, own) = (node.uuid(5)?, node.uuid(0)?);
    let mut stream = watch(&mut client, "", "").await?;
    node.sim()?.xid(5, &[119])?;
    let told = until(&mut stream, &bad, is("XidCriticalError", "True")).await?;
    let written = write(&mut client, &own, "", vec![said("SysLogsXIDError", "True")]).await?;

    node.stop(Signal::KILL)?;
    node.start_again()?;
    let mut client = node.upstream().await?;
    for (name, before) in [(&bad, &told), (&own, &written)] {
        let gpu = get(&mut client, name).await?;
        assert!(is("Ready", "False")(&gpu), "from the first read: {gpu:?}");
        assert!(version_of(&gpu)? >= version_of(before)?, "{name}");
        let uid = |gpu: &Gpu| gpu.metadata.clone().map(|meta| meta.uid);
        assert_eq!(uid(&gpu), uid(before), "the same object");
    }
    // Once the others were observed again, these were, too.
    node.daemon.wait_for(&["NVML is in use"])?;
    node.sim()?.xid(1, &[31])?;
    let mut stream = watch(&mut client, "", "").await?;
    until(
        &mut stream,
        &node.uuid(1)?,
        is("XidApplicationError", "True"),
    )
    .await?;
    for name in [&bad, &own] {
        assert!(
            is("Ready", "False")(&get(&mut client, name).await?),
            "{name}"
        );
    }
    Ok(())
}
