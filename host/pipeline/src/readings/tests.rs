use std::time::Duration;

use device_api_core::policy::{PolicyId, Subscription};
use device_api_core::signal::Miss;

use super::*;

fn samples(readings: &[(&str, Option<i64>)]) -> Samples {
    let sample = |(key, value): &(&str, Option<i64>)| {
        let reading = |value| Reading {
            value: Value::Int(value),
            at: Default::default(),
        };
        let sample = value.map(reading).ok_or(Miss::Unreachable);
        ((*key).to_owned(), sample)
    };
    readings.iter().map(sample).collect()
}

fn subscribed(filter: Filter) -> PolicyInfo {
    let id = PolicyId {
        name: "a".into(),
        version: "1".into(),
        digest: "d".into(),
    };
    PolicyInfo {
        id,
        state_schema: 1,
        subscriptions: vec![Subscription {
            kind: SignalKind::Reading,
            filter,
        }],
        owns: vec![],
        readings: vec![],
    }
}

/// As nvml-health has it: the threshold is the device's, and three degrees below it is the end.
#[test]
fn a_threshold_of_the_devices_own_is_noticed_in_steps_of_one_both_ways_and_at_no_other() {
    let info = subscribed(Filter {
        key: Some("temperature.gpu".to_owned()),
        relative_to: Some("temperature.slowdown".to_owned()),
        below: Some(0.0),
        above: Some(-3.0),
        ..Filter::default()
    });
    let mut told = Told::default();
    let mut tell = |celsius, slowdown| {
        let read = samples(&[
            ("temperature.gpu", celsius),
            ("temperature.slowdown", slowdown),
        ]);
        let crossings = told.crossings([(0, &info)].into_iter(), &read, BootTime::default());
        let evidence = |crossing: Crossing| crossing.evidence;
        crossings.into_iter().map(evidence).collect::<Vec<_>>()
    };
    assert_eq!(tell(Some(40), Some(89)), ["temperature.gpu=40"]);
    let mut course = |degrees: Vec<i64>| {
        let course = degrees.into_iter().filter(|celsius| {
            let said = tell(Some(*celsius), Some(89));
            !said.is_empty()
        });
        course.collect::<Vec<_>>()
    };
    assert_eq!(course((41..=95).collect()), [87, 89]);
    assert_eq!(course((40..=94).rev().collect()), [88, 86]);
    assert_eq!(course(vec![85, 89, 89, 90, 89, 88, 87, 86]), [89, 88, 86]);
    // The threshold itself moves; and can't be read, which is no news of the temperature.
    assert_eq!(tell(Some(86), Some(80)), ["temperature.gpu=86, before 86"]);
    assert!(tell(Some(86), None).is_empty() && tell(None, Some(80)).is_empty());
    assert!(tell(Some(40), None).is_empty());
    assert_eq!(tell(Some(40), Some(80)), ["temperature.gpu=40, before 86"]);
}

#[test]
fn without_the_threshold_there_is_none_to_cross_and_with_it_the_reading_is_told() {
    let info = subscribed(Filter {
        key: Some("temperature.gpu".to_owned()),
        relative_to: Some("temperature.slowdown".to_owned()),
        below: Some(0.0),
        ..Filter::default()
    });
    let mut told = Told::default();
    let mut tell = |slowdown| {
        let read = samples(&[
            ("temperature.gpu", Some(60)),
            ("temperature.slowdown", slowdown),
        ]);
        told.crossings([(0, &info)].into_iter(), &read, BootTime::default())
            .len()
    };
    assert_eq!(
        [None, None, Some(89), Some(89)].map(&mut tell),
        [0, 0, 1, 0]
    );
}

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
    let info = subscribed(Filter::default());
    let sample = |celsius, watts| {
        samples(&[
            ("power.draw", Some(watts)),
            ("temperature.gpu", Some(celsius)),
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
        told.tell((0, 0), "power.draw", &filter, (&reading, 0.0), now)
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
        told.tell((seat, 0), "power.draw", &filter, (&reading(read), 0.0), now)
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
