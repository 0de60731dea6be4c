//! Who is to have which name: what is read is loaded where nothing else tells its name, and of two that
//! claim the same one the other is a twin.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use device_api_core::policy_status::{Mode, ReloadChange, ReloadOutcome};
use device_api_core::ports::Policy;

use super::heirs::is_taken_away;
use super::reload::outcome;
use super::set::{Key, Set, Unusable, Wanted, stem};
use super::worker::Worker;
use crate::error::PolicyError;
use crate::loaded::LoadedPolicy;

/// A name in the set, and who is to have it.
pub(crate) struct Claim {
    /// For messages.
    pub(crate) origin: String,
    /// By an entry of `policies.yaml`.
    pub(crate) is_listed: bool,
    /// `None`: there is a file, and it can't be read.
    pub(crate) wanted: Option<Wanted>,
    /// Loaded already; or why it can't be.
    pub(crate) candidate: Option<Result<Arc<LoadedPolicy>, PolicyError>>,
    /// The bundled one whose place it takes.
    pub(crate) instead: Option<Wanted>,
}

/// What could not be loaded, so that it is not tried again as long as nothing about it changed.
#[derive(Debug)]
pub(crate) struct Unloadable {
    origin: String,
    key: Key,
    /// Under which it is shown.
    name: Arc<str>,
    error: Arc<PolicyError>,
}

/// Of two claims on a name the greater has it; of two that are the same, the first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Standing {
    /// The site wants it, though it may not get it.
    is_wanted: bool,
    rank: Rank,
    is_what_runs: bool,
    is_loadable: bool,
    has_the_file_of_what_runs: bool,
}

/// How it comes to claim a name; the greater goes first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Bundled,
    /// A file that is not listed.
    Unlisted,
    /// An entry; but a shadow takes nobody's place.
    Shadow,
    /// A file that is not listed, and judges by that name.
    Judging,
    /// An entry, whatever it is for.
    Entry,
}

/// Whether the site wants what it is about: what it does not want has no stand-in either.
pub(super) fn is_wanted(error: &PolicyError) -> bool {
    !matches!(
        error.root(),
        PolicyError::Unlisted { .. }
            | PolicyError::TooMany { .. }
            | PolicyError::DuplicateName { .. }
            | PolicyError::EntryOfAnother { .. }
            | PolicyError::ShadowOfOwnName { .. }
            | PolicyError::WasShadow { .. }
            | PolicyError::Misnamed { .. }
    )
}

impl Worker {
    /// Who is to have which name.
    pub(super) fn claims(
        &mut self,
        set: Set,
        outcomes: &mut Vec<ReloadOutcome>,
    ) -> Vec<(Arc<str>, Claim)> {
        let all = self.claims_of_each(set);
        let mut claims: Vec<(Arc<str>, Claim)> = Vec::new();
        let mut twins = Vec::new();
        let mut taken: BTreeMap<Arc<str>, usize> = BTreeMap::new();
        for (name, mut claim) in all {
            let holder = taken.get(&name).and_then(|at| claims.get_mut(*at));
            let Some((_, holder)) = holder else {
                taken.insert(Arc::clone(&name), claims.len());
                claims.push((name, claim));
                continue;
            };
            if self.standing(&name, &claim) > self.standing(&name, holder) {
                std::mem::swap(holder, &mut claim);
                holder.instead = claim.instead.take();
            }
            if claim.wanted.as_ref().is_some_and(|it| it.is_bundled) {
                holder.instead = claim.wanted;
            } else {
                twins.push(twin(&name, holder, claim));
            }
        }
        // They are shown by the names of their files, where those are free.
        for (origin, error) in twins {
            let names = [stem(&origin).into(), Arc::<str>::from(&*origin)];
            let is_free = |name: &Arc<str>| !claims.iter().any(|(other, _)| other == name);
            let Some(name) = names.into_iter().find(is_free) else {
                outcomes.push(outcome(
                    &origin.into(),
                    ReloadChange::Refused,
                    None,
                    error.to_string(),
                ));
                continue;
            };
            let claim = Claim {
                origin,
                is_listed: false,
                wanted: None,
                candidate: Some(Err(error)),
                instead: None,
            };
            claims.push((name, claim));
        }
        claims
    }

    fn standing(&self, name: &str, claim: &Claim) -> Standing {
        let wanted = claim.wanted.as_ref();
        let remembered = self.books.ledger.policies.get(name);
        let remembered = remembered.and_then(|entry| entry.seated.as_ref());
        let active = self.slots.get(name).and_then(|slot| slot.active.as_ref());
        let runs: Option<(&str, &str)> = active
            .map(|active| (&*active.key.digest, active.policy.origin()))
            .or_else(|| remembered.map(|kept| (&*kept.digest, &*kept.origin)));
        let error = match &claim.candidate {
            Some(Err(error)) => Some(error.root()),
            Some(Ok(_)) | None => None,
        };
        let has_its_file = runs.is_some_and(|(_, origin)| origin == claim.origin);
        let is_what_runs = match wanted {
            Some(it) => runs.is_some_and(|(digest, _)| *it.key.digest == *digest),
            // What changes all the time leaves what runs in its place.
            None => has_its_file && matches!(error, Some(PolicyError::Changing { .. })),
        };
        let is_shadow = wanted.is_some_and(|it| it.mode == Mode::Shadow);
        let is_bundled = wanted.is_some_and(|it| it.is_bundled);
        let judges = active.is_none_or(|active| !active.is_shadow);
        let rank = match (claim.is_listed, is_shadow) {
            (true, false) => Rank::Entry,
            (true, true) => Rank::Shadow,
            (false, _) if is_bundled => Rank::Bundled,
            (false, _) if judges && (is_what_runs || has_its_file && error.is_none()) => {
                Rank::Judging
            }
            (false, _) => Rank::Unlisted,
        };
        Standing {
            is_wanted: error.is_none_or(is_wanted),
            rank,
            is_what_runs,
            is_loadable: error.is_none(),
            has_the_file_of_what_runs: has_its_file,
        }
    }

    pub(super) fn claim(&mut self, wanted: Wanted) -> (Arc<str>, Claim) {
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
            is_listed: wanted.is_listed,
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
        if let Some(entry) = self
            .books
            .ledger
            .quarantine_of(digest, &wanted.key.setting())
        {
            let name = match entry.name.as_str() {
                "" => self.name_of_file(file),
                name => name.into(),
            };
            return (name, None);
        }
        let name = match self.unloadable(wanted) {
            Some(before) => Arc::clone(&before.name),
            None => self.name_of_file(file),
        };
        match self.load(&name, wanted) {
            Ok(policy) => {
                let name = Arc::clone(&policy.info().id.name);
                self.names.insert(Arc::clone(digest), Arc::clone(&name));
                (name, Some(Ok(policy)))
            }
            Err(error) => (name, Some(Err(error))),
        }
    }

    fn unloadable(&self, wanted: &Wanted) -> Option<&Unloadable> {
        let (origin, key) = (&wanted.source.origin, &wanted.key);
        let mut all = self.unloadable.iter();
        all.find(|other| other.origin == *origin && other.key == *key)
    }

    /// Loads it, unless it could not be loaded before and is the same.
    pub(super) fn load(
        &mut self,
        name: &Arc<str>,
        wanted: &Wanted,
    ) -> Result<Arc<LoadedPolicy>, PolicyError> {
        if let Some(before) = self.unloadable(wanted) {
            return Err(PolicyError::Again(Arc::clone(&before.error)));
        }
        self.host.load(&wanted.source).map_err(|error| {
            if error.is_transient() {
                return error;
            }
            let error = Arc::new(error);
            self.unloadable.push(Unloadable {
                origin: wanted.source.origin.clone(),
                key: wanted.key.clone(),
                name: Arc::clone(name),
                error: Arc::clone(&error),
            });
            PolicyError::Again(error)
        })
    }

    /// What is known of components that are in the set no more is forgotten.
    pub(super) fn forget_components(&mut self, digests: &BTreeSet<Arc<str>>) {
        self.names.retain(|digest, _| digests.contains(digest));
        self.unloadable
            .retain(|other| digests.contains(&other.key.digest));
    }

    /// Before anybody loses a seat: a compile takes its time, and may come to nothing.
    pub(super) fn load_ahead(&mut self, claims: &mut [(Arc<str>, Claim)]) {
        for (name, claim) in claims {
            let slot = self.slots.get(name);
            let Some(wanted) = &claim.wanted else {
                continue;
            };
            let is_out = self
                .books
                .ledger
                .quarantine_of(&wanted.key.digest, &wanted.key.setting());
            let is_new = slot.is_none_or(|slot| slot.active.is_none());
            if is_new && is_out.is_none() && claim.candidate.is_none() {
                claim.candidate = Some(self.load(name, wanted));
            }
        }
    }

    pub(super) fn claim_of_unusable(&mut self, unusable: Unusable) -> (Arc<str>, Claim) {
        let is_listed = unusable.listed.is_some();
        let name = match unusable.listed {
            Some((name, mode)) => {
                self.slots.entry(Arc::clone(&name)).or_default().mode = mode;
                name
            }
            // The site does not want it, whatever ran from it before.
            None if is_taken_away(&unusable.error) => stem(&unusable.file).into(),
            None => self.name_of_file(&unusable.file),
        };
        let claim = Claim {
            origin: unusable.file,
            is_listed,
            wanted: None,
            candidate: Some(Err(PolicyError::Again(unusable.error))),
            instead: None,
        };
        (name, claim)
    }

    /// Whose file it was when it could be read last; else the file's own name.
    fn name_of_file(&self, file: &str) -> Arc<str> {
        let mut slots = self.slots.iter();
        let running = slots.find(|(_, slot)| {
            let active = slot.active.as_ref();
            active.is_some_and(|active| active.policy.origin() == file)
        });
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
}

/// Who did not get the name, and why.
fn twin(name: &str, holder: &Claim, loser: Claim) -> (String, PolicyError) {
    let origin = loser.origin.clone();
    let error = match loser.candidate {
        Some(Err(error)) if !is_wanted(&error) => error,
        Some(_) | None if holder.is_listed => PolicyError::EntryOfAnother {
            origin: origin.clone(),
            entry: name.to_owned(),
            holder: holder.origin.clone(),
        },
        Some(_) | None if loser.is_listed => PolicyError::ShadowOfOwnName {
            origin: origin.clone(),
            name: name.to_owned(),
            other: holder.origin.clone(),
        },
        Some(_) | None => PolicyError::DuplicateName {
            origin: origin.clone(),
            name: name.to_owned(),
            other: holder.origin.clone(),
        },
    };
    (origin, error)
}

#[cfg(test)]
mod tests;
