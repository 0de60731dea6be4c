//! What changes something of the policies: reload, quarantine, release, accept, pause, resume.

use device_api_core::limits::{NAME_BYTES_MAX, POLICY_DIGEST_DIGITS_MIN, POLICY_REASON_BYTES_MAX};
use device_api_core::policy_status::ReloadReport;
use device_api_core::ports::{Policies, PolicyCommand};
use device_api_core::signal::printable;
use device_api_proto::native as proto;

use super::convert;
use crate::fields::{FieldError, bounded};
use crate::limits::DIGEST_DIGITS_MAX;
use crate::status::Refusal;

pub(super) async fn reload(
    policies: &dyn Policies,
    _request: proto::ReloadPoliciesRequest,
) -> Result<proto::ReloadPoliciesResponse, Refusal> {
    let report = policies.command(PolicyCommand::Reload).await?;
    Ok(proto::ReloadPoliciesResponse {
        outcomes: report.outcomes.iter().map(convert::outcome).collect(),
        refused: refused(&report),
    })
}

pub(super) async fn quarantine(
    policies: &dyn Policies,
    request: proto::QuarantinePolicyRequest,
) -> Result<proto::QuarantinePolicyResponse, Refusal> {
    let command = PolicyCommand::Quarantine {
        name: name(&request.name)?.to_owned(),
        reason: reason(&request.reason)?,
        digest: digest_or_any(&request.digest)?,
    };
    let done = carry_out(policies, command, &request.name).await?;
    Ok(proto::QuarantinePolicyResponse {
        outcomes: done.outcomes,
        policy: done.policy,
        refused: done.refused,
    })
}

pub(super) async fn release(
    policies: &dyn Policies,
    request: proto::ReleasePolicyRequest,
) -> Result<proto::ReleasePolicyResponse, Refusal> {
    let command = PolicyCommand::Release {
        name: name(&request.name)?.to_owned(),
        digest: digest_or_any(&request.digest)?,
    };
    let done = carry_out(policies, command, &request.name).await?;
    Ok(proto::ReleasePolicyResponse {
        outcomes: done.outcomes,
        policy: done.policy,
        refused: done.refused,
    })
}

pub(super) async fn accept(
    policies: &dyn Policies,
    request: proto::AcceptPolicyRequest,
) -> Result<proto::AcceptPolicyResponse, Refusal> {
    let command = PolicyCommand::Accept {
        name: name(&request.name)?.to_owned(),
        digest: digest(&request.digest)?,
    };
    let done = carry_out(policies, command, &request.name).await?;
    Ok(proto::AcceptPolicyResponse {
        outcomes: done.outcomes,
        policy: done.policy,
        refused: done.refused,
    })
}

pub(super) async fn pause(
    policies: &dyn Policies,
    request: proto::PausePolicyRequest,
) -> Result<proto::PausePolicyResponse, Refusal> {
    let command = PolicyCommand::Pause {
        name: name(&request.name)?.to_owned(),
        reason: reason(&request.reason)?,
    };
    let done = carry_out(policies, command, &request.name).await?;
    Ok(proto::PausePolicyResponse {
        outcomes: done.outcomes,
        policy: done.policy,
        refused: done.refused,
    })
}

pub(super) async fn resume(
    policies: &dyn Policies,
    request: proto::ResumePolicyRequest,
) -> Result<proto::ResumePolicyResponse, Refusal> {
    let command = PolicyCommand::Resume {
        name: name(&request.name)?.to_owned(),
    };
    let done = carry_out(policies, command, &request.name).await?;
    Ok(proto::ResumePolicyResponse {
        outcomes: done.outcomes,
        policy: done.policy,
        refused: done.refused,
    })
}

/// What came of a command on one policy, which is shown as it is then.
struct Done {
    outcomes: Vec<proto::PolicyOutcome>,
    policy: Option<proto::Policy>,
    refused: String,
}

async fn carry_out(
    policies: &dyn Policies,
    command: PolicyCommand,
    name: &str,
) -> Result<Done, Refusal> {
    let report = policies.command(command).await?;
    let now = policies.list();
    let policy = now.iter().find(|policy| &*policy.name == name);
    Ok(Done {
        outcomes: report.outcomes.iter().map(convert::outcome).collect(),
        policy: policy.map(convert::policy),
        refused: refused(&report),
    })
}

fn refused(report: &ReloadReport) -> String {
    let refused = report.refused.as_deref();
    refused.map(convert::line).unwrap_or_default()
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
    bounded("reason", reason, POLICY_REASON_BYTES_MAX)?;
    Ok(printable(reason, POLICY_REASON_BYTES_MAX))
}

/// As [`digest`]; empty: any.
fn digest_or_any(text: &str) -> Result<String, FieldError> {
    if text.is_empty() {
        return Ok(String::new());
    }
    digest(text)
}

/// Which version is meant; small letters, as the host has them.
fn digest(digest: &str) -> Result<String, FieldError> {
    let is_hex = digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_hex || !(POLICY_DIGEST_DIGITS_MIN..=DIGEST_DIGITS_MAX).contains(&digest.len()) {
        return Err(FieldError::new(
            "digest",
            format!(
                "not a digest; {POLICY_DIGEST_DIGITS_MIN} to {DIGEST_DIGITS_MAX} hexadecimal digits, as ListPolicies shows it"
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
