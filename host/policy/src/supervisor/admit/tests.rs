use std::sync::atomic::Ordering;

use device_api_core::clock::{BootTime, ManualClock};
use device_api_core::policy::{FailureKind, PolicyFailure, PolicyId, Subscription};
use device_api_core::seating::Revision;

use super::*;

/// One that wants every XID, and has the means to answer for so many calls.
fn played(answers: usize) -> LoadedPolicy {
    let info = PolicyInfo {
        id: PolicyId {
            name: "p".into(),
            version: "1".into(),
            digest: "d".into(),
        },
        state_schema: 1,
        subscriptions: vec![Subscription {
            kind: SignalKind::Xid,
            filter: Default::default(),
        }],
        owns: Vec::new(),
        readings: Vec::new(),
    };
    LoadedPolicy::played(info, move |desk, jobs| {
        for (nth, job) in jobs.iter().enumerate() {
            if nth < answers {
                job.answer(Ok(Default::default()));
                continue;
            }
            desk.starved.fetch_add(1, Ordering::Relaxed);
            job.answer(Err(PolicyFailure {
                kind: FailureKind::Unavailable,
                detail: "no new instance can be made: no memory".to_owned(),
            }));
        }
    })
}

fn journal(examiner: &Examiner<'_>) -> DeviceJournal {
    let device = Arc::new(DeviceInfo::bare(DeviceUuid::new("GPU-0")));
    let signal = Arc::new(examiner.synthetic(63, &device));
    DeviceJournal {
        device,
        signals: Arc::from([signal]),
        last_seen: Arc::default(),
        revision: Revision::default(),
        complete_since: BootTime::default(),
        is_cut: false,
        conditions: Arc::default(),
    }
}

#[test]
fn h9_what_had_no_means_to_look_at_this_node_is_not_let_in_and_is_tried_again() {
    let clock = ManualClock::default();
    let codes = xid::catalog().len();
    for (answers, is_in) in [(usize::MAX, true), (codes, false)] {
        let policy = played(answers);
        let examiner = Examiner {
            policy: &policy,
            clock: &clock,
            drills_count: false,
        };
        let tried = examiner.examine(&[journal(&examiner)]);
        let Err(error) = tried else {
            assert!(is_in);
            continue;
        };
        assert!(!is_in, "{error}");
        assert!(error.is_transient(), "{error}");
        let why = error.to_string();
        assert!(why.contains("p") && why.contains("GPU-0"), "{why}");
    }
}

#[test]
fn h9_what_had_no_means_to_go_through_the_catalogue_is_no_failure() {
    let clock = ManualClock::default();
    let policy = played(0);
    let examiner = Examiner {
        policy: &policy,
        clock: &clock,
        drills_count: false,
    };
    let trial = examiner.examine(&[]).unwrap();
    let diff = trial.diff(None);
    assert!(diff[0].contains("left out: XID"), "{diff:?}");
}
