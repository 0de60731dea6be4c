//! Policies take their seats and leave them while signals come (design H6).
//!
//! ```text
//!  seat ──▶ refused: types taken, no seat free, journals moved on          (nothing has changed)
//!    └────▶ under the lock: new bench ──▶ of each GPU: memory handed on ──▶ one write ──▶ asked
//! ```
//!
//! The bench is replaced under the pipeline's lock, and from then on no GPU is touched before its own
//! hand-over is done: one after another, or when something comes for it ([`Shared::follow`]). So the lock is
//! held for one GPU at a time, and yet a signal is committed by the old version or by the new one, and
//! never by both: what the old one still answers is void, and what it had is asked of the new one, also
//! where its answer had come and the batch waits for others.
//!
//! **Memory.** State and timers are handed on where the state schema is the same. Else the old one's are
//! put away for its return (a roll-back finds its own), and the new one gets what was put away under
//! its schema; where there is none, what it remembers of the journal that it judged.
//!
//! **What was judged again.** The new version's verdicts on the journal are written, in its name, as far as it
//! was told all (`rejudged.rs`). Where a journal has moved on, the new version is refused, or it insists,
//! and that GPU stays as it was judged. With no rejudgement at all, nothing is judged again; with some, a
//! GPU that they leave out is one whose journal was empty.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use device_api_core::condition::{self, Condition};
use device_api_core::floor;
use device_api_core::ids::DeviceUuid;
use device_api_core::limits;
use device_api_core::seating::Rejudgement;
use device_api_core::signal::{Signal, SignalKind};

use crate::dispatch::Call;
use crate::ownerless;
use crate::pipeline::{Shared, State};
use crate::rejudged::Rejudged;
use crate::seats::Seat;
use crate::timers::Key;
use crate::write::Write;

/// Who leaves a seat, and who takes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Swap<'a> {
    pub(crate) at: usize,
    pub(crate) old: Option<&'a Seat>,
    pub(crate) new: Option<&'a Seat>,
}

/// A seat changes hands, and GPU by GPU follows.
#[derive(Debug)]
pub(crate) struct Turn {
    pub(crate) at: usize,
    pub(crate) old: Option<Seat>,
    pub(crate) new: Option<Seat>,
    /// What the new one says of the journals that have not moved on.
    pub(crate) judged: HashMap<DeviceUuid, Arc<Rejudgement>>,
}

/// The turn that is being taken, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Turning {
    turn: Option<Arc<Turn>>,
    /// GPUs that have not followed.
    behind: HashSet<DeviceUuid>,
}

impl Turning {
    pub(crate) fn begin(&mut self, turn: Arc<Turn>, behind: &[DeviceUuid]) {
        self.turn = Some(turn);
        self.behind = behind.iter().cloned().collect();
    }

    /// The turn that a GPU is to follow now: once.
    fn take(&mut self, uuid: &DeviceUuid) -> Option<Arc<Turn>> {
        if !self.behind.remove(uuid) {
            return None;
        }
        if self.behind.is_empty() {
            self.turn.take()
        } else {
            self.turn.clone()
        }
    }
}

impl Swap<'_> {
    /// Whether state and timers are handed on.
    fn keeps_memory(&self) -> bool {
        self.old
            .zip(self.new)
            .is_some_and(|(old, new)| old.info().state_schema == new.info().state_schema)
    }
}

impl Shared {
    /// Carries out for one GPU what the bench says already, if that is not done: before anything else is
    /// done with it.
    #[must_use]
    pub(crate) fn follow(&self, state: &mut State, uuid: &DeviceUuid) -> Vec<Call> {
        let Some(turn) = state.turning.take(uuid) else {
            return Vec::new();
        };
        let swap = Swap {
            at: turn.at,
            old: turn.old.as_ref(),
            new: turn.new.as_ref(),
        };
        let rejudged = turn.judged.get(uuid);
        self.swap(state, uuid, swap, rejudged.map(Arc::as_ref))
    }

    fn swap(
        &self,
        state: &mut State,
        uuid: &DeviceUuid,
        swap: Swap<'_>,
        rejudged: Option<&Rejudgement>,
    ) -> Vec<Call> {
        let takes_state = self.hand_on(state, uuid, swap, rejudged);
        self.redirect(state, uuid, swap);
        let bench = state.bench.clone();
        let lane = self.lane(state, uuid);
        if let Some(seat) = swap.old.or(swap.new) {
            lane.floors.policy_works(seat.name());
        }
        if let Some(new) = swap.new {
            lane.floors.hand_on(
                new.name(),
                new.terms().fallback,
                |signal| new.info().wants(signal),
                |signal| bench.recipients(signal) != 0,
            );
        } else {
            lane.floors.leave(
                |name| bench.named(name).is_some(),
                |signal| bench.recipients(signal) != 0,
            );
        }
        if let (Some(new), Some(rejudged)) = (swap.new, rejudged) {
            self.settle_rejudged(state, uuid, (swap.at, new), rejudged, takes_state);
        }
        if let Some(new) = swap.new {
            let judged = rejudged.filter(|_| takes_state);
            self.ask_of_found(state, uuid, (swap.at, new), judged);
        }
        self.write_swap(state, uuid, swap, rejudged, takes_state);
        self.go_on(state, uuid, swap)
    }

    /// Memory. True: what the rejudgement left is the policy's state.
    fn hand_on(
        &self,
        state: &mut State,
        uuid: &DeviceUuid,
        swap: Swap<'_>,
        rejudged: Option<&Rejudgement>,
    ) -> bool {
        let Swap { at, old, new } = swap;
        let wants = |old: &Seat, new: &Seat| old.info().subscriptions == new.info().subscriptions;
        // What it was told of it knows by its state alone.
        let knows = swap.keeps_memory() && old.zip(new).is_some_and(|(old, new)| wants(old, new));
        if !knows {
            self.lane(state, uuid).told.forget(at);
        }
        if swap.keeps_memory() {
            if let (Some(new), Some(slot)) = (new, self.lane(state, uuid).slots.get_mut(at)) {
                slot.failures = 0;
                slot.failed
                    .retain(|signal| signal.kind == SignalKind::Timer || new.info().wants(signal));
            }
            return false;
        }
        if let Some(old) = old {
            self.put_away(state, uuid, (at, old), new);
        }
        let Some(new) = new else { return false };
        if self.take_up(state, uuid, (at, new)) {
            return false;
        }
        let (Some(rejudged), Some(slot)) = (rejudged, self.lane(state, uuid).slots.get_mut(at))
        else {
            return false;
        };
        slot.state = rejudged.state.clone();
        true
    }

    /// Empties a seat's memory, for the return of who sat there. What it failed on is the successor's to
    /// judge, but for its timers.
    fn put_away(
        &self,
        state: &mut State,
        uuid: &DeviceUuid,
        (at, old): (usize, &Seat),
        new: Option<&Seat>,
    ) {
        let mut memory = Arc::unwrap_or_clone(self.memory_on(state, uuid, (at, old)));
        let kept = limits::ABSENT_MEMORY_AGE_MAX;
        memory.kept_until = Some(self.clock.boot().after(kept));
        let is_its_own = |key: &Key| match key {
            Key::Wake { policy, .. } | Key::Retry { policy, .. } => *policy == at,
            Key::Overdue(_) | Key::Containment { .. } | Key::Quiet { .. } => false,
        };
        let keys = state.timers.of(uuid).map(|(key, _)| key);
        let keys: Vec<Key> = keys.filter(|key| is_its_own(key)).cloned().collect();
        for key in keys {
            state.timers.cancel(&key);
        }
        let lane = self.lane(state, uuid);
        lane.wakes.retain(|(seat, _), _| *seat != at);
        let mut left = lane
            .slots
            .get_mut(at)
            .map(std::mem::take)
            .unwrap_or_default();
        if let Some(new) = new {
            let is_timer = |signal: &Signal| signal.kind == SignalKind::Timer;
            memory.failed.retain(is_timer);
            left.failed
                .retain(|signal| !is_timer(signal) && new.info().wants(signal));
            if let Some(slot) = lane.slots.get_mut(at) {
                slot.failed = left.failed;
            }
        }
        lane.put_away(Arc::new(memory));
    }

    /// Signals that wait, or are with the policies, are for whoever sits there now.
    fn redirect(&self, state: &mut State, uuid: &DeviceUuid, swap: Swap<'_>) {
        let bit = 1_u32 << swap.at;
        let info = swap.new.map(Seat::info);
        let keeps_timers = swap.keeps_memory();
        let lane = self.lane(state, uuid);
        for pending in lane.all_pending() {
            let signal = &pending.signal;
            let was_asked = pending.recipients & bit != 0;
            let is_asked = info.is_some_and(|info| match signal.kind {
                SignalKind::Timer => was_asked && keeps_timers,
                // That it crossed was one policy's word.
                SignalKind::Reading => was_asked && info.wants(signal),
                SignalKind::Xid
                | SignalKind::Sxid
                | SignalKind::Ecc
                | SignalKind::GpuLost
                | SignalKind::GpuFound
                | SignalKind::RecoveryAction => info.wants(signal) && (was_asked || !pending.alone),
            });
            pending.recipients &= !bit;
            if is_asked {
                pending.recipients |= bit;
            }
        }
        if let Some(flight) = &mut lane.flight {
            flight.outcomes.retain(|(at, _)| *at != swap.at);
            flight.outstanding &= !bit;
        }
        self.drop_unasked(state, uuid);
    }

    /// The new version has judged what is in the journal: what it may lower is lowered, and, where it
    /// remembers that, it need not be asked again of what was assumed.
    fn settle_rejudged(
        &self,
        state: &mut State,
        uuid: &DeviceUuid,
        (at, new): (usize, &Seat),
        rejudged: &Rejudgement,
        takes_state: bool,
    ) {
        let journal = &self.lane(state, uuid).journal;
        let judged = journal.shown(rejudged.revision);
        let judged: Vec<(Arc<Signal>, _)> = judged
            .filter(|(signal, _)| new.info().wants(signal))
            .map(|(signal, through)| (signal.clone(), through))
            .collect();
        for (signal, through) in judged {
            if floor::name(&signal).is_some_and(|floor| new.terms().may_lower(floor)) {
                let by = std::slice::from_ref(new.name());
                self.lower(state, uuid, &signal, through, by);
            }
            if takes_state {
                let folded = signal.seq..=through;
                let lane = self.lane(state, uuid);
                if let Some(slot) = lane.slots.get_mut(at) {
                    slot.failed.retain(|failed| !folded.contains(&failed.seq));
                }
                lane.floors.resolve(Some(new.name()), &signal);
                lane.floors.resolve(None, &signal);
                // It was to be asked again alone, of what it has judged now.
                for pending in lane.all_pending().filter(|pending| pending.alone) {
                    if folded.contains(&pending.signal.seq) {
                        pending.recipients &= !(1 << at);
                    }
                }
                self.drop_unasked(state, uuid);
            }
        }
    }

    /// Drops what was to be asked again of those alone who are not asked any more. What others have judged
    /// is judged then, also where nobody had in time.
    fn drop_unasked(&self, state: &mut State, uuid: &DeviceUuid) {
        let bench = state.bench.clone();
        let lane = self.lane(state, uuid);
        for signal in lane.drop_unasked() {
            let is_open = lane.pending().any(|open| open.signal.seq == signal.seq);
            if !is_open && bench.recipients(&signal) != 0 {
                lane.floors.resolve(None, &signal);
            }
        }
    }

    /// What the new version says, and what becomes of what the old one said: one write.
    fn write_swap(
        &self,
        state: &mut State,
        uuid: &DeviceUuid,
        swap: Swap<'_>,
        rejudged: Option<&Rejudgement>,
        takes_state: bool,
    ) {
        if self.cache.device(uuid).is_none() {
            // It was forgotten: nothing of it is to be shown again.
            return;
        }
        let (bench, now) = (state.bench.clone(), self.clock.wall());
        let conditions = self.cache.conditions(uuid);
        let (mut over, mut decision, mut signals) = (Vec::new(), None, Vec::new());
        if let Some((info, judged)) = swap.new.map(Seat::info).zip(rejudged) {
            let journal = &self.lane(state, uuid).journal;
            let rejudged = Rejudged {
                info,
                judged,
                conditions: &conditions,
                journal,
                takes_state,
                platform: self.config.platform,
                now: self.clock.boot(),
            };
            over = rejudged.over(now);
            let said = rejudged.said();
            let causes: Vec<_> = said.verdicts.iter().map(|verdict| verdict.cause).collect();
            signals = journal.evidence(&causes);
            decision = Some((swap.at, said));
        }
        for old in &over {
            let (uuid, condition) = (uuid.clone(), old.name().to_string());
            state.timers.cancel(&Key::Quiet { uuid, condition });
        }
        let amend = |conditions: &mut Vec<Condition>| {
            if let Some(new) = swap.new {
                ownerless::unmark(conditions, new.info());
            }
            for over in &over {
                condition::upsert(conditions, over.clone());
            }
            if let Some(left) = swap.old {
                ownerless::mark_of(conditions, &bench, now, |owner| {
                    *owner == *left.info().id.name
                });
            }
        };
        let write = Write {
            decisions: decision.as_slice(),
            signals: &signals,
            again: Some(rejudged.map_or(&[], |judged| &judged.drill_wakes)),
            amend: Some(&amend),
            ending: None,
        };
        self.write(state, uuid, &write);
    }

    /// The new version is asked what the old one had, and what it failed on.
    fn go_on(&self, state: &mut State, uuid: &DeviceUuid, swap: Swap<'_>) -> Vec<Call> {
        let mut calls = self.ask(state, uuid, 1 << swap.at);
        if let Some(new) = swap.new {
            self.ask_of_assumed(state, uuid, (swap.at, new));
            if swap.old.is_some() {
                let (uuid, policy) = (uuid.clone(), swap.at);
                let key = Key::Retry { uuid, policy };
                state.timers.cancel(&key);
                if let Key::Retry { uuid, policy } = key {
                    calls.extend(self.retry(state, &uuid, policy));
                }
            } else {
                self.ask_again(state, uuid, swap.at);
            }
        }
        calls.extend(self.land(state, uuid));
        self.arm_overdue(state, uuid);
        calls
    }
}
