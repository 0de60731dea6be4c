//! How the store is: for readiness, metrics and log.

use std::fmt::{self, Debug};
use std::time::Duration;

use device_api_core::durable::NotDurable;

/// How the store is, for readiness.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Status {
    /// What is written becomes durable.
    #[default]
    Ok,
    /// What is written becomes durable, but for some records, of this run or of the last.
    Incomplete { why: String },
    /// Nothing becomes durable just now; it is tried again.
    Failing { why: String },
    /// Nothing becomes durable in this run.
    ReadOnly { why: String },
}

impl Status {
    /// Why nothing becomes durable.
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Ok | Self::Incomplete { .. } => None,
            Self::Failing { why } | Self::ReadOnly { why } => Some(why),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok => f.write_str("ok"),
            Self::Incomplete { why } => write!(f, "incomplete: {why}"),
            Self::Failing { why } => write!(f, "failing: {why}"),
            Self::ReadOnly { why } => write!(f, "read-only: {why}"),
        }
    }
}

/// Is told what the store does; called from its thread, and must be quick.
pub trait StoreObserver: Debug + Send + Sync {
    /// A commit went well: how long it took, how many batches were in it, and bytes of content.
    fn committed(&self, elapsed: Duration, batches: u64, bytes: u64);

    /// A commit, or an attempt to open the file, failed.
    fn failed(&self, why: &NotDurable);

    /// The first commit after failures went well.
    fn recovered(&self);

    /// Size of the file in bytes.
    fn size(&self, bytes: u64);

    /// An old file that can't be used was set aside.
    fn set_aside(&self);
}
