//! What changes something of the policies: reload, quarantine, release, accept, pause, resume.

use device_api_core::limits::NAME_BYTES_MAX;
use device_api_core::policy_status::ReloadReport;
use device_api_core::ports::{Policies, PolicyCommand};
use device_api_core::signal::printable;
use device_api_proto::native as proto;

use super::convert;
use crate::fields::{FieldError, bounded};
use crate::limits::{DIGEST_DIGITS_MAX, DIGEST_DIGITS_MIN, POLICY_REASON_BYTES};
use crate::status::Refusal;

pub(super) async fn reload(
    policies: &dyn Policies,
    _request: proto::ReloadPoliciesRequest,
) -> Result<proto::ReloadPoliciesResponse, Refusal> {
    let report = policies.command(PolicyCommand::Reload).await?;
    Ok(proto::ReloadPoliciesResponse {
        outcomes: report.outcomes.iter().map(convert::outcome).collect(),
        refused: report
            .refused
            .as_deref()
            .map(convert::line)
            .unwrap_or_default(),
    })
}

pub(super) async fn quarantine(
    policies: &dyn Policies,
    request: proto::QuarantinePolicyRequest,
) -> Result<proto::QuarantinePolicyResponse, Refusal> {
    let command = PolicyCommand::Quarantine {
        name: name(&request.name)?.to_owned(),
        reason: reason(&request.reason)?,
    };
    let (outcomes, policy) = carry_out(policies, command, &request.name).await?;
    Ok(proto::QuarantinePolicyResponse { outcomes, policy })
}

pub(super) async fn release(
    policies: &dyn Policies,
    request: proto::ReleasePolicyRequest,
) -> Result<proto::ReleasePolicyResponse, Refusal> {
    let digest = match &*request.digest {
        "" => String::new(),
        some => digest(some)?,
    };
    let command = PolicyCommand::Release {
        name: name(&request.name)?.to_owned(),
        digest,
    };
    let (outcomes, policy) = carry_out(policies, command, &request.name).await?;
    Ok(proto::ReleasePolicyResponse { outcomes, policy })
}

pub(super) async fn accept(
    policies: &dyn Policies,
    request: proto::AcceptPolicyRequest,
) -> Result<proto::AcceptPolicyResponse, Refusal> {
    let command = PolicyCommand::Accept {
        name: name(&request.name)?.to_owned(),
        digest: digest(&request.digest)?,
    };
    let (outcomes, policy) = carry_out(policies, command, &request.name).await?;
    Ok(proto::AcceptPolicyResponse { outcomes, policy })
}

pub(super) async fn pause(
    policies: &dyn Policies,
    request: proto::PausePolicyRequest,
) -> Result<proto::PausePolicyResponse, Refusal> {
    let command = PolicyCommand::Pause {
        name: name(&request.name)?.to_owned(),
        reason: reason(&request.reason)?,
    };
    let (outcomes, policy) = carry_out(policies, command, &request.name).await?;
    Ok(proto::PausePolicyResponse { outcomes, policy })
}

pub(super) async fn resume(
    policies: &dyn Policies,
    request: proto::ResumePolicyRequest,
) -> Result<proto::ResumePolicyResponse, Refusal> {
    let command = PolicyCommand::Resume {
        name: name(&request.name)?.to_owned(),
    };
    let (outcomes, policy) = carry_out(policies, command, &request.name).await?;
    Ok(proto::ResumePolicyResponse { outcomes, policy })
}

/// Carries it out, and tells what came of it and how the policy is then.
async fn carry_out(
    policies: &dyn Policies,
    command: PolicyCommand,
    name: &str,
) -> Result<(Vec<proto::PolicyOutcome>, Option<proto::Policy>), Refusal> {
    let ReloadReport { outcomes, .. } = policies.command(command).await?;
    let now = policies.list();
    let policy = now.iter().find(|policy| &*policy.name == name);
    Ok((
        outcomes.iter().map(convert::outcome).collect(),
        policy.map(convert::policy),
    ))
}

/// Of a name only presence and length are checked: one that no policy can have is simply not found.
pub(super) fn name(name: &str) -> Result<&str, FieldError> {
    if name.is_empty() {
        return Err(FieldError::new(
            "name",
            "required; ListPolicies tells which exist",
        ));
    }
    bounded("name", name, NAME_BYTES_MAX)?;
    Ok(name)
}

/// Why someone does it. Who finds a policy set aside wants to know, so it has to be said.
fn reason(reason: &str) -> Result<String, FieldError> {
    if reason.trim().is_empty() {
        return Err(FieldError::new(
            "reason",
            "required; say why, for those who find it so",
        ));
    }
    bounded("reason", reason, POLICY_REASON_BYTES)?;
    Ok(printable(reason, POLICY_REASON_BYTES))
}

/// Which version is meant; small letters, as the host has them.
fn digest(digest: &str) -> Result<String, FieldError> {
    let is_hex = digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_hex || !(DIGEST_DIGITS_MIN..=DIGEST_DIGITS_MAX).contains(&digest.len()) {
        return Err(FieldError::new(
            "digest",
            format!(
                "not a digest; {DIGEST_DIGITS_MIN} to {DIGEST_DIGITS_MAX} hexadecimal digits, as ListPolicies shows it"
            ),
        ));
    }
    Ok(digest.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_named_by_its_first_digits_at_least() {
        #[track_caller]
        fn check(text: &str, expected: Option<&str>) {
            assert_eq!(digest(text).ok().as_deref(), expected, "{text:?}");
        }
        check("0123456789ab", Some("0123456789ab"));
        check("0123456789AB", Some("0123456789ab"));
        check(&"a".repeat(64), Some(&"a".repeat(64)));
        check("", None);
        check("0123456789a", None);
        check(&"a".repeat(65), None);
        check("0123456789ag", None);
        check("0123456789a\u{e9}", None);
    }

    #[test]
    fn a_reason_is_said_and_harmless() {
        assert_eq!(reason("a\nb\u{1b}[2J").as_deref(), Ok("a\\nb\\u{1b}[2J"));
        assert_eq!(reason(&"x".repeat(512)).map(|it| it.len()), Ok(512));
        for refused in ["", "  \t", &*"x".repeat(513)] {
            let said = reason(refused).expect_err("refused").to_string();
            assert!(said.starts_with("reason: "), "{said}");
        }
    }
}
