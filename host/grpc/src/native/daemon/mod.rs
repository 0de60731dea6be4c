//! `DaemonService`: the daemon itself, as its operators look at it, and how much it logs.

mod log;
mod status;

use std::sync::Arc;

use device_api_core::ports::Devices;
use device_api_proto::native as proto;
use device_api_proto::native::server::daemon_service_server::{DaemonService, SERVICE_NAME};
use tonic::{Request, Response, Status, async_trait};

use crate::conn::ConnInfo;
use crate::context::Context;
use crate::observe::Method;

const fn method(name: &'static str) -> Method {
    Method {
        service: SERVICE_NAME,
        name,
    }
}

/// `DaemonService`.
#[derive(Debug)]
pub(crate) struct Daemon<D> {
    context: Arc<Context<D>>,
}

impl<D: Devices> Daemon<D> {
    pub(crate) fn new(context: Arc<Context<D>>) -> Self {
        Self { context }
    }
}

#[async_trait]
impl<D: Devices> DaemonService for Daemon<D> {
    async fn get_daemon_status(
        &self,
        request: Request<proto::GetDaemonStatusRequest>,
    ) -> Result<Response<proto::GetDaemonStatusResponse>, Status> {
        let caller = request.extensions().get::<Arc<ConnInfo>>().cloned();
        let daemon = self.context.daemon();
        self.context
            .read(request, |_devices, _request| status::get(daemon, caller))
            .await
    }

    async fn set_log_filter(
        &self,
        request: Request<proto::SetLogFilterRequest>,
    ) -> Result<Response<proto::SetLogFilterResponse>, Status> {
        let daemon = self.context.daemon();
        self.context
            .write(method("SetLogFilter"), request, |_, _, request| {
                log::set(daemon, request)
            })
            .await
    }

    async fn reset_log_filter(
        &self,
        request: Request<proto::ResetLogFilterRequest>,
    ) -> Result<Response<proto::ResetLogFilterResponse>, Status> {
        let daemon = self.context.daemon();
        self.context
            .write(method("ResetLogFilter"), request, |_, _, request| {
                log::reset(daemon, request)
            })
            .await
    }
}
