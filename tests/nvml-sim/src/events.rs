//! Event sets: what was registered for, what waits to be handed over, and whether it was.

use std::collections::{BTreeMap, VecDeque};

/// Longer than any burst a consumer should be behind by; the oldest goes first.
pub(crate) const QUEUE_MAX: usize = 4096;
/// A consumer needs one set; this stops one that leaks them.
pub(crate) const SETS_MAX: usize = 256;

/// A MIG device, as events and kernel lines name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MigIds {
    pub(crate) gpu_instance: u32,
    pub(crate) compute_instance: Option<u32>,
}

/// What a set may hand to its waiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// An event of a GPU. `kind` is one `nvmlEventType…` bit, `data` the XID where it is one.
    Gpu {
        gpu: u32,
        kind: u64,
        data: u64,
        /// The MIG instance that it is about.
        instance: Option<MigIds>,
    },
    /// A GPU that the set listens to fell off the bus; NVML doesn't say which.
    Lost { gpu: u32 },
}

/// An event, and which command's it is.
#[derive(Clone, Copy, Debug)]
struct Queued {
    event: Event,
    batch: u64,
    position: usize,
}

#[derive(Debug, Default)]
pub(crate) struct EventSet {
    /// GPU → event types.
    registered: BTreeMap<u32, u64>,
    queue: VecDeque<Queued>,
    dropped: u64,
}

impl EventSet {
    pub(crate) fn register(&mut self, gpu: u32, kinds: u64) {
        *self.registered.entry(gpu).or_default() |= kinds;
    }

    fn wants(&self, event: Event) -> bool {
        let (gpu, kinds) = match event {
            Event::Gpu { gpu, kind, .. } => (gpu, kind),
            Event::Lost { gpu } => (gpu, u64::MAX),
        };
        self.registered
            .get(&gpu)
            .is_some_and(|registered| registered & kinds != 0)
    }

    fn push(&mut self, queued: Queued) {
        if self.queue.len() == QUEUE_MAX {
            self.queue.pop_front();
            self.dropped += 1;
        }
        self.queue.push_back(queued);
    }

    /// (waiting, dropped).
    pub(crate) fn backlog(&self) -> (usize, u64) {
        (self.queue.len(), self.dropped)
    }
}

/// What became of the events of one command.
#[derive(Debug)]
struct Batch {
    handed_over: Vec<bool>,
    last_unix_ns: u64,
}

/// What became of the events of one command, for its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Delivery {
    pub(crate) events: usize,
    pub(crate) handed_over: usize,
    /// Wall clock when the last of them was handed over; 0 before.
    pub(crate) last_unix_ns: u64,
}

impl Delivery {
    pub(crate) fn complete(self) -> bool {
        self.handed_over == self.events
    }
}

/// All event sets of the process, and the commands whose senders still wait.
#[derive(Debug)]
pub(crate) struct Events {
    sets: BTreeMap<usize, EventSet>,
    /// Never reused, so that the handle of a freed set stays invalid.
    next_set: usize,
    batches: BTreeMap<u64, Batch>,
    next_batch: u64,
}

impl Events {
    pub(crate) fn new() -> Self {
        Self {
            sets: BTreeMap::new(),
            next_set: 1,
            batches: BTreeMap::new(),
            next_batch: 0,
        }
    }

    /// A new set's id, never 0, unless there are too many.
    pub(crate) fn create(&mut self) -> Option<usize> {
        if self.sets.len() == SETS_MAX {
            return None;
        }
        let id = self.next_set;
        self.next_set += 1;
        self.sets.insert(id, EventSet::default());
        Some(id)
    }

    pub(crate) fn get_mut(&mut self, set: usize) -> Option<&mut EventSet> {
        self.sets.get_mut(&set)
    }

    /// Whether there was such a set.
    pub(crate) fn free(&mut self, set: usize) -> bool {
        self.sets.remove(&set).is_some()
    }

    /// No set listens to the GPU any more.
    pub(crate) fn forget(&mut self, gpu: u32) {
        for set in self.sets.values_mut() {
            set.registered.remove(&gpu);
        }
    }

    /// Whether any set listens to a GPU.
    pub(crate) fn listening(&self) -> bool {
        self.sets.values().any(|set| !set.registered.is_empty())
    }

    pub(crate) fn free_all(&mut self) {
        self.sets.clear();
    }

    pub(crate) fn sets(&self) -> impl Iterator<Item = &EventSet> {
        self.sets.values()
    }

    /// Queues events with every set that registered for them. The batch is to be asked for with
    /// [`Self::delivery`] and closed with [`Self::close`]; none if no set listens.
    pub(crate) fn raise(&mut self, events: &[Event]) -> Option<u64> {
        let batch = self.next_batch;
        let mut heard = vec![false; events.len()];
        for (position, (event, heard)) in events.iter().zip(&mut heard).enumerate() {
            for set in self.sets.values_mut().filter(|set| set.wants(*event)) {
                set.push(Queued {
                    event: *event,
                    batch,
                    position,
                });
                *heard = true;
            }
        }
        if !heard.contains(&true) {
            return None;
        }
        self.next_batch += 1;
        self.batches.insert(
            batch,
            Batch {
                handed_over: vec![false; events.len()],
                last_unix_ns: 0,
            },
        );
        Some(batch)
    }

    /// Takes the oldest event of a set; `now_unix_ns` is noted as the moment of its hand-over.
    pub(crate) fn take(&mut self, set: usize, now_unix_ns: impl Fn() -> u64) -> Option<Event> {
        let queued = self.sets.get_mut(&set)?.queue.pop_front()?;
        if let Some(batch) = self.batches.get_mut(&queued.batch)
            && let Some(handed_over) = batch.handed_over.get_mut(queued.position)
            && !*handed_over
        {
            *handed_over = true;
            batch.last_unix_ns = now_unix_ns();
        }
        Some(queued.event)
    }

    pub(crate) fn delivery(&self, batch: u64) -> Option<Delivery> {
        self.batches.get(&batch).map(|batch| Delivery {
            events: batch.handed_over.len(),
            handed_over: batch
                .handed_over
                .iter()
                .filter(|handed_over| **handed_over)
                .count(),
            last_unix_ns: batch.last_unix_ns,
        })
    }

    pub(crate) fn close(&mut self, batch: u64) {
        self.batches.remove(&batch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn xid(gpu: u32, data: u64) -> Event {
        Event::Gpu {
            gpu,
            kind: 8,
            data,
            instance: None,
        }
    }

    #[test]
    fn only_what_was_registered_is_queued_and_in_order() {
        let mut events = Events::new();
        let set = events.create().unwrap();
        events.get_mut(set).unwrap().register(1, 8);
        assert_eq!(events.raise(&[xid(0, 79)]), None);
        assert_eq!(
            events.raise(&[Event::Gpu {
                gpu: 1,
                kind: 2,
                data: 0,
                instance: None,
            }]),
            None
        );
        let batch = events.raise(&[xid(1, 48), xid(1, 63)]).unwrap();
        assert_eq!(events.take(set, || 10), Some(xid(1, 48)));
        assert!(!events.delivery(batch).unwrap().complete());
        assert_eq!(events.take(set, || 20), Some(xid(1, 63)));
        let delivery = events.delivery(batch).unwrap();
        assert_eq!(
            delivery,
            Delivery {
                events: 2,
                handed_over: 2,
                last_unix_ns: 20
            }
        );
        assert_eq!(events.take(set, || 30), None);
    }

    #[test]
    fn a_full_queue_drops_the_oldest_and_counts_it() {
        let mut events = Events::new();
        let set = events.create().unwrap();
        events.get_mut(set).unwrap().register(0, 8);
        for data in 0..QUEUE_MAX as u64 + 2 {
            events.raise(&[xid(0, data)]).unwrap();
        }
        assert_eq!(events.get_mut(set).unwrap().backlog(), (QUEUE_MAX, 2));
        assert_eq!(events.take(set, || 0), Some(xid(0, 2)));
    }

    #[test]
    fn one_hand_over_suffices_where_two_sets_listen() {
        let mut events = Events::new();
        let (first, second) = (events.create().unwrap(), events.create().unwrap());
        for set in [first, second] {
            events.get_mut(set).unwrap().register(0, 8);
        }
        let batch = events.raise(&[xid(0, 79)]).unwrap();
        events.take(second, || 5);
        assert!(events.delivery(batch).unwrap().complete());
        assert_eq!(events.take(first, || 9), Some(xid(0, 79)));
        assert_eq!(events.delivery(batch).unwrap().last_unix_ns, 5);
    }

    #[test]
    fn sets_are_bounded_and_their_handles_not_reused() {
        let mut events = Events::new();
        let first = events.create().unwrap();
        assert!(events.free(first) && !events.free(first));
        let ids: Vec<_> = std::iter::from_fn(|| events.create())
            .take(SETS_MAX + 1)
            .collect();
        assert_eq!(ids.len(), SETS_MAX);
        assert!(!ids.contains(&first));
    }
}
