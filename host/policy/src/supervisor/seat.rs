//! How a version comes to its seat: loaded, admitted or held, seated (design H6, H9).

use std::sync::Arc;

use device_api_core::ids::DeviceUuid;
use device_api_core::policy_status::{Mode, ReloadChange, ReloadOutcome, Version};
use device_api_core::ports::Policy;
use device_api_core::seating::{DeviceJournal, SeatError, Seating};

use super::admit::{Examiner, Trial, some_of};
use super::reload::outcome;
use super::set::{Key, Wanted};
use super::slot::Active;
use super::worker::{Message, Worker};
use crate::error::{PolicyError, command};
use crate::judge::View;
use crate::ledger::{HeldBack, Kept};
use crate::loaded::{Duty, LoadedPolicy};
use crate::shadow::Shadow;
use crate::source::Bytes;

/// Times that journals are judged again because signals came meanwhile; the last time it takes its seat
/// all the same, and leaves those devices as they were judged.
const SEAT_TRIES: u32 = 4;

/// A version that was tried, on its way to the seat.
pub(super) struct Candidate {
    pub(super) policy: Arc<LoadedPolicy>,
    pub(super) key: Key,
    pub(super) trial: Trial,
    pub(super) is_stand_in: bool,
}

impl Worker {
    /// Loads what the site wants, and puts it in the place of what judges.
    pub(crate) fn replace(
        &mut self,
        name: &Arc<str>,
        wanted: &Wanted,
        candidate: Option<Result<Arc<LoadedPolicy>, PolicyError>>,
    ) -> Result<ReloadOutcome, PolicyError> {
        let (policy, trial) = self.tried(name, wanted, candidate)?;
        let digest = Arc::clone(&wanted.key.digest);
        let slot = self.slots.entry(Arc::clone(name)).or_default();
        let before = slot.active.as_ref().filter(|active| !active.is_out);
        let diff = trial.diff(before.map(|active| &active.catalogue));
        for line in &diff {
            tracing::info!(policy = %policy.info().id, "verdict diff: {line}");
        }
        slot.diff = diff;
        slot.mode = wanted.mode;
        slot.wanted = Some(wanted.clone());
        if self.is_braked(name, wanted)
            && let Some(why) = self.why_held(name, wanted, &trial)
        {
            return Ok(self.hold(name, wanted, policy, why));
        }
        let candidate = Candidate {
            policy,
            key: wanted.key.clone(),
            trial,
            is_stand_in: false,
        };
        let left = self.take_seat(name, wanted, candidate)?;
        Ok(outcome(
            name,
            ReloadChange::Swapped,
            Some(&digest),
            left_as_judged(&left),
        ))
    }

    /// Whether it may be held: it judges, and nobody let it in before.
    pub(super) fn is_braked(&self, name: &str, wanted: &Wanted) -> bool {
        let ledger = &self.books.ledger;
        wanted.mode == Mode::Enforce
            && !ledger.is_accepted(name, &wanted.key.digest, &wanted.key.setting())
            && !self.returning.is(name, &wanted.key)
    }

    pub(super) fn refuse_quarantined(
        &self,
        name: &str,
        wanted: &Wanted,
    ) -> Result<(), PolicyError> {
        let digest = &wanted.key.digest;
        let ledger = &self.books.ledger;
        let Some(entry) = ledger.quarantine_of(digest, &wanted.key.setting()) else {
            return Ok(());
        };
        Err(PolicyError::Quarantined {
            origin: wanted.source.origin.clone(),
            why: entry.why.clone(),
            release: command("release", name, digest),
        })
    }

    /// Loaded, of the right name, with types of its own, and without a failure on what it was asked.
    pub(super) fn tried(
        &mut self,
        name: &Arc<str>,
        wanted: &Wanted,
        candidate: Option<Result<Arc<LoadedPolicy>, PolicyError>>,
    ) -> Result<(Arc<LoadedPolicy>, Trial), PolicyError> {
        let origin = || wanted.source.origin.clone();
        // One that crashed before it said its name.
        let ledger = &mut self.books.ledger;
        ledger.name_quarantined(&wanted.key.digest, name);
        self.refuse_quarantined(name, wanted)?;
        let policy = match candidate {
            Some(loaded) => loaded?,
            None => self.load(name, wanted)?,
        };
        let found = &policy.info().id.name;
        // A shadow goes by the site's name: it may be another version of what judges.
        if wanted.mode != Mode::Shadow {
            if found != name {
                return Err(PolicyError::OtherName {
                    origin: origin(),
                    found: found.to_string(),
                    listed: name.to_string(),
                });
            }
            self.refuse_taken_types(name, &policy)?;
        }
        let journals = self.seats.journals();
        let trial = self.examiner(&policy).examine(&journals)?;
        Ok((policy, trial))
    }

    pub(super) fn examiner<'a>(&'a self, policy: &'a LoadedPolicy) -> Examiner<'a> {
        Examiner {
            policy,
            clock: &*self.clock,
            drills_count: self.config.drills_count,
        }
    }

    /// Into the seat, or beside it; says which devices are left as they were judged.
    pub(super) fn take_seat(
        &mut self,
        name: &Arc<str>,
        wanted: &Wanted,
        candidate: Candidate,
    ) -> Result<Vec<DeviceUuid>, PolicyError> {
        let Candidate {
            policy,
            key,
            trial,
            is_stand_in,
        } = candidate;
        let Trial {
            catalogue,
            rejudged,
            views,
            unjudged,
            ..
        } = trial;
        // Who is paused says nothing of what was, either.
        let paused = self.paused(name).filter(|_| wanted.mode != Mode::Shadow);
        let mut left = Vec::new();
        let shadow = if wanted.mode == Mode::Shadow {
            Some(self.look_on(name, wanted, &policy, views)?)
        } else {
            if let Some(why) = &paused {
                policy.close(why);
            }
            let seating = Seating {
                policy: Arc::clone(&policy) as Arc<dyn Policy>,
                rejudged: if paused.is_some() {
                    Vec::new()
                } else {
                    rejudged
                },
                insist: paused.is_some() || !unjudged.is_empty(),
            };
            left = self.seat(&policy, seating)?;
            if paused.is_some() {
                left.clear();
            } else {
                left.extend(unjudged);
                left.sort();
                left.dedup();
            }
            None
        };
        let serial = self.go_on_duty(&policy);
        let active = Active {
            serial,
            version: Version {
                id: policy.info().id.clone(),
                origin: policy.origin().into(),
                since: self.clock.wall(),
            },
            since: self.clock.boot(),
            policy,
            key,
            catalogue,
            is_stand_in,
            is_out: false,
            is_proved: false,
            is_forgiven: false,
            is_shadow: shadow.is_some(),
            is_unexamined: paused.is_some(),
            shadow,
        };
        self.succeed(name, wanted, active);
        Ok(left)
    }

    fn look_on(
        &self,
        name: &Arc<str>,
        wanted: &Wanted,
        policy: &Arc<LoadedPolicy>,
        views: Vec<(DeviceUuid, View)>,
    ) -> Result<Arc<Shadow>, PolicyError> {
        let seated = Shadow::seat(
            name,
            Arc::clone(policy),
            views,
            &self.config.shadows,
            Arc::clone(&self.clock),
        );
        let shadow = seated.map_err(|source| PolicyError::Thread {
            origin: wanted.source.origin.clone(),
            source,
        })?;
        Ok(Arc::new(shadow))
    }

    /// Until nothing came meanwhile, or the last try.
    fn seat(
        &self,
        policy: &Arc<LoadedPolicy>,
        mut seating: Seating,
    ) -> Result<Vec<DeviceUuid>, PolicyError> {
        let mut unjudged = Vec::new();
        for attempt in 1..=SEAT_TRIES {
            seating.insist |= attempt == SEAT_TRIES;
            let moved = match self.seats.seat(seating.clone()) {
                Ok(mut left) => {
                    left.append(&mut unjudged);
                    return Ok(left);
                }
                Err(SeatError::Moved(moved)) => moved,
                Err(error @ (SeatError::Taken { .. } | SeatError::Full { .. })) => {
                    return Err(no_seat(policy, &error));
                }
            };
            let is_meant = |journal: &DeviceJournal| moved.contains(&journal.device.uuid);
            let journals: Vec<_> = self.seats.journals().into_iter().filter(is_meant).collect();
            let again = self.examiner(policy).rejudge(&journals)?;
            seating.insist |= !again.unjudged.is_empty();
            unjudged.extend(again.unjudged);
            seating.rejudged.retain(|old| !moved.contains(&old.device));
            seating.rejudged.extend(again.rejudged);
        }
        let last = SeatError::Moved(Vec::new());
        Err(no_seat(policy, &last))
    }

    /// Bytes are needed while a version is loaded, and kept by the books.
    pub(crate) fn let_go_of_bytes(&mut self) {
        for wanted in self
            .slots
            .values_mut()
            .filter_map(|slot| slot.wanted.as_mut())
        {
            wanted.source.bytes = Bytes::Embedded(&[]);
        }
    }

    fn go_on_duty(&mut self, policy: &LoadedPolicy) -> u64 {
        self.next_serial += 1;
        let serial = self.next_serial;
        let inbox = self.inbox.clone();
        policy.go_on_duty(Duty {
            clock: Arc::clone(&self.clock),
            patience: self.config.patience,
            turned: Box::new(move |turn, why| {
                let why = why.to_owned();
                // Where nobody listens the daemon goes down.
                let _ = inbox.send(Message::Turned { serial, turn, why });
            }),
        });
        serial
    }

    /// The books follow: who was replaced, what is kept.
    fn succeed(&mut self, name: &Arc<str>, wanted: &Wanted, active: Active) {
        let remembered = self.books.ledger.policies.get(&**name);
        let before = remembered.and_then(|entry| entry.seated.clone());
        let is_paused_by_hand = remembered.is_some_and(|entry| entry.paused.is_some());
        let slot = self.slots.entry(Arc::clone(name)).or_default();
        slot.is_paused_by_hand = is_paused_by_hand;
        slot.wants_stand_in = false;
        let is_seated = !active.is_shadow;
        let is_stand_in = active.is_stand_in;
        let kept = Kept::of(&active, slot.mode).after(before.as_ref());
        let bytes = wanted.source.bytes.clone();
        if !is_stand_in {
            slot.held = None;
            slot.refused = None;
            slot.compiling = None;
        }
        let old = slot.retire();
        slot.past.swaps += u64::from(old.is_some());
        slot.active = Some(active);
        let old_was_seated = old.as_ref().is_some_and(|old| !old.is_shadow);
        if old_was_seated && !is_seated {
            self.seats.unseat(name);
        }
        if !is_seated {
            // What judged before it looked on is not to judge again by itself.
            self.books.ledger.of(name).seated = None;
        }
        if !is_seated && std::mem::take(&mut slot.is_reported) {
            // Nobody waits for a shadow.
            self.seats.report(name, None);
        }
        if !is_stand_in {
            self.returning.forget(name);
        }
        if is_seated && !is_stand_in {
            self.books.keep(&kept.digest, &bytes);
            self.books
                .ledger
                .forget_other_accepts(name, &kept.digest, &wanted.key.setting());
            let ledger = &mut self.books.ledger;
            // Unproved, but without a fault, and better than nothing to go back to. Of the run before nothing
            // worse is known than what quarantined it.
            let is_fit = match &old {
                Some(old) => {
                    !old.is_stand_in && !old.is_out && old.policy.desk().last_turn().is_none()
                }
                None => true,
            };
            let before = before.filter(|before| {
                let is_other = before.digest != kept.digest;
                is_fit && is_other && !before.unexamined && !ledger.is_blamed(&before.digest)
            });
            let remembered = ledger.of(name);
            if remembered.last_good.is_none() {
                remembered.last_good = before;
            }
            remembered.seated = Some(kept);
            if wanted.mode == Mode::Enforce {
                // Another one that is held is still to be compared with this.
                let is_it =
                    |held: &mut HeldBack| held.is(&wanted.key.digest, &wanted.key.setting());
                remembered.held.take_if(is_it);
            }
        }
        self.books.save();
        self.pause_or_resume(name);
        // Its thread ends with it; what waits for it is answered.
        drop(old);
    }
}

/// What is to be said of devices whose open incidents the new version did not judge; nothing of none.
pub(super) fn left_as_judged(left: &[DeviceUuid]) -> String {
    if left.is_empty() {
        return String::new();
    }
    let gpus = some_of(left);
    format!(
        "open incidents of these GPUs are left as they were judged, since signals kept coming or time ran out: {gpus}"
    )
}

fn no_seat(policy: &LoadedPolicy, error: &SeatError) -> PolicyError {
    PolicyError::Seat {
        origin: policy.origin().to_owned(),
        why: error.to_string(),
    }
}
