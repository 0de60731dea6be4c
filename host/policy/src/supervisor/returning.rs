//! What judged when the last run ended, and is to judge again: the brake is for what is new. What stands
//! in for it while it is compiled must not make a difference (design H9).

use std::collections::BTreeMap;

use device_api_core::policy_status::Mode;
use device_api_wasm::Limits;

use super::set::Key;
use crate::ledger::{Kept, Ledger, Remembered, setting};

/// Digest and [`setting`] by name, until somebody has that seat as the site wants it.
#[derive(Debug, Default)]
pub(super) struct Returning(BTreeMap<String, (String, String)>);

impl Returning {
    pub(super) fn of(ledger: &Ledger, site: &Limits) -> Self {
        let judged = |(name, entry): (&String, &Remembered)| {
            let kept = entry.seated.as_ref()?;
            // What was paused is looked over anew.
            let judged = kept.mode() == Mode::Enforce && entry.paused.is_none();
            (judged && ledger.has_let_in(name, kept, site))
                .then(|| (name.clone(), (kept.digest.clone(), kept.setting_on(site))))
        };
        Self(ledger.policies.iter().filter_map(judged).collect())
    }

    pub(super) fn is(&self, name: &str, key: &Key) -> bool {
        let known = self.0.get(name);
        known.is_some_and(|(digest, setting)| **digest == *key.digest && *setting == key.setting())
    }

    pub(super) fn forget(&mut self, name: &str) {
        self.0.remove(name);
    }
}

impl Ledger {
    /// It came past the brake, or an operator let it in: it may judge again without being looked over.
    pub(super) fn has_let_in(&self, name: &str, kept: &Kept, site: &Limits) -> bool {
        let setting = &kept.setting_on(site);
        let entry = self.policies.get(name);
        let held = entry.and_then(|entry| entry.held.as_ref());
        let is_held = held.is_some_and(|held| held.is(&kept.digest, setting));
        !kept.unexamined && !is_held || self.is_accepted(name, &kept.digest, setting)
    }
}

impl Kept {
    /// What was let in once stays so, though it came back paused.
    pub(super) fn after(self, before: Option<&Self>) -> Self {
        let terms = |kept: &Self| {
            (
                kept.digest.clone(),
                kept.config.clone(),
                kept.limits.clone(),
            )
        };
        let was_let_in =
            before.is_some_and(|before| !before.unexamined && terms(before) == terms(&self));
        Self {
            unexamined: self.unexamined && !was_let_in,
            ..self
        }
    }

    fn setting_on(&self, site: &Limits) -> String {
        setting(&self.config, &self.limits_on(site))
    }

    /// With which it judged: one that this build does not know, or not so high, is the site's.
    pub(super) fn limits_on(&self, site: &Limits) -> Limits {
        let mut limits = *site;
        for (limit, value) in &self.limits {
            let _ = limits.set(limit, value);
        }
        limits
    }
}
