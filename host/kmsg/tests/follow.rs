//! The reader over real FIFOs and files. Each wait is for an observation, with a bound that only a
//! failing test reaches.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests: a panic is a failed test"
)]

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use device_api_core::clock::BootId;
use device_api_core::device::DeviceInfo;
use device_api_core::durable::LogPosition;
use device_api_core::ids::DeviceUuid;
use device_api_core::ports::SignalSink;
use device_api_core::recovery::Recovery;
use device_api_core::signal::{Observation, Samples, SignalKind};
use device_api_kmsg::{KernelLog, LINE_BYTES_MAX, LogStatus};
use rustix::fs::{CWD, FileType, Mode, mknodat};

const DEADLINE: Duration = Duration::from_secs(20);

#[derive(Debug)]
struct Sink(Sender<Observation>, Sender<LogPosition>);

impl SignalSink for Sink {
    fn observe(&self, observation: Observation) {
        let _ = self.0.send(observation);
    }
    fn device_found(&self, device: DeviceInfo, _: Arc<Samples>) {
        panic!("the kernel log finds no devices: {device:?}");
    }
    fn sampled(&self, uuid: &DeviceUuid, _: Arc<Samples>) {
        panic!("the kernel log has no readings: {uuid}");
    }
    fn probing(&self, candidates: &[DeviceUuid]) {
        panic!("the kernel log always names the GPU: {candidates:?}");
    }
    fn probed(&self, uuid: &DeviceUuid) {
        panic!("the kernel log probes nothing: {uuid}");
    }
    fn recovered(&self, _: &DeviceUuid, _: Recovery, _: &str) {}
    fn log_read(&self, position: LogPosition) {
        let _ = self.1.send(position);
    }
}

struct Following {
    log: KernelLog,
    seen: Receiver<Observation>,
    positions: Receiver<LogPosition>,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

fn start(
    path: &Path,
    drill: bool,
    from: Option<LogPosition>,
) -> (KernelLog, Receiver<Observation>, Receiver<LogPosition>) {
    let ((sender, seen), (told, positions)) = (channel(), channel());
    let sink = Arc::new(Sink(sender, told));
    let log = KernelLog::start(path, sink, drill, BootId::default(), from).unwrap();
    (log, seen, positions)
}

/// Follows `kmsg` in a fresh directory, once `prepare` has made it.
fn follow(drill: bool, prepare: impl FnOnce(&Path)) -> Following {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kmsg");
    prepare(&path);
    let (log, seen, positions) = start(&path, drill, None);
    Following {
        log,
        seen,
        positions,
        path,
        _dir: dir,
    }
}

fn fifo(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
}

fn writer(path: &Path) -> File {
    // Blocks until the reader has opened its end.
    OpenOptions::new().write(true).open(path).unwrap()
}

fn append(path: &Path) -> File {
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .unwrap()
}

fn xid(code: u64) -> String {
    format!("[ 12.5] NVRM: Xid (PCI:0000:a1:00): {code}, pid=7, name=train, text\n")
}

impl Following {
    #[track_caller]
    fn code(&self) -> u64 {
        self.next().code.unwrap()
    }

    #[track_caller]
    fn next(&self) -> Observation {
        self.seen
            .recv_timeout(DEADLINE)
            .unwrap_or_else(|_| panic!("{:?} {:?}", self.log.status(), self.log.counts()))
    }

    #[track_caller]
    fn until(&self, what: impl Fn(&KernelLog) -> bool) {
        let end = Instant::now() + DEADLINE;
        while !what(&self.log) {
            assert!(
                Instant::now() < end,
                "{:?} {:?}",
                self.log.status(),
                self.log.counts()
            );
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_fifo_is_read_promptly_and_its_writers_may_come_and_go() {
    let following = follow(false, fifo);
    for code in 1..=20 {
        let mut writer = writer(&following.path);
        writer.write_all(xid(code).as_bytes()).unwrap();
        if code % 2 == 0 {
            // Observed while the writer still has it open …
            assert_eq!(following.code(), code);
        } else {
            // … or once it has closed it.
            drop(writer);
            assert_eq!(following.code(), code);
        }
    }
    let seen = following.log.counts();
    assert_eq!((seen.lines, seen.xids, seen.unparsed), (20, 20, 0));
    following.log.stop();
    assert!(
        following.seen.recv().is_err(),
        "nothing is observed after the stop"
    );
}

#[test]
fn a_replaced_fifo_is_opened_anew() {
    let following = follow(false, fifo);
    let mut old = writer(&following.path);
    old.write_all(xid(1).as_bytes()).unwrap();
    assert_eq!(following.code(), 1);
    std::fs::remove_file(&following.path).unwrap();
    fifo(&following.path);
    writer(&following.path)
        .write_all(xid(2).as_bytes())
        .unwrap();
    assert_eq!(following.code(), 2);
}

#[test]
fn a_file_is_read_from_its_start_and_then_followed() {
    let following = follow(false, |path| {
        std::fs::write(path, xid(1) + "noise\n" + &xid(2)).unwrap()
    });
    assert_eq!([following.code(), following.code()], [1, 2]);
    let (first, second) = (xid(3), xid(4));
    let (head, tail) = first.split_at(20);
    let mut file = append(&following.path);
    file.write_all(head.as_bytes()).unwrap();
    file.write_all(tail.as_bytes()).unwrap();
    assert_eq!(following.code(), 3);
    // No line end: taken once it has not grown for a while.
    file.write_all(second.trim_end().as_bytes()).unwrap();
    assert_eq!(following.code(), 4);
    following.until(|log| log.status() == LogStatus::Following { caught_up: true });
    assert_eq!(following.log.counts().lines, 5);
}

#[test]
fn a_file_that_is_missing_is_waited_for_and_one_rotated_or_truncated_read_on() {
    let following = follow(false, |_| ());
    following.until(
        |log| matches!(log.status(), LogStatus::Waiting { why } if why.contains("No such file")),
    );
    std::fs::write(&following.path, xid(1) + &xid(2)).unwrap();
    assert_eq!([following.code(), following.code()], [1, 2]);
    // Truncated in place, and shorter than before.
    std::fs::write(&following.path, xid(3)).unwrap();
    assert_eq!(following.code(), 3);
    // Rotated: what is still written to the old one counts too.
    let mut old = append(&following.path);
    std::fs::rename(&following.path, following.path.with_extension("1")).unwrap();
    old.write_all(xid(4).as_bytes()).unwrap();
    assert_eq!(following.code(), 4);
    std::fs::write(&following.path, xid(5)).unwrap();
    assert_eq!(following.code(), 5);
}

#[test]
fn what_is_no_log_is_said() {
    let following = follow(false, |path| std::fs::create_dir(path).unwrap());
    following.until(
        |log| matches!(log.status(), LogStatus::Waiting { why } if why.contains("is a directory")),
    );
    following.log.stop();
}

#[test]
fn n8_all_of_a_drill_log_is_a_drill() {
    let following = follow(true, |path| std::fs::write(path, xid(79)).unwrap());
    assert!(following.next().drill);
    let following = follow(false, |path| {
        std::fs::write(
            path,
            format!("12,1,2,-;{}", xid(79).split_off(8)) + &xid(79),
        )
        .unwrap()
    });
    assert!(following.next().drill, "a process wrote it");
    assert!(!following.next().drill);
}

#[test]
fn n4_a_gpu_off_the_bus_and_the_identities_are_told() {
    let lines = "NVRM: GPU at PCI:0000:a1:00: GPU-6f185d59-caa4-e21b-7e96-c6aba97f1ac9\n\
                 NVRM: The NVIDIA GPU 0000:b3:00.0\nNVRM: (PCI ID: 10de:26b5) installed in this system has\n\
                 NVRM: fallen off the bus and is not responding to commands.\n\
                 NVRM: Xid (PCI:0000:a1:00): what\n";
    let following = follow(false, |path| std::fs::write(path, lines).unwrap());
    let seen = following.next();
    assert_eq!(
        (seen.kind, seen.target.to_string()),
        (SignalKind::GpuLost, "0000:b3:00.0".to_owned())
    );
    following.until(|log| log.counts().lines == 5);
    let counts = following.log.counts();
    assert_eq!((counts.lost, counts.unparsed, counts.xids), (1, 1, 0));
    let identities: Vec<String> = following
        .log
        .identities()
        .iter()
        .map(|(pci, uuid)| format!("{pci} {uuid}"))
        .collect();
    assert_eq!(
        identities,
        ["0000:a1:00.0 GPU-6f185d59-caa4-e21b-7e96-c6aba97f1ac9"]
    );
}

#[test]
fn a_line_without_end_is_bounded_and_counted() {
    let following = follow(false, fifo);
    let mut writer = writer(&following.path);
    for _ in 0..64 {
        writer.write_all(&[b'x'; LINE_BYTES_MAX]).unwrap();
    }
    writer.write_all(b"\n").unwrap();
    writer.write_all(xid(1).as_bytes()).unwrap();
    assert_eq!(following.code(), 1);
    let counts = following.log.counts();
    assert_eq!((counts.lines, counts.cut), (2, 1));
}

#[test]
fn the_kernels_own_log_is_read_where_we_may() {
    let Ok(device) = File::open("/dev/kmsg") else {
        // An unprivileged run; the kernel's records are parsed in tests/golden.rs.
        return;
    };
    drop(device);
    let (log, _seen, positions) = start(Path::new("/dev/kmsg"), true, None);
    let position = positions.recv_timeout(DEADLINE).unwrap();
    let counts = log.counts();
    assert!(counts.lines > 0 && counts.cut == 0, "{counts:?}");
    log.stop();

    // C7: the next run reads on, and of another boot from the beginning.
    let (log, _seen, positions) = start(Path::new("/dev/kmsg"), true, Some(position.clone()));
    assert!(positions.recv_timeout(DEADLINE).is_ok());
    let new = log.counts().lines;
    assert!(new < counts.lines, "{new} of {}", counts.lines);
    log.stop();
    let LogPosition::Record { sequence, .. } = position else {
        panic!("/dev/kmsg has sequence numbers")
    };
    let boot = BootId("another".into());
    let other = LogPosition::Record { boot, sequence };
    let (log, _seen, positions) = start(Path::new("/dev/kmsg"), true, Some(other));
    assert!(positions.recv_timeout(DEADLINE).is_ok());
    assert!(log.counts().lines >= counts.lines);
}

#[test]
fn c7_a_file_is_read_on_from_where_an_earlier_run_left_off() {
    let following = follow(false, |path| {
        std::fs::write(path, xid(79)).unwrap();
    });
    assert_eq!(following.next().code, Some(79));
    let position = following.positions.recv_timeout(DEADLINE).unwrap();
    let Following {
        log, path, _dir, ..
    } = following;
    log.stop();
    append(&path).write_all(xid(48).as_bytes()).unwrap();

    let (log, seen, _positions) = start(&path, false, Some(position.clone()));
    assert_eq!(
        seen.recv_timeout(DEADLINE).unwrap().code,
        Some(48),
        "79 was told before"
    );
    log.stop();

    // Another file under that name: all of it is new.
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, format!("{}{}\n", xid(13), "x".repeat(500))).unwrap();
    let LogPosition::File { id, offset } = position else {
        panic!("a file has a file's position")
    };
    let elsewhere = LogPosition::File {
        id: (id.0, id.1 ^ 1),
        offset,
    };
    let (_log, seen, _positions) = start(&path, false, Some(elsewhere));
    assert_eq!(seen.recv_timeout(DEADLINE).unwrap().code, Some(13));
}

#[test]
fn c7_a_file_that_could_not_be_read_for_a_while_is_read_on_from_where_it_was() {
    let following = follow(false, |path| {
        std::fs::write(path, xid(79) + "NVRM: Xid (PCI:0000:a1").unwrap();
    });
    assert_eq!(following.code(), 79);
    let aside = following.path.with_extension("1");
    std::fs::rename(&following.path, &aside).unwrap();
    std::fs::create_dir(&following.path).unwrap();
    following.until(|log| matches!(log.status(), LogStatus::Waiting { .. }));
    std::fs::remove_dir(&following.path).unwrap();
    append(&aside)
        .write_all((":00): 1, text\n".to_owned() + &xid(48)).as_bytes())
        .unwrap();
    std::fs::rename(&aside, &following.path).unwrap();
    assert_eq!(following.code(), 48, "79 was told before");

    // Truncated meanwhile: all of it is new.
    std::fs::rename(&following.path, &aside).unwrap();
    std::fs::create_dir(&following.path).unwrap();
    following.until(|log| matches!(log.status(), LogStatus::Waiting { .. }));
    std::fs::remove_dir(&following.path).unwrap();
    std::fs::write(&aside, xid(13)).unwrap();
    std::fs::rename(&aside, &following.path).unwrap();
    assert_eq!(following.code(), 13);
}

#[test]
fn c7_it_is_known_when_the_log_has_caught_up_or_cannot_be_read() {
    // Less than what an idle FIFO is looked at after.
    let soon = Duration::from_millis(900);
    let following = follow(false, fifo);
    assert!(following.log.wait_caught_up(soon), "nobody writes to it");
    let mut writer = writer(&following.path);
    writer.write_all(xid(79).as_bytes()).unwrap();
    assert_eq!(following.code(), 79);
    assert!(
        following.log.wait_caught_up(Duration::ZERO),
        "once is enough"
    );

    let following = follow(false, |path| {
        std::fs::write(path, xid(79).repeat(1000)).unwrap();
    });
    assert!(following.log.wait_caught_up(DEADLINE));
    assert_eq!(following.log.counts().xids, 1000);

    let following = follow(false, |_| ());
    assert!(!following.log.wait_caught_up(DEADLINE), "there is none");
    std::fs::write(&following.path, xid(79)).unwrap();
    assert_eq!(following.code(), 79);
    following.until(|log| log.wait_caught_up(Duration::ZERO));
}

#[test]
fn c7_a_writer_that_is_there_first_is_caught_up_with() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kmsg");
    fifo(&path);
    // A FIFO that is open for both never blocks.
    let mut both = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    both.write_all(xid(79).as_bytes()).unwrap();
    let (log, seen, _positions) = start(&path, false, None);
    assert!(log.wait_caught_up(DEADLINE));
    assert_eq!(seen.try_recv().unwrap().code, Some(79));
    log.stop();
}
