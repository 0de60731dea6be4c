//! The simulator's clock: what scenarios and kernel log records go by. It can run faster, or stand
//! still and be moved by command, so that a test waits for nothing.

use std::time::{Duration, Instant};

/// Faster than this, a second is less than the scheduler's grain.
pub(crate) const SPEED_MAX: f64 = 1000.0;
/// Slower than this, a day's scenario takes years.
const SPEED_MIN: f64 = 0.001;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// What it showed at `since`.
    shown: Duration,
    since: Instant,
    /// 0: it stands still.
    speed: f64,
}

impl Clock {
    /// Starts at zero.
    pub(crate) fn running(speed: f64) -> Self {
        Self {
            shown: Duration::ZERO,
            since: Instant::now(),
            speed,
        }
    }

    pub(crate) fn now(&self) -> Duration {
        self.shown + self.since.elapsed().mul_f64(self.speed)
    }

    /// Goes on from what it shows, that fast.
    pub(crate) fn set_speed(&mut self, speed: f64) {
        *self = Self {
            shown: self.now(),
            since: Instant::now(),
            speed,
        };
    }

    pub(crate) fn advance(&mut self, by: Duration) {
        self.shown += by;
    }

    /// Real time until it shows `then`; none if it stands still.
    pub(crate) fn until(&self, then: Duration) -> Option<Duration> {
        let left = then.saturating_sub(self.now());
        (self.speed > 0.0).then(|| left.div_f64(self.speed))
    }
}

/// Reads a speed: 0 stands still.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check_speed(speed: f64) -> Result<f64, String> {
    if speed == 0.0 || (SPEED_MIN..=SPEED_MAX).contains(&speed) {
        Ok(speed)
    } else {
        Err(format!(
            "{speed} is no speed: 0 (moved by `advance`), or {SPEED_MIN} to {SPEED_MAX}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_stands_still_is_moved_and_keeps_what_it_shows() {
        let mut clock = Clock::running(0.0);
        assert_eq!(
            (clock.now(), clock.until(Duration::from_secs(1))),
            (Duration::ZERO, None)
        );
        clock.advance(Duration::from_secs(3));
        assert_eq!(clock.now(), Duration::from_secs(3));
        clock.set_speed(10.0);
        assert!(clock.now() >= Duration::from_secs(3));
        assert!(clock.until(Duration::from_secs(13)).unwrap() <= Duration::from_secs(1));
        for speed in [-1.0, 1e-9, f64::NAN, 1e9] {
            assert!(check_speed(speed).is_err());
        }
    }
}
