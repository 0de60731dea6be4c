//! The pipeline as whoever loads policies sees it (design H6, H9).

use std::sync::Arc;

use device_api_core::condition::Owner;
use device_api_core::ids::DeviceUuid;
use device_api_core::limits;
use device_api_core::ports::Seats;
use device_api_core::seating::{DeviceJournal, Rejudgement, SeatError, Seating};

use crate::pipeline::{Shared, State};
use crate::seats::{Bench, Seat};
use crate::swap::Swap;
use crate::write::Write;

impl Seats for Shared {
    fn journals(&self) -> Vec<DeviceJournal> {
        let mut state = self.lock();
        let now = self.clock.boot();
        let mut journals: Vec<DeviceJournal> = Vec::new();
        for (uuid, lane) in &mut state.lanes {
            // One that was forgotten is nobody's to judge.
            let Some(device) = self.cache.device(uuid) else {
                continue;
            };
            journals.push(DeviceJournal {
                device,
                signals: lane.journal.show(now),
                complete_since: lane.journal.complete_since(),
                conditions: self.cache.conditions(uuid),
            });
        }
        journals.sort_by(|a, b| a.device.uuid.cmp(&b.device.uuid));
        journals
    }

    fn owner(&self, condition: &str) -> Option<Owner> {
        self.cache.owner(condition)
    }

    fn seat(&self, seating: Seating) -> Result<(), SeatError> {
        // What leaves the bench is dropped without the lock: a policy's last use may end its thread,
        // and an answer that it owes comes back here.
        let (calls, _left) = {
            let mut state = self.lock();
            let at = self.admit_to_seat(&mut state, &seating)?;
            state.seated += 1;
            let new = Seat {
                policy: seating.policy.clone(),
                generation: state.seated,
            };
            let left = self.rebench(&mut state, |bench| bench.with(at, Some(new.clone())));
            let mut calls = Vec::new();
            for uuid in uuids(&state) {
                let rejudged = seating.rejudged.iter().find(|judged| judged.device == uuid);
                let rejudged = rejudged.filter(|judged| !self.has_moved(&mut state, judged));
                let swap = Swap {
                    at,
                    old: left.get(at),
                    new: Some(&new),
                };
                calls.extend(self.swap(&mut state, &uuid, swap, rejudged));
            }
            self.log_decided(&mut state);
            (calls, left)
        };
        self.place(calls);
        Ok(())
    }

    fn unseat(&self, name: &str) {
        let (calls, _left) = {
            let mut state = self.lock();
            let Some((at, _)) = state.bench.named(name) else {
                return;
            };
            let left = self.rebench(&mut state, |bench| bench.with(at, None));
            let mut calls = Vec::new();
            for uuid in uuids(&state) {
                let swap = Swap {
                    at,
                    old: left.get(at),
                    new: None,
                };
                calls.extend(self.swap(&mut state, &uuid, swap, None));
            }
            self.log_decided(&mut state);
            (calls, left)
        };
        self.place(calls);
    }

    fn report(&self, name: &str, why: Option<String>) {
        let _left = {
            let mut state = self.lock();
            if state.bench.unasked().get(name) == why.as_ref() {
                return;
            }
            let left = self.rebench(&mut state, |bench| bench.with_unasked(name, why));
            for uuid in uuids(&state) {
                if self.cache.device(&uuid).is_some() {
                    self.write(&mut state, &uuid, &Write::default());
                }
            }
            left
        };
    }
}

impl Shared {
    /// The seat that a policy may take.
    fn admit_to_seat(&self, state: &mut State, seating: &Seating) -> Result<usize, SeatError> {
        let info = seating.policy.info();
        let seat = state.bench.named(&info.id.name).map(|(at, _)| at);
        let seat = seat.or_else(|| state.bench.free());
        let at = seat.ok_or(SeatError::Full {
            max: limits::POLICIES_MAX,
        })?;
        let own = Owner::Policy(info.id.clone());
        for owned in &info.owns {
            if let Some(owner) = self.cache.owner(&owned.condition)
                && !owner.same(&own)
            {
                return Err(SeatError::Taken {
                    condition: owned.condition.clone(),
                    owner,
                });
            }
        }
        if !seating.insist && !seating.rejudged.is_empty() {
            let mut moved = Vec::new();
            for uuid in uuids(state) {
                let judged = seating.rejudged.iter().find(|judged| judged.device == uuid);
                let has_moved = match judged {
                    Some(judged) => self.has_moved(state, judged),
                    None => {
                        let journal = &self.lane(state, &uuid).journal;
                        journal.has_moved(Default::default()) && self.cache.device(&uuid).is_some()
                    }
                };
                if has_moved {
                    moved.push(uuid);
                }
            }
            if !moved.is_empty() {
                return Err(SeatError::Moved(moved));
            }
        }
        Ok(at)
    }

    fn has_moved(&self, state: &mut State, judged: &Rejudgement) -> bool {
        let journal = &self.lane(state, &judged.device).journal;
        journal.has_moved(judged.through)
    }

    /// Replaces the bench, has the types of those on it reserved, and returns what was.
    fn rebench(&self, state: &mut State, change: impl FnOnce(&Bench) -> Bench) -> Arc<Bench> {
        let bench = Arc::new(change(&state.bench));
        self.cache.reserve(bench.types());
        std::mem::replace(&mut state.bench, bench)
    }
}

/// In order, so that what happens to many GPUs happens the same way each time.
fn uuids(state: &State) -> Vec<DeviceUuid> {
    let mut uuids: Vec<DeviceUuid> = state.lanes.keys().cloned().collect();
    uuids.sort();
    uuids
}
