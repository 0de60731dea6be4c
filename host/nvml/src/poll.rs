//! The thread `nvml-poll`: one batch of readings per GPU per interval, who is lost, and who is back.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use device_api_core::ids::DeviceUuid;
use nvml_wrapper::Device;

use crate::call::{CallFailed, Meaning, called};
use crate::counters::Counters;
use crate::devices::Known;
use crate::inventory::{self, Found};
use crate::readings::{probe, sample};
use crate::session::Session;

/// A shorter interval would leave the driver's locks to nobody else.
const INTERVAL_MIN: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(crate) struct Poll {
    session: Session,
    /// Indices of GPUs that have not told their UUID yet.
    mute: BTreeSet<u32>,
}

impl Poll {
    pub(crate) fn new(session: Session, mute: Vec<u32>) -> Self {
        Self {
            session,
            mute: mute.into_iter().collect(),
        }
    }

    /// Runs until the session ends. The first batch was taken with the inventory.
    pub(crate) fn run(mut self) {
        let context = self.session.context.clone();
        let interval = context.config.poll_interval.max(INTERVAL_MIN);
        while context.control.pause(self.session.id, interval) {
            if let Err(failed) = self.round() {
                self.session.driver_gone(&failed);
                return;
            }
            Counters::add(&context.counters.polls);
        }
    }

    /// # Errors
    /// The driver is gone.
    fn round(&mut self) -> Result<(), CallFailed> {
        for known in self.session.context.devices.all() {
            if !self.session.goes_on() {
                return Ok(());
            }
            match known.handle {
                Some(handle) if !known.lost => {
                    let device = self.session.library.device(handle);
                    read(&self.session, &known.uuid, &device)?;
                }
                _ => self.look_again(&known)?,
            }
        }
        self.ask_the_mute()
    }

    /// Whether a lost GPU is back. NVML may have given it another handle.
    fn look_again(&self, known: &Known) -> Result<(), CallFailed> {
        let library = &self.session.library;
        let old = known.handle.map(|handle| library.device(handle));
        let found = match old {
            Some(device) if probe(&device).is_ok() => inventory::describe(library, &device),
            _ => called(
                "nvmlDeviceGetHandleByUUID",
                library.nvml().device_by_uuid(known.uuid.as_str()),
            )
            .and_then(|device| probe(&device).map(|()| device))
            .and_then(|device| inventory::describe(library, &device)),
        };
        match found {
            Ok(found) => self.is_back(found),
            Err(failed) if failed.meaning == Meaning::DriverGone => return Err(failed),
            Err(failed) => tracing::trace!(gpu = %known.uuid, "still lost: {failed}"),
        }
        Ok(())
    }

    fn is_back(&self, found: Found) {
        if self.session.goes_on() {
            tracing::info!(gpu = %found.info.uuid, "GPU answers again");
            self.session
                .context
                .devices
                .found(&found.info.uuid, found.handle);
            self.session.announce(found);
        }
    }

    fn ask_the_mute(&mut self) -> Result<(), CallFailed> {
        for index in self.mute.clone() {
            match inventory::at_index(&self.session.library, index) {
                Ok(found) => {
                    self.mute.remove(&index);
                    self.is_back(found);
                }
                Err(failed) if failed.meaning == Meaning::DriverGone => return Err(failed),
                Err(failed) => tracing::trace!(index, "still no GPU: {failed}"),
            }
        }
        Ok(())
    }
}

fn read(session: &Session, uuid: &DeviceUuid, device: &Device<'_>) -> Result<(), CallFailed> {
    let batch = sample(device);
    // It may have hung until its session was over; then it has nothing to say.
    if !session.goes_on() {
        return Ok(());
    }
    session
        .context
        .counters
        .failed_calls
        .fetch_add(batch.failed_calls, Ordering::Relaxed);
    session.judge(uuid, &batch);
    session
        .context
        .sink
        .sampled(uuid, Arc::clone(&batch.samples));
    match batch.cut_short {
        Some(failed) if failed.meaning == Meaning::DriverGone => Err(failed),
        _ => Ok(()),
    }
}
