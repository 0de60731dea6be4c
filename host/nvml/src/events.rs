//! The thread `nvml-events`: what NVML tells of itself.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use device_api_core::ids::DeviceUuid;
use device_api_core::repeats::Repeats;
use device_api_core::signal::{Attr, Observation, SignalKind, Source, Target};

use crate::backoff::Backoff;
use crate::call::{CallFailed, Meaning, called};
use crate::counters::Counters;
use crate::event_set::{Event, EventSet, EventType};
use crate::hearing::{Failing, Silence};
use crate::raw::DeviceHandle;
use crate::readings::probe;
use crate::session::Session;
use crate::watch::{Asked, Role, asking};

/// One wait. It bounds how long stopping, and registering for a GPU that came back, takes; four
/// system calls a second cost nothing.
const WAIT: Duration = Duration::from_millis(250);

/// A wait that is over sooner has not waited: an NVML that says so to every call would have the thread spin.
const WAITED_MIN: Duration = Duration::from_millis(125);

const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Failed waits in a row after which the set is taken for broken and made anew. Not after the
/// first: one GPU that is lost makes a set fail once.
const FAILURES_BEFORE_NEW_SET: u32 = 2;

/// A set says "lost" once for each GPU, or for ever: this is more than the GPUs of a board.
const FAILURES_EMPTYING_MAX: u32 = 16;

/// More than the driver queues; so that a storm can't keep the thread at the old set.
const EVENTS_EMPTIED_MAX: u32 = 4096;

/// Pauses between attempts to register for a GPU's events: a call that failed may work in a moment, and until then
/// what the kernel log does not bring of the GPU is missed.
const REGISTER_MIN: Duration = Duration::from_secs(1);
const REGISTER_MAX: Duration = Duration::from_mins(1);

/// What became of registering for a GPU.
#[derive(Debug)]
struct Registration {
    /// The finding of the GPU that it is for.
    epoch: u64,
    /// It failed: when it is tried again, and the pauses from then on.
    again: Option<(Instant, Backoff)>,
}

#[derive(Debug)]
pub(crate) struct Events {
    session: Session,
    number: u64,
    set: EventSet,
    registered: BTreeMap<DeviceUuid, Registration>,
    backoff: Backoff,
    failing: Failing,
    /// Waits that failed since the last that did not.
    failures: u32,
    /// Events of a GPU that can't be named.
    nameless: Repeats,
}

impl Events {
    /// Registers at once, so that whatever happens after the snapshot is queued.
    ///
    /// # Errors
    /// NVML has no event sets (it is not Linux' own, or too old), or not now.
    pub(crate) fn open(session: Session, number: u64) -> Result<Self, CallFailed> {
        let mut events = Self {
            set: EventSet::create(&session.library)?,
            session,
            number,
            registered: BTreeMap::new(),
            failing: Failing::default(),
            backoff: Backoff::new(BACKOFF_MIN, BACKOFF_MAX),
            failures: 0,
            nameless: Repeats::new(),
        };
        events.register();
        Ok(events)
    }

    /// Registers for the GPUs that were found since it was last called, and, after a pause, for those for which that
    /// failed.
    fn register(&mut self) {
        let live = self.session.live();
        for (uuid, handle, epoch) in &live {
            let before = self.registered.get(uuid);
            let pauses = match before.filter(|before| before.epoch == *epoch) {
                Some(Registration { again: None, .. }) => continue,
                Some(Registration {
                    again: Some((at, _)),
                    ..
                }) if Instant::now() < *at => continue,
                Some(Registration {
                    again: Some((_, pauses)),
                    ..
                }) => *pauses,
                None => Backoff::new(REGISTER_MIN, REGISTER_MAX),
            };
            let registered = asking(Asked::Gpu(uuid.clone()), || self.set.register(*handle));
            let again = self.note_registered(uuid, registered).then(|| {
                let mut pauses = pauses;
                (Instant::now() + pauses.next(), pauses)
            });
            let epoch = *epoch;
            self.registered
                .insert(uuid.clone(), Registration { epoch, again });
        }
        let is_live = |uuid: &DeviceUuid| live.iter().any(|(live, ..)| live == uuid);
        self.session.context.hearing.keep(is_live);
    }

    /// Says whether a GPU's events are waited for, where that is news; whether it is to be tried again.
    fn note_registered(&self, uuid: &DeviceUuid, registered: Result<bool, CallFailed>) -> bool {
        let hearing = &self.session.context.hearing;
        let failed = match registered {
            Ok(true) => {
                if hearing.heard(uuid) {
                    tracing::info!(gpu = %uuid, "events of this GPU are waited for");
                }
                return false;
            }
            Ok(false) => "it has none of those that are wanted".to_owned(),
            Err(failed) if failed.meaning == Meaning::Unsupported => failed.to_string(),
            Err(failed) => {
                let why = Silence::Failed(failed.to_string());
                if hearing.silent(uuid, &why) {
                    tracing::warn!(gpu = %uuid, "no events of this GPU, asked again: {failed}");
                }
                return true;
            }
        };
        if hearing.silent(uuid, &Silence::HasNone) {
            tracing::warn!(
                gpu = %uuid,
                "GPU reports no fault events, the kernel log does: {failed}"
            );
        }
        false
    }

    fn is_current(&self) -> bool {
        self.session.is_current(Role::Events, self.number)
    }

    /// Runs until the session ends, or another took over. What a wait that hung has brought is told all the
    /// same: told twice it is one incident.
    pub(crate) fn run(mut self) {
        while self.is_current() {
            self.register();
            let began = Instant::now();
            match self.set.wait(WAIT) {
                Ok(event) => {
                    self.report(&event);
                    self.recovered();
                }
                Err(failed) => match failed.meaning {
                    Meaning::TimedOut if began.elapsed() >= WAITED_MIN => self.recovered(),
                    Meaning::DriverGone => return self.session.driver_gone(&failed),
                    Meaning::Lost => {
                        self.find_the_lost(&failed);
                        self.failed(&failed);
                    }
                    Meaning::TimedOut
                    | Meaning::Unsupported
                    | Meaning::ResetRequired
                    | Meaning::Failed => self.failed(&failed),
                },
            }
        }
    }

    fn recovered(&mut self) {
        self.failures = 0;
        self.backoff.reset();
        if let Some(waits) = self.failing.passed(Instant::now()) {
            tracing::info!(
                waits,
                "waits for events, of which that many failed, fail no more"
            );
        }
    }

    fn failed(&mut self, failed: &CallFailed) {
        Counters::add(&self.session.context.counters.failed_waits);
        self.failures += 1;
        let pause = self.backoff.next();
        self.say(failed);
        // Before the pause, so that what happens during it is queued in a set that works.
        if self.failures >= FAILURES_BEFORE_NEW_SET {
            self.renew();
        }
        let role = (Role::Events, self.number);
        self.session
            .context
            .control
            .pause(self.session.id, role, pause);
    }

    /// A new set, of the GPUs that are live. It is registered before the old one is emptied: an
    /// event told twice is one incident, one not told is none.
    fn renew(&mut self) {
        match EventSet::create(&self.session.library) {
            Ok(set) => {
                let old = std::mem::replace(&mut self.set, set);
                self.registered.clear();
                self.register();
                self.empty(&old);
            }
            // The old one is kept.
            Err(failed) => self.say(&failed),
        }
    }

    /// Of a storm of errors each is said once.
    fn say(&mut self, failed: &CallFailed) {
        let failures = self.failures;
        if self.failing.failed(&failed.to_string(), Instant::now()) {
            tracing::warn!("waiting for events fails, which is tried on: {failed}");
        } else {
            tracing::debug!(failures, "waiting for events: {failed}");
        }
    }

    /// Reports what a set still holds, behind what it failed with.
    fn empty(&self, set: &EventSet) {
        let mut loss = None;
        let mut failures = 0;
        for _ in 0..EVENTS_EMPTIED_MAX {
            match set.wait(Duration::ZERO) {
                Ok(event) => self.report(&event),
                Err(failed) if failed.meaning == Meaning::TimedOut => break,
                Err(failed) => {
                    failures += 1;
                    loss = Some(failed)
                        .filter(|failed| failed.meaning == Meaning::Lost)
                        .or(loss);
                    if failures == FAILURES_EMPTYING_MAX {
                        break;
                    }
                }
            }
        }
        if let Some(failed) = loss {
            self.find_the_lost(&failed);
        }
    }

    /// Hands the event on, and does nothing before that.
    fn report(&self, event: &Event) {
        let context = &self.session.context;
        Counters::add(&context.counters.events);
        let (kind, code, error) = match event.event_type {
            EventType::XidCriticalError { xid } => {
                if context.config.ignored_xids.contains(&xid) {
                    Counters::add(&context.counters.ignored_xids);
                    tracing::debug!(xid, "ignored, as configured");
                    return;
                }
                (SignalKind::Xid, Some(xid), None)
            }
            EventType::SingleBitEccError => (SignalKind::Ecc, None, Some("corrected")),
            EventType::DoubleBitEccError => (SignalKind::Ecc, None, Some("uncorrected")),
            EventType::MigConfigChange => {
                self.session.progress().look = true;
                return;
            }
            EventType::Other(bits) => {
                tracing::debug!("event of type {bits:#x}, which was not asked for");
                return;
            }
        };
        let Some(target) = self.target(event.device) else {
            Counters::add(&context.counters.unattributed_events);
            if let Some(times) = self.nameless.due() {
                tracing::warn!(times, "{} of a GPU that NVML can't name", evidence(event));
            }
            return;
        };
        self.nameless.went_well();
        self.look_for_instance(&target, event);
        context.sink.observe(Observation {
            code,
            instance: instance(event),
            evidence: evidence(event),
            attrs: error
                .map(|error| Attr::text("error", error))
                .into_iter()
                .collect(),
            ..self.session.observation(kind, target, Source::Nvml)
        });
    }

    /// An instance that is not known is looked for, so that the next fault of it is its own.
    fn look_for_instance(&self, target: &Target, event: &Event) {
        let (Some(words), Target::Uuid(uuid)) = (instance(event), target) else {
            return;
        };
        let info = self.session.context.devices.info(uuid);
        if info.is_some_and(|info| info.instances_named(&words).is_empty()) {
            self.session.progress().look = true;
        }
    }

    /// Whose handle it is, by what was noted while the GPU could still tell: after XID 79 NVML
    /// can't. A handle that nobody noted is asked for.
    fn target(&self, handle: DeviceHandle) -> Option<Target> {
        if let Some(uuid) = self.session.context.devices.uuid_of(handle) {
            return Some(Target::Uuid(uuid));
        }
        let device = self.session.library.device(handle);
        if let Ok(uuid) = called("nvmlDeviceGetUUID", || device.uuid()) {
            return Some(Target::Uuid(DeviceUuid::new(&uuid)));
        }
        let pci = called("nvmlDeviceGetPciInfo_v3", || device.pci_info()).ok()?;
        pci.bus_id.parse().ok().map(Target::Pci)
    }

    /// A GPU is lost, and NVML does not say which: each that answered until now is asked.
    fn find_the_lost(&self, failed: &CallFailed) {
        let live = self.session.live();
        let candidates: Vec<DeviceUuid> = live.iter().map(|(uuid, ..)| uuid.clone()).collect();
        let context = &self.session.context;
        // NVML may repeat itself for as long as the set holds the lost GPU. The readers of those
        // that answered a moment ago are not to be held up again and again.
        let first = self.failures == 0;
        if first {
            context.unsure(&candidates);
        }
        for (uuid, handle, _) in &live {
            let probed = asking(Asked::Gpu(uuid.clone()), || {
                probe(&self.session.library.device(*handle))
            });
            match probed {
                Err(probed) if probed.meaning == Meaning::Lost => {
                    self.session.lost(uuid, format!("{failed}; {probed}"), None);
                }
                Ok(()) | Err(_) if first && context.devices.sure(uuid) => {
                    context.sink.probed(uuid);
                }
                Ok(()) | Err(_) => {}
            }
        }
    }
}

/// In the kernel log's words, so that both sources name an instance alike.
fn instance(event: &Event) -> Option<String> {
    let gpu_instance = event.gpu_instance?;
    Some(match event.compute_instance {
        Some(compute_instance) => format!("GPU-I:{gpu_instance:02} GPU-CI:{compute_instance:02}"),
        None => format!("GPU-I:{gpu_instance:02}"),
    })
}

fn evidence(event: &Event) -> String {
    let what = match event.event_type {
        EventType::XidCriticalError { xid } => format!("XidCriticalError {xid}"),
        EventType::SingleBitEccError => "SingleBitEccError".to_owned(),
        EventType::DoubleBitEccError => "DoubleBitEccError".to_owned(),
        EventType::MigConfigChange => "MigConfigChange".to_owned(),
        EventType::Other(bits) => format!("{bits:#x}"),
    };
    match instance(event) {
        Some(instance) => format!("NVML event {what} {instance}"),
        None => format!("NVML event {what}"),
    }
}

#[cfg(test)]
mod tests {
    use std::ptr;

    use super::*;

    #[track_caller]
    fn check(ids: (Option<u32>, Option<u32>), expected: &str) {
        let event = Event {
            device: DeviceHandle::from_raw(ptr::null_mut()),
            event_type: EventType::XidCriticalError { xid: 94 },
            gpu_instance: ids.0,
            compute_instance: ids.1,
        };
        assert_eq!(evidence(&event), expected);
    }

    #[test]
    fn evidence_names_event_code_and_instance() {
        check((None, None), "NVML event XidCriticalError 94");
        check((Some(5), None), "NVML event XidCriticalError 94 GPU-I:05");
        check(
            (Some(5), Some(0)),
            "NVML event XidCriticalError 94 GPU-I:05 GPU-CI:00",
        );
        check((None, Some(0)), "NVML event XidCriticalError 94");
    }
}
