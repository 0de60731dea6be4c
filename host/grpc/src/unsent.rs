//! Answers that were handed to HTTP/2 and not sent yet, of one connection. HTTP/2 keeps them as long as the
//! client gives no window, and asks nobody meanwhile; so somebody has to look.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// When each should have been sent; the number tells those of one moment apart.
type Due = (Instant, u64);

#[derive(Debug, Default)]
pub(crate) struct Unsent {
    due: Mutex<BTreeSet<Due>>,
    number: AtomicU64,
}

/// An answer that waits to be sent, until this is dropped.
#[derive(Debug)]
pub(crate) struct Waiting {
    among: Arc<Unsent>,
    due: Due,
}

impl Unsent {
    pub(crate) fn begin(self: &Arc<Self>, until: Instant) -> Waiting {
        let due = (until, self.number.fetch_add(1, Ordering::Relaxed));
        self.lock().insert(due);
        Waiting {
            among: self.clone(),
            due,
        }
    }

    /// Returns when one was not sent in time; each has `time`.
    pub(crate) async fn overdue(&self, time: Duration) {
        loop {
            let now = Instant::now();
            let first = self.lock().first().map(|(until, _)| *until);
            match first {
                Some(until) if until <= now => return,
                Some(until) => tokio::time::sleep_until(until).await,
                // What comes meanwhile is due later still.
                None => tokio::time::sleep(time).await,
            }
        }
    }

    /// Each critical section leaves the state whole.
    fn lock(&self) -> MutexGuard<'_, BTreeSet<Due>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.among.lock().remove(&self.due);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn the_oldest_counts_and_what_was_sent_does_not() {
        let (unsent, began) = (Arc::new(Unsent::default()), Instant::now());
        let sent = unsent.begin(began + TIME);
        let same = unsent.begin(began + TIME);
        let overdue = tokio::spawn({
            let unsent = unsent.clone();
            async move { unsent.overdue(TIME).await }
        });
        tokio::time::sleep(TIME / 2).await;
        drop((sent, same));
        let waits = unsent.begin(Instant::now() + TIME);
        overdue.await.expect("joined");
        assert_eq!(began.elapsed(), TIME / 2 + TIME);
        drop(waits);
        assert!(unsent.lock().is_empty());
    }
}
