//! The pipeline: its state, and where sources put what they see.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use device_api_core::action::Platform;
use device_api_core::clock::Clock;
use device_api_core::ids::{DeviceUuid, SignalSeq};
use device_api_core::limits;
use device_api_core::policy::{FailureKind, PolicyInfo};
use device_api_core::ports::{DeviceCache, Overdue, Policy, SignalSink};
use device_api_core::signal::{Observation, Signal, SignalKind, Source, Target, printable};

use crate::dispatch::Call;
use crate::incidents::Incidents;
use crate::lane::{Enqueued, Lane, Pending};
use crate::logmark::LogMark;
use crate::memory::Memories;
use crate::shelf::Shelf;
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
    fn fallback(&self, why: &str);
    fn evaluated(&self, policy: &str, failure: Option<FailureKind>, elapsed: Duration);
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
    fn evaluated(&self, _: &str, _: Option<FailureKind>, _: Duration) {}
    fn incidents(&self, _: usize) {}
}

/// How the pipeline treats what it sees.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    pub drills: Drills,
    pub platform: Platform,
    /// How long readers wait for a decision at most (design C3).
    pub barrier_wait: Duration,
}

/// The pipeline of one node. Dropping it stops its timer thread.
#[derive(Debug)]
pub struct Pipeline {
    shared: Arc<Shared>,
    timer: Option<JoinHandle<()>>,
}

impl Pipeline {
    /// Starts the pipeline and its timer thread, with what it remembers of an earlier run. At most [`limits::POLICIES_MAX`] policies are
    /// asked; the caller refuses more.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(
        cache: Arc<dyn DeviceCache>,
        policies: Vec<Arc<dyn Policy>>,
        clock: Arc<dyn Clock>,
        observer: Arc<dyn Observer>,
        config: Config,
        memories: Memories,
    ) -> std::io::Result<Self> {
        let shared = Arc::new_cyclic(|me| Shared {
            state: Mutex::new(State::default()),
            sooner: Condvar::new(),
            me: me.clone(),
            cache,
            policies,
            clock,
            observer,
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
    }
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) lanes: HashMap<DeviceUuid, Lane>,
    pub(crate) timers: Timers,
    pub(crate) next_flight: u64,
    pub(crate) stopped: bool,
    pub(crate) incidents: Incidents,
    pub(crate) log: LogMark,
    pub(crate) shelf: Shelf,
    /// Of the signals.
    pub(crate) newest: SignalSeq,
}

#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// A timer was set, or the pipeline stops.
    pub(crate) sooner: Condvar,
    pub(crate) me: Weak<Self>,
    pub(crate) cache: Arc<dyn DeviceCache>,
    pub(crate) policies: Vec<Arc<dyn Policy>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) config: Config,
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn infos(&self) -> Vec<&PolicyInfo> {
        self.policies.iter().map(|policy| policy.info()).collect()
    }

    pub(crate) fn lane<'a>(&self, state: &'a mut State, uuid: &DeviceUuid) -> &'a mut Lane {
        state
            .lanes
            .entry(uuid.clone())
            .or_insert_with(|| Lane::new(self.policies.len()))
    }

    /// Numbers an observation that was made `repeats` times, and queues it for those who subscribed.
    pub(crate) fn take_in(
        &self,
        state: &mut State,
        uuid: &DeviceUuid,
        observation: Observation,
        repeats: u32,
    ) -> Vec<Call> {
        let mut signal = self.number(state, uuid, observation);
        signal.repeats = repeats;
        let recipients = self.recipients(&signal);
        self.admit(state, uuid, signal, recipients)
    }

    /// Bit N: policy N subscribed to it.
    fn recipients(&self, signal: &Signal) -> u32 {
        let subscribed =
            |(at, info): (usize, &PolicyInfo)| if info.wants(signal) { 1 << at } else { 0 };
        self.infos().into_iter().enumerate().map(subscribed).sum()
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

    /// Makes a signal of an observation, the barrier up first if it is a fault: its time is one
    /// from which on readers wait. Whatever concerns a simulated device is a drill.
    pub(crate) fn number(
        &self,
        state: &mut State,
        uuid: &DeviceUuid,
        observation: Observation,
    ) -> Signal {
        state.newest = SignalSeq(state.newest.0 + 1);
        let seq = state.newest;
        if observation.kind.raises_barrier() {
            self.cache.raise(uuid, seq);
        }
        let observed_boot = self.clock.boot();
        let observed_at = self.clock.wall();
        let drill = observation.drill
            || self
                .cache
                .device(uuid)
                .is_some_and(|device| device.simulated);
        self.observer
            .signal(&observation.source, observation.kind, drill);
        let (incident, root) = state.incidents.of(uuid, &observation, observed_boot);
        self.observer.incidents(state.incidents.len());
        let mut attrs = observation.attrs;
        attrs.truncate(limits::ATTRS_PER_SIGNAL_MAX);
        Signal {
            seq,
            device: uuid.clone(),
            kind: observation.kind,
            code: observation.code,
            observed_at,
            observed_boot,
            repeats: 1,
            incident,
            root,
            drill,
            instance: observation.instance,
            sources: vec![observation.source],
            evidence: printable(&observation.evidence, limits::EVIDENCE_BYTES_MAX),
            attrs,
            samples: observation.samples,
        }
    }
}
