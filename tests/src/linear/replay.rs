//! The states that the changes of a history add up to.

use std::collections::{BTreeMap, HashMap};

use super::{Answer, Content, Field, History, Key, Kind, Seen, Version, Violation};

/// One state of one object, from `from` until the next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span<'a> {
    pub(super) from: Version,
    /// `None`: not there.
    pub(super) content: Option<&'a Content>,
    /// What the object held before, also before it was deleted.
    pub(super) before: Option<&'a Content>,
}

/// The states of every object, in ascending version.
#[derive(Debug)]
pub(super) struct Store<'a> {
    pub(super) start: Version,
    end: Version,
    spans: HashMap<Key, Vec<Span<'a>>>,
}

impl<'a> Store<'a> {
    pub(super) fn replay(history: &'a History) -> Result<Self, Violation> {
        let mut spans: HashMap<Key, Vec<Span<'a>>> = HashMap::new();
        for (seen, content) in &history.initial {
            spans.entry(seen.key).or_default().push(Span {
                from: seen.version,
                content: Some(content),
                before: None,
            });
        }
        let mut end = history.start;
        for change in &history.changes {
            if change.version != end + 1 {
                return Err(Violation::Gap {
                    after: end,
                    next: change.version,
                });
            }
            end = change.version;
            let of_key = spans.entry(change.key).or_default();
            let is_there = of_key.last().is_some_and(|last| last.content.is_some());
            if is_there == (change.kind == Kind::Added) {
                return Err(Violation::Untruthful(change.clone()));
            }
            let before = of_key.last().and_then(|last| last.content.or(last.before));
            of_key.push(Span {
                from: change.version,
                content: (change.kind != Kind::Deleted).then_some(&change.content),
                before,
            });
        }
        Ok(Self {
            start: history.start,
            end,
            spans,
        })
    }

    fn spans(&self, key: Key) -> &[Span<'a>] {
        self.spans.get(&key).map_or(&[], Vec::as_slice)
    }

    /// Which span of `key` holds at `point`, if it has begun by then.
    fn index_at(&self, key: Key, point: Version) -> Option<usize> {
        self.spans(key)
            .partition_point(|span| span.from <= point)
            .checked_sub(1)
    }

    pub(super) fn at(&self, key: Key, point: Version) -> Option<Span<'a>> {
        self.spans(key).get(self.index_at(key, point)?).copied()
    }

    /// The span that `seen` is of.
    pub(super) fn is_known(&self, seen: &Seen) -> Result<Span<'a>, Violation> {
        let span = self.at(seen.key, seen.version);
        let span = span.filter(|span| span.from == seen.version);
        let content = span.and_then(|span| span.content);
        match (span, content) {
            (Some(span), Some(content)) if content.digest == seen.content => Ok(span),
            (Some(_), Some(content)) => Err(Violation::TwoContents {
                seen: *seen,
                told: content.digest,
            }),
            (_, None) | (None, _) => Err(Violation::UnknownVersion(*seen)),
        }
    }

    /// The smallest point from `floor` on at which `wanted` holds of the object.
    pub(super) fn first(
        &self,
        key: Key,
        floor: Version,
        wanted: impl Fn(Option<&Span<'a>>) -> bool,
    ) -> Option<Version> {
        let spans = self.spans(key);
        let now = self.index_at(key, floor);
        if wanted(now.and_then(|now| spans.get(now))) {
            return Some(floor);
        }
        let later = spans.get(now.map_or(0, |now| now + 1)..).unwrap_or(&[]);
        later
            .iter()
            .find(|span| wanted(Some(span)))
            .map(|span| span.from)
    }

    /// Whether each list holds what there was. All in one pass over the versions.
    pub(super) fn lists(&self, history: &History) -> Result<(), Violation> {
        let mut lists = Vec::new();
        for operation in &history.operations {
            if let Answer::List { version, seen } = &operation.answer {
                lists.push((*version, seen, operation));
            }
        }
        lists.sort_by_key(|(version, ..)| *version);
        let mut state: BTreeMap<Key, Version> = history
            .initial
            .iter()
            .map(|(seen, _)| (seen.key, seen.version))
            .collect();
        let mut changes = history.changes.iter().peekable();
        for (version, seen, operation) in lists {
            while let Some(change) = changes.next_if(|change| change.version <= version) {
                match change.kind {
                    Kind::Added | Kind::Modified => state.insert(change.key, change.version),
                    Kind::Deleted => state.remove(&change.key),
                };
            }
            let listed: BTreeMap<Key, Version> =
                seen.iter().map(|seen| (seen.key, seen.version)).collect();
            let is_known = (self.start..=self.end).contains(&version);
            if !is_known || listed != state || listed.len() != seen.len() {
                return Err(Violation::TornList {
                    operation: operation.clone(),
                });
            }
        }
        Ok(())
    }

    /// Fields change where their writers changed them.
    pub(super) fn fields(&self, history: &History) -> Result<(), Violation> {
        let mut wrote: HashMap<(Version, Key), (Field, u64)> = HashMap::new();
        let mut perhaps: HashMap<Key, Vec<Option<(Field, u64)>>> = HashMap::new();
        for operation in &history.operations {
            match &operation.answer {
                Answer::Wrote {
                    seen,
                    field: Some((field, value)),
                    ..
                } => {
                    let span = self.is_known(seen)?;
                    if value_of(span.content, *field) != Some(*value) {
                        return Err(lost(seen.version, seen.key, *field));
                    }
                    if value_of(span.before, *field) != Some(*value) {
                        wrote.insert((seen.version, seen.key), (*field, *value));
                    }
                }
                Answer::Unknown { key, field } => perhaps.entry(*key).or_default().push(*field),
                Answer::Wrote { .. }
                | Answer::Read(_)
                | Answer::Absent(_)
                | Answer::Present(_)
                | Answer::List { .. }
                | Answer::Deleted(_)
                | Answer::Conflict { .. } => {}
            }
        }
        for (key, span) in self.spans.iter().flat_map(|(key, spans)| {
            let after_start = move |span: &&Span<'_>| span.from > self.start;
            spans
                .iter()
                .filter(after_start)
                .map(move |span| (*key, span))
        }) {
            let by = wrote.get(&(span.from, key)).copied();
            for (field, value) in differing(span) {
                let change = value.map(|value| (field, value));
                let unanswered = perhaps.get(&key).is_some_and(|p| p.contains(&change));
                if change.is_none() || (by != change && !unanswered) {
                    return Err(lost(span.from, key, field));
                }
            }
        }
        Ok(())
    }
}

fn lost(version: Version, key: Key, field: Field) -> Violation {
    Violation::FieldLost {
        version,
        key,
        field,
    }
}

pub(super) fn value_of(content: Option<&Content>, field: Field) -> Option<u64> {
    let fields = &content?.fields;
    let at = fields
        .binary_search_by_key(&field, |(field, _)| *field)
        .ok()?;
    fields.get(at).map(|(_, value)| *value)
}

/// The fields in which a state differs from the one before, with their new values.
fn differing(span: &Span<'_>) -> Vec<(Field, Option<u64>)> {
    let Some(content) = span.content else {
        return Vec::new();
    };
    let gone = span.before.iter().flat_map(|before| before.fields.iter());
    gone.chain(content.fields.iter())
        .map(|(field, _)| *field)
        .filter(|field| value_of(span.before, *field) != value_of(Some(content), *field))
        .map(|field| (field, value_of(Some(content), field)))
        .collect()
}
