use std::time::Duration;

use device_api_core::ports::{NvmlControl, NvmlStatus};
use device_api_core::recovery::{Release, ReleaseFor};
use device_api_core::signal::{SignalKind, Target, Value};
use device_api_nvml::{Config, Stopped};

use crate::harness::{Said, Sim, isolated, isolated_with, start, until, value, wait};

/// A call is over the bound soon, and a busy machine's are not.
const HUNG_AFTER: Duration = Duration::from_millis(300);

/// Threads that may hang at one time: the source's bounds, of those that poll and those that wait for events.
const HUNG_MAX: usize = 16 + 2;
/// More than may hang, so that some are not hung themselves and are read by nobody.
const GPUS: u32 = 20;

fn config(sim: &Sim) -> Config {
    Config {
        hung_after: HUNG_AFTER,
        ..sim.config()
    }
}

#[test]
fn n1_a_gpu_that_hangs_is_unknown_and_the_others_are_read_on() {
    isolated(
        "hangs::n1_a_gpu_that_hangs_is_unknown_and_the_others_are_read_on",
        |sim| {
            let (recorder, handle) = sim.start(config(sim));
            let gpu = recorder.gpu(3);
            let start = recorder.now();
            sim.ask(r#"{"command":"hang","gpu":3,"call":"nvmlDeviceGetPowerUsage"}"#);
            let unknown = recorder.wait_after(start, |said| said.probing().map(<[_]>::to_vec));
            assert_eq!(
                unknown,
                std::slice::from_ref(&gpu),
                "the others get through"
            );
            recorder.sampled_after(start, &gpu, |samples| {
                let call = Value::Text("nvmlDeviceGetPowerUsage".to_owned());
                value(samples, "nvml.state") == Some(Value::Int(1))
                    && value(samples, "nvml.hung-call") == Some(call)
                    && matches!(value(samples, "nvml.hung-ms"), Some(Value::Int(300..)))
                    // The last readings, with their age.
                    && samples["power.draw"].is_ok()
            });
            let hung = handle.monitor().hung();
            assert_eq!(hung.len(), 1, "{hung:?}");
            assert_eq!(hung[0].call, "nvmlDeviceGetPowerUsage");
            assert_eq!(hung[0].device.as_ref(), Some(&gpu));
            assert!(hung[0].age >= HUNG_AFTER);
            assert_eq!(handle.counts().hung_calls, 1);

            // Another thread reads on and hears, and says of this one how long it has hung.
            let start = recorder.now();
            for other in [0, 2, 4, 7] {
                recorder.sampled_after(start, &recorder.gpu(other), |samples| {
                    value(samples, "nvml.state") == Some(Value::Int(0))
                });
            }
            recorder.sampled_after(start, &gpu, |samples| {
                value(samples, "nvml.state") == Some(Value::Int(1))
            });
            sim.raise(r#"{"command":"xid","gpu":3,"codes":[79]}"#);
            let xid = recorder.observed_after(start, SignalKind::Xid);
            assert_eq!(xid.target, Target::Uuid(gpu.clone()));

            let start = recorder.now();
            sim.ask(r#"{"command":"unhang"}"#);
            recorder.wait_after(start, |said| {
                matches!(said, Said::Probed(uuid) if *uuid == gpu).then_some(())
            });
            recorder.sampled_after(start, &gpu, |samples| {
                value(samples, "nvml.state") == Some(Value::Int(0))
                    && value(samples, "nvml.hung-call") == Some(Value::Text(String::new()))
            });
            assert_eq!(handle.monitor().hung(), []);
            assert!(recorder.recoveries().is_empty());
            assert_eq!(handle.stop(), Stopped::Cleanly);
        },
    );
}

#[test]
fn n1_a_gpu_that_hangs_at_the_inventory_keeps_no_other_from_being_served() {
    isolated(
        "hangs::n1_a_gpu_that_hangs_at_the_inventory_keeps_no_other_from_being_served",
        |sim| {
            let (_, first) = sim.start(sim.config());
            first.stop();
            sim.ask(r#"{"command":"hang","gpu":2,"call":"nvmlDeviceGetUUID"}"#);
            let (recorder, handle) = sim.start(config(sim));
            let index = |said: &Said| said.found().and_then(|(info, _)| info.index);
            let found: Vec<_> = recorder.said().iter().filter_map(index).collect();
            assert_eq!(found, [0, 1, 3, 4, 5, 6, 7]);
            let hung = handle.monitor().hung();
            assert_eq!(
                (hung[0].call, hung[0].index),
                ("nvmlDeviceGetUUID", Some(2))
            );
            let (_, hanging) = handle.operator().status();
            assert_eq!(
                (hanging[0].device.as_ref(), hanging[0].index),
                (None, Some(2))
            );
            sim.raise(r#"{"command":"xid","gpu":7,"codes":[31]}"#);
            recorder.observed_after(0, SignalKind::Xid);
            let gpus = |said: &Said| match said.status() {
                Some(NvmlStatus::Ready { gpus, .. }) => Some(*gpus),
                _ => None,
            };
            assert_eq!(recorder.wait_for(gpus), 7);
            let start = recorder.now();
            sim.ask(r#"{"command":"unhang"}"#);
            recorder.wait_for(|said| index(said).filter(|index| *index == 2));
            assert_eq!(recorder.wait_after(start, gpus), 8);
            let (status, _) = handle.operator().status();
            assert!(
                matches!(status, NvmlStatus::Ready { gpus: 8, .. }),
                "{status:?}"
            );
            assert_eq!(handle.stop(), Stopped::Cleanly);
        },
    );
}

#[test]
fn n1_a_gpu_that_hangs_once_the_driver_is_taken_up_again_is_unknown() {
    isolated(
        "hangs::n1_a_gpu_that_hangs_once_the_driver_is_taken_up_again_is_unknown",
        |sim| {
            let (recorder, handle) = sim.start(config(sim));
            let gpu = recorder.gpu(2);
            let operator = handle.operator();
            let release = Release {
                purpose: ReleaseFor::Reset,
                ttl: Duration::from_hours(1),
            };
            wait(operator.release(release)).unwrap();
            sim.ask(r#"{"command":"hang","gpu":2,"call":"nvmlDeviceGetUUID"}"#);
            let start = recorder.now();
            let attached = wait(operator.attach());
            assert!(
                matches!(attached, Ok(NvmlStatus::Ready { gpus: 7, .. })),
                "{attached:?}"
            );
            // It can't tell its name, and it is the only one that has not.
            let unknown = recorder.wait_after(start, |said| said.probing().map(<[_]>::to_vec));
            assert_eq!(unknown, std::slice::from_ref(&gpu));
            sim.ask(r#"{"command":"unhang"}"#);
            recorder.wait_after(start, |said| {
                let (info, _) = said.found()?;
                (info.uuid == gpu).then_some(())
            });
            assert!(recorder.observations(SignalKind::GpuLost).is_empty());
            assert_eq!(handle.stop(), Stopped::Cleanly);
        },
    );
}

#[test]
fn n1_a_gpu_that_hangs_at_its_first_reading_holds_nobody_up() {
    isolated(
        "hangs::n1_a_gpu_that_hangs_at_its_first_reading_holds_nobody_up",
        |sim| {
            let (_, first) = sim.start(sim.config());
            first.stop();
            sim.ask(r#"{"command":"hang","gpu":0,"call":"nvmlDeviceGetTemperature"}"#);
            let (recorder, handle) = sim.start(config(sim));
            let index = |said: &Said| said.found().and_then(|(info, _)| info.index);
            let found: Vec<_> = recorder.said().iter().filter_map(index).collect();
            assert_eq!(found, [1, 2, 3, 4, 5, 6, 7]);
            sim.ask(r#"{"command":"unhang"}"#);
            recorder.wait_for(|said| index(said).filter(|index| *index == 0));
            assert_eq!(handle.stop(), Stopped::Cleanly);
        },
    );
}

#[test]
fn n1_another_thread_waits_for_events_where_one_hangs() {
    isolated(
        "hangs::n1_another_thread_waits_for_events_where_one_hangs",
        |sim| {
            let (recorder, handle) = sim.start(config(sim));
            sim.ask(r#"{"command":"hang","gpu":5,"call":"nvmlDeviceGetTemperature"}"#);
            // It makes the events' thread ask who is lost, and that hangs on GPU 5.
            sim.ask(r#"{"command":"lost","gpu":1}"#);
            let lost = recorder.observed_after(0, SignalKind::GpuLost);
            assert_eq!(lost.target, Target::Uuid(recorder.gpu(1)));
            until("a thread takes the other's place", || {
                !handle.monitor().hung().is_empty()
            });
            let start = recorder.now();
            while !sim
                .ask(r#"{"command":"xid","gpu":7,"codes":[31]}"#)
                .contains(r#""delivered":true"#)
            {}
            recorder.observed_after(start, SignalKind::Xid);
            recorder.sampled_after(start, &recorder.gpu(0), |_| true);
            sim.ask(r#"{"command":"unhang"}"#);
            assert_eq!(handle.stop(), Stopped::Cleanly);
        },
    );
}

#[test]
fn n1_no_more_threads_hang_than_may_and_all_is_read_again_when_they_come_back() {
    isolated_with(
        "hangs::n1_no_more_threads_hang_than_may_and_all_is_read_again_when_they_come_back",
        &[("NVML_SIM_GPUS", &GPUS.to_string())],
        |sim| {
            let (recorder, handle) = sim.start(Config {
                hung_after: Duration::from_millis(60),
                ..sim.config()
            });
            let gpus: Vec<_> = (0..GPUS).map(|index| recorder.gpu(index)).collect();
            let begin = recorder.now();
            sim.ask(r#"{"command":"hang"}"#);
            // A lock of the driver's: nobody gets through to any.
            for gpu in &gpus {
                recorder.wait_after(begin, |said| {
                    matches!(said, Said::Probing(unknown) if unknown.contains(gpu)).then_some(())
                });
            }
            let monitor = handle.monitor();
            until("as many hang as may", || monitor.hung().len() >= HUNG_MAX);
            // Long enough for several more, were there no bound.
            let looked = std::time::Instant::now();
            while looked.elapsed() < Duration::from_millis(600) {
                assert!(monitor.hung().len() <= HUNG_MAX);
                std::thread::yield_now();
            }
            let begin = recorder.now();
            sim.ask(r#"{"command":"unhang"}"#);
            for gpu in &gpus {
                recorder.wait_after(begin, |said| {
                    matches!(said, Said::Probed(uuid) if uuid == gpu).then_some(())
                });
            }
            assert!(recorder.observations(SignalKind::GpuLost).is_empty());
            assert!(recorder.recoveries().is_empty());
            assert_eq!(handle.stop(), Stopped::Cleanly);
        },
    );
}

#[test]
fn n1_an_init_that_hangs_is_told_and_stops_nothing() {
    isolated(
        "hangs::n1_an_init_that_hangs_is_told_and_stops_nothing",
        |sim| {
            let (_, first) = sim.start(sim.config());
            first.stop();
            sim.ask(r#"{"command":"hang","call":"nvmlSystemGetDriverVersion"}"#);
            let (recorder, handle) = start(config(sim));
            let monitor = handle.monitor();
            until("the call hangs", || !monitor.hung().is_empty());
            assert!(monitor.hung()[0].to_string().contains("has hung for"));
            sim.ask(r#"{"command":"unhang"}"#);
            recorder.ready(1);
            assert_eq!(handle.stop(), Stopped::Cleanly);
        },
    );
}

/// Of two that a call is about only one can be the reason, and the call does not say which.
#[test]
fn n1_a_call_about_two_gpus_that_hangs_leaves_both_unknown_until_their_own_calls_tell() {
    isolated(
        "hangs::n1_a_call_about_two_gpus_that_hangs_leaves_both_unknown_until_their_own_calls_tell",
        |sim| {
            let (recorder, handle) = sim.start(config(sim));
            let gpus: Vec<_> = (0..8).map(|index| recorder.gpu(index)).collect();
            let start = recorder.now();
            sim.ask(r#"{"command":"hang","gpu":2,"call":"nvmlDeviceGetTopologyCommonAncestor"}"#);
            let unknown = recorder.wait_after(start, |said| said.probing().map(<[_]>::to_vec));
            assert!(unknown.contains(&gpus[2]), "{unknown:?}");
            assert_eq!(unknown.len(), 2, "{unknown:?}");
            // It hangs on, and each of them answers whatever it is asked itself.
            for gpu in &unknown {
                recorder.wait_after(start, |said| {
                    matches!(said, Said::Probed(uuid) if uuid == gpu).then_some(())
                });
            }
            let later = recorder.now();
            for gpu in &gpus {
                for _ in 0..3 {
                    recorder.sampled_after(later, gpu, |samples| {
                        value(samples, "nvml.state") == Some(Value::Int(0))
                    });
                }
            }
            let hung = handle.monitor().hung();
            assert_eq!(
                hung.len(),
                1,
                "nobody is asked about two meanwhile: {hung:?}"
            );
            let told = hung[0].to_string();
            assert!(
                unknown.iter().all(|gpu| told.contains(gpu.as_str())),
                "{told}"
            );
            for said in &recorder.said()[start..] {
                assert!(
                    said.probing().is_none_or(|more| more == unknown),
                    "{said:?}"
                );
                let Said::Sampled(_, samples) = said else {
                    continue;
                };
                assert_eq!(value(samples, "nvml.state"), Some(Value::Int(0)));
            }
            sim.ask(r#"{"command":"unhang"}"#);
            assert_eq!(handle.stop(), Stopped::Cleanly);
        },
    );
}

#[test]
fn n1_whichever_call_it_is_that_hangs_first_the_gpu_that_hangs_is_named() {
    isolated(
        "hangs::n1_whichever_call_it_is_that_hangs_first_the_gpu_that_hangs_is_named",
        |sim| {
            let (recorder, handle) = sim.start(config(sim));
            let gpu = recorder.gpu(2);
            for _ in 0..3 {
                let start = recorder.now();
                sim.ask(r#"{"command":"hang","gpu":2}"#);
                let unknown = recorder.wait_after(start, |said| said.probing().map(<[_]>::to_vec));
                assert!(unknown.contains(&gpu), "{unknown:?}");
                recorder.sampled_after(start, &gpu, |samples| {
                    value(samples, "nvml.state") == Some(Value::Int(1))
                });
                let innocent = |said: &Said| {
                    let Said::Sampled(uuid, samples) = said else {
                        return false;
                    };
                    *uuid != gpu && value(samples, "nvml.state") == Some(Value::Int(1))
                };
                assert!(!recorder.said().iter().any(innocent));
                sim.ask(r#"{"command":"unhang"}"#);
                recorder.wait_after(start, |said| {
                    matches!(said, Said::Probed(uuid) if *uuid == gpu).then_some(())
                });
                until("it came back", || handle.monitor().hung().is_empty());
            }
            assert_eq!(handle.stop(), Stopped::Cleanly);
        },
    );
}

#[test]
fn n3_a_gpu_whose_peer_is_lost_is_not() {
    isolated("hangs::n3_a_gpu_whose_peer_is_lost_is_not", |sim| {
        let (recorder, handle) = sim.start(config(sim));
        let start = recorder.now();
        sim.ask(
            r#"{"command":"fail","gpu":2,"call":"nvmlDeviceGetTopologyCommonAncestor","code":15}"#,
        );
        for index in 0..8 {
            for _ in 0..3 {
                recorder.sampled_after(start, &recorder.gpu(index), |_| true);
            }
        }
        let inventories = handle.counts().polls + 3;
        until("it was asked", || handle.counts().polls >= inventories);
        assert!(recorder.observations(SignalKind::GpuLost).is_empty());
        assert_eq!(handle.stop(), Stopped::Cleanly);
    });
}
