//! ReportReset: a GPU was reset, as somebody says who should know.

use device_api_core::ports::{Devices, Incidents};
use device_api_core::provider::Caller;
use device_api_core::recovery::ResetReport;
use device_api_proto::native::{self as proto, server as served};

use crate::fields::{self, Named};
use crate::native::convert;
use crate::status::Refusal;

pub(super) async fn report<D: Devices>(
    devices: &D,
    incidents: &dyn Incidents,
    caller: Caller,
    request: proto::ReportResetRequest,
) -> Result<served::ReportResetResponse, Refusal> {
    let key = Named {
        path: "",
        namespace: &request.namespace,
        name: &request.name,
    }
    .existing()?;
    let reason = super::reason(
        &request.reason,
        "say how it is known, for those who find it well",
    )?;
    let by = if request.lease_id.is_empty() {
        caller.identity.to_string()
    } else {
        fields::lease_id(&request.lease_id)?;
        format!("provider {}", devices.provider_of(&request.lease_id)?)
    };
    // What is being decided of it comes first: it is from before the report.
    let gpu = devices.get(&key).await?;
    incidents.report_reset(&ResetReport {
        device: gpu.uuid.clone(),
        by,
        reason,
    })?;
    // It may have been deleted meanwhile, or the daemon be going down: it is noted all the same.
    let now = devices.get(&key).await.ok();
    Ok(served::ReportResetResponse {
        gpu: now.map(|gpu| convert::gpu(&gpu)),
    })
}
