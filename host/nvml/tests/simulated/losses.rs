use std::collections::BTreeSet;
use std::sync::Arc;

use device_api_core::signal::{Miss, Samples, SignalKind, Source, Target};

use crate::harness::{Said, isolated};

/// It answered to all that it has.
fn is_whole(samples: &Samples) -> bool {
    let mut samples = samples.values();
    samples.all(|sample| *sample != Err(Miss::Unreachable))
}

#[test]
fn c2_n3_of_the_candidates_each_is_probed_and_one_is_lost() {
    isolated(
        "losses::c2_n3_of_the_candidates_each_is_probed_and_one_is_lost",
        |sim| {
            let (recorder, handle) = sim.start(sim.config());
            let gpu = recorder.gpu(3);
            // So that it is the event that tells, not the next poll.
            let start = recorder.now();
            sim.raise(r#"{"command":"lost","gpu":3}"#);
            let lost = recorder.observed_after(start, SignalKind::GpuLost);
            assert_eq!(lost.target, Target::Uuid(gpu.clone()));
            assert!(lost.evidence.contains("GPU_IS_LOST"), "{}", lost.evidence);
            assert!(lost.drill && lost.source == Source::Nvml, "{lost:?}");
            // The probes may be under way still.
            let candidates = recorder.wait_after(start, |said| {
                let Said::Probing(candidates) = said else {
                    return None;
                };
                Some(candidates.clone())
            });
            let others: BTreeSet<_> = (0..8)
                .filter(|index| *index != 3)
                .map(|index| recorder.gpu(index))
                .collect();
            assert!(
                others.iter().all(|other| candidates.contains(other)),
                "{candidates:?}"
            );
            for other in &others {
                recorder.wait_after(start, |said| {
                    matches!(said, Said::Probed(uuid) if uuid == other).then_some(())
                });
            }
            assert!(
                !recorder
                    .said()
                    .iter()
                    .any(|said| matches!(said, Said::Probed(uuid) if *uuid == gpu))
            );

            // Healthy ones are heard while it is away, it is told once, and then it is back.
            sim.raise(r#"{"command":"xid","gpu":5,"codes":[31]}"#);
            // The one that fell off the bus has an XID of its own.
            let xid = recorder.wait_after(start, |said| {
                said.observed()
                    .filter(|seen| seen.code == Some(31))
                    .cloned()
            });
            assert_eq!(xid.target, Target::Uuid(recorder.gpu(5)));
            let polls = handle.counts().polls;
            while handle.counts().polls < polls + 3 {
                recorder.sampled_after(recorder.now(), &recorder.gpu(0), |_| true);
            }
            assert_eq!(recorder.observations(SignalKind::GpuLost).len(), 1);
            let start = recorder.now();
            sim.ask(r#"{"command":"found","gpu":3}"#);
            // The others are told of again as well: it is a peer of theirs.
            let (info, samples) = recorder.wait_after(start, |said| {
                let found = said.found().filter(|(info, _)| info.uuid == gpu);
                found.map(|(info, samples)| (info.clone(), Arc::clone(samples)))
            });
            assert_eq!(info.index, Some(3));
            assert!(is_whole(&samples), "{samples:?}");
            recorder.sampled_after(start, &gpu, is_whole);

            // And can be lost again.
            let start = recorder.now();
            sim.raise(r#"{"command":"lost","gpu":3}"#);
            assert_eq!(
                recorder.observed_after(start, SignalKind::GpuLost).target,
                Target::Uuid(gpu)
            );
        },
    );
}

#[test]
fn n3_an_event_set_that_keeps_saying_lost_holds_nobody_up() {
    isolated(
        "losses::n3_an_event_set_that_keeps_saying_lost_holds_nobody_up",
        |sim| {
            let (recorder, handle) = sim.start(sim.config());
            sim.ask(r#"{"command":"fail","call":"nvmlEventSetWait_v2","code":15}"#);
            while handle.counts().failed_waits < 4 {
                recorder.sampled_after(recorder.now(), &recorder.gpu(0), |_| true);
            }
            sim.ask(r#"{"command":"unfail"}"#);
            // Whoever was made Unknown was cleared, once; nobody is lost.
            let said = recorder.said();
            let probing = said
                .iter()
                .filter(|said| matches!(said, Said::Probing(_)))
                .count();
            let probed = said
                .iter()
                .filter(|said| matches!(said, Said::Probed(_)))
                .count();
            assert_eq!((probing, probed), (1, 8));
            assert!(recorder.observations(SignalKind::GpuLost).is_empty());
            // The set that was made in place of the broken one hears them all.
            for gpu in [0, 7] {
                let start = recorder.now();
                sim.ask(&format!(r#"{{"command":"xid","gpu":{gpu},"codes":[31]}}"#));
                let xid = recorder.observed_after(start, SignalKind::Xid);
                assert_eq!(xid.target, Target::Uuid(recorder.gpu(gpu)));
            }
        },
    );
}

#[test]
fn what_a_set_holds_behind_several_losses_is_told() {
    isolated(
        "losses::what_a_set_holds_behind_several_losses_is_told",
        |sim| {
            let (recorder, _handle) = sim.start(sim.config());
            // The thread does not wait meanwhile, so all of it queues up in this order.
            sim.ask(r#"{"command":"slow","call":"nvmlEventSetWait_v2","ms":2000}"#);
            while sim
                .ask(r#"{"command":"xid","gpu":0,"codes":[13]}"#)
                .contains(r#""delivered":true"#)
            {}
            for gpu in [1, 2, 3] {
                sim.ask(&format!(r#"{{"command":"lost","gpu":{gpu}}}"#));
            }
            sim.ask(r#"{"command":"xid","gpu":5,"codes":[79]}"#);
            sim.ask(r#"{"command":"slow","call":"nvmlEventSetWait_v2","ms":0}"#);
            recorder.wait_for(|said| {
                said.observed()
                    .filter(|seen| seen.code == Some(79))
                    .cloned()
            });
            for gpu in [1, 2, 3] {
                let uuid = recorder.gpu(gpu);
                recorder.wait_for(|said| {
                    let lost = said.observed()?;
                    let told = lost.kind == SignalKind::GpuLost
                        && lost.target == Target::Uuid(uuid.clone());
                    told.then_some(())
                });
            }
        },
    );
}

#[test]
fn a_call_that_answers_lost_is_evidence() {
    isolated("losses::a_call_that_answers_lost_is_evidence", |sim| {
        let (recorder, _handle) = sim.start(sim.config());
        let gpu = recorder.gpu(2);
        sim.ask(r#"{"command":"fail","gpu":2,"call":"nvmlDeviceGetTemperature","code":15}"#);
        let lost = recorder.observed_after(0, SignalKind::GpuLost);
        assert_eq!(lost.target, Target::Uuid(gpu.clone()));
        assert_eq!(
            lost.evidence,
            "nvmlDeviceGetTemperature answered GPU_IS_LOST"
        );
        recorder.sampled_after(0, &gpu, |samples| {
            !samples.is_empty()
                && samples
                    .iter()
                    .filter(|(key, _)| !key.starts_with("nvml."))
                    .all(|(_, sample)| *sample == Err(Miss::Unreachable))
        });
        let start = recorder.now();
        sim.ask(r#"{"command":"unfail"}"#);
        recorder.wait_after(start, |said| {
            matches!(said, Said::Found(info, _) if info.uuid == gpu).then_some(())
        });
        assert_eq!(recorder.observations(SignalKind::GpuLost).len(), 1);
    });
}

#[test]
fn a_gpu_that_is_mute_at_the_start_is_announced_when_it_speaks() {
    isolated(
        "losses::a_gpu_that_is_mute_at_the_start_is_announced_when_it_speaks",
        |sim| {
            let (_, first) = sim.start(sim.config());
            first.stop();
            sim.ask(r#"{"command":"lost","gpu":6}"#);
            let (recorder, _handle) = sim.start(sim.config());
            let index = |said: &Said| said.found().and_then(|(info, _)| info.index);
            let found: Vec<_> = recorder.said().iter().filter_map(index).collect();
            assert_eq!(found, [0, 1, 2, 3, 4, 5, 7]);
            sim.ask(r#"{"command":"found","gpu":6}"#);
            recorder.wait_for(|said| index(said).filter(|index| *index == 6));
            // Heard as well.
            while !sim
                .ask(r#"{"command":"xid","gpu":6,"codes":[13]}"#)
                .contains(r#""delivered":true"#)
            {}
            let xid = recorder.observed_after(0, SignalKind::Xid);
            assert_eq!(xid.target, Target::Uuid(recorder.gpu(6)));
        },
    );
}

#[test]
fn a_gpu_that_a_reloaded_driver_does_not_show_is_lost() {
    isolated(
        "losses::a_gpu_that_a_reloaded_driver_does_not_show_is_lost",
        |sim| {
            let (recorder, _handle) = sim.start(sim.config());
            let gpu = recorder.gpu(1);
            sim.ask(r#"{"command":"unload"}"#);
            recorder.missing_after(0);
            sim.ask(r#"{"command":"lost","gpu":1}"#);
            sim.ask(r#"{"command":"load"}"#);
            recorder.ready(2);
            let lost = recorder.observed_after(0, SignalKind::GpuLost);
            assert_eq!(lost.target, Target::Uuid(gpu.clone()));
            let start = recorder.now();
            sim.ask(r#"{"command":"found","gpu":1}"#);
            recorder.wait_after(start, |said| {
                matches!(said, Said::Found(info, _) if info.uuid == gpu).then_some(())
            });
        },
    );
}
