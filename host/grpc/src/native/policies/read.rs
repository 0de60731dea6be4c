//! ListPolicies and GetPolicy.

use device_api_core::ports::Policies;
use device_api_proto::native as proto;

use super::{command, convert};
use crate::status::Refusal;

pub(super) async fn list(
    policies: &dyn Policies,
    _request: proto::ListPoliciesRequest,
) -> Result<proto::ListPoliciesResponse, Refusal> {
    let policies = policies.list().iter().map(convert::policy).collect();
    Ok(proto::ListPoliciesResponse { policies })
}

pub(super) async fn get(
    policies: &dyn Policies,
    request: proto::GetPolicyRequest,
) -> Result<proto::GetPolicyResponse, Refusal> {
    let name = command::name(&request.name)?;
    Ok(convert::detail(&policies.describe(name)?))
}
