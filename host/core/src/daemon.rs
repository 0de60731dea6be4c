//! The daemon itself, as an operator meets it over the API: how its parts are, and how much it logs.

use std::fmt::Debug;
use std::time::Duration;

use crate::clock::{BootId, WallTime};
use crate::error::ApiError;

/// How one part of the daemon is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartState {
    /// Turned off by configuration.
    Off,
    /// Works.
    Up,
    /// Missing or failing; the daemon serves without, and keeps trying.
    Degraded,
}

impl PartState {
    /// As `/readyz` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Up => "up",
            Self::Degraded => "degraded",
        }
    }
}

/// One part of the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub name: &'static str,
    pub state: PartState,
    /// A sentence for people: what is, and what the daemon does about it.
    pub detail: String,
}

/// How the daemon is, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonStatus {
    pub version: &'static str,
    /// Its clock.
    pub now: WallTime,
    pub started: WallTime,
    /// Of which boot it takes itself to be.
    pub boot: BootId,
    /// User and group that it runs as.
    pub uid: u32,
    pub gid: u32,
    /// All that had to come first is there, and it does not go down.
    pub ready: bool,
    /// What it still waits for.
    pub waiting: Vec<&'static str>,
    pub parts: Vec<Part>,
    /// Where its state is; `None`: in memory alone.
    pub state_dir: Option<String>,
    /// The kernel log that it reads; `None`: none.
    pub kernel_log: Option<String>,
    /// When the certificate that it shows runs out; `None`: it speaks no TLS.
    pub certificate_expires: Option<WallTime>,
    pub log: LogFilter,
}

/// Which lines the log takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogFilter {
    /// In force, in the syntax of `RUST_LOG`.
    pub filter: String,
    /// What the daemon was started with, and goes back to.
    pub at_start: String,
    /// Whether an operator set the one in force.
    pub is_set: bool,
    /// When the one that was set ends by itself.
    pub until: Option<WallTime>,
}

/// What an operator asks of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogChange {
    /// A level, or a filter.
    pub filter: String,
    /// After that it is as at the start again; `None`: when it is reset, or the daemon restarted.
    pub ttl: Option<Duration>,
}

/// The daemon as an operator handles it. Nothing here waits.
pub trait DaemonControl: Debug + Send + Sync {
    fn status(&self) -> DaemonStatus;

    /// Has the log take other lines; those of the audit log it takes as before.
    ///
    /// # Errors
    /// [`ApiError::Invalid`] where it is no filter, or one for the audit log.
    fn set_log(&self, change: LogChange) -> Result<LogFilter, ApiError>;

    /// Has it take those of the start again.
    ///
    /// # Errors
    /// [`ApiError::Unavailable`] where the log is gone.
    fn reset_log(&self) -> Result<LogFilter, ApiError>;
}
