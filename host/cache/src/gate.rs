//! The locks of the cache: the one file of the house that names `parking_lot`.
//!
//! Version 0.12 is pinned: a waiting writer blocks new readers (writer preference), and eventual
//! fairness bounds how long a reader waits beside a hot writer. 0.13 dropped the second.

use std::fmt;

use device_api_core::clock::Clock;
use parking_lot::{Mutex, RwLock};

use crate::store::CacheObserver;

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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc;
    use std::thread;

    use device_api_core::clock::ManualClock;

    use super::*;
    use crate::store::Unobserved;

    /// C4: a writer that waits keeps new readers out. The pinned lock's promise, tested.
    #[test]
    fn c4_a_waiting_writer_blocks_new_readers() {
        let gate = Arc::new(Gate::new(0_u32));
        let clock = Arc::new(ManualClock::default());
        let (release, held) = mpsc::channel::<()>();
        let (inside, entered) = mpsc::channel::<()>();
        let first = thread::spawn({
            let (gate, clock) = (gate.clone(), clock.clone());
            move || {
                gate.read(&*clock, &Unobserved, |_| {
                    inside.send(()).expect("test waits");
                    held.recv().expect("test releases");
                })
            }
        });
        entered.recv().expect("first reader is inside");
        let written = Arc::new(AtomicBool::new(false));
        let writer = thread::spawn({
            let (gate, clock, written) = (gate.clone(), clock.clone(), written.clone());
            move || {
                gate.write(&*clock, &Unobserved, |value| {
                    written.store(true, Ordering::SeqCst);
                    *value = 1;
                })
            }
        });
        // The writer is queued as soon as the lock refuses a new reader: that is the promise.
        while gate.lock.try_read().is_some() {
            thread::yield_now();
        }
        assert!(
            !written.load(Ordering::SeqCst),
            "the first reader still holds the gate"
        );
        let second = thread::spawn({
            let (gate, clock) = (gate.clone(), clock.clone());
            move || gate.read(&*clock, &Unobserved, |value| *value)
        });
        release.send(()).expect("first reader waits");
        first.join().expect("first reader");
        writer.join().expect("writer");
        assert_eq!(
            second.join().expect("second reader"),
            1,
            "the reader that came after the writer saw its write"
        );
    }
}
