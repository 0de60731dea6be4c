//! How a GPU reset shows in what the driver tells (design N7). Only what was read before and is read again
//! counts: at the first sight of a GPU nothing is known, and a reading that fails says nothing.
//!
//! Volatile ECC counters fall with a reset, and with `nvidia-smi --reset-ecc-errors`, which heals nothing. So that they
//! fell counts only with something that the command leaves alone: counters of the PCIe link that fell with them, or that
//! the GPU did not answer in between. And only while this process has the driver in use: a driver that is loaded begins
//! all of them anew, and so does one whose last client has left it, where it does not persist (ADR 0013).

use device_api_core::clock::WallTime;
use device_api_core::recovery::is_given_up;
use device_api_core::signal::{Samples, Value};

use crate::readings::RECOVERY_ACTION;

/// Recovery actions that a GPU reset satisfies.
const ASKED_FOR_RESET: [i64; 2] = [1, 4];

const PENDING: &str = "row-remap.pending";

/// Counters that begin at zero when the GPU is reset, its driver loaded, or they are zeroed by hand.
const VOLATILE: [&str; 4] = [
    "ecc.volatile.corrected",
    "ecc.volatile.uncorrected",
    "ecc.sram.volatile.corrected",
    "ecc.sram.volatile.uncorrected",
];

/// Counters that nobody can zero by hand, and that are read together with [`VOLATILE`].
const OTHERS: [&str; 1] = ["pcie.replays"];

/// A reading as it was last read; a flag is 0 or 1.
#[derive(Clone, Copy, Debug, Default)]
struct Last(Option<(i64, WallTime)>);

impl Last {
    /// Takes what is read now; that, and what was read before, where both are known.
    fn take(&mut self, samples: &Samples, key: &str) -> Option<(i64, i64)> {
        if self.0.is_some_and(|(_, at)| is_given_up(samples, key, at)) {
            self.0 = None;
        }
        let reading = samples.get(key)?.as_ref().ok()?;
        let now = match reading.value {
            Value::Int(value) => value,
            Value::Flag(value) => value.into(),
            Value::Real(_) | Value::Text(_) | Value::Bytes(_) => return None,
        };
        let (before, _) = self.0.replace((now, reading.at))?;
        Some((before, now))
    }
}

/// What was last read of a GPU that a reset changes.
#[derive(Debug, Default)]
pub(crate) struct Vitals {
    action: Last,
    pending: Last,
    counters: [Last; VOLATILE.len()],
    others: [Last; OTHERS.len()],
    /// How it was away since its counters were read.
    away: Option<&'static str>,
}

impl Vitals {
    /// Nobody of ours had the driver in use, so that counters at zero are no evidence of a reset.
    pub(crate) fn forget_counters(&mut self) {
        self.counters = Default::default();
        self.others = Default::default();
        self.away = None;
    }

    /// The GPU can't be read for a while in which it may be reset; `how`: in the past tense.
    pub(crate) fn goes_away(&mut self, how: &'static str) {
        self.away = Some(how);
    }

    /// Takes new samples; how they show that the GPU was reset, if they do.
    pub(crate) fn take(&mut self, samples: &Samples) -> Option<String> {
        let mut evidence = Vec::new();
        if let Some((before, 0)) = self.action.take(samples, RECOVERY_ACTION)
            && ASKED_FOR_RESET.contains(&before)
        {
            evidence.push(format!(
                "the recovery action went from {before} back to none"
            ));
        }
        if self.pending.take(samples, PENDING) == Some((1, 0)) {
            evidence.push("no row remap is pending any more".to_owned());
        }
        let is_read = VOLATILE
            .iter()
            .any(|key| samples.get(*key).is_some_and(Result::is_ok));
        let fallen = fallen(samples, &VOLATILE, &mut self.counters);
        let mut others = self::fallen(samples, &OTHERS, &mut self.others);
        if is_read && let Some(how) = self.away.take() {
            others.push(how.to_owned());
        }
        if !fallen.is_empty() && (!evidence.is_empty() || !others.is_empty()) {
            evidence.extend(fallen);
            evidence.extend(others);
        } else if !fallen.is_empty() {
            tracing::info!(
                counters = fallen.join("; "),
                "volatile ECC counters were zeroed: nothing else shows a reset, so it counts as none"
            );
        }
        (!evidence.is_empty()).then(|| evidence.join("; "))
    }
}

/// Takes the counts; those that are less than they were.
fn fallen(samples: &Samples, keys: &[&str], last: &mut [Last]) -> Vec<String> {
    let fell = |(key, last): (&&str, &mut Last)| {
        let (before, count) = last.take(samples, key)?;
        (count < before).then(|| format!("{key} fell from {before} to {count}"))
    };
    keys.iter().zip(last).filter_map(fell).collect()
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

    /// With replays of the PCIe link.
    fn replayed(corrected: i64, replays: i64) -> Samples {
        let mut samples = samples(0, false, corrected);
        let reading = Reading {
            value: Value::Int(replays),
            at: WallTime::default(),
        };
        samples.insert(OTHERS[0].to_owned(), Ok(reading));
        samples
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
    fn n7_counters_that_were_zeroed_by_hand_are_no_reset() {
        check(&[samples(0, false, 7), samples(0, false, 0)], None);
        check(&[replayed(7, 3), replayed(0, 3)], None);
        check(&[replayed(7, 3), replayed(0, 4)], None);
        check(&[replayed(7, 3), replayed(7, 0)], None);
        check(
            &[replayed(7, 3), replayed(2, 0)],
            Some("ecc.volatile.corrected fell from 7 to 2; pcie.replays fell from 3 to 0"),
        );
    }

    #[test]
    fn n7_a_gpu_that_was_away_and_counts_from_zero_was_reset() {
        let mut vitals = Vitals::default();
        vitals.take(&samples(0, false, 7));
        vitals.goes_away("it was lost in between");
        assert_eq!(vitals.take(&missing()), None, "it is still away");
        assert_eq!(
            vitals.take(&samples(0, false, 0)).as_deref(),
            Some("ecc.volatile.corrected fell from 7 to 0; it was lost in between")
        );
        // It was away, and nothing happened to it; what falls later is another matter.
        vitals.take(&samples(0, false, 7));
        vitals.goes_away("it was lost in between");
        assert_eq!(vitals.take(&samples(0, false, 7)), None);
        assert_eq!(vitals.take(&samples(0, false, 0)), None);
    }

    #[test]
    fn n7_counters_that_a_loaded_driver_begins_anew_are_no_evidence_and_the_rest_is() {
        let mut vitals = Vitals::default();
        vitals.take(&samples(0, true, 7));
        vitals.forget_counters();
        assert_eq!(vitals.take(&samples(0, true, 0)), None);
        vitals.forget_counters();
        assert!(vitals.take(&samples(0, false, 0)).is_some());
    }

    #[test]
    fn n7_what_is_compared_is_what_faults_are_ordered_by() {
        let compared = [&[RECOVERY_ACTION, PENDING][..], &VOLATILE].concat();
        assert_eq!(compared, device_api_core::recovery::SHOW_RESET);
    }

    #[test]
    fn n7_what_could_not_be_read_for_long_while_others_could_is_nothing_to_compare_with() {
        use device_api_core::recovery::UNREAD_MAX;

        let long = u64::try_from(UNREAD_MAX.as_millis()).unwrap();
        // Pending, then unread at that time while the action is read, then pending no more.
        #[track_caller]
        fn check(unread_at: u64, whole_gpu: bool, is_reset: bool) {
            let at = |mut samples: Samples, ms| {
                for reading in samples.values_mut().flatten() {
                    reading.at = WallTime::from_ms(ms);
                }
                samples
            };
            let mut vitals = Vitals::default();
            vitals.take(&at(samples(0, true, 0), 1));
            let mut unread = at(samples(0, true, 0), unread_at);
            unread.insert(PENDING.to_owned(), Err(Miss::Unreachable));
            let unread = if whole_gpu { missing() } else { unread };
            assert_eq!(vitals.take(&unread), None);
            let evidence = vitals.take(&at(samples(0, false, 0), unread_at + 1));
            assert_eq!(evidence.is_some(), is_reset);
        }
        check(long, false, true);
        check(long + 1, false, false);
        check(long + 1, true, true);
    }
}
