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
                // Without a key it is about every reading.
                let wanted = subscription.filter.key.as_deref();
                for (key, sample) in samples
                    .iter()
                    .filter(|(key, _)| wanted.is_none_or(|w| w == *key))
                {
                    let Ok(reading) = sample else { continue };
                    let Some(attrs) =
                        self.tell((policy, at), key, &subscription.filter, reading, now)
                    else {
                        continue;
                    };
                    let recipients = 1_u32 << policy;
                    match crossings.iter_mut().find(|(known, _)| known == key) {
                        Some((_, crossing)) => crossing.recipients |= recipients,
                        None => crossings.push((key, Crossing { attrs, recipients })),
                    }
                }
            }
        }
        crossings
            .into_iter()
            .map(|(_, crossing)| crossing)
            .collect()
    }

    /// The attributes of the signal, where the reading is worth one to that subscription.
    fn tell(
        &mut self,
        subscription: (usize, usize),
        key: &str,
        filter: &Filter,
        reading: &Reading,
        now: BootTime,
    ) -> Option<Vec<Attr>> {
        let value = number(&reading.value)?;
        let told = self.values.entry(subscription).or_default();
        let previous = told.get_mut(key);
        let is_idle = |last: &Last| {
            // One that comes too soon is told when its time has come, if it still differs then.
            let is_soon = filter
                .min_interval
                .is_some_and(|min| now.since(last.at) < min);
            let is_due = last.again.is_some_and(|read| read != reading.at);
            is_soon || !(is_due || is_crossed(filter, last.value, value))
        };
        if previous.as_deref().is_some_and(is_idle) {
            return None;
        }
        let new = Last {
            value,
            at: now,
            again: None,
        };
        let previous = match previous {
            Some(told) => Some(std::mem::replace(told, new)),
            None => told.insert(key.to_owned(), new),
        };
        let previous = previous.map(|last| last.value);
        let mut attrs = vec![
            Attr::text("key", key),
            Attr {
                key: "value".to_owned(),
                value: reading.value.clone(),
            },
        ];
        attrs.extend(previous.map(|previous| Attr::real("previous", previous)));
        Some(attrs)
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
mod tests {
    use std::time::Duration;

    use super::*;

    #[track_caller]
    fn check(filter: &Filter, values: &[f64], expected: &[bool]) {
        let crossed: Vec<_> = values
            .windows(2)
            .map(|pair| is_crossed(filter, pair[0], pair[1]))
            .collect();
        assert_eq!(crossed, expected);
    }

    #[test]
    fn without_a_key_a_subscription_is_about_every_reading() {
        use device_api_core::policy::{PolicyId, Subscription};
        let every = Subscription {
            kind: SignalKind::Reading,
            filter: Filter::default(),
        };
        let id = PolicyId {
            name: "a".into(),
            version: "1".into(),
            digest: "d".into(),
        };
        let info = PolicyInfo {
            id,
            state_schema: 1,
            subscriptions: vec![every],
            owns: vec![],
            readings: vec![],
        };
        let sample = |celsius, watts| {
            let reading = |value| {
                Ok(Reading {
                    value: Value::Int(value),
                    at: Default::default(),
                })
            };
            Samples::from([
                ("power.draw".to_owned(), reading(watts)),
                ("temperature.gpu".to_owned(), reading(celsius)),
            ])
        };
        let mut told = Told::default();
        let policies = || [(0, &info)].into_iter();
        let now = BootTime::default();
        told.prime(policies(), &sample(40, 70), now);
        assert_eq!(told.crossings(policies(), &sample(40, 70), now), []);
        assert_eq!(told.crossings(policies(), &sample(41, 70), now).len(), 1);
        assert_eq!(told.crossings(policies(), &sample(42, 71), now).len(), 2);
    }

    #[test]
    fn a_reading_is_told_no_sooner_than_its_interval_and_then_if_it_still_differs() {
        let filter = Filter {
            min_interval: Some(Duration::from_secs(10)),
            ..Filter::default()
        };
        let mut told = Told::default();
        let mut tell = |value, seconds: u64| {
            let reading = Reading {
                value: Value::Int(value),
                at: Default::default(),
            };
            let now = BootTime::default().after(Duration::from_secs(seconds));
            told.tell((0, 0), "power.draw", &filter, &reading, now)
                .is_some()
        };
        let said = [
            (70, 0),
            (80, 3),
            (80, 9),
            (80, 10),
            (90, 15),
            (80, 20),
            (81, 20),
        ];
        let said: Vec<_> = said.map(|(value, at)| tell(value, at)).to_vec();
        assert_eq!(said, [true, false, false, true, false, false, true]);
    }

    #[test]
    fn n7_what_is_told_again_is_told_once_when_it_was_read_again_and_no_sooner_than_its_interval() {
        let filter = Filter {
            min_interval: Some(Duration::from_secs(10)),
            ..Filter::default()
        };
        let reading = |at| Reading {
            value: Value::Int(70),
            at: WallTime::from_ms(at),
        };
        let mut told = Told::default();
        let tell = |told: &mut Told, seat, read, seconds| {
            let now = BootTime::default().after(Duration::from_secs(seconds));
            told.tell((seat, 0), "power.draw", &filter, &reading(read), now)
                .is_some()
        };
        assert!(tell(&mut told, 0, 1, 0) && tell(&mut told, 1, 1, 0));
        let last = Samples::from([("power.draw".to_owned(), Ok(reading(5)))]);
        told.tell_again(0, &last);
        let said = [(5, 20), (6, 9), (6, 20), (7, 40)];
        let said = said.map(|(read, at)| tell(&mut told, 0, read, at));
        assert_eq!(said, [false, false, true, false]);
        assert!(!tell(&mut told, 1, 6, 20), "another seat");
    }

    #[test]
    fn thresholds_tell_of_both_ways_and_deadbands_of_moves() {
        let above = Filter {
            above: Some(85.0),
            ..Filter::default()
        };
        check(
            &above,
            &[40.0, 85.0, 86.0, 99.0, 85.0],
            &[false, true, false, true],
        );
        let below = Filter {
            below: Some(8.0),
            ..Filter::default()
        };
        check(&below, &[16.0, 8.0, 4.0, 16.0], &[false, true, true]);
        let deadband = Filter {
            deadband: 2.0,
            ..Filter::default()
        };
        check(&deadband, &[40.0, 42.0, 45.0], &[false, true]);
        check(&Filter::default(), &[1.0, 1.0, 2.0], &[false, true]);
    }
}
