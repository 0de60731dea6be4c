//! What is appended and not durable yet, folded by key: bounded by what exists, however long the disk
//! fails.

use std::collections::{HashMap, HashSet};

use device_api_core::clock::BootTime;
use device_api_core::durable::{Batch, Change};
use device_api_core::ids::ResourceVersion;

use crate::format::{Slot, Table};

#[derive(Debug, Default)]
pub(crate) struct Pending {
    pub(crate) version: ResourceVersion,
    pub(crate) at: BootTime,
    pub(crate) batches: u64,
    /// `None`: it is gone.
    pub(crate) changes: HashMap<Slot, Option<Change>>,
}

impl Pending {
    pub(crate) fn is_empty(&self) -> bool {
        self.batches == 0
    }

    /// Adds a batch. `stored` is what the file may hold: the end of anything else needs no telling.
    pub(crate) fn fold(&mut self, batch: Batch, stored: &HashSet<Slot>) {
        self.version = self.version.max(batch.version);
        self.at = self.at.max(batch.at);
        self.batches += 1;
        for change in batch.changes {
            let (slot, goes) = Slot::of(&change);
            if !goes {
                self.changes.insert(slot, Some(change));
                continue;
            }
            // What a policy remembers of a device goes with it.
            if slot.table == Table::Devices {
                self.end(slot.in_table(Table::Memories), stored);
            }
            self.end(slot, stored);
        }
    }

    fn end(&mut self, slot: Slot, stored: &HashSet<Slot>) {
        if stored.contains(&slot) {
            self.changes.insert(slot, None);
        } else {
            self.changes.remove(&slot);
        }
    }

    /// Puts what could not be committed beneath what came after it.
    pub(crate) fn put_back(&mut self, older: Self) {
        self.version = self.version.max(older.version);
        self.at = self.at.max(older.at);
        self.batches += older.batches;
        for (slot, change) in older.changes {
            self.changes.entry(slot).or_insert(change);
        }
    }

    /// Forgets the ends of what the file, read again, does not hold.
    pub(crate) fn prune(&mut self, stored: &HashSet<Slot>) {
        self.changes
            .retain(|slot, change| change.is_some() || stored.contains(slot));
    }
}

#[cfg(test)]
mod tests {
    use device_api_core::durable::LeaseRecord;
    use device_api_core::ids::ObjectKey;

    use super::*;

    fn lease(provider: &str, id: &str) -> Change {
        Change::Lease(LeaseRecord {
            provider: provider.into(),
            identity: "uid:0".into(),
            id: id.into(),
            duration: std::time::Duration::from_secs(1),
            ends: BootTime::default(),
        })
    }

    fn batch(version: u64, changes: Vec<Change>) -> Batch {
        Batch {
            version: ResourceVersion(version),
            at: BootTime { ns: version },
            changes,
        }
    }

    #[test]
    fn a_later_change_replaces_an_earlier_one_and_the_newest_version_wins() {
        let stored = HashSet::new();
        let mut pending = Pending::default();
        pending.fold(batch(2, vec![lease("a", "1"), lease("b", "1")]), &stored);
        pending.fold(batch(1, vec![lease("a", "2")]), &stored);
        assert_eq!((pending.version.0, pending.batches), (2, 2));
        assert_eq!(pending.changes.len(), 2);
        let (slot, _) = Slot::of(&lease("a", "2"));
        assert_eq!(pending.changes[&slot], Some(lease("a", "2")));
    }

    #[test]
    fn what_never_reached_the_file_ends_without_a_trace() {
        let mut pending = Pending::default();
        for round in 0..1_000_u64 {
            let provider = format!("p{round}");
            pending.fold(batch(round, vec![lease(&provider, "1")]), &HashSet::new());
            let gone = vec![Change::LeaseGone(provider.as_str().into())];
            pending.fold(batch(round, gone), &HashSet::new());
        }
        assert!(pending.changes.is_empty());
        assert!(!pending.is_empty(), "the version is still to be told");
    }

    #[test]
    fn what_the_file_holds_is_ended_there_and_a_failed_commit_goes_beneath() {
        let key = ObjectKey::new("", "gpu-0");
        let (slot, goes) = Slot::of(&Change::ObjectGone(key.clone()));
        assert!(goes);
        let stored: HashSet<_> = [slot.clone()].into();
        let mut newer = Pending::default();
        newer.fold(batch(5, vec![lease("a", "new")]), &stored);
        let mut older = Pending::default();
        older.fold(batch(4, vec![Change::ObjectGone(key)]), &stored);
        older.fold(batch(4, vec![lease("a", "old")]), &stored);
        newer.put_back(older);
        assert_eq!(newer.version.0, 5);
        assert_eq!(newer.changes[&slot], None);
        let (of_lease, _) = Slot::of(&lease("a", "new"));
        assert_eq!(newer.changes[&of_lease], Some(lease("a", "new")));
        newer.prune(&HashSet::new());
        assert_eq!(newer.changes.len(), 1);
    }
}
