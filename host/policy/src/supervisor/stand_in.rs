//! Who takes the seat of a version that can't be had, or is quarantined (design H5).

use std::collections::BTreeMap;
use std::sync::Arc;

use device_api_core::limits::UNASKED_POLICIES_MAX;
use device_api_core::policy_status::Mode;
use device_api_core::ports::Policy as _;
use device_api_core::seating::{Fallback, Grant, Terms};

use super::board::limit_words;
use super::seat::Candidate;
use super::set::{Key, Wanted};
use super::slot::{Active, Slot};
use super::worker::Worker;
use crate::error::PolicyError;
use crate::ledger::Kept;
use crate::source::{PolicySource, bundled_name};

/// Files told in `PolicyReady` that never were policies: half of what it has room for.
const STRANGERS_TOLD_MAX: usize = UNASKED_POLICIES_MAX / 2;

impl Worker {
    /// The bundled policy of that name, with its defaults.
    pub(crate) fn bundled(&self, name: &str) -> Option<Wanted> {
        let mut all = self.bundled.iter();
        all.find(|wanted| wanted.name.as_deref() == Some(name))
            .cloned()
    }

    /// Seats the next best, or has the pipeline say that there is none.
    pub(super) fn stand_in_or_report(
        &mut self,
        name: &Arc<str>,
        instead: Option<Wanted>,
        why: &str,
    ) {
        if !self.stand_in(name, instead) {
            self.report_empty(name, why);
        }
    }

    /// Has the pipeline say that nobody is asked.
    fn report_empty(&mut self, name: &Arc<str>, why: &str) {
        if !self.may_be_told(name) {
            return;
        }
        if let Some(slot) = self.slots.get_mut(name) {
            slot.is_reported = true;
        }
        let told = format!("no version of {name} is asked: {why}");
        self.seats.report(name, Some(told));
    }

    /// There is room for it in `PolicyReady`: files that never were policies leave the most of it to those that
    /// were, or are listed.
    fn may_be_told(&self, name: &str) -> bool {
        let is_known = |name: &str, slot: &Slot| {
            let wanted = slot.wanted.as_ref();
            let entry = self.books.ledger.policies.get(name);
            slot.active.is_some()
                || wanted.is_some_and(|wanted| wanted.is_listed || wanted.is_bundled)
                || entry.is_some_and(|it| it.seated.is_some() || it.last_good.is_some())
        };
        let slot = self.slots.get(name);
        if slot.is_some_and(|slot| slot.is_reported || is_known(name, slot)) {
            return true;
        }
        let told = self.slots.iter().filter(|(_, slot)| slot.is_reported);
        told.filter(|(name, slot)| !is_known(name, slot)).count() < STRANGERS_TOLD_MAX
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
        self.seat_first_of(name, [remembered.last_good, remembered.seated], instead)
    }

    fn seat_first_of(
        &mut self,
        name: &Arc<str>,
        kept: [Option<Kept>; 2],
        instead: Option<Wanted>,
    ) -> bool {
        let mut candidates = self.let_in_before(name, kept);
        candidates.extend(instead);
        candidates.extend(self.bundled(name));
        if let Some(slot) = self.slots.get_mut(name) {
            slot.wants_stand_in = false;
        }
        let slot = self.slots.get(name);
        let out = slot
            .and_then(|slot| slot.active.as_ref())
            .filter(|active| active.is_out)
            .map(|active| &active.key.digest)
            // Released it may judge again, whoever the site wants.
            .filter(|digest| self.books.ledger.is_blamed(digest))
            .cloned();
        let refused = slot
            .and_then(|slot| slot.refused.as_ref())
            .and_then(|refused| refused.key.clone());
        // Who stands in is not braked.
        let held = slot
            .and_then(|slot| slot.held.as_ref())
            .map(|held| held.wanted.key.clone());
        let not_these = [refused.as_ref(), held.as_ref()];
        for wanted in candidates {
            let digest = &wanted.key.digest;
            let is_out = self
                .books
                .ledger
                .quarantine_of(digest, &wanted.key.setting())
                .is_some();
            let is_no_other =
                out.as_ref() == Some(digest) || not_these.contains(&Some(&wanted.key));
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
                Ok(_) => {
                    tracing::warn!(policy = %name, digest = %wanted.key.digest, origin = %wanted.source.origin, "another version judges meanwhile");
                    return true;
                }
                Err(error @ PolicyError::Compiling { .. }) => {
                    let slot = self.slots.entry(Arc::clone(name)).or_default();
                    slot.compiling.get_or_insert_with(|| error.to_string());
                }
                Err(error) => {
                    let slot = self.slots.entry(Arc::clone(name)).or_default();
                    slot.wants_stand_in |= error.is_transient();
                    tracing::error!("{}", error.chain());
                }
            }
        }
        false
    }

    /// What judged in the run before judges again, else what was good once, which may be long ago, else the
    /// bundled one. Says whether there is one.
    pub(super) fn go_on_as_before(&mut self, name: &Arc<str>) -> bool {
        let entry = self.books.ledger.policies.get(&**name).cloned();
        let entry = entry.unwrap_or_default();
        let slot = self.slots.entry(Arc::clone(name)).or_default();
        slot.mode = entry.seated.as_ref().map(Kept::mode).unwrap_or_default();
        self.seat_first_of(name, [entry.seated, entry.last_good], None)
    }

    /// Without those that the brake has not let in yet; but whoever is paused is looked over once that ends.
    fn let_in_before(&self, name: &Arc<str>, kept: [Option<Kept>; 2]) -> Vec<Wanted> {
        let is_paused = self.paused(name).is_some();
        let (ledger, site) = (&self.books.ledger, &self.config.limits);
        let may_sit = |kept: &&Kept| is_paused || ledger.has_let_in(name, kept, site);
        let kept = kept.iter().flatten().filter(may_sit);
        kept.filter_map(|kept| self.wanted_again(name, kept))
            .collect()
    }

    pub(super) fn wanted_again(&self, name: &Arc<str>, kept: &Kept) -> Option<Wanted> {
        let limits = kept.limits_on(&self.config.limits);
        let bytes = self.books.bytes(&kept.digest, limits.component_bytes_max)?;
        let slot = self.slots.get(name);
        let terms = slot
            .and_then(|slot| slot.wanted.as_ref())
            .map(|wanted| wanted.key.terms.clone());
        let terms = terms.unwrap_or_else(|| kept.terms());
        Some(Wanted {
            name: Some(Arc::clone(name)),
            mode: Mode::Enforce,
            is_bundled: kept.is_bundled(),
            is_listed: false,
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
        names.extend(self.bundled.iter().filter_map(|wanted| wanted.name.clone()));
        names.sort_unstable();
        names.dedup();
        let why = self.refused.clone().unwrap_or_default();
        for name in names {
            // What was not compiled yet is tried again.
            let active = self.slots.get(&name).and_then(|slot| slot.active.as_ref());
            if active.is_some_and(|active| !active.is_out) {
                continue;
            }
            let slot = self.slots.entry(Arc::clone(&name)).or_default();
            slot.compiling = None;
            if !self.go_on_as_before(&name) {
                self.report_empty(&name, &why);
            }
        }
    }
}

impl Kept {
    /// `mode`: in which the site has it.
    pub(crate) fn of(active: &Active, mode: Mode) -> Self {
        let limits: BTreeMap<String, String> = limit_words(&active.key.limits).collect();
        let grants = active.key.terms.grants.iter();
        let grants = grants.map(|Grant(grant)| grant.to_string());
        let owns = active.policy.info().owns.iter();
        Self {
            digest: active.key.digest.to_string(),
            version: active.version.id.version.to_string(),
            origin: active.version.origin.to_string(),
            since_ms: active.version.since.unix_ms(),
            config: active.key.config.clone(),
            limits,
            mode: mode.as_str().to_owned(),
            fallback: active.key.terms.fallback.as_str().to_owned(),
            grants: grants.collect(),
            owns: owns.map(|owned| owned.condition.to_string()).collect(),
            unexamined: active.is_unexamined,
        }
    }

    pub(super) fn is_bundled(&self) -> bool {
        bundled_name(&self.origin).is_some()
    }

    pub(super) fn mode(&self) -> Mode {
        Mode::from_word(&self.mode).unwrap_or_default()
    }

    /// On what terms the site had it.
    fn terms(&self) -> Terms {
        let grants = self.grants.iter();
        Terms {
            fallback: Fallback::from_word(&self.fallback).unwrap_or_default(),
            grants: grants.map(|grant| Grant(grant.as_str().into())).collect(),
        }
    }
}
