//! Design H5, H10: what is slow to compile holds up neither the start, nor commands, nor the end.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use device_api_core::policy_status::{Phase, ReloadChange};
use device_api_core::ports::{PolicyCommand, Seats};
use device_api_policy::{
    COMPILE_DEADLINE_DEFAULT, CompileWorker, CompilerSettings, Loading, SEATED_WAIT, Supervisor,
    compile_memory_bytes,
};
use rustix::fs::{FileType, Mode, mknodat};

use crate::bench::{Rig, block_on, bundled};
use crate::component::moody;
use crate::house::{answered, pose, xid};

pub(crate) fn marked(name: &str, mark: &str, owns: &str) -> Vec<u8> {
    moody(name, &[owns], |memory| {
        memory.push(mark);
        Vec::new()
    })
}

/// A compiler that waits at a gate before each component, until it is let through.
#[derive(Clone)]
pub(crate) struct Gate {
    fifo: PathBuf,
    /// A line for each that came.
    came: PathBuf,
    passed: Arc<AtomicUsize>,
    pub(crate) loading: Loading,
}

impl Gate {
    pub(crate) fn new(rig: &Rig) -> Self {
        let fifo = rig.state.path().join("gate");
        mknodat(
            rustix::fs::CWD,
            &fifo,
            FileType::Fifo,
            Mode::RUSR | Mode::WUSR,
            0,
        )
        .unwrap();
        let came = rig.state.path().join("came");
        fs::write(&came, "").unwrap();
        let script = format!(
            "echo came >> {}; read _ < {}; exec {}",
            came.display(),
            fifo.display(),
            env!("CARGO_BIN_EXE_policy-compile-worker")
        );
        let loading = Loading::Child(CompilerSettings {
            worker: CompileWorker {
                program: PathBuf::from("/bin/sh"),
                args: vec!["-c".into(), script.into()],
            },
            cache_dir: Some(rig.state.path().join("code")),
            memory_bytes_max: compile_memory_bytes(),
            deadline: COMPILE_DEADLINE_DEFAULT,
        });
        Self {
            fifo,
            came,
            passed: Arc::default(),
            loading,
        }
    }

    /// How many came to the gate, those that are through included.
    pub(crate) fn came(&self) -> usize {
        fs::read_to_string(&self.came).unwrap().lines().count()
    }

    /// One that came is gone without having been let through.
    pub(crate) fn one_gave_up(&self) {
        self.passed.fetch_add(1, Ordering::SeqCst);
    }

    /// Lets one through; returns once it is at the gate.
    pub(crate) fn let_one_through(&self) {
        let begun = Instant::now();
        // A line that is written earlier would be the one's who was let through before.
        while self.came() <= self.passed.load(Ordering::SeqCst) {
            assert!(begun.elapsed() < Duration::from_secs(30), "nobody comes");
            std::thread::yield_now();
        }
        fs::write(&self.fifo, "\n").unwrap();
        self.passed.fetch_add(1, Ordering::SeqCst);
    }

    /// Lets so many through, whenever they come.
    pub(crate) fn open(&self, times: usize) -> std::thread::JoinHandle<()> {
        let gate = self.clone();
        std::thread::spawn(move || (0..times).for_each(|_| gate.let_one_through()))
    }
}

#[test]
fn h5_a_slow_compile_holds_up_neither_the_start_nor_commands_nor_the_end() {
    let mut rig = Rig::new(vec![bundled("p", marked("p", "1", "Fault"))]);
    rig.write("a.wasm", marked("a", "1", "Slow"));
    let gate = Gate::new(&rig);
    rig.config.loading = gate.loading.clone();
    let opened = gate.open(1);
    rig.start();
    opened.join().unwrap();
    // The bundled one came first, though the other file was there as early.
    answered(pose(&*rig.bench.policy("p"), xid(31)));
    let status = rig.status("a");
    assert_eq!((status.phase, status.refused), (Phase::Compiling, None));
    assert!(
        status.detail.contains("a.wasm is being compiled"),
        "{}",
        status.detail
    );
    let (well, told) = rig.supervisor().report();
    assert!(!well && told.contains("a is compiling"), "{told}");
    let begun = Instant::now();
    rig.command(PolicyCommand::Pause {
        name: "p".to_owned(),
        reason: "a test".to_owned(),
    });
    assert_eq!(rig.status("p").phase, Phase::Paused);
    rig.command(PolicyCommand::Resume {
        name: "p".to_owned(),
    });
    rig.command(PolicyCommand::Quarantine {
        name: "p".to_owned(),
        digest: String::new(),
        reason: "a test".to_owned(),
    });
    assert_eq!(rig.status("p").phase, Phase::Quarantined);
    // A reload waits for what it asked for; the end does not.
    let reload = rig.policies().command(PolicyCommand::Reload);
    rig.stop();
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert!(block_on(reload).is_err());
}

#[test]
fn h6_what_was_compiled_beside_takes_its_seat_and_the_reload_says_so() {
    let mut rig = Rig::new(vec![bundled("p", marked("p", "1", "Fault"))]);
    let gate = Gate::new(&rig);
    rig.config.loading = gate.loading.clone();
    let opened = gate.open(1);
    rig.start();
    opened.join().unwrap();
    rig.write("a.wasm", marked("a", "1", "Slow"));
    let reload = rig.policies().command(PolicyCommand::Reload);
    gate.let_one_through();
    let report = block_on(reload).unwrap();
    let outcome = report.outcomes.iter().find(|outcome| &*outcome.name == "a");
    assert_eq!(outcome.unwrap().change, ReloadChange::Swapped, "{report:?}");
    answered(pose(&*rig.bench.policy("a"), xid(31)));
    assert_eq!(rig.status("a").phase, Phase::Running);

    // A new version of what judges is compiled beside it.
    let old = rig.bench.digest("a");
    rig.write("a.wasm", marked("a", "2", "Slow"));
    let reload = rig.policies().command(PolicyCommand::Reload);
    answered(pose(&*rig.bench.policy("a"), xid(31)));
    assert_eq!(rig.bench.digest("a"), old);
    // Until somebody is let through the gate.
    let begun = Instant::now();
    while !rig.status("a").detail.contains("is being compiled") {
        assert!(begun.elapsed() < Duration::from_secs(20));
        std::thread::yield_now();
    }
    let status = rig.status("a");
    assert_eq!((status.phase, status.refused), (Phase::Running, None));
    assert!(!rig.supervisor().report().0);
    gate.let_one_through();
    block_on(reload).unwrap();
    assert_eq!(rig.status("a").detail, "");
    assert!(rig.supervisor().report().0);
    assert_ne!(rig.bench.digest("a"), old);

    // Nothing is compiled again by the next run: nobody is at the gate.
    rig.start();
    assert_ne!(rig.bench.digest("a"), old);
}

#[test]
fn h5_while_it_is_compiled_what_judged_before_stands_in() {
    let mut rig = Rig::new(vec![]);
    rig.write("a.wasm", marked("a", "1", "Slow"));
    let gate = Gate::new(&rig);
    rig.config.loading = gate.loading.clone();
    let opened = gate.open(1);
    rig.start();
    opened.join().unwrap();
    rig.bench
        .wait("the first", |inner| inner.seated.contains_key("a"));
    let old = rig.bench.digest("a");
    rig.stop();
    rig.write("a.wasm", marked("a", "2", "Slow"));
    rig.start();
    assert_eq!(rig.bench.digest("a"), old);
    let status = rig.status("a");
    assert_eq!(status.phase, Phase::StandIn, "{}", status.detail);
    gate.let_one_through();
    rig.bench.wait("the new one", |inner| {
        inner
            .seated
            .get("a")
            .is_some_and(|policy| *policy.info().id.digest != *old)
    });
}

#[test]
fn h5_a_set_that_is_refused_while_the_bundled_one_is_compiled_says_both() {
    let mut rig = Rig::new(vec![bundled("p", marked("p", "1", "Fault"))]);
    rig.write("policies.yaml", "policies: [{}]");
    let gate = Gate::new(&rig);
    rig.config.loading = gate.loading.clone();
    let supervisor = Supervisor::begin(
        rig.config.clone(),
        Arc::clone(&rig.bench) as Arc<dyn Seats>,
        Arc::clone(&rig.clock) as Arc<dyn device_api_core::clock::Clock>,
    )
    .unwrap();
    // Behind the first pass.
    let nobody = PolicyCommand::Resume {
        name: "nobody".to_owned(),
    };
    assert!(block_on(supervisor.policies().command(nobody)).is_err());
    let [status] = &supervisor.policies().list()[..] else {
        panic!("one policy")
    };
    assert_eq!(status.phase, Phase::Compiling);
    assert!(
        status.detail.contains("bundled/p is being compiled"),
        "{}",
        status.detail
    );
    let told = supervisor.report().1;
    assert!(told.contains("policies.yaml is refused"), "{told}");
    gate.let_one_through();
    rig.bench
        .wait("the bundled one", |inner| inner.seated.contains_key("p"));
    drop(supervisor);
}

#[test]
fn h5_a_start_that_is_stopped_ends_at_once() {
    let rig = Rig::new(vec![bundled("p", marked("p", "1", "Fault"))]);
    let gate = Gate::new(&rig);
    let config = device_api_policy::SupervisorConfig {
        loading: gate.loading.clone(),
        ..rig.config.clone()
    };
    let seats = Arc::clone(&rig.bench) as Arc<dyn Seats>;
    let clock = Arc::clone(&rig.clock) as Arc<dyn device_api_core::clock::Clock>;
    let supervisor = Arc::new(Supervisor::begin(config, seats, clock).unwrap());
    let (told, tells) = mpsc::channel();
    let waiting = Arc::clone(&supervisor);
    let waiter = std::thread::spawn(move || {
        let begun = Instant::now();
        told.send(()).unwrap();
        waiting.await_seated();
        begun.elapsed()
    });
    tells.recv().unwrap();
    supervisor.stop();
    assert!(waiter.join().unwrap() < SEATED_WAIT);
    drop(supervisor);
}

#[test]
fn h10_without_a_cache_each_policy_of_the_set_is_compiled_once() {
    let bundled = [
        bundled("p", marked("p", "1", "Fault")),
        bundled("q", marked("q", "1", "Other")),
    ];
    let mut rig = Rig::new(bundled.into());
    // It takes the place of a bundled one, which is kept ready all the same.
    rig.write("q.wasm", marked("q", "2", "Other"));
    rig.config.loading = Loading::Child(CompilerSettings {
        worker: CompileWorker {
            program: PathBuf::from(env!("CARGO_BIN_EXE_policy-compile-worker")),
            args: Vec::new(),
        },
        cache_dir: None,
        memory_bytes_max: compile_memory_bytes(),
        deadline: COMPILE_DEADLINE_DEFAULT,
    });
    rig.start();
    let idle = || {
        // Answered when nothing is being compiled any more.
        rig.reload();
        rig.supervisor().compiler().unwrap().counters().compiled
    };
    assert_eq!(idle(), 3);
    for _ in 0..3 {
        assert_eq!(idle(), 3);
    }
    // What the set has no more is let go of.
    fs::remove_file(rig.path("q.wasm")).unwrap();
    rig.write("policies.yaml", "policies: []");
    assert_eq!(idle(), 3);
    rig.write("q.wasm", marked("q", "2", "Other"));
    assert_eq!(idle(), 4);
}
