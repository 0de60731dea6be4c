//! The commit of a batch (design H4): verdicts, state, timers, floor and fallback as one write.

use std::sync::Arc;

use device_api_core::clock::BootTime;
use device_api_core::floor;
use device_api_core::ids::{DeviceUuid, SignalSeq};
use device_api_core::policy::{Evaluated, PolicyFailure};
use device_api_core::seating::{Committed, Fallback};
use device_api_core::signal::{Signal, SignalKind};
use device_api_core::verdict::Decision;

use crate::anew::is_anew;
use crate::floors::Assumed;
use crate::lane::{Flight, Pending};
use crate::pipeline::{Shared, State};
use crate::seats::{Bench, Seat};
use crate::timers::Key;
use crate::write::Write;

impl Shared {
    /// Commits a batch: verdicts, state, timers, floor and fallback in one write; then readers go.
    pub(crate) fn commit(&self, state: &mut State, uuid: &DeviceUuid, mut flight: Flight) {
        let now = self.clock.boot();
        let bench = state.bench.clone();
        flight.outcomes.sort_by_key(|(at, _)| *at);
        let mut decisions: Vec<(usize, Decision)> = Vec::new();
        let mut again: Vec<Pending> = Vec::new();
        for (at, outcome) in std::mem::take(&mut flight.outcomes) {
            let Some(seat) = bench.get(at) else { continue };
            match outcome {
                Ok(evaluated) => {
                    let mut said = self.accept(state, uuid, (at, seat), evaluated, &flight.batch);
                    if flight.signals.iter().any(is_anew) {
                        self.keep_problems(uuid, &mut said);
                    } else {
                        self.keep_newer(uuid, &flight, &mut said);
                    }
                    decisions.push((at, said));
                }
                Err(failure) => {
                    again.extend(self.reject(state, uuid, (at, seat), failure, &flight, now));
                }
            }
        }
        let decided = decisions.iter().map(|(at, _)| 1_u32 << at).sum();
        for pending in &flight.batch {
            self.weigh(state, uuid, &bench, pending, decided, &again);
        }
        // Tried again alone, in their order, before anything newer.
        for pending in again.into_iter().rev() {
            self.lane(state, uuid).queue.push_front(pending);
        }
        if flight
            .signals
            .iter()
            .any(|signal| signal.kind == SignalKind::GpuFound)
        {
            self.disown(state, uuid, &bench);
        }
        let is_new = self.take_down(state, uuid, &flight);
        let write = Write {
            decisions: &decisions,
            ..Write::of(&flight.signals)
        };
        self.write(state, uuid, &write);
        let through = flight.batch.iter().map(|pending| pending.through).max();
        let settled = self
            .lane(state, uuid)
            .settled_through(through.unwrap_or_default());
        self.cache.settle(uuid, settled);
        self.arm_overdue(state, uuid);
        self.log_decided(state);
        self.observer.decided(now.since(flight.started));
        if is_new {
            self.show(state, uuid, &flight.signals, decisions);
        }
    }

    /// Takes the floor of a signal into account, and what is assumed of one that nobody judges.
    /// `decided`: the policies that gave a decision.
    fn weigh(
        &self,
        state: &mut State,
        uuid: &DeviceUuid,
        bench: &Bench,
        pending: &Pending,
        decided: u32,
        again: &[Pending],
    ) {
        let (signal, by) = (&pending.signal, pending.recipients & decided);
        let lowered_by =
            floor::name(signal).map_or_else(Vec::new, |floor| bench.lowering(by, floor));
        if !lowered_by.is_empty() {
            self.lower(state, uuid, signal, pending.through, &lowered_by);
        }
        let over = self.ended(state, uuid, signal);
        let lane = self.lane(state, uuid);
        if !pending.is_floored {
            lane.floors.observe(signal, &lowered_by, over);
        }
        if pending.recipients != 0 {
            if !again.iter().any(|open| open.signal.seq == signal.seq) {
                lane.floors.resolve(None, signal);
            }
            return;
        }
        // Asked again of one that has left since: the others have judged it, if there are any.
        let is_judged = pending.alone && bench.recipients(signal) != 0;
        if is_judged && !lane.pending().any(|open| open.signal.seq == signal.seq) {
            lane.floors.resolve(None, signal);
        }
        if signal.kind.raises_barrier() && !is_judged && !over.assumed {
            lane.floors.fall_back(Assumed {
                policy: None,
                rule: Fallback::Catalogue,
                why: "no policy judges it".to_owned(),
                signal: signal.clone(),
            });
        }
    }

    /// Policies that may have judged a signal: its floor does not stand for it while they may.
    pub(crate) fn lower(
        &self,
        state: &mut State,
        uuid: &DeviceUuid,
        signal: &Signal,
        through: SignalSeq,
        by: &[Arc<str>],
    ) {
        let lane = self.lane(state, uuid);
        lane.floors.lower(signal, through, by);
        if signal.code == Some(floor::XID_DOUBLE_BIT) {
            let folded = signal.seq..=through.max(signal.seq);
            let containment = lane.containment(signal.drill);
            let waiting = containment.double_bit.as_ref();
            if waiting.is_some_and(|waiting| folded.contains(&waiting.seq)) {
                containment.lowered_by = by.to_vec();
            }
        }
    }

    /// The GPU is seen in this run: what is assumed on the account of policies that it has not is on nobody's.
    /// One that is not asked for now may yet be.
    fn disown(&self, state: &mut State, uuid: &DeviceUuid, bench: &Bench) {
        self.lane(state, uuid).floors.leave(
            |name| bench.named(name).is_some() || bench.unasked().contains_key(name),
            |signal| bench.recipients(signal) != 0,
        );
    }

    /// Notes a batch in the journal. False: its signals are there, and are judged again.
    fn take_down(&self, state: &mut State, uuid: &DeviceUuid, flight: &Flight) -> bool {
        let mut is_new = false;
        for (pending, signal) in flight.batch.iter().zip(&*flight.signals) {
            let moment = self.moment(pending.through);
            let journal = &mut self.lane(state, uuid).journal;
            if pending.alone {
                journal.judged_again(signal.seq, signal.samples.as_ref());
            } else {
                is_new = true;
                journal.take(signal, pending.through, moment);
            }
        }
        is_new
    }

    /// Shows those who look on what was committed: each signal once.
    pub(crate) fn show(
        &self,
        state: &State,
        uuid: &DeviceUuid,
        signals: &Arc<[Signal]>,
        decisions: Vec<(usize, Decision)>,
    ) {
        let (Some(onlooker), Some(device)) = (self.onlooker.get(), self.cache.device(uuid)) else {
            return;
        };
        let said = decisions.into_iter().filter_map(|(at, decision)| {
            Some((state.bench.get(at)?.info().id.clone(), decision.verdicts))
        });
        onlooker.committed(&Committed {
            device,
            signals: signals.clone(),
            said: said.collect(),
            conditions: self.cache.conditions(uuid),
        });
    }

    /// Takes a policy's state and hands on its decision.
    fn accept(
        &self,
        state: &mut State,
        uuid: &DeviceUuid,
        (at, seat): (usize, &Seat),
        evaluated: Evaluated,
        batch: &[Pending],
    ) -> Decision {
        let lane = self.lane(state, uuid);
        if let Some(slot) = lane.slots.get_mut(at) {
            if *slot.state != evaluated.state {
                slot.state = Arc::new(evaluated.state);
            }
            slot.failures = 0;
        }
        lane.floors.policy_works(seat.name());
        for pending in batch
            .iter()
            .filter(|pending| pending.recipients & (1 << at) != 0)
        {
            lane.floors.resolve(Some(seat.name()), &pending.signal);
            if pending.signal.kind == SignalKind::GpuFound
                && let Some(slot) = lane.slots.get_mut(at)
            {
                slot.has_judged_found = true;
            }
        }
        evaluated.decision
    }

    /// A failed batch is tried again one by one; a signal that fails alone gets the fallback, and is
    /// kept to be tried again later.
    fn reject(
        &self,
        state: &mut State,
        uuid: &DeviceUuid,
        (at, seat): (usize, &Seat),
        failure: PolicyFailure,
        flight: &Flight,
        now: BootTime,
    ) -> Vec<Pending> {
        let asked: Vec<&Pending> = flight
            .batch
            .iter()
            .filter(|pending| pending.recipients & (1 << at) != 0)
            .collect();
        if asked.len() > 1 {
            let alone = |pending: &&Pending| Pending {
                recipients: 1 << at,
                alone: true,
                is_floored: true,
                ..Pending::clone(pending)
            };
            return asked.iter().map(alone).collect();
        }
        let name = seat.name();
        let drill = asked.iter().all(|asked| asked.signal.drill);
        self.complain(state, uuid, (at, seat), (&failure, drill));
        let lane = self.lane(state, uuid);
        lane.floors.policy_failed(name, failure.to_string());
        if let Some(slot) = lane.slots.get_mut(at) {
            slot.failures = slot.failures.saturating_add(1);
        }
        for pending in asked {
            self.observer.fallback(failure.kind.as_str());
            let why = format!("{name} failed ({failure})");
            self.give_up(state, uuid, (at, seat), &pending.signal, why, now);
        }
        Vec::new()
    }

    /// A policy does not judge a signal for now: the fallback stands in, and it is asked again later.
    pub(crate) fn give_up(
        &self,
        state: &mut State,
        uuid: &DeviceUuid,
        (at, seat): (usize, &Seat),
        signal: &Signal,
        why: String,
        now: BootTime,
    ) {
        let over = self.ended(state, uuid, signal);
        let lane = self.lane(state, uuid);
        if lane.is_void(at, signal) {
            // What is newer is judged, or is what is assumed.
            return;
        }
        if signal.kind.raises_barrier() && !over.assumed {
            lane.floors.fall_back(Assumed {
                policy: Some(seat.name().clone()),
                rule: seat.terms().fallback,
                why,
                signal: signal.clone(),
            });
        }
        lane.keep_failed(at, signal);
        let failures = lane.slots.get(at).map_or(0, |slot| slot.failures);
        if !state.bench.is_asked(at) {
            // When it may be asked again.
            return;
        }
        let key = Key::Retry {
            uuid: uuid.clone(),
            policy: at,
        };
        self.set_timer(state, key, now.after(backoff(failures)));
    }
}

/// Between tries of a failed signal: 1 s, doubling to a minute.
fn backoff(failures: u32) -> std::time::Duration {
    std::time::Duration::from_secs(1_u64 << failures.saturating_sub(1).min(6))
        .min(std::time::Duration::from_mins(1))
}
