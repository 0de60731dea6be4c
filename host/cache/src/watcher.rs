//! One watch: the changes that its client has not been sent yet, merged per GPU (design W2).

use std::collections::HashMap;
use std::sync::Arc;

use device_api_core::gpu::Gpu;
use device_api_core::ids::ObjectKey;
use device_api_core::ports::WatchStream;
use device_api_core::watch::{Event, EventType, Scope};
use tokio::sync::Notify;

use crate::gate::Serial;

/// What of one GPU is still to be told. At most two events, so the set is bounded by the GPUs.
#[derive(Clone, Debug)]
enum Change {
    Added(Arc<Gpu>),
    Modified(Arc<Gpu>),
    Deleted(Arc<Gpu>),
    Replaced { deleted: Arc<Gpu>, added: Arc<Gpu> },
}

#[derive(Debug, Default)]
struct Pending {
    changes: HashMap<ObjectKey, Change>,
    closed: bool,
}

/// The side of the hub.
#[derive(Debug)]
pub(crate) struct Cell {
    scope: Scope,
    pending: Serial<Pending>,
    wake: Notify,
}

impl Cell {
    pub(crate) fn new(scope: Scope, start: impl IntoIterator<Item = Event>) -> Self {
        let cell = Self {
            scope,
            pending: Serial::new(Pending::default()),
            wake: Notify::new(),
        };
        for event in start {
            cell.push(&event);
        }
        cell
    }

    /// Merges one change into what is pending. Says whether something was already pending for
    /// that GPU: a merge.
    pub(crate) fn push(&self, event: &Event) -> bool {
        if !self.scope.holds(&event.gpu) {
            return false;
        }
        let merged = self.pending.with(|pending| {
            let before = pending.changes.remove(&event.gpu.key);
            let was_pending = before.is_some();
            if let Some(after) = merge(before, event) {
                pending.changes.insert(event.gpu.key.clone(), after);
            }
            was_pending
        });
        self.wake.notify_one();
        merged
    }

    pub(crate) fn close(&self) {
        self.pending.with(|pending| pending.closed = true);
        self.wake.notify_one();
    }

    fn take(&self) -> Option<Vec<Event>> {
        let (changes, closed) = self
            .pending
            .with(|pending| (std::mem::take(&mut pending.changes), pending.closed));
        if changes.is_empty() && closed {
            return None;
        }
        let mut events: Vec<Event> = changes
            .into_values()
            .flat_map(Change::into_events)
            .collect();
        events.sort_by_key(|event| event.gpu.version);
        Some(events)
    }
}

impl Change {
    fn into_events(self) -> impl Iterator<Item = Event> {
        let event = |type_, gpu| Event { type_, gpu };
        let (first, second) = match self {
            Self::Added(gpu) => (event(EventType::Added, gpu), None),
            Self::Modified(gpu) => (event(EventType::Modified, gpu), None),
            Self::Deleted(gpu) => (event(EventType::Deleted, gpu), None),
            Self::Replaced { deleted, added } => (
                event(EventType::Deleted, deleted),
                Some(event(EventType::Added, added)),
            ),
        };
        std::iter::once(first).chain(second)
    }
}

/// Types stay truthful: added then changed is one `Added`; deleted then re-created stays both;
/// added then deleted, before the client heard of it, is nothing.
fn merge(before: Option<Change>, event: &Event) -> Option<Change> {
    let gpu = event.gpu.clone();
    match (before, event.type_) {
        (None | Some(Change::Modified(_)), EventType::Modified) => Some(Change::Modified(gpu)),
        (None, EventType::Added) => Some(Change::Added(gpu)),
        (None | Some(Change::Modified(_)), EventType::Deleted) => Some(Change::Deleted(gpu)),
        (Some(Change::Added(_)), EventType::Deleted) => None,
        (Some(Change::Added(_)), EventType::Added | EventType::Modified) => {
            Some(Change::Added(gpu))
        }
        (Some(Change::Modified(_)), EventType::Added) => Some(Change::Modified(gpu)),
        (
            Some(Change::Deleted(deleted) | Change::Replaced { deleted, .. }),
            EventType::Added | EventType::Modified,
        ) => Some(Change::Replaced {
            deleted,
            added: gpu,
        }),
        (Some(Change::Deleted(_) | Change::Replaced { .. }), EventType::Deleted) => {
            Some(Change::Deleted(gpu))
        }
    }
}

/// The side of the client.
#[derive(Debug)]
pub struct Watcher {
    cell: Arc<Cell>,
}

impl Watcher {
    pub(crate) fn new(cell: Arc<Cell>) -> Self {
        Self { cell }
    }
}

impl WatchStream for Watcher {
    async fn next(&mut self) -> Option<Vec<Event>> {
        loop {
            let events = self.cell.take()?;
            if !events.is_empty() {
                return Some(events);
            }
            // A permit left by a push before this await is not lost.
            self.cell.wake.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use device_api_core::clock::WallTime;
    use device_api_core::device::DeviceInfo;
    use device_api_core::health::Derived;
    use device_api_core::ids::{DeviceUuid, ResourceVersion};

    use super::*;

    fn event(type_: EventType, version: u64) -> Event {
        let uuid = DeviceUuid::new("GPU-0");
        Event {
            type_,
            gpu: Arc::new(Gpu {
                key: ObjectKey::new("", "gpu-0"),
                uid: "uid".into(),
                generation: 1,
                created: WallTime::default(),
                version: ResourceVersion(version),
                uuid: uuid.clone(),
                device: Arc::new(DeviceInfo::bare(uuid)),
                conditions: Vec::new(),
                derived: Derived::default(),
                ready_since: WallTime::default(),
            }),
        }
    }

    #[track_caller]
    fn check(input: &[(EventType, u64)], expected: &[(EventType, u64)]) {
        let cell = Cell::new(
            Scope::All,
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

    #[tokio::test]
    async fn a_closed_watch_tells_what_is_left_and_ends() {
        let cell = Arc::new(Cell::new(Scope::All, [event(EventType::Added, 1)]));
        cell.close();
        let mut watcher = Watcher::new(cell);
        assert_eq!(watcher.next().await.map(|events| events.len()), Some(1));
        assert_eq!(watcher.next().await, None);
    }
}
