//! ClearCondition: a problem is over because an operator says so.

use device_api_core::ports::{Devices, Incidents};
use device_api_core::recovery::ClearRequest;
use device_api_proto::native::{self as proto, server as served};

use crate::fields::{Named, condition_type};
use crate::native::convert;
use crate::status::Refusal;

pub(super) async fn clear<D: Devices>(
    devices: &D,
    incidents: &dyn Incidents,
    request: proto::ClearConditionRequest,
) -> Result<served::ClearConditionResponse, Refusal> {
    let key = Named {
        path: "",
        namespace: &request.namespace,
        name: &request.name,
    }
    .existing()?;
    condition_type("condition_type", &request.condition_type)?;
    let reason = super::reason(
        &request.reason,
        "say why it is over, for those who find it so",
    )?;
    // What is being decided of it comes first: it may be what is to be cleared.
    let gpu = devices.get(&key).await?;
    incidents.clear(&ClearRequest {
        device: gpu.uuid.clone(),
        condition: request.condition_type,
        reason,
    })?;
    // It may have been deleted meanwhile, or the daemon be going down: it is cleared all the same.
    let now = devices.get(&key).await.ok();
    Ok(served::ClearConditionResponse {
        gpu: now.map(|gpu| convert::gpu(&gpu)),
    })
}
