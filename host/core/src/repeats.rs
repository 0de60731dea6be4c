//! Lines of the log that would come again and again.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts what comes again, and says which of it has a line: the first, and from then on each time that there are
/// twice as many. So a million of them have twenty lines, without a clock.
#[derive(Debug, Default)]
pub struct Repeats(AtomicU64);

impl Repeats {
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// It came once more: how often by now, where a line is due.
    pub fn due(&self) -> Option<u64> {
        let times = self.0.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        times.is_power_of_two().then_some(times)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_has_few_lines_and_the_first_is_among_them() {
        let repeats = Repeats::new();
        let due: Vec<u64> = (0..1000).filter_map(|_| repeats.due()).collect();
        assert_eq!(due, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]);
    }
}
