//! GetGpu and ListGpus: the newest state for any well-formed version. List-then-watch clients list
//! again *with the old version* after it has expired, so only its form is looked at.

use device_api_core::ports::Devices;
use device_api_core::watch::Scope;
use device_api_proto::upstream as proto;

use super::{convert, write};
use crate::fields::Named;
use crate::status::Refusal;

pub(super) async fn get<D: Devices>(
    devices: &D,
    request: proto::GetGpuRequest,
) -> Result<proto::GetGpuResponse, Refusal> {
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
    Ok(proto::GetGpuResponse {
        gpu: Some(convert::gpu(&gpu)),
    })
}

pub(super) async fn list<D: Devices>(
    devices: &D,
    request: proto::ListGpusRequest,
) -> Result<proto::ListGpusResponse, Refusal> {
    write::version(
        "opts.resource_version",
        &request.opts.unwrap_or_default().resource_version,
    )?;
    let listing = devices.list(&Scope::from_wire(&request.namespace)).await;
    Ok(proto::ListGpusResponse {
        gpu_list: Some(proto::GpuList {
            metadata: Some(proto::ListMeta {
                resource_version: listing.version.to_string(),
            }),
            items: listing.gpus.iter().map(|gpu| convert::gpu(gpu)).collect(),
        }),
    })
}
