//! How much is measured.

use std::time::Duration;

/// Sizes of a run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Rounds of each lane in a case, the warm-up apart.
    pub(crate) rounds: usize,
    /// How long one round is.
    pub(crate) round: Duration,
    /// GPUs on the node, ascending.
    pub(crate) gpus: Vec<usize>,
    /// Clients that read at once.
    pub(crate) readers: Vec<usize>,
    /// Clients that write at once.
    pub(crate) writers: Vec<usize>,
    /// Watchers at once, ascending.
    pub(crate) watchers: Vec<usize>,
    /// Writes in one round of the watches.
    pub(crate) watched_writes: usize,
    /// Faults in one round.
    pub(crate) faults: usize,
    /// Connections and idle streams that memory is divided by.
    pub(crate) connections: usize,
    pub(crate) streams: usize,
    /// Starts of a fresh process, for its memory and for its time.
    pub(crate) memory_runs: usize,
    pub(crate) starts: usize,
}

/// GPUs of the node that watches, writes and memory are measured on.
pub(crate) const NODE_GPUS: usize = 8;

impl Plan {
    /// About four minutes.
    pub(crate) fn full() -> Self {
        Self {
            rounds: 21,
            round: Duration::from_millis(200),
            gpus: vec![8, 512],
            readers: vec![1, 16, 64],
            writers: vec![1, 16, 64],
            watchers: vec![1, 10, 100, 1000],
            watched_writes: 20,
            faults: 200,
            connections: 1000,
            streams: 1000,
            memory_runs: 3,
            starts: 15,
        }
    }

    /// A few seconds: does it run, and are the numbers numbers? They are good for nothing else.
    pub(crate) fn quick() -> Self {
        Self {
            rounds: 3,
            round: Duration::from_millis(10),
            gpus: vec![2, 16],
            readers: vec![1, 4],
            writers: vec![1, 4],
            watchers: vec![1, 10, 20],
            watched_writes: 3,
            faults: 3,
            connections: 20,
            streams: 20,
            memory_runs: 1,
            starts: 1,
        }
    }
}
