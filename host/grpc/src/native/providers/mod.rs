//! `ProviderService`: writing health from outside, under a lease. The provider is whom the lease
//! belongs to; the connection only has to be one that may write.

mod gpus;
mod lease;
mod names;
mod status;

use std::sync::Arc;

use device_api_core::ports::Devices;
use device_api_core::provider::Caller;
use device_api_proto::native::server::provider_service_server::{ProviderService, SERVICE_NAME};
use device_api_proto::{
    Encoded,
    native::{self as proto, server as served},
};
use tonic::{Request, Response, Status, async_trait};

use crate::context::Context;
use crate::fields;
use crate::observe::Method;
use crate::status::Refusal;

const fn method(name: &'static str) -> Method {
    Method {
        service: SERVICE_NAME,
        name,
    }
}

/// `ProviderService`.
#[derive(Debug)]
pub(crate) struct Providers<D> {
    context: Arc<Context<D>>,
}

impl<D: Devices> Providers<D> {
    pub(crate) fn new(context: Arc<Context<D>>) -> Self {
        Self { context }
    }
}

/// Who writes: over this connection, as the provider of the lease.
fn provider<D: Devices>(
    devices: &D,
    connection: Caller,
    lease_id: &str,
) -> Result<Caller, Refusal> {
    fields::lease_id(lease_id)?;
    Ok(Caller {
        provider: devices.provider_of(lease_id)?,
        lease: Some(lease_id.into()),
        ..connection
    })
}

#[async_trait]
impl<D: Devices> ProviderService for Providers<D> {
    async fn register_provider(
        &self,
        request: Request<proto::RegisterProviderRequest>,
    ) -> Result<Response<proto::RegisterProviderResponse>, Status> {
        self.context
            .write(method("RegisterProvider"), request, lease::register)
            .await
    }

    async fn heartbeat(
        &self,
        request: Request<proto::HeartbeatRequest>,
    ) -> Result<Response<proto::HeartbeatResponse>, Status> {
        self.context
            .write(method("Heartbeat"), request, lease::heartbeat)
            .await
    }

    async fn register_gpu(
        &self,
        request: Request<proto::RegisterGpuRequest>,
    ) -> Result<Response<served::RegisterGpuResponse>, Status> {
        self.context
            .write(method("RegisterGpu"), request, gpus::register)
            .await
    }

    async fn unregister_gpu(
        &self,
        request: Request<proto::UnregisterGpuRequest>,
    ) -> Result<Response<proto::UnregisterGpuResponse>, Status> {
        self.context
            .write(method("UnregisterGpu"), request, gpus::unregister)
            .await
    }

    async fn update_gpu_status(
        &self,
        request: Request<proto::ProviderUpdateGpuStatusRequest>,
    ) -> Result<Response<Encoded>, Status> {
        self.context
            .write(
                method("UpdateGpuStatus"),
                request,
                |devices, caller, request| {
                    status::update_status(devices, self.context.bounds(), caller, request)
                },
            )
            .await
    }

    async fn update_gpu_condition(
        &self,
        request: Request<proto::UpdateGpuConditionRequest>,
    ) -> Result<Response<Encoded>, Status> {
        self.context
            .write(
                method("UpdateGpuCondition"),
                request,
                status::update_condition,
            )
            .await
    }

    async fn list_providers(
        &self,
        request: Request<proto::ListProvidersRequest>,
    ) -> Result<Response<proto::ListProvidersResponse>, Status> {
        self.context.read(request, names::list).await
    }

    async fn forget_provider(
        &self,
        request: Request<proto::ForgetProviderRequest>,
    ) -> Result<Response<proto::ForgetProviderResponse>, Status> {
        self.context
            .write(method("ForgetProvider"), request, names::forget)
            .await
    }
}
