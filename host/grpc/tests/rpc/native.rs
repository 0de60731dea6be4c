//! `nvidia.device.v1alpha1.GpuService`.

use device_api_proto::native as proto;
use tonic::Code;

use crate::harness::{Server, created, native_gpu, refused};

fn fan(status: proto::ConditionStatus) -> proto::Condition {
    proto::Condition {
        r#type: "FanBroken".to_owned(),
        status: status.into(),
        polarity: proto::Polarity::TrueIsProblem.into(),
        severity: proto::Severity::Warning.into(),
        recommended_action: "CONTACT_SUPPORT".to_owned(),
        ..Default::default()
    }
}

#[tokio::test]
async fn create_is_idempotent_and_get_and_list_see_it() {
    let server = Server::start().await;
    let mut client = server.native().await;
    let list = |namespace: &str| proto::ListGpusRequest {
        namespace: namespace.to_owned(),
        ..Default::default()
    };
    let empty = client
        .list_gpus(list(""))
        .await
        .expect("a fresh server lists")
        .into_inner();
    assert_eq!((empty.gpus.len(), empty.resource_version), (0, 1));

    let request = proto::CreateGpuRequest {
        gpu: Some(native_gpu("gpu-0")),
    };
    let first = client
        .create_gpu(request.clone())
        .await
        .expect("created")
        .into_inner();
    let again = client
        .create_gpu(request)
        .await
        .expect("is there")
        .into_inner();
    assert_eq!((first.created, again.created), (true, false));
    assert_eq!(first.gpu, again.gpu);

    let got = client
        .get_gpu(proto::GetGpuRequest {
            name: "gpu-0".to_owned(),
            ..Default::default()
        })
        .await;
    assert_eq!(got.expect("found").into_inner().gpu, first.gpu);
    let listed = client
        .list_gpus(list("default"))
        .await
        .expect("listed")
        .into_inner();
    assert_eq!(
        (listed.gpus, listed.resource_version),
        (first.gpu.into_iter().collect(), 2)
    );
    assert_eq!(
        client
            .list_gpus(list("default2"))
            .await
            .expect("listed")
            .into_inner()
            .gpus,
        []
    );
}

#[tokio::test]
async fn what_is_wrong_is_said_with_its_code() {
    let server = Server::start().await;
    let mut client = server.native().await;
    let version = created(&mut client, "gpu-0").await;

    let get = |name: &str| proto::GetGpuRequest {
        name: name.to_owned(),
        ..Default::default()
    };
    refused(client.get_gpu(get("gpu-1")).await, Code::NotFound, "gpu-1");
    refused(
        client.get_gpu(get("")).await,
        Code::InvalidArgument,
        "name: required",
    );
    refused(
        client
            .create_gpu(proto::CreateGpuRequest { gpu: None })
            .await,
        Code::InvalidArgument,
        "gpu: required",
    );

    let update = |resource_version| proto::UpdateGpuRequest {
        gpu: Some(proto::Gpu {
            resource_version,
            ..native_gpu("gpu-0")
        }),
    };
    client.update_gpu(update(0)).await.expect("unconditional");
    client.update_gpu(update(version)).await.expect("matches");
    refused(
        client.update_gpu(update(version + 1)).await,
        Code::Aborted,
        "get it again",
    );
    refused(
        client.update_gpu(update(-1)).await,
        Code::InvalidArgument,
        "gpu.resource_version: -1 is negative",
    );

    let delete = |resource_version| proto::DeleteGpuRequest {
        name: "gpu-0".to_owned(),
        resource_version,
        ..Default::default()
    };
    refused(client.delete_gpu(delete(99)).await, Code::Aborted, "99");
    client.delete_gpu(delete(0)).await.expect("deleted");
    refused(client.delete_gpu(delete(0)).await, Code::NotFound, "gpu-0");
}

#[tokio::test]
async fn p1_a_status_update_writes_as_the_connections_identity() {
    let server = Server::start().await;
    let mut client = server.native().await;
    let version = created(&mut client, "gpu-0").await;
    let update = |resource_version, conditions| proto::UpdateGpuStatusRequest {
        name: "gpu-0".to_owned(),
        status: Some(proto::GpuStatus {
            conditions,
            ..Default::default()
        }),
        resource_version,
        ..Default::default()
    };
    let broken = fan(proto::ConditionStatus::True);
    let gpu = client
        .update_gpu_status(update(version, vec![broken.clone()]))
        .await
        .expect("written")
        .into_inner();
    let status = gpu.status.expect("status");
    assert_eq!(
        (status.health(), &*status.recommended_action),
        (proto::Health::Degraded, "CONTACT_SUPPORT")
    );
    let owner = status.conditions[1].owner.clone().expect("owner");
    let me = format!("uid:{}", rustix::process::geteuid().as_raw());
    assert_eq!(
        (owner.kind(), owner.name),
        (proto::owner::Kind::Provider, me)
    );

    refused(
        client
            .update_gpu_status(update(version, vec![broken]))
            .await,
        Code::Aborted,
        "get it again",
    );
    let unclear = fan(proto::ConditionStatus::Unspecified);
    let answer = client.update_gpu_status(update(0, vec![unclear])).await;
    refused(
        answer,
        Code::InvalidArgument,
        "status.conditions[0].status: required",
    );
}
