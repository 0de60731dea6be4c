use std::sync::atomic::{AtomicUsize, Ordering};

use device_api_core::clock::ManualClock;
use device_api_core::condition::Owner;
use device_api_core::ids::DeviceUuid;
use device_api_core::ports::Seats;
use device_api_core::seating::{DeviceJournal, SeatError, Seating};
use device_api_wasm::{Engine, Limits, LoadError, Loaded};

use super::super::SupervisorConfig;
use super::super::board::Board;
use super::super::inbox::Inbox;
use super::*;
use crate::load::Loader;
use crate::source::Bytes;

#[derive(Debug)]
struct NoSeats;

impl Seats for NoSeats {
    fn journals(&self) -> Vec<DeviceJournal> {
        Vec::new()
    }

    fn owner(&self, _: &str) -> Option<Owner> {
        None
    }

    fn seat(&self, _: Seating) -> Result<Vec<DeviceUuid>, SeatError> {
        Ok(Vec::new())
    }

    fn unseat(&self, _: &str) {}

    fn report(&self, _: &str, _: Option<String>) {}
}

#[derive(Debug)]
struct Counting {
    engine: Engine,
    loads: AtomicUsize,
}

impl Loader for Counting {
    fn load(&self, bytes: &Bytes, limits: Limits) -> Result<Loaded, LoadError> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        self.engine.load(bytes, limits)
    }
}

#[test]
fn h5_what_can_not_be_loaded_is_tried_again_only_when_it_changes_or_is_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    let loader = Arc::new(Counting {
        engine: Engine::new().unwrap(),
        loads: AtomicUsize::new(0),
    });
    let clock = Arc::<ManualClock>::default();
    let inbox = Inbox::default();
    let config = SupervisorConfig {
        directory: Some(directory.path().to_owned()),
        ..SupervisorConfig::new(Vec::new())
    };
    let board = Arc::new(Board::new(inbox.clone(), clock.clone()));
    let seats = Arc::new(NoSeats);
    let mut worker = Worker::new(config, loader.clone(), None, seats, clock, board, inbox).unwrap();
    let mut loads = |forced: bool| {
        let report = worker.reload(forced);
        assert_eq!(report.refused, None);
        let mut outcomes = report.outcomes.iter();
        assert!(outcomes.all(|outcome| outcome.change == ReloadChange::Refused));
        loader.loads.swap(0, Ordering::SeqCst)
    };
    file("unlisted.wasm", "bad");
    file("listed.wasm", "bad too");
    let text = "policies: [{name: p, file: listed.wasm}]";
    file("policies.yaml", text);
    assert_eq!((loads(false), loads(false)), (2, 0));
    assert_eq!((loads(true), loads(false)), (2, 0));
    file("unlisted.wasm", "another");
    assert_eq!((loads(false), loads(false)), (1, 0));
    let raised = "policies: [{name: p, file: listed.wasm, limits: {memory-bytes-max: 8MiB}}]";
    file("policies.yaml", raised);
    assert_eq!((loads(false), loads(false)), (1, 0));
}

#[test]
fn h6_a_newcomer_of_the_same_name_does_not_displace_one_whose_file_changes_while_it_is_read() {
    let clock = Arc::<ManualClock>::default();
    let inbox = Inbox::default();
    let board = Arc::new(Board::new(inbox.clone(), clock.clone()));
    let config = SupervisorConfig::new(Vec::new());
    let loader = Arc::new(Engine::new().unwrap());
    let mut worker =
        Worker::new(config, loader, None, Arc::new(NoSeats), clock, board, inbox).unwrap();
    // What judged when the last run ended.
    worker.books.ledger.of("p").seated = Some(crate::ledger::Kept {
        digest: "d".repeat(64),
        version: "1".to_owned(),
        origin: "p.wasm".to_owned(),
        since_ms: 0,
        config: String::new(),
        limits: BTreeMap::new(),
        mode: Mode::Enforce.as_str().to_owned(),
        fallback: String::new(),
        grants: Vec::new(),
        owns: Vec::new(),
        unexamined: false,
    });
    let changing = |listed: bool| Claim {
        origin: "p.wasm".to_owned(),
        is_listed: listed,
        wanted: None,
        candidate: Some(Err(PolicyError::Changing {
            origin: "p.wasm".to_owned(),
        })),
        instead: None,
    };
    let newcomer = Claim {
        origin: "q.wasm".to_owned(),
        is_listed: false,
        wanted: None,
        candidate: None,
        instead: None,
    };
    for listed in [true, false] {
        assert!(worker.standing("p", &changing(listed)) > worker.standing("p", &newcomer));
    }
    let broken = Claim {
        candidate: Some(Err(PolicyError::TooLarge {
            origin: "p.wasm".to_owned(),
            max: 1,
        })),
        ..changing(false)
    };
    assert!(worker.standing("p", &broken) < worker.standing("p", &newcomer));
}

/// What this thread logs.
#[derive(Clone, Default)]
struct Log(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn h6_a_file_that_is_none_is_one_line_of_the_log() {
    use super::super::compiling::Forget;

    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(directory.path().join(name), bytes).unwrap();
    };
    let clock = Arc::<ManualClock>::default();
    let inbox = Inbox::default();
    let config = SupervisorConfig {
        directory: Some(directory.path().to_owned()),
        ..SupervisorConfig::new(Vec::new())
    };
    let board = Arc::new(Board::new(inbox.clone(), clock.clone()));
    let loader = Arc::new(Engine::new().unwrap());
    let mut worker =
        Worker::new(config, loader, None, Arc::new(NoSeats), clock, board, inbox).unwrap();
    let mut files = Vec::new();
    for at in 10..60 {
        files.push(format!("junk{at}.wasm"));
        files.push(format!("core{at}.wasm"));
        files.push(format!("loud{at}.WASM"));
    }
    for file in &files {
        let bytes: &[u8] = if file.starts_with("core") {
            b"\0asm\x01\0\0\0"
        } else {
            file.as_bytes()
        };
        write(file, bytes);
    }
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .finish();
    tracing::subscriber::with_default(subscriber, || {
        // As at a start, and at each look from then on.
        for forced in [true, false, false] {
            let report = worker.pass(forced, Forget::Nothing);
            assert_eq!((report.refused, report.outcomes.len()), (None, files.len()));
        }
    });
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    for file in &files {
        let lines: Vec<&str> = text.lines().filter(|line| line.contains(file)).collect();
        assert_eq!(lines.len(), 1, "{lines:#?}");
        assert!(lines[0].contains("ERROR") && lines[0].contains("policy refused"));
    }
    assert_eq!(text.lines().count(), files.len());
}
