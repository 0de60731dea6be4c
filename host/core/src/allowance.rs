//! How many lines of the log one thing may cause, since what causes them decides how often.

use crate::limits::{LOG_LINES_MAX, LOG_WINDOW};

/// [`LOG_LINES_MAX`] lines in each [`LOG_WINDOW`]. Those left out are counted, and the next line tells of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Allowance {
    since_ns: u64,
    lines: u32,
    left_out: u64,
}

impl Allowance {
    /// Whether there is a line now; then how many were left out before it. `now_ns`: by a clock of the caller's, always
    /// the same; one that is put back by more than a window begins another.
    pub fn admit(&mut self, now_ns: u64) -> Option<u64> {
        let passed = now_ns.abs_diff(self.since_ns);
        if u128::from(passed) >= LOG_WINDOW.as_nanos() {
            (self.since_ns, self.lines) = (now_ns, 0);
        }
        if self.lines < LOG_LINES_MAX {
            self.lines += 1;
            Some(std::mem::take(&mut self.left_out))
        } else {
            self.left_out += 1;
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(allowance: &mut Allowance, asked: u32, now_ns: u64) -> (u32, u64) {
        let admitted = (0..asked).filter_map(|_| allowance.admit(now_ns));
        admitted.fold((0, 0), |(lines, left_out), more| {
            (lines + 1, left_out + more)
        })
    }

    #[test]
    fn a_window_has_its_lines_and_the_next_tells_what_was_left_out() {
        let window = u64::try_from(LOG_WINDOW.as_nanos()).unwrap();
        let (mut allowance, now) = (Allowance::default(), 7 * window);
        let asked = LOG_LINES_MAX + 5;
        assert_eq!(lines(&mut allowance, asked, now), (LOG_LINES_MAX, 0));
        assert_eq!(lines(&mut allowance, 1, now + window - 1), (0, 0));
        assert_eq!(lines(&mut allowance, 2, now + window), (2, 6));
        let put_back = now / 2;
        assert_eq!(lines(&mut allowance, asked, put_back), (LOG_LINES_MAX, 0));
    }
}
