//! The hub: writers pass it one at a time; it keeps the history and tells the watchers.
//!
//! Watchers are told outside the gate, so a thousand of them never hold a reader.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use device_api_core::error::ApiError;
use device_api_core::ids::ResourceVersion;
use device_api_core::limits;
use device_api_core::watch::Event;

use crate::watcher::Cell;

#[derive(Debug)]
pub(crate) struct Hub {
    watchers: Vec<Weak<Cell>>,
    history: VecDeque<Event>,
    /// Changes after this version are all in the history.
    oldest: ResourceVersion,
    closed: bool,
}

impl Hub {
    pub(crate) fn new(start: ResourceVersion) -> Self {
        Self {
            watchers: Vec::new(),
            history: VecDeque::new(),
            oldest: start,
            closed: false,
        }
    }

    /// Tells the watchers, in the order of versions. Returns how many changes merged into one that
    /// a slow watcher had not been sent yet.
    pub(crate) fn publish(&mut self, events: Vec<Event>) -> usize {
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
        for event in events {
            if self.history.len() == limits::HISTORY_EVENTS_MAX
                && let Some(oldest) = self.history.pop_front()
            {
                self.oldest = oldest.gpu.version;
            }
            self.history.push_back(event);
        }
        merges
    }

    /// The changes after `version`.
    ///
    /// # Errors
    /// [`ApiError::OutOfRange`] where the history does not reach, or nobody was ever given it.
    pub(crate) fn since(
        &self,
        version: ResourceVersion,
        newest: ResourceVersion,
    ) -> Result<Vec<Event>, ApiError> {
        if version < self.oldest || version > newest {
            return Err(ApiError::OutOfRange {
                asked: version,
                oldest: self.oldest,
                newest,
            });
        }
        Ok(self
            .history
            .iter()
            .filter(|event| event.gpu.version > version)
            .cloned()
            .collect())
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
