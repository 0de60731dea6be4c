//! GetGpu and ListGpus: the newest state for any well-formed version. List-then-watch clients list
//! again *with the old version* after it has expired, so only its form is looked at.

use device_api_core::error::ApiError;
use device_api_core::ports::Devices;
use device_api_core::selector::Selection;
use device_api_proto::upstream::{self as proto, server as served};

use super::{convert, write};
use crate::fields::{FieldError, Named, scope};
use crate::status::Refusal;

pub(super) async fn get<D: Devices>(
    devices: &D,
    request: proto::GetGpuRequest,
) -> Result<served::GetGpuResponse, Refusal> {
    let key = Named {
        path: "",
        namespace: &request.namespace,
        name: &request.name,
    }
    .existing()?;
    write::version(
        "opts.resource_version",
        &request.opts.unwrap_or_default().resource_version,
    )?;
    let gpu = devices.get(&key).await?;
    if gpu.device.parent.is_some() {
        return Err(ApiError::NotFound { key }.into());
    }
    Ok(served::GetGpuResponse {
        gpu: Some(convert::gpu(&gpu)),
    })
}

/// This dialect has no word for a part of a GPU: its clients would take a MIG instance for one more GPU.
pub(super) fn selection(namespace: &str) -> Result<Selection, FieldError> {
    Ok(Selection {
        whole_gpus: true,
        ..Selection::of(scope("namespace", namespace)?)
    })
}

pub(super) async fn list<D: Devices>(
    devices: &D,
    request: proto::ListGpusRequest,
) -> Result<served::ListGpusResponse, Refusal> {
    write::version(
        "opts.resource_version",
        &request.opts.unwrap_or_default().resource_version,
    )?;
    let selection = selection(&request.namespace)?;
    let listing = devices.list(&selection).await;
    Ok(served::ListGpusResponse {
        gpu_list: Some(served::GpuList {
            metadata: Some(proto::ListMeta {
                resource_version: listing.version.to_string(),
            }),
            items: listing.gpus.iter().map(|gpu| convert::gpu(gpu)).collect(),
        }),
    })
}
