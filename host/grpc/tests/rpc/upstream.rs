//! `nvidia.nvsentinel.v1alpha1.GpuService`: what its deployed clients rely on (wire.md).

use device_api_proto::upstream as proto;
use tonic::Code;

use crate::harness::{Server, Upstream, refused, upstream_gpu};

fn get(name: &str, version: &str) -> proto::GetGpuRequest {
    let opts = Some(proto::GetOptions {
        resource_version: version.to_owned(),
    });
    proto::GetGpuRequest {
        name: name.to_owned(),
        namespace: String::new(),
        opts,
    }
}

fn list(namespace: &str, version: &str) -> proto::ListGpusRequest {
    let opts = Some(proto::ListOptions {
        resource_version: version.to_owned(),
    });
    proto::ListGpusRequest {
        namespace: namespace.to_owned(),
        opts,
    }
}

async fn create(client: &mut Upstream, namespace: &str, name: &str) -> proto::Gpu {
    let request = proto::CreateGpuRequest {
        gpu: Some(upstream_gpu(namespace, name)),
        opts: None,
    };
    client
        .create_gpu(request)
        .await
        .expect("created")
        .into_inner()
}

fn at_version(mut gpu: proto::Gpu, version: &str) -> proto::Gpu {
    gpu.metadata.as_mut().expect("metadata").resource_version = version.to_owned();
    gpu
}

#[tokio::test]
async fn an_empty_fresh_server_lists_at_version_one() {
    let server = Server::start().await;
    let listed = server
        .upstream()
        .await
        .list_gpus(list("", ""))
        .await
        .expect("listed")
        .into_inner();
    let listed = listed.gpu_list.expect("list");
    assert_eq!(
        (
            listed.items.len(),
            &*listed.metadata.expect("metadata").resource_version
        ),
        (0, "1")
    );
}

#[tokio::test]
async fn create_answers_the_gpu_and_refuses_a_duplicate() {
    let server = Server::start().await;
    let mut client = server.upstream().await;
    let gpu = create(&mut client, "", "gpu-0").await;
    let meta = gpu.metadata.clone().expect("metadata");
    assert_eq!(
        (&*meta.namespace, meta.generation, &*meta.resource_version),
        ("default", 1, "2")
    );
    assert!(!meta.uid.is_empty() && meta.creation_timestamp.is_some());
    let conditions = gpu.status.expect("status").conditions;
    assert_eq!(
        (&*conditions[0].r#type, &*conditions[0].status),
        ("Ready", "Unknown")
    );

    let again = proto::CreateGpuRequest {
        gpu: Some(upstream_gpu("default", "gpu-0")),
        opts: None,
    };
    refused(client.create_gpu(again).await, Code::AlreadyExists, "gpu-0");
    let nameless = proto::CreateGpuRequest {
        gpu: Some(upstream_gpu("", "")),
        opts: None,
    };
    refused(
        client.create_gpu(nameless).await,
        Code::InvalidArgument,
        "gpu.metadata.name: required",
    );
    let bare = proto::CreateGpuRequest {
        gpu: Some(proto::Gpu::default()),
        opts: None,
    };
    refused(
        client.create_gpu(bare).await,
        Code::InvalidArgument,
        "gpu.metadata: required",
    );
}

#[tokio::test]
async fn w1_reads_answer_the_newest_state_for_any_well_formed_version() {
    let server = Server::start().await;
    let mut client = server.upstream().await;
    create(&mut client, "", "gpu-0").await;
    for version in ["", "0", "1", "2", "999999"] {
        client
            .get_gpu(get("gpu-0", version))
            .await
            .expect("answered");
        let listed = client
            .list_gpus(list("", version))
            .await
            .expect("answered")
            .into_inner();
        assert_eq!(listed.gpu_list.expect("list").items.len(), 1);
    }
    for version in ["x", "-1", "1.5", "99999999999999999999"] {
        let field = "opts.resource_version: not a version";
        refused(
            client.get_gpu(get("gpu-0", version)).await,
            Code::InvalidArgument,
            field,
        );
        refused(
            client.list_gpus(list("", version)).await,
            Code::InvalidArgument,
            field,
        );
    }
}

#[tokio::test]
async fn an_empty_namespace_is_default_for_one_and_all_for_lists() {
    let server = Server::start().await;
    let mut client = server.upstream().await;
    create(&mut client, "", "gpu-0").await;
    create(&mut client, "default2", "gpu-1").await;
    for (namespace, expected) in [
        ("", vec!["gpu-0", "gpu-1"]),
        ("default", vec!["gpu-0"]),
        ("none", vec![]),
    ] {
        let listed = client
            .list_gpus(list(namespace, ""))
            .await
            .expect("listed")
            .into_inner();
        let names = listed
            .gpu_list
            .expect("list")
            .items
            .into_iter()
            .filter_map(|gpu| gpu.metadata);
        assert_eq!(names.map(|meta| meta.name).collect::<Vec<_>>(), expected);
    }
    client.get_gpu(get("gpu-0", "")).await.expect("in default");
    refused(
        client.get_gpu(get("gpu-1", "")).await,
        Code::NotFound,
        "\"default\"",
    );
}

#[tokio::test]
async fn updates_with_another_version_are_aborted() {
    let server = Server::start().await;
    let mut client = server.upstream().await;
    let gpu = create(&mut client, "", "gpu-0").await;
    for (version, code) in [
        ("", Code::Ok),
        ("0", Code::Ok),
        ("2", Code::Ok),
        ("1", Code::Aborted),
        ("x", Code::InvalidArgument),
    ] {
        let gpu = at_version(gpu.clone(), version);
        let spec = client
            .update_gpu(proto::UpdateGpuRequest {
                gpu: Some(gpu.clone()),
                opts: None,
            })
            .await;
        assert_eq!(
            spec.map_or_else(|status| status.code(), |_| Code::Ok),
            code,
            "{version:?}"
        );
        let empty = Some(proto::GpuStatus::default());
        let request = proto::UpdateGpuStatusRequest {
            gpu: Some(proto::Gpu {
                status: empty,
                ..gpu
            }),
            opts: None,
        };
        let status = client.update_gpu_status(request).await;
        assert_eq!(
            status.map_or_else(|status| status.code(), |_| Code::Ok),
            code,
            "{version:?}"
        );
    }
    let other = proto::Gpu {
        spec: Some(proto::GpuSpec {
            uuid: "GPU-else".to_owned(),
        }),
        ..upstream_gpu("", "gpu-0")
    };
    let moved = client
        .update_gpu(proto::UpdateGpuRequest {
            gpu: Some(other),
            opts: None,
        })
        .await;
    refused(moved, Code::InvalidArgument, "immutable");
}

#[tokio::test]
async fn p3_a_status_update_votes_and_leaves_others_types_alone() {
    let server = Server::start().await;
    let mut providers = server.providers().await;
    let mut client = server.upstream().await;
    create(&mut client, "", "gpu-0").await;
    let lease = device_api_proto::native::RegisterProviderRequest {
        name: "fans".to_owned(),
        lease_duration: None,
    };
    let lease_id = providers
        .register_provider(lease)
        .await
        .expect("registered")
        .into_inner()
        .lease_id;
    let theirs = device_api_proto::native::UpdateGpuConditionRequest {
        lease_id,
        name: "gpu-0".to_owned(),
        condition: Some(device_api_proto::native::Condition {
            r#type: "NVMLReady".to_owned(),
            status: device_api_proto::native::ConditionStatus::True.into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    providers
        .update_gpu_condition(theirs)
        .await
        .expect("written");

    let condition = |type_: &str, status: &str| proto::Condition {
        r#type: type_.to_owned(),
        status: status.to_owned(),
        ..Default::default()
    };
    let status = proto::GpuStatus {
        conditions: vec![
            condition("SysLogsXIDError", "True"),
            condition("NVMLReady", "False"),
        ],
        recommended_action: "COMPONENT_RESET".to_owned(),
    };
    let gpu = proto::Gpu {
        status: Some(status),
        ..upstream_gpu("", "gpu-0")
    };
    let request = proto::UpdateGpuStatusRequest {
        gpu: Some(gpu),
        opts: None,
    };
    let status = client
        .update_gpu_status(request)
        .await
        .expect("merged")
        .into_inner()
        .status
        .expect("status");
    let shown: Vec<_> = status
        .conditions
        .iter()
        .map(|c| (&*c.r#type, &*c.status))
        .collect();
    assert_eq!(
        shown,
        [
            ("Ready", "False"),
            ("NVMLReady", "True"),
            ("SysLogsXIDError", "True")
        ]
    );
    assert_eq!(status.recommended_action, "COMPONENT_RESET");
}

#[tokio::test]
async fn delete_answers_empty_and_then_not_found() {
    let server = Server::start().await;
    let mut client = server.upstream().await;
    create(&mut client, "", "gpu-0").await;
    let request = proto::DeleteGpuRequest {
        name: "gpu-0".to_owned(),
        ..Default::default()
    };
    client.delete_gpu(request.clone()).await.expect("deleted");
    refused(client.delete_gpu(request).await, Code::NotFound, "gpu-0");
}
