//! ListProviders and ForgetProvider: who owns condition types.

use device_api_core::limits::NAME_BYTES_MAX;
use device_api_core::ports::Devices;
use device_api_core::provider::{Caller, ProviderInfo};
use device_api_proto::native as proto;

use crate::fields::{FieldError, bounded};
use crate::native::convert;
use crate::status::Refusal;

pub(super) async fn list<D: Devices>(
    devices: &D,
    _request: proto::ListProvidersRequest,
) -> Result<proto::ListProvidersResponse, Refusal> {
    let providers = devices.providers().into_iter().map(provider).collect();
    Ok(proto::ListProvidersResponse { providers })
}

fn provider(info: ProviderInfo) -> proto::Provider {
    proto::Provider {
        name: info.name.to_string(),
        identity: info.identity.to_string(),
        lease_remaining: info.lease.map(convert::duration),
        condition_types: info.types.iter().map(ToString::to_string).collect(),
    }
}

/// Of the name only presence and length are checked: upstream's providers have that of their identity.
pub(super) async fn forget<D: Devices>(
    devices: &D,
    _connection: Caller,
    request: proto::ForgetProviderRequest,
) -> Result<proto::ForgetProviderResponse, Refusal> {
    if request.name.is_empty() {
        return Err(FieldError::new("name", "required; ListProviders tells which exist").into());
    }
    bounded("name", &request.name, NAME_BYTES_MAX)?;
    let released = devices.forget_provider(&request.name).await?;
    Ok(proto::ForgetProviderResponse {
        released_types: released.iter().map(ToString::to_string).collect(),
    })
}
