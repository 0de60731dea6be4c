//! What ran under a name that the set has no more, and whose file has another name now: it goes on until what
//! has its file can take a seat, whatever that is refused for (design H6).

use std::sync::Arc;

use device_api_core::policy_status::{Mode, ReloadChange, ReloadOutcome};
use device_api_core::ports::Policy as _;

use super::claims::Claim;
use super::reload::outcome;
use super::set::Wanted;
use super::slot::{Refused, set_aside};
use super::worker::Worker;
use crate::error::PolicyError;
use crate::loaded::LoadedPolicy;

impl Worker {
    /// Names that nothing in the set has any more, of this run or the one before.
    pub(super) fn gone(&self, claims: &[(Arc<str>, Claim)]) -> Vec<Arc<str>> {
        let remembered = self.books.ledger.policies.iter();
        let remembered = remembered
            .filter(|(name, entry)| {
                let seated = entry.seated.as_ref();
                !self.slots.contains_key(&***name) && seated.is_some_and(|kept| !kept.is_bundled())
            })
            .map(|(name, _)| Arc::from(name.as_str()));
        let mut gone: Vec<Arc<str>> = self.slots.keys().cloned().chain(remembered).collect();
        gone.retain(|name| claims.iter().all(|(other, _)| other != name));
        gone
    }

    /// The new name of what ran under this one, where it can't be had by the new one.
    pub(super) fn refused_heir(
        &mut self,
        name: &str,
        claims: &mut [(Arc<str>, Claim)],
    ) -> Option<Arc<str>> {
        let (digest, file) = self.what_ran(name)?;
        let is_heir = |(_, claim): &&mut (Arc<str>, Claim)| {
            let wanted = claim.wanted.as_ref();
            let is_shadow = wanted.is_some_and(|wanted| wanted.mode == Mode::Shadow);
            let is_same = wanted.is_some_and(|wanted| *wanted.key.digest == *digest);
            !is_shadow && (is_same || claim.origin.eq_ignore_ascii_case(&file))
        };
        let mut first = None;
        for (heir, claim) in claims.iter_mut().filter(is_heir) {
            if self.can_be_had(heir, claim) {
                return None;
            }
            first.get_or_insert_with(|| Arc::clone(heir));
        }
        first
    }

    /// What ran by that name goes on; where no daemon ran since, it begins again.
    pub(super) fn go_on_for(&mut self, name: &Arc<str>, heir: &str) -> ReloadOutcome {
        let why = format!(
            "it goes on, since what has its place as {heir} is refused, held, or not compiled yet"
        );
        let active = self.slots.get(name).and_then(|slot| slot.active.as_ref());
        if active.is_none() && self.go_on_as_before(name) {
            let (digest, now) = ("".into(), self.clock.wall());
            let slot = self.slots.entry(Arc::clone(name)).or_default();
            slot.refused = Some(Refused {
                aside: set_aside(&digest, None, heir, now, why.clone()),
                key: None,
            });
        }
        outcome(name, ReloadChange::Unchanged, None, why)
    }

    /// Digest and file; nothing of a shadow, which nobody misses.
    fn what_ran(&self, name: &str) -> Option<(String, String)> {
        let active = self.slots.get(name).and_then(|slot| slot.active.as_ref());
        if let Some(active) = active {
            let origin = active.policy.origin().to_owned();
            return (!active.is_shadow).then(|| (active.key.digest.to_string(), origin));
        }
        let kept = self.books.ledger.policies.get(name)?.seated.as_ref()?;
        Some((kept.digest.clone(), kept.origin.clone()))
    }

    /// Or is not to be: what is not wanted any more has no successor to wait for.
    fn can_be_had(&mut self, name: &Arc<str>, claim: &mut Claim) -> bool {
        let Some(wanted) = claim.wanted.clone() else {
            let error = claim.candidate.as_ref().and_then(|it| it.as_ref().err());
            return error.is_some_and(is_taken_away);
        };
        let ledger = &self.books.ledger;
        let is_out = ledger.quarantine_of(&wanted.key.digest, &wanted.key.setting());
        if is_out.is_some() {
            return false;
        }
        let loaded = match claim.candidate.take() {
            Some(loaded) => loaded,
            None => self.load(name, &wanted),
        };
        let can = loaded
            .as_ref()
            .is_ok_and(|policy| self.would_be_seated(name, &wanted, policy));
        claim.candidate = Some(loaded);
        can
    }

    fn would_be_seated(&self, name: &Arc<str>, wanted: &Wanted, policy: &LoadedPolicy) -> bool {
        if policy.info().id.name != *name || self.refuse_taken_types(name, policy).is_err() {
            return false;
        }
        let journals = self.seats.journals();
        let Ok(trial) = self.examiner(policy).examine(&journals) else {
            return false;
        };
        !self.is_braked(name, wanted) || self.why_held(name, wanted, &trial).is_none()
    }
}

/// By the site, and not because something is wrong with it.
pub(super) fn is_taken_away(error: &PolicyError) -> bool {
    matches!(
        error.root(),
        PolicyError::Unlisted { .. } | PolicyError::WasShadow { .. }
    )
}
