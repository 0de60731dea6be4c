//! One watch: the changes that its client has not been sent yet. Merged per GPU (design W2), or, for
//! an exact watch, each for itself up to a bound.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use device_api_core::ids::{ObjectKey, ResourceVersion};
use device_api_core::ports::WatchStream;
use device_api_core::selector::Selection;
use device_api_core::watch::{Event, EventType, Told, WatchEnd};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::gate::Serial;
use crate::hub::Hub;

/// What of one GPU is still to be told. At most two events, so the set is bounded by the GPUs.
#[derive(Clone, Debug)]
enum Change {
    Added(Event),
    Modified(Event),
    Deleted(Event),
    Replaced { deleted: Event, added: Event },
}

#[derive(Debug)]
enum Changes {
    Merged(HashMap<ObjectKey, Change>),
    /// In ascending version, at most `max`.
    Exact {
        events: Vec<Event>,
        max: usize,
    },
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
    pending: Serial<Pending>,
    wake: Notify,
}

impl Cell {
    /// `exact`: how many changes it may be behind. The changes it starts with don't count.
    pub(crate) fn new(
        selection: Selection,
        exact: Option<usize>,
        start: impl IntoIterator<Item = Event>,
    ) -> Self {
        let start = start.into_iter();
        let changes = match exact {
            None => Changes::Merged(HashMap::new()),
            Some(_) => Changes::Exact {
                events: Vec::new(),
                max: usize::MAX,
            },
        };
        let cell = Self {
            selection,
            pending: Serial::new(Pending { changes, end: None }),
            wake: Notify::new(),
        };
        for event in start {
            cell.push(&event);
        }
        cell.pending.with(|pending| {
            if let (Changes::Exact { events, max }, Some(behind)) = (&mut pending.changes, exact) {
                *max = events.len().saturating_add(behind);
            }
        });
        cell
    }

    /// Takes one change, as this watch sees it. Says whether it merged with one that was pending.
    pub(crate) fn push(&self, event: &Event) -> bool {
        let Some(type_) = self.seen_as(event) else {
            return false;
        };
        let event = Event {
            type_,
            ..event.clone()
        };
        let merged = self.pending.with(|pending| pending.push(event));
        self.wake.notify_one();
        merged
    }

    /// With selectors, entering is `Added` and leaving is `Deleted` (design W3).
    fn seen_as(&self, event: &Event) -> Option<EventType> {
        let is_in = self.selection.holds(&event.gpu);
        let was_in = || {
            event
                .before
                .as_ref()
                .is_some_and(|before| self.selection.holds(before))
        };
        match event.type_ {
            EventType::Added => is_in.then_some(EventType::Added),
            EventType::Deleted => is_in.then_some(EventType::Deleted),
            EventType::Modified => match (was_in(), is_in) {
                (true, true) => Some(EventType::Modified),
                (false, true) => Some(EventType::Added),
                (true, false) => Some(EventType::Deleted),
                (false, false) => None,
            },
        }
    }

    pub(crate) fn close(&self) {
        self.pending.with(|pending| {
            pending.end.get_or_insert(WatchEnd::Closed);
        });
        self.wake.notify_one();
    }

    fn is_idle(&self) -> bool {
        self.pending.with(|pending| match &pending.changes {
            Changes::Merged(changes) => changes.is_empty(),
            Changes::Exact { events, .. } => events.is_empty(),
        })
    }

    /// What is pending; empty: nothing is.
    fn take(&self) -> Result<Vec<Event>, WatchEnd> {
        let (events, end) = self
            .pending
            .with(|pending| (pending.changes.take(), pending.end));
        match end {
            Some(WatchEnd::Closed) if !events.is_empty() => Ok(events),
            Some(end) => Err(end),
            None => Ok(events),
        }
    }
}

impl Pending {
    fn push(&mut self, event: Event) -> bool {
        match &mut self.changes {
            Changes::Merged(changes) => {
                let key = event.gpu.key.clone();
                let before = changes.remove(&key);
                let merged = before.is_some();
                if let Some(after) = merge(before, event) {
                    changes.insert(key, after);
                }
                merged
            }
            Changes::Exact { events, max } if events.len() < *max => {
                events.push(event);
                false
            }
            Changes::Exact { events, max } => {
                // What it has not been told is of no use with a gap after it.
                *events = Vec::new();
                self.end.get_or_insert(WatchEnd::Behind { max: *max });
                false
            }
        }
    }
}

impl Changes {
    fn take(&mut self) -> Vec<Event> {
        match self {
            Self::Merged(changes) => {
                let mut events: Vec<Event> = std::mem::take(changes)
                    .into_values()
                    .flat_map(Change::into_events)
                    .collect();
                events.sort_by_key(|event| event.gpu.version);
                events
            }
            Self::Exact { events, .. } => std::mem::take(events),
        }
    }
}

impl Change {
    fn into_events(self) -> impl Iterator<Item = Event> {
        let (first, second) = match self {
            Self::Added(event) | Self::Modified(event) | Self::Deleted(event) => (event, None),
            Self::Replaced { deleted, added } => (deleted, Some(added)),
        };
        std::iter::once(first).chain(second)
    }
}

/// Types stay truthful: added then changed is one `Added`; deleted then re-created stays both;
/// added then deleted, before the client heard of it, is nothing.
fn merge(before: Option<Change>, event: Event) -> Option<Change> {
    let as_ = |type_, event: Event| Event { type_, ..event };
    match (before, event.type_) {
        (None | Some(Change::Modified(_)), EventType::Modified) => Some(Change::Modified(event)),
        (None, EventType::Added) => Some(Change::Added(event)),
        (None | Some(Change::Modified(_)), EventType::Deleted) => Some(Change::Deleted(event)),
        (Some(Change::Added(_)), EventType::Deleted) => None,
        (Some(Change::Added(_)), EventType::Added | EventType::Modified) => {
            Some(Change::Added(as_(EventType::Added, event)))
        }
        (Some(Change::Modified(_)), EventType::Added) => {
            Some(Change::Modified(as_(EventType::Modified, event)))
        }
        (
            Some(Change::Deleted(deleted) | Change::Replaced { deleted, .. }),
            EventType::Added | EventType::Modified,
        ) => Some(Change::Replaced {
            deleted,
            added: as_(EventType::Added, event),
        }),
        (Some(Change::Deleted(_) | Change::Replaced { .. }), EventType::Deleted) => {
            Some(Change::Deleted(event))
        }
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
    /// The state at the start, or the changes it resumes with, were told.
    has_begun: bool,
}

impl Watcher {
    pub(crate) fn new(cell: Arc<Cell>, bookmarks: Option<Bookmarks>) -> Self {
        Self {
            cell,
            bookmarks,
            has_begun: false,
        }
    }

    fn told(&mut self, events: Vec<Event>) -> Told {
        self.has_begun = true;
        if let (Some(bookmarks), Some(last)) = (&mut self.bookmarks, events.last()) {
            bookmarks.told = bookmarks.told.max(last.gpu.version);
        }
        Told::Changes(events)
    }

    /// The mark that ends the state at the start.
    fn initial_mark(&mut self) -> Option<Told> {
        if !self.has_begun && !self.cell.is_idle() {
            return None;
        }
        let bookmarks = self.bookmarks.as_mut()?;
        std::mem::take(&mut bookmarks.initial).then_some(Told::Bookmark {
            version: bookmarks.told,
            initial: true,
        })
    }
}

impl WatchStream for Watcher {
    async fn next(&mut self) -> Result<Told, WatchEnd> {
        loop {
            if let Some(mark) = self.initial_mark() {
                return Ok(mark);
            }
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
mod tests {
    use device_api_core::clock::WallTime;
    use device_api_core::device::DeviceInfo;
    use device_api_core::health::{Derived, Health};
    use device_api_core::ids::DeviceUuid;

    use device_api_core::gpu::Gpu;

    use super::*;

    fn event(type_: EventType, version: u64) -> Event {
        let uuid = DeviceUuid::new("GPU-0");
        let gpu = Arc::new(Gpu {
            key: ObjectKey::new("", "gpu-0"),
            uid: "uid".into(),
            generation: 1,
            created: WallTime::default(),
            version: ResourceVersion(version),
            uuid: uuid.clone(),
            device: Arc::new(DeviceInfo::bare(uuid)),
            conditions: [].into(),
            derived: Derived::default(),
            ready_since: WallTime::default(),
            encoded: Default::default(),
        });
        Event {
            type_,
            before: (type_ != EventType::Added).then(|| gpu.clone()),
            gpu,
        }
    }

    #[track_caller]
    fn check(input: &[(EventType, u64)], expected: &[(EventType, u64)]) {
        let cell = Cell::new(
            Selection::all(),
            None,
            input.iter().map(|(type_, version)| event(*type_, *version)),
        );
        let events = cell.take().expect("open");
        let told: Vec<_> = events
            .iter()
            .map(|event| (event.type_, event.gpu.version.0))
            .collect();
        assert_eq!(told, expected);
    }

    #[test]
    fn w2_merged_changes_keep_truthful_types() {
        use EventType::{Added, Deleted, Modified};
        check(&[(Added, 1)], &[(Added, 1)]);
        check(&[(Added, 1), (Modified, 2), (Modified, 3)], &[(Added, 3)]);
        check(&[(Modified, 2), (Modified, 3)], &[(Modified, 3)]);
        check(&[(Modified, 2), (Deleted, 3)], &[(Deleted, 3)]);
        check(&[(Added, 1), (Deleted, 2)], &[]);
        check(&[(Deleted, 2), (Added, 3)], &[(Deleted, 2), (Added, 3)]);
        check(
            &[(Deleted, 2), (Added, 3), (Modified, 4)],
            &[(Deleted, 2), (Added, 4)],
        );
        check(&[(Deleted, 2), (Added, 3), (Deleted, 4)], &[(Deleted, 4)]);
        check(&[(Added, 1), (Deleted, 2), (Added, 3)], &[(Added, 3)]);
    }

    #[test]
    fn w2_an_exact_watch_tells_each_change_or_ends() {
        let all = || Cell::new(Selection::all(), Some(2), []);
        let cell = all();
        for version in 1..=2 {
            cell.push(&event(EventType::Added, version));
        }
        assert_eq!(cell.take().map(|events| events.len()), Ok(2));
        for version in 3..=5 {
            cell.push(&event(EventType::Added, version));
        }
        assert_eq!(cell.take(), Err(WatchEnd::Behind { max: 2 }));
        assert_eq!(cell.take(), Err(WatchEnd::Behind { max: 2 }), "for good");
    }

    #[test]
    fn w3_entering_a_selection_is_added_and_leaving_it_deleted() {
        let selection = Selection {
            fields: device_api_core::selector::fields("status.health=Unhealthy").expect("fits"),
            ..Selection::all()
        };
        let with = |health, version| {
            let mut gpu = Gpu::clone(&event(EventType::Added, version).gpu);
            gpu.derived.health = health;
            Arc::new(gpu)
        };
        let (healthy, unhealthy) = (with(Health::Healthy, 1), with(Health::Unhealthy, 2));
        #[track_caller]
        fn check(
            selection: &Selection,
            type_: EventType,
            before: Option<&Arc<Gpu>>,
            gpu: &Arc<Gpu>,
            expected: Option<EventType>,
        ) {
            let cell = Cell::new(selection.clone(), None, []);
            assert_eq!(
                cell.seen_as(&Event {
                    type_,
                    gpu: gpu.clone(),
                    before: before.cloned(),
                }),
                expected
            );
        }
        use EventType::{Added, Deleted, Modified};
        check(&selection, Added, None, &unhealthy, Some(Added));
        check(&selection, Added, None, &healthy, None);
        check(
            &selection,
            Modified,
            Some(&healthy),
            &unhealthy,
            Some(Added),
        );
        check(
            &selection,
            Modified,
            Some(&unhealthy),
            &healthy,
            Some(Deleted),
        );
        check(
            &selection,
            Modified,
            Some(&unhealthy),
            &unhealthy,
            Some(Modified),
        );
        check(&selection, Modified, Some(&healthy), &healthy, None);
        check(
            &selection,
            Deleted,
            Some(&unhealthy),
            &unhealthy,
            Some(Deleted),
        );
        check(&selection, Deleted, Some(&healthy), &healthy, None);
    }

    #[tokio::test(start_paused = true)]
    async fn w3_bookmarks_mark_the_end_of_the_state_and_where_an_idle_watch_is() {
        let hub = Arc::new(Serial::new(Hub::new(ResourceVersion(1), None, 8)));
        let cell = Arc::new(Cell::new(
            Selection::all(),
            None,
            [event(EventType::Added, 1)],
        ));
        hub.with(|hub| hub.register(&cell));
        let at = ResourceVersion(1);
        let bookmarks = Bookmarks::new(hub.clone(), Duration::from_secs(30), at, true);
        let mut watcher = Watcher::new(cell, Some(bookmarks));
        let mark = |version, initial| {
            Ok(Told::Bookmark {
                version: ResourceVersion(version),
                initial,
            })
        };
        assert!(matches!(watcher.next().await, Ok(Told::Changes(_))));
        assert_eq!(watcher.next().await, mark(1, true));
        // Something it does not watch.
        hub.with(|hub| hub.publish(Vec::new(), ResourceVersion(7)));
        let started = Instant::now();
        assert_eq!(watcher.next().await, mark(7, false));
        assert_eq!(started.elapsed(), Duration::from_secs(30));
        // A change that waits is told before any mark.
        hub.with(|hub| hub.publish(vec![event(EventType::Modified, 8)], ResourceVersion(8)));
        tokio::time::advance(Duration::from_secs(31)).await;
        assert!(matches!(watcher.next().await, Ok(Told::Changes(_))));
    }

    #[tokio::test]
    async fn a_closed_watch_tells_what_is_left_and_ends() {
        let cell = Arc::new(Cell::new(
            Selection::all(),
            None,
            [event(EventType::Added, 1)],
        ));
        cell.close();
        let mut watcher = Watcher::new(cell, None);
        assert!(matches!(watcher.next().await, Ok(Told::Changes(_))));
        assert_eq!(watcher.next().await, Err(WatchEnd::Closed));
    }
}
