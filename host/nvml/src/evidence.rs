//! How a GPU reset shows in what the driver tells (design N7). Only what was read before and is read again
//! counts: at the first sight of a GPU nothing is known, and a reading that fails says nothing.

use device_api_core::signal::{Samples, Value};

use crate::readings::RECOVERY_ACTION;

/// Recovery actions that a GPU reset satisfies.
const ASKED_FOR_RESET: [i64; 2] = [1, 4];

const PENDING: &str = "row-remap.pending";

/// Counters that begin at zero when the GPU is reset or its driver loaded.
const VOLATILE: [&str; 4] = [
    "ecc.volatile.corrected",
    "ecc.volatile.uncorrected",
    "ecc.sram.volatile.corrected",
    "ecc.sram.volatile.uncorrected",
];

/// What was last read of a GPU that a reset changes.
#[derive(Debug, Default)]
pub(crate) struct Vitals {
    action: Option<i64>,
    pending: Option<bool>,
    counters: [Option<i64>; VOLATILE.len()],
}

impl Vitals {
    /// The driver was loaded anew, so that counters at zero are no evidence of a reset.
    pub(crate) fn driver_reloaded(&mut self) {
        self.counters = Default::default();
    }

    /// Takes new samples; how they show that the GPU was reset, if they do.
    pub(crate) fn take(&mut self, samples: &Samples) -> Option<String> {
        let mut evidence = Vec::new();
        if let Some(action) = int(samples, RECOVERY_ACTION) {
            let before = self.action.replace(action);
            if let Some(before) =
                before.filter(|before| action == 0 && ASKED_FOR_RESET.contains(before))
            {
                evidence.push(format!(
                    "the recovery action went from {before} back to none"
                ));
            }
        }
        if let Some(pending) = flag(samples, PENDING)
            && self.pending.replace(pending) == Some(true)
            && !pending
        {
            evidence.push("no row remap is pending any more".to_owned());
        }
        for (key, last) in VOLATILE.into_iter().zip(&mut self.counters) {
            let Some(count) = int(samples, key) else {
                continue;
            };
            if let Some(before) = last.replace(count).filter(|before| count < *before) {
                evidence.push(format!("{key} fell from {before} to {count}"));
            }
        }
        (!evidence.is_empty()).then(|| evidence.join("; "))
    }
}

fn int(samples: &Samples, key: &str) -> Option<i64> {
    match samples.get(key)?.as_ref().ok()?.value {
        Value::Int(value) => Some(value),
        Value::Flag(_) | Value::Real(_) | Value::Text(_) | Value::Bytes(_) => None,
    }
}

fn flag(samples: &Samples, key: &str) -> Option<bool> {
    match samples.get(key)?.as_ref().ok()?.value {
        Value::Flag(value) => Some(value),
        Value::Int(_) | Value::Real(_) | Value::Text(_) | Value::Bytes(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use device_api_core::clock::WallTime;
    use device_api_core::signal::{Miss, Reading};

    use super::*;

    fn samples(action: i64, pending: bool, corrected: i64) -> Samples {
        let reading = |value| {
            let at = WallTime::default();
            Ok(Reading { value, at })
        };
        Samples::from([
            (RECOVERY_ACTION.to_owned(), reading(Value::Int(action))),
            (PENDING.to_owned(), reading(Value::Flag(pending))),
            (VOLATILE[0].to_owned(), reading(Value::Int(corrected))),
        ])
    }

    fn missing() -> Samples {
        let mut missing = samples(0, false, 0);
        for sample in missing.values_mut() {
            *sample = Err(Miss::Unreachable);
        }
        missing
    }

    #[track_caller]
    fn check(seen: &[Samples], expected: Option<&str>) {
        let mut vitals = Vitals::default();
        let (last, before) = seen.split_last().unwrap();
        for samples in before {
            assert_eq!(vitals.take(samples), None);
        }
        assert_eq!(vitals.take(last).as_deref(), expected);
    }

    #[test]
    fn n7_a_reset_shows_in_each_of_its_traces() {
        check(
            &[samples(1, false, 0), samples(0, false, 0)],
            Some("the recovery action went from 1 back to none"),
        );
        check(
            &[samples(4, false, 0), samples(0, false, 0)],
            Some("the recovery action went from 4 back to none"),
        );
        check(
            &[samples(0, true, 0), samples(0, false, 0)],
            Some("no row remap is pending any more"),
        );
        check(
            &[samples(0, false, 7), samples(0, false, 2)],
            Some("ecc.volatile.corrected fell from 7 to 2"),
        );
        check(
            &[samples(1, true, 7), missing(), samples(0, false, 0)],
            Some(
                "the recovery action went from 1 back to none; no row remap is pending any more; \
                 ecc.volatile.corrected fell from 7 to 0",
            ),
        );
    }

    #[test]
    fn n7_nothing_else_is_taken_for_one() {
        check(&[samples(0, false, 0)], None);
        check(&[samples(1, true, 7)], None);
        check(&[missing(), samples(0, false, 0)], None);
        check(&[samples(1, true, 7), missing()], None);
        check(&[samples(0, false, 7), samples(1, true, 8)], None);
        // A reboot was asked for, or peers were to be drained: no reset satisfies that.
        check(&[samples(2, false, 0), samples(0, false, 0)], None);
        check(&[samples(3, false, 0), samples(0, false, 0)], None);
        check(&[samples(1, false, 0), samples(2, false, 0)], None);
    }

    #[test]
    fn n7_counters_that_a_loaded_driver_begins_anew_are_no_evidence_and_the_rest_is() {
        let mut vitals = Vitals::default();
        vitals.take(&samples(0, true, 7));
        vitals.driver_reloaded();
        assert_eq!(vitals.take(&samples(0, true, 0)), None);
        vitals.driver_reloaded();
        assert!(vitals.take(&samples(0, false, 0)).is_some());
    }
}
