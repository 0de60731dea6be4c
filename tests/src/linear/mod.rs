//! A linearizability checker for what this system serves: objects with versions, and lists of all of
//! them (design C1, C2, C5).
//!
//! # What is checked
//! A [`History`] is what clients saw (operations, each with when it began and ended), and the
//! [`Change`]s of the store in ascending version, as an exact watch told them. The order of writes is
//! the order of their versions: the answers name them, so nothing is searched for. A *point* is a
//! version: the moment at which that write, and no later one, is in effect. Then:
//! - The changes are truthful (what is added was not there, what is modified or deleted was) and leave
//!   out no version, each +1 (C5).
//! - Wherever a version of an object was seen, its content was the same. (One version, one content.)
//! - Every operation has a point at which its answer is right: a Get of version 5 between 5 and that
//!   object's next change; a List of version 9 at 9 alone, with just the objects, each at its version,
//!   that the changes add up to there; a write at its own version.
//! - Points respect real time: what ended before another began has no later point, and what was seen
//!   before a write began is older than the write.
//! - Reads that began after a fault was observed have a point at or after its decision (C2): those of
//!   that object, and all lists.
//! - No write is lost: a field changes where an acknowledged (or unanswered) write of it changed it,
//!   and nowhere else; with an expected version, that was the one replaced.
//!
//! # Why that is enough
//! Sound: the points are a witness. Sorted by point (a write before what was read there), the operations
//! are a sequential history that gives the same answers, and respects real time. Complete: each
//! operation is given the smallest point that is possible for it, in the order in which they began.
//! Whatever could push it further has begun, so ended, earlier; and a smaller point never forbids what
//! a larger one allows. So where this assignment fails, all do. One exception: a Delete's answer names
//! no version, and takes the first deletion that is free; that is exact unless two Deletes of one
//! object overlap, which the tests avoid. Histories that are linearizable only in an order other than
//! that of their versions are refused, and must be: versions are part of the answer.
//!
//! It takes O(n log n), and 24 bytes an object seen.

mod replay;
mod writes;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;

use replay::Store;
use writes::Writes;

/// Nanoseconds on the clock of the process that records.
pub type Time = u64;
pub type Version = u64;
/// Number of an object's name.
pub type Key = u32;
/// Number of a part of the content that one writer owns, such as a condition type.
pub type Field = u16;

/// One object as an answer showed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub key: Key,
    pub version: Version,
    /// Digest of all that is versioned.
    pub content: u64,
}

/// What a client asked, and was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Read(Seen),
    /// There is no such object.
    Absent(Key),
    /// There is one already.
    Present(Key),
    /// All objects: a List, or the state that a Watch began with.
    List {
        version: Version,
        seen: Box<[Seen]>,
    },
    /// An acknowledged write of a field, or, without one, a creation.
    Wrote {
        seen: Seen,
        field: Option<(Field, u64)>,
        expected: Option<Version>,
    },
    Deleted(Key),
    /// The object's version was another than expected.
    Conflict {
        key: Key,
        expected: Version,
    },
    /// Nobody knows whether it was written.
    Unknown {
        key: Key,
        field: Option<(Field, u64)>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    pub began: Time,
    pub ended: Time,
    pub answer: Answer,
}

/// The content of an object from a version on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    pub digest: u64,
    /// In ascending order.
    pub fields: Box<[(Field, u64)]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Added,
    Modified,
    Deleted,
}

/// One write, as the watch told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub version: Version,
    pub key: Key,
    pub kind: Kind,
    /// Of a deletion: what was deleted.
    pub content: Content,
}

/// Reads of `key` that began after `observed` see `decided` or later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    pub key: Key,
    pub observed: Time,
    pub decided: Version,
}

#[derive(Clone, Debug, Default)]
pub struct History {
    /// The version that `initial` is of.
    pub start: Version,
    pub initial: Vec<(Seen, Content)>,
    /// All changes after `start`.
    pub changes: Vec<Change>,
    pub operations: Vec<Operation>,
    pub faults: Vec<Fault>,
}

/// What was checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub operations: usize,
    pub objects_seen: usize,
    pub changes: usize,
    /// Reads that would have been right with the state of before a fault, had they not begun after it
    /// was observed: those that the barrier is for.
    pub held: usize,
}

/// What is wrong with a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A version is missing, or comes again.
    Gap {
        after: Version,
        next: Version,
    },
    /// Added what was there, or changed or deleted what was not.
    Untruthful(Change),
    /// The version belongs to another object, or to none.
    UnknownVersion(Seen),
    TwoContents {
        seen: Seen,
        told: u64,
    },
    /// Not right at any point from `floor` on: another operation that ended before saw that point.
    Stale {
        operation: Operation,
        floor: Version,
    },
    /// Began after the fault was observed, and has no point from its decision on.
    Early {
        operation: Operation,
        fault: Fault,
    },
    /// The list is not what there was at its version.
    TornList {
        operation: Operation,
    },
    /// Seen before the write began.
    SeenTooSoon {
        operation: Operation,
        floor: Version,
    },
    /// Replaced another version than the writer expected.
    LostUpdate {
        operation: Operation,
        replaced: Option<Version>,
    },
    /// The field is not what was acknowledged, or changed without anybody's write.
    FieldLost {
        version: Version,
        key: Key,
        field: Field,
    },
    /// A deletion that nobody asked for.
    DeletedByNobody {
        version: Version,
        key: Key,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for Violation {}

/// Checks a history.
///
/// # Errors
/// The first [`Violation`] found.
pub fn check(history: &History) -> Result<Verdict, Violation> {
    let store = Store::replay(history)?;
    let mut verdict = Verdict {
        operations: history.operations.len(),
        changes: history.changes.len(),
        ..Verdict::default()
    };
    for operation in &history.operations {
        for seen in operation.answer.seen() {
            store.is_known(seen)?;
            verdict.objects_seen += 1;
        }
    }
    store.lists(history)?;
    verdict.held = sweep(history, &store)?;
    store.fields(history)?;
    Ok(verdict)
}

impl Answer {
    fn seen(&self) -> &[Seen] {
        match self {
            Self::Read(seen) | Self::Wrote { seen, .. } => std::slice::from_ref(seen),
            Self::List { seen, .. } => seen,
            Self::Absent(_)
            | Self::Present(_)
            | Self::Deleted(_)
            | Self::Conflict { .. }
            | Self::Unknown { .. } => &[],
        }
    }
}

/// Gives each operation its point, in the order in which they began. Returns how many reads only a
/// fault kept from an older one.
fn sweep(history: &History, store: &Store<'_>) -> Result<usize, Violation> {
    let mut order: Vec<&Operation> = history.operations.iter().collect();
    order.sort_by_key(|operation| operation.began);
    let mut ended: BinaryHeap<Reverse<(Time, Version)>> = BinaryHeap::new();
    let mut floor = history.start;
    let mut writes = Writes::of(history);
    let mut held = 0;
    for operation in order {
        while let Some(Reverse((_, point))) = ended
            .peek()
            .filter(|Reverse((ended, _))| *ended < operation.began)
        {
            floor = floor.max(*point);
            ended.pop();
        }
        let fault = newest_fault(operation, history);
        let decided = fault.map_or(floor, |fault| fault.decided.max(floor));
        held += usize::from(decided > floor);
        let point = match (writes.point_of(operation, decided, store), fault) {
            // Without the fault it would have been right.
            (Err(Violation::Stale { .. }), Some(fault)) if decided > floor => {
                let operation = operation.clone();
                return Err(Violation::Early { operation, fault });
            }
            (point, _) => point?,
        };
        ended.push(Reverse((operation.ended, point)));
    }
    writes.are_asked_for(history)?;
    Ok(held)
}

/// The last decision that a read must have seen, for when it began.
fn newest_fault(operation: &Operation, history: &History) -> Option<Fault> {
    let concerns = |fault: &&Fault| match &operation.answer {
        Answer::Read(seen) => seen.key == fault.key,
        Answer::List { .. } => true,
        Answer::Absent(_)
        | Answer::Present(_)
        | Answer::Wrote { .. }
        | Answer::Deleted(_)
        | Answer::Conflict { .. }
        | Answer::Unknown { .. } => false,
    };
    let observed = history
        .faults
        .iter()
        .filter(|fault| fault.observed < operation.began);
    observed.filter(concerns).max_by_key(|f| f.decided).copied()
}

#[cfg(test)]
mod tests;
