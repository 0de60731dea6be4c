//! How long the long tests run, and how to run one again.

use std::time::{SystemTime, UNIX_EPOCH};

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// How many times as much as in the ordinary run (`DEVICE_API_SOAK`; 1 if it is not set).
pub fn factor() -> u64 {
    number("DEVICE_API_SOAK").unwrap_or(1).max(1)
}

/// Where what is chosen by chance comes from (`DEVICE_API_SEED`; the time if it is not set). Printed, so
/// that a failure can be tried again; what the scheduler chooses is not in it.
pub fn seed() -> u64 {
    let now = || {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        u64::try_from(since.unwrap_or_default().as_nanos() & u128::from(u32::MAX)).unwrap_or(1)
    };
    let seed = number("DEVICE_API_SEED").unwrap_or_else(now);
    eprintln!("DEVICE_API_SEED={seed} repeats this");
    seed
}

/// xorshift64*: choices that repeat with their seed.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// `stream` tells apart those who choose from one seed.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mixed = (seed ^ stream.rotate_left(32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        Self(mixed | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    /// One of 0 to `count` − 1.
    pub fn below(&mut self, count: usize) -> usize {
        let count = u64::try_from(count.max(1)).unwrap_or(u64::MAX);
        usize::try_from(self.next() % count).unwrap_or_default()
    }

    /// One of these, of which there must be some.
    #[expect(clippy::indexing_slicing, reason = "the index is below the length")]
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}
