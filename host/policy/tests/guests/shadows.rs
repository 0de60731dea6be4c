//! Design H11: policies that look on.

use std::sync::Arc;

use device_api_core::action::Action;
use device_api_core::clock::WallTime;
use device_api_core::device::DeviceInfo;
use device_api_core::ids::DeviceUuid;
use device_api_core::ids::SignalSeq;
use device_api_core::policy::PolicyId;
use device_api_core::policy_status::{Mode, Phase, PolicyStatus};
use device_api_core::ports::{Onlooker, PolicyCommand};
use device_api_core::seating::Committed;
use device_api_core::signal::Signal;
use device_api_core::verdict as core;

use crate::bench::{Rig, bundled};
use crate::component::{GOOD, Memory, always, component, quiet};
use crate::house::xid;

fn rig(shadow: Vec<u8>) -> Rig {
    let mut rig = Rig::new(vec![bundled("p", quiet("p", &["TestFault"]))]);
    rig.write("next.wasm", shadow);
    let text = "policies: [{name: p-next, file: next.wasm, mode: shadow}]";
    rig.write("policies.yaml", text);
    rig.start();
    rig
}

fn committed(signal: Signal, said: Vec<core::Verdict>) -> Committed {
    let id = PolicyId {
        name: "p".into(),
        version: "1.0.0".into(),
        digest: "d".into(),
    };
    Committed {
        device: Arc::new(DeviceInfo::bare(DeviceUuid::new("GPU-0"))),
        signals: Arc::from([signal]),
        said: vec![(id, said)],
        conditions: Arc::from([]),
    }
}

fn said(condition: &str) -> core::Verdict {
    core::Verdict {
        condition: condition.to_owned(),
        state: core::Judgement::Problem,
        severity: core::Severity::Fatal,
        reason: "Broken".to_owned(),
        message: String::new(),
        action: Action::RestartBm,
        clears: Vec::new(),
        instance: None,
        cause: SignalSeq(1),
    }
}

/// Waits for the shadow's own thread, which nobody else waits for.
#[track_caller]
fn until(rig: &Rig, is_so: impl Fn(&PolicyStatus) -> bool) -> PolicyStatus {
    let begun = std::time::Instant::now();
    loop {
        let status = rig.status("p-next");
        if is_so(&status) {
            return status;
        }
        assert!(begun.elapsed().as_secs() < 30, "{status:?}");
        std::thread::yield_now();
    }
}

#[test]
fn h11_a_shadow_takes_no_seat_and_its_disagreements_are_counted_and_kept() {
    let rig = rig(always("p", &["TestFault"], "next", &[GOOD]));
    let status = rig.status("p-next");
    assert_eq!((status.mode, status.phase), (Mode::Shadow, Phase::Running));
    assert_eq!(rig.bench.log().len(), 1, "the one that judges");
    let look_on = &rig.config.shadows;
    look_on.committed(&committed(xid(63), vec![said("TestFault")]));
    let status = until(&rig, |status| status.counters.shadow_compared == 1);
    assert_eq!(status.counters.shadow_disagreements, 0);
    look_on.committed(&committed(xid(63), vec![]));
    let status = until(&rig, |status| status.counters.shadow_compared == 2);
    assert_eq!(status.counters.shadow_disagreements, 1);
    let kept = &rig.detail("p-next").disagreements[0];
    assert_eq!(
        (
            kept.device.as_ref(),
            kept.condition.as_str(),
            kept.signal.as_str()
        ),
        ("GPU-0", "TestFault", "xid 63")
    );
    assert_eq!(
        (kept.enforced.as_str(), kept.shadow.as_str()),
        ("nothing", "problem fatal RESTART_BM")
    );
    assert_eq!(*kept.digest, *status.active.unwrap().id.digest);
    assert!(kept.at > WallTime::default());
}

#[test]
fn h11_what_a_shadow_leaves_unsaid_is_a_disagreement_where_the_type_is_its_own() {
    let rig = rig(quiet("p", &["TestFault"]));
    let look_on = &rig.config.shadows;
    look_on.committed(&committed(xid(63), vec![said("Foreign")]));
    let status = until(&rig, |status| status.counters.shadow_compared == 1);
    assert_eq!(status.counters.shadow_disagreements, 0);
    look_on.committed(&committed(xid(63), vec![said("TestFault")]));
    until(&rig, |status| status.counters.shadow_disagreements == 1);
    assert_eq!(rig.detail("p-next").disagreements[0].shadow, "nothing");
}

#[test]
fn h11_a_storm_and_a_hog_cost_the_shadow_alone() {
    // 20 ms of processor time a call: a tenth of a processor is soon used up.
    let mut memory = Memory::default();
    let info = memory.info("p", &["TestFault"]);
    let nothing = memory.decision(&[]);
    let work = format!(
        "(if (i64.eq (call $now) (i64.const 7)) (then
           (loop (local.set $i (i32.add (local.get $i) (i32.const 1)))
             (br_if 0 (i32.lt_u (local.get $i) (i32.const 100000000))))))
         i32.const {nothing}"
    );
    let hog = component(&memory, &format!("i32.const {info}"), &work);
    let rig = rig(hog);
    let look_on = &rig.config.shadows;
    let slow = Signal {
        observed_at: WallTime::from_ms(7),
        ..xid(63)
    };
    // Its clock stands still, so that nothing is saved up meanwhile.
    let batches = 2_000;
    for _ in 0..batches {
        look_on.committed(&committed(slow.clone(), vec![]));
    }
    let seen = |status: &PolicyStatus| {
        let counters = &status.counters;
        counters.shadow_compared + counters.shadow_dropped == batches
    };
    let status = until(&rig, seen);
    assert!(status.counters.shadow_dropped > batches / 2, "{status:?}");
    assert!(status.counters.shadow_compared > 0, "{status:?}");
}

#[test]
fn h11_starts_of_its_instances_are_paid_from_the_shadows_budget() {
    // A start of some 10 ms after each call, which costs next to nothing.
    let mut memory = Memory::default();
    let info = memory.info("p", &["TestFault"]);
    let nothing = memory.decision(&[]);
    let configure = format!(
        "(local $i i32)
         (loop (local.set $i (i32.add (local.get $i) (i32.const 1)))
           (br_if 0 (i32.lt_u (local.get $i) (i32.const 40000000))))
         i32.const {info}"
    );
    let hog = component(&memory, &configure, &format!("i32.const {nothing}"));
    let mut rig = Rig::new(vec![bundled("p", quiet("p", &["TestFault"]))]);
    rig.write("next.wasm", hog);
    let limits = "limits: {calls-per-instance-max: 1}";
    let text = format!("policies: [{{name: p-next, file: next.wasm, mode: shadow, {limits}}}]");
    rig.write("policies.yaml", text);
    rig.start();
    // Its clock stands still, so that nothing is saved up meanwhile.
    let batches = 250;
    for _ in 0..batches {
        let batch = committed(xid(63), vec![]);
        rig.config.shadows.committed(&batch);
    }
    let seen = |status: &PolicyStatus| {
        let counters = &status.counters;
        counters.shadow_compared + counters.shadow_dropped == batches
    };
    let counters = until(&rig, seen).counters;
    assert!(counters.shadow_dropped > batches / 2, "{counters:?}");
    assert!(counters.shadow_compared > 0, "{counters:?}");
}

#[test]
fn h11_a_shadow_ends_when_it_is_wanted_no_more_and_can_be_promoted() {
    let next = always("p", &["TestFault"], "next", &[GOOD]);
    let rig = rig(next);
    rig.write("policies.yaml", "policies: [{name: p, file: next.wasm}]");
    rig.reload();
    let names: Vec<_> = rig
        .policies()
        .list()
        .iter()
        .map(|status| status.name.to_string())
        .collect();
    assert_eq!(names, ["p"]);
    assert_eq!(rig.status("p").active.unwrap().origin.as_ref(), "next.wasm");
    rig.config.shadows.committed(&committed(xid(63), vec![]));
}

#[test]
fn h11_a_new_version_of_a_shadow_is_told_too() {
    let rig = rig(always("p", &["TestFault"], "1", &[GOOD]));
    let look_on = &rig.config.shadows;
    look_on.committed(&committed(xid(63), vec![]));
    until(&rig, |status| status.counters.shadow_compared == 1);
    let first = rig.status("p-next").active.unwrap().id.digest;
    rig.write("next.wasm", always("p", &["TestFault"], "2", &[GOOD]));
    rig.reload();
    assert_ne!(rig.status("p-next").active.unwrap().id.digest, first);
    look_on.committed(&committed(xid(63), vec![]));
    let status = until(&rig, |status| status.counters.shadow_compared == 2);
    assert_eq!(status.counters.shadow_disagreements, 2);
}

#[test]
fn h11_what_a_quarantined_shadow_found_stays_to_be_looked_at() {
    let rig = rig(always("p", &["TestFault"], "1", &[GOOD]));
    let look_on = &rig.config.shadows;
    look_on.committed(&committed(xid(63), vec![]));
    until(&rig, |status| status.counters.shadow_disagreements == 1);
    rig.command(PolicyCommand::Quarantine {
        name: "p-next".to_owned(),
        reason: "enough".to_owned(),
        digest: String::new(),
    });
    look_on.committed(&committed(xid(63), vec![]));
    let status = rig.status("p-next");
    assert_eq!(status.phase, Phase::Quarantined);
    assert_eq!(status.counters.shadow_disagreements, 1);
    assert_eq!(status.counters.shadow_compared, 1, "it looks on no more");
    assert_eq!(rig.detail("p-next").disagreements.len(), 1);
}
