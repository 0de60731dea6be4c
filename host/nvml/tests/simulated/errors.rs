//! Calls that fail: what NVML does not say is as it was, and a GPU that says nothing is one of which nobody knows.

use std::time::Duration;

use device_api_core::ids::DeviceUuid;
use device_api_core::signal::{Samples, SignalKind, Source, Target, Value};
use device_api_nvml::{Config, Handle};

use crate::harness::{Recorder, Said, Sim, isolated, until, value};

/// All that is read of a GPU, but for who it is.
const READ: [&str; 35] = [
    "nvmlDeviceGetTemperature",
    "nvmlDeviceGetMarginTemperature",
    "nvmlDeviceGetPowerUsage",
    "nvmlDeviceGetFieldValues",
    "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceGetClockInfo",
    "nvmlDeviceGetPerformanceState",
    "nvmlDeviceGetMemoryInfo_v2",
    "nvmlDeviceGetUtilizationRates",
    "nvmlDeviceGetTotalEccErrors",
    "nvmlDeviceGetSramEccErrorStatus",
    "nvmlDeviceGetRemappedRows",
    "nvmlDeviceGetRetiredPages",
    "nvmlDeviceGetRetiredPagesPendingStatus",
    "nvmlDeviceGetCurrPcieLinkWidth",
    "nvmlDeviceGetCurrPcieLinkGeneration",
    "nvmlDeviceGetPcieReplayCounter",
    "nvmlDeviceGetNvLinkState",
    "nvmlDeviceGetGpuFabricInfoV",
    "nvmlDeviceGetMemoryErrorCounter",
    "nvmlDeviceGetRowRemapperHistogram",
    "nvmlDeviceGetNvLinkErrorCounter",
    "nvmlDeviceGetTemperatureThreshold",
    "nvmlDeviceGetEnforcedPowerLimit",
    "nvmlDeviceGetPowerManagementDefaultLimit",
    "nvmlDeviceGetPowerManagementLimitConstraints",
    "nvmlDeviceGetEccMode",
    "nvmlDeviceGetMaxPcieLinkWidth",
    "nvmlDeviceGetMaxPcieLinkGeneration",
    // Of the inventory only.
    "nvmlDeviceGetName",
    "nvmlDeviceGetSerial",
    "nvmlDeviceGetArchitecture",
    "nvmlDeviceGetCpuAffinity",
    "nvmlDeviceGetNvLinkRemoteDeviceType",
    "nvmlDeviceGetNvLinkVersion",
];

/// Those that say where a GPU is, and what it has.
const PLACE: [&str; 6] = [
    "nvmlDeviceGetPciInfo_v3",
    "nvmlDeviceGetIndex",
    "nvmlDeviceGetMinorNumber",
    "nvmlDeviceGetNumaNodeId",
    "nvmlDeviceGetNvLinkRemotePciInfo_v2",
    "nvmlDeviceGetMigMode",
];

fn fail(sim: &Sim, gpu: u32, calls: &[&str], code: u32) {
    for call in calls {
        sim.ask(&format!(
            r#"{{"command":"fail","gpu":{gpu},"call":"{call}","code":{code}}}"#
        ));
    }
}

fn unfail(sim: &Sim) {
    sim.ask(r#"{"command":"unfail"}"#);
}

/// Waits for that many more batches of a GPU; with as many looks at the inventory in between.
#[track_caller]
fn rounds(recorder: &Recorder, gpu: &DeviceUuid, n: usize) {
    for _ in 0..n {
        recorder.sampled_after(recorder.now(), gpu, |_| true);
    }
}

fn state(samples: &Samples) -> Option<i64> {
    let state = value(samples, "nvml.state")?;
    let Value::Int(state) = state else {
        panic!("{state:?}");
    };
    Some(state)
}

fn error(samples: &Samples) -> String {
    match value(samples, "nvml.error") {
        Some(Value::Text(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn probed_after(recorder: &Recorder, start: usize, gpu: &DeviceUuid) {
    recorder.wait_after(start, |said| {
        matches!(said, Said::Probed(uuid) if uuid == gpu).then_some(())
    });
}

#[test]
fn n1_a_gpu_that_answers_with_errors_only_is_unknown_until_it_tells_more() {
    isolated(
        "errors::n1_a_gpu_that_answers_with_errors_only_is_unknown_until_it_tells_more",
        |sim| {
            let (recorder, _handle) = sim.start(Config {
                limit_interval: Duration::from_hours(1),
                ..sim.config()
            });
            let (gpu, other) = (recorder.gpu(3), recorder.gpu(4));
            // UNKNOWN, TIMEOUT, and that there is nothing of the kind.
            for (code, name) in [(999, "UNKNOWN"), (10, "TIMEOUT"), (2, "INVALID_ARGUMENT")] {
                let start = recorder.now();
                sim.ask(&format!(r#"{{"command":"fail","gpu":3,"code":{code}}}"#));
                let unknown = recorder.wait_after(start, |said| said.probing().map(<[_]>::to_vec));
                assert_eq!(unknown, std::slice::from_ref(&gpu));
                recorder.sampled_after(start, &gpu, |samples| {
                    state(samples) == Some(4) && error(samples).ends_with(name)
                });
                rounds(&recorder, &gpu, 4);
                let said = recorder.said();
                let probings = said[start..].iter().filter_map(Said::probing).count();
                assert_eq!(probings, 1, "told once");
                let is_sure = |said: &Said| matches!(said, Said::Probed(uuid) if *uuid == gpu);
                assert!(!said[start..].iter().any(is_sure));
                recorder.sampled_after(start, &other, |samples| state(samples) == Some(0));

                let start = recorder.now();
                unfail(sim);
                probed_after(&recorder, start, &gpu);
                recorder.sampled_after(start, &gpu, |samples| {
                    state(samples) == Some(0)
                        && error(samples).is_empty()
                        // Nothing is as it was before.
                        && samples["temperature.slowdown"].is_ok()
                });
            }
            assert!(recorder.observations(SignalKind::GpuLost).is_empty());
        },
    );
}

#[test]
fn n1_a_gpu_that_is_found_with_errors_only_is_unknown_and_found_once_it_answers() {
    isolated(
        "errors::n1_a_gpu_that_is_found_with_errors_only_is_unknown_and_found_once_it_answers",
        |sim| {
            let (recorder, _handle) = sim.start(sim.config());
            let gpu = recorder.gpu(3);
            let found = |said: &Said| {
                let (info, samples) = said.found()?;
                (info.uuid == gpu).then(|| samples.clone())
            };
            sim.ask(r#"{"command":"unload"}"#);
            recorder.missing_after(0);
            // What the library may have kept is no sign of life.
            let mut failing = READ.to_vec();
            failing.retain(|call| *call != "nvmlDeviceGetEnforcedPowerLimit");
            fail(sim, 3, &failing, 999);
            let start = recorder.now();
            sim.ask(r#"{"command":"load"}"#);
            let samples = recorder.wait_after(start, found);
            assert_eq!(state(&samples), Some(4), "{samples:?}");
            let said = recorder.said();
            let at = said[start..].iter().position(|said| found(said).is_some());
            recorder.wait_after(start + at.unwrap(), |said| {
                said.probing()
                    .filter(|unknown| unknown.contains(&gpu))
                    .map(|_| ())
            });
            let start = recorder.now();
            unfail(sim);
            let samples = recorder.wait_after(start, found);
            assert_eq!(state(&samples), Some(0));
            assert!(samples["temperature.slowdown"].is_ok());
        },
    );
}

#[test]
fn n7_reset_required_is_a_wish_for_a_reset() {
    isolated("errors::n7_reset_required_is_a_wish_for_a_reset", |sim| {
        let (recorder, _handle) = sim.start(sim.config());
        for (gpu, calls) in [(2, &[][..]), (5, &["nvmlDeviceGetPowerUsage"][..])] {
            let start = recorder.now();
            let uuid = recorder.gpu(gpu);
            match calls {
                [] => drop(sim.ask(r#"{"command":"fail","gpu":2,"code":16}"#)),
                calls => fail(sim, gpu, calls, 16),
            }
            let wish = recorder.observed_after(start, SignalKind::RecoveryAction);
            assert_eq!(
                (wish.code, &wish.source, &wish.target),
                (Some(1), &Source::Nvml, &Target::Uuid(uuid.clone()))
            );
            assert!(
                wish.evidence.contains("answered RESET_REQUIRED"),
                "{wish:?}"
            );
            rounds(&recorder, &uuid, 3);
            let start = recorder.now();
            unfail(sim);
            let over = recorder.observed_after(start, SignalKind::RecoveryAction);
            assert_eq!(over.code, Some(0), "{over:?}");
        }
        assert_eq!(recorder.observations(SignalKind::RecoveryAction).len(), 4);
    });
}

#[test]
fn n4_what_a_failed_call_does_not_say_of_a_gpu_is_as_it_was() {
    isolated(
        "errors::n4_what_a_failed_call_does_not_say_of_a_gpu_is_as_it_was",
        |sim| {
            let (recorder, _handle) = sim.start(sim.config());
            let gpu = recorder.gpu(5);
            let start = recorder.now();
            fail(sim, 5, &READ, 999);
            fail(sim, 5, &PLACE, 999);
            sim.ask(r#"{"command":"fail","call":"nvmlSystemGetDriverVersion","code":999}"#);
            rounds(&recorder, &gpu, 4);
            let said = recorder.said();
            let news: Vec<_> = said[start..].iter().filter_map(Said::found).collect();
            assert!(news.is_empty(), "{news:?}");

            // Nor in the next session, for whom the driver is the one from before.
            sim.ask(r#"{"command":"unload"}"#);
            recorder.missing_after(start);
            let start = recorder.now();
            sim.ask(r#"{"command":"load"}"#);
            let info = recorder.wait_after(start, |said| {
                let (info, _) = said.found()?;
                (info.uuid == gpu).then(|| info.clone())
            });
            assert!(info.pci.is_some() && info.index == Some(5), "{info:?}");
            assert_eq!(info.driver_version, "580.82.07");
            assert_eq!(info.product, "NVIDIA H100 80GB HBM3");
            assert_eq!(info.hardware.nvlinks.len(), 18);
        },
    );
}

#[test]
fn n9_a_failed_call_takes_no_mig_instance_away() {
    isolated(
        "errors::n9_a_failed_call_takes_no_mig_instance_away",
        |sim| {
            let (recorder, _handle) = sim.start(sim.config());
            let gpu = recorder.gpu(5);
            let start = recorder.now();
            sim.ask(r#"{"command":"mig-mode","gpu":5,"on":true}"#);
            sim.ask(r#"{"command":"mig-create","gpu":5,"profiles":["3g.40gb","1g.10gb"]}"#);
            recorder.wait_after(start, |said| {
                let (info, _) = said.found()?;
                (info.mig.len() == 2).then_some(())
            });
            for call in [
                "nvmlDeviceGetMigMode",
                "nvmlDeviceGetMaxMigDeviceCount",
                "nvmlDeviceGetMigDeviceHandleByIndex",
                "nvmlDeviceGetUUID",
                "nvmlDeviceGetGpuInstanceId",
                "nvmlDeviceGetComputeInstanceId",
                "nvmlDeviceGetName",
                "nvmlDeviceGetMemoryInfo_v2",
            ] {
                let start = recorder.now();
                fail(sim, 5, &[call], 999);
                rounds(&recorder, &gpu, 3);
                unfail(sim);
                rounds(&recorder, &gpu, 2);
                let said = recorder.said();
                let news: Vec<_> = said[start..].iter().filter_map(Said::found).collect();
                assert!(news.is_empty(), "{call}: {news:?}");
            }
        },
    );
}

/// A driver that was let go of and is loaded again, with that call failing.
fn loaded_with_failing(sim: &Sim, call: &str, gpu: &str) -> (std::sync::Arc<Recorder>, Handle) {
    let (recorder, handle) = sim.start(sim.config());
    sim.ask(r#"{"command":"unload"}"#);
    recorder.missing_after(0);
    sim.ask(&format!(
        r#"{{"command":"fail"{gpu},"call":"{call}","code":999}}"#
    ));
    sim.ask(r#"{"command":"load"}"#);
    recorder.ready(2);
    (recorder, handle)
}

#[track_caller]
fn heard_again(sim: &Sim, recorder: &Recorder, handle: &Handle) {
    unfail(sim);
    let monitor = handle.monitor();
    until("events are waited for", || monitor.hears());
    assert_eq!(monitor.missing_events(), None);
    let start = recorder.now();
    sim.raise(r#"{"command":"xid","gpu":1,"codes":[79]}"#);
    recorder.observed_after(start, SignalKind::Xid);
}

#[test]
fn n3_a_registration_that_failed_is_tried_again() {
    isolated(
        "errors::n3_a_registration_that_failed_is_tried_again",
        |sim| {
            let call = "nvmlDeviceRegisterEvents";
            let (recorder, handle) = loaded_with_failing(sim, call, r#","gpu":1"#);
            let missing = handle.monitor().missing_events().expect("events of GPU 1");
            let gpu = recorder.gpu(1);
            assert_eq!(
                missing,
                format!("no events of {gpu}: {call} answered UNKNOWN")
            );
            assert!(!handle.monitor().hears());
            heard_again(sim, &recorder, &handle);
        },
    );
}

#[test]
fn n3_an_event_set_that_could_not_be_made_is_made_later() {
    isolated(
        "errors::n3_an_event_set_that_could_not_be_made_is_made_later",
        |sim| {
            let call = "nvmlEventSetCreate";
            let (recorder, handle) = loaded_with_failing(sim, call, "");
            let missing = handle.monitor().missing_events();
            assert_eq!(
                missing.as_deref(),
                Some("no events: nvmlEventSetCreate answered UNKNOWN")
            );
            assert!(!handle.monitor().hears());
            heard_again(sim, &recorder, &handle);
        },
    );
}

#[test]
fn n1_many_calls_that_are_slow_together_hang_nobody() {
    isolated(
        "errors::n1_many_calls_that_are_slow_together_hang_nobody",
        |sim| {
            let (recorder, handle) = sim.start(Config {
                hung_after: Duration::from_secs(1),
                ..sim.config()
            });
            let gpu = recorder.gpu(3);
            // 18 links: two seconds in all.
            sim.ask(r#"{"command":"slow","gpu":3,"call":"nvmlDeviceGetNvLinkState","ms":110}"#);
            let start = recorder.now();
            rounds(&recorder, &gpu, 2);
            assert_eq!(handle.counts().hung_calls, 0);
            let said = recorder.said();
            assert!(said[start..].iter().all(|said| said.probing().is_none()));
        },
    );
}
