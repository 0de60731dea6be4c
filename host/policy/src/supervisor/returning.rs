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
            let setting = setting(&kept.config, &kept.limits_on(site));
            let is_held = entry.held.as_ref();
            let is_held = is_held.is_some_and(|held| held.is(&kept.digest, &setting));
            // What was paused was not looked over yet.
            let judged = kept.mode() == Mode::Enforce && entry.paused.is_none() && !is_held;
            judged.then(|| (name.clone(), (kept.digest.clone(), setting)))
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

impl Kept {
    /// With which it judged: one that this build does not know, or not so high, is the site's.
    pub(super) fn limits_on(&self, site: &Limits) -> Limits {
        let mut limits = *site;
        for (limit, value) in &self.limits {
            let _ = limits.set(limit, value);
        }
        limits
    }
}
