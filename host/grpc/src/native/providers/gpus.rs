//! RegisterGpu and UnregisterGpu.

use device_api_core::ports::Devices;
use device_api_core::provider::{Caller, Creation};
use device_api_proto::native::{self as proto, server as served};

use super::provider;
use crate::fields::Named;
use crate::native::{convert, write};
use crate::status::Refusal;

pub(super) async fn register<D: Devices>(
    devices: &D,
    connection: Caller,
    request: proto::RegisterGpuRequest,
) -> Result<served::RegisterGpuResponse, Refusal> {
    let caller = provider(devices, connection, &request.lease_id)?;
    let key = Named {
        path: "",
        namespace: &request.namespace,
        name: &request.name,
    }
    .new_object()?;
    let device = write::device("spec", request.spec)?;
    let creation = Creation {
        key,
        uuid: device.uuid.clone(),
        device: Some(device),
    };
    let (gpu, created) = devices.create(&caller, creation, false).await?;
    Ok(served::RegisterGpuResponse {
        gpu: Some(convert::gpu(&gpu)),
        created,
    })
}

pub(super) async fn unregister<D: Devices>(
    devices: &D,
    connection: Caller,
    request: proto::UnregisterGpuRequest,
) -> Result<proto::UnregisterGpuResponse, Refusal> {
    let caller = provider(devices, connection, &request.lease_id)?;
    let key = Named {
        path: "",
        namespace: &request.namespace,
        name: &request.name,
    }
    .existing()?;
    devices.delete(&caller, &key, None).await?;
    Ok(proto::UnregisterGpuResponse {})
}
