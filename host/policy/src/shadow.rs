//! Policies that look on (design H11): what they would have said is compared with what stands.
//!
//! ```text
//!  pipeline ──committed──▶ Shadows ──queue, bounded──▶ thread of the shadow ──▶ its policy's thread
//!            (lock held:               full: dropped      │ own state, own wakes, own processor time
//!             only hands on)                              ▼
//!                                         same? counted : counted and kept
//! ```
//!
//! A shadow is never waited for. Its timers are delivered to it alone. What the host cleared for the policy
//! that judges is cleared for the shadow as well; of what else would have become of its verdicts it sees
//! what it said itself.

mod budget;
mod eye;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use device_api_core::clock::Clock;
use device_api_core::ids::DeviceUuid;
use device_api_core::policy_status::{Disagreement, PolicyCounters};
use device_api_core::ports::Onlooker;
use device_api_core::seating::Committed;

use crate::judge::View;
use crate::loaded::{LoadedPolicy, lock};
use eye::Eye;

/// Batches that wait for one shadow: a burst of a fault on each of eight GPUs, many times over. What
/// comes on top is dropped and counted.
const BATCHES_WAITING_MAX: usize = 256;

/// Hands what is committed on to those who look on. Made before the pipeline, which tells it, and the
/// supervisor, which seats shadows.
#[derive(Debug, Default)]
pub struct Shadows {
    seats: Mutex<Vec<Arc<Queue>>>,
}

#[derive(Debug)]
struct Queue {
    name: Arc<str>,
    batches: SyncSender<Arc<Committed>>,
    dropped: Arc<AtomicU64>,
}

impl Shadows {
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    fn take_up(&self, queue: Arc<Queue>) {
        let mut seats = lock(&self.seats);
        seats.retain(|other| other.name != queue.name);
        seats.push(queue);
    }

    /// This one and no other: its successor has the same name.
    fn let_go(&self, gone: &Arc<Queue>) {
        lock(&self.seats).retain(|queue| !Arc::ptr_eq(queue, gone));
    }
}

impl Onlooker for Shadows {
    fn committed(&self, batch: &Committed) {
        let seats = lock(&self.seats);
        if seats.is_empty() {
            return;
        }
        let shared = Arc::new(batch.clone());
        for queue in seats.iter() {
            if queue.batches.try_send(Arc::clone(&shared)).is_err() {
                queue.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// A shadow at work, until it is stopped or dropped.
#[derive(Debug)]
pub(crate) struct Shadow {
    /// `None` once it looks on no more.
    queue: Mutex<Option<Arc<Queue>>>,
    shadows: Arc<Shadows>,
    record: Arc<Record>,
    thread: Option<JoinHandle<()>>,
}

/// What it found, to be looked at from outside.
#[derive(Debug, Default)]
pub(crate) struct Record {
    compared: AtomicU64,
    disagreements: AtomicU64,
    dropped: Arc<AtomicU64>,
    /// Newest first, bounded.
    kept: Mutex<VecDeque<Disagreement>>,
}

impl Shadow {
    /// Seats it under the name that the site gave it; `views` is what it made of the journals.
    pub(crate) fn seat(
        name: &Arc<str>,
        policy: Arc<LoadedPolicy>,
        views: Vec<(DeviceUuid, View)>,
        shadows: &Arc<Shadows>,
        clock: Arc<dyn Clock>,
    ) -> std::io::Result<Self> {
        let (batches, queue) = sync_channel(BATCHES_WAITING_MAX);
        let record = Arc::<Record>::default();
        let dropped = Arc::clone(&record.dropped);
        let mut eye = Eye::new(policy, views, Arc::clone(&record), clock);
        let thread = thread::Builder::new()
            .name(format!("shadow-{name}"))
            .spawn(move || eye.run(&queue))?;
        let queue = Arc::new(Queue {
            name: Arc::clone(name),
            batches,
            dropped,
        });
        shadows.take_up(Arc::clone(&queue));
        Ok(Self {
            queue: Mutex::new(Some(queue)),
            shadows: Arc::clone(shadows),
            record,
            thread: Some(thread),
        })
    }

    /// It looks on no more; what it found stays to be looked at.
    pub(crate) fn stop(&self) {
        // The thread ends with its queue.
        if let Some(queue) = lock(&self.queue).take() {
            self.shadows.let_go(&queue);
        }
    }

    /// What it found: whoever looks at it keeps neither the shadow nor its thread.
    pub(crate) fn record(&self) -> &Arc<Record> {
        &self.record
    }
}

impl Record {
    pub(crate) fn count_into(&self, counters: &mut PolicyCounters) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        counters.shadow_compared += read(&self.compared);
        counters.shadow_disagreements += read(&self.disagreements);
        counters.shadow_dropped += read(&self.dropped);
    }

    /// The latest, newest first.
    pub(crate) fn disagreements(&self) -> Vec<Disagreement> {
        lock(&self.kept).iter().cloned().collect()
    }
}

impl Drop for Shadow {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
