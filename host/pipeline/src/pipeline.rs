//! The pipeline: its state, and where sources put what they see.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use device_api_core::action::Platform;
use device_api_core::clock::{BootTime, Clock, WallTime};
use device_api_core::floor;
use device_api_core::ids::{DeviceUuid, IncidentId, SignalSeq};
use device_api_core::limits;
use device_api_core::ports::{self, DeviceCache, Onlooker, Overdue, Seats, SignalSink};
use device_api_core::signal::{Observation, Signal, SignalKind, Source, Target, printable};

use crate::complaints::Complaints;
use crate::containment;
use crate::dispatch::Call;
use crate::incidents::{Incidents, Told};
use crate::journal::Moment;
use crate::lane::{Enqueued, Lane, Pending, Repeat};
use crate::logmark::LogMark;
use crate::memory::Memories;
use crate::numbers::Reserved;
use crate::seats::Bench;
use crate::shelf::Shelf;
use crate::swap::Turning;
use crate::switches::Switches;
use crate::timers::Timers;
use crate::verdicts::Drills;

/// Is told what passes. Called with the pipeline's lock held: be quick.
pub trait Observer: Debug + Send + Sync {
    fn signal(&self, source: &Source, kind: SignalKind, drill: bool);
    /// A repeat was folded into a signal that waits.
    fn folded(&self);
    /// No device is known for it (yet).
    fn unattributed(&self, target: &Target);
    /// A batch was decided and committed.
    fn decided(&self, elapsed: Duration);
    /// The fallback was written for a signal: `overdue`, `queue-full`, or how a policy failed
    /// ([`FailureKind::as_str`]).
    ///
    /// [`FailureKind::as_str`]: device_api_core::policy::FailureKind::as_str
    fn fallback(&self, why: &str);
    fn incidents(&self, open: usize);
}

/// Observes nothing.
#[derive(Clone, Copy, Debug)]
pub struct Unobserved;

impl Observer for Unobserved {
    fn signal(&self, _: &Source, _: SignalKind, _: bool) {}
    fn folded(&self) {}
    fn unattributed(&self, _: &Target) {}
    fn decided(&self, _: Duration) {}
    fn fallback(&self, _: &str) {}
    fn incidents(&self, _: usize) {}
}

/// How the pipeline treats what it sees.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    pub drills: Drills,
    pub platform: Platform,
    /// How long readers wait for a decision at most (design C3).
    pub barrier_wait: Duration,
    /// No policy is run, and none will be: the host judges by itself (design H7).
    pub safe_mode: bool,
}

/// The pipeline of one node. Dropping it stops its timer thread, and has made durable what waits for it.
#[derive(Debug)]
pub struct Pipeline {
    shared: Arc<Shared>,
    timer: Option<JoinHandle<()>>,
}

impl Pipeline {
    /// Starts the pipeline and its timer thread, with what it remembers of an earlier run, and without
    /// policies: who loads them seats them ([`Pipeline::seats`]), those of the start before any source
    /// starts. Each finds what an earlier run of it left.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(
        cache: Arc<dyn DeviceCache>,
        clock: Arc<dyn Clock>,
        observer: Arc<dyn Observer>,
        config: Config,
        memories: Memories,
    ) -> std::io::Result<Self> {
        let shared = Arc::new_cyclic(|me| Shared {
            state: Mutex::default(),
            asked: AtomicU64::new(0),
            entered: AtomicU64::new(0),
            turns: Mutex::default(),
            sooner: Condvar::new(),
            me: me.clone(),
            cache,
            clock,
            observer,
            onlooker: OnceLock::new(),
            config,
        });
        shared.restore(memories);
        let timer = std::thread::Builder::new()
            .name("signal-timer".to_owned())
            .spawn({
                let shared = shared.clone();
                move || shared.run_timers()
            })?;
        Ok(Self {
            shared,
            timer: Some(timer),
        })
    }

    /// Where sources put what they see.
    pub fn sink(&self) -> Arc<dyn SignalSink> {
        self.shared.clone()
    }

    /// Where policies take their seats.
    pub fn seats(&self) -> Arc<dyn Seats> {
        self.shared.clone()
    }

    /// The faults of this node, and an operator's word on them.
    pub fn incidents(&self) -> Arc<dyn ports::Incidents> {
        self.shared.clone()
    }

    /// Names who looks on at what is committed. Once; later calls do nothing.
    pub fn on_committed(&self, onlooker: Arc<dyn Onlooker>) {
        let _ = self.shared.onlooker.set(onlooker);
    }

    /// Who writes the fallback when a read's bound has passed.
    pub fn overdue(&self) -> Arc<dyn Overdue> {
        self.shared.clone()
    }

    /// Fires the timers that are due. The timer thread does so by itself; for a clock that tests move.
    pub fn tick(&self) {
        self.shared.fire_timers();
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.sooner.notify_all();
        if let Some(timer) = self.timer.take() {
            let _ = timer.join();
        }
        let mut state = self.shared.lock();
        self.shared.save_incidents(&mut state);
        self.shared.give_back(&state);
    }
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) lanes: HashMap<DeviceUuid, Lane>,
    pub(crate) timers: Timers,
    pub(crate) bench: Arc<Bench>,
    pub(crate) turning: Turning,
    /// How many policies have ever taken a seat.
    pub(crate) seated: u64,
    /// When the run began: what was before is in no journal.
    pub(crate) start: Moment,
    pub(crate) next_flight: u64,
    pub(crate) stopped: bool,
    pub(crate) incidents: Incidents,
    pub(crate) log: LogMark,
    pub(crate) complaints: Complaints,
    pub(crate) shelf: Shelf,
    pub(crate) switches: Switches,
    /// Of the signals.
    pub(crate) newest: SignalSeq,
    pub(crate) reserved: Reserved,
}

#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// How many have ever waited for the state, and how many of them have had it.
    asked: AtomicU64,
    entered: AtomicU64,
    /// Seats change hands one at a time. Taken before the state.
    turns: Mutex<()>,
    /// A timer was set, or the pipeline stops.
    pub(crate) sooner: Condvar,
    pub(crate) me: Weak<Self>,
    pub(crate) cache: Arc<dyn DeviceCache>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) onlooker: OnceLock<Arc<dyn Onlooker>>,
    pub(crate) config: Config,
}

/// How long others are given way at most: who is woken runs within some 50 µs, and who does not is kept from it by the
/// node, whose processor time should not be spent on waiting for that.
const GIVEN_WAY_MAX: Duration = Duration::from_millis(1);

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.entered.fetch_add(1, Ordering::Relaxed);
        state
    }

    /// The lock, for work on many GPUs that takes it for each: after all who wait for it now. It is not
    /// fair, so whoever takes it again at once would keep them waiting for all of that work.
    pub(crate) fn lock_after_others(&self) -> MutexGuard<'_, State> {
        let asked = self.asked.load(Ordering::Relaxed);
        let began = Instant::now();
        while self.entered.load(Ordering::Relaxed) < asked && began.elapsed() < GIVEN_WAY_MAX {
            std::thread::yield_now();
        }
        self.lock()
    }

    /// One seat at a time changes hands.
    pub(crate) fn lock_turns(&self) -> MutexGuard<'_, ()> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Now, when `seq` is the newest signal.
    pub(crate) fn moment(&self, seq: SignalSeq) -> Moment {
        Moment {
            seq,
            boot: self.clock.boot(),
            wall: self.clock.wall(),
        }
    }

    pub(crate) fn lane<'a>(&self, state: &'a mut State, uuid: &DeviceUuid) -> &'a mut Lane {
        let start = state.start;
        state
            .lanes
            .entry(uuid.clone())
            .or_insert_with(|| Lane::new(start))
    }

    /// Takes in an observation that was made `repeats` times: of the GPU, or of each MIG instance that it is
    /// attributed to (`instances.rs`), as one incident.
    pub(crate) fn take_in(
        &self,
        state: &mut State,
        uuid: &DeviceUuid,
        mut observation: Observation,
        repeats: u32,
    ) -> Vec<Call> {
        let on = self.attribute(uuid, &mut observation);
        let mut calls = Vec::new();
        for instance in on {
            let again = observation.clone();
            calls.extend(self.take_one(state, uuid, again, (repeats, Some(instance))));
        }
        calls.extend(self.take_one(state, uuid, observation, (repeats, None)));
        calls
    }

    /// Numbers an observation, and queues it for those who subscribed. `also`: another instance of the same
    /// GPU instance has it too; it is not counted for that.
    fn take_one(
        &self,
        state: &mut State,
        uuid: &DeviceUuid,
        mut observation: Observation,
        (repeats, also): (u32, Option<String>),
    ) -> Vec<Call> {
        let counted = if also.is_none() { repeats } else { 0 };
        let number = self.number(state, uuid, &observation, counted);
        observation.instance = also.or(observation.instance);
        if shows_as_it_was(&observation) && (!observation.drill || self.is_simulated(uuid)) {
            self.lane(state, uuid).recoveries.looks.told(number.seq);
        }
        let repeat = Repeat {
            observation: &observation,
            seq: number.seq,
            incident: number.incident,
            drill: number.drill,
            repeats,
            deadline: number.boot.after(self.config.barrier_wait),
        };
        // What contains a double-bit error, and that error, are looked at one by one.
        if !containment::concerns(observation.kind, observation.code)
            && let Some(was_let_go) = self.lane(state, uuid).fold(&repeat)
        {
            self.observer.folded();
            if was_let_go {
                self.arm_overdue(state, uuid);
            }
            return Vec::new();
        }
        let mut signal = number.signal(uuid, observation);
        signal.repeats = repeats;
        let recipients = state.bench.recipients(&signal);
        self.admit(state, uuid, signal, recipients)
    }

    /// Queues a signal for these policies, and dispatches if the lane is idle.
    pub(crate) fn admit(
        &self,
        state: &mut State,
        uuid: &DeviceUuid,
        signal: Signal,
        recipients: u32,
    ) -> Vec<Call> {
        let holds_readers = signal.kind.raises_barrier();
        let deadline = holds_readers.then(|| signal.observed_boot.after(self.config.barrier_wait));
        self.watch_containment(state, uuid, &signal);
        let lane = self.lane(state, uuid);
        lane.overtake(&signal);
        let pending = Pending {
            through: signal.seq,
            signal,
            recipients,
            deadline,
            alone: false,
            is_floored: false,
        };
        match lane.enqueue(pending) {
            Enqueued::Queued => {}
            Enqueued::Folded => self.observer.folded(),
            Enqueued::Full(pending) => self.decide_without_policies(state, uuid, *pending),
        }
        let calls = self.dispatch(state, uuid);
        self.arm_overdue(state, uuid);
        calls
    }

    /// Numbers an observation, the barrier up first if it is a fault: its time is one from which on
    /// readers wait. Whatever concerns a simulated device is a drill.
    pub(crate) fn number(
        &self,
        state: &mut State,
        uuid: &DeviceUuid,
        observation: &Observation,
        repeats: u32,
    ) -> Number {
        state.newest = SignalSeq(state.newest.0 + 1);
        let seq = state.newest;
        if observation.kind.raises_barrier() {
            self.cache.raise(uuid, seq);
        }
        let (boot, wall) = (self.clock.boot(), self.clock.wall());
        let drill = observation.drill
            || self
                .cache
                .device(uuid)
                .is_some_and(|device| device.simulated);
        self.observer
            .signal(&observation.source, observation.kind, drill);
        let told = Told {
            at: Moment { seq, boot, wall },
            drill,
            repeats,
        };
        let (incident, root) = state.incidents.of(uuid, observation, told);
        self.observer.incidents(state.incidents.len());
        Number {
            seq,
            boot,
            wall,
            incident,
            root,
            drill,
        }
    }
}

/// Whether NVML has just seen the GPU as a recovery would not have left it.
fn shows_as_it_was(observation: &Observation) -> bool {
    match observation.kind {
        SignalKind::GpuLost => observation.source == Source::Nvml,
        SignalKind::RecoveryAction => {
            [Source::Nvml, Source::Field230].contains(&observation.source)
                && !floor::asks_for_nothing(observation.kind, observation.code, &observation.attrs)
        }
        SignalKind::Xid
        | SignalKind::Sxid
        | SignalKind::Ecc
        | SignalKind::Reading
        | SignalKind::GpuFound
        | SignalKind::Timer => false,
    }
}

/// What the pipeline knows of an observation before it makes a signal of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Number {
    seq: SignalSeq,
    boot: BootTime,
    wall: WallTime,
    incident: IncidentId,
    root: Option<IncidentId>,
    drill: bool,
}

impl Number {
    pub(crate) fn signal(self, uuid: &DeviceUuid, observation: Observation) -> Signal {
        let mut attrs = observation.attrs;
        attrs.truncate(limits::ATTRS_PER_SIGNAL_MAX);
        Signal {
            seq: self.seq,
            device: uuid.clone(),
            kind: observation.kind,
            code: observation.code,
            observed_at: self.wall,
            observed_boot: self.boot,
            repeats: 1,
            incident: self.incident,
            root: self.root,
            drill: self.drill,
            instance: observation.instance,
            sources: vec![observation.source],
            evidence: printable(&observation.evidence, limits::EVIDENCE_BYTES_MAX),
            attrs,
            samples: observation.samples,
        }
    }
}
