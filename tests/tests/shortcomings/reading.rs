//! What clients read and watch: 1 to 5, and 8.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use device_api_proto::upstream;
use tonic::Code;

use crate::client::{
    create, empty, get, list, name_of, next, said, version_of, version_text, watch, write,
};

/// 1. List on an empty, fresh server answered `Internal` (version 0).
#[tokio::test]
async fn shortcoming_01_an_empty_server_lists_nothing_at_a_version_to_watch_from() -> Result<()> {
    let (_node, mut client) = empty().await?;
    let listed = list(&mut client).await?;
    assert!(listed.items.is_empty());
    let version = listed.metadata.context("no metadata")?.resource_version;
    assert!(version.parse::<u64>()? >= 1, "{version}");
    let mut stream = watch(&mut client, "", &version).await?;
    create(&mut client, "gpu-0", "").await?;
    assert_eq!(next(&mut stream).await?.0, "ADDED");
    Ok(())
}

/// 2. Any watch with a resource version answered `OutOfRange`, so that informers only listed again. (Over a
/// restart: `examples`.)
#[tokio::test]
async fn shortcoming_02_a_watch_resumes_after_any_version_it_was_told() -> Result<()> {
    let (_node, mut client) = empty().await?;
    create(&mut client, "gpu-0", "").await?;
    let mut stream = watch(&mut client, "", "").await?;
    let mut told = vec![next(&mut stream).await?.1];
    for status in ["True", "False", "Unknown", "True"] {
        write(&mut client, "gpu-0", "", vec![said("NVMLReady", status)]).await?;
        told.push(next(&mut stream).await?.1);
    }
    let newest = told.last().context("nothing was told")?.clone();
    for (at, gpu) in told.iter().enumerate().rev().skip(1) {
        let mut resumed = watch(&mut client, "", version_text(gpu)).await?;
        let mut later = told[at + 1..].iter();
        loop {
            let (kind, gpu) = next(&mut resumed).await?;
            assert_eq!(kind, "MODIFIED", "it is known already");
            // What is not read yet may merge into what is newer, and never comes out of order.
            ensure!(
                later.any(|told| *told == gpu),
                "told before, or never: {gpu:?}"
            );
            if gpu == newest {
                break;
            }
        }
    }
    Ok(())
}

/// 3. A watch sent no initial `ADDED`, contrary to its docs.
#[tokio::test]
async fn shortcoming_03_a_watch_from_nothing_starts_with_the_state() -> Result<()> {
    let (_node, mut client) = empty().await?;
    let mut created = Vec::new();
    for name in ["gpu-b", "gpu-a"] {
        created.push(create(&mut client, name, "").await?);
    }
    for version in ["", "0"] {
        let mut stream = watch(&mut client, "", version).await?;
        for gpu in &created {
            let expected = ("ADDED".to_owned(), gpu.clone());
            assert_eq!(next(&mut stream).await?, expected, "in ascending version");
        }
    }
    Ok(())
}

/// 4. A slow watcher silently lost events after 100.
#[tokio::test]
async fn shortcoming_04_a_slow_watcher_gets_the_newest_state_of_every_gpu() -> Result<()> {
    let (_node, mut client) = empty().await?;
    let names: Vec<_> = (0..20).map(|n| format!("gpu-{n:02}")).collect();
    for name in &names {
        create(&mut client, name, "").await?;
    }
    let mut stream = watch(&mut client, "", "").await?;
    let mut newest = BTreeMap::new();
    // Large messages, so that they don't fit into what the connection holds by itself.
    for turn in 0..50 {
        for name in &names {
            let mut condition = said("NVMLReady", ["True", "False"][turn % 2]);
            condition.message = format!("{turn} {}", "x".repeat(2000));
            let gpu = write(&mut client, name, "", vec![condition]).await?;
            newest.insert(name.clone(), gpu);
        }
    }
    let (mut seen, mut version) = (BTreeMap::new(), 0);
    while seen != newest {
        let (_, gpu) = next(&mut stream).await?;
        ensure!(version_of(&gpu)? > version, "versions only rise");
        version = version_of(&gpu)?;
        seen.insert(name_of(&gpu).to_owned(), gpu);
    }
    Ok(())
}

/// 5. A no-op update emitted `MODIFIED` and bumped the version.
#[tokio::test]
async fn shortcoming_05_a_write_that_changes_nothing_is_silent() -> Result<()> {
    let (_node, mut client) = empty().await?;
    create(&mut client, "gpu-0", "").await?;
    let ready = || vec![said("NVMLReady", "True")];
    let first = write(&mut client, "gpu-0", "", ready()).await?;
    let mut stream = watch(&mut client, "", version_text(&first)).await?;
    let again = write(&mut client, "gpu-0", "", ready()).await?;
    assert_eq!(version_text(&again), version_text(&first));
    let request = upstream::UpdateGpuRequest {
        gpu: Some(first.clone()),
        opts: None,
    };
    let respecified = client.gpus.update_gpu(request).await?.into_inner();
    assert_eq!(version_text(&respecified), version_text(&first));
    let changed = write(&mut client, "gpu-0", "", vec![said("NVMLReady", "False")]).await?;
    assert_eq!(version_of(&changed)?, version_of(&first)? + 1);
    assert_eq!(next(&mut stream).await?.1, changed, "nothing before it");
    Ok(())
}

/// 5. Watching namespace `default` also matched `default2`.
#[tokio::test]
async fn shortcoming_05_namespaces_are_compared_exactly() -> Result<()> {
    let (_node, mut client) = empty().await?;
    let mut stream = watch(&mut client, "default", "").await?;
    create(&mut client, "gpu-2", "default2").await?;
    let ours = create(&mut client, "gpu-0", "default").await?;
    assert_eq!(next(&mut stream).await?, ("ADDED".to_owned(), ours));
    Ok(())
}

/// 5. Immutability errors became `Internal`.
#[tokio::test]
async fn shortcoming_05_an_immutable_field_is_an_invalid_argument() -> Result<()> {
    let (_node, mut client) = empty().await?;
    let mut gpu = create(&mut client, "gpu-0", "").await?;
    gpu.spec = Some(upstream::GpuSpec {
        uuid: "GPU-another".to_owned(),
    });
    let request = upstream::UpdateGpuRequest {
        gpu: Some(gpu),
        opts: None,
    };
    let refused = client.gpus.update_gpu(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    assert!(refused.message().contains("uuid"), "{refused}");
    Ok(())
}

/// 8. Its `DELETED` events carried the version before the deletion.
#[tokio::test]
async fn shortcoming_08_a_deletion_has_a_version_of_its_own() -> Result<()> {
    let (_node, mut client) = empty().await?;
    let gpu = create(&mut client, "gpu-0", "").await?;
    let mut stream = watch(&mut client, "", version_text(&gpu)).await?;
    let request = upstream::DeleteGpuRequest {
        name: "gpu-0".to_owned(),
        ..upstream::DeleteGpuRequest::default()
    };
    client.gpus.delete_gpu(request).await?;
    let (kind, deleted) = next(&mut stream).await?;
    assert_eq!(kind, "DELETED");
    assert_eq!(version_of(&deleted)?, version_of(&gpu)? + 1);
    let mut resumed = watch(&mut client, "", version_text(&deleted)).await?;
    let other = create(&mut client, "gpu-1", "").await?;
    assert_eq!(next(&mut resumed).await?.1, other, "the deletion was told");
    Ok(())
}

/// 8. Its names had to match `GPU-<uuid>`, which its own docs and clients contradict.
#[tokio::test]
async fn shortcoming_08_any_dns_safe_name_or_uuid_names_a_gpu() -> Result<()> {
    let (_node, mut client) = empty().await?;
    for name in [
        "gpu-0",
        "gpu.node-a.example",
        "0",
        "GPU-85138af9-f5a8-40f7-ab75-5ee64542d9ca",
        "MIG-85138af9-f5a8-40f7-ab75-5ee64542d9ca",
    ] {
        create(&mut client, name, "").await?;
        assert_eq!(name_of(&get(&mut client, name).await?), name);
    }
    Ok(())
}
