//! The locks of the cache: the one file of the house that names `parking_lot`.
//!
//! Version 0.12 is pinned: a waiting writer blocks new readers (writer preference), and eventual
//! fairness bounds how long a reader waits beside a hot writer. 0.13 dropped the second.
//!
//! `tests/interleaving.rs` compiles this file and `barrier.rs` once more, on locks whose every
//! interleaving a model checker tries. So the unit tests, which need the real ones, are in
//! `gate_tests.rs` and `barrier_tests.rs`.

use std::fmt;

use device_api_core::clock::Clock;
use parking_lot::{Mutex, RwLock};

use crate::CacheObserver;

/// A reader-writer lock that gives its content to closures only: no guard to hold across an await.
///
/// A closure must not enter the same gate again: a writer may wait between the two.
pub(crate) struct Gate<T> {
    lock: RwLock<T>,
}

impl<T> Gate<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            lock: RwLock::new(value),
        }
    }

    /// Reads. Waits while a writer holds the gate or waits for it; a wait is told to the observer.
    pub(crate) fn read<R>(
        &self,
        clock: &dyn Clock,
        observer: &dyn CacheObserver,
        f: impl FnOnce(&T) -> R,
    ) -> R {
        let guard = self.lock.try_read().unwrap_or_else(|| {
            let started = clock.boot();
            let guard = self.lock.read();
            observer.gate_wait(false, clock.boot().since(started));
            guard
        });
        f(&guard)
    }

    /// Writes. New readers wait from now on, so the writer's wait is bounded by the longest read.
    pub(crate) fn write<R>(
        &self,
        clock: &dyn Clock,
        observer: &dyn CacheObserver,
        f: impl FnOnce(&mut T) -> R,
    ) -> R {
        let mut guard = self.lock.try_write().unwrap_or_else(|| {
            let started = clock.boot();
            let guard = self.lock.write();
            observer.gate_wait(true, clock.boot().since(started));
            guard
        });
        f(&mut guard)
    }
}

#[cfg(test)]
impl<T> Gate<T> {
    /// Whether a reader that comes now would have to wait.
    pub(crate) fn keeps_readers_out(&self) -> bool {
        self.lock.try_read().is_none()
    }
}

impl<T> fmt::Debug for Gate<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}

/// A mutex that gives its content to closures only.
pub(crate) struct Serial<T> {
    lock: Mutex<T>,
}

impl<T> Serial<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            lock: Mutex::new(value),
        }
    }

    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        f(&mut self.lock.lock())
    }
}

impl<T> fmt::Debug for Serial<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serial").finish_non_exhaustive()
    }
}
