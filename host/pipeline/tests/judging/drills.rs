//! Each line of the log that a drill causes says that it is one (N8).

use std::sync::Arc;
use std::time::Duration;

use device_api_core::device::DeviceInfo;
use device_api_core::limits;
use device_api_core::policy::{Evaluated, FailureKind};
use device_api_core::signal::{Observation, SignalKind};
use device_api_core::verdict::{Decision, Wake};

use crate::log;
use crate::rig::*;

/// Asks for more timers than it may have; fails on 46.
fn busy() -> Arc<Scripted> {
    Scripted::new("p", vec![every(SignalKind::Xid)], |evaluation| {
        if evaluation
            .signals
            .first()
            .is_some_and(|first| first.code == Some(46))
        {
            return fails(FailureKind::Trap)(evaluation);
        }
        let wakes = 0..=limits::WAKES_PER_POLICY_MAX;
        let wakes = wakes.map(|n| Wake {
            name: format!("w{n}"),
            after: Duration::from_hours(1),
        });
        let decision = Decision {
            wakes: wakes.collect(),
            ..Decision::default()
        };
        Ok(Evaluated {
            decision,
            ..Evaluated::default()
        })
    })
}

#[test]
fn n8_every_line_that_a_drill_causes_says_so() {
    #[track_caller]
    fn check(injected: bool, simulated: bool, marked: bool) {
        let lines = log::lines(|| {
            let policy = busy();
            let rig = Rig::new(std::slice::from_ref(&policy));
            let device = DeviceInfo {
                simulated,
                ..DeviceInfo::bare(gpu())
            };
            rig.sink.device_found(device, Arc::default());
            for code in [46, 95] {
                rig.sink.observe(Observation {
                    drill: injected,
                    ..xid(code)
                });
                policy.answer_all();
            }
            rig.looked();
            rig.reset();
        });
        let told = |what: &str| lines.iter().filter(|(line, _)| line.contains(what)).count();
        for what in ["opened", "closed", "no decision", "timers refused"] {
            assert!(told(what) > 0, "{what}: {lines:?}");
        }
        // That a real GPU was reset is real.
        let caused = lines
            .iter()
            .filter(|(line, _)| !line.contains("GPU recovered"));
        for (line, drill) in caused {
            assert_eq!(*drill, Some(marked), "{line}");
        }
    }
    check(true, false, true);
    check(false, true, true);
    check(false, false, false);
}
