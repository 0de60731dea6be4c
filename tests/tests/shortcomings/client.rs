//! What the clients of that server say.

use anyhow::{Context as _, Result};
use device_api_proto::upstream::{self, Condition, Gpu, ObjectMeta, WatchGpusResponse};
use device_api_tests::{Node, PATIENCE, Upstream};
use tonic::Streaming;

pub(crate) fn meta(name: &str, namespace: &str, version: &str) -> Option<ObjectMeta> {
    Some(ObjectMeta {
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        resource_version: version.to_owned(),
        ..ObjectMeta::default()
    })
}

pub(crate) async fn create(client: &mut Upstream, name: &str, namespace: &str) -> Result<Gpu> {
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

pub(crate) fn said(type_: &str, status: &str) -> Condition {
    Condition {
        r#type: type_.to_owned(),
        status: status.to_owned(),
        reason: "Because".to_owned(),
        ..Condition::default()
    }
}

/// Writes a whole status, as its clients do.
pub(crate) async fn write(
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

pub(crate) async fn get(client: &mut Upstream, name: &str) -> Result<Gpu> {
    let request = upstream::GetGpuRequest {
        name: name.to_owned(),
        ..upstream::GetGpuRequest::default()
    };
    let answer = client.gpus.get_gpu(request).await?.into_inner();
    answer.gpu.context("an answer without a GPU")
}

pub(crate) async fn list(client: &mut Upstream) -> Result<upstream::GpuList> {
    let request = upstream::ListGpusRequest::default();
    let answer = client.gpus.list_gpus(request).await?.into_inner();
    answer.gpu_list.context("no list")
}

pub(crate) async fn watch(
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
pub(crate) async fn next(stream: &mut Streaming<WatchGpusResponse>) -> Result<(String, Gpu)> {
    let event = tokio::time::timeout(PATIENCE, stream.message()).await;
    let event = event.context("no event")??.context("the watch ended")?;
    Ok((event.r#type, event.object.context("no object")?))
}

/// Waits for an event that shows a GPU as it is wanted.
pub(crate) async fn until(
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

pub(crate) fn name_of(gpu: &Gpu) -> &str {
    gpu.metadata.as_ref().map_or("", |meta| &meta.name)
}

pub(crate) fn version_text(gpu: &Gpu) -> &str {
    gpu.metadata
        .as_ref()
        .map_or("", |meta| &meta.resource_version)
}

pub(crate) fn version_of(gpu: &Gpu) -> Result<u64> {
    let text = version_text(gpu);
    text.parse().with_context(|| format!("version {text:?}"))
}

pub(crate) fn condition<'a>(gpu: &'a Gpu, type_: &str) -> Option<&'a Condition> {
    let conditions = &gpu.status.as_ref()?.conditions;
    conditions.iter().find(|c| c.r#type == type_)
}

pub(crate) fn is(type_: &'static str, status: &'static str) -> impl FnMut(&Gpu) -> bool {
    move |gpu| condition(gpu, type_).is_some_and(|condition| condition.status == status)
}

pub(crate) async fn empty() -> Result<(Node, Upstream)> {
    let node = Node::builder()?.without_nvml().start()?;
    let client = node.upstream().await?;
    Ok((node, client))
}
