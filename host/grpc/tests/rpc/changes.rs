//! Watches of the small store: its history, read on from a version.

use std::sync::{Arc, Mutex};

use device_api_core::ids::ResourceVersion;
use device_api_core::ports::WatchStream;
use device_api_core::selector::Selection;
use device_api_core::watch::{Event, EventType, Told, WatchEnd, WatchRequest};
use tokio::sync::watch;

use crate::store::State;

/// Changes that an exact watch of this store may be behind.
pub(crate) const EXACT_MAX: usize = 8;

#[derive(Debug)]
pub(crate) struct Changes {
    state: Arc<Mutex<State>>,
    written: watch::Receiver<u64>,
    request: WatchRequest,
    initial: Vec<Event>,
    /// The end of the initial state is to be told.
    opening: bool,
    after: ResourceVersion,
}

impl Changes {
    pub(crate) fn new(
        state: Arc<Mutex<State>>,
        written: watch::Receiver<u64>,
        request: WatchRequest,
        initial: Option<Vec<Event>>,
        after: ResourceVersion,
    ) -> Self {
        Self {
            state,
            written,
            opening: initial.is_some() && request.bookmarks,
            request,
            initial: initial.unwrap_or_default(),
            after,
        }
    }
}

impl WatchStream for Changes {
    async fn next(&mut self) -> Result<Told, WatchEnd> {
        if !self.initial.is_empty() {
            return Ok(Told::Changes(std::mem::take(&mut self.initial)));
        }
        let version = self.after;
        if std::mem::take(&mut self.opening) {
            let initial = true;
            return Ok(Told::Bookmark { version, initial });
        }
        loop {
            let newer = |version: &u64| *version > self.after.0;
            if self.written.wait_for(newer).await.is_err() {
                return Err(WatchEnd::Closed);
            }
            let state = self.state.lock().expect("no test panics under it");
            let new = state
                .history
                .iter()
                .filter(|event| event.gpu.version > self.after)
                .filter_map(|event| selected(&self.request.selection, event));
            let set: Vec<_> = new.collect();
            self.after = ResourceVersion(state.version);
            if self.request.exact && set.len() > EXACT_MAX {
                return Err(WatchEnd::Behind { max: EXACT_MAX });
            }
            if !set.is_empty() {
                return Ok(Told::Changes(set));
            }
            if self.request.bookmarks {
                let (version, initial) = (self.after, false);
                return Ok(Told::Bookmark { version, initial });
            }
        }
    }
}

/// Entering is `Added`, leaving `Deleted` (design W3).
fn selected(selection: &Selection, event: &Event) -> Option<Event> {
    let holds = |gpu: &Arc<_>| selection.holds(gpu);
    let before = event.before.as_ref().is_some_and(holds);
    let after = event.type_ != EventType::Deleted && holds(&event.gpu);
    let type_ = match (before, after) {
        (false, false) => return None,
        (false, true) => EventType::Added,
        (true, true) => EventType::Modified,
        (true, false) => EventType::Deleted,
    };
    Some(Event {
        type_,
        ..event.clone()
    })
}
