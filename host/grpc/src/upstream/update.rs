//! UpdateGpu (the spec alone) and UpdateGpuStatus (the status alone).

use device_api_core::ids::{ObjectKey, ResourceVersion};
use device_api_core::limits::Bounds;
use device_api_core::ports::Devices;
use device_api_core::provider::{Caller, Merge, StatusUpdate};
use device_api_proto::{Encoded, upstream as proto};

use super::{convert, write};
use crate::fields::{FieldError, Named, device_uuid};
use crate::status::Refusal;

pub(super) async fn update<D: Devices>(
    devices: &D,
    caller: Caller,
    request: proto::UpdateGpuRequest,
) -> Result<Encoded, Refusal> {
    let gpu = request.gpu.ok_or_else(|| FieldError::required("gpu"))?;
    let (key, expected) = target(gpu.metadata)?;
    let uuid = device_uuid("gpu.spec.uuid", &gpu.spec.unwrap_or_default().uuid)?;
    let gpu = devices.update_spec(&caller, &key, &uuid, expected).await?;
    Ok(convert::gpu(&gpu))
}

/// Merged by type (design P1): others' types are left alone, and the response shows the truth.
pub(super) async fn update_status<D: Devices>(
    devices: &D,
    bounds: &Bounds,
    caller: Caller,
    request: proto::UpdateGpuStatusRequest,
) -> Result<Encoded, Refusal> {
    let gpu = request.gpu.ok_or_else(|| FieldError::required("gpu"))?;
    let (key, expected) = target(gpu.metadata)?;
    let status = gpu
        .status
        .ok_or_else(|| FieldError::required("gpu.status"))?;
    let conditions = write::conditions(bounds, "gpu.status", status)?;
    let gpu = devices
        .update_status(
            &caller,
            StatusUpdate {
                key,
                expected,
                conditions,
                merge: Merge::Lenient,
            },
        )
        .await?;
    Ok(convert::gpu(&gpu))
}

fn target(
    meta: Option<proto::ObjectMeta>,
) -> Result<(ObjectKey, Option<ResourceVersion>), Refusal> {
    let meta = meta.ok_or_else(|| FieldError::required("gpu.metadata"))?;
    let key = Named {
        path: "gpu.metadata.",
        namespace: &meta.namespace,
        name: &meta.name,
    }
    .existing()?;
    let expected = write::version("gpu.metadata.resource_version", &meta.resource_version)?;
    Ok((key, expected))
}
