//! The native dialect, `nvidia.device.v1alpha1`: one RPC (or a few that belong together) a file.

mod convert;
mod create;
mod daemon;
mod delete;
mod hardware;
mod incidents;
mod nvml;
mod policies;
mod providers;
mod read;
mod select;
mod update;
mod watch;
mod write;

use std::sync::Arc;

use device_api_core::ports::Devices;
use device_api_proto::native::server::gpu_service_server::{GpuService, SERVICE_NAME};
use device_api_proto::{
    Encoded,
    native::{self as proto, server as served},
};
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, async_trait};

use crate::context::Context;
use crate::observe::Method;

pub(crate) use daemon::Daemon;
pub(crate) use incidents::Incidents;
pub(crate) use nvml::Nvml;
pub(crate) use policies::Policies;
pub(crate) use providers::Providers;

const fn method(name: &'static str) -> Method {
    Method {
        service: SERVICE_NAME,
        name,
    }
}

/// `GpuService`.
#[derive(Debug)]
pub(crate) struct Gpus<D> {
    context: Arc<Context<D>>,
}

impl<D: Devices> Gpus<D> {
    pub(crate) fn new(context: Arc<Context<D>>) -> Self {
        Self { context }
    }
}

#[async_trait]
impl<D: Devices> GpuService for Gpus<D> {
    type WatchGpusStream = BoxStream<served::WatchGpusResponse>;

    async fn get_gpu(
        &self,
        request: Request<proto::GetGpuRequest>,
    ) -> Result<Response<served::GetGpuResponse>, Status> {
        self.context.read(request, read::get).await
    }

    async fn list_gpus(
        &self,
        request: Request<proto::ListGpusRequest>,
    ) -> Result<Response<served::ListGpusResponse>, Status> {
        self.context.read(request, read::list).await
    }

    async fn watch_gpus(
        &self,
        request: Request<proto::WatchGpusRequest>,
    ) -> Result<Response<Self::WatchGpusStream>, Status> {
        self.context
            .watch(request, watch::parse, watch::encode)
            .await
    }

    async fn create_gpu(
        &self,
        request: Request<proto::CreateGpuRequest>,
    ) -> Result<Response<served::CreateGpuResponse>, Status> {
        self.context
            .write(method("CreateGpu"), request, create::create)
            .await
    }

    async fn update_gpu(
        &self,
        request: Request<proto::UpdateGpuRequest>,
    ) -> Result<Response<Encoded>, Status> {
        self.context
            .write(method("UpdateGpu"), request, update::update)
            .await
    }

    async fn update_gpu_status(
        &self,
        request: Request<proto::UpdateGpuStatusRequest>,
    ) -> Result<Response<Encoded>, Status> {
        self.context
            .write(
                method("UpdateGpuStatus"),
                request,
                |devices, caller, request| {
                    update::update_status(devices, self.context.bounds(), caller, request)
                },
            )
            .await
    }

    async fn delete_gpu(
        &self,
        request: Request<proto::DeleteGpuRequest>,
    ) -> Result<Response<proto::DeleteGpuResponse>, Status> {
        self.context
            .write(method("DeleteGpu"), request, delete::delete)
            .await
    }
}
