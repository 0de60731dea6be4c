//! Takes the readings of docs/readings.md: one batch for each GPU and round, of the classes that are due.

use std::sync::Arc;

use device_api_core::clock::system_wall_time;
use device_api_core::signal::{Miss, Reading, Samples, Value};
use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;

use crate::call::{CallFailed, Meaning, called};
use crate::queries::{Class, QUERIES, Query};
use crate::raw;
use crate::watch::HungCall;

/// The key whose change is a signal of its own.
pub(crate) const RECOVERY_ACTION: &str = "recovery.action";

const STATE: &str = "nvml.state";
const HUNG_CALL: &str = "nvml.hung-call";
const HUNG_MS: &str = "nvml.hung-ms";
const ERROR: &str = "nvml.error";

/// How NVML is with a GPU: the readings that the host itself makes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Standing<'a> {
    Answers,
    Hangs(&'a HungCall),
    Released,
    DriverGone,
    /// It answers with errors only: this one came first.
    Errs(&'a CallFailed),
}

impl Standing<'_> {
    /// docs/readings.md has the numbers.
    fn code(self) -> i64 {
        match self {
            Self::Answers => 0,
            Self::Hangs(_) => 1,
            Self::Released => 2,
            Self::DriverGone => 3,
            Self::Errs(_) => 4,
        }
    }

    /// Says so in the samples; the other readings stay as they are.
    pub(crate) fn tell(self, samples: &mut Samples) {
        let (call, ms) = match self {
            Self::Hangs(hung) => (
                hung.call,
                i64::try_from(hung.age.as_millis()).unwrap_or(i64::MAX),
            ),
            Self::Answers | Self::Released | Self::DriverGone | Self::Errs(_) => ("", 0),
        };
        let error = match self {
            Self::Errs(failed) => failed.to_string(),
            Self::Answers | Self::Hangs(_) | Self::Released | Self::DriverGone => String::new(),
        };
        let at = system_wall_time();
        let mut tell = |key: &str, value| samples.insert(key.to_owned(), Ok(Reading { value, at }));
        tell(STATE, Value::Int(self.code()));
        tell(HUNG_CALL, Value::Text(call.to_owned()));
        tell(HUNG_MS, Value::Int(ms));
        tell(ERROR, Value::Text(error));
    }
}

/// The readings of one GPU, taken one after the other. How NVML is with it is for [`crate::session`] to say in them.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) samples: Arc<Samples>,
    /// The GPU or the driver went away: everything is `Unreachable`, and what was left was not tried.
    pub(crate) cut_short: Option<CallFailed>,
    /// Calls that failed for another reason than that.
    pub(crate) failed_calls: u64,
    pub(crate) answer: Answered,
    /// The keys that were asked for.
    pub(crate) asked: Vec<&'static str>,
    /// Of these, those that can't be told until the GPU is reset.
    pub(crate) awaiting_reset: Vec<(&'static str, CallFailed)>,
}

/// What a GPU answered in all.
#[derive(Clone, Debug)]
pub(crate) enum Answered {
    /// A value at least of what moves.
    Values,
    /// Errors only, of which this came first.
    Errors(CallFailed),
    /// Neither: nothing that moves was asked for, or it has nothing of it.
    Nothing,
}

/// The recovery action that the samples tell of.
pub(crate) fn recovery_action(samples: &Samples) -> Option<i64> {
    match samples.get(RECOVERY_ACTION)?.as_ref().ok()?.value {
        Value::Int(action) => Some(action),
        Value::Flag(_) | Value::Real(_) | Value::Text(_) | Value::Bytes(_) => None,
    }
}

/// Reads the classes that are due; of the others, what was read before stays. What fails is a miss.
pub(crate) fn sample(device: &Device<'_>, due: &[Class], before: &Samples) -> Batch {
    let mut batch = Taking::of(before);
    for query in QUERIES.iter().filter(|query| due.contains(&query.class)) {
        batch.asked.extend(query.keys);
        batch.ask(query, device);
        if batch.cut_short.is_some() {
            for query in QUERIES {
                batch.miss(query.keys, Miss::Unreachable);
            }
            break;
        }
    }
    batch.done(due)
}

#[derive(Debug, Default)]
struct Taking {
    samples: Samples,
    cut_short: Option<CallFailed>,
    failed_calls: u64,
    has_values: bool,
    /// The first that failed, and the first that was told to be something that there is not.
    failed: Option<CallFailed>,
    absent: Option<CallFailed>,
    asked: Vec<&'static str>,
    awaiting_reset: Vec<(&'static str, CallFailed)>,
}

impl Taking {
    fn of(before: &Samples) -> Self {
        Self {
            samples: before.clone(),
            ..Self::default()
        }
    }

    fn done(self, due: &[Class]) -> Batch {
        // There is no GPU without any sensor: one that denies all of them is not well.
        let absent = self.absent.filter(|_| due.contains(&Class::Sensors));
        let answer = match self.failed.or(absent) {
            _ if self.has_values => Answered::Values,
            Some(failed) => Answered::Errors(failed),
            None => Answered::Nothing,
        };
        Batch {
            samples: Arc::new(self.samples),
            cut_short: self.cut_short,
            failed_calls: self.failed_calls,
            answer,
            asked: self.asked,
            awaiting_reset: self.awaiting_reset,
        }
    }

    fn ask(&mut self, query: &Query, device: &Device<'_>) {
        match called(query.call, || (query.read)(device)) {
            Ok(values) => {
                let at = system_wall_time();
                for (key, value) in query.keys.iter().zip(values) {
                    match value {
                        Ok(value) => {
                            // What the board is, the library may have kept.
                            self.has_values |= query.class != Class::Limits;
                            let reading = Ok(Reading { value, at });
                            self.samples.insert((*key).to_owned(), reading);
                        }
                        // One field of many: its own return code.
                        Err(error) => self.failed(&[key], CallFailed::new(query.call, error)),
                    }
                }
            }
            Err(failed) => self.failed(query.keys, failed),
        }
    }

    fn failed(&mut self, keys: &[&'static str], failed: CallFailed) {
        match failed.meaning {
            Meaning::Unsupported => {
                self.miss(keys, Miss::NotSupported);
                self.absent.get_or_insert(failed);
            }
            Meaning::Lost | Meaning::DriverGone => self.cut_short = Some(failed),
            Meaning::ResetRequired | Meaning::TimedOut | Meaning::Failed => {
                tracing::debug!("no reading: {failed}");
                self.miss(keys, Miss::Unreachable);
                self.failed_calls += 1;
                if failed.meaning == Meaning::ResetRequired {
                    let awaiting = keys.iter().map(|key| (*key, failed.clone()));
                    self.awaiting_reset.extend(awaiting);
                }
                self.failed.get_or_insert(failed);
            }
        }
    }

    fn miss(&mut self, keys: &[&str], miss: Miss) {
        for key in keys {
            self.samples.insert((*key).to_owned(), Err(miss));
        }
    }
}

/// Whether the GPU answers. A temperature, since what the library keeps (UUID, PCI address) may be
/// told of a GPU that is gone; for one without a sensor, its memory.
///
/// # Errors
/// Whatever the call said; it is for the caller to judge whether that means lost.
pub(crate) fn probe(device: &Device<'_>) -> Result<(), CallFailed> {
    let temperature = || device.temperature(TemperatureSensor::Gpu);
    match called("nvmlDeviceGetTemperature", temperature) {
        Ok(_) => Ok(()),
        Err(failed) if failed.meaning == Meaning::Unsupported => {
            called("nvmlDeviceGetMemoryInfo_v2", || raw::memory(device)).map(|_| ())
        }
        Err(failed) => Err(failed),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use nvml_wrapper::error::NvmlError;

    use super::*;

    #[test]
    fn every_key_is_documented_with_its_class_and_every_documented_key_is_read() {
        let documented: BTreeMap<&str, &str> = include_str!("../../../docs/readings.md")
            .lines()
            .skip_while(|line| !line.starts_with("| key |"))
            .take_while(|line| line.starts_with('|'))
            .filter_map(|line| {
                let mut cells = line.split('|').map(str::trim).skip(1);
                let key = cells.next()?.strip_prefix('`')?.strip_suffix('`')?;
                Some((key, cells.nth(2)?))
            })
            .collect();
        let mut own = Samples::new();
        Standing::Answers.tell(&mut own);
        let own = own.keys().map(|key| (key.as_str(), "always"));
        let read: Vec<(&str, &str)> = QUERIES
            .iter()
            .flat_map(|query| query.keys.iter().map(|key| (*key, query.class.as_str())))
            .chain(own)
            .collect();
        assert_eq!(read.iter().copied().collect::<BTreeMap<_, _>>(), documented);
        assert_eq!(read.len(), documented.len(), "a key is read twice");
    }

    #[test]
    fn n1_a_hung_call_is_told_and_the_last_readings_stay() {
        let hung = HungCall {
            call: "nvmlX",
            device: None,
            peer: None,
            index: None,
            age: Duration::from_millis(1500),
        };
        let mut samples = Samples::from([("power.draw".to_owned(), Err(Miss::NotYet))]);
        Standing::Hangs(&hung).tell(&mut samples);
        let value = |key: &str| samples[key].as_ref().unwrap().value.clone();
        assert_eq!(value(STATE), Value::Int(1));
        assert_eq!(value(HUNG_CALL), Value::Text("nvmlX".to_owned()));
        assert_eq!(value(HUNG_MS), Value::Int(1500));
        assert_eq!(samples["power.draw"], Err(Miss::NotYet));
    }

    fn failed(error: NvmlError) -> CallFailed {
        CallFailed::new("nvmlX", error)
    }

    #[test]
    fn a_gpu_that_tells_nothing_but_errors_has_not_answered() {
        let answer = |errors: Vec<NvmlError>, due: &[Class]| {
            let mut taking = Taking::default();
            for error in errors {
                taking.failed(&["power.draw"], failed(error));
            }
            taking.done(due).answer
        };
        let (sensors, limits) = ([Class::Sensors], [Class::Limits]);
        let unknown = answer(vec![NvmlError::NotSupported, NvmlError::Unknown], &limits);
        let Answered::Errors(first) = unknown else {
            panic!("{unknown:?}");
        };
        assert_eq!(first.to_string(), "nvmlX answered UNKNOWN");
        let denied = answer(vec![NvmlError::InvalidArg], &sensors);
        assert!(matches!(denied, Answered::Errors(_)), "{denied:?}");
        // A board may well have nothing of a class.
        let denied = answer(vec![NvmlError::NotSupported], &limits);
        assert!(matches!(denied, Answered::Nothing), "{denied:?}");
        let mut taking = Taking::default();
        taking.failed(&["power.draw"], failed(NvmlError::Unknown));
        taking.has_values = true;
        assert!(matches!(taking.done(&sensors).answer, Answered::Values));
    }

    #[test]
    fn what_can_t_be_told_before_a_reset_is_noted_with_its_keys() {
        let mut taking = Taking::default();
        taking.failed(&["power.draw"], failed(NvmlError::ResetRequired));
        taking.failed(&["clocks.sm"], failed(NvmlError::Unknown));
        let batch = taking.done(&[Class::Sensors]);
        let keys: Vec<_> = batch.awaiting_reset.iter().map(|(key, _)| *key).collect();
        assert_eq!(keys, ["power.draw"]);
        assert_eq!(batch.failed_calls, 2);
    }
}
