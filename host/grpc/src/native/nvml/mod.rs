//! `NvmlService`: the driver's library, let go of and taken up again by operators (design N2).

mod command;
mod status;

use std::sync::Arc;

use device_api_core::ids::DeviceUuid;
use device_api_core::ports::Devices;
use device_api_core::recovery::HungCall;
use device_api_proto::native as proto;
use device_api_proto::native::server::nvml_service_server::{NvmlService, SERVICE_NAME};
use tonic::{Request, Response, Status, async_trait};

use super::convert::duration;
use crate::context::Context;
use crate::observe::Method;

const fn method(name: &'static str) -> Method {
    Method {
        service: SERVICE_NAME,
        name,
    }
}

/// `NvmlService`.
#[derive(Debug)]
pub(crate) struct Nvml<D> {
    context: Arc<Context<D>>,
}

impl<D: Devices> Nvml<D> {
    pub(crate) fn new(context: Arc<Context<D>>) -> Self {
        Self { context }
    }
}

#[async_trait]
impl<D: Devices> NvmlService for Nvml<D> {
    async fn get_nvml_status(
        &self,
        request: Request<proto::GetNvmlStatusRequest>,
    ) -> Result<Response<proto::GetNvmlStatusResponse>, Status> {
        let nvml = self.context.nvml();
        self.context
            .read(request, |_devices, request| status::get(nvml, request))
            .await
    }

    async fn release_nvml(
        &self,
        request: Request<proto::ReleaseNvmlRequest>,
    ) -> Result<Response<proto::ReleaseNvmlResponse>, Status> {
        let nvml = self.context.nvml();
        self.context
            .write(method("ReleaseNvml"), request, |_, _, request| {
                command::release(nvml, request)
            })
            .await
    }

    async fn attach_nvml(
        &self,
        request: Request<proto::AttachNvmlRequest>,
    ) -> Result<Response<proto::AttachNvmlResponse>, Status> {
        let (nvml, bounds) = (self.context.nvml(), self.context.bounds());
        self.context
            .write(method("AttachNvml"), request, |_, _, request| {
                command::attach(nvml, bounds, request)
            })
            .await
    }
}

fn hung(hung: HungCall) -> proto::HungNvmlCall {
    let uuid = |device: Option<DeviceUuid>| device.map(|uuid| uuid.to_string());
    proto::HungNvmlCall {
        call: hung.call,
        device: uuid(hung.device).unwrap_or_default(),
        age: Some(duration(hung.age)),
        index: hung.index,
        peer: uuid(hung.peer).unwrap_or_default(),
    }
}
