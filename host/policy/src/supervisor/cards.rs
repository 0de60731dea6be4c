//! What is shown of each policy: from what the supervisor has to the cards of the board.

use std::sync::Arc;

use device_api_core::clock::WallTime;
use device_api_core::limits::POLICY_RECORDS_MAX;
use device_api_core::policy::PolicyId;
use device_api_core::policy_status::{Phase, PolicyHostStatus, SetAside, Version};

use super::board::{Card, joined};
use super::slot::{Active, Slot};
use super::worker::Worker;
use crate::ledger::{Kept, Quarantined};

impl Worker {
    /// Shows what there is.
    pub(crate) fn publish(&self) {
        let cards = self.slots.iter().map(|(name, slot)| self.card(name, slot));
        let host = PolicyHostStatus {
            refused: self.refused.clone(),
            sets_refused: self.sets_refused,
            unsaved: self.books.unsaved().map(str::to_owned),
            damage: self.books.damage().map(str::to_owned),
        };
        self.board.show(cards.collect(), host);
    }

    fn card(&self, name: &Arc<str>, slot: &Slot) -> Card {
        let remembered = self.books.ledger.policies.get(&**name);
        let last_good = remembered.and_then(|entry| entry.last_good.as_ref());
        let quarantined = self.books.ledger.quarantined.iter().rev();
        let quarantined = quarantined.filter(|entry| entry.name == **name);
        let (phase, detail) = self.phase(name, slot);
        let active = slot.active.as_ref();
        let wanted = slot.wanted.as_ref();
        Card {
            name: Arc::clone(name),
            mode: slot.mode,
            phase,
            detail,
            active: active
                .filter(|active| !active.is_out)
                .map(|active| active.version.clone()),
            seated: active.map(|active| active.policy.view()),
            shadow: active
                .and_then(|active| active.shadow.as_ref())
                .map(|shadow| Arc::clone(shadow.record())),
            last_good: last_good.map(|kept| version_of(name, kept)),
            held: slot.held.as_ref().map(|held| held.aside.clone()),
            quarantined: quarantined
                .take(POLICY_RECORDS_MAX)
                .map(set_aside_of)
                .collect(),
            refused: slot.refused.as_ref().map(|refused| refused.aside.clone()),
            past: slot.past.clone(),
            past_failures: slot.past_failures.clone(),
            diff: slot.diff.clone(),
            terms: wanted
                .map(|wanted| wanted.key.terms.clone())
                .unwrap_or_default(),
        }
    }

    fn is_last_good(&self, name: &str, active: &Active) -> bool {
        let remembered = self.books.ledger.policies.get(name);
        let good = remembered.and_then(|entry| entry.last_good.as_ref());
        active.is_stand_in && good.is_some_and(|kept| *kept.digest == *active.key.digest)
    }

    fn phase(&self, name: &str, slot: &Slot) -> (Phase, String) {
        let held = slot
            .held
            .as_ref()
            .map(|held| format!("a version is held: {}", held.aside.why));
        let refused = slot
            .refused
            .as_ref()
            .map(|refused| refused.aside.why.clone());
        let compiling = slot.compiling.as_deref();
        let why = joined(
            &held.or(refused).unwrap_or_default(),
            compiling.unwrap_or_default(),
        );
        let wanted = slot.wanted.as_ref();
        let quarantine = wanted.and_then(|wanted| {
            let key = &wanted.key;
            self.books.ledger.quarantine_of(&key.digest, &key.setting())
        });
        // The phase says that it is.
        let out = quarantine.map(|entry| entry.why.clone());
        let quarantine = out
            .as_ref()
            .map(|why| format!("the version that is wanted is quarantined: {why}"));
        match &slot.active {
            None if out.is_some() => (Phase::Quarantined, out.unwrap_or_default()),
            None if compiling.is_some() => (Phase::Compiling, why),
            // The set is, and nobody else is there.
            None if why.is_empty() => (Phase::Refused, self.refused.clone().unwrap_or_default()),
            None => (Phase::Refused, why),
            Some(active) if active.is_out => {
                let entry = self
                    .books
                    .ledger
                    .quarantine_of(&active.key.digest, &active.key.setting());
                let quarantined = entry.map(|entry| entry.why.clone());
                (
                    Phase::Quarantined,
                    joined(&quarantined.unwrap_or_default(), &why),
                )
            }
            Some(active) => {
                let stands_in = || {
                    let set = self.refused.clone().unwrap_or_default();
                    joined(&joined(&quarantine.clone().unwrap_or_default(), &why), &set)
                };
                let paused = self.who_paused(name);
                let paused = paused.or_else(|| slot.unexamined().map(str::to_owned));
                match paused {
                    Some(paused) => (Phase::Paused, joined(&paused, &why)),
                    None if self.is_last_good(name, active) => (Phase::LastGood, stands_in()),
                    None if active.is_stand_in => (Phase::StandIn, stands_in()),
                    None => (Phase::Running, why),
                }
            }
        }
    }
}

fn version_of(name: &Arc<str>, kept: &Kept) -> Version {
    Version {
        id: PolicyId {
            name: Arc::clone(name),
            version: kept.version.as_str().into(),
            digest: kept.digest.as_str().into(),
        },
        origin: kept.origin.as_str().into(),
        since: WallTime::from_ms(kept.since_ms),
    }
}

fn set_aside_of(entry: &Quarantined) -> SetAside {
    let id = (!entry.name.is_empty()).then(|| PolicyId {
        name: entry.name.as_str().into(),
        version: entry.version.as_str().into(),
        digest: entry.digest.as_str().into(),
    });
    SetAside {
        id,
        digest: entry.digest.as_str().into(),
        origin: entry.origin.as_str().into(),
        since: WallTime::from_ms(entry.since_ms),
        why: entry.why.clone(),
    }
}
