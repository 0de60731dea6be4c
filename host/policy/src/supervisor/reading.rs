//! Reading the set as it is at one moment, although the directory may change meanwhile (design H6).

use std::collections::BTreeSet;

use super::set::{self, InUse, Set};
use super::slot::Slot;
use super::worker::Worker;
use crate::directory::{Look, Since, look};

/// Times that a set is read as a whole which changes meanwhile; then without the files that do.
const WHOLE_TRIES: u32 = 3;

/// And in all; then the next look tries again.
const READ_TRIES: u32 = 2 * WHOLE_TRIES;

impl Worker {
    /// As a whole, and not half before a swap and half after. Plain files are nobody's whole: one that is
    /// written again and again costs its own policy alone.
    pub(super) fn read(&mut self) -> Result<Set, String> {
        let in_use = InUse {
            has_files: self.has_files(),
            files: self.files_in_use(),
        };
        let mut changing = BTreeSet::new();
        let mut what = String::new();
        for attempt in 1..=READ_TRIES {
            let left_out = if attempt > WHOLE_TRIES {
                changing.clone()
            } else {
                BTreeSet::new()
            };
            let before = self.seen();
            let set = set::read(&self.config, &self.bundled, &in_use, &left_out);
            let after = self.seen();
            match after.since(&before) {
                Since::Files(files) if files.is_subset(&left_out) => {
                    // What was written a moment ago may be written again within the same tick of the clock.
                    let is_at_rest = left_out.is_empty() && !after.is_fresh(self.clock.wall());
                    self.looked = is_at_rest.then_some(after);
                    return set;
                }
                Since::Files(files) => {
                    what = files.iter().cloned().collect::<Vec<_>>().join(", ");
                    changing.extend(files);
                }
                Since::Whole(name) => what = name,
            }
        }
        self.looked = None;
        Err(format!(
            "the policy directory changes while it is read ({what}): the running set stays, and it is read \
             again; write files elsewhere, and rename them into their places"
        ))
    }

    /// How it looks from outside.
    pub(super) fn seen(&self) -> Look {
        look(
            self.config.directory.as_deref(),
            self.config.policies_file.as_deref(),
        )
    }

    /// From which something judges or looks on, or did in the run before.
    fn files_in_use(&self) -> BTreeSet<String> {
        let active = self.slots.values().filter_map(|slot| slot.active.as_ref());
        let remembered = self.books.ledger.policies.values();
        let remembered = remembered.filter_map(|entry| entry.seated.as_ref());
        active
            .map(|active| active.policy.origin().to_owned())
            .chain(remembered.map(|kept| kept.origin.clone()))
            .collect()
    }

    /// In the run before, where this one has none yet, or none of its own.
    fn has_files(&self) -> bool {
        let wanted = |slot: &Slot| {
            let wanted = slot.wanted.as_ref();
            wanted.is_some_and(|wanted| !wanted.is_bundled)
        };
        let mut remembered = self.books.ledger.policies.values();
        self.slots.values().any(wanted)
            || remembered.any(|entry| {
                let seated = entry.seated.as_ref();
                seated.is_some_and(|kept| !kept.is_bundled())
            })
    }
}
