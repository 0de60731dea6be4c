use device_api_proto::native::{Condition, GpuStatus, LogFilter};
use prost_types::Timestamp;
use tonic::Status;

use super::super::check::State;
use super::*;

fn place(now_seconds: i64) -> Place {
    Place {
        root: "/no/such/root".into(),
        environment: Default::default(),
        uid: 1000,
        gids: vec![1000],
        now: jiff::Timestamp::new(now_seconds, 0).unwrap(),
    }
}

const NOW: i64 = 1_800_000_000;

fn at(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp { seconds, nanos: 0 })
}

#[track_caller]
fn is(check: &Check, id: &str, state: State, words: &str) {
    assert_eq!((check.id, check.state), (id, state), "{check:?}");
    let said = format!("{} {}", check.why, check.fix);
    assert!(said.contains(words), "{check:?}");
}

#[test]
fn another_minor_version_is_told() {
    is(&version("0.1.0", "0.1.7"), VERSION, State::Ok, "0.1.7");
    is(
        &version("0.1.0", "0.2.0"),
        VERSION,
        State::Warn,
        "daemon's release",
    );
    is(&version("1.1.0", "2.1.0"), VERSION, State::Warn, "2.1.0");
    is(&version("0.1.0", ""), VERSION, State::Warn, "");
    let old = Err(Failure::from(Status::unimplemented("")));
    let checks = answers(&old);
    is(&checks[0], ANSWERS, State::Ok, "answers");
    is(&checks[1], VERSION, State::Warn, "older");
    let refused = |status: Status| Failure::from(status);
    let (unknown, broken) = (
        refused(Status::unimplemented("")),
        refused(Status::internal("no room")),
    );
    is(&calls(&[]), CALLS, State::Ok, "");
    let of = calls(&[("ListPolicies", &unknown)]);
    is(&of, CALLS, State::Warn, "daemon's release");
    let of = calls(&[("ListPolicies", &unknown), ("ListGpus", &broken)]);
    is(&of, CALLS, State::Fail, "no room");
    is(&of, CALLS, State::Fail, "ListGpus");
    let hangs = Err(Failure::NoAnswer {
        after: std::time::Duration::from_secs(10),
    });
    is(&answers(&hangs)[0], ANSWERS, State::Fail, "hangs");
}

#[test]
fn what_is_not_ready_says_what_it_waits_for() {
    let mut status = GetDaemonStatusResponse {
        waiting: vec!["the policies".to_owned()],
        ..Default::default()
    };
    is(
        &ready(&status),
        READY,
        State::Fail,
        "waits for the policies",
    );
    status.waiting.clear();
    is(&ready(&status), READY, State::Fail, "going down");
    status.ready = true;
    is(&ready(&status), READY, State::Ok, "ready");
    let address = "127.0.0.1:8081".parse().unwrap();
    let answer = |is_ready| {
        Ok(Readyz {
            is_ready,
            lines: vec!["nvml: degraded".to_owned()],
        })
    };
    is(
        &readyz(answer(true), address),
        READY,
        State::Ok,
        "nvml: degraded",
    );
    is(
        &readyz(answer(false), address),
        READY,
        State::Fail,
        "not ready",
    );
    let nobody = Err(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
    is(
        &readyz(nobody, address),
        READY,
        State::Skipped,
        "--health-address",
    );
}

#[test]
fn a_part_that_no_check_knows_is_not_passed_over() {
    let part = |name: &str, state: DaemonPartState| DaemonPart {
        name: name.to_owned(),
        state: state.into(),
        detail: "why".to_owned(),
    };
    let mut status = GetDaemonStatusResponse {
        parts: vec![part("nvml", DaemonPartState::Degraded)],
        ..Default::default()
    };
    is(&parts(&status), PARTS, State::Ok, "nvml");
    status
        .parts
        .push(part("newcomer", DaemonPartState::Degraded));
    is(&parts(&status), PARTS, State::Fail, "newcomer: why");
}

#[test]
fn a_filter_of_the_log_without_an_end_is_told() {
    let of = |is_set, until| GetDaemonStatusResponse {
        log: Some(LogFilter {
            filter: "debug".to_owned(),
            is_set,
            until,
            ..Default::default()
        }),
        ..Default::default()
    };
    is(&log(&of(false, None)), LOG, State::Ok, "at the start");
    is(&log(&of(true, at(60))), LOG, State::Ok, "until 1970");
    is(&log(&of(true, None)), LOG, State::Warn, "log-level reset");
}

#[test]
fn clocks_agree_and_time_does_not_run_backwards() {
    let status = GetDaemonStatusResponse {
        time: at(NOW + 1),
        ..Default::default()
    };
    let gpu = |seconds| Gpu {
        status: Some(GpuStatus {
            conditions: vec![Condition {
                last_transition_time: at(seconds),
                ..Default::default()
            }],
            ..Default::default()
        }),
        ..Default::default()
    };
    is(
        &clock(&place(NOW), &status, Some(&[gpu(NOW - 9)])),
        CLOCK,
        State::Ok,
        "2027",
    );
    is(
        &clock(&place(NOW), &status, Some(&[gpu(NOW + 90)])),
        CLOCK,
        State::Warn,
        "set back",
    );
    is(
        &clock(&place(NOW + 60), &status, Some(&[])),
        CLOCK,
        State::Warn,
        "-59 s from ours",
    );
    is(
        &clock(&place(86_400), &status, Some(&[])),
        CLOCK,
        State::Fail,
        "1970",
    );
}

#[test]
fn a_certificate_near_its_end_is_told_before_clients_tell() {
    let of = |expires| GetDaemonStatusResponse {
        certificate_expires: expires,
        ..Default::default()
    };
    let told = |expires| certificate(&place(NOW), &of(expires));
    is(&told(None), CERTIFICATE, State::Skipped, "no TLS");
    is(
        &told(at(NOW + 48 * 3600)),
        CERTIFICATE,
        State::Ok,
        "good until 2027",
    );
    is(
        &told(at(NOW + 3600)),
        CERTIFICATE,
        State::Warn,
        "runs out at 2027",
    );
    is(&told(at(NOW)), CERTIFICATE, State::Fail, "ran out");
    let mut broken = of(at(NOW + 48 * 3600));
    broken.parts.push(DaemonPart {
        name: "tls".to_owned(),
        state: DaemonPartState::Degraded.into(),
        detail: "no key".to_owned(),
    });
    is(
        &certificate(&place(NOW), &broken),
        CERTIFICATE,
        State::Warn,
        "no key",
    );
}

#[test]
fn another_boot_is_told() {
    let status = GetDaemonStatusResponse {
        boot_id: "another".to_owned(),
        ..Default::default()
    };
    is(
        &boot(&place(NOW), &status),
        BOOT,
        State::Skipped,
        "does not tell",
    );
    let mut here = place(NOW);
    here.root = "/".into();
    is(&boot(&here, &status), BOOT, State::Warn, "--boot-id-file");
}
