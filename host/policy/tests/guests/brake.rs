//! Design H9: nobody comes past the brake: not as a stand-in, not by an old exemption, not by an `accept`.

use std::fs;

use device_api_core::policy_status::{Phase, ReloadChange};
use device_api_core::ports::PolicyCommand;
use device_api_policy::Unlisted;

use crate::bench::{Rig, bundled, journal};
use crate::component::{GOOD, always, quiet};
use crate::house::{answered, pose, xid};

fn fatal(mark: &str) -> Vec<u8> {
    always("p", &["TestFault"], mark, &[GOOD])
}

fn silent(mark: &str) -> Vec<u8> {
    always("p", &["TestFault"], mark, &[])
}

fn of_mode(mode: &str) -> String {
    format!("policies: [{{name: p, file: p.wasm, mode: {mode}}}]")
}

/// GPUs of which each had a fault lately.
fn node(rig: &Rig, gpus: usize) {
    let of = |at: usize| journal(&format!("GPU-{at}"), vec![xid(63)], vec![]);
    rig.bench
        .with(|inner| inner.journals = (0..gpus).map(of).collect());
}

fn quarantine(name: &str) -> PolicyCommand {
    PolicyCommand::Quarantine {
        name: name.to_owned(),
        reason: "wrong".to_owned(),
        digest: String::new(),
    }
}

fn accept(digest: &str) -> PolicyCommand {
    PolicyCommand::Accept {
        name: "p".to_owned(),
        digest: digest.to_owned(),
    }
}

#[test]
fn h9_a_version_that_only_ever_was_paused_stands_in_for_none_that_is_held() {
    let mut rig = Rig::new(vec![]);
    node(&rig, 2);
    rig.write("p.wasm", silent("1"));
    rig.write("policies.yaml", of_mode("paused"));
    rig.start();
    rig.write("p.wasm", fatal("2"));
    rig.write("policies.yaml", of_mode("enforce"));
    rig.reloaded(&[("p", ReloadChange::Held)]);
    rig.fails("p", xid(63));
    assert_eq!(rig.status("p").phase, Phase::Paused);
    let digest = rig.status("p").held.unwrap().digest;
    rig.command(accept(&digest));
    assert_eq!(rig.bench.digest("p"), *digest);
}

#[test]
fn h9_a_version_that_only_ever_was_paused_is_none_to_go_back_to() {
    let mut rig = Rig::new(vec![]);
    rig.write("p.wasm", silent("1"));
    rig.write("policies.yaml", of_mode("paused"));
    // In this run, or in the one before.
    for is_restarted in [false, true] {
        rig.start();
        if is_restarted {
            rig.stop();
        }
        rig.write("p.wasm", silent(&format!("2{is_restarted}")));
        rig.write("policies.yaml", of_mode("enforce"));
        if is_restarted {
            rig.start();
        } else {
            rig.reloaded(&[("p", ReloadChange::Swapped)]);
        }
        answered(pose(&*rig.bench.policy("p"), xid(63)));
        assert_eq!(rig.status("p").last_good, None);
        rig.command(quarantine("p"));
        rig.fails("p", xid(63));
        assert_eq!(rig.status("p").phase, Phase::Quarantined);
        rig.stop();
        fs::remove_dir_all(rig.state.path().join("policies")).unwrap();
        rig.write("p.wasm", silent("1"));
        rig.write("policies.yaml", of_mode("paused"));
    }
}

#[test]
fn h9_a_held_version_does_not_judge_where_the_next_run_goes_on_as_before() {
    // Begins without a set; and goes on for what has its file and is refused.
    for site in ["policies: [", "policies: [{name: q, file: p.wasm}]"] {
        let mut rig = Rig::new(vec![]);
        rig.write("p.wasm", silent("1"));
        rig.start();
        let first = rig.bench.digest("p");
        let name = || "p".to_owned();
        rig.command(PolicyCommand::Pause {
            name: name(),
            reason: "maintenance".to_owned(),
        });
        rig.write("p.wasm", fatal("2"));
        rig.reloaded(&[("p", ReloadChange::Swapped)]);
        // What happened meanwhile.
        node(&rig, 2);
        let report = rig.command(PolicyCommand::Resume { name: name() });
        assert_eq!(report.outcomes[0].change, ReloadChange::Held, "{report:?}");
        assert_eq!(rig.bench.digest("p"), first);
        rig.stop();
        rig.write("policies.yaml", site);
        rig.start();
        assert_eq!(rig.bench.digest("p"), first, "{site}");
        answered(pose(&*rig.bench.policy("p"), xid(63)));
    }
}

#[test]
fn h5_what_judged_before_it_was_paused_is_gone_back_to_over_a_restart_too() {
    for is_restarted in [false, true] {
        let mut rig = Rig::new(vec![]);
        rig.write("p.wasm", silent("1"));
        rig.start();
        let first = rig.bench.digest("p");
        let name = || "p".to_owned();
        rig.command(PolicyCommand::Pause {
            name: name(),
            reason: "maintenance".to_owned(),
        });
        if is_restarted {
            rig.start();
            rig.reloaded(&[("p", ReloadChange::Unchanged)]);
        }
        rig.write("p.wasm", fatal("2"));
        rig.reloaded(&[("p", ReloadChange::Swapped)]);
        node(&rig, 2);
        let report = rig.command(PolicyCommand::Resume { name: name() });
        assert_eq!(report.outcomes[0].change, ReloadChange::Held, "{report:?}");
        assert_eq!(rig.bench.digest("p"), first, "restarted: {is_restarted}");
        answered(pose(&*rig.bench.policy("p"), xid(63)));
    }
}

#[test]
fn h9_what_goes_while_it_is_on_its_way_back_is_new_when_it_comes_again() {
    // It went while no daemon ran; or while another had its place and it stood in.
    for is_bad in [false, true] {
        let mut rig = Rig::new(vec![]);
        rig.write("policies.yaml", "policies: []");
        rig.write("p.wasm", fatal("1"));
        rig.start();
        rig.stop();
        if is_bad {
            rig.write(
                "p.wasm",
                always("p", &["TestFault"], "bad", &[]).split_off(9),
            );
            rig.start();
        }
        fs::remove_file(rig.path("p.wasm")).unwrap();
        if is_bad {
            rig.reloaded(&[("p", ReloadChange::Removed)]);
        } else {
            rig.start();
        }
        node(&rig, 2);
        rig.write("p.wasm", fatal("1"));
        rig.reloaded(&[("p", ReloadChange::Held)]);
    }
}

#[test]
fn h9_what_is_taken_off_the_list_on_its_way_back_is_new_when_it_is_listed_again() {
    let mut rig = Rig::new(vec![]);
    rig.config.unlisted = Unlisted::Refuse;
    rig.write("policies.yaml", of_mode("enforce"));
    rig.write("p.wasm", fatal("1"));
    rig.start();
    rig.stop();
    rig.write("policies.yaml", "policies: []");
    rig.start();
    rig.reloaded(&[("p", ReloadChange::Refused)]);
    node(&rig, 2);
    rig.write("policies.yaml", of_mode("enforce"));
    rig.reloaded(&[("p", ReloadChange::Held)]);
}

#[test]
fn h9_what_was_quarantined_while_it_was_held_is_not_accepted() {
    let mut rig = Rig::new(vec![bundled("p", quiet("p", &["TestFault"]))]);
    node(&rig, 2);
    rig.write("p.wasm", fatal("1"));
    rig.write("s.wasm", fatal("1"));
    rig.write(
        "policies.yaml",
        "policies: [{name: p, file: p.wasm}, {name: s, file: s.wasm, mode: shadow}]",
    );
    rig.start();
    let own = rig.bench.digest("p");
    let held = rig.status("p").held.unwrap().digest;
    rig.command(quarantine("s"));
    let report = rig.command(accept(&held));
    assert_eq!(report.outcomes[0].change, ReloadChange::Refused);
    let why = &report.outcomes[0].detail;
    assert!(why.contains("quarantine"), "{why}");
    assert_eq!(rig.bench.digest("p"), own);
}

#[test]
fn h9_what_another_took_while_it_was_held_is_not_accepted() {
    let mut rig = Rig::new(vec![bundled("p", quiet("p", &["TestFault"]))]);
    node(&rig, 2);
    rig.write("p.wasm", always("p", &["TestFault", "Other"], "1", &[GOOD]));
    rig.start();
    let own = rig.bench.digest("p");
    let held = rig.status("p").held.unwrap().digest;
    rig.write("q.wasm", quiet("q", &["Other"]));
    rig.reloaded(&[("p", ReloadChange::Held), ("q", ReloadChange::Swapped)]);
    let report = rig.command(accept(&held));
    assert_eq!(report.outcomes[0].change, ReloadChange::Refused);
    let why = &report.outcomes[0].detail;
    assert!(why.contains("Other") && why.contains("q.wasm"), "{why}");
    assert_eq!(rig.bench.digest("p"), own);
}
