//! The one table from what went wrong to a code on the wire.

use device_api_core::error::ApiError;
use tonic::{Code, Status};

use crate::fields::FieldError;

/// Why a request got no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The request itself is wrong; the store was not asked.
    Field(FieldError),
    Api(ApiError),
    /// An exact watch fell behind by more changes than are kept for it (design W2).
    Behind {
        max: usize,
    },
}

impl From<FieldError> for Refusal {
    fn from(error: FieldError) -> Self {
        Self::Field(error)
    }
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Field(error) => Self::invalid_argument(error.to_string()),
            Refusal::Api(error) => Self::new(code(&error), error.to_string()),
            Refusal::Behind { max } => Self::out_of_range(format!(
                "this exact watch fell behind by more than {max} changes; list again and watch from there, or read faster"
            )),
        }
    }
}

/// Exhaustive on purpose: a new error gets its code here, or nothing compiles.
fn code(error: &ApiError) -> Code {
    match error {
        ApiError::NotFound { .. } | ApiError::NoPolicy { .. } => Code::NotFound,
        ApiError::AlreadyExists { .. } => Code::AlreadyExists,
        ApiError::Conflict { .. } => Code::Aborted,
        ApiError::Invalid { .. } => Code::InvalidArgument,
        ApiError::Precondition { .. } => Code::FailedPrecondition,
        ApiError::Exhausted { .. } => Code::ResourceExhausted,
        ApiError::OutOfRange { .. } => Code::OutOfRange,
        ApiError::Forbidden { .. } => Code::PermissionDenied,
        ApiError::Unavailable { .. } => Code::Unavailable,
    }
}

/// What a call in progress gets when the daemon stops.
pub(crate) fn going_down() -> ApiError {
    ApiError::Unavailable {
        why: "the daemon is going down; reconnect and resume".to_owned(),
    }
}

/// A code as metrics and logs name it: as Go's gRPC spells it, which dashboards of the ecosystem ask for (so
/// `Canceled`). A closed set makes labels.
pub(crate) fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use device_api_core::ids::{ObjectKey, ResourceVersion};

    #[track_caller]
    fn check(refusal: impl Into<Refusal>, expected: Code, says: &str) {
        let status = Status::from(refusal.into());
        assert_eq!(status.code(), expected);
        assert!(status.message().contains(says), "{}", status.message());
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a case for each error")]
    fn each_error_has_one_code_and_keeps_its_words() {
        let key = ObjectKey::new("", "gpu-0");
        let [v1, v2, v3] = [1, 2, 3].map(ResourceVersion);
        check(
            FieldError::required("gpu.name"),
            Code::InvalidArgument,
            "gpu.name: required",
        );
        check(
            ApiError::NotFound { key: key.clone() },
            Code::NotFound,
            "ListGpus",
        );
        check(
            ApiError::NoPolicy {
                name: "xid".to_owned(),
            },
            Code::NotFound,
            "policy \"xid\" not found; ListPolicies",
        );
        check(
            ApiError::AlreadyExists { key: key.clone() },
            Code::AlreadyExists,
            "gpu-0",
        );
        check(
            ApiError::Conflict {
                key,
                expected: v1,
                actual: v2,
            },
            Code::Aborted,
            "resource version 2, not 1",
        );
        check(
            ApiError::Invalid {
                field: "a.b",
                why: "bad".to_owned(),
            },
            Code::InvalidArgument,
            "a.b: bad",
        );
        check(
            ApiError::Precondition {
                why: "nothing is held".to_owned(),
            },
            Code::FailedPrecondition,
            "nothing is held",
        );
        check(
            ApiError::Exhausted {
                limit: "gpus",
                max: 7,
            },
            Code::ResourceExhausted,
            "limit gpus reached: at most 7",
        );
        check(
            ApiError::OutOfRange {
                asked: v1,
                oldest: v2,
                newest: v3,
            },
            Code::OutOfRange,
            "list again",
        );
        check(
            ApiError::Forbidden {
                why: "no".to_owned(),
            },
            Code::PermissionDenied,
            "no",
        );
        check(going_down(), Code::Unavailable, "reconnect and resume");
        check(Refusal::Behind { max: 9 }, Code::OutOfRange, "list again");
    }

    #[test]
    fn code_names_are_distinct() {
        let names: std::collections::BTreeSet<_> =
            (0..=16).map(|n| code_name(Code::from_i32(n))).collect();
        assert_eq!(names.len(), 17);
    }
}
