//! CreateGpu: idempotent.

use device_api_core::ports::Devices;
use device_api_core::provider::{Caller, Creation};
use device_api_proto::native::{self as proto, server as served};

use super::{convert, write};
use crate::fields::{FieldError, Named};
use crate::status::Refusal;

pub(super) async fn create<D: Devices>(
    devices: &D,
    caller: Caller,
    request: proto::CreateGpuRequest,
) -> Result<served::CreateGpuResponse, Refusal> {
    let gpu = request.gpu.ok_or_else(|| FieldError::required("gpu"))?;
    let key = Named {
        path: "gpu.",
        namespace: &gpu.namespace,
        name: &gpu.name,
    }
    .new_object()?;
    let device = write::device("gpu.spec", gpu.spec)?;
    let creation = Creation {
        key,
        uuid: device.uuid.clone(),
        device: Some(device),
    };
    let (gpu, created) = devices.create(&caller, creation, false).await?;
    Ok(served::CreateGpuResponse {
        gpu: Some(convert::gpu(&gpu)),
        created,
    })
}
