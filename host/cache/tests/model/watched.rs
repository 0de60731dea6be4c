//! A watch beside the cache's own: what it must tell, kept as plainly as possible.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use device_api_cache::Watcher;
use device_api_core::gpu::Gpu;
use device_api_core::ids::ObjectKey;
use device_api_core::ports::WatchStream as _;
use device_api_core::selector::Selection;
use device_api_core::watch::{Event, EventType, Told, WatchEnd};

/// Objects, as of one version.
pub(crate) type Objects = BTreeMap<ObjectKey, Arc<Gpu>>;

/// One change in short: what, of which object, in which version.
type Line = (EventType, ObjectKey, u64);

#[derive(Debug)]
struct Exact {
    pending: Vec<Line>,
    /// Changes that it selects since it was read, and how many there may be.
    behind: usize,
    max: usize,
}

pub(crate) struct Watched {
    watcher: Watcher,
    selection: Selection,
    /// What it has been told of.
    fold: Objects,
    last: u64,
    /// For an exact watch: what it is still to tell.
    exact: Option<Exact>,
    is_behind: bool,
    /// The end of the state at the start is still to be marked (W3).
    owes_mark: bool,
}

/// What an event of the whole store is to a selection.
fn seen_as(selection: &Selection, event: &Event) -> Option<EventType> {
    let is_in = event.type_ != EventType::Deleted && selection.holds(&event.gpu);
    let was_in = event
        .before
        .as_ref()
        .is_some_and(|before| selection.holds(before));
    match (was_in, is_in) {
        (false, true) => Some(EventType::Added),
        (true, true) => Some(EventType::Modified),
        (true, false) => Some(EventType::Deleted),
        (false, false) => None,
    }
}

/// What a selection sees of some events, in short.
fn lines(selection: &Selection, events: &[Event]) -> Vec<Line> {
    let line = |event: &Event| {
        let type_ = seen_as(selection, event)?;
        Some((type_, event.gpu.key.clone(), event.gpu.version.0))
    };
    events.iter().filter_map(line).collect()
}

pub(crate) fn selected(selection: &Selection, objects: &Objects) -> Objects {
    let held = objects.iter().filter(|(_, gpu)| selection.holds(gpu));
    held.map(|(key, gpu)| (key.clone(), gpu.clone())).collect()
}

impl Watched {
    /// `known`: what its client knows already; `start`: what it is to be told first.
    pub(crate) fn new(
        watcher: Watcher,
        selection: Selection,
        known: &Objects,
        version: u64,
        start: &[Event],
        exact: Option<usize>,
    ) -> Self {
        let mut watched = Self {
            watcher,
            fold: selected(&selection, known),
            selection,
            last: version,
            exact: exact.map(|max| Exact {
                pending: Vec::new(),
                behind: 0,
                max,
            }),
            is_behind: false,
            owes_mark: false,
        };
        if let Some(exact) = &mut watched.exact {
            // What it starts with is not what it is behind by.
            exact.pending = lines(&watched.selection, start);
        }
        watched
    }

    /// It asked for bookmarks, and began with the present state.
    pub(crate) fn with_mark(mut self) -> Self {
        self.owes_mark = true;
        self
    }

    /// Something happened in the store.
    pub(crate) fn published(&mut self, events: &[Event]) {
        let Some(exact) = &mut self.exact else {
            return;
        };
        let lines = lines(&self.selection, events);
        exact.behind += lines.len();
        self.is_behind |= exact.behind > exact.max;
        exact.pending.extend(lines);
    }

    /// Reads what it tells, and compares. Says whether it goes on.
    pub(crate) fn check(&mut self, present: &Objects) -> bool {
        let mut events = Vec::new();
        loop {
            let told = {
                let mut next = std::pin::pin!(self.watcher.next());
                next.as_mut().poll(&mut Context::from_waker(Waker::noop()))
            };
            match told {
                Poll::Ready(Ok(Told::Changes(more))) => events.extend(more),
                Poll::Ready(Ok(Told::Bookmark { version, initial })) => {
                    assert!(initial && self.owes_mark, "a mark that nobody waits for");
                    self.owes_mark = false;
                    let newest = events.last().map_or(self.last, |event| event.gpu.version.0);
                    assert!(version.0 >= newest, "the mark is after what was told");
                }
                Poll::Pending => break,
                Poll::Ready(Err(WatchEnd::Behind { .. })) => {
                    assert!(self.is_behind, "an exact watch was ended early");
                    return false;
                }
                Poll::Ready(Err(WatchEnd::Closed)) => panic!("nobody closed it"),
            }
        }
        assert!(
            !self.owes_mark,
            "the state at the start was told, and not its end"
        );
        assert!(!self.is_behind, "a watch that is behind goes on");
        for event in &events {
            self.take(event);
        }
        if let Some(exact) = &mut self.exact {
            exact.behind = 0;
            let told: Vec<_> = events
                .iter()
                .map(|event| (event.type_, event.gpu.key.clone(), event.gpu.version.0))
                .collect();
            assert_eq!(
                told,
                std::mem::take(&mut exact.pending),
                "an exact watch tells each change"
            );
        }
        // Everything that was pending was told at once: so it is up to date.
        let now = selected(&self.selection, present);
        assert_eq!(
            versions(&self.fold),
            versions(&now),
            "what a watch adds up to"
        );
        for (key, gpu) in &now {
            let told = self.fold.get(key).map(|gpu| &gpu.derived);
            assert_eq!(told, Some(&gpu.derived));
        }
        true
    }

    /// Types are truthful to what it has told before (W2), versions only rise (W3).
    fn take(&mut self, event: &Event) {
        let gpu = &event.gpu;
        assert!(
            gpu.version.0 > self.last,
            "version {} after {}",
            gpu.version,
            self.last
        );
        self.last = gpu.version.0;
        let is_known = self.fold.contains_key(&gpu.key);
        assert_eq!(
            is_known,
            event.type_ != EventType::Added,
            "{:?} of {} untruthful",
            event.type_,
            gpu.key
        );
        match event.type_ {
            EventType::Added | EventType::Modified => {
                assert!(self.selection.holds(gpu), "told of what is not selected");
                self.fold.insert(gpu.key.clone(), gpu.clone());
            }
            EventType::Deleted => {
                self.fold.remove(&gpu.key);
            }
        }
    }
}

pub(crate) fn versions(objects: &Objects) -> Vec<(ObjectKey, u64)> {
    objects
        .iter()
        .map(|(key, gpu)| (key.clone(), gpu.version.0))
        .collect()
}
