//! A set of which some is still to be compiled. It was good when it was read: where the directory is none
//! any more, or is refused, it goes on, and no seat stays empty for that (design H6).

use std::sync::Arc;

use device_api_core::policy_status::{Mode, ReloadChange, ReloadOutcome};

use super::claims::Claim;
use super::set::Set;
use super::worker::Worker;

impl Worker {
    /// Goes over a set, and remembers it while it is not all compiled.
    pub(super) fn apply_and_remember(&mut self, set: Set, forced: bool) -> Vec<ReloadOutcome> {
        let again = set.clone();
        let outcomes = self.apply(set, forced);
        let mut slots = self.slots.values();
        self.unsettled = slots.any(|slot| slot.compiling.is_some()).then_some(again);
        outcomes
    }

    /// The set that was read last goes on where it is not all compiled; else whoever's seat is empty has
    /// somebody stand in. Gives what became of it that is news: what is still to be compiled was told.
    pub(super) fn go_on_without_a_set(&mut self) -> Vec<ReloadOutcome> {
        if let Some(set) = self.unsettled.take() {
            let mut outcomes = self.apply_and_remember(set, false);
            outcomes.retain(|outcome| {
                !matches!(
                    outcome.change,
                    ReloadChange::Unchanged | ReloadChange::Compiling
                )
            });
            return outcomes;
        }
        let mut empty: Vec<Arc<str>> = Vec::new();
        for (name, slot) in &mut self.slots {
            let is_out = slot.active.as_ref().is_none_or(|active| active.is_out);
            if is_out && slot.wanted.is_some() && slot.mode != Mode::Shadow {
                slot.compiling = None;
                empty.push(Arc::clone(name));
            }
        }
        for name in empty {
            // That there is nobody was told when the seat became empty.
            self.stand_in(&name, None);
        }
        self.books.save();
        Vec::new()
    }

    /// Versions that were held and are wanted no more.
    pub(super) fn forget_what_was_held(&mut self) {
        // A stop cuts a pass short.
        if self.inbox.is_stopped() {
            return;
        }
        for (name, entry) in &mut self.books.ledger.policies {
            let Some(slot) = self.slots.get(&**name) else {
                continue;
            };
            entry.held.take_if(|held| {
                let wanted = slot.wanted.as_ref();
                wanted.is_some_and(|it| !held.is(&it.key.digest, &it.key.setting()))
            });
        }
    }

    /// It was shown by the name of its file until it could say its own.
    pub(super) fn has_its_own_name_now(&self, name: &str, claims: &[(Arc<str>, Claim)]) -> bool {
        let slot = self.slots.get(name);
        let Some(slot) = slot.filter(|slot| slot.active.is_none() && slot.held.is_none()) else {
            return false;
        };
        let Some(file) = &slot.wanted else {
            return false;
        };
        let mut wanted = claims.iter().filter_map(|(_, claim)| claim.wanted.as_ref());
        wanted.any(|it| it.key == file.key && it.source.origin == file.source.origin)
    }
}
