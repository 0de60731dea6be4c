//! DeleteGpu.

use device_api_core::ports::Devices;
use device_api_core::provider::Caller;
use device_api_proto::native as proto;

use super::write;
use crate::fields::Named;
use crate::status::Refusal;

pub(super) async fn delete<D: Devices>(
    devices: &D,
    caller: Caller,
    request: proto::DeleteGpuRequest,
) -> Result<proto::DeleteGpuResponse, Refusal> {
    let key = Named {
        path: "",
        namespace: &request.namespace,
        name: &request.name,
    }
    .existing()?;
    let expected = write::version("resource_version", request.resource_version)?;
    devices.delete(&caller, &key, expected).await?;
    Ok(proto::DeleteGpuResponse {})
}
