//! What the store answers when it can't do what was asked. One variant, one meaning, one code on
//! the wire (host/grpc/src/status.rs holds that table).

use std::fmt;

use crate::ids::{ObjectKey, ResourceVersion};

/// Why a request was not carried out. Nothing was changed, except that `Unavailable` leaves it open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiError {
    NotFound {
        key: ObjectKey,
    },
    /// No policy has that name.
    NoPolicy {
        name: String,
    },
    AlreadyExists {
        key: ObjectKey,
    },
    /// The caller's version is not the object's.
    Conflict {
        key: ObjectKey,
        expected: ResourceVersion,
        actual: ResourceVersion,
    },
    /// The request says something that can't be; `field` is its path.
    Invalid {
        field: &'static str,
        why: String,
    },
    /// What was asked for can't be done as things are now, whatever the request says.
    Precondition {
        why: String,
    },
    /// A bound was hit; the name is that of the setting (docs/limits.md).
    Exhausted {
        limit: &'static str,
        max: usize,
    },
    /// The version is older than the history, or was never given out.
    OutOfRange {
        asked: ResourceVersion,
        oldest: ResourceVersion,
        newest: ResourceVersion,
    },
    /// The caller may not do this.
    Forbidden {
        why: String,
    },
    /// The daemon is going down, or the outcome is unknown.
    Unavailable {
        why: String,
    },
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound { key } => {
                write!(
                    f,
                    "GPU {:?} not found in namespace {:?}; ListGpus tells which exist",
                    key.name, key.namespace
                )
            }
            Self::NoPolicy { name } => {
                write!(
                    f,
                    "policy {name:?} not found; ListPolicies tells which exist"
                )
            }
            Self::AlreadyExists { key } => {
                write!(
                    f,
                    "GPU {:?} already exists in namespace {:?}; update it instead",
                    key.name, key.namespace
                )
            }
            Self::Conflict {
                key,
                expected,
                actual,
            } => write!(
                f,
                "GPU {:?} is at resource version {actual}, not {expected}; get it again and repeat the change",
                key.name
            ),
            Self::Invalid { field, why } => write!(f, "{field}: {why}"),
            Self::Exhausted { limit, max } => {
                write!(f, "limit {limit} reached: at most {max}; see --limit")
            }
            Self::OutOfRange {
                asked,
                oldest,
                newest,
            } => write!(
                f,
                "resource version {asked} is outside the kept history ({oldest} to {newest}); list again and watch from there"
            ),
            Self::Forbidden { why } | Self::Precondition { why } | Self::Unavailable { why } => {
                f.write_str(why)
            }
        }
    }
}

impl std::error::Error for ApiError {}
