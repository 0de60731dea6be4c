//! How NVML is with the GPU.

use super::*;

fn state(bench: &mut Bench, state: i64) {
    read(bench, reading::NVML_STATE, Value::Int(state));
}

#[test]
fn n1_a_call_that_hangs_leaves_nobody_who_knows() {
    let mut bench = bench();
    tell(&mut bench, kind::GPU_FOUND, vec![]);
    let call = Value::Text("nvmlDeviceGetTemperature".to_owned());
    bench
        .host
        .readings
        .insert(reading::NVML_HUNG_CALL.to_owned(), call);
    for (told, judgement, reason) in [
        (1, Judgement::Unknown, "CallHangs"),
        (0, Judgement::Ok, "Answers"),
        (3, Judgement::Unknown, "DriverGone"),
        (7, Judgement::Unknown, "NotTold"),
        (2, Judgement::Problem, "Released"),
        (0, Judgement::Ok, "Answers"),
    ] {
        state(&mut bench, told);
        let verdict = bench.condition("NvmlReachable").unwrap();
        assert_eq!((verdict.state, &*verdict.reason), (judgement, reason));
        assert_eq!(
            verdict.message.contains("nvmlDeviceGetTemperature"),
            told == 1
        );
        assert_eq!(verdict.severity, Severity::Info);
        check_ok(&bench, "GpuLost");
    }
}

#[test]
fn a_gpu_that_answers_with_errors_only_is_one_of_which_nobody_knows() {
    let mut bench = bench();
    let error = Value::Text("nvmlDeviceGetTemperature answered UNKNOWN".to_owned());
    bench
        .host
        .readings
        .insert(reading::NVML_ERROR.to_owned(), error);
    tell(&mut bench, kind::GPU_FOUND, vec![]);
    state(&mut bench, 4);
    let verdict = bench.condition("NvmlReachable").unwrap();
    assert_eq!(
        (verdict.state, &*verdict.reason),
        (Judgement::Unknown, "Errors")
    );
    assert!(
        verdict
            .message
            .contains("nvmlDeviceGetTemperature answered UNKNOWN"),
        "{verdict:?}"
    );
    state(&mut bench, 0);
    check_ok(&bench, "NvmlReachable");
}

#[test]
fn a_lost_gpu_that_is_found_with_errors_only_is_lost_still() {
    let mut bench = bench();
    let lost = bench.signal(kind::GPU_LOST);
    bench.evaluate(&[lost]).unwrap();
    let errs = Value::Int(4);
    bench
        .host
        .readings
        .insert(reading::NVML_STATE.to_owned(), errs);
    tell(&mut bench, kind::GPU_FOUND, vec![]);
    check(&bench, "GpuLost", Severity::Fatal, "RESTART_BM", "NoAnswer");
    let answers = Value::Int(0);
    bench
        .host
        .readings
        .insert(reading::NVML_STATE.to_owned(), answers);
    tell(&mut bench, kind::GPU_FOUND, vec![]);
    check_ok(&bench, "GpuLost");
    check_ok(&bench, "NvmlReachable");
}

#[test]
fn that_nvml_has_a_word_again_does_not_bring_a_lost_gpu_back() {
    let mut bench = bench();
    let lost = bench.signal(kind::GPU_LOST);
    bench.evaluate(&[lost]).unwrap();
    state(&mut bench, 0);
    check(
        &bench,
        "NvmlReachable",
        Severity::Warning,
        "NONE",
        "NoAnswer",
    );
    tell(&mut bench, kind::GPU_FOUND, vec![]);
    check_ok(&bench, "NvmlReachable");
    check_ok(&bench, "GpuLost");
}

#[test]
fn what_nvml_told_last_is_judged_no_more_while_it_is_mute() {
    let mut bench = bench();
    read(
        &mut bench,
        reading::CLOCKS_THROTTLE_REASONS,
        Value::Int(0x80),
    );
    read(&mut bench, reading::CLOCKS_THROTTLE_REASONS, Value::Int(0));
    state(&mut bench, 1);
    wake(&mut bench, "throttle-over", 10);
    check(
        &bench,
        "ClockThrottle",
        Severity::Warning,
        "NONE",
        "HardwarePowerBrake",
    );
    // It answers again, and all is judged by what it says now.
    bench
        .host
        .readings
        .insert(reading::TEMPERATURE_GPU.to_owned(), Value::Int(91));
    bench.host.now_ms += 1;
    state(&mut bench, 0);
    check_ok(&bench, "ClockThrottle");
    check(&bench, "Temperature", Severity::Warning, "NONE", "Slowdown");
}
