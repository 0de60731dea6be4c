//! Who takes the seat of a version that can't be had, or is quarantined (design H5).

use std::sync::Arc;

use device_api_core::policy_status::Mode;
use device_api_wasm::Limits;

use super::seat::Candidate;
use super::set::{self, Key, Wanted};
use super::worker::Worker;
use crate::ledger::Kept;
use crate::source::PolicySource;

impl Worker {
    /// The bundled policy of that name, with its defaults.
    pub(crate) fn bundled(&self, name: &str) -> Option<Wanted> {
        let mut all = set::bundled(&self.config).into_iter();
        all.find(|wanted| wanted.name.as_deref() == Some(name))
    }

    /// Seats the next best: the last good version, what judged in the run before, the bundled one. Says
    /// whether there is one.
    pub(crate) fn stand_in(&mut self, name: &Arc<str>, instead: Option<Wanted>) -> bool {
        let remembered = self
            .books
            .ledger
            .policies
            .get(&**name)
            .cloned()
            .unwrap_or_default();
        let kept = [remembered.last_good, remembered.seated];
        let mut candidates: Vec<Wanted> = Vec::new();
        for kept in kept.into_iter().flatten() {
            candidates.extend(self.wanted_again(name, &kept));
        }
        candidates.extend(instead);
        candidates.extend(self.bundled(name));
        let slot = self.slots.get(name);
        let judges = slot
            .and_then(|slot| slot.active.as_ref())
            .map(|active| active.key.digest.clone());
        let refused = slot
            .and_then(|slot| slot.refused.as_ref())
            .and_then(|refused| refused.key.clone());
        for wanted in candidates {
            let digest = &wanted.key.digest;
            let is_out = self.books.ledger.quarantine_of(digest).is_some();
            let is_no_other =
                judges.as_ref() == Some(digest) || refused.as_ref() == Some(&wanted.key);
            if is_out || is_no_other {
                continue;
            }
            let seated = self.tried(name, &wanted, None).and_then(|(policy, trial)| {
                let candidate = Candidate {
                    policy,
                    key: wanted.key.clone(),
                    trial,
                    is_stand_in: true,
                };
                self.take_seat(name, &wanted, candidate)
            });
            match seated {
                Ok(()) => {
                    tracing::warn!(policy = %name, digest = %wanted.key.digest, origin = %wanted.source.origin, "another version judges meanwhile");
                    return true;
                }
                Err(error) => tracing::error!("{}", error.chain()),
            }
        }
        false
    }

    fn wanted_again(&self, name: &Arc<str>, kept: &Kept) -> Option<Wanted> {
        let mut limits: Limits = self.config.limits;
        for (limit, value) in &kept.limits {
            // One that this build does not know, or not so high, is left at the site's default.
            let _ = limits.set(limit, value);
        }
        let bytes = self.books.bytes(&kept.digest, limits.component_bytes_max)?;
        let slot = self.slots.get(name);
        let terms = slot
            .and_then(|slot| slot.wanted.as_ref())
            .map(|wanted| wanted.key.terms.clone());
        let terms = terms.unwrap_or_default();
        Some(Wanted {
            name: Some(Arc::clone(name)),
            mode: Mode::Enforce,
            is_bundled: kept.origin.starts_with("bundled/"),
            key: Key {
                digest: kept.digest.as_str().into(),
                config: kept.config.clone(),
                limits,
                terms: terms.clone(),
            },
            source: PolicySource {
                origin: kept.origin.clone(),
                bytes,
                config: kept.config.clone(),
                limits,
                terms,
            },
        })
    }

    /// The first set of this run is refused: what judged when the last run ended, and the bundled ones.
    pub(crate) fn begin_without_a_set(&mut self) {
        let remembered = self.books.ledger.policies.iter();
        let mut names: Vec<Arc<str>> = remembered
            .filter(|(_, entry)| entry.seated.is_some())
            .map(|(name, _)| name.as_str().into())
            .collect();
        names.extend(
            set::bundled(&self.config)
                .into_iter()
                .filter_map(|wanted| wanted.name),
        );
        names.sort_unstable();
        names.dedup();
        for name in names {
            self.stand_in(&name, None);
        }
    }
}
