//! One watch: the changes that its client has not been sent yet. Merged per GPU (design W2), or, for
//! an exact watch, each for itself up to a bound.
//!
//! The hub only notes what changed. What of it a watch selects is found out on the client's side, when it
//! is sent: so a thousand watches with long selectors cost the writers nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use device_api_core::gpu::Gpu;
use device_api_core::ids::{ObjectKey, ResourceVersion};
use device_api_core::ports::WatchStream;
use device_api_core::selector::Selection;
use device_api_core::watch::{Event, EventType, Told, WatchEnd};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::gate::Serial;
use crate::hub::Hub;

/// What became of one GPU since its client was last told of it.
#[derive(Debug)]
struct Change {
    /// What the client knows; `None`: it was not there.
    before: Option<Arc<Gpu>>,
    /// It was deleted meanwhile, for the last time at this version.
    deleted: Option<Arc<Gpu>>,
    /// What it is; `None`: it is gone.
    now: Option<Arc<Gpu>>,
}

impl Change {
    fn of(event: &Event) -> Self {
        let mut change = Self {
            before: event.before.clone(),
            deleted: None,
            now: None,
        };
        change.go_on(event);
        change
    }

    fn go_on(&mut self, event: &Event) {
        match event.type_ {
            EventType::Added | EventType::Modified => self.now = Some(event.gpu.clone()),
            EventType::Deleted => {
                self.deleted = Some(event.gpu.clone());
                self.now = None;
            }
        }
    }

    /// Added and deleted before the client heard of it.
    fn is_void(&self) -> bool {
        self.before.is_none() && self.now.is_none()
    }

    /// What to tell of it. Types stay truthful: added then changed is one `Added`; deleted then
    /// re-created stays both. With selectors, entering is `Added`, leaving is `Deleted` (design W3).
    fn told(self, selection: &Selection) -> impl Iterator<Item = Event> {
        let Self {
            before,
            deleted,
            now,
        } = self;
        let was_in = before.as_ref().is_some_and(|gpu| selection.holds(gpu));
        let now_in = now.as_ref().filter(|gpu| selection.holds(gpu)).cloned();
        let event = |type_, gpu| Event {
            type_,
            gpu,
            before: before.clone(),
        };
        let (first, second) = match (deleted, was_in, now_in) {
            (Some(deleted), true, now_in) => (
                Some(event(EventType::Deleted, deleted)),
                now_in.map(|gpu| event(EventType::Added, gpu)),
            ),
            (Some(_), false, Some(gpu)) | (None, false, Some(gpu)) => {
                (Some(event(EventType::Added, gpu)), None)
            }
            (None, true, Some(gpu)) => (Some(event(EventType::Modified, gpu)), None),
            (None, true, None) => (now.map(|gpu| event(EventType::Deleted, gpu)), None),
            (_, false, None) => (None, None),
        };
        first.into_iter().chain(second)
    }
}

#[derive(Debug)]
enum Changes {
    /// Bounded by the GPUs there are.
    Merged(HashMap<ObjectKey, Change>),
    Exact(Vec<Event>),
}

impl Changes {
    fn new(exact: bool) -> Self {
        if exact {
            Self::Exact(Vec::new())
        } else {
            Self::Merged(HashMap::new())
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Merged(changes) => changes.len(),
            Self::Exact(events) => events.len(),
        }
    }

    /// Says whether it merged with a change that was pending.
    fn push(&mut self, event: &Event) -> bool {
        match self {
            Self::Exact(events) => {
                events.push(event.clone());
                false
            }
            Self::Merged(changes) => match changes.get_mut(&event.gpu.key) {
                None => {
                    changes.insert(event.gpu.key.clone(), Change::of(event));
                    false
                }
                Some(change) => {
                    change.go_on(event);
                    if change.is_void() {
                        changes.remove(&event.gpu.key);
                    }
                    true
                }
            },
        }
    }

    /// Drops what an exact watch does not select.
    fn select(&mut self, selection: &Selection) {
        if let Self::Exact(events) = self {
            events.retain(|event| Change::of(event).told(selection).next().is_some());
        }
    }

    /// What a watch tells of them, in ascending version.
    fn told(self, selection: &Selection) -> Vec<Event> {
        let changes: Vec<Change> = match self {
            Self::Merged(changes) => changes.into_values().collect(),
            Self::Exact(events) => events.iter().map(Change::of).collect(),
        };
        let changes = changes.into_iter();
        let mut events: Vec<Event> = changes.flat_map(|change| change.told(selection)).collect();
        events.sort_by_key(|event| event.gpu.version);
        events
    }
}

#[derive(Debug)]
struct Pending {
    changes: Changes,
    /// Set once: what is pending by then is still told, unless it fell behind.
    end: Option<WatchEnd>,
}

/// The side of the hub.
#[derive(Debug)]
pub(crate) struct Cell {
    selection: Selection,
    /// How many changes an exact watch may be behind.
    exact: Option<usize>,
    pending: Serial<Pending>,
    wake: Notify,
}

impl Cell {
    pub(crate) fn new(selection: Selection, exact: Option<usize>) -> Self {
        let pending = Pending {
            changes: Changes::new(exact.is_some()),
            end: None,
        };
        Self {
            selection,
            exact,
            pending: Serial::new(pending),
            wake: Notify::new(),
        }
    }

    /// Takes one change. Says whether it merged with one that was pending.
    pub(crate) fn push(&self, event: &Event) -> bool {
        if !self.selection.scope.holds(&event.gpu) {
            return false;
        }
        let merged = self.pending.with(|pending| {
            if pending.is_behind() {
                return false;
            }
            let merged = pending.changes.push(event);
            if let Some(max) = self.exact
                && pending.changes.len() > 2 * max
            {
                // Now and then, so that what it does not select costs little, and is not held against it.
                pending.changes.select(&self.selection);
                if pending.changes.len() > max {
                    pending.fall_behind(max);
                }
            }
            merged
        });
        self.wake.notify_one();
        merged
    }

    pub(crate) fn close(&self) {
        self.pending.with(|pending| {
            pending.end.get_or_insert(WatchEnd::Closed);
        });
        self.wake.notify_one();
    }

    fn is_idle(&self) -> bool {
        self.pending.with(|pending| pending.changes.len() == 0)
    }

    /// What is pending; empty: nothing that the watch selects.
    fn take(&self) -> Result<Vec<Event>, WatchEnd> {
        let fresh = Changes::new(self.exact.is_some());
        let (changes, end) = self.pending.with(|pending| {
            let changes = std::mem::replace(&mut pending.changes, fresh);
            (changes, pending.end)
        });
        if let Some(end @ WatchEnd::Behind { .. }) = end {
            return Err(end);
        }
        let events = changes.told(&self.selection);
        match (end, self.exact) {
            (_, Some(max)) if events.len() > max => {
                self.pending.with(|pending| pending.fall_behind(max));
                Err(WatchEnd::Behind { max })
            }
            (Some(end), _) if events.is_empty() => Err(end),
            (Some(_) | None, _) => Ok(events),
        }
    }
}

impl Pending {
    fn is_behind(&self) -> bool {
        matches!(self.end, Some(WatchEnd::Behind { .. }))
    }

    /// What it has not been told is of no use with a gap after it.
    fn fall_behind(&mut self, max: usize) {
        self.changes = Changes::new(true);
        self.end = Some(WatchEnd::Behind { max });
    }
}

/// When an idle watch is told where it is.
#[derive(Debug)]
pub(crate) struct Bookmarks {
    hub: Arc<Serial<Hub>>,
    interval: Duration,
    next: Instant,
    /// Up to here all was told.
    told: ResourceVersion,
    /// The state at the start is still to be marked as told.
    initial: bool,
}

impl Bookmarks {
    /// `at`: the version the watch starts at.
    pub(crate) fn new(
        hub: Arc<Serial<Hub>>,
        interval: Duration,
        at: ResourceVersion,
        initial: bool,
    ) -> Self {
        Self {
            hub,
            interval,
            next: Instant::now() + interval,
            told: at,
            initial,
        }
    }

    /// The newest version, if all up to it was told: under the hub's lock nothing is added meanwhile.
    fn idle(&mut self, cell: &Cell) -> Option<Told> {
        self.next = Instant::now() + self.interval;
        let version = self.hub.with(|hub| cell.is_idle().then(|| hub.newest()))?;
        if version <= self.told {
            return None;
        }
        self.told = version;
        Some(Told::Bookmark {
            version,
            initial: false,
        })
    }
}

/// The side of the client.
#[derive(Debug)]
pub struct Watcher {
    cell: Arc<Cell>,
    bookmarks: Option<Bookmarks>,
    /// The state at the start, or the changes it resumes with, until they are told.
    start: Option<Vec<Event>>,
}

impl Watcher {
    /// `start` came before all that the cell will hold.
    pub(crate) fn new(cell: Arc<Cell>, bookmarks: Option<Bookmarks>, start: Vec<Event>) -> Self {
        Self {
            cell,
            bookmarks,
            start: Some(start),
        }
    }

    fn begin(&mut self) -> Vec<Event> {
        let mut changes = Changes::new(self.cell.exact.is_some());
        for event in self.start.take().unwrap_or_default() {
            changes.push(&event);
        }
        changes.told(&self.cell.selection)
    }

    fn told(&mut self, events: Vec<Event>) -> Told {
        if let (Some(bookmarks), Some(last)) = (&mut self.bookmarks, events.last()) {
            bookmarks.told = bookmarks.told.max(last.gpu.version);
        }
        Told::Changes(events)
    }

    /// The mark that ends the state at the start.
    fn initial_mark(&mut self) -> Option<Told> {
        let bookmarks = self.bookmarks.as_mut()?;
        std::mem::take(&mut bookmarks.initial).then_some(Told::Bookmark {
            version: bookmarks.told,
            initial: true,
        })
    }
}

impl WatchStream for Watcher {
    async fn next(&mut self) -> Result<Told, WatchEnd> {
        if self.start.is_some() {
            let events = self.begin();
            if !events.is_empty() {
                return Ok(self.told(events));
            }
        }
        if let Some(mark) = self.initial_mark() {
            return Ok(mark);
        }
        loop {
            let events = self.cell.take()?;
            if !events.is_empty() {
                return Ok(self.told(events));
            }
            let Some(bookmarks) = &mut self.bookmarks else {
                // A permit left by a push before this await is not lost.
                self.cell.wake.notified().await;
                continue;
            };
            tokio::select! {
                biased;
                () = self.cell.wake.notified() => {}
                () = tokio::time::sleep_until(bookmarks.next) => {
                    if let Some(mark) = bookmarks.idle(&self.cell) {
                        return Ok(mark);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
