//! Conditions that flap (design N7): a problem that its policy takes back and raises again, and again, is held as
//! one until it has been well for a while. Only good news waits, and only the policy's: what ends the problem
//! otherwise (a reset, an operator) does so at once.
//!
//! ```text
//!  problem ─ok─▶ ok ─problem─▶ problem … more than FLAPS_MAX times in FLAP_WINDOW ─ok─▶ held ─FLAP_HOLD─▶ ok
//!                                                                         problem ◀────────┘
//! ```
//!
//! A problem that the policy itself calls provisional, as it waits to be told what it is, is no relapse, and its end
//! no ok.
//!
//! What is held is a problem that quiet clears, so that its end survives a restart. So does that it is held, and one
//! that relapses after a restart is held again; that others flapped does not survive.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use device_api_core::clock::{BootTime, WallTime};
use device_api_core::condition::{self, Condition};
use device_api_core::limits;
use device_api_core::message;
use device_api_core::verdict::{Clear, ClearOn};

#[derive(Debug, Default)]
struct Flap {
    /// The policy's last word.
    was_ok: bool,
    is_held: bool,
    /// What stands is provisional.
    is_provisional: bool,
    /// When it became a problem again after an ok.
    relapses: VecDeque<BootTime>,
}

/// Those of one GPU. Of drills beside the real ones, which they do not hold back.
#[derive(Debug, Default)]
pub(crate) struct Flaps {
    conditions: HashMap<String, [Flap; 2]>,
}

/// What becomes of a policy's ok.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Counts,
    /// It is held back from now on.
    Held,
    /// It is held back already.
    StillHeld,
}

impl Flaps {
    /// A policy calls it a problem.
    pub(crate) fn problem(&mut self, condition: &str, drill: bool, now: BootTime) {
        let Some(flap) = self.get(condition, drill) else {
            return;
        };
        if std::mem::take(&mut flap.was_ok) {
            if flap.relapses.len() > limits::FLAPS_MAX {
                flap.relapses.pop_front();
            }
            flap.relapses.push_back(now);
        }
        flap.is_held = false;
        flap.is_provisional = false;
    }

    /// A policy calls it a problem that waits to be told what it is. `stood`: it was a problem already.
    pub(crate) fn provisional(
        &mut self,
        condition: &str,
        drill: bool,
        (now, stood): (BootTime, bool),
    ) {
        let flaps = self.conditions.entry(condition.to_owned()).or_default();
        let [real, drilled] = flaps;
        let flap = if drill { drilled } else { real };
        if stood && !flap.is_provisional {
            self.problem(condition, drill, now);
        } else {
            flap.is_provisional = true;
        }
    }

    /// Its policy calls a problem ok.
    pub(crate) fn ok(&mut self, condition: &str, drill: bool, now: BootTime) -> Heard {
        if !self.conditions.contains_key(condition) {
            self.conditions
                .insert(condition.to_owned(), Default::default());
        }
        let Some(flap) = self.get(condition, drill) else {
            return Heard::Counts;
        };
        if std::mem::take(&mut flap.is_provisional) {
            return Heard::Counts;
        }
        flap.was_ok = true;
        if flap.is_held {
            return Heard::StillHeld;
        }
        flap.relapses
            .retain(|at| now.since(*at) <= limits::FLAP_WINDOW);
        flap.is_held = flap.relapses.len() > limits::FLAPS_MAX;
        if flap.is_held {
            Heard::Held
        } else {
            Heard::Counts
        }
    }

    pub(crate) fn is_held(&self, condition: &str, drill: bool) -> bool {
        let known = self.conditions.get(condition);
        known.is_some_and(|[real, drilled]| if drill { drilled } else { real }.is_held)
    }

    /// Names of those that are held, in order.
    pub(crate) fn held(&self) -> Vec<Arc<str>> {
        let all = self.conditions.iter();
        let held = all.filter(|(_, flaps)| flaps.iter().any(|flap| flap.is_held));
        let mut held: Vec<Arc<str>> = held.map(|(name, _)| name.as_str().into()).collect();
        held.sort_unstable();
        held
    }

    /// It was held when an earlier run ended.
    pub(crate) fn restore(&mut self, condition: &str, drill: bool, now: BootTime) {
        self.conditions.entry(condition.to_owned()).or_default();
        if let Some(flap) = self.get(condition, drill) {
            flap.was_ok = true;
            flap.is_held = true;
            flap.relapses = std::iter::repeat_n(now, limits::FLAPS_MAX).collect();
        }
    }

    /// MIG instances are gone, and so are their conditions.
    pub(crate) fn leave_instances(&mut self, is_gone: impl Fn(&str) -> bool) {
        let is_its = |name: &str| condition::instance_in(name).is_some_and(&is_gone);
        self.conditions.retain(|name, _| !is_its(name));
    }

    /// What stood is over for another reason than its policy's word: what comes now is no relapse. Says whether
    /// it was held.
    pub(crate) fn forget(&mut self, condition: &str) -> bool {
        let known = self.conditions.remove(condition);
        known.is_some_and(|flaps| flaps.iter().any(|flap| flap.is_held))
    }

    /// Its time is over. Says whether it was held; that it flapped is not forgotten for that.
    pub(crate) fn release(&mut self, condition: &str) -> bool {
        let flaps = self.conditions.get_mut(condition).into_iter().flatten();
        let held = flaps.filter(|flap| flap.is_held);
        held.map(|flap| flap.is_held = false).count() > 0
    }

    fn get(&mut self, condition: &str, drill: bool) -> Option<&mut Flap> {
        let [real, drilled] = self.conditions.get_mut(condition)?;
        Some(if drill { drilled } else { real })
    }
}

/// The problem as it stands while it is held.
pub(crate) fn held(old: &Condition, ok: &str, now: WallTime) -> Condition {
    let why = format!(
        "Held: within {} min it became a problem again more than {} times after it was ok; it counts as ok once it has \
         been so for {} min. Its policy says now: {} Before: {}",
        minutes(limits::FLAP_WINDOW),
        limits::FLAPS_MAX,
        minutes(limits::FLAP_HOLD),
        if ok.is_empty() { "ok." } else { ok },
        old.message,
    );
    let otherwise = old.clears.iter().filter(|clear| clear.on != ClearOn::Quiet);
    let quiet = Clear {
        on: ClearOn::Quiet,
        after: limits::FLAP_HOLD,
    };
    Condition {
        message: message::cut(why),
        clears: otherwise.copied().chain([quiet]).collect(),
        heartbeat: now,
        ..old.clone()
    }
}

fn minutes(duration: Duration) -> u64 {
    duration.as_secs() / 60
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n7_more_relapses_than_are_allowed_hold_an_ok_and_old_ones_do_not_count() {
        let mut flaps = Flaps::default();
        let mut now = BootTime::default();
        let mut relapse = |flaps: &mut Flaps, after: Duration| {
            now = now.after(after);
            flaps.problem("X", false, now);
            flaps.ok("X", false, now)
        };
        let soon = Duration::from_secs(10);
        assert_eq!(
            relapse(&mut flaps, soon),
            Heard::Counts,
            "its first problem"
        );
        for _ in 0..limits::FLAPS_MAX {
            assert_eq!(relapse(&mut flaps, soon), Heard::Counts);
        }
        assert_eq!(relapse(&mut flaps, soon), Heard::Held);
        assert_eq!(flaps.ok("X", false, BootTime::default()), Heard::StillHeld);
        assert_eq!(flaps.ok("X", true, BootTime::default()), Heard::Counts);
        assert_eq!(relapse(&mut flaps, soon), Heard::Held, "it goes on");
        let late = limits::FLAP_WINDOW + soon;
        assert_eq!(relapse(&mut flaps, late), Heard::Counts);
        assert!(!flaps.release("X"));
    }

    #[test]
    fn n7_what_waits_to_be_told_what_it_is_does_not_flap_and_what_it_becomes_may() {
        let mut flaps = Flaps::default();
        let now = BootTime::default();
        for _ in 0..10 * limits::FLAPS_MAX {
            flaps.provisional("X", false, (now, false));
            flaps.provisional("X", false, (now, true));
            assert_eq!(flaps.ok("X", false, now), Heard::Counts);
        }
        let settles_badly = |flaps: &mut Flaps| {
            flaps.provisional("X", false, (now, false));
            flaps.problem("X", false, now);
            // Beside what stands it is no wait of its own.
            flaps.provisional("X", false, (now, true));
            flaps.ok("X", false, now)
        };
        for _ in 0..=limits::FLAPS_MAX {
            assert_eq!(settles_badly(&mut flaps), Heard::Counts);
        }
        assert_eq!(settles_badly(&mut flaps), Heard::Held);
        // What is held stands: what comes beside it counts at once.
        flaps.provisional("X", false, (now, true));
        assert!(!flaps.release("X"));
    }
}
