//! Small implementations of the ports that operators handle, policies apart: what was asked of them is kept.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use device_api_core::clock::WallTime;
use device_api_core::error::ApiError;
use device_api_core::ids::{DeviceUuid, IncidentId};
use device_api_core::incident::{self, Account, Incident, IncidentState, IncidentVerdict, Wanted};
use device_api_core::policy::PolicyId;
use device_api_core::ports::{Incidents, NvmlControl, NvmlStatus, Pending};
use device_api_core::recovery::{ClearRequest, DriverHold, HungCall, Release, ResetReport};
use device_api_core::signal::{SignalKind, Source};
use device_api_core::verdict::{Judgement, Severity};

/// The type that every GPU has a problem of.
pub(crate) const STANDS: &str = "XidCriticalError";

/// As many incidents as are put there.
#[derive(Debug, Default)]
pub(crate) struct FaultLog {
    incidents: Mutex<Vec<Incident>>,
    cleared: Mutex<Vec<ClearRequest>>,
    resets: Mutex<Vec<ResetReport>>,
    /// Whoever has it keeps lists from being made.
    pub(crate) slow: Arc<Mutex<()>>,
}

pub(crate) fn at(seconds: u64) -> WallTime {
    WallTime::from_ms(seconds * 1000)
}

/// Of an XID of which NVML and the kernel log told.
pub(crate) fn incident(id: u64, device: &str, code: u64) -> Incident {
    let account = |source, evidence: &str| Account {
        source,
        first_seen: at(id),
        last_seen: at(id + 1),
        count: 2,
        evidence: evidence.to_owned(),
    };
    Incident {
        id: IncidentId(id),
        device: DeviceUuid::new(device),
        kind: SignalKind::Xid,
        code: Some(code),
        root: None,
        instance: None,
        first_seen: at(id),
        last_seen: at(id + 1),
        count: 4,
        drill: false,
        accounts: vec![
            account(Source::Nvml, "XID"),
            account(Source::Kmsg, "NVRM: Xid"),
        ],
        verdicts: vec![IncidentVerdict {
            policy: PolicyId {
                name: "xid-policy".into(),
                version: "1.0.0".into(),
                digest: "d".into(),
            },
            condition: STANDS.to_owned(),
            state: Judgement::Problem,
            severity: Severity::Fatal,
            reason: "FallenOffTheBus".to_owned(),
        }],
        state: IncidentState::Open,
    }
}

impl FaultLog {
    pub(crate) fn put(&self, incident: Incident) {
        self.incidents.lock().expect("lock").insert(0, incident);
    }

    pub(crate) fn cleared(&self) -> Vec<ClearRequest> {
        self.cleared.lock().expect("lock").clone()
    }

    pub(crate) fn resets(&self) -> Vec<ResetReport> {
        self.resets.lock().expect("lock").clone()
    }
}

impl Incidents for FaultLog {
    fn incidents(&self, wanted: &Wanted) -> incident::Incidents {
        let _made = self.slow.lock().expect("lock");
        let all = self.incidents.lock().expect("lock");
        let all: Vec<_> = all.iter().filter(|one| wanted.takes(one)).collect();
        let left_out = all.len().saturating_sub(wanted.max);
        let listed = all.into_iter().take(wanted.max).cloned().collect();
        incident::Incidents { listed, left_out }
    }

    fn clear(&self, request: &ClearRequest) -> Result<(), ApiError> {
        if request.condition != STANDS {
            let why = format!(
                "{} has no condition {:?}",
                request.device, request.condition
            );
            return Err(ApiError::Precondition { why });
        }
        self.cleared.lock().expect("lock").push(request.clone());
        Ok(())
    }

    fn report_reset(&self, report: &ResetReport) -> Result<(), ApiError> {
        self.resets.lock().expect("lock").push(report.clone());
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Driver {
    released: Option<Release>,
    /// Why there is no library.
    missing: Option<String>,
    hung: Option<HungCall>,
    commands: usize,
}

/// An NVML that is in use until it is let go of.
#[derive(Debug, Default)]
pub(crate) struct Nvml(Mutex<Driver>);

impl Nvml {
    fn driver(&self) -> MutexGuard<'_, Driver> {
        self.0.lock().expect("no test panics under it")
    }

    /// From now on a call hangs.
    pub(crate) fn hang(&self, call: &str, device: &str) {
        self.driver().hung = Some(HungCall {
            call: call.to_owned(),
            device: Some(DeviceUuid::new(device)),
            peer: None,
            index: None,
            age: Duration::from_millis(12_500),
        });
    }

    /// From now on there is none.
    pub(crate) fn lose(&self, why: &str) {
        self.driver().missing = Some(why.to_owned());
    }

    pub(crate) fn commands(&self) -> usize {
        self.driver().commands
    }
}

impl NvmlControl for Nvml {
    fn status(&self) -> (NvmlStatus, Vec<HungCall>) {
        let driver = self.driver();
        let status = match (driver.released, &driver.missing) {
            (Some(Release { purpose, .. }), _) => NvmlStatus::Released {
                purpose,
                until: at(60),
            },
            (None, Some(why)) => NvmlStatus::Missing { why: why.clone() },
            (None, None) => NvmlStatus::Ready {
                library: "libnvidia-ml.so.1".to_owned(),
                driver: "580.82.07".to_owned(),
                gpus: 8,
                simulated: true,
            },
        };
        (status, driver.hung.iter().cloned().collect())
    }

    fn release(&self, release: Release) -> Pending<Result<DriverHold, ApiError>> {
        let mut driver = self.driver();
        driver.commands += 1;
        let hold = match &driver.hung {
            Some(hung) => DriverHold::Busy(hung.clone()),
            None => DriverHold::Released { until: at(60) },
        };
        if driver.hung.is_none() {
            driver.released = Some(release);
        }
        Box::pin(std::future::ready(Ok(hold)))
    }

    fn attach(&self) -> Pending<Result<NvmlStatus, ApiError>> {
        {
            let mut driver = self.driver();
            driver.commands += 1;
            driver.released = None;
        }
        let (status, hung) = self.status();
        if hung.is_empty() {
            return Box::pin(std::future::ready(Ok(status)));
        }
        Box::pin(std::future::pending())
    }
}
