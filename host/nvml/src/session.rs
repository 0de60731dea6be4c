//! One life of the library, as its threads share it, and the words in which they report.

use std::sync::Arc;

use device_api_core::ids::DeviceUuid;
use device_api_core::ports::SignalSink;
use device_api_core::signal::{Attr, Observation, Samples, SignalKind, Source, Target};

use crate::call::{CallFailed, Meaning};
use crate::config::Config;
use crate::control::{Control, SessionId};
use crate::counters::Counters;
use crate::devices::Devices;
use crate::inventory::Found;
use crate::library::Library;
use crate::readings::{Batch, recovery_action, sample};

/// What lasts from the start of the source to its end.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(crate) config: Arc<Config>,
    pub(crate) control: Arc<Control>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) devices: Arc<Devices>,
    pub(crate) sink: Arc<dyn SignalSink>,
}

#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) library: Arc<Library>,
    pub(crate) context: Context,
}

impl Session {
    pub(crate) fn goes_on(&self) -> bool {
        self.context.control.goes_on(self.id)
    }

    /// Ends the session.
    pub(crate) fn driver_gone(&self, failed: &CallFailed) {
        let why = format!("the driver went away under {}: {failed}", self.library.path);
        self.context.control.end_session(self.id, &why);
    }

    /// A bare observation of a GPU; a simulated one is a drill.
    pub(crate) fn observation(
        &self,
        kind: SignalKind,
        target: Target,
        source: Source,
    ) -> Observation {
        Observation {
            drill: self.library.simulated,
            ..Observation::new(kind, target, source)
        }
    }

    /// Tells of a GPU that answers, with a full sample. It may be lost again by then.
    pub(crate) fn announce(&self, found: Found) {
        let uuid = found.info.uuid.clone();
        let batch = sample(&self.library.device(found.handle));
        self.context
            .sink
            .device_found(found.info, Arc::clone(&batch.samples));
        self.judge(&uuid, &batch);
    }

    /// A GPU that does not answer; told once, until it is found again.
    pub(crate) fn lost(&self, uuid: &DeviceUuid, evidence: String, samples: Option<Arc<Samples>>) {
        if !self.context.devices.lost(uuid) {
            // Told already; if somebody probes it, that is over.
            self.context.sink.probed(uuid);
            return;
        }
        let target = Target::Uuid(uuid.clone());
        let bare = self.observation(SignalKind::GpuLost, target, Source::Nvml);
        self.context.sink.observe(Observation {
            evidence: evidence.clone(),
            samples,
            ..bare
        });
        tracing::warn!(gpu = %uuid, "GPU lost: {evidence}");
    }

    /// What a batch says besides its values: that the GPU is lost, the driver gone, or that the
    /// driver asks for another recovery action than when it was last read.
    pub(crate) fn judge(&self, uuid: &DeviceUuid, batch: &Batch) {
        match &batch.cut_short {
            Some(failed) if failed.meaning == Meaning::DriverGone => self.driver_gone(failed),
            Some(failed) => self.lost(uuid, failed.to_string(), Some(Arc::clone(&batch.samples))),
            None => {}
        }
        let Some(action) = recovery_action(&batch.samples) else {
            return;
        };
        if !self.context.devices.recovery_action(uuid, action) {
            return;
        }
        let target = Target::Uuid(uuid.clone());
        self.context.sink.observe(Observation {
            code: u64::try_from(action).ok(),
            evidence: format!("NVML field 230 (recovery action) is {action}"),
            attrs: vec![Attr::int("action", action)],
            samples: Some(Arc::clone(&batch.samples)),
            ..self.observation(SignalKind::RecoveryAction, target, Source::Field230)
        });
    }
}
