//! `devicectl doctor` where the daemon hangs, or answers some calls and fails others.

use std::os::unix::net::UnixListener;
use std::path::Path;

use device_api_proto::native::Health;
use serde_json::Value;

use crate::daemon::start;
use crate::{answer, gpu};

/// Its report; nobody has `/readyz` at the address, and no driver and state are where it looks.
fn report(socket: &Path) -> (Option<i32>, Value) {
    let nowhere = socket.parent().unwrap().join("nowhere");
    let (root, state) = (
        format!("--driver-root={}", nowhere.display()),
        format!("--state-dir={}", nowhere.display()),
    );
    let args = [
        "doctor",
        "-o=json",
        "--health-address=127.0.0.1:1",
        &root,
        &state,
    ];
    let (code, text, errors) = answer(socket, &args);
    let report = serde_json::from_str(&text);
    assert!(report.is_ok(), "{text}{errors}");
    (code, report.unwrap())
}

/// State, why and what to do.
#[track_caller]
fn check(report: &Value, id: &str, state: &str, words: &str) {
    let checks = report["checks"].as_array().unwrap();
    let found: Vec<_> = checks.iter().filter(|check| check["id"] == id).collect();
    assert_eq!(found.len(), 1, "{id}: {report}");
    let check = found.first().unwrap();
    assert_eq!(check["state"], state, "{check}");
    assert!(check.to_string().contains(words), "{check} without {words}");
}

#[test]
fn a_call_that_fails_is_a_check_that_fails_and_nothing_is_said_to_be_well_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("d.sock");
    let daemon = start(&socket, &[gpu("GPU-a", 1, Health::Healthy)], 1, 1);
    let (_, well) = report(&socket);
    check(&well, "gpus.known", "ok", "1 GPUs");
    check(&well, "providers.lost", "ok", "none of 2");
    // This daemon has no NVML: one of another release.
    check(&well, "api.calls", "warn", "GetNvmlStatus");
    check(&well, "nvml.library", "warn", "--driver-root");

    daemon.fail_lists();
    let (code, ill) = report(&socket);
    assert_eq!(code, Some(1));
    check(&ill, "api.calls", "fail", "ListGpus");
    check(&ill, "api.calls", "fail", "broken");
    check(&ill, "providers.lost", "skipped", "not listed");
    check(&ill, "gpus.known", "skipped", "did not say");
    check(&ill, "policies.running", "ok", "judge");
}

#[test]
fn of_a_daemon_that_hangs_is_said_what_can_be_seen_without_it() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("d.sock");
    let _silent = UnixListener::bind(&socket).unwrap();
    let (code, said) = report(&socket);
    assert_eq!(code, Some(1));
    check(&said, "socket.connect", "ok", "connected");
    check(&said, "api.answers", "fail", "restart it");
    check(&said, "daemon.ready", "skipped", "--health-address");
    check(&said, "nvml.library", "warn", "--driver-root");
    check(&said, "cluster.runtime-class", "skipped", "this is no pod");
    check(&said, "store.directory", "skipped", "the daemon makes it");
}
