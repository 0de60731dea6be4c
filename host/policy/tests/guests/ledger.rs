//! Design H5: what an operator is told where what is decided can't be saved, or what was saved can't be read.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use device_api_core::error::ApiError;
use device_api_core::policy_status::{Phase, ReloadChange};
use device_api_core::ports::PolicyCommand;

use crate::bench::{Rig, bundled, journal};
use crate::component::{GOOD, always, moody, quiet};
use crate::house::{answered, at_ms, pose, xid};

/// Nothing that a test waits for takes so long.
const WAIT: Duration = Duration::from_secs(30);

fn home(rig: &Rig) -> PathBuf {
    rig.state.path().join("policies")
}

fn ledger(rig: &Rig) -> String {
    fs::read_to_string(home(rig).join("ledger.json")).unwrap()
}

/// As a full disk: the new ledger can't be written, whoever we are.
fn fill(rig: &Rig) {
    fs::create_dir(home(rig).join("ledger.new")).unwrap();
}

fn make_room(rig: &Rig) {
    fs::remove_dir(home(rig).join("ledger.new")).unwrap();
}

fn quarantine(digest: &str) -> PolicyCommand {
    PolicyCommand::Quarantine {
        name: "p".to_owned(),
        reason: "wrong".to_owned(),
        digest: digest.to_owned(),
    }
}

fn release() -> PolicyCommand {
    PolicyCommand::Release {
        name: "p".to_owned(),
        digest: String::new(),
    }
}

fn pause() -> PolicyCommand {
    PolicyCommand::Pause {
        name: "p".to_owned(),
        reason: "maintenance".to_owned(),
    }
}

fn resume() -> PolicyCommand {
    PolicyCommand::Resume {
        name: "p".to_owned(),
    }
}

fn accept(digest: &str) -> PolicyCommand {
    PolicyCommand::Accept {
        name: "p".to_owned(),
        digest: digest.to_owned(),
    }
}

/// It was carried out, and the error says that a restart forgets it.
#[track_caller]
fn for_this_run(rig: &Rig, command: PolicyCommand) {
    let error = rig.try_command(command).unwrap_err();
    let ApiError::Unavailable { why } = error else {
        panic!("{error:?}");
    };
    for word in ["for this run only", "ledger.json", "a restart forgets it"] {
        assert!(why.contains(word), "{why:?} lacks {word:?}");
    }
}

/// It was not carried out.
#[track_caller]
fn not_done(rig: &Rig, command: PolicyCommand, what: &str) {
    let error = rig.try_command(command).unwrap_err();
    let ApiError::Precondition { why } = error else {
        panic!("{error:?}");
    };
    for word in [what, "could not be saved", "ledger.json"] {
        assert!(why.contains(word), "{why:?} lacks {word:?}");
    }
}

#[track_caller]
fn told(rig: &Rig, word: &str, is_told: bool) {
    let (is_well, line) = rig.supervisor().report();
    assert_eq!(line.contains(word), is_told, "{line:?} and {word:?}");
    assert!(!is_told || !is_well, "{line}");
}

#[track_caller]
fn until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < WAIT, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn h5_a_quarantine_that_cannot_be_saved_protects_this_run_and_is_no_success() {
    let mut rig = Rig::new(vec![bundled("p", quiet("p", &["TestFault"]))]);
    rig.config.poll_interval = Duration::from_millis(20);
    rig.write("p.wasm", always("p", &["TestFault"], "1", &[GOOD]));
    rig.start();
    let digest = rig.bench.digest("p");
    fill(&rig);
    for_this_run(&rig, quarantine(""));
    assert_ne!(rig.bench.digest("p"), digest, "it judges no more");
    told(&rig, "can't be saved", true);
    // Who asks again for the same version quarantines no other, and hears the same.
    for_this_run(&rig, quarantine(&digest));
    for_this_run(&rig, quarantine(""));
    assert_eq!(rig.status("p").quarantined.len(), 1);
    make_room(&rig);
    until("saved", || ledger(&rig).contains("by an operator: wrong"));
    rig.command(quarantine(&digest));
    until("well told", || {
        !rig.supervisor().report().1.contains("can't be saved")
    });
    rig.start();
    assert_ne!(rig.bench.digest("p"), digest);
    assert_eq!(rig.status("p").quarantined.len(), 1);
}

#[test]
fn h5_what_cannot_be_saved_is_not_released_resumed_or_accepted() {
    let mut rig = Rig::new(vec![bundled("p", quiet("p", &["TestFault"]))]);
    let journals = (0..2).map(|gpu| journal(&format!("GPU-{gpu}"), vec![xid(63)], Vec::new()));
    let journals = journals.collect();
    rig.bench.with(|inner| inner.journals = journals);
    rig.start();
    let own = rig.bench.digest("p");

    rig.command(pause());
    fill(&rig);
    not_done(&rig, resume(), "p stays paused");
    assert_eq!(rig.status("p").phase, Phase::Paused);
    make_room(&rig);
    rig.command(resume());
    assert_eq!(rig.status("p").phase, Phase::Running);

    fill(&rig);
    for_this_run(&rig, pause());
    assert_eq!(rig.status("p").phase, Phase::Paused);
    // Back to what is on the disk: there is nothing to be saved.
    rig.command(resume());
    assert_eq!(rig.status("p").phase, Phase::Running);
    make_room(&rig);

    rig.command(quarantine(""));
    fill(&rig);
    not_done(&rig, release(), "p stays quarantined");
    assert_eq!(rig.status("p").quarantined.len(), 1);
    make_room(&rig);
    rig.command(release());
    assert_eq!(rig.bench.digest("p"), own);

    rig.write("p.wasm", always("p", &["TestFault"], "1", &[GOOD]));
    rig.reloaded(&[("p", ReloadChange::Held)]);
    let held = rig.status("p").held.unwrap();
    fill(&rig);
    not_done(&rig, accept(&held.digest), "stays held");
    assert_eq!(rig.bench.digest("p"), own);
    assert_eq!(rig.status("p").held, Some(held.clone()));
    make_room(&rig);
    rig.command(accept(&held.digest));
    assert_eq!(rig.bench.digest("p"), *held.digest);
}

#[test]
fn h5_a_quarantine_by_strikes_is_saved_once_there_is_room() {
    let brittle = moody("p", &["TestFault"], |_| {
        vec![(666, "unreachable".to_owned())]
    });
    let mut rig = Rig::new(vec![]).hasty();
    rig.config.poll_interval = Duration::from_millis(20);
    rig.write("p.wasm", brittle);
    rig.start();
    fill(&rig);
    rig.fails("p", at_ms(666));
    rig.clock.advance(Duration::from_millis(250));
    rig.fails("p", at_ms(666));
    rig.settle();
    assert_eq!(rig.status("p").phase, Phase::Quarantined);
    told(&rig, "can't be saved", true);
    make_room(&rig);
    until("saved", || ledger(&rig).contains("it failed repeatedly"));
    rig.start();
    assert_eq!(rig.status("p").phase, Phase::Quarantined);
}

#[test]
fn h5_a_state_directory_that_cannot_be_used_is_told_and_nothing_is_promised() {
    let mut rig = Rig::new(vec![bundled("p", quiet("p", &["TestFault"]))]);
    fs::write(home(&rig), b"no directory").unwrap();
    rig.start();
    told(&rig, "can't be saved", true);
    let refused = rig.try_command(pause()).unwrap_err().to_string();
    for word in ["for this run only", "policies", "restart the daemon"] {
        assert!(refused.contains(word), "{refused:?} lacks {word:?}");
    }
    assert_eq!(rig.status("p").phase, Phase::Paused);
    rig.command(resume());
    // Without a place for it nothing is promised, and nothing to be told of.
    rig.config.state_dir = None;
    rig.start();
    rig.command(pause());
    told(&rig, "can't be saved", false);
}

#[test]
fn h5_after_a_damaged_ledger_a_version_of_the_site_waits_for_an_operator() {
    let mut rig = Rig::new(vec![bundled("p", quiet("p", &["TestFault"]))]);
    rig.write(
        "p.wasm",
        moody("p", &["TestFault"], |memory| {
            memory.push("mine");
            Vec::new()
        }),
    );
    rig.write("q.wasm", quiet("q", &["Q"]));
    rig.start();
    let mine = rig.bench.digest("p");
    rig.command(quarantine(&mine));
    rig.stop();
    let good = home(&rig).join("good").join(&mine);
    assert!(good.exists());
    fs::write(home(&rig).join("ledger.json"), b"{\"format\": 1, \"pol").unwrap();

    // Nobody knows any more what was quarantined: not over a restart, either.
    for nth in 0..2 {
        rig.start();
        assert_ne!(rig.bench.digest("p"), mine);
        assert!(rig.bench.with(|inner| !inner.seated.contains_key("q")));
        for name in ["p", "q"] {
            let held = rig.status(name).held.unwrap();
            for word in [
                "ledger.json.damaged-",
                &format!("policy accept {name} --digest"),
            ] {
                assert!(held.why.contains(word), "{:?} lacks {word:?}", held.why);
            }
        }
        told(&rig, "ledger.json.damaged-", true);
        told(&rig, "is forgotten", nth == 0);
        assert!(good.exists(), "what may be named again is not thrown away");
    }
    let aside = fs::read_dir(home(&rig)).unwrap().flatten();
    let aside = aside.filter(|entry| entry.file_name().to_string_lossy().contains("damaged-"));
    assert_eq!(aside.count(), 1);

    rig.command(accept(&mine));
    assert_eq!(rig.bench.digest("p"), mine);
    assert!(rig.status("q").held.is_some());
    let digest = rig.status("q").held.unwrap().digest;
    rig.command(PolicyCommand::Accept {
        name: "q".to_owned(),
        digest: digest.to_string(),
    });
    answered(pose(&*rig.bench.policy("q"), xid(31)));
    // With that it is over: what comes now was never quarantined here.
    rig.write(
        "q.wasm",
        moody("q", &["Q"], |memory| {
            memory.push("2");
            Vec::new()
        }),
    );
    let outcomes = rig.reload();
    assert_eq!(outcomes[1].1, ReloadChange::Swapped, "{outcomes:?}");
    rig.start();
    assert_eq!(rig.bench.digest("p"), mine);
    told(&rig, "damaged-", false);
}

/// `p.wasm` was quarantined, and nobody knows of it any more.
fn forgetful() -> Rig {
    let mut rig = Rig::new(vec![]);
    rig.write("p.wasm", quiet("p", &["TestFault"]));
    rig.start();
    rig.command(quarantine(""));
    rig.stop();
    fs::write(home(&rig).join("ledger.json"), b"{\"format\": 1, \"pol").unwrap();
    rig
}

#[track_caller]
fn held_for_what_is_lost(rig: &Rig) {
    rig.reloaded(&[("p", ReloadChange::Held)]);
    let why = rig.status("p").held.unwrap().why;
    assert!(why.contains("ledger.json.damaged-"), "{why}");
}

#[test]
fn h5_after_a_damaged_ledger_what_is_paused_or_looks_on_waits_once_it_is_to_judge() {
    for mode in ["paused", "shadow"] {
        let mut rig = forgetful();
        let of_mode = |mode| format!("policies: [{{name: p, file: p.wasm, mode: {mode}}}]");
        rig.write("policies.yaml", of_mode(mode));
        rig.start();
        assert_eq!(rig.status("p").held, None, "{mode}");
        rig.write("policies.yaml", of_mode("enforce"));
        held_for_what_is_lost(&rig);
    }
}

#[test]
fn h5_after_a_damaged_ledger_what_comes_late_to_an_empty_directory_waits() {
    let mut rig = forgetful();
    fs::remove_file(rig.path("p.wasm")).unwrap();
    rig.start();
    rig.write("p.wasm", quiet("p", &["TestFault"]));
    held_for_what_is_lost(&rig);
    let digest = rig.status("p").held.unwrap().digest;
    rig.command(accept(&digest));
    // With that it is over.
    rig.write("p.wasm", always("p", &["TestFault"], "2", &[]));
    rig.reloaded(&[("p", ReloadChange::Swapped)]);
}

#[test]
fn h5_a_damaged_ledger_that_cannot_be_set_aside_is_left_alone() {
    let mut rig = Rig::new(vec![bundled("p", quiet("p", &["TestFault"]))]);
    // What stands there can't be renamed away: a mount point would be such a thing, or a full directory.
    let path = home(&rig).join("ledger.json");
    fs::create_dir_all(home(&rig)).unwrap();
    fs::write(&path, b"half").unwrap();
    let now = device_api_core::clock::Clock::wall(&*rig.clock).unix_ms();
    fs::create_dir(home(&rig).join(format!("ledger.json.damaged-{now}"))).unwrap();
    rig.start();
    told(&rig, "can't be saved", true);
    let refused = rig.try_command(pause()).unwrap_err().to_string();
    assert!(refused.contains("for this run only"), "{refused}");
    rig.stop();
    assert_eq!(fs::read(&path).unwrap(), b"half");
}
