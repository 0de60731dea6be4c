//! State that ends with the pod: `state.type=memory`.

use anyhow::{Result, ensure};
use device_api_proto::native::{Gpu, Health};
use device_api_tests::health_of;

use crate::release::{Release, uuid};

#[tokio::test]
async fn in_memory_a_fault_ends_with_the_pod_and_the_node_keeps_nothing() -> Result<()> {
    let Some(mut release) = Release::install("state: {type: memory}")? else {
        return Ok(());
    };
    let running = release.started().await?;
    let mut client = release.healthy().await?;
    let mut watch = client.watch(0).await?;
    release.sim()?.xid(2, &[79])?;
    let unhealthy = |gpu: &Gpu| health_of(gpu) == Health::Unhealthy;
    watch.until(&uuid(2)?, "Unhealthy", unhealthy).await?;

    let (status, said) = release.stop(running)?;
    ensure!(status.code() == Some(0), "{status}\n{said}");
    let kept = release.machine.path("/var/lib/device-api");
    ensure!(!kept.exists(), "{} is there", kept.display());
    let _next = release.started().await?;
    // All of them: over a directory of the node it would be ill still (`ending`).
    release.healthy().await?;
    Ok(())
}
