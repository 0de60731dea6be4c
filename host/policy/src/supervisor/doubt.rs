//! After a ledger that could not be read nobody knows which versions of the site were quarantined: each
//! waits for an operator, once (design H5). What is bundled came with this daemon, and judges meanwhile.

use std::sync::Arc;

use super::set::Wanted;
use super::slot::{Active, Slot};
use super::worker::Worker;
use crate::error::command;
use crate::source::bundled_name;

impl Worker {
    /// Why a version that nobody has accepted since is held.
    pub(super) fn why_doubted(&self, name: &str, wanted: &Wanted) -> Option<String> {
        let lost = self.books.ledger.lost.as_ref();
        let lost = lost.filter(|_| !wanted.is_bundled)?;
        let accept = command("accept", name, &wanted.key.digest);
        Some(format!(
            "whether it was quarantined is not known: {}; if it is good, `{accept}`",
            lost.told()
        ))
    }

    /// Once all that the site wants was accepted, or is no policy, what comes later is new here. Where it wants
    /// nothing yet, its files may be late.
    pub(super) fn end_doubt(&mut self) {
        // A stop cuts a pass short.
        if self.books.ledger.lost.is_none() || self.inbox.is_stopped() {
            return;
        }
        let ledger = &self.books.ledger;
        // Who never was to judge was not held, and may be to judge later.
        let is_unasked = |name: &str, active: &Active| {
            let key = &active.key;
            bundled_name(&active.version.origin).is_none()
                && (active.is_unexamined || active.is_shadow)
                && !ledger.is_accepted(name, &key.digest, &key.setting())
        };
        let is_of_the_site = |slot: &Slot| {
            let wanted = slot.wanted.as_ref();
            wanted.is_some_and(|wanted| !wanted.is_bundled)
        };
        let is_open = |(name, slot): (&Arc<str>, &Slot)| {
            let refused = slot.refused.as_ref();
            let is_passing = refused.is_some_and(|refused| refused.key.is_none());
            let active = slot.active.as_ref();
            slot.held.is_some()
                || slot.compiling.is_some()
                || is_passing && is_of_the_site(slot)
                || active.is_some_and(|active| is_unasked(name, active))
        };
        if !self.slots.values().any(is_of_the_site) || self.slots.iter().any(is_open) {
            return;
        }
        self.books.ledger.lost = None;
        self.books.save();
        tracing::info!("no version waits any more for what the ledger of policies has lost");
    }
}
