//! When a GPU was last seen as it is: what a recovery that is noticed later may have come after (design N7).
//!
//! A reset shows in a few readings, each of which has a schedule of its own. So it came after the last reading of
//! the one that was read longest ago; that the temperature was read since says nothing of it. That the driver was
//! bound anew came after any reading at all.

use device_api_core::clock::WallTime;
use device_api_core::ids::SignalSeq;
use device_api_core::signal::{Miss, Samples};
use device_api_core::verdict::ClearOn;

/// Readings in which a reset shows (docs/readings.md).
const SHOW_RESET: [&str; 6] = [
    "recovery.action",
    "row-remap.pending",
    "ecc.volatile.corrected",
    "ecc.volatile.uncorrected",
    "ecc.sram.volatile.corrected",
    "ecc.sram.volatile.uncorrected",
];

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
    /// For each of [`SHOW_RESET`] that the GPU has.
    reset: [Option<Look>; SHOW_RESET.len()],
    any: Look,
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
        }
    }

    /// Samples were handed in, when `newest` was the newest signal. Only what was read for them counts: what
    /// could not be read just now is as it was.
    pub(crate) fn sampled(&mut self, samples: &Samples, newest: SignalSeq) {
        for (key, look) in SHOW_RESET.iter().zip(&mut self.reset) {
            match samples.get(*key) {
                Some(Ok(reading)) if look.is_none_or(|look| look.at != reading.at) => {
                    let at = reading.at;
                    *look = Some(Look { at, newest });
                }
                // As of a driver that has it no more.
                Some(Err(Miss::NotSupported)) => *look = None,
                Some(Ok(_) | Err(Miss::NotYet | Miss::Unreachable)) | None => {}
            }
        }
        let read = samples
            .iter()
            .filter(|(key, _)| !key.starts_with(OF_NVML))
            .filter_map(|(_, sample)| Some(sample.as_ref().ok()?.at));
        if let Some(at) = read.max().filter(|at| *at != self.any.at) {
            self.any = Look { at, newest };
        }
    }

    /// NVML has just said something of the GPU that would not be so after a recovery.
    pub(crate) fn told(&mut self, newest: SignalSeq) {
        let of_reset = self.reset.iter_mut().flatten();
        for look in of_reset.chain([&mut self.any]) {
            look.newest = newest;
        }
    }

    /// The newest signal that is surely from before an event that is noticed now.
    pub(crate) fn before(&self, event: ClearOn) -> SignalSeq {
        let of_reset = self.reset.iter().flatten().map(|look| look.newest);
        let of_reset = of_reset.min().filter(|_| event == ClearOn::GpuReset);
        of_reset.unwrap_or(self.any.newest)
    }
}

#[cfg(test)]
mod tests {
    use device_api_core::signal::{Reading, Value};

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
        looks.sampled(&stale, SignalSeq(9));
        check(&looks, 6, 8);
        looks.told(SignalSeq(10));
        check(&looks, 10, 10);
        let mut gone = samples(&[(action, 5)]);
        gone.insert(ecc.to_owned(), Err(Miss::NotSupported));
        looks.sampled(&gone, SignalSeq(12));
        check(&looks, 12, 12);
    }
}
