//! The upstream dialect's words as the store takes them.

use device_api_core::action::Action;
use device_api_core::condition::Status;
use device_api_core::ids::ResourceVersion;
use device_api_core::limits::{Bounds, REASON_BYTES_MAX};
use device_api_core::message;
use device_api_core::provider::ProviderCondition;
use device_api_core::verdict::Severity;
use device_api_proto::upstream as proto;

use crate::fields::{self, FieldError, bounded, condition_type, wall_time};
use crate::status::Refusal;

/// Empty and "0" are no version: unconditional, or from now.
pub(super) fn version(path: &str, text: &str) -> Result<Option<ResourceVersion>, FieldError> {
    if text.is_empty() {
        return Ok(None);
    }
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    match text.parse() {
        Ok(0) if digits => Ok(None),
        Ok(version) if digits => Ok(Some(ResourceVersion(version))),
        _ => Err(FieldError::new(
            path,
            "not a version; use a decimal number that was read, or leave it empty",
        )),
    }
}

/// The conditions of one update. Its recommended action is a vote (design P3), which the store
/// counts for those that are problems.
pub(super) fn conditions(
    bounds: &Bounds,
    path: &str,
    status: proto::GpuStatus,
) -> Result<Vec<ProviderCondition>, Refusal> {
    bounded(
        format!("{path}.recommended_action"),
        &status.recommended_action,
        REASON_BYTES_MAX,
    )?;
    let vote = action(&status.recommended_action);
    let path = format!("{path}.conditions");
    fields::conditions(bounds, &path, status.conditions, |path, wire| {
        condition(path, wire, vote)
    })
}

fn condition(
    path: &str,
    wire: proto::Condition,
    vote: Action,
) -> Result<ProviderCondition, FieldError> {
    let at = |field: &str| format!("{path}.{field}");
    condition_type(&at("type"), &wire.r#type)?;
    bounded(at("reason"), &wire.reason, REASON_BYTES_MAX)?;
    let status = Status::from_word(&wire.status).ok_or_else(|| {
        FieldError::new(
            at("status"),
            "not a status; \"True\", \"False\" or \"Unknown\"",
        )
    })?;
    let transition = wire
        .last_transition_time
        .map(|time| wall_time(&at("last_transition_time"), time))
        .transpose()?;
    Ok(ProviderCondition {
        type_: wire.r#type,
        status,
        // It can't say which way round either; the store knows, or does not count it.
        polarity: None,
        // This dialect can't say how bad; its providers report what makes a GPU unusable.
        severity: Severity::Fatal,
        reason: wire.reason,
        message: message::cut(wire.message),
        action: vote,
        transition,
    })
}

/// Providers of this dialect also say `UNKNOWN`, and what their next version adds: someone should
/// have a look.
fn action(word: &str) -> Action {
    Action::from_word(word).unwrap_or_else(|| {
        tracing::debug!(word, "unknown recommended action read as CONTACT_SUPPORT");
        Action::ContactSupport
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(type_: &str, status: &str) -> proto::Condition {
        proto::Condition {
            r#type: type_.to_owned(),
            status: status.to_owned(),
            ..Default::default()
        }
    }

    #[test]
    fn versions_are_empty_or_decimal() {
        #[track_caller]
        fn check(text: &str, expected: Option<Option<u64>>) {
            let read = version("v", text)
                .ok()
                .map(|version| version.map(|version| version.0));
            assert_eq!(read, expected, "{text:?}");
        }
        check("", Some(None));
        check("0", Some(None));
        check("17", Some(Some(17)));
        check("18446744073709551615", Some(Some(u64::MAX)));
        check("18446744073709551616", None);
        check("-1", None);
        check("+1", None);
        check("1.0", None);
        check(" 1", None);
        check("abc", None);
    }

    #[test]
    fn p3_the_recommended_action_is_a_vote_of_each_condition() {
        #[track_caller]
        fn check(action: &str, condition: proto::Condition, expected: Action) {
            let status = proto::GpuStatus {
                conditions: vec![condition],
                recommended_action: action.to_owned(),
            };
            let read = conditions(&Bounds::default(), "gpu.status", status).expect("read");
            assert_eq!(read[0].action, expected);
        }
        check(
            "RESTART_BM",
            wire("SysLogsXIDError", "True"),
            Action::RestartBm,
        );
        check(
            "UNKNOWN",
            wire("GpuMemWatch", "True"),
            Action::ContactSupport,
        );
        check("", wire("GpuMemWatch", "True"), Action::None);
    }

    #[test]
    fn an_action_is_a_word_and_no_book() {
        let status = proto::GpuStatus {
            recommended_action: "A".repeat(129),
            ..Default::default()
        };
        let Err(Refusal::Field(error)) = conditions(&Bounds::default(), "gpu.status", status)
        else {
            panic!("refused as a field")
        };
        assert_eq!(
            error.to_string(),
            "gpu.status.recommended_action: 129 bytes; at most 128"
        );
    }

    /// A full GPU is read with one condition more, the derived `Ready`, and may be written back as it is.
    #[test]
    fn what_a_full_gpu_shows_can_be_written_back() {
        let bounds = Bounds::default();
        let check = |own: usize, expected: Option<usize>| {
            let types = (0..own).map(|n| format!("Own{n}"));
            let shown = ["Ready".to_owned()].into_iter().chain(types);
            let status = proto::GpuStatus {
                conditions: shown.map(|type_| wire(&type_, "True")).collect(),
                ..Default::default()
            };
            let read = conditions(&bounds, "gpu.status", status);
            assert_eq!(read.ok().map(|read| read.len()), expected, "{own}");
        };
        let max = bounds.conditions_per_gpu;
        check(max, Some(max + 1));
        check(max + 1, None);
    }

    #[test]
    fn conditions_are_checked_field_by_field() {
        #[track_caller]
        fn check(second: proto::Condition, expected: &str) {
            let status = proto::GpuStatus {
                conditions: vec![wire("Ready", "True"), second],
                ..Default::default()
            };
            let Err(Refusal::Field(error)) = conditions(&Bounds::default(), "gpu.status", status)
            else {
                panic!("refused as a field")
            };
            let error = error.to_string();
            assert!(
                error.starts_with(&format!("gpu.status.conditions[1].{expected}")),
                "{error}"
            );
        }
        check(wire("", "True"), "type: required");
        check(wire("A", "true"), "status: not a status");
        check(wire("A", ""), "status: not a status");
        check(wire("Ready", "True"), "type: appears twice");
        check(
            proto::Condition {
                reason: "R".repeat(129),
                ..wire("A", "True")
            },
            "reason: 129 bytes",
        );
        let never = Some(prost_types::Timestamp {
            seconds: -1,
            nanos: 0,
        });
        check(
            proto::Condition {
                last_transition_time: never,
                ..wire("A", "True")
            },
            "last_transition_time: not a time",
        );
    }
}
