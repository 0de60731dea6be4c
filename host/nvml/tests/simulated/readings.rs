use device_api_core::signal::{Miss, Samples, SignalKind, Value};

use crate::harness::isolated;

fn value(samples: &Samples, key: &str) -> Option<Value> {
    samples[key]
        .as_ref()
        .ok()
        .map(|reading| reading.value.clone())
}

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
