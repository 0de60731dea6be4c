//! Design H6, H9, H10: a start that has everything to compile decides as one that has nothing to.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use device_api_core::policy_status::{Phase, PolicyStatus, ReloadChange};
use device_api_core::ports::PolicyCommand;
use device_api_policy::{
    COMPILE_DEADLINE_DEFAULT, CompileWorker, CompilerSettings, Loading, compile_memory_bytes,
};

use crate::bench::{Rig, bundled, journal};
use crate::component::{GOOD, always, quiet};
use crate::house::xid;
use crate::start::{Gate, marked};

const WAIT: Duration = Duration::from_secs(30);

fn fatal(mark: &str) -> Vec<u8> {
    always("p", &["TestFault"], mark, &[GOOD])
}

/// The compiler as it is, or what `script` makes of it, with the cache that a [`Gate`] has.
fn child(rig: &Rig, script: Option<String>) -> CompilerSettings {
    let worker = env!("CARGO_BIN_EXE_policy-compile-worker");
    let worker = match script {
        None => CompileWorker {
            program: PathBuf::from(worker),
            args: Vec::new(),
        },
        Some(script) => CompileWorker {
            program: PathBuf::from("/bin/sh"),
            args: vec!["-c".into(), script.replace("WORKER", worker).into()],
        },
    };
    CompilerSettings {
        worker,
        cache_dir: Some(rig.state.path().join("code")),
        memory_bytes_max: compile_memory_bytes(),
        deadline: COMPILE_DEADLINE_DEFAULT,
    }
}

fn wipe(rig: &Rig) {
    fs::remove_dir_all(rig.state.path().join("code")).unwrap();
}

fn forget_code_of(rig: &Rig, digest: &str) {
    let mut forgotten = 0;
    for entry in fs::read_dir(rig.state.path().join("code")).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().to_string_lossy().contains(digest) {
            fs::remove_file(entry.path()).unwrap();
            forgotten += 1;
        }
    }
    assert_eq!(forgotten, 1);
}

/// Two GPUs that had a fault, or none.
fn faults(rig: &Rig, gpus: usize) {
    let of = |at: usize| journal(&format!("GPU-{at}"), vec![xid(63)], vec![]);
    rig.bench
        .with(|inner| inner.journals = (0..gpus).map(of).collect());
}

#[track_caller]
fn await_status(rig: &Rig, name: &str, is_so: impl Fn(&PolicyStatus) -> bool) -> PolicyStatus {
    let begun = Instant::now();
    loop {
        let list = rig.policies().list();
        let status = list.iter().find(|status| &*status.name == name);
        if let Some(status) = status.filter(|status| is_so(status)) {
            return status.clone();
        }
        assert!(begun.elapsed() < WAIT, "{list:?}");
        rig.settle();
    }
}

/// What happens to a directory, and how.
type Break = (&'static str, fn(&Rig));

#[test]
fn h6_a_set_that_breaks_while_it_is_compiled_is_seated_all_the_same() {
    let breaks: [Break; 3] = [
        ("a broken file", |rig| rig.write("policies.yaml", "x: 1")),
        ("an empty directory", |rig| {
            fs::remove_file(rig.path("policies.yaml")).unwrap();
            fs::remove_file(rig.path("file.wasm")).unwrap();
        }),
        ("no directory", |rig| {
            fs::remove_dir_all(rig.directory.path()).unwrap();
        }),
    ];
    for (what, break_it) in breaks {
        let mut rig = Rig::new(vec![bundled("p", marked("p", "1", "Fault"))]);
        rig.write("file.wasm", marked("a", "1", "Slow"));
        rig.write("policies.yaml", "policies: [{name: a, file: file.wasm}]");
        let gate = Gate::new(&rig);
        rig.config.loading = gate.loading.clone();
        rig.begin();
        break_it(&rig);
        rig.refused(&[]);
        let opened = gate.open(2);
        rig.bench.wait(what, |inner| inner.seated.len() == 2);
        opened.join().unwrap();
        for name in ["p", "a"] {
            let status = await_status(&rig, name, |status| status.active.is_some());
            assert_eq!(status.phase, Phase::Running, "{what}: {status:?}");
        }
        let (is_well, told) = rig.supervisor().report();
        assert!(!is_well && told.contains("the running set stays"), "{told}");
    }
}

#[test]
fn h6_what_comes_of_a_set_that_breaks_while_it_is_compiled_is_told_to_who_asked_for_it() {
    let changes: [(Vec<u8>, ReloadChange); 3] = [
        (fatal("1"), ReloadChange::Held),
        (marked("other", "1", "TestFault"), ReloadChange::Refused),
        (marked("p", "2", "TestFault"), ReloadChange::Swapped),
    ];
    for (file, change) in changes {
        let mut rig = Rig::new(vec![bundled("p", quiet("p", &["TestFault"]))]);
        let gate = Gate::new(&rig);
        rig.config.loading = gate.loading.clone();
        let opened = gate.open(1);
        rig.start();
        opened.join().unwrap();
        faults(&rig, 2);
        rig.write("x.wasm", file);
        rig.write("policies.yaml", "policies: [{name: p, file: x.wasm}]");
        let reload = rig.policies().command(PolicyCommand::Reload);
        await_status(&rig, "p", |status| {
            status.detail.contains("is being compiled")
        });
        rig.write("policies.yaml", "x: 1");
        rig.refused(&[]);
        gate.let_one_through();
        let report = crate::bench::block_on(reload).unwrap();
        assert!(report.refused.is_some());
        let [outcome] = &report.outcomes[..] else {
            panic!("{report:?}")
        };
        assert_eq!((&*outcome.name, outcome.change), ("p", change));
    }
}

#[test]
fn h6_where_the_set_is_gone_who_is_to_stand_in_is_seated_once_compiled() {
    let mut rig = Rig::new(vec![]);
    rig.config.loading = Loading::Child(child(&rig, None));
    rig.write("p.wasm", marked("p", "1", "Fault"));
    rig.start();
    rig.bench.wait("the first", |inner| inner.seated.len() == 1);
    let first = rig.bench.digest("p");
    rig.write("p.wasm", marked("p", "2", "Fault"));
    rig.reloaded(&[("p", ReloadChange::Swapped)]);
    rig.stop();
    // What was in its seat last is compiled; what is to stand in is not.
    forget_code_of(&rig, &first);
    let gate = Gate::new(&rig);
    rig.config.loading = gate.loading.clone();
    rig.start();
    assert_ne!(rig.bench.digest("p"), first);
    rig.command(PolicyCommand::Quarantine {
        name: "p".to_owned(),
        digest: String::new(),
        reason: "a test".to_owned(),
    });
    rig.write("policies.yaml", "x: 1");
    rig.refused(&[]);
    let opened = gate.open(1);
    let stands_in = |status: &PolicyStatus| {
        let active = status.active.as_ref();
        active.is_some_and(|active| *active.id.digest == *first)
    };
    let status = await_status(&rig, "p", stands_in);
    assert_eq!(status.phase, Phase::LastGood, "{status:?}");
    opened.join().unwrap();
}

#[test]
fn h9_what_is_held_in_the_place_of_a_bundled_one_stays_held_where_all_is_compiled_anew() {
    let mut rig = Rig::new(vec![bundled("p", quiet("p", &["TestFault"]))]);
    rig.config.loading = Loading::Child(child(&rig, None));
    faults(&rig, 2);
    rig.start();
    let old = rig.bench.digest("p");
    rig.write("x.wasm", fatal("1"));
    rig.reloaded(&[("p", ReloadChange::Held)]);
    // The journal is of a run.
    faults(&rig, 0);
    let held = rig.status("p").held.unwrap().digest;
    rig.start();
    let warm = await_status(&rig, "p", |status| status.held.is_some());
    rig.stop();
    wipe(&rig);
    let gate = Gate::new(&rig);
    rig.config.loading = gate.loading.clone();
    let opened = gate.open(1);
    rig.start();
    rig.bench
        .wait("the bundled one", |inner| !inner.seated.is_empty());
    opened.join().unwrap();
    assert_eq!(rig.bench.digest("p"), old);
    gate.let_one_through();
    let cold = await_status(&rig, "p", |status| status.held.is_some());
    assert_eq!(cold.held.unwrap().digest, held);
    assert_eq!((cold.phase, cold.detail), (warm.phase, warm.detail));
    assert_eq!(rig.bench.digest("p"), old);
    // And after one more, of which it was as often in doubt.
    rig.start();
    assert_eq!(rig.bench.digest("p"), old);
    assert_eq!(rig.status("p").held.unwrap().digest, held);
}

#[test]
fn h9_the_version_to_go_back_to_is_compiled_before_the_one_that_is_held_and_judges() {
    let mut rig = Rig::new(vec![]);
    rig.config.loading = Loading::Child(child(&rig, None));
    rig.write("p.wasm", quiet("p", &["TestFault"]));
    rig.start();
    rig.bench.wait("the first", |inner| inner.seated.len() == 1);
    let old = rig.bench.digest("p");
    faults(&rig, 2);
    rig.write("p.wasm", fatal("1"));
    rig.reloaded(&[("p", ReloadChange::Held)]);
    rig.stop();
    wipe(&rig);
    faults(&rig, 0);
    let gate = Gate::new(&rig);
    rig.config.loading = gate.loading.clone();
    rig.begin();
    let opened = gate.open(1);
    rig.bench
        .wait("the one before", |inner| !inner.seated.is_empty());
    opened.join().unwrap();
    assert_eq!(rig.bench.digest("p"), old);
    gate.let_one_through();
    let status = await_status(&rig, "p", |status| status.held.is_some());
    assert!(status.active.is_some(), "{status:?}");
    assert_eq!(rig.bench.digest("p"), old);
}

#[test]
fn h9_a_held_version_whose_stand_in_is_compiled_after_it_has_one_then() {
    let mut rig = Rig::new(vec![]);
    rig.config.loading = Loading::Child(child(&rig, None));
    rig.write("p.wasm", quiet("p", &["TestFault"]));
    rig.start();
    rig.bench.wait("the first", |inner| inner.seated.len() == 1);
    let old = rig.bench.digest("p");
    faults(&rig, 2);
    rig.write("p.wasm", fatal("1"));
    rig.reloaded(&[("p", ReloadChange::Held)]);
    rig.stop();
    faults(&rig, 0);
    // The held one's code alone is there.
    forget_code_of(&rig, &old);
    let gate = Gate::new(&rig);
    rig.config.loading = gate.loading.clone();
    rig.begin();
    let opened = gate.open(1);
    rig.bench
        .wait("the one before", |inner| !inner.seated.is_empty());
    opened.join().unwrap();
    assert_eq!(rig.bench.digest("p"), old);
    assert!(rig.status("p").held.is_some());
}

#[test]
fn h9_what_judged_before_is_not_braked_for_what_stood_in_while_it_was_compiled() {
    let mut rig = Rig::new(vec![bundled("p", quiet("p", &["TestFault"]))]);
    rig.config.loading = Loading::Child(child(&rig, None));
    rig.write("x.wasm", fatal("1"));
    rig.start();
    rig.reload();
    let judged = rig.bench.digest("p");
    rig.stop();
    wipe(&rig);
    let gate = Gate::new(&rig);
    rig.config.loading = gate.loading.clone();
    let opened = gate.open(1);
    rig.start();
    opened.join().unwrap();
    rig.bench
        .wait("the bundled one", |inner| !inner.seated.is_empty());
    assert_ne!(rig.bench.digest("p"), judged);
    // With code at hand it would have judged these itself.
    faults(&rig, 2);
    gate.let_one_through();
    let status = await_status(&rig, "p", |status| {
        status.phase == Phase::Running || status.held.is_some()
    });
    assert_eq!(status.held, None);
    assert_eq!(rig.bench.digest("p"), judged);
    // A version that is new is.
    rig.write("x.wasm", fatal("2"));
    let reload = rig.policies().command(PolicyCommand::Reload);
    gate.let_one_through();
    let report = crate::bench::block_on(reload).unwrap();
    assert_eq!(report.outcomes[0].change, ReloadChange::Held, "{report:?}");
}

#[test]
fn h5_the_last_good_version_that_is_released_judges_although_a_newer_one_is_quarantined() {
    let mut rig = Rig::new(vec![]);
    rig.write("p.wasm", marked("p", "1", "Fault"));
    rig.start();
    let good = rig.bench.digest("p");
    rig.write("p.wasm", marked("p", "2", "Fault"));
    rig.reloaded(&[("p", ReloadChange::Swapped)]);
    for _ in 0..2 {
        rig.command(PolicyCommand::Quarantine {
            name: "p".to_owned(),
            digest: String::new(),
            reason: "a test".to_owned(),
        });
    }
    assert_eq!(rig.status("p").phase, Phase::Quarantined);
    let report = rig.command(PolicyCommand::Release {
        name: "p".to_owned(),
        digest: good[..12].to_owned(),
    });
    let status = rig.status("p");
    assert_eq!(status.phase, Phase::LastGood, "{status:?}");
    assert_eq!(*status.active.unwrap().id.digest, *good);
    let [outcome] = &report.outcomes[..] else {
        panic!("{report:?}")
    };
    assert_eq!(
        (outcome.change, &*outcome.digest),
        (ReloadChange::Swapped, &*good),
        "{outcome:?}"
    );
    assert!(outcome.detail.contains("quarantined"), "{outcome:?}");
}

#[test]
fn h6_a_file_that_is_compiled_first_to_hear_its_name_leaves_no_trace_of_the_file_s() {
    let mut rig = Rig::new(vec![bundled("p", marked("p", "1", "Fault"))]);
    let gate = Gate::new(&rig);
    rig.config.loading = gate.loading.clone();
    rig.begin();
    rig.write("file.wasm", marked("a", "1", "Slow"));
    let reload = rig.policies().command(PolicyCommand::Reload);
    let opened = gate.open(2);
    let report = crate::bench::block_on(reload).unwrap();
    opened.join().unwrap();
    let mut found: Vec<_> = report
        .outcomes
        .iter()
        .map(|outcome| (&*outcome.name, outcome.change))
        .collect();
    found.sort_unstable_by_key(|(name, _)| *name);
    assert_eq!(
        found,
        [("a", ReloadChange::Swapped), ("p", ReloadChange::Swapped)]
    );
    let names: Vec<_> = rig
        .policies()
        .list()
        .into_iter()
        .map(|it| it.name)
        .collect();
    assert_eq!(names, ["a".into(), "p".into()]);
}

/// Runs out of memory over what holds the word BOMB, and says each time that it tried.
fn bombed(rig: &Rig) -> CompilerSettings {
    let dir = rig.state.path().display().to_string();
    let script = "f=$(mktemp DIR/fed.XXXXXX) && cat > $f
        if grep -q BOMB $f; then
            echo tried >> DIR/tries
            echo 'memory allocation of 1 bytes failed' >&2
            exit 1
        fi
        exec WORKER < $f";
    child(rig, Some(script.replace("DIR", &dir)))
}

fn tries(rig: &Rig) -> usize {
    let tries = fs::read_to_string(rig.state.path().join("tries"));
    tries.map_or(0, |tries| tries.lines().count())
}

#[test]
fn h10_what_is_too_much_for_the_compiler_is_not_compiled_again_until_it_is_asked_for_or_has_more() {
    let mut rig = Rig::new(vec![bundled("p", marked("p", "1", "Fault"))]);
    let settings = bombed(&rig);
    rig.config.loading = Loading::Child(settings.clone());
    rig.write("bomb.wasm", marked("bomb", "BOMB", "Slow"));
    rig.start();
    let refused = |status: &PolicyStatus| status.phase == Phase::Refused;
    let status = await_status(&rig, "bomb", refused);
    for words in [
        "to compile",
        "container's memory limit",
        "devicectl policy reload",
    ] {
        assert!(status.detail.contains(words), "{}", status.detail);
    }
    assert_eq!(tries(&rig), 1);
    // A changed directory is no reason.
    rig.config.poll_interval = Duration::from_millis(20);
    rig.start();
    rig.write("a.wasm", marked("a", "1", "Other"));
    await_status(&rig, "a", |status| status.phase == Phase::Running);
    await_status(&rig, "bomb", refused);
    assert_eq!(tries(&rig), 1, "neither in the next run");
    // An operator is, once.
    rig.config.poll_interval = Duration::from_hours(1);
    rig.start();
    for _ in 0..3 {
        let outcomes = rig.reload();
        let bomb = outcomes.iter().find(|(name, ..)| name == "bomb").unwrap();
        assert_eq!(bomb.1, ReloadChange::Refused, "{outcomes:?}");
        assert_eq!(tries(&rig), 2);
    }
    // And so is more memory.
    rig.config.loading = Loading::Child(CompilerSettings {
        memory_bytes_max: settings.memory_bytes_max / 4 * 5,
        ..settings
    });
    rig.start();
    await_status(&rig, "bomb", refused);
    assert_eq!(tries(&rig), 3);
}

#[test]
fn h5_what_compiles_quickly_does_not_wait_for_what_does_not() {
    let mut rig = Rig::new(vec![]);
    rig.write("large.wasm", marked("large", "1", "Slow"));
    let gate = Gate::new(&rig);
    rig.config.loading = gate.loading.clone();
    rig.begin();
    // It is at the gate, and nobody lets it through; the other comes later.
    rig.write("small.wasm", marked("small", "1", "Fault"));
    let reload = rig.policies().command(PolicyCommand::Reload);
    let begun = Instant::now();
    while gate.came() < 2 {
        assert!(begun.elapsed() < WAIT, "nobody gives way");
        rig.settle();
    }
    gate.one_gave_up();
    gate.let_one_through();
    rig.bench
        .wait("the small one", |inner| inner.seated.contains_key("small"));
    assert_eq!(rig.status("large").phase, Phase::Compiling);
    gate.let_one_through();
    rig.bench
        .wait("the large one", |inner| inner.seated.contains_key("large"));
    let report = crate::bench::block_on(reload).unwrap();
    let refused =
        |it: &&device_api_core::policy_status::ReloadOutcome| it.change == ReloadChange::Refused;
    assert_eq!(report.outcomes.iter().find(refused), None);
}
