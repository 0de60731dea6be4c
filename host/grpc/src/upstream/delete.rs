//! DeleteGpu: unconditional in this dialect.

use device_api_core::ports::Devices;
use device_api_core::provider::Caller;
use device_api_proto::upstream as proto;

use crate::fields::Named;
use crate::status::Refusal;

pub(super) async fn delete<D: Devices>(
    devices: &D,
    caller: Caller,
    request: proto::DeleteGpuRequest,
) -> Result<(), Refusal> {
    let key = Named {
        path: "",
        namespace: &request.namespace,
        name: &request.name,
    }
    .existing()?;
    Ok(devices.delete(&caller, &key, None).await?)
}
