//! RegisterProvider and Heartbeat.

use device_api_core::limits::LEASE_DEFAULT;
use device_api_core::ports::Devices;
use device_api_core::provider::{Caller, Lease};
use device_api_proto::native as proto;

use crate::fields::{FieldError, object_name};
use crate::native::{convert, write};
use crate::status::Refusal;

/// The store gives out the id; an empty one asks for it.
pub(super) async fn register<D: Devices>(
    devices: &D,
    _connection: Caller,
    request: proto::RegisterProviderRequest,
) -> Result<proto::RegisterProviderResponse, Refusal> {
    object_name("name", &request.name)?;
    let duration = match request.lease_duration {
        Some(asked) => write::lease_duration("lease_duration", asked)?,
        None => LEASE_DEFAULT,
    };
    let lease = devices
        .register_provider(Lease {
            provider: request.name.into(),
            duration,
            id: "".into(),
        })
        .await?;
    Ok(proto::RegisterProviderResponse {
        lease_id: lease.id.to_string(),
        lease_duration: Some(convert::duration(lease.duration)),
    })
}

pub(super) async fn heartbeat<D: Devices>(
    devices: &D,
    _connection: Caller,
    request: proto::HeartbeatRequest,
) -> Result<proto::HeartbeatResponse, Refusal> {
    if request.lease_id.is_empty() {
        return Err(FieldError::new("lease_id", "required; RegisterProvider gives one").into());
    }
    let lease = devices.heartbeat(&request.lease_id).await?;
    Ok(proto::HeartbeatResponse {
        lease_duration: Some(convert::duration(lease.duration)),
    })
}
