//! Lines of the log that would come again and again.

use std::sync::atomic::{AtomicU64, Ordering};

/// How often in a row it has to go well until a failure is news again. Once is not enough: where no file descriptor
/// is left, each that is freed lets one call succeed, and the next fail.
const WELL_MIN: u64 = 8;

/// Counts what comes again, and says which of it has a line: the first, and from then on each time that there are
/// twice as many. So a million of them have twenty lines, without a clock.
///
/// One task counts; others may look.
#[derive(Debug, Default)]
pub struct Repeats {
    failed: AtomicU64,
    /// In a row, since it last failed.
    well: AtomicU64,
}

impl Repeats {
    pub const fn new() -> Self {
        Self {
            failed: AtomicU64::new(0),
            well: AtomicU64::new(0),
        }
    }

    /// It came once more: how often by now, where a line is due.
    pub fn due(&self) -> Option<u64> {
        self.well.store(0, Ordering::Relaxed);
        let times = self
            .failed
            .fetch_add(1, Ordering::Relaxed)
            .saturating_add(1);
        times.is_power_of_two().then_some(times)
    }

    /// It went well. After some of these in a row it begins anew: the next fault has a line at once, however long the
    /// one before it was.
    pub fn went_well(&self) {
        if self.failed.load(Ordering::Relaxed) == 0 {
            return;
        }
        if self.well.fetch_add(1, Ordering::Relaxed) + 1 >= WELL_MIN {
            self.failed.store(0, Ordering::Relaxed);
            self.well.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(repeats: &Repeats, times: usize) -> Vec<u64> {
        (0..times).filter_map(|_| repeats.due()).collect()
    }

    fn well(repeats: &Repeats, times: u64) {
        (0..times).for_each(|_| repeats.went_well());
    }

    #[test]
    fn a_storm_has_few_lines_and_the_first_is_among_them() {
        let repeats = Repeats::new();
        assert_eq!(due(&repeats, 1000), [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]);
    }

    #[test]
    fn a_fault_after_it_went_well_has_a_line_at_once_and_one_that_flaps_has_few() {
        let repeats = Repeats::new();
        well(&repeats, 3);
        due(&repeats, 36_000);
        well(&repeats, WELL_MIN);
        assert_eq!(due(&repeats, 5), [1, 2, 4], "another fault");

        well(&repeats, WELL_MIN);
        let flapping = (0..1000).flat_map(|_| {
            well(&repeats, WELL_MIN - 1);
            repeats.due()
        });
        assert_eq!(flapping.count(), 10, "the same fault");
    }
}
