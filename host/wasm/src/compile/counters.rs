//! What is counted of compilation, for metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Why a compiler gave no code; the closed set of a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompileRefusal {
    /// No valid component, or the compiler panicked at it.
    Invalid,
    Deadline,
    Memory,
    /// Too long an answer, or one that does not hold against its seal.
    Answer,
    /// The process ended without an answer.
    Died,
    /// The process can't be started, fed or bounded.
    Start,
    /// The daemon is stopping.
    Stopped,
}

impl CompileRefusal {
    pub const ALL: [Self; 7] = [
        Self::Invalid,
        Self::Deadline,
        Self::Memory,
        Self::Answer,
        Self::Died,
        Self::Start,
        Self::Stopped,
    ];

    /// A metric label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Deadline => "deadline",
            Self::Memory => "memory",
            Self::Answer => "answer",
            Self::Died => "died",
            Self::Start => "start",
            Self::Stopped => "stopped",
        }
    }
}

/// What happened since the compiler was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompileCounters {
    /// Components that a process compiled.
    pub compiled: u64,
    /// Components whose code was in the cache.
    pub cache_hits: u64,
    /// Files of the cache that did not hold against their seal, and were deleted.
    pub cache_damaged: u64,
    /// Reads and writes of the cache that failed; the component is loaded all the same.
    pub cache_errors: u64,
    /// Files deleted to stay within the cache's bounds.
    pub cache_evicted: u64,
    /// In the order of [`CompileRefusal::ALL`]. What is refused before a process is asked (size,
    /// kind) is not among them.
    pub refused: [u64; CompileRefusal::ALL.len()],
    /// Of the latest process, whatever came of it.
    pub last_wall: Duration,
    /// The most memory that the latest process which answered had resident, in bytes; the pages of its
    /// program, which it shares with the daemon, included.
    pub last_memory_peak_bytes: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counting {
    pub(super) compiled: AtomicU64,
    pub(super) cache_hits: AtomicU64,
    pub(super) cache_damaged: AtomicU64,
    pub(super) cache_errors: AtomicU64,
    pub(super) cache_evicted: AtomicU64,
    refused: [AtomicU64; CompileRefusal::ALL.len()],
    last_wall_micros: AtomicU64,
    last_memory_peak_bytes: AtomicU64,
}

pub(super) fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

impl Counting {
    pub(super) fn refused(&self, refusal: CompileRefusal) {
        let of_reason = CompileRefusal::ALL
            .iter()
            .zip(&self.refused)
            .find(|(known, _)| **known == refusal);
        if let Some((_, count)) = of_reason {
            add(count, 1);
        }
    }

    pub(super) fn took(&self, wall: Duration) {
        let micros = u64::try_from(wall.as_micros()).unwrap_or(u64::MAX);
        self.last_wall_micros.store(micros, Ordering::Relaxed);
    }

    pub(super) fn peaked(&self, bytes: u64) {
        self.last_memory_peak_bytes.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self) -> CompileCounters {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        CompileCounters {
            compiled: read(&self.compiled),
            cache_hits: read(&self.cache_hits),
            cache_damaged: read(&self.cache_damaged),
            cache_errors: read(&self.cache_errors),
            cache_evicted: read(&self.cache_evicted),
            refused: self.refused.each_ref().map(read),
            last_wall: Duration::from_micros(read(&self.last_wall_micros)),
            last_memory_peak_bytes: read(&self.last_memory_peak_bytes),
        }
    }
}
