//! Where the server whose clients we take over fell short, each shown to be right here: over its own dialect,
//! on a real daemon. (Where a shortcoming has more sides, its test names the tests of the others.)

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::{fs, iter};

use anyhow::{Context as _, Result, bail, ensure};
use device_api_proto::{FILE_DESCRIPTOR_SET, native, upstream};
use device_api_tests::{Node, PATIENCE, Upstream, condition_of, health_of};
use native::Health;
use nvml_sim::control::EccKind;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use rustix::process::Signal;
use tonic::{Code, Streaming};
use upstream::{Condition, Gpu, ObjectMeta, WatchGpusResponse};

// ---- what its clients say ----

fn meta(name: &str, namespace: &str, version: &str) -> Option<ObjectMeta> {
    Some(ObjectMeta {
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        resource_version: version.to_owned(),
        ..ObjectMeta::default()
    })
}

async fn create(client: &mut Upstream, name: &str, namespace: &str) -> Result<Gpu> {
    let gpu = Gpu {
        metadata: meta(name, namespace, ""),
        spec: Some(upstream::GpuSpec {
            uuid: format!("GPU-{namespace}-{name}"),
        }),
        status: None,
    };
    let request = upstream::CreateGpuRequest {
        gpu: Some(gpu),
        opts: None,
    };
    Ok(client.gpus.create_gpu(request).await?.into_inner())
}

fn said(type_: &str, status: &str) -> Condition {
    Condition {
        r#type: type_.to_owned(),
        status: status.to_owned(),
        reason: "Because".to_owned(),
        ..Condition::default()
    }
}

/// Writes a whole status, as its clients do.
async fn write(
    client: &mut Upstream,
    name: &str,
    version: &str,
    conditions: Vec<Condition>,
) -> Result<Gpu, tonic::Status> {
    let gpu = Gpu {
        metadata: meta(name, "", version),
        spec: None,
        status: Some(upstream::GpuStatus {
            conditions,
            recommended_action: String::new(),
        }),
    };
    let request = upstream::UpdateGpuStatusRequest {
        gpu: Some(gpu),
        opts: None,
    };
    Ok(client.gpus.update_gpu_status(request).await?.into_inner())
}

async fn get(client: &mut Upstream, name: &str) -> Result<Gpu> {
    let request = upstream::GetGpuRequest {
        name: name.to_owned(),
        ..upstream::GetGpuRequest::default()
    };
    let answer = client.gpus.get_gpu(request).await?.into_inner();
    answer.gpu.context("an answer without a GPU")
}

async fn list(client: &mut Upstream) -> Result<upstream::GpuList> {
    let request = upstream::ListGpusRequest::default();
    let answer = client.gpus.list_gpus(request).await?.into_inner();
    answer.gpu_list.context("no list")
}

async fn watch(
    client: &mut Upstream,
    namespace: &str,
    version: &str,
) -> Result<Streaming<WatchGpusResponse>> {
    let request = upstream::WatchGpusRequest {
        namespace: namespace.to_owned(),
        opts: Some(upstream::ListOptions {
            resource_version: version.to_owned(),
        }),
    };
    Ok(client.gpus.watch_gpus(request).await?.into_inner())
}

/// The next event: its type, and the GPU.
async fn next(stream: &mut Streaming<WatchGpusResponse>) -> Result<(String, Gpu)> {
    let event = tokio::time::timeout(PATIENCE, stream.message()).await;
    let event = event.context("no event")??.context("the watch ended")?;
    Ok((event.r#type, event.object.context("no object")?))
}

/// Waits for an event that shows a GPU as it is wanted.
async fn until(
    stream: &mut Streaming<WatchGpusResponse>,
    name: &str,
    mut wanted: impl FnMut(&Gpu) -> bool,
) -> Result<Gpu> {
    loop {
        let (_, gpu) = next(stream).await?;
        if name_of(&gpu) == name && wanted(&gpu) {
            return Ok(gpu);
        }
    }
}

fn name_of(gpu: &Gpu) -> &str {
    gpu.metadata.as_ref().map_or("", |meta| &meta.name)
}

fn version_text(gpu: &Gpu) -> &str {
    gpu.metadata
        .as_ref()
        .map_or("", |meta| &meta.resource_version)
}

fn version_of(gpu: &Gpu) -> Result<u64> {
    let text = version_text(gpu);
    text.parse().with_context(|| format!("version {text:?}"))
}

fn condition<'a>(gpu: &'a Gpu, type_: &str) -> Option<&'a Condition> {
    let conditions = &gpu.status.as_ref()?.conditions;
    conditions.iter().find(|c| c.r#type == type_)
}

fn is(type_: &'static str, status: &'static str) -> impl FnMut(&Gpu) -> bool {
    move |gpu| condition(gpu, type_).is_some_and(|condition| condition.status == status)
}

async fn empty() -> Result<(Node, Upstream)> {
    let node = Node::builder()?.without_nvml().start()?;
    let client = node.upstream().await?;
    Ok((node, client))
}

// ---- the twelve ----

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

/// 7. Its NVML provider took ECC events for XIDs. (NVML that errors: `n2_a_driver_that_goes_and_comes_is_followed`
/// and `n3_an_event_set_that_keeps_saying_lost_holds_nobody_up` of host/nvml.)
#[tokio::test]
async fn shortcoming_07_an_ecc_event_is_no_xid() -> Result<()> {
    let node = Node::start()?;
    node.healthy().await?;
    let mut client = node.upstream().await?;
    let name = node.uuid(0)?;
    let mut stream = watch(&mut client, "", "").await?;
    node.sim()?.ecc(0, EccKind::Corrected, 1)?;
    // Behind it: once that is told, the event was judged.
    node.sim()?.xid(0, &[31])?;
    let gpu = until(&mut stream, &name, is("XidApplicationError", "True")).await?;
    assert!(is("Ready", "True")(&gpu));
    assert!(!is("XidCriticalError", "True")(&gpu), "{gpu:?}");
    Ok(())
}

/// 7. It ignored a lost GPU, and never recovered a condition.
#[tokio::test]
async fn shortcoming_07_a_lost_gpu_is_told_and_conditions_recover() -> Result<()> {
    let node = Node::start()?;
    node.healthy().await?;
    let mut client = node.upstream().await?;
    let name = node.uuid(3)?;
    let mut stream = watch(&mut client, "", "").await?;
    node.sim()?.lost(3)?;
    let lost = until(&mut stream, &name, is("GpuLost", "True")).await?;
    assert!(is("Ready", "False")(&lost));
    node.sim()?.found(3)?;
    until(&mut stream, &name, is("Ready", "True")).await?;
    node.sim()?.temperature(3, 95)?;
    until(&mut stream, &name, is("Temperature", "True")).await?;
    node.sim()?.temperature(3, 40)?;
    until(&mut stream, &name, is("Temperature", "False")).await?;
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

/// 12. Its critical XIDs missed these, which the vendor's catalogue calls for a reset or restart for…
const MISSED: [(u64, &str); 11] = [
    (46, "COMPONENT_RESET"),
    (62, "COMPONENT_RESET"),
    (109, "COMPONENT_RESET"),
    (110, "COMPONENT_RESET"),
    (136, "COMPONENT_RESET"),
    (140, "COMPONENT_RESET"),
    (143, "COMPONENT_RESET"),
    (151, "RESTART_BM"),
    (155, "COMPONENT_RESET"),
    (156, "COMPONENT_RESET"),
    (158, "COMPONENT_RESET"),
];

/// … and it called these fatal: a row that was remapped, and an error that was contained.
const MISREPORTED: [u64; 2] = [63, 94];

/// 12. Its list of critical XIDs missed eleven, and it reported 63 and 94 wrongly.
#[tokio::test]
async fn shortcoming_12_xids_are_classified_as_the_vendor_does() -> Result<()> {
    let count = u32::try_from(MISSED.len() + MISREPORTED.len())?;
    let node = Node::builder()?.gpus(count).start()?;
    node.healthy().await?;
    let mut client = node.upstream().await?;
    let mut stream = watch(&mut client, "", "").await?;
    for (gpu, (xid, action)) in (0..).zip(MISSED) {
        node.sim()?.xid(gpu, &[xid])?;
        let told = until(
            &mut stream,
            &node.uuid(gpu)?,
            is("XidCriticalError", "True"),
        )
        .await?;
        assert!(is("Ready", "False")(&told), "XID {xid}: {told:?}");
        let recommended = told.status.context("no status")?.recommended_action;
        assert_eq!(recommended, action, "XID {xid}");
    }
    for (gpu, xid) in (u32::try_from(MISSED.len())?..).zip(MISREPORTED) {
        node.sim()?.xid(gpu, &[xid])?;
        // An application's fault behind it: once that is told, the first was judged.
        node.sim()?.xid(gpu, &[31])?;
        let told = until(
            &mut stream,
            &node.uuid(gpu)?,
            is("XidApplicationError", "True"),
        )
        .await?;
        assert!(is("Ready", "True")(&told), "XID {xid}: {told:?}");
    }
    Ok(())
}
