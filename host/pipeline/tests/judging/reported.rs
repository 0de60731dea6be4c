//! A reset that is reported: NVML need not show it (N7).

use std::sync::Arc;
use std::time::Duration;

use device_api_core::action::Action;
use device_api_core::clock::Clock as _;
use device_api_core::condition::{FALLBACK, FAULT_FLOOR};
use device_api_core::device::{DeviceInfo, MigInstance};
use device_api_core::error::ApiError;
use device_api_core::ids::DeviceUuid;
use device_api_core::incident::{IncidentState, Wanted};
use device_api_core::limits;
use device_api_core::policy::{Evaluated, Evaluation, Outcome};
use device_api_core::recovery::Recovery;
use device_api_core::signal::{Reading, Samples, SignalKind, Value};
use device_api_core::verdict::{Clear, ClearOn, Decision, Judgement, Severity};

use crate::rig::*;

const WIDTH: &str = "pcie.link-width";

/// Each XID is a problem that a reset ends, and so is a narrow link, on whatever it is told.
fn strict() -> Arc<Scripted> {
    let kinds = [
        SignalKind::Xid,
        SignalKind::GpuFound,
        SignalKind::GpuLost,
        SignalKind::Reading,
    ];
    Scripted::new("p", kinds.map(every).to_vec(), judge)
}

fn judge(evaluation: &Evaluation) -> Outcome {
    let last = evaluation.signals.last().unwrap();
    let width = evaluation.samples.get(WIDTH).and_then(|s| s.as_ref().ok());
    let is_narrow = width.is_some_and(|width| width.value == Value::Int(8));
    let verdicts = (is_narrow || last.kind == SignalKind::Xid).then(|| {
        let (problem, action) = (Judgement::Problem, Action::ComponentReset);
        let mut said = verdict("p", problem, Severity::Fatal, action, last);
        said.clears = vec![Clear::on(ClearOn::GpuReset)];
        said
    });
    Ok(Evaluated {
        decision: Decision {
            verdicts: verdicts.into_iter().collect(),
            ..Decision::default()
        },
        state: evaluation.state.clone(),
    })
}

fn found(policy: &Arc<Scripted>) -> Rig {
    let rig = Rig::new(std::slice::from_ref(policy));
    rig.found_again();
    policy.answer_all();
    rig
}

fn samples(rig: &Rig, width: i64) -> Samples {
    let reading = Reading {
        value: Value::Int(width),
        at: rig.clock.wall(),
    };
    Samples::from([(WIDTH.to_owned(), Ok(reading))])
}

/// The GPU is read, now.
fn read(rig: &Rig, width: i64) {
    rig.clock.advance(Duration::from_millis(1));
    rig.sink.sampled(&gpu(), Arc::new(samples(rig, width)));
}

#[test]
fn n7_a_reported_reset_ends_what_was_seen_up_to_the_report_and_nothing_later() {
    let policy = strict();
    let rig = found(&policy);
    rig.looked();
    rig.xid(119);
    policy.answer_all();
    rig.recovered(Recovery::GpuReset);
    policy.answer_all();
    assert!(rig.is_problem("pFault"), "noticed: it may be newer");
    rig.report_reset();
    let over = rig.cache.condition(&gpu(), "pFault").unwrap();
    assert_eq!((over.state, &*over.reason), (Judgement::Ok, "GpuReset"));
    let says = "Cleared: the GPU was reset (reported by uid:0: nvidia-smi --gpu-reset).";
    assert!(over.message.starts_with(says), "{}", over.message);
    let listed = rig.incidents.incidents(&Wanted::newest()).listed;
    let of_xid = listed.iter().find(|one| one.code == Some(119)).unwrap();
    assert!(
        matches!(&of_xid.state, IncidentState::Closed { why, .. } if why == "gpu-reset"),
        "{of_xid:?}"
    );
    rig.xid(119);
    policy.answer_all();
    assert!(rig.is_problem("pFault"), "a new fault");
    rig.recovered(Recovery::GpuReset);
    assert!(
        rig.is_problem("pFault"),
        "that the reset is noticed as well does not make it later"
    );
}

#[test]
fn n7_h8_a_reported_reset_ends_floors_what_waits_for_one_and_what_is_assumed() {
    let ok = says("p", Judgement::Ok, Severity::Info, Action::None);
    let policy = Scripted::new("p", vec![every(SignalKind::Xid)], ok);
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.xid(95);
    policy.answer_all();
    assert!(rig.is_problem(FAULT_FLOOR));
    rig.xid(48);
    policy.answer_all();
    rig.xid(46);
    rig.later(BARRIER_WAIT);
    assert!(rig.is_problem(FALLBACK));
    rig.report_reset();
    policy.answer_all();
    rig.later(limits::CONTAINMENT_WINDOW);
    for condition in [FAULT_FLOOR, FALLBACK] {
        assert!(!rig.is_problem(condition), "{condition}");
    }
}

#[test]
fn c2_n7_what_still_is_so_after_a_reported_reset_is_back_before_a_reader_sees_the_gpu_without_it() {
    let policy = strict();
    let rig = found(&policy);
    read(&rig, 8);
    policy.answer_all();
    assert!(rig.is_problem("pFault"));
    rig.report_reset();
    assert!(!rig.is_problem("pFault") && rig.cache.is_up(&gpu()));
    // That NVML is let go of is told with what was read last.
    let mut stale = samples(&rig, 8);
    rig.clock.advance(Duration::from_millis(1));
    let state = Reading {
        value: Value::Int(2),
        at: rig.clock.wall(),
    };
    stale.insert("nvml.state".to_owned(), Ok(state));
    rig.sink.sampled(&gpu(), Arc::new(stale));
    let told = std::iter::repeat_with(|| policy.waiting() > 0)
        .take_while(|waits| *waits)
        .flat_map(|_| policy.answer());
    let told: Vec<_> = told.map(|signal| signal.kind).collect();
    assert!(!told.contains(&SignalKind::GpuFound), "{told:?}");
    read(&rig, 8);
    let asked = policy.answer();
    assert_eq!(asked[0].kind, SignalKind::GpuFound);
    assert!(rig.is_problem("pFault"));
    assert!(!rig.cache.is_up(&gpu()));
}

#[test]
fn n7_after_a_reset_who_had_nothing_to_say_is_asked_first_as_links_may_train() {
    for resets in [Rig::reset, Rig::report_reset] {
        let policy = strict();
        let rig = found(&policy);
        read(&rig, 16);
        policy.answer_all();
        resets(&rig);
        read(&rig, 8);
        let asked: Vec<_> = policy.answer().iter().map(|signal| signal.kind).collect();
        assert_eq!(asked, [SignalKind::GpuFound]);
        let asked: Vec<_> = policy.answer().iter().map(|signal| signal.kind).collect();
        assert_eq!(asked, [SignalKind::Reading]);
    }
}

#[test]
fn n7_what_can_not_have_been_reset_is_refused() {
    let policy = strict();
    let rig = found(&policy);
    rig.sink.device_found(
        DeviceInfo {
            mig: vec![MigInstance {
                uuid: DeviceUuid::new("MIG-a"),
                gpu_instance: 1,
                compute_instance: Some(0),
                profile: "1g.10gb".to_owned(),
                memory_bytes: None,
            }],
            ..DeviceInfo::bare(gpu())
        },
        Arc::default(),
    );
    rig.xid(119);
    policy.answer_all();
    #[track_caller]
    fn check(refused: Result<(), ApiError>, says: &str) {
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains(says), "{refused}");
    }
    check(rig.report_reset_of("GPU-9", "why"), "GPU-9");
    check(
        rig.report_reset_of("MIG-a", "why"),
        "MIG-a is a MIG instance, and is reset with its GPU: report it of GPU-0",
    );
    check(rig.report_reset_of("GPU-0", " "), "say how it is known");
    rig.recovered(Recovery::Replaced {
        by: DeviceUuid::new("GPU-1"),
    });
    check(
        rig.report_reset_of("GPU-0", "why"),
        "GPU-0 is gone, another GPU is in its slot",
    );
    assert!(rig.is_problem("pFault"));
}
