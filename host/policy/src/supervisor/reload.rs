//! From the set that is wanted to the set that judges, one policy at a time (design H6).

use std::collections::BTreeMap;
use std::sync::Arc;

use device_api_core::policy_status::{Mode, ReloadChange, ReloadOutcome, ReloadReport};
use device_api_core::ports::Policy;

use super::set::{self, Set, Unusable, Wanted, stem};
use super::slot::{Refused, Slot, set_aside};
use super::worker::Worker;
use crate::directory::look;
use crate::error::PolicyError;
use crate::loaded::LoadedPolicy;

/// Times that a set is read which changes meanwhile; then the next look tries again.
const READ_TRIES: u32 = 3;

/// A name in the set, and who is to have it.
pub(crate) struct Claim {
    /// For messages.
    pub(crate) origin: String,
    /// `None`: there is a file, and it can't be read.
    pub(crate) wanted: Option<Wanted>,
    /// Loaded already, since nothing else tells its name; or why it can't be.
    pub(crate) candidate: Option<Result<Arc<LoadedPolicy>, PolicyError>>,
    /// The bundled one whose place it takes.
    pub(crate) instead: Option<Wanted>,
}

impl Worker {
    /// Looks at the directory. `forced`: what was refused is tried again although it is the same.
    pub(crate) fn reload(&mut self, forced: bool) -> ReloadReport {
        match self.read() {
            Ok(set) => {
                self.refused = None;
                ReloadReport {
                    outcomes: self.apply(set, forced),
                    refused: None,
                }
            }
            Err(why) => {
                self.refused = Some(why.clone());
                if self.slots.is_empty() {
                    self.begin_without_a_set();
                }
                ReloadReport {
                    outcomes: Vec::new(),
                    refused: Some(why),
                }
            }
        }
    }

    /// As a whole, and not half before a swap and half after.
    fn read(&mut self) -> Result<Set, String> {
        let wanted = |slot: &Slot| {
            slot.wanted
                .as_ref()
                .is_some_and(|wanted| !wanted.is_bundled)
        };
        let has_files = self.slots.values().any(wanted);
        for _ in 0..READ_TRIES {
            let looks = || {
                look(
                    self.config.directory.as_deref(),
                    self.config.policies_file.as_deref(),
                )
            };
            let before = looks();
            let set = set::read(&self.config, has_files);
            let after = looks();
            if before == after {
                // What was written a moment ago may be written again within the same tick of the clock.
                self.looked = (!after.is_fresh(self.clock.wall())).then_some(after);
                return set;
            }
        }
        self.looked = None;
        Err(
            "the policy directory changes while it is read: the running set stays, and it is read again"
                .to_owned(),
        )
    }

    fn apply(&mut self, set: Set, forced: bool) -> Vec<ReloadOutcome> {
        let mut outcomes = Vec::new();
        let mut claims = self.claims(set, &mut outcomes);
        let names: Vec<Arc<str>> = self.slots.keys().cloned().collect();
        for name in names
            .iter()
            .filter(|name| !claims.iter().any(|(other, _)| other == *name))
        {
            outcomes.extend(self.remove(name));
        }
        // Those that take a seat first, so that what they give up is free for the others.
        claims.sort_by_key(|(name, _)| !self.slots.contains_key(name));
        let mut moved = false;
        let mut again = Vec::new();
        for (name, claim) in claims {
            let retry = Claim {
                origin: claim.origin.clone(),
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
        self.names.retain(|digest, _| {
            let of = |slot: &Slot| {
                slot.wanted
                    .as_ref()
                    .is_some_and(|wanted| wanted.key.digest == *digest)
            };
            self.slots.values().any(of)
        });
        self.let_go_of_bytes();
        self.books.save();
        outcomes
    }

    /// Who is to have which name.
    fn claims(&mut self, set: Set, outcomes: &mut Vec<ReloadOutcome>) -> Vec<(Arc<str>, Claim)> {
        let mut claims: Vec<(Arc<str>, Claim)> = Vec::new();
        let unusable = set
            .unusable
            .into_iter()
            .map(|unusable| self.claim_of_unusable(unusable));
        let unusable: Vec<_> = unusable.collect();
        let mut twins = Vec::new();
        let mut taken: BTreeMap<Arc<str>, usize> = BTreeMap::new();
        let wanted: Vec<_> = set
            .wanted
            .into_iter()
            .map(|wanted| self.claim(wanted))
            .collect();
        for (name, claim) in wanted.into_iter().chain(unusable) {
            let other = taken.get(&name).and_then(|at| claims.get_mut(*at));
            let Some((_, other)) = other else {
                taken.insert(Arc::clone(&name), claims.len());
                claims.push((name, claim));
                continue;
            };
            let is_bundled = |claim: &Claim| {
                claim
                    .wanted
                    .as_ref()
                    .is_some_and(|wanted| wanted.is_bundled)
            };
            if is_bundled(other) && !is_bundled(&claim) {
                let bundled = std::mem::replace(other, claim);
                other.instead = bundled.wanted;
            } else {
                let error = PolicyError::DuplicateName {
                    origin: claim.origin.clone(),
                    name: name.to_string(),
                    other: other.origin.clone(),
                };
                twins.push((claim.origin, error));
            }
        }
        // They are shown by the names of their files, where those are free.
        for (origin, error) in twins {
            let name: Arc<str> = stem(&origin).into();
            if claims.iter().any(|(other, _)| *other == name) {
                tracing::error!("{error}");
                outcomes.push(outcome(
                    &name,
                    ReloadChange::Refused,
                    None,
                    error.to_string(),
                ));
                continue;
            }
            let claim = Claim {
                origin,
                wanted: None,
                candidate: Some(Err(error)),
                instead: None,
            };
            claims.push((name, claim));
        }
        claims
    }

    fn claim(&mut self, wanted: Wanted) -> (Arc<str>, Claim) {
        let origin = wanted.source.origin.clone();
        let known = wanted
            .name
            .clone()
            .or_else(|| self.names.get(&wanted.key.digest).cloned());
        let (name, candidate) = match known {
            Some(name) => (name, None),
            None => self.introduced(&wanted),
        };
        let claim = Claim {
            origin,
            wanted: Some(wanted),
            candidate,
            instead: None,
        };
        (name, claim)
    }

    /// Loads a component of which nothing is known but its file, to hear its name.
    fn introduced(
        &mut self,
        wanted: &Wanted,
    ) -> (Arc<str>, Option<Result<Arc<LoadedPolicy>, PolicyError>>) {
        let file = &wanted.source.origin;
        let digest = &wanted.key.digest;
        if let Some(entry) = self.books.ledger.quarantine_of(digest) {
            let name = match entry.name.as_str() {
                "" => self.name_of_file(file),
                name => name.into(),
            };
            return (name, None);
        }
        match self.host.load(&wanted.source) {
            Ok(policy) => {
                let name = Arc::clone(&policy.info().id.name);
                self.names.insert(Arc::clone(digest), Arc::clone(&name));
                (name, Some(Ok(policy)))
            }
            Err(error) => (self.name_of_file(file), Some(Err(error))),
        }
    }

    fn claim_of_unusable(&self, unusable: Unusable) -> (Arc<str>, Claim) {
        let name = match &unusable.error {
            // The site does not want it, whatever ran from it before.
            PolicyError::Unlisted { .. } => stem(&unusable.file).into(),
            _ => self.name_of_file(&unusable.file),
        };
        let claim = Claim {
            origin: unusable.file,
            wanted: None,
            candidate: Some(Err(unusable.error)),
            instead: None,
        };
        (name, claim)
    }

    /// Whose file it was when it could be read last; else the file's own name.
    fn name_of_file(&self, file: &str) -> Arc<str> {
        let of_slot = |(_, slot): &(&Arc<str>, &Slot)| {
            let active = slot.active.as_ref();
            active.is_some_and(|active| active.policy.origin() == file)
        };
        let running = self.slots.iter().find(of_slot);
        let remembered = || {
            let policies = &self.books.ledger.policies;
            policies.iter().find_map(|(name, entry)| {
                let mut kept = entry.seated.iter().chain(&entry.last_good);
                kept.any(|kept| kept.origin == file)
                    .then(|| name.as_str().into())
            })
        };
        running
            .map(|(name, _)| Arc::clone(name))
            .or_else(remembered)
            .unwrap_or_else(|| stem(file).into())
    }

    /// Nothing in the set has that name any more.
    fn remove(&mut self, name: &Arc<str>) -> Option<ReloadOutcome> {
        let mut slot = self.slots.remove(name)?;
        let active = slot.retire();
        if active.as_ref().is_some_and(|active| !active.is_shadow) {
            self.seats.unseat(name);
        }
        if let Some(remembered) = self.books.ledger.policies.get_mut(&**name) {
            remembered.seated = None;
        }
        let digest = active.as_ref().map(|active| &active.key.digest);
        Some(outcome(name, ReloadChange::Removed, digest, String::new()))
    }

    /// Gives a name to whom the site wants to have it, if it can be done. Says too whether a condition type
    /// of it was another's, who may be about to give it up.
    fn settle(&mut self, name: &Arc<str>, claim: Claim, forced: bool) -> (ReloadOutcome, bool) {
        let Claim {
            origin,
            wanted,
            candidate,
            instead,
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
            let mode = std::mem::replace(&mut slot.mode, wanted.mode);
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

    /// What the site wants can't be had: what runs stays, or the next best takes the seat.
    pub(crate) fn refuse(
        &mut self,
        name: &Arc<str>,
        wanted: Option<Wanted>,
        origin: &str,
        error: &PolicyError,
        instead: Option<Wanted>,
    ) -> ReloadOutcome {
        let why = error.chain();
        tracing::error!("{why}");
        let now = self.clock.wall();
        let key = wanted.as_ref().map(|wanted| wanted.key.clone());
        let digest = key
            .as_ref()
            .map_or_else(|| Arc::from(""), |key| Arc::clone(&key.digest));
        let slot = self.slots.entry(Arc::clone(name)).or_default();
        slot.held = None;
        slot.refused = Some(Refused {
            aside: set_aside(&digest, None, origin, now, why.clone()),
            key,
        });
        slot.mode = wanted.as_ref().map_or(slot.mode, |wanted| wanted.mode);
        if wanted.is_some() {
            slot.wanted = wanted;
        }
        let judges = slot.active.as_ref().is_some_and(|active| !active.is_out);
        // What the site does not want at all has no stand-in either.
        let is_wanted = !matches!(
            error,
            PolicyError::Unlisted { .. }
                | PolicyError::TooMany { .. }
                | PolicyError::DuplicateName { .. }
        );
        if !judges && is_wanted && slot.mode != Mode::Shadow {
            self.stand_in(name, instead);
        }
        outcome(name, ReloadChange::Refused, Some(&digest), why)
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
    {
        active.is_stand_in = false;
        slot.refused = None;
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
    let judges = slot.active.as_ref().is_some_and(|active| !active.is_out);
    judges.then(|| outcome(name, ReloadChange::Refused, Some(&key.digest), why))
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
