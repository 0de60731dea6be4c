//! `devicectl` against a small daemon that can be stopped, forgets its history, and starts again
//! when the test says so, which the real one does not do on command.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a panic is a failed test"
)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use device_api_proto::native::{EventType, Gpu, GpuSpec, GpuStatus, Health};

use crate::daemon::{bookmark, event, start};

mod daemon;
mod doctor;
mod incidents;
mod policies;
mod terminal;

/// Only a failing test waits so long.
const DEADLINE: Duration = Duration::from_secs(20);

fn gpu(name: &str, version: i64, health: Health) -> Gpu {
    Gpu {
        name: name.to_owned(),
        namespace: "default".to_owned(),
        resource_version: version,
        spec: Some(GpuSpec {
            uuid: name.to_owned(),
            ..GpuSpec::default()
        }),
        status: Some(GpuStatus {
            health: health.into(),
            ..GpuStatus::default()
        }),
        ..Gpu::default()
    }
}

fn devicectl(socket: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_devicectl"));
    command
        .arg("--socket")
        .arg(socket)
        .args(args)
        .env_remove("DEVICE_API_SOCKET")
        .stdin(Stdio::null());
    command
}

fn answer(socket: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = devicectl(socket, args).output().unwrap();
    (
        status.code(),
        String::from_utf8(stdout).unwrap(),
        String::from_utf8(stderr).unwrap(),
    )
}

/// A running `devicectl watch -o json`; killed with the test.
struct Watching {
    child: Child,
    lines: Receiver<String>,
}

impl Watching {
    fn start(socket: &Path, flags: &[&str]) -> Self {
        let args = [&["watch", "-o", "json"], flags].concat();
        let mut command = devicectl(socket, &args);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout: BufReader<ChildStdout> = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            stdout
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line))
        });
        Self { child, lines }
    }

    #[track_caller]
    fn next_json(&self) -> serde_json::Value {
        let line = self.lines.recv_timeout(DEADLINE).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    /// Type, name, version and health of the next event.
    #[track_caller]
    fn next(&self) -> String {
        let event = self.next_json();
        let text = |pointer: &str| {
            event
                .pointer(pointer)
                .and_then(|value| value.as_str())
                .unwrap()
                .to_owned()
        };
        [
            text("/type"),
            text("/gpu/name"),
            text("/gpu/resourceVersion"),
            text("/gpu/status/health"),
        ]
        .join(" ")
    }

    /// Ends it, and tells what it said on stderr.
    fn end(mut self) -> String {
        self.child.kill().unwrap();
        let stderr = self.child.stderr.take().unwrap();
        let said = BufReader::new(stderr)
            .lines()
            .map_while(Result::ok)
            .collect::<Vec<_>>()
            .join("\n");
        self.child.wait().unwrap();
        said
    }
}

#[test]
fn w1_a_watch_resumes_where_it_was_when_the_daemon_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("d.sock");
    let (a, b) = (
        gpu("GPU-a", 1, Health::Healthy),
        gpu("GPU-b", 2, Health::Healthy),
    );
    let first = start(&socket, &[a.clone(), b.clone()], 2, 1);
    let watching = Watching::start(&socket, &[]);
    assert_eq!(
        [watching.next(), watching.next()],
        ["ADDED GPU-a 1 Healthy", "ADDED GPU-b 2 Healthy"]
    );
    drop(first);
    let second = start(&socket, &[a, b], 2, 1);
    second.send(event(
        EventType::Modified,
        gpu("GPU-a", 3, Health::Degraded),
    ));
    assert_eq!(watching.next(), "MODIFIED GPU-a 3 Degraded");
    let said = watching.end();
    assert!(
        said.contains("watch interrupted (") && said.contains("resuming after version 2"),
        "{said}"
    );
}

#[test]
fn w1_a_watch_whose_version_is_forgotten_shows_what_changed_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("d.sock");
    let before = [
        gpu("GPU-a", 1, Health::Healthy),
        gpu("GPU-b", 2, Health::Healthy),
        gpu("GPU-c", 3, Health::Healthy),
    ];
    let first = start(&socket, &before, 3, 1);
    let watching = Watching::start(&socket, &[]);
    for name in ["GPU-a 1", "GPU-b 2", "GPU-c 3"] {
        assert_eq!(watching.next(), format!("ADDED {name} Healthy"));
    }
    drop(first);
    let after = [
        gpu("GPU-a", 1, Health::Healthy),
        gpu("GPU-b", 1001, Health::Unhealthy),
    ];
    let second = start(&socket, &after, 1001, 1001);
    assert_eq!(
        [watching.next(), watching.next()],
        ["DELETED GPU-c 3 Healthy", "MODIFIED GPU-b 1001 Unhealthy"]
    );
    second.send(event(
        EventType::Deleted,
        gpu("GPU-a", 1002, Health::Healthy),
    ));
    assert_eq!(watching.next(), "DELETED GPU-a 1002 Healthy");
    let said = watching.end();
    assert!(
        said.contains("version 3 is out of the daemon's history; listing again"),
        "{said}"
    );
}

#[test]
fn answers_and_exit_codes_are_what_help_says() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("d.sock");
    let (code, out, err) = answer(&socket, &["get", "gpus"]);
    assert_eq!((code, out.as_str()), (Some(3), ""));
    assert!(
        err.contains("no such file; is device-api-server running?") && err.lines().count() == 1,
        "{err}"
    );

    let _running = start(
        &socket,
        &[
            gpu("GPU-aaaa1", 1, Health::Unhealthy),
            gpu("GPU-aaaa2", 2, Health::Healthy),
        ],
        2,
        1,
    );
    let (code, out, err) = answer(&socket, &["get", "gpus"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let names: Vec<_> = out
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(names, ["NAME", "GPU-aaaa1", "GPU-aaaa2"]);
    let (code, out, _) = answer(&socket, &["get", "gpu", "AAAA2", "-o", "yaml"]);
    assert_eq!(
        (code, out.lines().next()),
        (Some(0), Some("name: GPU-aaaa2"))
    );
    let (code, _, err) = answer(&socket, &["describe", "gpu", "GPU-x"]);
    assert_eq!(
        (code, err.as_str()),
        (
            Some(1),
            "devicectl: GPU \"GPU-x\" not found; there are GPU-aaaa1, GPU-aaaa2\n"
        )
    );
    assert_eq!(answer(&socket, &["describe", "gpu", "GPU-aaaa"]).0, Some(1));
    assert_eq!(answer(&socket, &["get", "cpus"]).0, Some(2));
}

#[test]
fn a_daemon_that_hangs_is_found_out_by_calls_that_may_take_minutes_too() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("d.sock");
    // The kernel lets clients in; nobody ever speaks to them.
    let _silent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let asked = [
        &["nvml", "attach"][..],
        &["nvml", "attach", "--no-wait"],
        &["nvml", "release", "--for=reset", "--ttl=10m"],
        &["policy", "reload"],
        &["policy", "resume", "p"],
        &["get", "gpus"],
    ];
    let running = asked.map(|args| {
        let mut command = devicectl(&socket, args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        (args, command.spawn().unwrap())
    });
    for (args, child) in running {
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("no answer within 10 s"), "{args:?}: {said}");
        assert_eq!(output.status.code(), Some(1), "{args:?}");
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("d.sock");
    let _running = start(&socket, &[gpu("GPU-a", 1, Health::Healthy)], 1, 1);
    let mut child = devicectl(&socket, &["get", "gpus"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let Output { status, stderr, .. } = child.wait_with_output().unwrap();
    assert_eq!((status.code(), stderr), (Some(0), Vec::new()));
}

#[test]
fn w3_selectors_and_modes_are_asked_of_the_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("d.sock");
    let running = start(&socket, &[gpu("GPU-a", 1, Health::Healthy)], 1, 1);
    let selectors = [
        "-l",
        "zone in (a)",
        "--field-selector",
        "status.health=Healthy",
    ];
    let get = [&["list", "gpus"][..], &selectors].concat();
    assert_eq!(answer(&socket, &get).0, Some(0));
    let watching = Watching::start(
        &socket,
        &[&selectors[..], &["--exact", "--bookmarks"]].concat(),
    );
    assert_eq!(watching.next(), "ADDED GPU-a 1 Healthy");
    running.send(bookmark(9));
    let mark = watching.next_json();
    assert_eq!(
        (&mark["type"], &mark["resourceVersion"], mark.get("gpu")),
        (&"BOOKMARK".into(), &"9".into(), None)
    );
    let asked = running.asked();
    assert_eq!(
        asked,
        [
            "list zone in (a) status.health=Healthy",
            "watch zone in (a) status.health=Healthy exact=true"
        ]
    );
    let (code, _, err) = answer(&socket, &["get", "gpus", "-l", "bad"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("label_selector: bad"), "{err}");
}

#[test]
fn w2_an_exact_watch_ends_where_a_change_was_missed_and_another_lists_again() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("d.sock");
    let first = start(&socket, &[gpu("GPU-a", 1, Health::Healthy)], 1, 1);
    let mut watching = Watching::start(&socket, &["--exact"]);
    assert_eq!(watching.next(), "ADDED GPU-a 1 Healthy");
    drop(first);
    let _second = start(&socket, &[gpu("GPU-a", 70, Health::Healthy)], 70, 70);
    assert_eq!(watching.child.wait().unwrap().code(), Some(1));
}

#[test]
fn w3_a_bookmark_moves_the_place_where_a_watch_resumes() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("d.sock");
    let a = gpu("GPU-a", 1, Health::Healthy);
    let first = start(&socket, std::slice::from_ref(&a), 1, 1);
    let watching = Watching::start(&socket, &["--bookmarks"]);
    assert_eq!(watching.next(), "ADDED GPU-a 1 Healthy");
    first.send(bookmark(50));
    assert_eq!(watching.next_json()["resourceVersion"], "50");
    drop(first);
    // Version 1 is forgotten, and 50 is not: nothing is listed again.
    let second = start(&socket, &[a], 50, 40);
    second.send(event(
        EventType::Modified,
        gpu("GPU-a", 51, Health::Degraded),
    ));
    assert_eq!(watching.next(), "MODIFIED GPU-a 51 Degraded");
    let said = watching.end();
    assert!(said.contains("resuming after version 50"), "{said}");
    assert!(!said.contains("listing again"), "{said}");
}

#[test]
fn p1_providers_are_listed_and_forgotten_when_that_is_confirmed() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("d.sock");
    let running = start(&socket, &[], 1, 1);
    let (code, out, _) = answer(&socket, &["provider", "list"]);
    assert_eq!(code, Some(0));
    let rows: Vec<Vec<_>> = out
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        rows,
        [
            vec!["NAME", "IDENTITY", "LEASE", "TYPES"],
            vec!["fans", "uid:7", "25s", "FanBroken,FanSlow"],
            vec!["uid:8", "uid:8", "none", "NVMLReady"],
        ]
    );
    let (code, out, err) = answer(&socket, &["provider", "forget", "fans"]);
    assert_eq!((code, &*out), (Some(1), ""), "nobody was there to be asked");
    assert!(err.contains("give --yes"), "{err}");
    let (code, _, err) = answer(&socket, &["provider", "forget", "nobody", "--yes"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("there are fans, uid:8"), "{err}");
    assert_eq!(running.forgotten(), Vec::<String>::new());

    let (code, out, _) = answer(&socket, &["provider", "forget", "fans", "--yes"]);
    assert_eq!(code, Some(0));
    assert!(out.contains("Released types: FanBroken, FanSlow"), "{out}");
    let forget = ["provider", "forget", "uid:8", "--yes", "-o", "json"];
    let (code, out, _) = answer(&socket, &forget);
    let said: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, Some(0));
    assert_eq!(said["releasedTypes"], serde_json::json!(["NVMLReady"]));
    assert_eq!(running.forgotten(), ["fans", "uid:8"]);
}
