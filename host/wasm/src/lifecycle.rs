//! Whether a guest is asked: the life of one loaded version, as far as its own calls decide it.
//!
//! ```text
//!           load            admit           seat
//!  bytes ─compile─▶ loaded ───────▶ admitted ───▶ Running ◀──────────────── good ────┐
//!            │                │ │                  │   ▲                             │
//!            ▼                │ └─▶ held           │   └── strikes forgiven        Trial
//!         refused ◀───────────┘   (an operator     │       by good calls           ▲  │
//!                                  accepts it)     │ strikes_max                   │  │ strike
//!                                                  ▼                          time │  ▼
//!                                               BackOff ───────────────────────────┘ BackOff, twice as long
//!                                                                                     │ after back_offs_max
//!            last good version, else nobody ◀──────────────────────────────────── Quarantined
//! ```
//!
//! This module is the right half: pure, and its clock is an argument. Loading is `load.rs`; who admits, and
//! which version takes the seat of a quarantined one, is decided by the house of the guests.
//!
//! A *strike* is a failure that is the guest's own. A deadline that passed while the thread got less than
//! half of it in processor time is none ([`CallError::is_starvation`]), so that a starved node
//! quarantines nobody. A call that succeeds but takes nearly its whole deadline in processor time is a
//! strike too: under any load at all it would fail, and everyone who waits for it pays meanwhile.

use std::time::Duration;

use crate::error::CallError;
use crate::limits::Limits;
use crate::sandbox::CallStats;

/// Part of the call deadline, in percent of processor time, from which on a successful call is a strike.
/// A realistic call takes microseconds of its 5 ms.
const SLOW_PERCENT: u32 = 80;

/// When a guest is not asked any more. The defaults are what the daemon runs with; tests shorten them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Strikes until it is not asked for a while. Default 3: one bad item in a batch costs two (the
    /// batch, then the item alone), and that must not be enough.
    pub strikes_max: u32,
    /// Good calls in a row that forgive one strike. Default 16: a guest that fails on one call in ten
    /// backs off, on one in fifty it does not.
    pub good_calls_forgive: u32,
    /// Good calls in a row after which the next back-off is the first again. Default 64.
    pub good_calls_reset: u32,
    /// The first back-off. Default 250 ms: what failed is tried again after a second anyway.
    pub back_off_first: Duration,
    /// Each is twice the one before, up to this. Default a minute.
    pub back_off_max: Duration,
    /// Back-offs in a row, each ended by a trial that failed too, until it is quarantined. Default 5:
    /// some 8 s in which nothing but failures came of it.
    pub back_offs_max: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            strikes_max: 3,
            good_calls_forgive: 16,
            good_calls_reset: 64,
            back_off_first: Duration::from_millis(250),
            back_off_max: Duration::from_mins(1),
            back_offs_max: 5,
        }
    }
}

/// How a call ended, as far as the guest is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conduct {
    Good,
    /// It failed, and that was not its fault.
    Excused,
    Strike,
}

impl Conduct {
    /// Of a call that gave a result.
    #[must_use]
    pub fn of_success(stats: CallStats, limits: &Limits) -> Self {
        if stats.cpu.saturating_mul(100) >= limits.call_deadline.saturating_mul(SLOW_PERCENT) {
            Self::Strike
        } else {
            Self::Good
        }
    }

    /// Of an instance that is replaced because it is worn: `start` is what its successor took, `calls` are those
    /// that it served. Where a start for so few calls takes nearly the deadline of a call for each of them, whoever
    /// waits for a start pays for calls that look cheap.
    #[must_use]
    pub fn of_replacement(start: CallStats, calls: u64, limits: &Limits) -> Self {
        let calls = u32::try_from(calls).unwrap_or(u32::MAX).max(1);
        let each = CallStats {
            cpu: start.cpu / calls,
            ..start
        };
        Self::of_success(each, limits)
    }

    /// Of one that gave none. That no instance can be made tells of a machine out of memory: what a
    /// guest needs to be instantiated is the same each time, and once there was enough.
    #[must_use]
    pub fn of_failure(error: &CallError) -> Self {
        if error.is_starvation() || matches!(error, CallError::Instantiate { .. }) {
            Self::Excused
        } else {
            Self::Strike
        }
    }
}

/// Where a guest is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Running,
    /// Not asked before this time.
    BackOff {
        until: Duration,
    },
    /// Its back-off is over; the next call decides.
    Trial,
    /// Never asked again.
    Quarantined,
}

/// What one call changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// `nth` in a row, from 1.
    BackedOff {
        nth: u32,
        pause: Duration,
    },
    /// The trial went well.
    Recovered,
    Quarantined,
}

/// Whether to call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    Yes,
    /// Not for so long.
    In(Duration),
    Never,
}

/// The life of one version. Times are those of any clock that never goes back.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    patience: Patience,
    stage: Stage,
    strikes: u32,
    good_in_a_row: u32,
    back_offs: u32,
}

impl Lifecycle {
    #[must_use]
    pub fn new(patience: Patience) -> Self {
        Self {
            patience,
            stage: Stage::Running,
            strikes: 0,
            good_in_a_row: 0,
            back_offs: 0,
        }
    }

    #[must_use]
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Strikes that are not forgiven.
    #[must_use]
    pub fn strikes(&self) -> u32 {
        self.strikes
    }

    /// Whether it is asked. `now` is looked at in a back-off alone: this is on every call's way.
    pub fn ask(&mut self, now: impl FnOnce() -> Duration) -> Ask {
        match self.stage {
            Stage::Running | Stage::Trial => Ask::Yes,
            Stage::Quarantined => Ask::Never,
            Stage::BackOff { until } => match until.saturating_sub(now()) {
                Duration::ZERO => {
                    self.stage = Stage::Trial;
                    Ask::Yes
                }
                left => Ask::In(left),
            },
        }
    }

    /// Takes how a call ended; says what that changed. `now` is looked at where a back-off begins.
    pub fn record(&mut self, conduct: Conduct, now: impl FnOnce() -> Duration) -> Option<Turn> {
        match conduct {
            Conduct::Good => self.good(),
            Conduct::Excused => None,
            Conduct::Strike => self.strike(now),
        }
    }

    fn good(&mut self) -> Option<Turn> {
        let was_on_trial = self.stage == Stage::Trial;
        if was_on_trial {
            self.stage = Stage::Running;
            // On probation: one more, and it backs off for longer.
            self.strikes = self.patience.strikes_max.saturating_sub(1);
        }
        if self.strikes > 0 || self.back_offs > 0 {
            self.good_in_a_row = self.good_in_a_row.saturating_add(1);
            if self
                .good_in_a_row
                .is_multiple_of(self.patience.good_calls_forgive.max(1))
            {
                self.strikes = self.strikes.saturating_sub(1);
            }
            if self.good_in_a_row >= self.patience.good_calls_reset {
                (self.strikes, self.back_offs, self.good_in_a_row) = (0, 0, 0);
            }
        }
        was_on_trial.then_some(Turn::Recovered)
    }

    fn strike(&mut self, now: impl FnOnce() -> Duration) -> Option<Turn> {
        self.good_in_a_row = 0;
        match self.stage {
            Stage::Running => {
                self.strikes = self.strikes.saturating_add(1);
                if self.strikes < self.patience.strikes_max {
                    return None;
                }
            }
            Stage::Trial => {}
            // Nobody asked it.
            Stage::BackOff { .. } | Stage::Quarantined => return None,
        }
        if self.back_offs >= self.patience.back_offs_max {
            self.stage = Stage::Quarantined;
            return Some(Turn::Quarantined);
        }
        let doubled = 1_u32.checked_shl(self.back_offs).unwrap_or(u32::MAX);
        let pause = self
            .patience
            .back_off_first
            .saturating_mul(doubled)
            .min(self.patience.back_off_max);
        self.back_offs += 1;
        self.stage = Stage::BackOff {
            until: now().saturating_add(pause),
        };
        Some(Turn::BackedOff {
            nth: self.back_offs,
            pause,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A guest and a clock, both in hand.
    struct Rig {
        life: Lifecycle,
        now: Duration,
    }

    impl Rig {
        fn new() -> Self {
            Self {
                life: Lifecycle::new(Patience::default()),
                now: Duration::from_secs(100),
            }
        }

        fn ask(&mut self) -> Ask {
            self.life.ask(|| self.now)
        }

        fn record(&mut self, conduct: Conduct) -> Option<Turn> {
            self.life.record(conduct, || self.now)
        }

        fn times(&mut self, count: u32, conduct: Conduct) -> Option<Turn> {
            (0..count).filter_map(|_| self.record(conduct)).last()
        }
    }

    fn millis(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn h5_strikes_back_off_doubling_then_quarantine() {
        let mut rig = Rig::new();
        assert_eq!(rig.times(2, Conduct::Strike), None);
        for (nth, pause) in [(1, 250), (2, 500), (3, 1000), (4, 2000), (5, 4000)] {
            let pause = millis(pause);
            assert_eq!(
                rig.record(Conduct::Strike),
                Some(Turn::BackedOff { nth, pause })
            );
            assert_eq!(rig.ask(), Ask::In(pause));
            rig.now += pause - millis(1);
            assert_eq!(rig.ask(), Ask::In(millis(1)));
            rig.now += millis(1);
            assert_eq!((rig.ask(), rig.life.stage()), (Ask::Yes, Stage::Trial));
        }
        assert_eq!(rig.record(Conduct::Strike), Some(Turn::Quarantined));
        rig.now += Duration::from_hours(1000);
        assert_eq!(rig.ask(), Ask::Never);
        assert_eq!(rig.times(100, Conduct::Good), None);
        assert_eq!(rig.life.stage(), Stage::Quarantined);
    }

    #[test]
    fn h5_the_back_off_is_bounded() {
        let patience = Patience {
            back_offs_max: 100,
            ..Patience::default()
        };
        let mut rig = Rig {
            life: Lifecycle::new(patience),
            ..Rig::new()
        };
        rig.times(2, Conduct::Strike);
        for _ in 0..100 {
            let Some(Turn::BackedOff { pause, .. }) = rig.record(Conduct::Strike) else {
                panic!("{rig:?}", rig = rig.life);
            };
            assert!(pause <= patience.back_off_max);
            rig.now += pause;
            assert_eq!(rig.ask(), Ask::Yes);
        }
    }

    #[test]
    fn good_calls_forgive_and_one_bad_call_in_fifty_is_borne() {
        let mut rig = Rig::new();
        for _ in 0..100 {
            assert_eq!(rig.record(Conduct::Strike), None);
            assert_eq!(rig.times(49, Conduct::Good), None);
        }
        assert_eq!(rig.life.strikes(), 0);
        // One in ten is not.
        let mut rig = Rig::new();
        let mut turns = 0;
        for _ in 0..10 {
            turns += u32::from(rig.record(Conduct::Strike).is_some());
            rig.now += Duration::from_mins(2);
            rig.ask();
            rig.times(9, Conduct::Good);
        }
        assert!(turns >= 5, "{turns}");
    }

    #[test]
    fn a_trial_that_goes_well_is_no_full_pardon() {
        let mut rig = Rig::new();
        rig.times(3, Conduct::Strike);
        rig.now += millis(250);
        assert_eq!(rig.ask(), Ask::Yes);
        assert_eq!(rig.record(Conduct::Good), Some(Turn::Recovered));
        let second = Some(Turn::BackedOff {
            nth: 2,
            pause: millis(500),
        });
        assert_eq!(rig.record(Conduct::Strike), second);
        rig.now += millis(500);
        rig.ask();
        rig.times(64, Conduct::Good);
        let first = Some(Turn::BackedOff {
            nth: 1,
            pause: millis(250),
        });
        assert_eq!(rig.times(3, Conduct::Strike), first);
    }

    #[test]
    fn h5_a_starved_node_quarantines_nobody() {
        let limits = Limits::default();
        let late = |cpu| CallError::Deadline {
            limit: limits.call_deadline,
            wall: millis(9),
            cpu,
        };
        assert_eq!(Conduct::of_failure(&late(millis(1))), Conduct::Excused);
        assert_eq!(Conduct::of_failure(&late(millis(5))), Conduct::Strike);
        let mut rig = Rig::new();
        assert_eq!(rig.times(10_000, Conduct::Excused), None);
        assert_eq!((rig.ask(), rig.life.strikes()), (Ask::Yes, 0));
    }

    #[test]
    fn h5_a_call_that_just_makes_it_is_a_strike_by_its_processor_time() {
        let limits = Limits::default();
        let took = |cpu, wall| CallStats {
            wall,
            cpu,
            memory_bytes: 0,
        };
        let of = |stats| Conduct::of_success(stats, &limits);
        assert_eq!(of(took(millis(4), millis(4))), Conduct::Strike);
        assert_eq!(of(took(millis(3), millis(3))), Conduct::Good);
        assert_eq!(of(took(millis(1), millis(5))), Conduct::Good);
    }

    #[test]
    fn h5_a_start_for_few_calls_counts_into_each_of_them() {
        let limits = Limits::default();
        let start = |ms| CallStats {
            wall: millis(ms),
            cpu: millis(ms),
            memory_bytes: 0,
        };
        let of = |ms, calls| Conduct::of_replacement(start(ms), calls, &limits);
        assert_eq!(of(95, 1), Conduct::Strike);
        assert_eq!(of(95, 16), Conduct::Strike);
        assert_eq!(of(95, 100), Conduct::Good);
        assert_eq!(of(1, 1), Conduct::Good);
        assert_eq!(of(4, 0), Conduct::Strike);
    }

    #[test]
    fn what_comes_late_of_an_earlier_call_changes_nothing() {
        let mut rig = Rig::new();
        rig.times(3, Conduct::Strike);
        let stage = rig.life.stage();
        assert_eq!(rig.times(50, Conduct::Strike), None);
        assert_eq!(rig.life.stage(), stage);
    }
}
