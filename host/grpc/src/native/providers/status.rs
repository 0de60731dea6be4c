//! UpdateGpuStatus and UpdateGpuCondition.

use device_api_core::limits::Bounds;
use device_api_core::ports::Devices;
use device_api_core::provider::{Caller, Merge, StatusUpdate};
use device_api_proto::{Encoded, native as proto};

use super::provider;
use crate::fields::{FieldError, Named};
use crate::native::{convert, write};
use crate::status::Refusal;

pub(super) async fn update_status<D: Devices>(
    devices: &D,
    bounds: &Bounds,
    connection: Caller,
    request: proto::ProviderUpdateGpuStatusRequest,
) -> Result<Encoded, Refusal> {
    let caller = provider(devices, connection, &request.lease_id)?;
    let update = StatusUpdate {
        key: Named {
            path: "",
            namespace: &request.namespace,
            name: &request.name,
        }
        .existing()?,
        expected: write::version("resource_version", request.resource_version)?,
        conditions: write::conditions(bounds, "conditions", request.conditions)?,
        merge: Merge::Strict,
    };
    let gpu = devices.update_status(&caller, update).await?;
    Ok(convert::gpu(&gpu))
}

pub(super) async fn update_condition<D: Devices>(
    devices: &D,
    connection: Caller,
    request: proto::UpdateGpuConditionRequest,
) -> Result<Encoded, Refusal> {
    let caller = provider(devices, connection, &request.lease_id)?;
    let key = Named {
        path: "",
        namespace: &request.namespace,
        name: &request.name,
    }
    .existing()?;
    let condition = request
        .condition
        .ok_or_else(|| FieldError::required("condition"))?;
    let condition = write::condition("condition", condition)?;
    let gpu = devices.update_condition(&caller, &key, condition).await?;
    Ok(convert::gpu(&gpu))
}
