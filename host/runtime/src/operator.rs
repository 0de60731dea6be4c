//! The daemon as its operators meet it over the API.

use std::sync::Arc;

use device_api_core::clock::{BootId, WallTime, system_wall_time};
use device_api_core::daemon::{DaemonControl, DaemonStatus, LogChange, LogFilter};
use device_api_core::error::ApiError;
use device_api_grpc::TlsHealth;
use rustix::process::{getegid, geteuid};

use crate::config::Config;
use crate::log_filter::LogControl;
use crate::readiness::Readiness;
use crate::values::StoreMode;

/// What [`DaemonControl`] is made of.
#[derive(Debug)]
pub(crate) struct Operator {
    started: WallTime,
    boot: BootId,
    state_dir: Option<String>,
    kernel_log: Option<String>,
    tls: Option<TlsHealth>,
    readiness: Readiness,
    log: Arc<LogControl>,
}

impl Operator {
    pub(crate) fn new(
        config: &Config,
        boot: BootId,
        tls: Option<TlsHealth>,
        readiness: &Readiness,
        log: &Arc<LogControl>,
    ) -> Self {
        let dir = &config.store.dir;
        Self {
            started: system_wall_time(),
            boot,
            state_dir: match config.store.mode {
                StoreMode::Durable => Some(dir.display().to_string()),
                StoreMode::Memory => None,
            },
            kernel_log: config
                .kmsg
                .as_ref()
                .map(|kmsg| kmsg.path.display().to_string()),
            tls,
            readiness: readiness.clone(),
            log: log.clone(),
        }
    }
}

impl DaemonControl for Operator {
    fn status(&self) -> DaemonStatus {
        let report = self.readiness.report();
        DaemonStatus {
            version: env!("CARGO_PKG_VERSION"),
            now: system_wall_time(),
            started: self.started,
            boot: self.boot.clone(),
            uid: geteuid().as_raw(),
            gid: getegid().as_raw(),
            ready: report.ready,
            waiting: report.waiting,
            parts: report.components,
            state_dir: self.state_dir.clone(),
            kernel_log: self.kernel_log.clone(),
            certificate_expires: self.tls.as_ref().map(|tls| wall(tls.expires())),
            log: self.log.shown(),
        }
    }

    fn set_log(&self, change: LogChange) -> Result<LogFilter, ApiError> {
        self.log.set(&change)
    }

    fn reset_log(&self) -> Result<LogFilter, ApiError> {
        self.log.reset()
    }
}

fn wall(at: std::time::SystemTime) -> WallTime {
    let since = at.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    WallTime {
        unix_ns: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX),
    }
}
