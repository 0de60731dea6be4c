//! Both dialects of the wire, over one store, on one socket.

use anyhow::{Context as _, Result};
use device_api_proto::{native, upstream};
use device_api_tests::{Node, condition_of};
use tonic::Code;
use upstream::{Condition, Gpu, GpuSpec, GpuStatus, ObjectMeta};

fn meta(name: &str) -> Option<ObjectMeta> {
    Some(ObjectMeta {
        name: name.to_owned(),
        ..Default::default()
    })
}

fn created(name: &str, uuid: &str) -> upstream::CreateGpuRequest {
    let gpu = Gpu {
        metadata: meta(name),
        spec: Some(GpuSpec {
            uuid: uuid.to_owned(),
        }),
        status: None,
    };
    upstream::CreateGpuRequest {
        gpu: Some(gpu),
        opts: None,
    }
}

fn status(type_: &str, status: &str) -> GpuStatus {
    let condition = Condition {
        r#type: type_.to_owned(),
        status: status.to_owned(),
        reason: "Because".to_owned(),
        ..Default::default()
    };
    GpuStatus {
        conditions: vec![condition],
        recommended_action: String::new(),
    }
}

#[tokio::test]
async fn what_one_dialect_writes_the_other_reads() -> Result<()> {
    let node = Node::builder()?.without_nvml().start()?;
    let (mut up, mut native) = (node.upstream().await?, node.native().await?);
    let mut watch = native.watch(0).await?;
    let gpu = up
        .gpus
        .create_gpu(created("gpu-0", "GPU-0"))
        .await?
        .into_inner();
    let metadata = gpu.metadata.clone().context("no metadata")?;
    assert_eq!((&*metadata.namespace, metadata.generation), ("default", 1));
    assert_eq!(metadata.uid.len(), 36);
    let seen = watch.until("gpu-0", "created", |_| true).await?;
    assert_eq!(seen.uid, metadata.uid);
    assert_eq!(seen.resource_version.to_string(), metadata.resource_version);

    let again = up
        .gpus
        .create_gpu(created("gpu-0", "GPU-0"))
        .await
        .unwrap_err();
    assert_eq!(again.code(), Code::AlreadyExists);
    let request = native::CreateGpuRequest {
        gpu: Some(native::Gpu {
            name: "gpu-0".to_owned(),
            spec: Some(native::GpuSpec {
                uuid: "GPU-0".to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        }),
    };
    let idempotent = native.gpus.create_gpu(request).await?.into_inner();
    assert!(!idempotent.created);

    let update = Gpu {
        metadata: meta("gpu-0"),
        spec: None,
        status: Some(status("SysLogsXIDError", "True")),
    };
    let request = upstream::UpdateGpuStatusRequest {
        gpu: Some(update),
        opts: None,
    };
    up.gpus.update_gpu_status(request).await?;
    let unhealthy = watch
        .until("gpu-0", "told of by the provider", |gpu| {
            condition_of(gpu, "SysLogsXIDError").is_some()
        })
        .await?;
    assert_eq!(
        device_api_tests::health_of(&unhealthy),
        native::Health::Unhealthy,
        "its True is a problem, and counts"
    );
    let ready = condition_of(&unhealthy, "Ready").context("no Ready")?;
    assert_eq!(ready.status(), native::ConditionStatus::False);
    Ok(())
}

#[tokio::test]
async fn a_version_that_does_not_match_is_aborted_and_one_that_does_is_taken() -> Result<()> {
    let node = Node::builder()?.without_nvml().start()?;
    let mut up = node.upstream().await?;
    let gpu = up
        .gpus
        .create_gpu(created("gpu-0", "GPU-0"))
        .await?
        .into_inner();
    let version = gpu
        .metadata
        .clone()
        .context("no metadata")?
        .resource_version;
    let update = |version: &str, said: &str| {
        let metadata = Some(ObjectMeta {
            name: "gpu-0".to_owned(),
            resource_version: version.to_owned(),
            ..Default::default()
        });
        let gpu = Gpu {
            metadata,
            spec: None,
            status: Some(status("NVMLReady", said)),
        };
        upstream::UpdateGpuStatusRequest {
            gpu: Some(gpu),
            opts: None,
        }
    };
    let updated = up
        .gpus
        .update_gpu_status(update(&version, "True"))
        .await?
        .into_inner();
    let stale = up
        .gpus
        .update_gpu_status(update(&version, "False"))
        .await
        .unwrap_err();
    assert_eq!(stale.code(), Code::Aborted);
    let newest = updated.metadata.context("no metadata")?.resource_version;
    assert!(
        up.gpus
            .update_gpu_status(update(&newest, "False"))
            .await
            .is_ok()
    );
    Ok(())
}

/// List-then-watch, as informers do it: resume from the list's version, and list again with the old
/// version after the watch was refused.
#[tokio::test]
async fn list_then_watch_resumes_and_only_watch_is_out_of_range() -> Result<()> {
    let node = Node::builder()?.without_nvml().start()?;
    let mut up = node.upstream().await?;
    let list = up
        .gpus
        .list_gpus(upstream::ListGpusRequest::default())
        .await?
        .into_inner()
        .gpu_list
        .context("no list")?;
    let version = list.metadata.context("no metadata")?.resource_version;
    up.gpus.create_gpu(created("gpu-0", "GPU-0")).await?;
    let watch = |version: &str| upstream::WatchGpusRequest {
        namespace: String::new(),
        opts: Some(upstream::ListOptions {
            resource_version: version.to_owned(),
        }),
    };
    let mut events = up.gpus.watch_gpus(watch(&version)).await?.into_inner();
    let event = events.message().await?.context("ended")?;
    assert_eq!(
        (
            &*event.r#type,
            event
                .object
                .and_then(|gpu| gpu.metadata)
                .map(|m| m.name)
                .as_deref()
        ),
        ("ADDED", Some("gpu-0"))
    );

    for version in ["1", "9223372036854775807"] {
        let refused = match up.gpus.watch_gpus(watch(version)).await {
            Ok(stream) => stream.into_inner().message().await.unwrap_err(),
            Err(status) => status,
        };
        assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
        assert!(refused.message().contains("list again"), "{refused}");
        let opts = Some(upstream::ListOptions {
            resource_version: version.to_owned(),
        });
        let request = upstream::ListGpusRequest {
            namespace: String::new(),
            opts,
        };
        assert!(
            up.gpus.list_gpus(request).await.is_ok(),
            "List answers the newest state for any version"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_policys_condition_type_is_no_providers() -> Result<()> {
    let node = Node::start()?;
    let mut client = node.healthy().await?;
    let name = node.uuid(0)?;
    let request = native::RegisterProviderRequest {
        name: "agent".to_owned(),
        lease_duration: None,
    };
    let lease_id = client
        .providers
        .register_provider(request)
        .await?
        .into_inner()
        .lease_id;
    let write = |type_: &str| native::UpdateGpuConditionRequest {
        lease_id: lease_id.clone(),
        name: name.clone(),
        namespace: String::new(),
        condition: Some(native::Condition {
            r#type: type_.to_owned(),
            status: native::ConditionStatus::True as i32,
            polarity: native::Polarity::TrueIsProblem as i32,
            severity: native::Severity::Warning as i32,
            reason: "Seen".to_owned(),
            ..Default::default()
        }),
    };
    for type_ in ["XidCriticalError", "GpuLost", "FaultFloor"] {
        let refused = client
            .providers
            .update_gpu_condition(write(type_))
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{type_}");
    }
    let gpu = client
        .providers
        .update_gpu_condition(write("FanSpeed"))
        .await?
        .into_inner();
    assert_eq!(device_api_tests::health_of(&gpu), native::Health::Degraded);
    let owner = condition_of(&gpu, "FanSpeed")
        .and_then(|condition| condition.owner.clone())
        .context("no owner")?;
    assert_eq!(
        (owner.kind(), &*owner.name),
        (native::owner::Kind::Provider, "agent")
    );
    Ok(())
}

#[tokio::test]
async fn health_and_reflection_answer_on_the_same_socket() -> Result<()> {
    let node = Node::builder()?.without_nvml().start()?;
    let client = node.native().await?;
    let mut health = tonic_health::pb::health_client::HealthClient::new(client.channel.clone());
    for service in [
        "",
        "nvidia.device.v1alpha1.GpuService",
        "nvidia.nvsentinel.v1alpha1.GpuService",
    ] {
        let request = tonic_health::pb::HealthCheckRequest {
            service: service.to_owned(),
        };
        let answer = health.check(request).await?.into_inner();
        assert_eq!(
            answer.status(),
            tonic_health::pb::health_check_response::ServingStatus::Serving,
            "{service}"
        );
    }
    Ok(())
}
