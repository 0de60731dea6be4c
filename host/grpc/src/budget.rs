//! Bytes that may be held at once, shared by those who hold some.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What is left.
#[derive(Debug)]
pub(crate) struct Budget(AtomicUsize);

impl Budget {
    pub(crate) fn new(bytes: usize) -> Self {
        Self(AtomicUsize::new(bytes))
    }

    fn take(&self, bytes: usize) -> bool {
        let taken = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(bytes)
            });
        taken.is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// What one holder has of a connection's budget and of everyone's; given back on drop.
#[derive(Debug)]
pub(crate) struct Share {
    connection: Arc<Budget>,
    all: Arc<Budget>,
    bytes: usize,
}

impl Share {
    pub(crate) fn new(connection: Arc<Budget>, all: Arc<Budget>) -> Self {
        Self {
            connection,
            all,
            bytes: 0,
        }
    }

    /// Takes more, or nothing where there is not as much.
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        if !self.connection.take(bytes) {
            return false;
        }
        if !self.all.take(bytes) {
            self.connection.give_back(bytes);
            return false;
        }
        self.bytes += bytes;
        true
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.connection.give_back(self.bytes);
        self.all.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_held_from_all_and_given_back() {
        let [connection, other] = [10, 10].map(|bytes| Arc::new(Budget::new(bytes)));
        let all = Arc::new(Budget::new(12));
        let mut first = Share::new(connection.clone(), all.clone());
        assert!(first.grow(6) && first.grow(4));
        assert!(!first.grow(1), "the connection's is used up");
        let mut second = Share::new(other, all);
        assert!(!second.grow(3), "all's is used up");
        assert!(second.grow(2), "a refusal takes nothing");
        drop(first);
        assert!(second.grow(8));
        assert!(!second.grow(1));
    }
}
