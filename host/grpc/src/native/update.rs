//! UpdateGpu (the spec) and UpdateGpuStatus (the caller's conditions).

use device_api_core::ports::Devices;
use device_api_core::provider::{Caller, Merge, StatusUpdate};
use device_api_proto::native as proto;

use super::{convert, write};
use crate::fields::{FieldError, Named, device_uuid};
use crate::status::Refusal;

pub(super) async fn update<D: Devices>(
    devices: &D,
    caller: Caller,
    request: proto::UpdateGpuRequest,
) -> Result<proto::Gpu, Refusal> {
    let gpu = request.gpu.ok_or_else(|| FieldError::required("gpu"))?;
    let key = Named {
        path: "gpu.",
        namespace: &gpu.namespace,
        name: &gpu.name,
    }
    .existing()?;
    let spec = gpu.spec.ok_or_else(|| FieldError::required("gpu.spec"))?;
    let uuid = device_uuid("gpu.spec.uuid", &spec.uuid)?;
    let expected = write::version("gpu.resource_version", gpu.resource_version)?;
    let gpu = devices.update_spec(&caller, &key, &uuid, expected).await?;
    Ok(convert::gpu(&gpu))
}

/// Of the status, only the conditions are read: health and recommended action are derived.
pub(super) async fn update_status<D: Devices>(
    devices: &D,
    caller: Caller,
    request: proto::UpdateGpuStatusRequest,
) -> Result<proto::Gpu, Refusal> {
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
        conditions: write::conditions("status.conditions", status.conditions)?,
        merge: Merge::Strict,
    };
    let gpu = devices.update_status(&caller, update).await?;
    Ok(convert::gpu(&gpu))
}
