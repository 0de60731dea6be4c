use std::time::Duration;

use device_api_core::signal::{Miss, Samples, SignalKind, Value};
use device_api_nvml::Config;

use crate::harness::{isolated, value};

#[test]
fn readings_follow_the_gpu() {
    isolated("readings::readings_follow_the_gpu", |sim| {
        let (recorder, handle) = sim.start(sim.config());
        sim.ask(r#"{"command":"temperature","gpu":3,"celsius":91}"#);
        sim.ask(
            r#"{"command":"throttle","gpu":3,"reasons":["hw-thermal-slowdown","hw-slowdown"]}"#,
        );
        sim.ask(
            r#"{"command":"row-remap","gpu":3,"correctable":2,"uncorrectable":1,"pending":true}"#,
        );
        recorder.sampled_after(0, &recorder.gpu(3), |samples| {
            let throttle = value(samples, "clocks.throttle-reasons");
            value(samples, "temperature.gpu") == Some(Value::Int(91))
                && matches!(throttle, Some(Value::Int(mask)) if mask & 0x48 == 0x48)
                && value(samples, "row-remap.correctable") == Some(Value::Int(2))
                && value(samples, "row-remap.uncorrectable") == Some(Value::Int(1))
                && value(samples, "row-remap.pending") == Some(Value::Flag(true))
                && value(samples, "row-remap.failure") == Some(Value::Flag(false))
        });
        recorder.sampled_after(0, &recorder.gpu(2), |samples| {
            value(samples, "temperature.gpu") != Some(Value::Int(91))
        });
        assert_eq!(handle.counts().failed_calls, 0);
    });
}

#[test]
fn what_is_not_supported_is_a_miss_and_what_fails_another() {
    isolated(
        "readings::what_is_not_supported_is_a_miss_and_what_fails_another",
        |sim| {
            let (recorder, handle) = sim.start(sim.config());
            let fail = |call: &str, code: u32| {
                sim.ask(&format!(
                    r#"{{"command":"fail","gpu":7,"call":"{call}","code":{code}}}"#
                ));
            };
            // NOT_SUPPORTED, and an UNKNOWN that is no loss.
            fail("nvmlDeviceGetPowerUsage", 3);
            fail("nvmlDeviceGetPcieReplayCounter", 999);
            recorder.sampled_after(0, &recorder.gpu(7), |samples| {
                samples["power.draw"] == Err(Miss::NotSupported)
                    && samples["pcie.replays"] == Err(Miss::Unreachable)
                    && samples["temperature.gpu"].is_ok()
                    && samples["recovery.action"].is_ok()
            });
            assert!(recorder.observations(SignalKind::GpuLost).is_empty());
            assert!(handle.counts().failed_calls >= 1);
        },
    );
}

/// What the simulation calls it, how it is set, what we call it, and the value.
type Figure = (&'static str, u32, &'static str, Value);

const FIGURES: &[Figure] = &[
    (
        "temperature.memory",
        77,
        "temperature.memory",
        Value::Int(77),
    ),
    ("clocks.sm", 1200, "clocks.sm", Value::Int(1200)),
    (
        "utilization.memory",
        41,
        "utilization.memory",
        Value::Int(41),
    ),
    (
        "ecc.sram.threshold-exceeded",
        1,
        "ecc.sram.threshold-exceeded",
        Value::Flag(true),
    ),
    (
        "ecc.volatile.sram.uncorrected",
        3,
        "ecc.sram.volatile.uncorrected",
        Value::Int(3),
    ),
    (
        "ecc.volatile.dram.corrected",
        5,
        "ecc.dram.volatile.corrected",
        Value::Int(5),
    ),
    (
        "ecc.aggregate.sram.uncorrected",
        8,
        "ecc.sram.aggregate.uncorrected",
        Value::Int(8),
    ),
    (
        "row-remap.banks.none",
        1,
        "row-remap.banks.none",
        Value::Int(1),
    ),
    ("pcie.link-width", 8, "pcie.link-width", Value::Int(8)),
    (
        "pcie.replay-rollovers",
        2,
        "pcie.replay-rollovers",
        Value::Int(2),
    ),
    ("pcie.errors.fatal", 1, "pcie.fatal-errors", Value::Int(1)),
    (
        "pcie.errors.non-fatal",
        4,
        "pcie.non-fatal-errors",
        Value::Int(4),
    ),
    ("nvlink.3.up", 0, "nvlink.links-active", Value::Int(17)),
    (
        "nvlink.3.up",
        0,
        "nvlink.active-mask",
        Value::Int(0x3_ffff & !(1 << 3)),
    ),
    ("nvlink.4.replays", 6, "nvlink.replay-errors", Value::Int(6)),
    (
        "nvlink.5.crc-flit",
        9,
        "nvlink.crc-flit-errors",
        Value::Int(9),
    ),
    (
        "nvlink.5.recoveries",
        1,
        "nvlink.recovery-errors",
        Value::Int(1),
    ),
    ("fabric.state", 2, "fabric.state", Value::Int(2)),
    ("fabric.health-mask", 1, "fabric.health", Value::Int(1)),
];

#[test]
fn every_class_is_read_and_follows_the_gpu() {
    isolated("readings::every_class_is_read_and_follows_the_gpu", |sim| {
        let (recorder, handle) = sim.start(sim.config());
        let gpu = recorder.gpu(2);
        for (figure, number, key, expected) in FIGURES {
            let start = recorder.now();
            sim.ask(&format!(
                r#"{{"command":"set","gpu":2,"readings":{{"{figure}":{number}}}}}"#
            ));
            recorder.sampled_after(start, &gpu, |samples| {
                value(samples, key).as_ref() == Some(expected)
            });
        }
        recorder.sampled_after(0, &gpu, |samples| {
            // Under way, it says nothing of how it went.
            value(samples, "fabric.state") == Some(Value::Int(2))
                && samples["fabric.status"] == Err(Miss::NotSupported)
        });
        assert_eq!(handle.counts().failed_calls, 0);
        assert!(
            recorder.recoveries().is_empty(),
            "{:?}",
            recorder.recoveries()
        );
    });
}

#[test]
fn what_is_not_due_keeps_its_value_and_its_time() {
    isolated(
        "readings::what_is_not_due_keeps_its_value_and_its_time",
        |sim| {
            let (recorder, _handle) = sim.start(Config {
                limit_interval: Duration::from_hours(1),
                ..sim.config()
            });
            let gpu = recorder.gpu(1);
            let first = recorder.wait_for(|said| {
                let (info, samples) = said.found()?;
                (info.uuid == gpu).then(|| samples.clone())
            });
            let at = |samples: &Samples, key: &str| samples[key].as_ref().unwrap().at;
            recorder.sampled_after(recorder.now(), &gpu, |samples| {
                at(samples, "temperature.gpu") > at(&first, "temperature.gpu")
                    && at(samples, "recovery.action") > at(&first, "recovery.action")
                    && samples["power.limit"] == first["power.limit"]
            });
        },
    );
}
