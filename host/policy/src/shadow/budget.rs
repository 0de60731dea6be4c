//! How much processor time a shadow may use.

use std::time::Duration;

use device_api_core::clock::BootTime;

/// Part of one processor that a shadow may use, in percent, on average.
const CPU_PERCENT: u32 = 10;

/// Processor time saved up at most: so that a burst is judged whole after a quiet time.
const CPU_SAVED_MAX: Duration = Duration::from_millis(500);

/// Processor time that fills with time.
#[derive(Debug)]
pub(super) struct Budget {
    left: Duration,
    /// Spent beyond what there was.
    owed: Duration,
    filled: BootTime,
}

impl Budget {
    pub(super) fn new(now: BootTime) -> Self {
        Self {
            left: CPU_SAVED_MAX,
            owed: Duration::ZERO,
            filled: now,
        }
    }

    pub(super) fn may_spend(&mut self, now: BootTime) -> bool {
        let gained = now.since(self.filled) * CPU_PERCENT / 100;
        self.filled = now;
        let paid = gained.min(self.owed);
        self.owed -= paid;
        self.left = (self.left + (gained - paid)).min(CPU_SAVED_MAX);
        self.owed.is_zero() && !self.left.is_zero()
    }

    pub(super) fn spend(&mut self, spent: Duration) {
        let from_left = spent.min(self.left);
        self.left -= from_left;
        self.owed += spent - from_left;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h11_a_shadow_has_a_tenth_of_a_processor() {
        let ms = Duration::from_millis;
        let mut now = BootTime { ns: 1 };
        let mut budget = Budget::new(now);
        // What is saved up may go at once, and may be overdrawn by one call.
        assert!(budget.may_spend(now));
        budget.spend(ms(700));
        assert!(!budget.may_spend(now));
        now = now.after(ms(1_900));
        assert!(!budget.may_spend(now));
        now = now.after(ms(110));
        assert!(budget.may_spend(now));
        // A long quiet time saves up no more than the bound.
        now = now.after(Duration::from_hours(10));
        assert!(budget.may_spend(now));
        budget.spend(CPU_SAVED_MAX);
        assert!(!budget.may_spend(now));
    }
}
