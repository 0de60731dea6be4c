//! Versions that are taken out of use, by their own conduct or by an operator, and their return.

use std::sync::Arc;

use device_api_core::error::ApiError;
use device_api_core::limits::{POLICY_DIGEST_DIGITS_MIN, POLICY_REASON_BYTES_MAX};
use device_api_core::policy_status::{ReloadChange, ReloadOutcome};
use device_api_core::signal::printable;
use device_api_wasm::Turn;

use super::answer::Answer;
use super::commands::{digits, for_this_run, is_prefix, not_done, one, precondition};
use super::compiling::Forget;
use super::slot::{Active, Slot};
use super::worker::Worker;
use crate::ledger::{Ledger, Quarantined};

impl Worker {
    pub(super) fn quarantine_by_hand(&mut self, name: &str, meant: &str, reason: &str) -> Answer {
        let name = self.known(name)?;
        if !meant.is_empty() && !is_prefix(meant) {
            return Err(digits());
        }
        if let Some(before) = self.quarantined_before(&name, meant) {
            self.settle_quarantine(&name, &before)?;
            let detail = "it is quarantined already".to_owned();
            return Ok(one(&name, ReloadChange::Unchanged, &before, detail));
        }
        let active = self.slots.get(&name).and_then(|slot| slot.active.as_ref());
        let active = active.filter(|active| !active.is_out).ok_or_else(|| {
            precondition(format!(
                "no version of {name} judges that could be quarantined"
            ))
        })?;
        let digest = Arc::clone(&active.key.digest);
        if !digest.starts_with(&meant.to_ascii_lowercase()) {
            let what = format!("another version of {name} is in use: {digest}; look at it first");
            return Err(precondition(what));
        }
        let reason = printable(reason, POLICY_REASON_BYTES_MAX);
        self.quarantine(&name, &format!("by an operator: {reason}"));
        self.settle_quarantine(&name, &digest)?;
        let stands_in = self.slots.get(&name).and_then(|slot| slot.active.as_ref());
        let detail = match stands_in.filter(|active| !active.is_out) {
            Some(active) => format!("{} judges instead", active.version.id),
            None => "no version of it is asked".to_owned(),
        };
        Ok(one(&name, ReloadChange::Removed, &digest, detail))
    }

    /// The version of that digest, where it is not the one in use; without a digest, one of which its operator
    /// was told that it could not be saved: who repeats that means no other.
    fn quarantined_before(&self, name: &str, meant: &str) -> Option<Arc<str>> {
        let meant = meant.to_ascii_lowercase();
        let mut quarantined = self.books.ledger.quarantined.iter().rev();
        let before = quarantined.find(|entry| {
            let is_meant = if meant.is_empty() {
                !self.books.has_saved(entry)
            } else {
                entry.digest.starts_with(&meant)
            };
            entry.name == name && is_meant
        })?;
        let active = self.slots.get(name)?.active.as_ref();
        let active = active.filter(|active| !active.is_out);
        let is_active = active.is_some_and(|active| *active.key.digest == *before.digest);
        (!is_active).then(|| before.digest.as_str().into())
    }

    fn settle_quarantine(&mut self, name: &str, digest: &str) -> Result<(), ApiError> {
        let is_same = |saved: &Ledger, ledger: &Ledger| saved.quarantined == ledger.quarantined;
        let settled = self.books.settle(is_same);
        let digits = digest.get(..POLICY_DIGEST_DIGITS_MIN).unwrap_or(digest);
        let what = format!("version {digits} of {name} is quarantined");
        settled.map_err(|why| for_this_run(&what, &why))
    }

    pub(super) fn release(&mut self, name: &str, digest: &str) -> Answer {
        let digest = &digest.to_ascii_lowercase();
        let before = self.books.ledger.clone();
        let ledger = &mut self.books.ledger;
        let is_it = |entry: &Quarantined| {
            entry.name == name || is_prefix(digest) && entry.digest.starts_with(digest.as_str())
        };
        let is_known = self.slots.contains_key(name) || ledger.quarantined.iter().any(is_it);
        if !is_known {
            return Err(ApiError::NoPolicy {
                name: name.to_owned(),
            });
        }
        if !digest.is_empty() && !is_prefix(digest) {
            return Err(digits());
        }
        // A digest says it all: the same file may have failed under another name, or before it could say one.
        let is_meant = |entry: &Quarantined| {
            if digest.is_empty() {
                entry.name == name
            } else {
                entry.digest.starts_with(digest.as_str())
            }
        };
        let meant = ledger.quarantined.iter().filter(|entry| is_meant(entry));
        let digests: Vec<String> = meant.map(|entry| entry.digest.clone()).collect();
        let released = ledger.release(is_meant);
        if released == 0 {
            let what = if digest.is_empty() {
                format!("no version of {name} is quarantined")
            } else {
                format!("no quarantined version of {name} has that digest")
            };
            return Err(precondition(what));
        }
        let is_same = |saved: &Ledger, ledger: &Ledger| saved.quarantined == ledger.quarantined;
        if let Err(why) = self.books.settle(is_same) {
            self.books.ledger = before;
            return Err(not_done(&format!("{name} stays quarantined"), &why));
        }
        tracing::info!(
            policy = name,
            digest,
            released,
            "policy released from quarantine"
        );
        let mut report = self.pass(true, Forget::Transient);
        for outcome in &mut report.outcomes {
            self.tell_of_released(outcome, &digests);
        }
        Ok(report)
    }

    /// Where what the site wants is still out of use, and what was released stands in for it: that is what was
    /// asked for.
    fn tell_of_released(&self, outcome: &mut ReloadOutcome, released: &[String]) {
        let slot = self.slots.get(&outcome.name);
        let active = slot.and_then(|slot| slot.active.as_ref());
        let is_released = |active: &&Active| {
            let digest = &active.key.digest;
            !active.is_out && released.iter().any(|released| **released == **digest)
        };
        let Some(active) = active.filter(is_released) else {
            return;
        };
        if outcome.change == ReloadChange::Refused {
            outcome.change = ReloadChange::Swapped;
            outcome.digest = Arc::clone(&active.key.digest);
            outcome.detail = format!("it stands in: {}", outcome.detail);
        }
    }

    /// A policy in its seat took a turn.
    pub(crate) fn turned(&mut self, serial: u64, turn: Turn, why: &str) {
        let of_serial = |slot: &Slot| {
            slot.active
                .as_ref()
                .is_some_and(|active| active.serial == serial)
        };
        let name = self.slots.iter().find(|(_, slot)| of_serial(slot));
        // One that was replaced meanwhile is nobody's any more.
        let Some(name) = name.map(|(name, _)| Arc::clone(name)) else {
            return;
        };
        match turn {
            Turn::Quarantined => {
                self.quarantine(&name, &format!("it failed repeatedly, at last: {why}"))
            }
            // Looked up where it is shown.
            Turn::BackedOff { .. } | Turn::Recovered => {}
        }
    }

    /// Takes the active version out of use, durably; the next best takes over, or nobody.
    fn quarantine(&mut self, name: &Arc<str>, why: &str) {
        let now = self.clock.wall();
        let Some(slot) = self.slots.get_mut(name) else {
            return;
        };
        let Some(active) = &mut slot.active else {
            return;
        };
        let why = printable(why, 2 * POLICY_REASON_BYTES_MAX);
        tracing::error!(policy = %active.version.id, why, "policy quarantined");
        slot.past.quarantines += 1;
        self.books.ledger.quarantine(Quarantined {
            digest: active.key.digest.to_string(),
            setting: active.key.setting(),
            name: name.to_string(),
            version: active.version.id.version.to_string(),
            origin: active.version.origin.to_string(),
            since_ms: now.unix_ms(),
            why: why.clone(),
        });
        self.books.save();
        active.policy.close(&format!("it is quarantined: {why}"));
        if let Some(shadow) = &active.shadow {
            shadow.stop();
        }
        active.is_out = true;
        if active.is_shadow || self.stand_in(name, None) {
            return;
        }
        self.plan_retry();
        if let Some(slot) = self.slots.get_mut(name) {
            slot.is_reported = true;
        }
        let told = format!("{name} is quarantined, and there is no other version: {why}");
        self.seats.report(name, Some(told));
    }
}
