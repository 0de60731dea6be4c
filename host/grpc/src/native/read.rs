//! GetGpu and ListGpus: the newest state, whatever version is asked for (design W1).

use device_api_core::ports::Devices;
use device_api_proto::native::{self as proto, server as served};

use super::{convert, select, write};
use crate::fields::Named;
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
    write::version("resource_version", request.resource_version)?;
    let gpu = devices.get(&key).await?;
    Ok(served::GetGpuResponse {
        gpu: Some(convert::gpu(&gpu)),
    })
}

pub(super) async fn list<D: Devices>(
    devices: &D,
    request: proto::ListGpusRequest,
) -> Result<served::ListGpusResponse, Refusal> {
    write::version("resource_version", request.resource_version)?;
    let selection = select::selection(
        &request.namespace,
        &request.label_selector,
        &request.field_selector,
    )?;
    let listing = devices.list(&selection).await;
    Ok(served::ListGpusResponse {
        gpus: listing.gpus.iter().map(|gpu| convert::gpu(gpu)).collect(),
        resource_version: convert::version(listing.version),
    })
}
