//! CreateGpu: a duplicate is an error here. A status that comes along is ignored; it has its own
//! method.

use device_api_core::ports::Devices;
use device_api_core::provider::{Caller, Creation};
use device_api_proto::{Encoded, upstream as proto};

use super::convert;
use crate::fields::{FieldError, Named, device_uuid};
use crate::status::Refusal;

pub(super) async fn create<D: Devices>(
    devices: &D,
    caller: Caller,
    request: proto::CreateGpuRequest,
) -> Result<Encoded, Refusal> {
    let gpu = request.gpu.ok_or_else(|| FieldError::required("gpu"))?;
    let meta = gpu
        .metadata
        .ok_or_else(|| FieldError::required("gpu.metadata"))?;
    let key = Named {
        path: "gpu.metadata.",
        namespace: &meta.namespace,
        name: &meta.name,
    }
    .new_object()?;
    let uuid = device_uuid("gpu.spec.uuid", &gpu.spec.unwrap_or_default().uuid)?;
    let (gpu, _created) = devices
        .create(
            &caller,
            Creation {
                key,
                uuid,
                device: None,
            },
            true,
        )
        .await?;
    Ok(convert::gpu(&gpu))
}
