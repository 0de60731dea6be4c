//! `IncidentService`: the faults of this node, and an operator's word on them (design N5, N7).

mod clear;
mod list;

use std::sync::Arc;

use device_api_core::ports::Devices;
use device_api_proto::native::server::incident_service_server::{IncidentService, SERVICE_NAME};
use device_api_proto::native::{self as proto, server as served};
use tonic::{Request, Response, Status, async_trait};

use crate::context::Context;
use crate::observe::Method;

const CLEAR_CONDITION: Method = Method {
    service: SERVICE_NAME,
    name: "ClearCondition",
};

/// `IncidentService`.
#[derive(Debug)]
pub(crate) struct Incidents<D> {
    context: Arc<Context<D>>,
}

impl<D: Devices> Incidents<D> {
    pub(crate) fn new(context: Arc<Context<D>>) -> Self {
        Self { context }
    }
}

#[async_trait]
impl<D: Devices> IncidentService for Incidents<D> {
    async fn list_incidents(
        &self,
        request: Request<proto::ListIncidentsRequest>,
    ) -> Result<Response<proto::ListIncidentsResponse>, Status> {
        let incidents = self.context.incidents();
        self.context
            .read(request, |_devices, request| list::list(incidents, request))
            .await
    }

    async fn clear_condition(
        &self,
        request: Request<proto::ClearConditionRequest>,
    ) -> Result<Response<served::ClearConditionResponse>, Status> {
        let incidents = self.context.incidents();
        self.context
            .write(CLEAR_CONDITION, request, |devices, _caller, request| {
                clear::clear(devices, incidents, request)
            })
            .await
    }
}
