//! What was seen before anybody knew whose it is.

use device_api_core::action::Action;
use device_api_core::durable::LogPosition;
use device_api_core::health::Health;
use device_api_core::ids::DeviceUuid;
use device_api_core::limits;
use device_api_core::ports::DeviceCache as _;
use device_api_core::signal::{Attr, Observation, Signal, SignalKind};
use device_api_core::verdict::{Judgement, Severity};
use std::sync::Arc;

use crate::rig::*;

const SICK: &str = "0000:3b:00.0";
const BUSY: &str = "0000:5e:00.0";

fn fatal() -> Arc<Scripted> {
    Scripted::new(
        "p",
        [
            SignalKind::Xid,
            SignalKind::GpuLost,
            SignalKind::RecoveryAction,
        ]
        .map(every)
        .to_vec(),
        says("p", Judgement::Problem, Severity::Fatal, Action::RestartBm),
    )
}

fn decided(rig: &Rig) -> Option<LogPosition> {
    rig.cache.log.lock().unwrap().clone()
}

fn told(policy: &Scripted) -> Vec<Signal> {
    std::iter::from_fn(|| (policy.waiting() > 0).then(|| policy.answer()))
        .flatten()
        .collect()
}

#[test]
fn n5_a_storm_of_one_gpu_leaves_another_ones_fault_on_the_shelf() {
    let policy = fatal();
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.sink.observe(xid_at(SICK, 79));
    for pid in 0..5000 {
        let crash = Observation {
            attrs: vec![Attr::int("pid", pid)],
            ..xid_at(BUSY, if pid % 2 == 0 { 31 } else { 13 })
        };
        rig.sink.observe(crash);
    }
    let position = LogPosition::File {
        id: (1, 1),
        offset: 1,
    };
    rig.sink.log_read(position.clone());
    rig.found("GPU-busy", BUSY);
    let repeats: Vec<_> = told(&policy)
        .iter()
        .map(|signal| (signal.code, signal.repeats))
        .collect();
    assert_eq!(repeats, [(Some(31), 2500), (Some(13), 2500)]);
    rig.found("GPU-sick", SICK);
    assert_eq!(told(&policy)[0].code, Some(79));
    assert_eq!(
        rig.cache.health(&DeviceUuid::new("GPU-sick")).0,
        Health::Unhealthy
    );
    assert_eq!(decided(&rig), Some(position), "nothing was lost");
}

#[test]
fn c7_where_the_shelf_overflows_the_mildest_goes_and_the_log_is_read_again_after_a_restart() {
    let policy = fatal();
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.sink.observe(xid_at(SICK, 79));
    rig.sink.observe(xid_at(BUSY, 79));
    for link in 0..2 * limits::UNATTRIBUTED_MAX as i64 {
        let words = Observation {
            attrs: vec![Attr::int("link", link)],
            ..xid_at(BUSY, 13)
        };
        rig.sink.observe(words);
    }
    rig.found("GPU-sick", SICK);
    rig.found("GPU-busy", BUSY);
    let graves = told(&policy);
    for uuid in ["GPU-sick", "GPU-busy"].map(DeviceUuid::new) {
        let seen = |signal: &&Signal| signal.device == uuid && signal.code == Some(79);
        assert_eq!(graves.iter().filter(seen).count(), 1, "{uuid}");
        assert!(rig.cache.device(&uuid).is_some());
    }
    rig.sink.log_read(LogPosition::File {
        id: (1, 1),
        offset: 1,
    });
    assert_eq!(decided(&rig), None);
    rig.later(std::time::Duration::from_hours(1));
    assert_eq!(
        decided(&rig),
        None,
        "what was lost is lost, however long ago"
    );
}

#[test]
fn states_keep_their_order_on_the_shelf() {
    let policy = fatal();
    let rig = Rig::new(std::slice::from_ref(&policy));
    let recovery = |action| Observation {
        attrs: vec![Attr::int("action", action)],
        ..xid_at(SICK, 154)
    };
    for observation in [
        recovery(1),
        recovery(1),
        xid_at(SICK, 31),
        recovery(0),
        recovery(1),
        xid_at(SICK, 31),
    ] {
        rig.sink.observe(observation);
    }
    rig.found("GPU-sick", SICK);
    let told: Vec<_> = told(&policy)
        .iter()
        .map(|signal| (signal.code, signal.repeats))
        .collect();
    assert_eq!(
        told,
        [
            (Some(154), 2),
            (Some(31), 2),
            (Some(154), 1),
            (Some(154), 1)
        ]
    );
}
