//! The hub: writers pass it one at a time; it keeps the history and tells the watchers.
//!
//! Watchers are told outside the gate, so a thousand of them never hold a reader.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use device_api_core::error::ApiError;
use device_api_core::gpu::Encodings;
use device_api_core::ids::ResourceVersion;
use device_api_core::limits;
use device_api_core::watch::Event;

use crate::state::text_bytes;
use crate::watcher::Cell;

/// Text that an event keeps: its conditions, and once more as each dialect encodes them.
fn bytes(event: &Event) -> usize {
    let conditions = event.gpu.conditions.iter();
    conditions.map(text_bytes).sum::<usize>() * (1 + Encodings::SLOTS)
}

#[derive(Debug)]
pub(crate) struct Hub {
    watchers: Vec<Weak<Cell>>,
    history: VecDeque<Event>,
    history_max: usize,
    /// Text in the history.
    history_bytes: usize,
    /// Changes after this version are all in the history.
    oldest: ResourceVersion,
    /// The first version of this run. Between it and `oldest`, where that is of the run before, lie
    /// versions that may have been seen and did not survive.
    first: ResourceVersion,
    newest: ResourceVersion,
    closed: bool,
}

impl Hub {
    /// `oldest` is the version that the run before left durable, where there is one.
    pub(crate) fn new(
        first: ResourceVersion,
        oldest: Option<ResourceVersion>,
        history_max: usize,
    ) -> Self {
        Self {
            watchers: Vec::new(),
            history: VecDeque::new(),
            history_max,
            history_bytes: 0,
            oldest: oldest.unwrap_or(first),
            first,
            newest: first,
            closed: false,
        }
    }

    pub(crate) fn newest(&self) -> ResourceVersion {
        self.newest
    }

    /// Tells the watchers, in the order of versions. Returns how many changes merged into one that
    /// a slow watcher had not been sent yet.
    pub(crate) fn publish(&mut self, events: Vec<Event>, newest: ResourceVersion) -> usize {
        self.newest = newest;
        if events.is_empty() {
            return 0;
        }
        let mut merges = 0;
        self.watchers.retain(|watcher| {
            let Some(cell) = watcher.upgrade() else {
                return false;
            };
            merges += events.iter().filter(|event| cell.push(event)).count();
            true
        });
        self.keep(events);
        merges
    }

    /// Adds to the history; the oldest makes room.
    pub(crate) fn keep(&mut self, events: Vec<Event>) {
        for event in events {
            self.newest = self.newest.max(event.gpu.version);
            self.history_bytes += bytes(&event);
            self.history.push_back(event);
            while (self.history.len() > self.history_max
                || self.history_bytes > limits::HISTORY_BYTES_MAX)
                && let Some(oldest) = self.history.pop_front()
            {
                self.history_bytes -= bytes(&oldest);
                self.oldest = oldest.gpu.version;
            }
        }
    }

    /// The changes after `version`.
    ///
    /// # Errors
    /// [`ApiError::OutOfRange`] where the history does not reach, or the version is not known to
    /// have survived.
    pub(crate) fn since(&self, version: ResourceVersion) -> Result<Vec<Event>, ApiError> {
        let lost = self.oldest < version && version < self.first;
        if version < self.oldest || version > self.newest || lost {
            return Err(ApiError::OutOfRange {
                asked: version,
                oldest: self.oldest,
                newest: self.newest,
            });
        }
        let from = self
            .history
            .partition_point(|event| event.gpu.version <= version);
        Ok(self.history.range(from..).cloned().collect())
    }

    pub(crate) fn register(&mut self, cell: &Arc<Cell>) {
        if self.closed {
            cell.close();
        } else {
            // Those that are gone make room before the list grows, also where nobody writes.
            if self.watchers.len() == self.watchers.capacity() {
                self.watchers.retain(|watcher| watcher.strong_count() > 0);
            }
            self.watchers.push(Arc::downgrade(cell));
        }
    }

    pub(crate) fn close(&mut self) {
        self.closed = true;
        for cell in self
            .watchers
            .drain(..)
            .filter_map(|watcher| watcher.upgrade())
        {
            cell.close();
        }
    }
}
