//! `IncidentService`: the faults of this node, and an operator's word on them (design N5, N7).

mod clear;
mod list;
mod reset;

use std::sync::Arc;

use device_api_core::limits::POLICY_REASON_BYTES_MAX;
use device_api_core::ports::Devices;
use device_api_core::signal::printable;
use device_api_proto::native::server::incident_service_server::{IncidentService, SERVICE_NAME};
use device_api_proto::native::{self as proto, server as served};
use tonic::{Request, Response, Status, async_trait};

use crate::context::Context;
use crate::fields::{FieldError, bounded};
use crate::observe::Method;
use list::Lists;

const fn method(name: &'static str) -> Method {
    Method {
        service: SERVICE_NAME,
        name,
    }
}

/// `IncidentService`.
#[derive(Debug)]
pub(crate) struct Incidents<D> {
    context: Arc<Context<D>>,
    lists: Lists,
}

impl<D: Devices> Incidents<D> {
    pub(crate) fn new(context: Arc<Context<D>>) -> Self {
        let lists = Lists::new(context.incidents().clone());
        Self { context, lists }
    }
}

#[async_trait]
impl<D: Devices> IncidentService for Incidents<D> {
    async fn list_incidents(
        &self,
        request: Request<proto::ListIncidentsRequest>,
    ) -> Result<Response<proto::ListIncidentsResponse>, Status> {
        let lists = &self.lists;
        self.context
            .read(request, |_devices, request| lists.list(request))
            .await
    }

    async fn clear_condition(
        &self,
        request: Request<proto::ClearConditionRequest>,
    ) -> Result<Response<served::ClearConditionResponse>, Status> {
        let incidents = &**self.context.incidents();
        self.context
            .write(
                method("ClearCondition"),
                request,
                |devices, _caller, request| clear::clear(devices, incidents, request),
            )
            .await
    }

    async fn report_reset(
        &self,
        request: Request<proto::ReportResetRequest>,
    ) -> Result<Response<served::ReportResetResponse>, Status> {
        let incidents = &**self.context.incidents();
        self.context
            .write(
                method("ReportReset"),
                request,
                |devices, caller, request| reset::report(devices, incidents, caller, request),
            )
            .await
    }
}

/// What a caller gives as a reason; `why`: what it is for, where there is none.
fn reason(reason: &str, why: &str) -> Result<String, FieldError> {
    if reason.trim().is_empty() {
        return Err(FieldError::new("reason", format!("required; {why}")));
    }
    bounded("reason", reason, POLICY_REASON_BYTES_MAX)?;
    Ok(printable(reason, POLICY_REASON_BYTES_MAX))
}
