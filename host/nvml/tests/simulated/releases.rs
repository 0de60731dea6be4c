use std::time::Duration;

use device_api_core::error::ApiError;
use device_api_core::ports::{NvmlControl, NvmlStatus};
use device_api_core::recovery::{DriverHold, Release, ReleaseFor};
use device_api_core::signal::Value;
use device_api_nvml::{Config, Stopped, TurnedOff};

use crate::harness::{Recorder, Said, isolated, until, value, wait};

const LONG: Duration = Duration::from_hours(1);

fn release(purpose: ReleaseFor, ttl: Duration) -> Release {
    Release { purpose, ttl }
}

#[track_caller]
fn missing(attached: Result<NvmlStatus, ApiError>) -> String {
    match attached {
        Ok(NvmlStatus::Missing { why }) => why,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn released_after(recorder: &Recorder, start: usize) -> ReleaseFor {
    recorder.wait_after(start, |said| {
        let NvmlStatus::Released { purpose, .. } = said.status()? else {
            return None;
        };
        Some(*purpose)
    })
}

#[test]
fn n2_the_driver_is_let_go_of_and_taken_up_again() {
    isolated(
        "releases::n2_the_driver_is_let_go_of_and_taken_up_again",
        |sim| {
            let (recorder, handle) = sim.start(sim.config());
            let gpu = recorder.gpu(4);
            let start = recorder.now();
            let operator = handle.operator();
            let held = wait(operator.release(release(ReleaseFor::Reset, LONG))).unwrap();
            assert!(matches!(held, DriverHold::Released { .. }), "{held:?}");
            assert!(
                sim.ask(r#"{"command":"status"}"#).contains(r#""users":0"#),
                "nobody of ours has it open"
            );
            assert_eq!(released_after(&recorder, start), ReleaseFor::Reset);
            let (status, hanging) = operator.status();
            assert!(matches!(status, NvmlStatus::Released { .. }), "{status:?}");
            assert_eq!(hanging, []);
            // What was read last stays, with its time, and says of itself that it is stale.
            recorder.sampled_after(start, &gpu, |samples| {
                value(samples, "nvml.state") == Some(Value::Int(2))
                    && samples["temperature.gpu"].is_ok()
            });
            let again = wait(operator.release(release(ReleaseFor::Upgrade, LONG))).unwrap();
            assert!(matches!(again, DriverHold::Released { .. }), "{again:?}");

            let unknown = |said: &Said| matches!(said, Said::Probing(_));
            assert!(!recorder.said().iter().any(unknown), "conditions are kept");
            let start = recorder.now();
            let attached = wait(operator.attach());
            assert!(
                matches!(attached, Ok(NvmlStatus::Ready { gpus: 8, .. })),
                "{attached:?}"
            );
            recorder.ready(2);
            recorder.sampled_after(start, &gpu, |samples| {
                value(samples, "nvml.state") == Some(Value::Int(0))
            });
            assert!(recorder.recoveries().is_empty(), "nothing shows a reset");
            assert_eq!(wait(operator.attach()), attached, "it is in use");
            assert_eq!(handle.counts().sessions, 2);
            assert_eq!(handle.stop(), Stopped::Cleanly);
        },
    );
}

#[test]
fn n2_a_release_ends_by_itself_and_what_is_stale_is_unknown() {
    isolated(
        "releases::n2_a_release_ends_by_itself_and_what_is_stale_is_unknown",
        |sim| {
            let (recorder, handle) = sim.start(Config {
                stale_after: Duration::from_millis(100),
                ..sim.config()
            });
            let start = recorder.now();
            let ttl = Duration::from_millis(700);
            let held = wait(handle.operator().release(release(ReleaseFor::Upgrade, ttl)));
            assert!(matches!(held, Ok(DriverHold::Released { .. })), "{held:?}");
            let unknown = recorder.wait_after(start, |said| said.probing().map(<[_]>::len));
            assert_eq!(unknown, 8);
            recorder.ready(2);
            // Each is found again, which ends that.
            for index in 0..8 {
                recorder.wait_after(start, |said| {
                    said.found()
                        .filter(|(info, _)| info.index == Some(index))
                        .map(|_| ())
                });
            }
        },
    );
}

#[test]
fn n2_an_attach_tells_what_came_of_its_own_attempt() {
    isolated(
        "releases::n2_an_attach_tells_what_came_of_its_own_attempt",
        |sim| {
            let (recorder, handle) = sim.start(sim.config());
            let operator = handle.operator();
            wait(operator.release(release(ReleaseFor::Upgrade, LONG))).unwrap();
            sim.ask(r#"{"command":"unload"}"#);
            let start = recorder.now();
            let why = missing(wait(operator.attach()));
            assert!(why.contains("DRIVER_NOT_LOADED"), "{why}");
            assert_eq!(recorder.missing_after(start), why);
            // Nothing new, and told all the same; each has an attempt of its own, at once.
            for _ in 0..4 {
                assert_eq!(missing(wait(operator.attach())), why);
            }
            sim.ask(r#"{"command":"load"}"#);
            let attached = wait(operator.attach());
            assert!(
                matches!(attached, Ok(NvmlStatus::Ready { .. })),
                "{attached:?}"
            );
            assert_eq!(handle.stop(), Stopped::Cleanly);
        },
    );
}

#[test]
fn n7_a_reset_while_the_driver_was_let_go_of_is_noticed() {
    isolated(
        "releases::n7_a_reset_while_the_driver_was_let_go_of_is_noticed",
        |sim| {
            let (recorder, handle) = sim.start(sim.config());
            sim.ask(r#"{"command":"row-remap","gpu":1,"uncorrectable":1,"pending":true}"#);
            let gpu = recorder.gpu(1);
            recorder.sampled_after(0, &gpu, |samples| {
                value(samples, "row-remap.pending") == Some(Value::Flag(true))
            });
            let operator = handle.operator();
            wait(operator.release(release(ReleaseFor::Reset, LONG))).unwrap();
            sim.ask(r#"{"command":"row-remap","gpu":1,"uncorrectable":1,"pending":false}"#);
            let start = recorder.now();
            wait(operator.attach()).unwrap();
            let reset = device_api_core::recovery::Recovery::GpuReset;
            let evidence = recorder.recovered_after(start, &gpu, &reset);
            assert!(evidence.contains("row remap"), "{evidence}");
            recorder.ready(2);
            assert_eq!(recorder.recoveries().len(), 1);
        },
    );
}

#[test]
fn n2_a_call_that_hangs_makes_the_driver_busy_and_nothing_is_given_up() {
    isolated(
        "releases::n2_a_call_that_hangs_makes_the_driver_busy_and_nothing_is_given_up",
        |sim| {
            let (recorder, handle) = sim.start(Config {
                hung_after: Duration::from_millis(200),
                ..sim.config()
            });
            sim.ask(r#"{"command":"hang","gpu":6,"call":"nvmlDeviceGetRemappedRows"}"#);
            until("the call hangs", || !handle.monitor().hung().is_empty());
            let operator = handle.operator();
            let held = wait(operator.release(release(ReleaseFor::Reset, LONG))).unwrap();
            let DriverHold::Busy(hung) = held else {
                panic!("{held:?}");
            };
            assert_eq!(hung.call, "nvmlDeviceGetRemappedRows");
            assert_eq!(hung.device, Some(recorder.gpu(6)));
            assert!(hung.age >= Duration::from_millis(200));
            let (status, hanging) = operator.status();
            assert!(matches!(status, NvmlStatus::Ready { .. }), "{status:?}");
            assert_eq!(hanging.len(), 1, "{hanging:?}");
            assert_eq!(hanging[0].call, hung.call);
            recorder.sampled_after(recorder.now(), &recorder.gpu(0), |_| true);
            assert_eq!(handle.counts().sessions, 1);
            sim.ask(r#"{"command":"unhang"}"#);
            until("it came back", || handle.monitor().hung().is_empty());
            let held = wait(operator.release(release(ReleaseFor::Reset, LONG))).unwrap();
            assert!(matches!(held, DriverHold::Released { .. }), "{held:?}");
            assert_eq!(
                handle.stop(),
                Stopped::Cleanly,
                "also while it is let go of"
            );
        },
    );
}

#[test]
fn n2_who_gives_up_before_the_driver_is_let_go_of_has_it_kept() {
    isolated(
        "releases::n2_who_gives_up_before_the_driver_is_let_go_of_has_it_kept",
        |sim| {
            let (recorder, handle) = sim.start(Config {
                hung_after: LONG,
                ..sim.config()
            });
            // The thread that reads is slow to leave.
            sim.ask(r#"{"command":"hang","gpu":6,"call":"nvmlDeviceGetRemappedRows"}"#);
            let start = recorder.now();
            drop(handle.operator().release(release(ReleaseFor::Reset, LONG)));
            sim.ask(r#"{"command":"unhang"}"#);
            recorder.sampled_after(recorder.now(), &recorder.gpu(6), |samples| {
                value(samples, "nvml.state") == Some(Value::Int(0))
            });
            let (status, _) = handle.operator().status();
            assert!(matches!(status, NvmlStatus::Ready { .. }), "{status:?}");
            let said = recorder.said();
            let told = said.iter().skip(start).filter_map(Said::status);
            let released = |told: &&NvmlStatus| matches!(told, NvmlStatus::Released { .. });
            assert_eq!(told.filter(released).count(), 0);
            assert_eq!(handle.stop(), Stopped::Cleanly);
        },
    );
}

#[test]
fn n2_a_call_that_begins_to_hang_on_the_way_out_makes_it_busy_as_well() {
    isolated(
        "releases::n2_a_call_that_begins_to_hang_on_the_way_out_makes_it_busy_as_well",
        |sim| {
            // The bound is far: nobody knows yet that it hangs.
            let (recorder, handle) = sim.start(Config {
                hung_after: LONG,
                ..sim.config()
            });
            sim.ask(r#"{"command":"hang","gpu":6,"call":"nvmlDeviceGetRemappedRows"}"#);
            let polls = || handle.counts().polls;
            until("nobody reads on", || {
                let before = polls();
                let start = std::time::Instant::now();
                while polls() == before && start.elapsed() < Duration::from_millis(500) {
                    std::thread::yield_now();
                }
                polls() == before
            });
            let operator = handle.operator();
            let held = wait(operator.release(release(ReleaseFor::Reset, LONG))).unwrap();
            assert!(
                matches!(&held, DriverHold::Busy(hung) if hung.call == "nvmlDeviceGetRemappedRows"),
                "{held:?}"
            );
            sim.ask(r#"{"command":"unhang"}"#);
            recorder.ready(2);
        },
    );
}

#[test]
fn n2_what_can_t_be_let_go_of_is_said() {
    isolated("releases::n2_what_can_t_be_let_go_of_is_said", |sim| {
        let (_recorder, handle) = sim.start(sim.config());
        let operator = handle.operator();
        let refused = wait(operator.release(release(ReleaseFor::Reset, Duration::ZERO)));
        assert!(
            matches!(refused, Err(ApiError::Invalid { field: "ttl", .. })),
            "{refused:?}"
        );
        let off = wait(TurnedOff.release(release(ReleaseFor::Reset, LONG)));
        assert!(matches!(off, Err(ApiError::Precondition { .. })), "{off:?}");
        assert_eq!(TurnedOff.status(), (NvmlStatus::Disabled, Vec::new()));
        handle.stop();
        let late = wait(operator.release(release(ReleaseFor::Reset, LONG)));
        assert!(
            matches!(late, Err(ApiError::Unavailable { .. })),
            "{late:?}"
        );
    });
}

#[test]
fn n2_what_was_kept_for_a_release_is_unknown_once_it_is_over_and_there_is_no_driver() {
    isolated(
        "releases::n2_what_was_kept_for_a_release_is_unknown_once_it_is_over_and_there_is_no_driver",
        |sim| {
            let (recorder, handle) = sim.start(sim.config());
            let operator = handle.operator();
            wait(operator.release(release(ReleaseFor::Upgrade, LONG))).unwrap();
            sim.ask(r#"{"command":"unload"}"#);
            let start = recorder.now();
            missing(wait(operator.attach()));
            let unknown = recorder.wait_after(start, |said| said.probing().map(<[_]>::len));
            assert_eq!(unknown, 8);
            for gpu in 0..8 {
                recorder.sampled_after(start, &recorder.gpu(gpu), |samples| {
                    value(samples, "nvml.state") == Some(Value::Int(3))
                });
            }
            sim.ask(r#"{"command":"load"}"#);
            let start = recorder.now();
            wait(operator.attach()).unwrap();
            recorder.sampled_after(start, &recorder.gpu(7), |samples| {
                value(samples, "nvml.state") == Some(Value::Int(0))
            });
        },
    );
}
