//! A counter's course over a window, in few points: a counter is told when it changes, so that between two points
//! it was what it was at the first.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;

/// Parts of a window in each of which one point is kept: a window is up to one part longer than it says, and no
/// storm fills the state.
const PARTS: u64 = 16;

/// As text: `exceeded-at|at:count,at:count`, times in milliseconds, the oldest point first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Points {
    points: VecDeque<(u64, i64)>,
    /// When it last rose by too much, while that counts.
    pub(crate) exceeded_at: Option<u64>,
}

impl Points {
    /// Takes a count. Where it has risen just now: by how much it did within the window; else 0, as at first sight.
    pub(crate) fn take(&mut self, now: u64, count: i64, within_ms: u64) -> i64 {
        let last = self.points.back().copied();
        if last.is_some_and(|(at, last)| count < last || now < at) {
            // Begun anew, or the clock was: what was before can't be compared.
            self.points.clear();
        }
        let rose = self.points.back().is_some_and(|(_, last)| count > *last);
        let part = (within_ms / PARTS).max(1);
        // Two at least are kept, so that there is one to compare with.
        let is_comparable = self.points.len() > 1;
        match self.points.back_mut() {
            Some(last) if is_comparable && last.0 / part == now / part => *last = (now, count),
            Some((_, last)) if *last == count => {}
            _ => self.points.push_back((now, count)),
        }
        // The newest point from before the window is what it began with.
        let is_before = |(at, _): &(u64, i64)| at.saturating_add(within_ms) <= now;
        while self.points.get(1).is_some_and(is_before) {
            self.points.pop_front();
        }
        let began = self.points.front().map_or(count, |(_, count)| *count);
        if rose { count.saturating_sub(began) } else { 0 }
    }
}

impl fmt::Display for Points {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(at) = self.exceeded_at {
            write!(f, "{at}")?;
        }
        for (index, (at, count)) in self.points.iter().enumerate() {
            let before = if index == 0 { '|' } else { ',' };
            write!(f, "{before}{at}:{count}")?;
        }
        Ok(())
    }
}

impl FromStr for Points {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (exceeded, points) = text.split_once('|').unwrap_or((text, ""));
        let exceeded_at = (!exceeded.is_empty())
            .then(|| exceeded.parse())
            .transpose()?;
        let point = |text: &str| {
            let (at, count) = text.split_once(':').unwrap_or((text, ""));
            Ok((at.parse()?, count.parse()?))
        };
        let points = points.split(',').filter(|text| !text.is_empty()).map(point);
        Ok(Self {
            points: points.collect::<Result<_, Self::Err>>()?,
            exceeded_at,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Times in seconds, and a window of a minute.
    #[track_caller]
    fn check(course: &[(u64, i64)], risen: &[i64]) {
        let mut points = Points::default();
        let mut seen = Vec::new();
        for (at, count) in course {
            seen.push(points.take(at * 1000, *count, 60_000));
            assert_eq!(points.to_string().parse(), Ok(points.clone()), "{points}");
            assert!(points.points.len() <= 18, "{points}");
        }
        assert_eq!(seen, risen);
    }

    #[test]
    fn it_tells_how_much_a_counter_rose_within_the_window() {
        check(&[(1000, 7)], &[0]);
        check(&[(1000, 7), (1001, 9), (1002, 12)], &[0, 2, 5]);
        // A long rest before the first error: the counter was the same all the while.
        check(
            &[(1000, 7), (9000, 15), (9030, 16), (9100, 17)],
            &[0, 8, 9, 1],
        );
        check(&[(1000, 0), (1010, 5), (1075, 6), (1200, 6)], &[0, 5, 1, 0]);
        // Many at once, in one part of the window.
        check(&[(1000, 0), (1000, 5), (1000, 6), (1001, 8)], &[0, 5, 6, 8]);
    }

    #[test]
    fn a_counter_that_fell_is_counted_from_there() {
        check(
            &[(1000, 70), (1001, 71), (1002, 0), (1003, 4)],
            &[0, 1, 0, 4],
        );
        // So does one whose clock was set back.
        check(&[(1000, 70), (900, 75), (910, 76)], &[0, 0, 1]);
    }

    #[test]
    fn a_storm_takes_no_more_room_than_a_trickle() {
        let course: Vec<(u64, i64)> = (0..500)
            .map(|at| (5000 + at, i64::try_from(at).unwrap()))
            .collect();
        let risen: Vec<i64> = (0..500).map(|at| at.min(64)).collect();
        let mut points = Points::default();
        for ((at, count), expected) in course.into_iter().zip(risen) {
            let risen = points.take(at * 1000, count, 60_000);
            assert!(
                (expected.min(60)..=expected).contains(&risen),
                "{at}: {risen}"
            );
        }
        assert!(points.to_string().len() < 400, "{points}");
    }
}
