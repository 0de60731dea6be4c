//! Files that are not listed: how many of them are taken, and which never judge by themselves (design H6, H14).

use std::collections::BTreeSet;
use std::sync::Arc;

use device_api_core::limits::POLICIES_MAX;
use device_api_core::policy_status::Mode;

use super::claims::Claim;
use super::set::{Set, Unusable, Wanted};
use super::worker::Worker;
use crate::error::PolicyError;
use crate::ledger::Onlooker;

/// Files remembered that were shadows: as many as four sets can list.
const ONLOOKERS_MAX: usize = 4 * POLICIES_MAX;

impl Worker {
    /// One claim for each file and entry, in the set's order; of files that are not listed, what runs first.
    pub(super) fn claims_of_each(&mut self, set: Set) -> Vec<(Arc<str>, Claim)> {
        self.remember_onlookers(&set);
        let max = POLICIES_MAX + self.config.bundled.len();
        let mut all = Vec::with_capacity(set.wanted.len() + set.unusable.len());
        let is_named = |wanted: &Wanted| wanted.name.is_some();
        let (named, mut unlisted): (Vec<_>, Vec<_>) = set.wanted.into_iter().partition(is_named);
        for wanted in named {
            // To hear its name a component may have to be loaded, and to start it takes its time. A stop cuts
            // nothing short here: what has no claim would lose its seat.
            self.serve_urgent();
            all.push(self.claim(wanted));
        }
        let mut taken: BTreeSet<Arc<str>> = all.iter().map(|(name, _)| Arc::clone(name)).collect();
        let in_use = self.digests_in_use();
        unlisted.sort_by_key(|wanted| !in_use.contains(&*wanted.key.digest));
        for wanted in unlisted {
            self.serve_urgent();
            let origin = wanted.source.origin.clone();
            let known = self.names.get(&wanted.key.digest);
            let has_room = taken.len() < max || known.is_some_and(|name| taken.contains(name));
            let error = if self.was_shadow(&wanted) {
                PolicyError::WasShadow { origin }
            } else if !has_room {
                let max = POLICIES_MAX;
                PolicyError::TooMany { origin, max }
            } else {
                let (name, claim) = self.claim(wanted);
                if self.takes_a_place(&name, &claim) {
                    taken.insert(Arc::clone(&name));
                }
                all.push((name, claim));
                continue;
            };
            all.push(self.claim_of_unusable(Unusable {
                file: wanted.source.origin,
                listed: None,
                error: Arc::new(error),
            }));
        }
        for unusable in set.unusable {
            all.push(self.claim_of_unusable(unusable));
        }
        all
    }

    /// Of what judges or looks on, or did in the run before.
    fn digests_in_use(&self) -> BTreeSet<String> {
        let active = self.slots.values().filter_map(|slot| slot.active.as_ref());
        let remembered = self.books.ledger.policies.values();
        let remembered = remembered.filter_map(|entry| entry.seated.as_ref());
        active
            .map(|active| active.key.digest.to_string())
            .chain(remembered.map(|kept| kept.digest.clone()))
            .collect()
    }

    /// What is refused takes none from others.
    fn takes_a_place(&self, name: &str, claim: &Claim) -> bool {
        if let Some(Err(error)) = &claim.candidate {
            return error.is_transient();
        }
        let Some(slot) = self.slots.get(name).filter(|slot| !slot.judges()) else {
            return true;
        };
        let refused = slot.refused.as_ref().and_then(|it| it.key.as_ref());
        refused.is_none() || refused != claim.wanted.as_ref().map(|it| &it.key)
    }

    /// Digests of what was found unfit for its seat.
    pub(super) fn refused_digests(&self) -> BTreeSet<Arc<str>> {
        let refused = self.slots.values().filter_map(|slot| slot.refused.as_ref());
        let keys = refused.filter_map(|refused| refused.key.as_ref());
        keys.map(|key| Arc::clone(&key.digest)).collect()
    }

    /// Its entry is gone, and it never judged since.
    fn was_shadow(&self, wanted: &Wanted) -> bool {
        let (file, digest) = (&wanted.source.origin, &*wanted.key.digest);
        let mut remembered = self.books.ledger.policies.values();
        let judges = remembered.any(|entry| {
            let seated = entry.seated.as_ref();
            seated.is_some_and(|kept| kept.digest == digest)
        });
        let mut onlookers = self.books.ledger.onlookers.iter();
        !judges && onlookers.any(|other| other.file == *file || other.digest == digest)
    }

    /// Those that are listed now, and those that are no longer listed at all.
    fn remember_onlookers(&mut self, set: &Set) {
        let (mut now, mut promoted, mut there): (Vec<Onlooker>, Vec<&Wanted>, Vec<&Wanted>) =
            (Vec::new(), Vec::new(), Vec::new());
        for wanted in &set.wanted {
            match (wanted.is_listed, wanted.mode) {
                (true, Mode::Shadow) => now.push(Onlooker {
                    file: wanted.source.origin.clone(),
                    digest: wanted.key.digest.to_string(),
                }),
                (true, Mode::Enforce | Mode::Paused) => promoted.push(wanted),
                (false, _) => there.push(wanted),
            }
        }
        let mut unread = BTreeSet::new();
        for unusable in &set.unusable {
            match &unusable.listed {
                Some((_, Mode::Shadow)) => now.push(Onlooker {
                    file: unusable.file.clone(),
                    digest: String::new(),
                }),
                Some((_, Mode::Enforce | Mode::Paused)) => {}
                None => {
                    unread.insert(&unusable.file);
                }
            }
        }
        let is_of = |onlooker: &Onlooker, wanted: &Wanted| {
            wanted.source.origin == onlooker.file || *wanted.key.digest == *onlooker.digest
        };
        let is_among = |onlooker: &Onlooker, all: &[&Wanted]| {
            let mut all = all.iter();
            all.any(|wanted| is_of(onlooker, wanted))
        };
        let onlookers = &mut self.books.ledger.onlookers;
        onlookers.retain(|old| {
            let is_listed = now.iter().any(|new| new.file == old.file);
            !is_listed && (is_among(old, &there) || unread.contains(&old.file))
        });
        onlookers.append(&mut now);
        onlookers.retain(|onlooker| !is_among(onlooker, &promoted));
        let excess = onlookers.len().saturating_sub(ONLOOKERS_MAX);
        onlookers.drain(..excess);
    }
}
