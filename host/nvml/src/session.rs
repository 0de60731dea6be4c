//! One life of the library, as its threads share it, and the words in which they report.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use device_api_core::device::Peer;
use device_api_core::ids::DeviceUuid;
use device_api_core::ports::{NvmlObserver, SignalSink};
use device_api_core::recovery::Recovery;
use device_api_core::signal::{Attr, Observation, Samples, SignalKind, Source, Target};
use nvml_wrapper::Device;

use crate::answering::Ended;
use crate::call::{CallFailed, Meaning};
use crate::config::Config;
use crate::control::{Control, SessionId, Trouble};
use crate::counters::Counters;
use crate::devices::Devices;
use crate::earlier::{Fate, Missing};
use crate::hearing::Hearing;
use crate::inventory::{self, Found};
use crate::library::Library;
use crate::queries::Class;
use crate::raw::DeviceHandle;
use crate::readings::{Answered, Batch, Standing, probe, sample};
use crate::watch::{Asked, HungCall, Role, Watch, asking};

/// What lasts from the start of the source to its end.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(crate) config: Arc<Config>,
    pub(crate) control: Arc<Control>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) devices: Arc<Devices>,
    pub(crate) watch: Arc<Watch>,
    pub(crate) hearing: Arc<Hearing>,
    pub(crate) sink: Arc<dyn SignalSink>,
    pub(crate) observer: Arc<dyn NvmlObserver>,
}

impl Context {
    /// Nobody can say how these GPUs are until they are read again.
    pub(crate) fn unsure(&self, uuids: &[DeviceUuid]) {
        let uuids = self.devices.unsure(uuids);
        if !uuids.is_empty() {
            self.sink.probing(&uuids);
        }
    }

    /// Tells how NVML is with a GPU that can't be read; its last readings stay.
    pub(crate) fn stand(&self, uuid: &DeviceUuid, standing: Standing<'_>) {
        if !self.devices.is_told(uuid) {
            return;
        }
        let mut samples = Samples::clone(&self.devices.samples(uuid));
        standing.tell(&mut samples);
        self.sink.sampled(uuid, Arc::new(samples));
    }

    /// Something happened to a GPU that ends faults from before it.
    pub(crate) fn recovered(&self, uuid: &DeviceUuid, recovery: Recovery, evidence: &str) {
        Counters::add(&self.counters.recoveries);
        self.sink.recovered(uuid, recovery, evidence);
    }
}

/// How far a session has come.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Indices of GPUs that have not told their UUID yet.
    pub(crate) unlisted: BTreeSet<u32>,
    /// Each was asked once, and the house told that NVML is in use, with this many GPUs.
    pub(crate) told: Option<usize>,
    pub(crate) listening: Listening,
    /// The inventory has changed, or may have: it is taken with the next readings.
    pub(crate) look: bool,
    /// Those of before that are not in this session's inventory were told of.
    pub(crate) accounted: bool,
}

impl Progress {
    pub(crate) fn is_ready(&self) -> bool {
        self.told.is_some()
    }
}

/// Whether there is a thread that waits for events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Listening {
    #[default]
    No,
    /// The polling thread of this number makes an event set.
    Opening(u64),
    /// It could not be made: it is tried again then, and, where it fails once more, after twice that pause.
    Again { at: Instant, pause: Duration },
    /// There is, or NVML has no events.
    Done,
}

#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) library: Arc<Library>,
    pub(crate) driver: Arc<str>,
    pub(crate) context: Context,
    pub(crate) progress: Arc<Mutex<Progress>>,
}

impl Session {
    /// Whether the thread has its role still.
    pub(crate) fn is_current(&self, role: Role, number: u64) -> bool {
        self.context.control.is_current(self.id, role, number)
    }

    /// No NVML call is made while it is held.
    pub(crate) fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the session.
    pub(crate) fn driver_gone(&self, failed: &CallFailed) {
        let why = format!("the driver went away under {}: {failed}", self.library.path);
        self.context
            .control
            .end_session(self.id, Trouble::DriverGone(why));
    }

    /// The call that hangs on a GPU: whoever asks it as well would hang as well.
    pub(crate) fn hangs(&self, uuid: &DeviceUuid) -> Option<HungCall> {
        self.context.watch.hung_on(&Asked::Gpu(uuid.clone()))
    }

    /// Those that answered when last asked, and on which no call hangs.
    pub(crate) fn live(&self) -> Vec<(DeviceUuid, DeviceHandle, u64)> {
        let mut live = self.context.devices.live();
        live.retain(|(uuid, ..)| self.hangs(uuid).is_none());
        live
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

    /// Notes a GPU that answers; whom it took the place of is told of.
    pub(crate) fn found(&self, found: &Found) {
        let devices = &self.context.devices;
        for old in devices.found(&found.info, found.handle) {
            let new = &found.info.uuid;
            let slot = found
                .info
                .pci
                .map(|pci| pci.to_string())
                .unwrap_or_default();
            let evidence = format!("NVML shows {new} at {slot}, where {old} was");
            let by = new.clone();
            self.context
                .recovered(&old, Recovery::Replaced { by }, &evidence);
        }
    }

    /// Tells of the GPUs that an earlier run of the daemon saw and that are not there any more.
    pub(crate) fn report_missing(&self) {
        for Missing { seen, fate } in self.context.devices.take_missing() {
            let (old, slot) = (&seen.info.uuid, seen.slot);
            match fate {
                Fate::Replaced { by } => {
                    let evidence = format!(
                        "NVML shows {by} at {slot}, where {old} was before the daemon was started"
                    );
                    self.context
                        .recovered(old, Recovery::Replaced { by }, &evidence);
                }
                Fate::Lost { .. } => {
                    let evidence = format!(
                        "no GPU that NVML shows has this UUID; before the daemon was started it was at {slot}"
                    );
                    self.lost(old, evidence, None);
                }
            }
        }
    }

    /// How near the other GPUs are. Those that don't answer just now are where they were.
    ///
    /// # Errors
    /// The driver went away meanwhile.
    pub(crate) fn peers(
        &self,
        uuid: &DeviceUuid,
        device: &Device<'_>,
    ) -> Result<Vec<Peer>, CallFailed> {
        let devices = &self.context.devices;
        let mut peers = Vec::new();
        for (other, handle, _) in self.live() {
            if other == *uuid || self.context.watch.pair_hangs() {
                continue;
            }
            let path = self.path((uuid, device), (&other, handle))?;
            peers.extend(path.map(|path| Peer {
                uuid: other,
                path: path.to_owned(),
            }));
        }
        let known = devices.uuids();
        let before = devices.info(uuid).map(|info| info.hardware.peers);
        for peer in before.unwrap_or_default() {
            if known.contains(&peer.uuid) && peers.iter().all(|other| other.uuid != peer.uuid) {
                peers.push(peer);
            }
        }
        peers.sort_by(|a, b| a.uuid.cmp(&b.uuid));
        Ok(peers)
    }

    /// How near another GPU is, where both can tell just now. The other is first asked for itself: where that
    /// hangs it is known whose fault it is, and a call about two that hangs does not say.
    ///
    /// # Errors
    /// The driver went away meanwhile.
    fn path(
        &self,
        (uuid, device): (&DeviceUuid, &Device<'_>),
        (other, handle): (&DeviceUuid, DeviceHandle),
    ) -> Result<Option<&'static str>, CallFailed> {
        let peer = self.library.device(handle);
        match asking(Asked::Gpu(other.clone()), || probe(&peer)) {
            Err(failed) if failed.meaning == Meaning::DriverGone => return Err(failed),
            Err(_) => return Ok(None),
            Ok(()) => {}
        }
        let pair = Asked::Pair(uuid.clone(), other.clone());
        asking(pair, || inventory::level(device, peer))
    }

    /// Tells of a GPU that answers, with a full sample. It may be lost again by then.
    ///
    /// # Errors
    /// The GPU, or the driver, went away meanwhile.
    pub(crate) fn announce(
        &self,
        uuid: &DeviceUuid,
        handle: DeviceHandle,
        is_current: impl Fn() -> bool,
    ) -> Result<(), CallFailed> {
        let devices = &self.context.devices;
        let device = self.library.device(handle);
        let peers = self.peers(uuid, &device)?;
        let mut batch = sample(&device, &Class::ALL, &Samples::new());
        // It may have hung until another thread took over; then it has nothing to say.
        let Some(mut info) = devices.info(uuid).filter(|_| is_current()) else {
            return Ok(());
        };
        info.hardware.peers = peers;
        devices.update(&info);
        if let Some(evidence) = devices.take_rebound(uuid) {
            self.context
                .recovered(uuid, Recovery::DriverRebind, &evidence);
        }
        self.weigh(uuid, &mut batch, true);
        self.judge_reset(uuid, &batch);
        devices.announced(uuid);
        self.context
            .sink
            .device_found(info, Arc::clone(&batch.samples));
        if devices.errs(uuid) {
            self.context.unsure(std::slice::from_ref(uuid));
        }
        self.judge(uuid, &batch);
        Ok(())
    }

    /// A GPU that does not answer; told once, until it is found again.
    pub(crate) fn lost(&self, uuid: &DeviceUuid, evidence: String, samples: Option<Arc<Samples>>) {
        if !self.context.devices.lost(uuid) {
            // Told already; if somebody probes it, that is over.
            self.context.sink.probed(uuid);
            return;
        }
        self.context.devices.sure(uuid);
        let target = Target::Uuid(uuid.clone());
        let bare = self.observation(SignalKind::GpuLost, target, Source::Nvml);
        self.context.sink.observe(Observation {
            evidence: evidence.clone(),
            samples,
            ..bare
        });
        tracing::warn!(gpu = %uuid, "GPU lost: {evidence}");
    }

    /// Says in a batch how NVML is with the GPU, by what was answered: a GPU that answers with errors only is Unknown,
    /// whatever stood. The answer is what the batch ends.
    pub(crate) fn weigh(&self, uuid: &DeviceUuid, batch: &mut Batch, is_found: bool) -> Ended {
        let devices = &self.context.devices;
        let samples = Arc::make_mut(&mut batch.samples);
        match (&batch.cut_short, &batch.answer) {
            (Some(failed), Answered::Errors(_) | Answered::Nothing) => {
                if is_found {
                    Standing::Errs(failed).tell(samples);
                }
            }
            (None, Answered::Errors(failed)) => {
                if devices.erred(uuid, is_found) {
                    tracing::warn!(
                        gpu = %uuid,
                        "NVML answers with errors only, nobody knows how the GPU is: {failed}"
                    );
                    self.context.unsure(std::slice::from_ref(uuid));
                }
                if devices.errs(uuid) {
                    Standing::Errs(failed).tell(samples);
                }
            }
            (_, Answered::Values) => {
                Standing::Answers.tell(samples);
                let ended = devices.answered(uuid);
                if ended != Ended::Nothing {
                    tracing::info!(gpu = %uuid, "NVML answers with more than errors again");
                }
                return ended;
            }
            (None, Answered::Nothing) => {}
        }
        Ended::Nothing
    }

    /// Takes a batch, and tells of a reset that shows in it: before all else, as what it tells of now
    /// came after the reset.
    pub(crate) fn judge_reset(&self, uuid: &DeviceUuid, batch: &Batch) {
        self.context
            .counters
            .failed_calls
            .fetch_add(batch.failed_calls, Ordering::Relaxed);
        if let Some(evidence) = self.context.devices.take_samples(uuid, &batch.samples) {
            self.context.recovered(uuid, Recovery::GpuReset, &evidence);
        }
    }

    /// What a batch says besides its values: that the GPU is lost, the driver gone, or that the
    /// driver asks for another recovery action than when it was last read.
    pub(crate) fn judge(&self, uuid: &DeviceUuid, batch: &Batch) {
        match &batch.cut_short {
            Some(failed) if failed.meaning == Meaning::DriverGone => self.driver_gone(failed),
            Some(failed) => self.lost(uuid, failed.to_string(), Some(Arc::clone(&batch.samples))),
            None => {}
        }
        let Some(wish) = self.context.devices.recovery_action(uuid, batch) else {
            return;
        };
        let target = Target::Uuid(uuid.clone());
        let source = match wish.is_field {
            true => Source::Field230,
            false => Source::Nvml,
        };
        self.context.sink.observe(Observation {
            code: u64::try_from(wish.action).ok(),
            evidence: wish.evidence,
            attrs: vec![Attr::int("action", wish.action)],
            samples: Some(Arc::clone(&batch.samples)),
            ..self.observation(SignalKind::RecoveryAction, target, source)
        });
    }
}
