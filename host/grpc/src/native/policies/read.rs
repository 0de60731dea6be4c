//! ListPolicies and GetPolicy.

use device_api_core::limits::POLICIES_LISTED_MAX;
use device_api_core::policy_status::PolicyStatus;
use device_api_core::ports::Policies;
use device_api_proto::native as proto;

use super::{command, convert};
use crate::status::Refusal;

pub(super) async fn list(
    policies: &dyn Policies,
    _request: proto::ListPoliciesRequest,
) -> Result<proto::ListPoliciesResponse, Refusal> {
    let mut listed = policies.list();
    if listed.len() > POLICIES_LISTED_MAX {
        // A directory full of what is none must not hide those that judge.
        listed.sort_by_key(PolicyStatus::rank);
        listed.truncate(POLICIES_LISTED_MAX);
        listed.sort_by(|a, b| a.name.cmp(&b.name));
    }
    let host = policies.host();
    let said = |what: Option<String>| what.as_deref().map(convert::line).unwrap_or_default();
    Ok(proto::ListPoliciesResponse {
        policies: listed.iter().map(convert::policy).collect(),
        refused: said(host.refused),
        unsaved: said(host.unsaved),
        damage: said(host.damage),
    })
}

pub(super) async fn get(
    policies: &dyn Policies,
    request: proto::GetPolicyRequest,
) -> Result<proto::GetPolicyResponse, Refusal> {
    let name = command::name(&request.name)?;
    Ok(convert::detail(&policies.describe(name)?))
}
