//! GetNvmlStatus.

use device_api_core::ports::{NvmlControl, NvmlStatus};
use device_api_core::recovery::ReleaseFor;
use device_api_proto::native as proto;

use crate::fields::timestamp;
use crate::status::Refusal;

/// Calls that one answer names. The source has 19 threads that make any, at the most.
const HUNG_CALLS_MAX: usize = 32;

pub(super) async fn get(
    nvml: &dyn NvmlControl,
    _request: proto::GetNvmlStatusRequest,
) -> Result<proto::GetNvmlStatusResponse, Refusal> {
    let (status, hung) = nvml.status();
    let hung = hung.into_iter().take(HUNG_CALLS_MAX);
    Ok(proto::GetNvmlStatusResponse {
        hung_calls: hung.map(super::hung).collect(),
        ..shown(status)
    })
}

fn shown(status: NvmlStatus) -> proto::GetNvmlStatusResponse {
    let of = |state: proto::NvmlState| proto::GetNvmlStatusResponse {
        state: state.into(),
        ..Default::default()
    };
    match status {
        NvmlStatus::Disabled => of(proto::NvmlState::Disabled),
        NvmlStatus::Missing { why } => proto::GetNvmlStatusResponse {
            detail: why,
            ..of(proto::NvmlState::Missing)
        },
        NvmlStatus::Released { purpose, until } => proto::GetNvmlStatusResponse {
            release_purpose: match purpose {
                ReleaseFor::Reset => proto::NvmlReleasePurpose::Reset,
                ReleaseFor::Upgrade => proto::NvmlReleasePurpose::Upgrade,
            }
            .into(),
            released_until: timestamp(until),
            ..of(proto::NvmlState::Released)
        },
        NvmlStatus::Ready {
            library,
            driver,
            gpus,
            simulated,
        } => proto::GetNvmlStatusResponse {
            library,
            driver_version: driver,
            gpus: Some(u32::try_from(gpus).unwrap_or(u32::MAX)),
            simulated,
            ..of(proto::NvmlState::Ready)
        },
    }
}
