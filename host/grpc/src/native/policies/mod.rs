//! `PolicyService`: what judges the faults of this node, how it fares, and what an operator may do about it
//! (design H12).

mod command;
mod convert;
mod read;

use std::sync::Arc;

use device_api_core::ports::Devices;
use device_api_proto::native as proto;
use device_api_proto::native::server::policy_service_server::{PolicyService, SERVICE_NAME};
use tonic::{Request, Response, Status, async_trait};

use crate::context::Context;
use crate::observe::Method;

const fn method(name: &'static str) -> Method {
    Method {
        service: SERVICE_NAME,
        name,
    }
}

/// `PolicyService`.
#[derive(Debug)]
pub(crate) struct Policies<D> {
    context: Arc<Context<D>>,
}

impl<D: Devices> Policies<D> {
    pub(crate) fn new(context: Arc<Context<D>>) -> Self {
        Self { context }
    }
}

#[async_trait]
impl<D: Devices> PolicyService for Policies<D> {
    async fn list_policies(
        &self,
        request: Request<proto::ListPoliciesRequest>,
    ) -> Result<Response<proto::ListPoliciesResponse>, Status> {
        let policies = self.context.policies();
        self.context
            .read(request, |_devices, request| read::list(policies, request))
            .await
    }

    async fn get_policy(
        &self,
        request: Request<proto::GetPolicyRequest>,
    ) -> Result<Response<proto::GetPolicyResponse>, Status> {
        let policies = self.context.policies();
        self.context
            .read(request, |_devices, request| read::get(policies, request))
            .await
    }

    async fn reload_policies(
        &self,
        request: Request<proto::ReloadPoliciesRequest>,
    ) -> Result<Response<proto::ReloadPoliciesResponse>, Status> {
        let policies = self.context.policies();
        self.context
            .write(method("ReloadPolicies"), request, |_, _, request| {
                command::reload(policies, request)
            })
            .await
    }

    async fn quarantine_policy(
        &self,
        request: Request<proto::QuarantinePolicyRequest>,
    ) -> Result<Response<proto::QuarantinePolicyResponse>, Status> {
        let policies = self.context.policies();
        self.context
            .write(method("QuarantinePolicy"), request, |_, _, request| {
                command::quarantine(policies, request)
            })
            .await
    }

    async fn release_policy(
        &self,
        request: Request<proto::ReleasePolicyRequest>,
    ) -> Result<Response<proto::ReleasePolicyResponse>, Status> {
        let policies = self.context.policies();
        self.context
            .write(method("ReleasePolicy"), request, |_, _, request| {
                command::release(policies, request)
            })
            .await
    }

    async fn accept_policy(
        &self,
        request: Request<proto::AcceptPolicyRequest>,
    ) -> Result<Response<proto::AcceptPolicyResponse>, Status> {
        let policies = self.context.policies();
        self.context
            .write(method("AcceptPolicy"), request, |_, _, request| {
                command::accept(policies, request)
            })
            .await
    }

    async fn pause_policy(
        &self,
        request: Request<proto::PausePolicyRequest>,
    ) -> Result<Response<proto::PausePolicyResponse>, Status> {
        let policies = self.context.policies();
        self.context
            .write(method("PausePolicy"), request, |_, _, request| {
                command::pause(policies, request)
            })
            .await
    }

    async fn resume_policy(
        &self,
        request: Request<proto::ResumePolicyRequest>,
    ) -> Result<Response<proto::ResumePolicyResponse>, Status> {
        let policies = self.context.policies();
        self.context
            .write(method("ResumePolicy"), request, |_, _, request| {
                command::resume(policies, request)
            })
            .await
    }
}
