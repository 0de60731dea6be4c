//! GetGpu and ListGpus.

use device_api_core::ports::Devices;
use device_api_core::watch::Scope;
use device_api_proto::native as proto;

use super::convert;
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
    let gpu = devices.get(&key).await?;
    Ok(proto::GetGpuResponse {
        gpu: Some(convert::gpu(&gpu)),
    })
}

pub(super) async fn list<D: Devices>(
    devices: &D,
    request: proto::ListGpusRequest,
) -> Result<proto::ListGpusResponse, Refusal> {
    let listing = devices.list(&Scope::from_wire(&request.namespace)).await;
    Ok(proto::ListGpusResponse {
        gpus: listing.gpus.iter().map(|gpu| convert::gpu(gpu)).collect(),
        resource_version: convert::version(listing.version),
    })
}
