//! What operators see and set: 10 and 11.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::{fs, iter};

use anyhow::{Context as _, Result, bail};
use device_api_proto::{FILE_DESCRIPTOR_SET, upstream};
use device_api_tests::{Node, Upstream};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic::Code;

use crate::client::{create, list, said, write};

/// 10. Its socket was 0666. (Who may write: `p4_who_may_write`.)
#[tokio::test]
async fn shortcoming_10_the_socket_is_for_its_group_alone() -> Result<()> {
    let builder = Node::builder()?;
    let socket = builder.dir().join("run/device.sock");
    let node = builder
        .without_nvml()
        .flag("unix-socket", socket.to_string_lossy())
        .start()?;
    let mode =
        |path: &Path| Ok::<_, anyhow::Error>(fs::metadata(path)?.permissions().mode() & 0o777);
    assert_eq!(mode(&socket)?, 0o660);
    assert_eq!(mode(socket.parent().context("no parent")?)?, 0o750);
    drop(node);
    Ok(())
}

/// 10. It had no authorisation; health, reflection and channelz were open on all interfaces.
#[tokio::test]
async fn shortcoming_10_tcp_is_read_only_on_loopback_and_has_no_channelz() -> Result<()> {
    let node = Node::builder()?.without_nvml().start()?;
    let address = node.address("API: TCP")?;
    let channel = tonic::transport::Endpoint::new(format!("http://{address}"))?
        .connect()
        .await?;
    let mut client = Upstream {
        gpus: upstream::gpu_service_client::GpuServiceClient::new(channel.clone()),
    };
    let refused = create(&mut client, "gpu-0", "").await.unwrap_err();
    let status = refused
        .downcast_ref::<tonic::Status>()
        .context("no status")?;
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    list(&mut client).await?;
    for service in services(channel).await? {
        assert!(!service.contains("channelz"), "{service}");
    }
    let mut daemon = Node::builder()?
        .without_nvml()
        .flag("grpc-address", "0.0.0.0:0")
        .spawn()?
        .daemon;
    assert_eq!(daemon.wait()?.code(), Some(2), "{:?}", daemon.log());
    let said = daemon.log().join("\n");
    assert!(
        said.contains("0.0.0.0") && said.contains("grpc-address"),
        "{said}"
    );
    Ok(())
}

/// The services that reflection lists.
async fn services(channel: tonic::transport::Channel) -> Result<BTreeSet<String>> {
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let request = tonic_reflection::pb::v1::ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..Default::default()
    };
    let mut answers = ServerReflectionClient::new(channel)
        .server_reflection_info(tokio_stream::iter(iter::once(request)))
        .await?
        .into_inner();
    let answer = answers.message().await?.context("no answer")?;
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        bail!("no list of services");
    };
    Ok(list
        .service
        .into_iter()
        .map(|service| service.name)
        .collect())
}

/// The metrics of the system whose alerts and dashboards we take over.
const METRICS: [&str; 20] = [
    "device_api_server_up",
    "device_api_server_info",
    "device_api_server_grpc_requests_total",
    "device_api_server_grpc_request_duration_seconds",
    "device_api_server_cache_lock_contention_total",
    "device_api_server_cache_gpus_total",
    "device_api_server_cache_gpus_healthy",
    "device_api_server_cache_gpus_unhealthy",
    "device_api_server_cache_gpus_unknown",
    "device_api_server_cache_resource_version",
    "device_api_server_cache_lock_wait_seconds",
    "device_api_server_watch_streams_active",
    "device_api_server_watch_events_total",
    "device_api_server_nvml_provider_enabled",
    "device_api_server_nvml_gpu_count",
    "device_api_server_nvml_health_monitor_running",
    "grpc_server_started_total",
    "grpc_server_handled_total",
    "grpc_server_handling_seconds",
    "device_api_server_barrier_waits_total",
];

/// 11. Its docs listed metrics that were not exported; its alert rules named a service that did not exist.
#[tokio::test]
async fn shortcoming_11_metrics_are_exported_and_name_services_that_exist() -> Result<()> {
    let node = Node::start()?;
    node.healthy().await?;
    let mut client = node.upstream().await?;
    write(
        &mut client,
        &node.uuid(0)?,
        "",
        vec![said("NVMLReady", "True")],
    )
    .await?;
    let text = node.metrics()?;
    let exported: BTreeSet<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    let missing: Vec<_> = METRICS
        .iter()
        .filter(|name| !exported.contains(**name))
        .collect();
    assert!(missing.is_empty(), "not exported: {missing:?}");

    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET)?;
    let ours = set.file.iter().flat_map(|file| {
        let name = |service: &prost_types::ServiceDescriptorProto| {
            format!("{}.{}", file.package(), service.name())
        };
        file.service.iter().map(name).collect::<Vec<_>>()
    });
    let ours: BTreeSet<String> = ours.collect();
    let named: BTreeSet<&str> = text
        .split("grpc_service=\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .collect();
    for service in [
        "nvidia.device.v1alpha1.GpuService",
        "nvidia.nvsentinel.v1alpha1.GpuService",
    ] {
        assert!(
            named.contains(service) && ours.contains(service),
            "{named:?}"
        );
    }
    Ok(())
}

/// 11. What the docs call a metric is one.
#[test]
fn shortcoming_11_every_metric_that_the_docs_name_is_in_the_catalogue() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let catalogue = fs::read_to_string(root.join("host/runtime/src/metrics/catalog.rs"))?;
    let mut named = BTreeMap::new();
    let mut folders = vec![root.join("docs"), root.join("charts")];
    while let Some(folder) = folders.pop().filter(|folder| folder.is_dir()) {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                for name in metric_names(&text) {
                    named.insert(name, path.clone());
                }
            }
        }
    }
    let known = |name: &str| {
        ["", "_bucket", "_sum", "_count"].iter().any(|end| {
            let base = name.strip_suffix(end);
            base.is_some_and(|base| catalogue.contains(&format!("\"{base}\"")))
        })
    };
    let unknown: Vec<(String, PathBuf)> =
        named.into_iter().filter(|(name, _)| !known(name)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    Ok(())
}

fn metric_names(text: &str) -> Vec<String> {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    text.split(|c| !is_part(c))
        .filter(|word| word.starts_with("device_api_server_") || word.starts_with("grpc_server_"))
        // The beginning of a family, as in `device_api_server_*`.
        .filter(|word| !word.ends_with('_'))
        .map(ToOwned::to_owned)
        .collect()
}
