//! A reset that somebody reports, since NVML may show nothing of it (design N7).
//!
//! A report comes after the reset, from who has made it or seen it made. So whatever was seen up to the report is from
//! before the reset, as far as anybody can say; what comes after it stands.

use device_api_core::condition::{GONE, find};
use device_api_core::error::ApiError;
use device_api_core::ids::{DeviceUuid, ObjectKey};
use device_api_core::recovery::{Recovery, ResetReport};
use device_api_core::signal::Target;
use device_api_core::verdict::Judgement;

use crate::dispatch::joined;
use crate::pipeline::Shared;

impl Shared {
    pub(super) fn reset_reported(&self, report: &ResetReport) -> Result<(), ApiError> {
        if report.reason.trim().is_empty() {
            let why = "say how it is known: it stands in what was cleared, and in the audit log";
            return Err(ApiError::Invalid {
                field: "reason",
                why: why.to_owned(),
            });
        }
        let uuid = self.resettable(&report.device)?;
        let evidence = format!("reported by {}: {}", report.by, report.reason);
        let calls = {
            let mut state = self.lock();
            let first = self.follow(&mut state, &uuid);
            let newest = state.newest;
            self.lane(&mut state, &uuid).recoveries.looks.told(newest);
            let calls = self.recover(&mut state, &uuid, &Recovery::GpuReset, &evidence);
            self.log_decided(&mut state);
            joined(first, calls)
        };
        self.place(calls);
        Ok(())
    }

    /// The GPU of that name, where it is one that can have been reset.
    fn resettable(&self, named: &DeviceUuid) -> Result<DeviceUuid, ApiError> {
        let Some(uuid) = self.cache.resolve(&Target::Uuid(named.clone())) else {
            let key = ObjectKey::new("", named.as_str());
            return Err(ApiError::NotFound { key });
        };
        if uuid != *named {
            let why = format!(
                "{named} is a MIG instance, and is reset with its GPU: report it of {uuid}"
            );
            return Err(ApiError::Precondition { why });
        }
        let conditions = self.cache.conditions(&uuid);
        let is_gone = find(&conditions, GONE).is_some_and(|gone| gone.state != Judgement::Ok);
        if is_gone {
            let why = format!(
                "{uuid} is gone, another GPU is in its slot: a reset of that one is reported of that one"
            );
            return Err(ApiError::Precondition { why });
        }
        Ok(uuid)
    }
}
