//! Which readings are worth a signal: those that crossed what a policy subscribed to.

use std::collections::HashMap;

use device_api_core::clock::{BootTime, WallTime};
use device_api_core::policy::{Filter, PolicyInfo};
use device_api_core::signal::{Attr, Reading, Samples, SignalKind, Value};

use crate::anew::read_at;

/// The last value that was told.
#[derive(Clone, Copy, Debug)]
struct Last {
    value: f64,
    /// What `relative-to` names was then; 0 where it names nothing.
    from: f64,
    at: BootTime,
    /// It is told again, whatever it is, when it was read at another time than this.
    again: Option<WallTime>,
}

/// What was told last, by seat, subscription and key.
#[derive(Debug, Default)]
pub(crate) struct Told {
    values: HashMap<(usize, usize), HashMap<String, Last>>,
}

/// A reading that goes out as a signal.
#[derive(Debug, PartialEq)]
pub(crate) struct Crossing {
    /// What was read: `row-remap.pending=1, before 0`.
    pub(crate) evidence: String,
    pub(crate) attrs: Vec<Attr>,
    /// Bit N: policy N subscribed to it.
    pub(crate) recipients: u32,
}

impl Told {
    /// Takes the readings as told without telling: a device that was just found sends them all.
    pub(crate) fn prime<'a>(
        &mut self,
        policies: impl Iterator<Item = (usize, &'a PolicyInfo)>,
        samples: &Samples,
        now: BootTime,
    ) {
        self.crossings(policies, samples, now);
    }

    /// Nothing was told to whoever has that seat now.
    pub(crate) fn forget(&mut self, seat: usize) {
        self.values.retain(|(told, _), _| *told != seat);
    }

    /// Whoever has that seat is told of each reading again, once it was read again; `samples`: as it was read
    /// last.
    pub(crate) fn tell_again(&mut self, seat: usize, samples: &Samples) {
        let of_seat = self
            .values
            .iter_mut()
            .filter(|((told, _), _)| *told == seat);
        for (key, last) in of_seat.flat_map(|(_, values)| values) {
            last.again = Some(read_at(samples, key));
        }
    }

    /// The readings that a policy wants to hear of, each once.
    pub(crate) fn crossings<'a>(
        &mut self,
        policies: impl Iterator<Item = (usize, &'a PolicyInfo)>,
        samples: &Samples,
        now: BootTime,
    ) -> Vec<Crossing> {
        let mut crossings: Vec<(&str, Crossing)> = Vec::new();
        for (policy, info) in policies {
            let readings = info
                .subscriptions
                .iter()
                .enumerate()
                .filter(|(_, s)| s.kind == SignalKind::Reading);
            for (at, subscription) in readings {
                // Without the threshold there is none to cross.
                let Some(from) = counted_from(&subscription.filter, samples) else {
                    continue;
                };
                // Without a key it is about every reading.
                let wanted = subscription.filter.key.as_deref();
                for (key, sample) in samples
                    .iter()
                    .filter(|(key, _)| wanted.is_none_or(|w| w == *key))
                {
                    let Ok(reading) = sample else { continue };
                    let (of, read) = ((policy, at), (reading, from));
                    let told = self.tell(of, key, &subscription.filter, read, now);
                    let Some(previous) = told else { continue };
                    let recipients = 1_u32 << policy;
                    match crossings.iter_mut().find(|(known, _)| known == key) {
                        Some((_, crossing)) => crossing.recipients |= recipients,
                        None => {
                            let crossing = Crossing::of(key, &reading.value, previous, recipients);
                            crossings.push((key, crossing));
                        }
                    }
                }
            }
        }
        crossings
            .into_iter()
            .map(|(_, crossing)| crossing)
            .collect()
    }

    /// The value that was told before, if one was, where the reading is worth a signal to that subscription.
    /// `from`: what its thresholds count from.
    fn tell(
        &mut self,
        subscription: (usize, usize),
        key: &str,
        filter: &Filter,
        (reading, from): (&Reading, f64),
        now: BootTime,
    ) -> Option<Option<f64>> {
        let value = number(&reading.value)?;
        let told = self.values.entry(subscription).or_default();
        let previous = told.get_mut(key);
        let is_idle = |last: &Last| {
            // One that comes too soon is told when its time has come, if it still differs then.
            let is_soon = filter
                .min_interval
                .is_some_and(|min| now.since(last.at) < min);
            let is_due = last.again.is_some_and(|read| read != reading.at);
            is_soon || !(is_due || is_crossed(filter, last.value - last.from, value - from))
        };
        if previous.as_deref().is_some_and(is_idle) {
            return None;
        }
        let new = Last {
            value,
            from,
            at: now,
            again: None,
        };
        let previous = match previous {
            Some(told) => Some(std::mem::replace(told, new)),
            None => told.insert(key.to_owned(), new),
        };
        Some(previous.map(|last| last.value))
    }
}

impl Crossing {
    fn of(key: &str, value: &Value, previous: Option<f64>, recipients: u32) -> Self {
        let before = previous.map_or_else(String::new, |before| format!(", before {before}"));
        let mut attrs = vec![
            Attr::text("key", key),
            Attr {
                key: "value".to_owned(),
                value: value.clone(),
            },
        ];
        attrs.extend(previous.map(|previous| Attr::real("previous", previous)));
        Self {
            evidence: format!("{key}={}{before}", shown(value)),
            attrs,
            recipients,
        }
    }
}

/// As in the evidence: of those that [`number`] takes.
fn shown(value: &Value) -> String {
    match value {
        Value::Flag(flag) => u8::from(*flag).to_string(),
        Value::Int(int) => int.to_string(),
        Value::Real(real) => real.to_string(),
        Value::Text(_) | Value::Bytes(_) => String::new(),
    }
}

/// What the thresholds of a subscription count from, as it was read last. `None`: nobody knows.
fn counted_from(filter: &Filter, samples: &Samples) -> Option<f64> {
    match &filter.relative_to {
        Some(key) => number(&samples.get(key)?.as_ref().ok()?.value),
        None => Some(0.0),
    }
}

/// With thresholds: the value changed sides. Without: it moved by more than the deadband.
fn is_crossed(filter: &Filter, previous: f64, value: f64) -> bool {
    if filter.above.is_none() && filter.below.is_none() {
        return (value - previous).abs() > filter.deadband;
    }
    let above = filter
        .above
        .is_some_and(|limit| (previous > limit) != (value > limit));
    let below = filter
        .below
        .is_some_and(|limit| (previous < limit) != (value < limit));
    above || below
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Flag(flag) => Some(f64::from(u8::from(*flag))),
        Value::Int(int) => Some(*int as f64),
        Value::Real(real) => real.is_finite().then_some(*real),
        Value::Text(_) | Value::Bytes(_) => None,
    }
}

#[cfg(test)]
mod tests;
