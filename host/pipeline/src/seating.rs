//! The pipeline as whoever loads policies sees it (design H6, H9).

use std::collections::HashMap;
use std::sync::Arc;

use device_api_core::condition::Owner;
use device_api_core::ids::DeviceUuid;
use device_api_core::limits;
use device_api_core::ports::Seats;
use device_api_core::seating::{DeviceJournal, Rejudgement, SeatError, Seating};
use device_api_core::signal::Signal;

use crate::alike::is_incident;
use crate::dispatch::Call;
use crate::pipeline::{Shared, State};
use crate::seats::{Bench, Seat};
use crate::swap::Turn;
use crate::timers::Key;
use crate::write::Write;

/// GPUs that one line of the log names: more are counted.
const GPUS_NAMED_MAX: usize = 8;

impl Seats for Shared {
    fn journals(&self) -> Vec<DeviceJournal> {
        // Not of GPUs of which some have followed a turn and others have not.
        let _turns = self.lock_turns();
        let uuids = uuids(&self.lock());
        // Each by itself: nothing is said of all at one moment.
        uuids.iter().filter_map(|uuid| self.journal(uuid)).collect()
    }

    fn owner(&self, condition: &str) -> Option<Owner> {
        self.cache.owner(condition)
    }

    fn seat(&self, seating: Seating) -> Result<Vec<DeviceUuid>, SeatError> {
        let policy = seating.policy.info().id.clone();
        let judged = seating.rejudged.iter();
        let mut judged: HashMap<DeviceUuid, Arc<Rejudgement>> = judged
            .map(|judged| (judged.device.clone(), judged.clone()))
            .collect();
        let _turns = self.lock_turns();
        // What leaves the bench is dropped without the lock: a policy's last use may end its thread,
        // and an answer that it owes comes back here.
        let (_left, _turn, uuids, as_judged) = {
            let mut state = self.lock();
            let at = seat_for(&state, &seating)?;
            let moved = self.moved(&mut state, &seating, &judged);
            if !seating.insist && !moved.is_empty() {
                return Err(SeatError::Moved(moved));
            }
            let new = Seat {
                policy: seating.policy.clone(),
                generation: state.seated + 1,
            };
            let left = self.rebench(&mut state, |bench| bench.with(at, Some(new.clone())));
            let left = left.map_err(|(condition, owner)| SeatError::Taken { condition, owner })?;
            state.seated += 1;
            self.end_complaints(&mut state, at);
            for uuid in &moved {
                judged.remove(uuid);
            }
            let old = left.get(at).cloned();
            let new = Some(new);
            let turn = Arc::new(Turn {
                at,
                old,
                new,
                judged,
            });
            let uuids = uuids(&state);
            state.turning.begin(turn.clone(), &uuids);
            (left, turn, uuids, moved)
        };
        self.take_turn(&uuids);
        if !as_judged.is_empty() {
            let (count, gpus) = (as_judged.len(), as_judged.iter().take(GPUS_NAMED_MAX));
            let first: Vec<_> = gpus.collect();
            tracing::warn!(%policy, count, ?first, "GPUs are left as they were judged: signals kept coming");
        }
        Ok(as_judged)
    }

    fn unseat(&self, name: &str) {
        let _turns = self.lock_turns();
        let (_left, _turn, uuids) = {
            let mut state = self.lock();
            let Some((at, old)) = state.bench.named(name) else {
                return;
            };
            let old = Some(old.clone());
            let left = self.rebench(&mut state, |bench| bench.with(at, None));
            let Ok(left) = left else {
                // There are no types but those that were reserved.
                return;
            };
            self.end_complaints(&mut state, at);
            let turn = Arc::new(Turn {
                at,
                old,
                new: None,
                judged: HashMap::new(),
            });
            let uuids = uuids(&state);
            state.turning.begin(turn.clone(), &uuids);
            (left, turn, uuids)
        };
        self.take_turn(&uuids);
    }

    fn report(&self, name: &str, why: Option<String>) {
        let may_be_asked = why.is_none();
        let _turns = self.lock_turns();
        let (_left, uuids) = {
            let mut state = self.lock();
            let bench = state.bench.with_unasked(name, why);
            if bench.unasked() == state.bench.unasked() {
                return;
            }
            let left = std::mem::replace(&mut state.bench, Arc::new(bench));
            (left, uuids(&state))
        };
        for uuid in uuids {
            let calls = {
                let mut state = self.lock_after_others();
                if self.cache.device(&uuid).is_some() {
                    self.write(&mut state, &uuid, &Write::default());
                }
                if may_be_asked {
                    self.ask_after_all(&mut state, &uuid, name)
                } else {
                    Vec::new()
                }
            };
            self.place(calls);
        }
    }
}

impl Shared {
    /// Has these GPUs follow the turn that was begun, each by itself.
    fn take_turn(&self, uuids: &[DeviceUuid]) {
        for uuid in uuids {
            let calls = {
                let mut state = self.lock_after_others();
                self.follow(&mut state, uuid)
            };
            self.place(calls);
        }
        self.log_decided(&mut self.lock());
    }

    /// A policy may be asked again: of what it failed on, or was not asked, meanwhile.
    fn ask_after_all(&self, state: &mut State, uuid: &DeviceUuid, name: &str) -> Vec<Call> {
        let Some((policy, _)) = state.bench.named(name) else {
            return Vec::new();
        };
        if let Some(slot) = self.lane(state, uuid).slots.get_mut(policy) {
            slot.failures = 0;
        }
        let (uuid, key) = (uuid.clone(), uuid.clone());
        state.timers.cancel(&Key::Retry { uuid: key, policy });
        self.retry(state, &uuid, policy)
    }

    /// What was seen of one device; `None`: one that was forgotten is nobody's to judge.
    fn journal(&self, uuid: &DeviceUuid) -> Option<DeviceJournal> {
        let mut state = self.lock_after_others();
        let device = self.cache.device(uuid)?;
        let conditions = self.cache.conditions(uuid);
        let journal = &mut self.lane(&mut state, uuid).journal;
        Some(journal.show(device, conditions, self.clock.boot()))
    }

    /// The devices of which something came that the new version is to judge, since it judged what was
    /// shown of them. Where the state is handed on that is incidents.
    fn moved(
        &self,
        state: &mut State,
        seating: &Seating,
        judged: &HashMap<DeviceUuid, Arc<Rejudgement>>,
    ) -> Vec<DeviceUuid> {
        if judged.is_empty() {
            return Vec::new();
        }
        let info = seating.policy.info();
        let old = state.bench.named(&info.id.name);
        let keeps_state = old.is_some_and(|(_, old)| old.info().state_schema == info.state_schema);
        let counts =
            |signal: &Signal| info.wants(signal) && (!keeps_state || is_incident(signal.kind));
        let uuids = uuids(state);
        let has_moved = |uuid: &DeviceUuid| {
            let shown = judged.get(uuid).map(|judged| judged.revision);
            let journal = &self.lane(state, uuid).journal;
            journal.has_moved(shown.unwrap_or_default(), counts)
                && self.cache.device(uuid).is_some()
        };
        uuids.into_iter().filter(has_moved).collect()
    }

    /// Replaces the bench, has the types of those on it reserved, and returns what was; or whose one of
    /// them is, and nothing has changed.
    fn rebench(
        &self,
        state: &mut State,
        change: impl FnOnce(&Bench) -> Bench,
    ) -> Result<Arc<Bench>, (String, Owner)> {
        let bench = Arc::new(change(&state.bench));
        self.cache.reserve(bench.types())?;
        Ok(std::mem::replace(&mut state.bench, bench))
    }
}

/// The seat that a policy may take.
fn seat_for(state: &State, seating: &Seating) -> Result<usize, SeatError> {
    let name = &seating.policy.info().id.name;
    let seat = state.bench.named(name).map(|(at, _)| at);
    seat.or_else(|| state.bench.free()).ok_or(SeatError::Full {
        max: limits::POLICIES_MAX,
    })
}

/// In order, so that what happens to many GPUs happens the same way each time.
fn uuids(state: &State) -> Vec<DeviceUuid> {
    let mut uuids: Vec<DeviceUuid> = state.lanes.keys().cloned().collect();
    uuids.sort();
    uuids
}
