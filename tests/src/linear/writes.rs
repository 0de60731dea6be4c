//! Which operation made which write, and so its point.

use std::collections::{BTreeSet, HashSet};

use super::replay::{Span, Store, value_of};
use super::{Answer, Change, History, Key, Kind, Operation, Seen, Version, Violation};

/// Whose the writes of the log are.
#[derive(Debug)]
pub(super) struct Writes {
    /// Deletions that no Delete has taken yet.
    deletions: BTreeSet<(Key, Version)>,
    /// Versions that a write has taken: another that answers the same one found it written.
    taken: HashSet<Version>,
}

impl Writes {
    pub(super) fn of(history: &History) -> Self {
        let deleted = |change: &&Change| change.kind == Kind::Deleted;
        let changes = history.changes.iter().filter(deleted);
        Self {
            deletions: changes.map(|change| (change.key, change.version)).collect(),
            taken: HashSet::new(),
        }
    }

    /// The smallest point from `floor` on at which the answer is right.
    pub(super) fn point_of(
        &mut self,
        operation: &Operation,
        floor: Version,
        store: &Store<'_>,
    ) -> Result<Version, Violation> {
        let is_there = |span: Option<&Span<'_>>| span.is_some_and(|span| span.content.is_some());
        let first = |seen: &Seen| {
            store.first(seen.key, floor, |span| {
                span.is_some_and(|span| span.from == seen.version)
            })
        };
        let point = match &operation.answer {
            Answer::Read(seen) => first(seen),
            Answer::Absent(key) => store.first(*key, floor, |span| !is_there(span)),
            Answer::Present(key) => store.first(*key, floor, is_there),
            Answer::Conflict { key, expected } => store.first(*key, floor, |span| {
                is_there(span) && span.is_some_and(|span| span.from != *expected)
            }),
            Answer::List { version, .. } => (*version >= floor).then_some(*version),
            Answer::Wrote { seen, .. } if self.found_written(&operation.answer, store) => {
                first(seen)
            }
            Answer::Wrote { seen, expected, .. } => {
                written(operation, seen, *expected, floor, store)?;
                self.taken.insert(seen.version);
                Some(seen.version)
            }
            Answer::Deleted(key) => self.take_deletion(*key, floor),
            Answer::Unknown { .. } => Some(floor),
        };
        point.ok_or_else(|| Violation::Stale {
            operation: operation.clone(),
            floor,
        })
    }

    /// A write of what is there already changes nothing: it is a read.
    fn found_written(&self, answer: &Answer, store: &Store<'_>) -> bool {
        let Answer::Wrote {
            seen,
            field: Some((field, value)),
            expected,
        } = answer
        else {
            return false;
        };
        let before = store.at(seen.key, seen.version).and_then(|s| s.before);
        seen.version <= store.start
            || *expected == Some(seen.version)
            || value_of(before, *field) == Some(*value)
            || self.taken.contains(&seen.version)
    }

    fn take_deletion(&mut self, key: Key, floor: Version) -> Option<Version> {
        let range = (key, floor + 1)..=(key, Version::MAX);
        let first = self.deletions.range(range).next().copied()?;
        self.deletions.remove(&first);
        Some(first.1)
    }

    pub(super) fn are_asked_for(&self, history: &History) -> Result<(), Violation> {
        let is_unknown = |key: Key| {
            history
                .operations
                .iter()
                .any(|o| matches!(o.answer, Answer::Unknown { key: of, field: None } if of == key))
        };
        match self.deletions.iter().find(|(key, _)| !is_unknown(*key)) {
            Some((key, version)) => Err(Violation::DeletedByNobody {
                version: *version,
                key: *key,
            }),
            None => Ok(()),
        }
    }
}

/// Whether a write may have been made at its version.
fn written(
    operation: &Operation,
    seen: &Seen,
    expected: Option<Version>,
    floor: Version,
    store: &Store<'_>,
) -> Result<(), Violation> {
    let operation = || operation.clone();
    if seen.version <= floor {
        return Err(Violation::SeenTooSoon {
            operation: operation(),
            floor,
        });
    }
    let replaced = store.at(seen.key, seen.version - 1).map(|span| span.from);
    if expected.is_some() && expected != replaced {
        return Err(Violation::LostUpdate {
            operation: operation(),
            replaced,
        });
    }
    Ok(())
}
