use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bundled_policies::{NVML_HEALTH, XID_POLICY};
use device_api_core::clock::ManualClock;
use device_api_core::condition::Owner;
use device_api_core::ids::DeviceUuid;
use device_api_core::seating::{DeviceJournal, SeatError, Seating};
use device_api_wasm::{Engine, Limits, LoadError, Loaded};

use super::super::answer::{Awaited, promise};
use super::*;
use crate::source::{Bytes, PolicySource, bundled_origin};

/// An operator who asks for something while the thread is busy.
#[derive(Debug, Default)]
struct Operator {
    inbox: Inbox,
    asks: AtomicBool,
    awaited: Mutex<Option<Awaited>>,
}

impl Operator {
    fn ask_once(&self) {
        if self.asks.swap(false, Ordering::SeqCst) {
            let (given, awaited) = promise();
            let nobody = PolicyCommand::Resume {
                name: "nobody".to_owned(),
            };
            self.inbox.send(Message::Command(nobody, given)).unwrap();
            *self.awaited.lock().unwrap() = Some(awaited);
        }
    }

    /// `None`: nothing was asked.
    fn is_answered(&self) -> Option<bool> {
        let mut awaited = self.awaited.lock().unwrap();
        awaited.as_mut().map(|awaited| awaited.take_now().is_some())
    }
}

/// Seats that take everybody, and note whether the operator was answered when a report was taken back.
#[derive(Debug, Default)]
struct Seated {
    operator: Arc<Operator>,
    taken_back: Mutex<Vec<Option<bool>>>,
}

impl Seats for Seated {
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

    fn report(&self, _: &str, why: Option<String>) {
        if why.is_none() {
            let is_answered = self.operator.is_answered();
            self.taken_back.lock().unwrap().push(is_answered);
        }
    }
}

/// A machine that has what a compile needs, or has not, or a host with a bug.
#[derive(Debug)]
struct Machine {
    engine: Engine,
    operator: Arc<Operator>,
    is_starved: AtomicBool,
    panics: AtomicBool,
    loads: AtomicUsize,
    /// Whether the operator was answered when it was asked to load something.
    answered: Mutex<Vec<Option<bool>>>,
}

impl Loader for Machine {
    fn load(&self, bytes: &Bytes, limits: Limits) -> Result<Loaded, LoadError> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        let is_answered = self.operator.is_answered();
        self.answered.lock().unwrap().push(is_answered);
        self.operator.ask_once();
        assert!(!self.panics.load(Ordering::SeqCst), "a bug of ours");
        if self.is_starved.load(Ordering::SeqCst) {
            return Err(LoadError::WorkerStart {
                program: "compiler".into(),
                source: std::io::ErrorKind::OutOfMemory.into(),
            });
        }
        self.engine.load(bytes, limits)
    }
}

struct House {
    directory: tempfile::TempDir,
    operator: Arc<Operator>,
    seats: Arc<Seated>,
    machine: Arc<Machine>,
    worker: Worker,
}

fn house() -> House {
    let directory = tempfile::tempdir().unwrap();
    let operator = Arc::<Operator>::default();
    let seats = Arc::new(Seated {
        operator: Arc::clone(&operator),
        ..Seated::default()
    });
    let machine = Arc::new(Machine {
        engine: Engine::new().unwrap(),
        operator: Arc::clone(&operator),
        is_starved: AtomicBool::default(),
        panics: AtomicBool::default(),
        loads: AtomicUsize::default(),
        answered: Mutex::default(),
    });
    let limits = Limits {
        start_deadline: Duration::from_secs(10),
        call_deadline: Duration::from_secs(1),
        ..Limits::default()
    };
    let bundled = PolicySource {
        origin: bundled_origin(XID_POLICY.name),
        bytes: XID_POLICY.bytes.into(),
        config: String::new(),
        limits,
        terms: device_api_core::seating::Terms::default(),
    };
    let config = SupervisorConfig {
        directory: Some(directory.path().to_owned()),
        ..SupervisorConfig::new(vec![bundled])
    };
    let clock = Arc::<ManualClock>::default();
    let inbox = operator.inbox.clone();
    let board = Arc::new(Board::new(inbox.clone(), clock.clone()));
    let worker = Worker::new(
        config,
        machine.clone(),
        None,
        seats.clone(),
        clock,
        board,
        inbox,
    )
    .unwrap();
    House {
        directory,
        operator,
        seats,
        machine,
        worker,
    }
}

impl House {
    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.directory.path().join(name), text).unwrap();
    }

    fn starve(&self, is_starved: bool) {
        self.machine.is_starved.store(is_starved, Ordering::SeqCst);
    }

    fn loads(&self) -> usize {
        self.machine.loads.swap(0, Ordering::SeqCst)
    }
}

#[test]
fn h5_without_a_set_the_bundled_one_that_had_no_means_is_tried_again() {
    let mut house = house();
    house.write("policies.yaml", "x: 1");
    house.starve(true);
    assert!(house.worker.pass(true, Forget::Nothing).refused.is_some());
    let judges = |house: &House| house.worker.slots[XID_POLICY.name].judges();
    assert!(!judges(&house) && house.worker.retry.is_some());
    house.starve(false);
    house.worker.retry = Some((Instant::now(), RETRY_FIRST));
    house.worker.try_again_if_due();
    assert!(judges(&house));
    assert_eq!(house.worker.retry, None);
}

#[test]
fn h5_without_a_set_who_may_stand_in_is_tried_once() {
    let mut house = house();
    house.write("policies.yaml", "x: 1");
    house.starve(true);
    house.worker.pass(true, Forget::Nothing);
    assert_eq!(house.loads(), 1);
    house.worker.pass(false, Forget::Transient);
    assert_eq!(house.loads(), 1);
}

#[test]
fn h5_a_bug_that_ends_a_second_try_is_not_met_again_at_once() {
    let mut house = house();
    house.starve(true);
    house.worker.pass(true, Forget::Nothing);
    house.starve(false);
    house.machine.panics.store(true, Ordering::SeqCst);
    let mut waited = RETRY_FIRST;
    for _ in 0..2 {
        let due = Instant::now();
        house.worker.retry = Some((due, waited));
        house.loads();
        house.worker.try_again_if_due();
        assert_eq!(house.loads(), 1);
        house.worker.try_again_if_due();
        assert_eq!(house.loads(), 0, "it waits");
        let (at, longer) = house.worker.retry.unwrap();
        assert!(longer == waited * 2 && at >= due + longer);
        waited = longer;
    }
    house.machine.panics.store(false, Ordering::SeqCst);
    house.worker.retry = Some((Instant::now(), RETRY_MAX));
    house.worker.try_again_if_due();
    assert!(house.worker.slots[XID_POLICY.name].judges());
}

#[test]
fn h5_a_bug_that_ends_a_pass_does_not_keep_what_is_new_from_the_compiler() {
    let mut house = house();
    let settings = device_api_wasm::CompilerSettings {
        worker: device_api_wasm::Worker {
            program: "/bin/false".into(),
            args: Vec::new(),
        },
        cache_dir: None,
        memory_bytes_max: 1 << 30,
        deadline: Duration::from_mins(1),
    };
    let compiler = device_api_wasm::Compiler::new(house.machine.engine.clone(), settings).unwrap();
    let queue = CompileQueue::new(compiler, house.operator.inbox.clone());
    house.worker.queue = Some(queue.clone());
    house.machine.panics.store(true, Ordering::SeqCst);
    house.worker.guarded("a test", |worker| {
        worker.pass(true, Forget::Nothing);
    });
    let ordered = queue.load(&NVML_HEALTH.bytes.into(), Limits::default());
    assert!(matches!(ordered, Err(LoadError::Compiling)), "{ordered:?}");
    let thread = queue.start().unwrap();
    let told = house
        .operator
        .inbox
        .next(Instant::now() + Duration::from_secs(30));
    assert!(
        matches!(told, Next::Message(Message::Compiled(_))),
        "{told:?}"
    );
    queue.stop();
    thread.join().unwrap();
}

#[test]
fn h5_a_retry_that_is_due_is_not_put_off_by_a_look_at_the_directory() {
    let mut house = house();
    house.starve(true);
    house.worker.pass(true, Forget::Nothing);
    let due = (Instant::now(), RETRY_FIRST);
    house.worker.retry = Some(due);
    house.worker.pass(false, Forget::Nothing);
    assert_eq!(house.worker.retry, Some(due));
}

#[test]
fn h5_what_is_bundled_is_hashed_once() {
    let house = house();
    let digest = || house.worker.bundled(XID_POLICY.name).unwrap().key.digest;
    assert!(Arc::ptr_eq(&digest(), &digest()));
}

#[test]
fn h5_what_cannot_wait_is_served_between_two_files_that_are_new() {
    let mut house = house();
    house.worker.pass(true, Forget::Nothing);
    for file in ["a.wasm", "b.wasm"] {
        house.write(file, file);
    }
    house.operator.asks.store(true, Ordering::SeqCst);
    house.machine.answered.lock().unwrap().clear();
    house.worker.pass(false, Forget::Nothing);
    let answered = house.machine.answered.lock().unwrap().clone();
    assert_eq!(answered, [None, Some(true)]);
}

#[test]
fn h5_what_cannot_wait_is_served_before_a_name_is_taken_out() {
    let mut house = house();
    house.write("policies.yaml", "policies: [{name: a, file: a.wasm}]");
    house.write("a.wasm", "bad");
    house.worker.pass(true, Forget::Nothing);
    house.write("policies.yaml", "policies: [{name: b, file: b.wasm}]");
    house.write("b.wasm", "bad as well");
    std::fs::remove_file(house.directory.path().join("a.wasm")).unwrap();
    house.operator.asks.store(true, Ordering::SeqCst);
    house.worker.pass(false, Forget::Nothing);
    let taken_back = house.seats.taken_back.lock().unwrap().clone();
    assert_eq!(taken_back, [Some(true)]);
}
