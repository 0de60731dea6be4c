//! When a GPU was last seen as it is: what a recovery that is noticed later may have come after (design N7).
//!
//! A reset shows in a few readings, each of which has a schedule of its own. So it came after the last reading of
//! the one that was read longest ago; that the temperature was read since says nothing of it. That the driver was
//! bound anew came after any reading at all.

use device_api_core::clock::WallTime;
use device_api_core::ids::SignalSeq;
use device_api_core::recovery::{RECOVERY_ACTION, SHOW_RESET, is_given_up};
use device_api_core::signal::{Samples, Value};
use device_api_core::verdict::ClearOn;

/// What begins so tells of NVML, and is told when the GPU is not read.
const OF_NVML: &str = "nvml.";

#[derive(Clone, Copy, Debug, Default)]
struct Look {
    /// When it was read.
    at: WallTime,
    /// The newest signal by then.
    newest: SignalSeq,
}

#[derive(Debug)]
pub(crate) struct Looks {
    /// For each of [`SHOW_RESET`] that the GPU has, and that can be read.
    reset: [Option<Look>; SHOW_RESET.len()],
    any: Look,
    /// The newest signal of the runs before.
    start: SignalSeq,
}

impl Looks {
    /// `start`: the newest signal of the runs before. What is noticed in this run came after them.
    pub(crate) fn new(start: SignalSeq) -> Self {
        Self {
            reset: Default::default(),
            any: Look {
                newest: start,
                ..Look::default()
            },
            start,
        }
    }

    /// Samples were handed in, when `newest` was the newest signal. Only what was read for them counts: what
    /// could not be read just now is as it was, and one day given up.
    pub(crate) fn sampled(&mut self, samples: &Samples, newest: SignalSeq) {
        for (key, look) in SHOW_RESET.iter().zip(&mut self.reset) {
            match samples.get(*key) {
                Some(Ok(reading)) if look.is_none_or(|look| look.at != reading.at) => {
                    let at = reading.at;
                    *look = Some(Look { at, newest });
                }
                Some(_) => *look = look.filter(|look| !is_given_up(samples, key, look.at)),
                None => {}
            }
        }
        if let Some(at) = newest_read(samples).filter(|at| *at != self.any.at) {
            self.any = Look { at, newest };
        }
    }

    /// Whether samples that are being handed in hold what was read for them: not when NVML has been let go of, and
    /// they are as they were.
    pub(crate) fn is_look(&self, samples: &Samples) -> bool {
        newest_read(samples).is_some_and(|at| at != self.any.at)
    }

    /// NVML has just said something of the GPU that would not be so after a recovery.
    pub(crate) fn told(&mut self, newest: SignalSeq) {
        let of_reset = self.reset.iter_mut().flatten();
        for look in of_reset.chain([&mut self.any]) {
            look.newest = newest;
        }
    }

    /// Whether samples that are being handed in are the first of this run in which the recovery action is read.
    pub(crate) fn is_first_action(&self, samples: &Samples) -> bool {
        self.of_action().is_none() && matches!(samples.get(RECOVERY_ACTION), Some(Ok(_)))
    }

    fn of_action(&self) -> Option<SignalSeq> {
        let mut looks = SHOW_RESET.iter().zip(&self.reset);
        let (_, look) = looks.find(|(key, _)| **key == RECOVERY_ACTION)?;
        look.map(|look| look.newest)
    }

    /// The newest signal that is surely from before an event that is noticed now.
    pub(crate) fn before(&self, event: ClearOn) -> SignalSeq {
        let before = match event {
            ClearOn::GpuReset => {
                let of_reset = self.reset.iter().flatten();
                of_reset.map(|look| look.newest).min()
            }
            // That none is asked for is read, and what an earlier run saw was before that.
            ClearOn::RecoveryNone => self.of_action().or(Some(self.start)),
            ClearOn::DriverRebind
            | ClearOn::NodeReboot
            | ClearOn::Replacement
            | ClearOn::Quiet
            | ClearOn::Policy
            | ClearOn::Operator => None,
        };
        before.unwrap_or(self.any.newest)
    }
}

/// Whether the driver asks for no recovery action, as far as was read.
pub(crate) fn reads_no_action(samples: &Samples) -> bool {
    let sample = samples.get(RECOVERY_ACTION);
    sample.is_some_and(|sample| matches!(sample, Ok(reading) if reading.value == Value::Int(0)))
}

/// When the newest of what the GPU itself told was read.
fn newest_read(samples: &Samples) -> Option<WallTime> {
    let read = samples
        .iter()
        .filter(|(key, _)| !key.starts_with(OF_NVML))
        .filter_map(|(_, sample)| Some(sample.as_ref().ok()?.at));
    read.max()
}

#[cfg(test)]
mod tests {
    use device_api_core::recovery::UNREAD_MAX;
    use device_api_core::signal::{Miss, Reading};

    use super::*;

    fn samples(read: &[(&str, u64)]) -> Samples {
        let read = read.iter().map(|(key, at)| {
            let reading = Reading {
                value: Value::Int(0),
                at: WallTime::from_ms(*at),
            };
            ((*key).to_owned(), Ok(reading))
        });
        read.collect()
    }

    #[track_caller]
    fn check(looks: &Looks, reset: u64, rebind: u64) {
        assert_eq!(looks.before(ClearOn::GpuReset), SignalSeq(reset));
        assert_eq!(looks.before(ClearOn::DriverRebind), SignalSeq(rebind));
    }

    #[test]
    fn n7_a_reset_came_after_the_oldest_reading_that_would_have_shown_it() {
        let mut looks = Looks::new(SignalSeq(3));
        check(&looks, 3, 3);
        looks.sampled(&samples(&[("temperature.gpu", 1)]), SignalSeq(5));
        check(&looks, 5, 5);
        let (action, ecc) = ("recovery.action", "ecc.volatile.corrected");
        looks.sampled(&samples(&[(action, 2), (ecc, 2)]), SignalSeq(6));
        looks.sampled(&samples(&[(action, 3), (ecc, 2)]), SignalSeq(8));
        check(&looks, 6, 8);
        // Nothing was read: it was said that nothing could be.
        let stale = samples(&[(action, 3), (ecc, 2), ("nvml.state", 9)]);
        assert!(!looks.is_look(&stale));
        assert!(looks.is_look(&samples(&[(action, 4), (ecc, 2)])));
        looks.sampled(&stale, SignalSeq(9));
        check(&looks, 6, 8);
        looks.told(SignalSeq(10));
        check(&looks, 10, 10);
        let mut gone = samples(&[(action, 5)]);
        gone.insert(ecc.to_owned(), Err(Miss::NotSupported));
        looks.sampled(&gone, SignalSeq(12));
        check(&looks, 12, 12);
    }

    #[test]
    fn n7_a_reading_that_can_not_be_renewed_holds_up_no_later_reset() {
        let mut looks = Looks::new(SignalSeq::default());
        let (action, ecc) = ("recovery.action", "ecc.sram.volatile.corrected");
        looks.sampled(&samples(&[(action, 1), (ecc, 1)]), SignalSeq(3));
        let failing = |at| {
            let mut failing = samples(&[(action, at)]);
            failing.insert(ecc.to_owned(), Err(Miss::Unreachable));
            failing
        };
        let long = u64::try_from(UNREAD_MAX.as_millis()).unwrap();
        looks.sampled(&failing(long), SignalSeq(8));
        check(&looks, 3, 8);
        looks.sampled(&failing(long + 1), SignalSeq(9));
        check(&looks, 9, 9);
        // It is back, and counts again.
        looks.sampled(
            &samples(&[(action, long + 2), (ecc, long + 2)]),
            SignalSeq(10),
        );
        looks.sampled(&failing(long + 3), SignalSeq(11));
        check(&looks, 10, 11);
        // The GPU does not answer at all: that is no look, and nothing is given up for it.
        let mut lost = samples(&[]);
        for key in [action, ecc] {
            lost.insert(key.to_owned(), Err(Miss::Unreachable));
        }
        looks.sampled(&lost, SignalSeq(12));
        check(&looks, 10, 11);
    }
}
