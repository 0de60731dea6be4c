//! RegisterProvider and Heartbeat.

use device_api_core::limits::LEASE_DEFAULT;
use device_api_core::ports::Devices;
use device_api_core::provider::{Caller, Registration};
use device_api_proto::native as proto;

use crate::fields::{lease_id, object_name};
use crate::native::{convert, write};
use crate::status::Refusal;

pub(super) async fn register<D: Devices>(
    devices: &D,
    connection: Caller,
    request: proto::RegisterProviderRequest,
) -> Result<proto::RegisterProviderResponse, Refusal> {
    object_name("name", &request.name)?;
    let duration = match request.lease_duration {
        Some(asked) => write::lease_duration("lease_duration", asked)?,
        None => LEASE_DEFAULT,
    };
    let lease = devices
        .register_provider(Registration {
            provider: request.name.into(),
            identity: connection.identity,
            duration,
        })
        .await?;
    Ok(proto::RegisterProviderResponse {
        lease_id: lease.id.to_string(),
        lease_duration: Some(convert::duration(lease.duration)),
        rewrite_conditions: lease.rewrite,
    })
}

pub(super) async fn heartbeat<D: Devices>(
    devices: &D,
    _connection: Caller,
    request: proto::HeartbeatRequest,
) -> Result<proto::HeartbeatResponse, Refusal> {
    lease_id(&request.lease_id)?;
    let lease = devices.heartbeat(&request.lease_id).await?;
    Ok(proto::HeartbeatResponse {
        lease_duration: Some(convert::duration(lease.duration)),
        rewrite_conditions: lease.rewrite,
    })
}
