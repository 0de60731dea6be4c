//! What the journal keeps for those who judge again, and those who look on (H6, H9, H11).

use std::borrow::Borrow;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use device_api_core::action::Action;
use device_api_core::clock::Clock as _;
use device_api_core::limits;
use device_api_core::policy::{Evaluated, Evaluation, FailureKind, Filter, Subscription};
use device_api_core::ports::{DeviceCache as _, Onlooker};
use device_api_core::seating::Committed;
use device_api_core::signal::{
    Attr, Observation, Reading, Samples, Signal, SignalKind, Source, Target, Value,
};
use device_api_core::verdict::{Judgement, Severity, Wake};

use crate::rig::*;

type Seen = Arc<Mutex<Vec<Evaluation>>>;

/// A policy that writes down what it is asked.
fn recording(kinds: &[SignalKind]) -> (Arc<Scripted>, Seen) {
    let seen = Seen::default();
    let subscriptions = kinds.iter().map(|kind| every(*kind)).collect();
    let policy = Scripted::new("p", subscriptions, {
        let seen = seen.clone();
        move |evaluation| {
            seen.lock().unwrap().push(evaluation.clone());
            Ok(Evaluated::default())
        }
    });
    (policy, seen)
}

fn celsius(value: i64) -> Arc<Samples> {
    let reading = Reading {
        value: Value::Int(value),
        at: Default::default(),
    };
    Arc::new(Samples::from([("temperature.gpu".to_owned(), Ok(reading))]))
}

fn codes(signals: &[impl Borrow<Signal>]) -> Vec<Option<u64>> {
    let codes = signals.iter().map(|signal| signal.borrow().code);
    codes.collect()
}

#[test]
fn h6_h9_what_is_asked_again_from_the_journal_is_what_was_asked() {
    let kinds = [SignalKind::GpuFound, SignalKind::Xid, SignalKind::Reading];
    let (live, seen) = recording(&kinds);
    let rig = Rig::new(std::slice::from_ref(&live));
    rig.sink.device_found(
        rig.cache.device(&gpu()).unwrap().as_ref().clone(),
        celsius(40),
    );
    live.answer();
    rig.xid(31);
    rig.xid(43);
    rig.sink.observe(Observation {
        samples: Some(celsius(50)),
        ..xid(13)
    });
    rig.xid(8);
    live.answer();
    rig.sink.sampled(&gpu(), celsius(60));
    live.answer_all();

    let lived: Vec<Evaluation> = seen.lock().unwrap().drain(..).collect();
    let journal = &rig.seats.journals()[0];
    let mut asked = journal.signals.iter();
    for live_one in &lived {
        let signals: Arc<[Signal]> = asked
            .by_ref()
            .take(live_one.signals.len())
            .map(|signal| Signal::clone(signal))
            .collect();
        let newest = signals.last().expect("as many");
        assert_eq!(live_one.samples, newest.samples.clone().unwrap());
        assert_eq!(live_one.signals, signals);
        assert_eq!(live_one.device, journal.device);
    }
    assert_eq!(asked.count(), 0);
    assert_eq!(lived.len(), 4);
}

#[test]
fn h9_the_journal_is_bounded_and_says_from_when_on_it_is_complete() {
    let rig = Rig::new(&[]);
    rig.found_again();
    let start = rig.clock.boot();
    assert_eq!(rig.seats.journals()[0].complete_since, start);
    let max = limits::JOURNAL_SIGNALS_PER_GPU_MAX;
    for code in 0..max as u64 + 8 {
        rig.later(Duration::from_secs(1));
        rig.xid(1000 + code);
    }
    let journal = &rig.seats.journals()[0];
    assert_eq!(journal.signals.len(), max);
    assert_eq!(
        journal.signals[0].kind,
        SignalKind::GpuFound,
        "that the GPU answers is true still"
    );
    assert_eq!(journal.signals[1].code, Some(1009), "the oldest went");
    assert!(journal.complete_since > start.after(Duration::from_secs(9)));
    assert!(journal.complete_since < start.after(Duration::from_secs(10)));

    rig.later(limits::JOURNAL_AGE_MAX - Duration::from_secs(10));
    rig.xid(31);
    rig.later(Duration::from_secs(11));
    let journal = &rig.seats.journals()[0];
    assert_eq!(
        codes(&journal.signals),
        [None, Some(31)],
        "and what is too old"
    );
}

#[test]
fn h9_repeats_fold_and_of_a_reading_the_newest_is_kept() {
    let key = Filter {
        key: Some("temperature.gpu".to_owned()),
        ..Filter::default()
    };
    let hot = Subscription {
        kind: SignalKind::Reading,
        filter: key,
    };
    let policy = Scripted::new("p", vec![hot, every(SignalKind::Xid)], |_| {
        Ok(Evaluated::default())
    });
    let rig = Rig::new(std::slice::from_ref(&policy));
    let judged = |act: &dyn Fn()| {
        act();
        policy.answer_all();
    };
    for value in [40, 50, 60] {
        judged(&|| rig.sink.sampled(&gpu(), celsius(value)));
        judged(&|| rig.xid(31));
    }
    let recovery = |action| Observation {
        attrs: vec![Attr::int("action", action)],
        ..Observation::new(
            SignalKind::RecoveryAction,
            Target::Uuid(gpu()),
            Source::Field230,
        )
    };
    for action in [1, 1, 0, 1] {
        judged(&|| rig.sink.observe(recovery(action)));
    }
    let journal = &rig.seats.journals()[0];
    let told: Vec<_> = journal
        .signals
        .iter()
        .map(|signal| (signal.kind, signal.repeats))
        .collect();
    let expected = [
        (SignalKind::Xid, 3),
        (SignalKind::Reading, 1),
        (SignalKind::RecoveryAction, 2),
        (SignalKind::RecoveryAction, 1),
        (SignalKind::RecoveryAction, 1),
    ];
    assert_eq!(told, expected);
    assert!(journal.signals.is_sorted_by_key(|signal| signal.seq));
    let value = &journal.signals[1].attrs[1].value;
    assert_eq!(*value, Value::Int(60));
}

#[test]
fn h6_a_timer_is_its_policys_and_in_no_journal_and_a_restart_begins_it_anew() {
    let policy = || {
        Scripted::new("p", vec![every(SignalKind::Xid)], |evaluation| {
            let mut evaluated = Evaluated::default();
            evaluated.decision.wakes = vec![Wake {
                name: "look".to_owned(),
                after: Duration::from_secs(60),
            }];
            assert!(!evaluation.signals.is_empty());
            Ok(evaluated)
        })
    };
    let first = policy();
    let rig = Rig::new(std::slice::from_ref(&first));
    rig.xid(13);
    first.answer();
    let journal = rig.seats.journals().remove(0);
    for _ in 0..3 {
        rig.later(Duration::from_secs(60));
        assert_eq!(first.answer()[0].kind, SignalKind::Timer);
    }
    let kinds = |rig: &Rig| {
        let signals = rig.seats.journals()[0].signals.clone();
        signals.iter().map(|signal| signal.kind).collect::<Vec<_>>()
    };
    assert_eq!(kinds(&rig), [SignalKind::Xid]);
    let revision = rig.seats.journals()[0].revision;
    assert_eq!(revision, journal.revision, "nor does it move one");
    let rig = rig.restarted(&[policy()], false);
    assert!(kinds(&rig).is_empty());
    assert_eq!(rig.seats.journals()[0].complete_since, rig.clock.boot());
}

#[derive(Debug, Default)]
struct Looks(Mutex<Vec<Committed>>);

impl Onlooker for Looks {
    fn committed(&self, batch: &Committed) {
        self.0.lock().unwrap().push(batch.clone());
    }
}

#[test]
fn h11_who_looks_on_is_shown_each_signal_once_with_who_said_what() {
    let good = Scripted::new(
        "good",
        vec![every(SignalKind::Xid)],
        says("good", Judgement::Problem, Severity::Warning, Action::None),
    );
    let bad = Scripted::new(
        "bad",
        vec![every(SignalKind::Xid)],
        fails(FailureKind::Trap),
    );
    let rig = Rig::new(&[good.clone(), bad.clone()]);
    let looks = Arc::new(Looks::default());
    rig.pipeline.on_committed(looks.clone());
    rig.found_again();
    for code in [8, 13, 31] {
        rig.xid(code);
    }
    for _ in 0..8 {
        good.answer_all();
        bad.answer_all();
    }
    let shown: Vec<Committed> = looks.0.lock().unwrap().drain(..).collect();
    let told: Vec<_> = shown
        .iter()
        .flat_map(|batch| codes(&batch.signals))
        .collect();
    assert_eq!(told, [None, Some(8), Some(13), Some(31)], "retries are not");
    assert!(shown[0].said.is_empty(), "nobody was asked");
    let last = shown.last().expect("shown");
    assert_eq!(last.said.len(), 1, "who failed is not among them");
    let (who, verdicts) = &last.said[0];
    assert_eq!((&*who.name, verdicts.len()), ("good", 1));
    assert!(last.conditions.iter().any(|c| &*c.type_ == "goodFault"));
    assert!(last.signals.iter().all(|signal| signal.samples.is_some()));
}
