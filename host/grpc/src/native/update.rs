//! UpdateGpu (the spec) and UpdateGpuStatus (the caller's conditions).

use device_api_core::limits::Bounds;
use device_api_core::ports::Devices;
use device_api_core::provider::{Caller, Merge, StatusUpdate};
use device_api_proto::{Encoded, native as proto};

use super::{convert, write};
use crate::fields::{FieldError, Named};
use crate::status::Refusal;

pub(super) async fn update<D: Devices>(
    devices: &D,
    caller: Caller,
    request: proto::UpdateGpuRequest,
) -> Result<Encoded, Refusal> {
    let gpu = request.gpu.ok_or_else(|| FieldError::required("gpu"))?;
    let key = Named {
        path: "gpu.",
        namespace: &gpu.namespace,
        name: &gpu.name,
    }
    .existing()?;
    let spec = gpu.spec.ok_or_else(|| FieldError::required("gpu.spec"))?;
    let uuid = write::uuid("gpu.spec", &spec)?;
    let expected = write::version("gpu.resource_version", gpu.resource_version)?;
    let gpu = devices.update_spec(&caller, &key, &uuid, expected).await?;
    Ok(convert::gpu(&gpu))
}

/// Of the status, only the conditions are read: health and recommended action are derived.
pub(super) async fn update_status<D: Devices>(
    devices: &D,
    bounds: &Bounds,
    caller: Caller,
    request: proto::UpdateGpuStatusRequest,
) -> Result<Encoded, Refusal> {
    let key = Named {
        path: "",
        namespace: &request.namespace,
        name: &request.name,
    }
    .existing()?;
    let status = request
        .status
        .ok_or_else(|| FieldError::required("status"))?;
    let update = StatusUpdate {
        key,
        expected: write::version("resource_version", request.resource_version)?,
        conditions: write::conditions(bounds, "status.conditions", status.conditions)?,
        merge: Merge::Strict,
    };
    let gpu = devices.update_status(&caller, update).await?;
    Ok(convert::gpu(&gpu))
}
