//! `nvidia.device.v1alpha1.ProviderService`.

use device_api_proto::native as proto;
use tonic::Code;

use crate::harness::{Provider, Server, refused};

async fn register(client: &mut Provider, name: &str) -> String {
    let request = proto::RegisterProviderRequest {
        name: name.to_owned(),
        lease_duration: None,
    };
    let answer = client
        .register_provider(request)
        .await
        .expect("registered")
        .into_inner();
    assert_eq!(
        answer.lease_duration,
        Some(prost_types::Duration {
            seconds: 30,
            nanos: 0
        })
    );
    answer.lease_id
}

fn condition_of(lease_id: &str) -> proto::UpdateGpuConditionRequest {
    proto::UpdateGpuConditionRequest {
        lease_id: lease_id.to_owned(),
        name: "gpu-0".to_owned(),
        condition: Some(proto::Condition {
            r#type: "FanBroken".to_owned(),
            status: proto::ConditionStatus::False.into(),
            polarity: proto::Polarity::TrueIsProblem.into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[expect(clippy::too_many_lines, reason = "one story, told in order")]
#[tokio::test]
async fn p1_a_type_belongs_to_the_provider_of_the_lease() {
    let server = Server::start().await;
    let mut client = server.providers().await;
    let (mine, other) = (
        register(&mut client, "fans").await,
        register(&mut client, "others").await,
    );
    let gpu = proto::RegisterGpuRequest {
        lease_id: mine.clone(),
        name: "gpu-0".to_owned(),
        spec: Some(proto::GpuSpec {
            uuid: "GPU-0".to_owned(),
            product: "Fan 3000".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let registered = client
        .register_gpu(gpu)
        .await
        .expect("registered")
        .into_inner();
    assert!(registered.created);
    assert_eq!(
        registered
            .gpu
            .and_then(|gpu| gpu.spec)
            .expect("spec")
            .product,
        "Fan 3000"
    );

    let gpu = client
        .update_gpu_condition(condition_of(&mine))
        .await
        .expect("written")
        .into_inner();
    let status = gpu.status.expect("status");
    assert_eq!(status.health(), proto::Health::Healthy);
    assert_eq!(
        status.conditions[1].owner.clone().expect("owner").name,
        "fans"
    );
    let answer = client.update_gpu_condition(condition_of(&other)).await;
    refused(answer, Code::PermissionDenied, "belongs to provider:fans");

    let update = proto::ProviderUpdateGpuStatusRequest {
        lease_id: mine.clone(),
        name: "gpu-0".to_owned(),
        conditions: condition_of(&mine).condition.into_iter().collect(),
        resource_version: gpu.resource_version,
        ..Default::default()
    };
    client
        .update_gpu_status(update.clone())
        .await
        .expect("matches");
    let stale = proto::ProviderUpdateGpuStatusRequest {
        resource_version: 1,
        ..update
    };
    refused(
        client.update_gpu_status(stale).await,
        Code::Aborted,
        "get it again",
    );

    let gone = proto::UnregisterGpuRequest {
        lease_id: mine,
        name: "gpu-0".to_owned(),
        ..Default::default()
    };
    client
        .unregister_gpu(gone.clone())
        .await
        .expect("unregistered");
    refused(client.unregister_gpu(gone).await, Code::NotFound, "gpu-0");
}

#[tokio::test]
async fn leases_are_proven_and_bounded() {
    let server = Server::start().await;
    let mut client = server.providers().await;
    let lease_id = register(&mut client, "fans").await;
    client
        .heartbeat(proto::HeartbeatRequest { lease_id })
        .await
        .expect("renewed");
    let beat = |lease_id: &str| proto::HeartbeatRequest {
        lease_id: lease_id.to_owned(),
    };
    refused(
        client.heartbeat(beat("forged")).await,
        Code::PermissionDenied,
        "register again",
    );
    refused(
        client.heartbeat(beat("")).await,
        Code::InvalidArgument,
        "lease_id: required",
    );
    refused(
        client.update_gpu_condition(condition_of("forged")).await,
        Code::PermissionDenied,
        "register again",
    );

    let ask = |name: &str, seconds| proto::RegisterProviderRequest {
        name: name.to_owned(),
        lease_duration: Some(prost_types::Duration { seconds, nanos: 0 }),
    };
    refused(
        client.register_provider(ask("fans", 0)).await,
        Code::InvalidArgument,
        "lease_duration: out of range",
    );
    refused(
        client.register_provider(ask("uid:0", 9)).await,
        Code::InvalidArgument,
        "name: not a name",
    );
}

#[tokio::test]
async fn p1_providers_are_listed_and_one_that_is_forgotten_releases_its_types() {
    let server = Server::start().await;
    let mut client = server.providers().await;
    let mine = register(&mut client, "fans").await;
    register(&mut client, "others").await;
    let mut gpus = server.native().await;
    crate::harness::created(&mut gpus, "gpu-0").await;
    client
        .update_gpu_condition(condition_of(&mine))
        .await
        .expect("written");

    let list = || proto::ListProvidersRequest {};
    let identity = format!("uid:{}", rustix::process::geteuid().as_raw());
    let provider = |name: &str, types: &[&str]| proto::Provider {
        name: name.to_owned(),
        identity: identity.clone(),
        lease_remaining: Some(prost_types::Duration {
            seconds: 30,
            nanos: 0,
        }),
        condition_types: types.iter().map(ToString::to_string).collect(),
    };
    let listed = client.list_providers(list()).await.expect("listed");
    assert_eq!(
        listed.into_inner().providers,
        [provider("fans", &["FanBroken"]), provider("others", &[])]
    );

    let forget = |name: &str| proto::ForgetProviderRequest {
        name: name.to_owned(),
    };
    let mut reader = Provider::new(server.tcp().await);
    reader.list_providers(list()).await.expect("a read");
    let answer = reader.forget_provider(forget("fans")).await;
    refused(answer, Code::PermissionDenied, "");
    let answer = client.forget_provider(forget("fans")).await;
    let released = answer.expect("forgotten").into_inner().released_types;
    assert_eq!(released, ["FanBroken"]);
    let gpu = gpus.get_gpu(proto::GetGpuRequest {
        name: "gpu-0".to_owned(),
        ..Default::default()
    });
    let status = gpu
        .await
        .expect("found")
        .into_inner()
        .gpu
        .expect("gpu")
        .status;
    assert_eq!(status.expect("status").conditions.len(), 1, "only Ready");
    let answer = client
        .heartbeat(proto::HeartbeatRequest { lease_id: mine })
        .await;
    refused(answer, Code::PermissionDenied, "register again");
    let answer = client.forget_provider(forget("fans")).await;
    refused(answer, Code::InvalidArgument, "no provider");
    let answer = client.forget_provider(forget("")).await;
    refused(answer, Code::InvalidArgument, "name: required");
    let answer = client.forget_provider(forget(&"n".repeat(300))).await;
    refused(answer, Code::InvalidArgument, "name: 300 bytes");
}

#[tokio::test]
async fn p2_a_provider_is_told_to_write_its_conditions_again() {
    let server = Server::start().await;
    let mut client = server.providers().await;
    let request = proto::RegisterProviderRequest {
        name: "fans".to_owned(),
        lease_duration: None,
    };
    let lease = client.register_provider(request).await.expect("registered");
    let lease = lease.into_inner();
    assert!(lease.rewrite_conditions);
    let beat = proto::HeartbeatRequest {
        lease_id: lease.lease_id,
    };
    let beat = client.heartbeat(beat).await.expect("renewed").into_inner();
    assert!(beat.rewrite_conditions);
    let long = proto::HeartbeatRequest {
        lease_id: "l".repeat(65),
    };
    let answer = client.heartbeat(long).await;
    refused(
        answer,
        Code::InvalidArgument,
        "lease_id: 65 bytes; at most 64",
    );
}
