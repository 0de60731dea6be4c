//! A small daemon behind `DaemonService`: how it is is always the same, and what was asked of its log is kept.

use std::sync::{Mutex, MutexGuard};

use device_api_core::clock::{BootId, WallTime};
use device_api_core::daemon::{DaemonControl, DaemonStatus, LogChange, LogFilter, Part, PartState};
use device_api_core::error::ApiError;

pub(crate) const AT_START: &str = "info,audit=info";

/// A daemon whose log is a variable.
#[derive(Debug, Default)]
pub(crate) struct Daemon(Mutex<Vec<Option<LogChange>>>);

impl Daemon {
    /// What was asked of its log; `None`: to be as at the start again.
    pub(crate) fn changes(&self) -> MutexGuard<'_, Vec<Option<LogChange>>> {
        self.0.lock().expect("no test panics under it")
    }

    fn log(&self) -> LogFilter {
        let set = self.changes().last().cloned().flatten();
        let until = set.as_ref().and_then(|set| set.ttl);
        LogFilter {
            is_set: set.is_some(),
            filter: set.map_or_else(|| AT_START.to_owned(), |set| set.filter),
            at_start: AT_START.to_owned(),
            until: until.map(|ttl| WallTime::from_ms(1000 * ttl.as_secs())),
        }
    }
}

impl DaemonControl for Daemon {
    fn status(&self) -> DaemonStatus {
        DaemonStatus {
            version: "1.2.3",
            now: WallTime::from_ms(2000),
            started: WallTime::from_ms(1000),
            boot: BootId("a-boot".into()),
            uid: 65_534,
            gid: 65_533,
            ready: false,
            waiting: vec!["the policies"],
            parts: vec![Part {
                name: "store",
                state: PartState::Degraded,
                detail: "the disk is full".to_owned(),
            }],
            state_dir: Some("/state".to_owned()),
            kernel_log: None,
            certificate_expires: Some(WallTime::from_ms(3000)),
            log: self.log(),
        }
    }

    fn set_log(&self, change: LogChange) -> Result<LogFilter, ApiError> {
        if change.filter == "loud" {
            let why = "not a level".to_owned();
            return Err(ApiError::Invalid {
                field: "filter",
                why,
            });
        }
        self.changes().push(Some(change));
        Ok(self.log())
    }

    fn reset_log(&self) -> Result<LogFilter, ApiError> {
        self.changes().push(None);
        Ok(self.log())
    }
}
