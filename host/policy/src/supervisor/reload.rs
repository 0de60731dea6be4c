//! From the set that is wanted to the set that judges, one policy at a time (design H6).

use std::collections::BTreeSet;
use std::sync::Arc;

use device_api_core::policy_status::{Mode, ReloadChange, ReloadOutcome, ReloadReport};

use super::claims::{Claim, is_wanted};
use super::set::{Set, Wanted};
use super::slot::{Active, Refused, Slot, set_aside};
use super::worker::Worker;
use crate::error::PolicyError;
use crate::ledger::Kept;

impl Worker {
    /// Looks at the directory. `forced`: what was refused is tried again although it is the same.
    pub(crate) fn reload(&mut self, forced: bool) -> ReloadReport {
        if forced {
            self.unloadable.clear();
        }
        match self.read() {
            Ok(set) => {
                self.refused = None;
                self.has_had_a_set = true;
                ReloadReport {
                    outcomes: self.apply_and_remember(set, forced),
                    refused: None,
                }
            }
            Err(why) => {
                self.sets_refused += u64::from(self.refused.as_ref() != Some(&why));
                self.refused = Some(why.clone());
                let outcomes = if self.has_had_a_set {
                    self.go_on_without_a_set()
                } else {
                    self.begin_without_a_set();
                    Vec::new()
                };
                ReloadReport {
                    outcomes,
                    refused: Some(why),
                }
            }
        }
    }

    pub(super) fn apply(&mut self, set: Set, forced: bool) -> Vec<ReloadOutcome> {
        let mut outcomes = Vec::new();
        let wanted = set.wanted.iter();
        let digests: BTreeSet<_> = wanted.map(|it| Arc::clone(&it.key.digest)).collect();
        let unfit = self.refused_digests();
        let mut claims = self.claims(set, &mut outcomes);
        let is_left_out = |(_, claim): &(Arc<str>, Claim)| {
            let error = claim.candidate.as_ref().and_then(|it| it.as_ref().err());
            error.is_some_and(|error| matches!(error.root(), PolicyError::TooMany { .. }))
        };
        let is_crowded = claims.iter().any(is_left_out);
        self.remove_unclaimed(&mut claims, &mut outcomes);
        // Those that take a seat first, so that what they give up is free for the others.
        claims.sort_by_key(|(name, _)| !self.has_a_seat(name));
        let mut moved = false;
        let mut again = Vec::new();
        for (name, claim) in claims {
            // An admission takes its time, and a quarantine or a pause has none.
            if self.serve_urgent() {
                break;
            }
            let retry = Claim {
                origin: claim.origin.clone(),
                is_listed: claim.is_listed,
                wanted: claim.wanted.clone(),
                candidate: None,
                instead: claim.instead.clone(),
            };
            let (outcome, is_taken) = self.settle(&name, claim, forced);
            moved |= outcome.change == ReloadChange::Swapped;
            if is_taken {
                again.push((name, retry));
            } else {
                outcomes.push(outcome);
            }
        }
        for (name, claim) in again {
            outcomes.push(self.settle(&name, claim, moved || forced).0);
        }
        if is_crowded && !self.refused_digests().is_subset(&unfit) {
            // Whose place that was, another may have.
            self.looked = None;
        }
        self.forget_components(&digests);
        self.forget_what_was_held();
        self.let_go_of_bytes();
        self.books.save();
        outcomes
    }

    /// Names that nothing in the set has any more.
    fn remove_unclaimed(
        &mut self,
        claims: &mut [(Arc<str>, Claim)],
        outcomes: &mut Vec<ReloadOutcome>,
    ) {
        let is_claimed = |name: &str, claims: &[(Arc<str>, Claim)]| {
            let mut claims = claims.iter();
            claims.any(|(other, _)| **other == *name)
        };
        let gone = self.gone(claims);
        if !gone.is_empty() {
            self.load_ahead(claims);
        }
        for name in gone {
            // Whether an heir can be had is found out as long as an admission takes.
            if self.serve_urgent() {
                return;
            }
            if let Some(heir) = self.refused_heir(&name, claims) {
                outcomes.push(self.go_on_for(&name, &heir));
                continue;
            }
            if !self.slots.contains_key(&name) {
                continue;
            }
            let is_renamed = self.has_its_own_name_now(&name, claims);
            let active = self.vacate(&name);
            self.slots.remove(&name);
            if is_renamed {
                continue;
            }
            let digest = active.as_ref().map(|active| &active.key.digest);
            let removed = outcome(&name, ReloadChange::Removed, digest, String::new());
            outcomes.push(removed);
        }
        // What went while no daemon ran.
        for (name, entry) in &mut self.books.ledger.policies {
            if !is_claimed(name, claims) && !self.slots.contains_key(&**name) {
                entry.seated = None;
                entry.held = None;
                self.returning.forget(name);
            }
        }
    }

    /// In this run or the one before, and the site may want it to.
    fn has_a_seat(&self, name: &str) -> bool {
        let active = self.slots.get(name).and_then(|slot| slot.active.as_ref());
        let remembered = self.books.ledger.policies.get(name);
        active.is_some_and(|active| !active.is_shadow)
            || remembered.is_some_and(|entry| entry.seated.is_some())
    }

    /// The site wants nobody in that seat.
    fn vacate(&mut self, name: &Arc<str>) -> Option<Active> {
        let slot = self.slots.get_mut(name)?;
        let active = slot.retire();
        let was_reported = std::mem::take(&mut slot.is_reported);
        if active.as_ref().is_some_and(|active| !active.is_shadow) {
            self.seats.unseat(name);
        }
        if was_reported {
            self.seats.report(name, None);
        }
        if let Some(remembered) = self.books.ledger.policies.get_mut(&**name) {
            remembered.seated = None;
            remembered.held = None;
        }
        self.returning.forget(name);
        active
    }

    /// Gives a name to whom the site wants to have it, if it can be done. Says too whether a condition type
    /// of it was another's, who may be about to give it up.
    fn settle(&mut self, name: &Arc<str>, claim: Claim, forced: bool) -> (ReloadOutcome, bool) {
        let Claim {
            origin,
            wanted,
            candidate,
            instead,
            ..
        } = claim;
        let Some(wanted) = wanted else {
            let error = match candidate {
                Some(Err(error)) => error,
                Some(Ok(_)) | None => PolicyError::Seat {
                    origin: origin.clone(),
                    why: "it can't be read".to_owned(),
                },
            };
            return (self.refuse(name, None, &origin, &error, instead), false);
        };
        let slot = self.slots.entry(Arc::clone(name)).or_default();
        if let Some(same) = unchanged(name, slot, &wanted, forced) {
            let is_held = same.change == ReloadChange::Held;
            if is_held && wanted.mode != Mode::Shadow && !slot.judges() {
                // Who is to stand in may have been compiled since.
                slot.compiling = None;
                self.stand_in_or_report(name, instead, &same.detail);
            }
            let slot = self.slots.entry(Arc::clone(name)).or_default();
            let mode = std::mem::replace(&mut slot.mode, wanted.mode);
            if same.change == ReloadChange::Unchanged {
                self.remember(name, &wanted);
            }
            let slot = self.slots.entry(Arc::clone(name)).or_default();
            slot.wanted = Some(wanted);
            if mode != slot.mode {
                self.pause_or_resume(name);
            }
            return (same, false);
        }
        let tried = self.replace(name, &wanted, candidate);
        match tried {
            Ok(outcome) => (outcome, false),
            Err(error) => {
                let is_taken = matches!(
                    error,
                    PolicyError::DuplicateType { .. } | PolicyError::Seat { .. }
                );
                (
                    self.refuse(name, Some(wanted), &origin, &error, instead),
                    is_taken,
                )
            }
        }
    }

    /// What the site wants can't be had, or not yet: what runs stays, or the next best takes the seat. Whoever
    /// asked says so in the log.
    pub(crate) fn refuse(
        &mut self,
        name: &Arc<str>,
        wanted: Option<Wanted>,
        origin: &str,
        error: &PolicyError,
        instead: Option<Wanted>,
    ) -> ReloadOutcome {
        let why = error.chain();
        let now = self.clock.wall();
        let key = wanted.as_ref().map(|wanted| wanted.key.clone());
        let digest = key
            .as_ref()
            .map_or_else(|| Arc::from(""), |key| Arc::clone(&key.digest));
        let is_compiling = matches!(error, PolicyError::Compiling { .. });
        let slot = self.slots.entry(Arc::clone(name)).or_default();
        slot.held = None;
        slot.refused = None;
        slot.compiling = is_compiling.then(|| why.clone());
        if !is_compiling {
            slot.refused = Some(Refused {
                aside: set_aside(&digest, None, origin, now, why.clone()),
                // What may fare better is tried again by the next pass, and may stand in for itself.
                key: key.filter(|_| !error.is_transient()),
            });
        }
        slot.mode = wanted.as_ref().map_or(slot.mode, |wanted| wanted.mode);
        if wanted.is_some() {
            slot.wanted = wanted;
        }
        let judges = slot.judges();
        if matches!(error.root(), PolicyError::Unlisted { .. }) {
            // Not even what ran from it before.
            slot.wanted = None;
            slot.wants_stand_in = false;
            slot.mode = Mode::default();
            self.vacate(name);
        } else if !judges && is_wanted(error) && slot.mode != Mode::Shadow {
            self.stand_in_or_report(name, instead, &why);
        }
        self.pause_or_resume(name);
        let change = if is_compiling {
            ReloadChange::Compiling
        } else {
            ReloadChange::Refused
        };
        outcome(name, change, Some(&digest), why)
    }

    /// The site wants what judges: it is what is kept, whoever was meant to judge before.
    fn remember(&mut self, name: &Arc<str>, wanted: &Wanted) {
        let active = self.slots.get(name).and_then(|slot| slot.active.as_ref());
        let Some(active) = active.filter(|active| !active.is_shadow) else {
            return;
        };
        let kept = Kept::of(active, wanted.mode);
        let entry = self.books.ledger.of(name);
        let kept = kept.after(entry.seated.as_ref());
        if entry.seated.as_ref() != Some(&kept) {
            self.books.keep(&kept.digest, &wanted.source.bytes);
            self.books.ledger.of(name).seated = Some(kept);
        }
    }
}

/// Where nothing is to be done, or nothing can be.
fn unchanged(
    name: &Arc<str>,
    slot: &mut Slot,
    wanted: &Wanted,
    forced: bool,
) -> Option<ReloadOutcome> {
    let key = &wanted.key;
    let is_shadow = |mode: Mode| mode == Mode::Shadow;
    if let Some(active) = &mut slot.active
        && active.key == *key
        && !active.is_out
        && active.is_shadow == is_shadow(wanted.mode)
        && (!active.is_unexamined || wanted.mode == Mode::Paused || slot.is_paused_by_hand)
    {
        active.is_stand_in = false;
        slot.refused = None;
        slot.compiling = None;
        slot.held = None;
        return Some(outcome(
            name,
            ReloadChange::Unchanged,
            Some(&key.digest),
            String::new(),
        ));
    }
    if let Some(held) = &slot.held
        && held.wanted.key == *key
        && held.wanted.mode == wanted.mode
    {
        let why = held.aside.why.clone();
        return Some(outcome(name, ReloadChange::Held, Some(&key.digest), why));
    }
    let is_same = |refused: &&Refused| refused.key.as_ref() == Some(key);
    let refused = slot.refused.as_ref().filter(is_same).filter(|_| !forced)?;
    let why = refused.aside.why.clone();
    slot.judges()
        .then(|| outcome(name, ReloadChange::Refused, Some(&key.digest), why))
}

pub(crate) fn outcome(
    name: &Arc<str>,
    change: ReloadChange,
    digest: Option<&Arc<str>>,
    detail: String,
) -> ReloadOutcome {
    ReloadOutcome {
        name: Arc::clone(name),
        change,
        digest: digest.cloned().unwrap_or_else(|| "".into()),
        detail,
    }
}
