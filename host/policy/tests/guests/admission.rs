//! Design H9: what a version would say is found out before it says it.

use device_api_core::action::Action;
use device_api_core::clock::WallTime;
use device_api_core::condition::{Condition, Owner, Polarity};
use device_api_core::error::ApiError;
use device_api_core::ids::SignalSeq;
use device_api_core::policy_status::{Phase, ReloadChange};
use device_api_core::ports::PolicyCommand;
use device_api_core::signal::Signal;
use device_api_core::verdict::{Judgement, Severity};

use crate::bench::{Rig, bundled, journal};
use crate::component::{GOOD, Verdict, always, moody, quiet};
use crate::house::{answered, at_ms, pose, xid};

fn fatal(mark: &str) -> Vec<u8> {
    always("p", &["TestFault"], mark, &[GOOD])
}

/// GPUs of which each had a fault lately.
fn node(rig: &Rig, gpus: usize, signal: &Signal) {
    let of = |at: usize| journal(&format!("GPU-{at}"), vec![signal.clone()], vec![]);
    rig.bench
        .with(|inner| inner.journals = (0..gpus).map(of).collect());
}

fn accept(digest: &str) -> PolicyCommand {
    PolicyCommand::Accept {
        name: "p".to_owned(),
        digest: digest.to_owned(),
    }
}

#[test]
fn h9_the_verdict_diff_names_every_code_that_is_judged_otherwise() {
    let mut rig = Rig::new(vec![bundled("p", quiet("p", &["TestFault"]))]);
    rig.start();
    assert_eq!(
        rig.detail("p").verdict_diff,
        Vec::<String>::new(),
        "no diff against nothing"
    );
    rig.write("p.wasm", fatal("1"));
    rig.reloaded(&[("p", ReloadChange::Swapped)]);
    let diff = rig.detail("p").verdict_diff;
    let codes = device_api_core::xid::catalog().len();
    assert_eq!(diff.len(), codes);
    let line = "XID 63, TestFault: nothing → problem fatal RESTART_BM";
    assert!(diff.iter().any(|found| found == line), "{diff:?}");
    // Other bytes that say the same.
    rig.write("p.wasm", fatal("2"));
    rig.reloaded(&[("p", ReloadChange::Swapped)]);
    assert_eq!(rig.detail("p").verdict_diff, Vec::<String>::new());
}

#[test]
fn h9_a_version_that_would_make_two_gpus_unhealthy_is_held_until_it_is_accepted() {
    let mut rig = Rig::new(vec![bundled("p", quiet("p", &["TestFault"]))]);
    node(&rig, 2, &xid(63));
    rig.start();
    let old = rig.bench.digest("p");
    rig.write("p.wasm", fatal("1"));
    let outcomes = rig.reload();
    assert_eq!(outcomes[0].1, ReloadChange::Held);
    assert!(
        outcomes[0]
            .2
            .contains("2 GPUs Unhealthy that are not (GPU-0; GPU-1)"),
        "{outcomes:?}"
    );
    assert_eq!(rig.bench.digest("p"), old);
    let status = rig.status("p");
    let held = status.held.clone().unwrap();
    assert_eq!(status.phase, Phase::Running);
    assert!(
        status.detail.contains("held") && status.detail.contains("policy accept"),
        "{}",
        status.detail
    );
    assert!(!rig.supervisor().report().0);
    let diff = rig.detail("p").verdict_diff;
    assert!(
        diff.contains(&"GPU-0, TestFault: nothing → problem fatal RESTART_BM".to_owned()),
        "{diff:?}"
    );
    // It stays held, and is not tried over and over.
    rig.bench.log();
    rig.reloaded(&[("p", ReloadChange::Held)]);

    for wrong in ["", "abc", "0123456789ab"] {
        let refused = rig.try_command(accept(wrong)).unwrap_err();
        let as_it_should = match wrong.len() {
            12 => matches!(refused, ApiError::Precondition { .. }),
            _ => matches!(
                refused,
                ApiError::Invalid {
                    field: "digest",
                    ..
                }
            ),
        };
        assert!(as_it_should, "{refused}");
    }
    assert!(rig.bench.log().is_empty());
    rig.command(accept(&held.digest[..12]));
    assert_eq!(rig.bench.digest("p"), *held.digest);
    assert_eq!(rig.status("p").held, None);
    let rejudged = rig.bench.with(|inner| inner.rejudged.clone());
    assert_eq!(rejudged.len(), 2);
    assert_eq!(rejudged[0].decision.verdicts[0].condition, "TestFault");
    // Accepted once is accepted after a restart.
    rig.start();
    assert_eq!(rig.bench.digest("p"), *held.digest);
}

#[test]
fn h9_one_gpu_or_gpus_that_are_unhealthy_already_hold_nothing_up() {
    let mut rig = Rig::new(vec![bundled("p", quiet("p", &["TestFault"]))]);
    node(&rig, 1, &xid(63));
    rig.start();
    rig.write("p.wasm", fatal("1"));
    rig.reloaded(&[("p", ReloadChange::Swapped)]);

    let mut rig = Rig::new(vec![bundled("p", quiet("p", &["TestFault"]))]);
    node(&rig, 3, &xid(63));
    rig.bench.with(|inner| {
        for journal in &mut inner.journals {
            journal.conditions = [stands()].into();
        }
    });
    rig.start();
    rig.write("p.wasm", fatal("1"));
    rig.reloaded(&[("p", ReloadChange::Swapped)]);
}

fn stands() -> Condition {
    Condition {
        type_: "Other".into(),
        state: Judgement::Problem,
        polarity: Polarity::TrueIsProblem,
        severity: Severity::Fatal,
        action: Action::None,
        ..Condition::of_host("Other", Judgement::Problem, "Because", WallTime::default())
    }
}

#[test]
fn h9_drills_that_do_not_count_hold_nothing_up() {
    let drill = Signal {
        drill: true,
        ..xid(63)
    };
    for (drills_count, change) in [(false, ReloadChange::Swapped), (true, ReloadChange::Held)] {
        let mut rig = Rig::new(vec![bundled("p", quiet("p", &["TestFault"]))]);
        rig.config.drills_count = drills_count;
        node(&rig, 2, &drill);
        rig.start();
        rig.write("p.wasm", fatal("1"));
        rig.reloaded(&[("p", change)]);
    }
}

#[test]
fn h9_a_version_that_fails_on_the_catalogue_or_the_journal_is_refused() {
    let mut rig = Rig::new(vec![bundled("p", quiet("p", &["TestFault"]))]);
    rig.start();
    let old = rig.bench.digest("p");
    let foreign = Verdict {
        reason: "Whim",
        ..GOOD
    };
    rig.write("p.wasm", always("p", &["TestFault"], "1", &[foreign]));
    let outcomes = rig.reload();
    let why = &outcomes[0].2;
    assert_eq!(outcomes[0].1, ReloadChange::Refused);
    assert!(
        why.contains("p.wasm failed")
            && why.contains("the catalogue's xid")
            && why.contains("Whim"),
        "{why}"
    );

    // Good on the catalogue, bad on what this node saw.
    node(&rig, 1, &at_ms(7));
    let brittle = moody("p", &["TestFault"], |_| vec![(7, "unreachable".to_owned())]);
    rig.write("p.wasm", brittle);
    let outcomes = rig.reload();
    assert!(outcomes[0].2.contains("this node's xid 31"), "{outcomes:?}");
    assert_eq!(rig.bench.digest("p"), old);
}

#[test]
fn h6_signals_that_come_meanwhile_are_judged_too_and_a_storm_does_not_keep_it_out() {
    let mut rig = Rig::new(vec![bundled("p", quiet("p", &["TestFault"]))]);
    node(&rig, 1, &xid(63));
    rig.start();
    rig.bench.with(|inner| {
        inner.arrivals = 2;
        inner.insisted = 0;
    });
    rig.write("p.wasm", always("p", &["TestFault"], "1", &[]));
    rig.reloaded(&[("p", ReloadChange::Swapped)]);
    let (through, insisted) = rig
        .bench
        .with(|inner| (inner.rejudged[0].through, inner.insisted));
    assert_eq!((through, insisted), (SignalSeq(3), 0));

    rig.bench.with(|inner| inner.arrivals = u32::MAX);
    rig.write("p.wasm", always("p", &["TestFault"], "2", &[]));
    let outcomes = rig.reload();
    assert_eq!(outcomes[0].1, ReloadChange::Swapped);
    assert_eq!(rig.bench.with(|inner| inner.insisted), 1);
    let told = &outcomes[0].2;
    assert!(told.contains("GPU-0") && told.contains("left as"), "{told}");

    // A bounded list.
    rig.bench.with(|inner| inner.arrivals = 0);
    node(&rig, 20, &xid(63));
    rig.bench.with(|inner| inner.arrivals = u32::MAX);
    rig.write("p.wasm", always("p", &["TestFault"], "3", &[]));
    let told = &rig.reload()[0].2;
    assert!(told.contains("and 12 more"), "{told}");
}

#[test]
fn p1_a_type_of_a_provider_is_not_taken() {
    let mut rig = Rig::new(vec![]);
    let owner = Owner::Provider("agent".into());
    rig.bench
        .with(|inner| inner.claimed.insert("TestFault".to_owned(), owner));
    rig.write("p.wasm", quiet("p", &["TestFault"]));
    rig.start();
    let status = rig.status("p");
    assert_eq!(status.phase, Phase::Refused);
    assert!(
        status.detail.contains("belongs to provider:agent"),
        "{}",
        status.detail
    );
}

#[test]
fn h9_a_held_version_is_held_after_a_restart_that_forgot_the_journal() {
    let mut rig = Rig::new(vec![bundled("p", quiet("p", &["TestFault"]))]);
    node(&rig, 2, &xid(63));
    rig.start();
    let old = rig.bench.digest("p");
    rig.write("p.wasm", fatal("1"));
    rig.reloaded(&[("p", ReloadChange::Held)]);
    node(&rig, 0, &xid(63));
    for _ in 0..2 {
        rig.start();
        assert_eq!(rig.bench.digest("p"), old);
        let held = rig.status("p").held.unwrap();
        assert!(held.why.contains("2 GPUs Unhealthy"), "{}", held.why);
        assert!(
            held.why
                .contains(&format!("accept p --digest {}`", &held.digest[..12])),
            "{}",
            held.why
        );
    }
    // Another is looked at for itself, and after it the first one is as well.
    rig.write("p.wasm", fatal("2"));
    rig.reloaded(&[("p", ReloadChange::Swapped)]);
    rig.write("p.wasm", fatal("1"));
    rig.reloaded(&[("p", ReloadChange::Swapped)]);
}

#[test]
fn h9_a_version_that_came_in_paused_is_looked_over_before_it_judges() {
    let of_mode = |mode: &str| format!("policies: [{{name: p, file: p.wasm, mode: {mode}}}]");
    for gpus in [1, 2] {
        let mut rig = Rig::new(vec![bundled("p", quiet("p", &["TestFault"]))]);
        node(&rig, gpus, &xid(63));
        rig.start();
        let old = rig.bench.digest("p");
        rig.write("p.wasm", fatal("1"));
        rig.write("policies.yaml", of_mode("paused"));
        rig.reloaded(&[("p", ReloadChange::Swapped)]);
        let new = rig.bench.digest("p");
        assert!(rig.bench.with(|inner| inner.rejudged.is_empty()));
        rig.write("policies.yaml", of_mode("enforce"));
        if gpus > 1 {
            rig.reloaded(&[("p", ReloadChange::Held)]);
            assert_eq!(rig.bench.digest("p"), old);
            answered(pose(&*rig.bench.policy("p"), xid(63)));
            rig.reloaded(&[("p", ReloadChange::Held)]);
            rig.command(accept(&new[..12]));
        } else {
            rig.reloaded(&[("p", ReloadChange::Swapped)]);
        }
        assert_eq!(rig.bench.digest("p"), new);
        assert_eq!(rig.status("p").phase, Phase::Running);
        answered(pose(&*rig.bench.policy("p"), xid(63)));
        assert_eq!(rig.bench.with(|inner| inner.rejudged.len()), gpus);
        // Paused and resumed by the site from here on costs nothing.
        let seated = rig.bench.policy("p");
        for mode in ["paused", "enforce"] {
            rig.write("policies.yaml", of_mode(mode));
            rig.reloaded(&[("p", ReloadChange::Unchanged)]);
        }
        assert!(std::sync::Arc::ptr_eq(&seated, &rig.bench.policy("p")));
    }
}

#[test]
fn h9_what_came_in_paused_and_can_not_be_admitted_stays_closed() {
    let of_mode = |mode: &str| format!("policies: [{{name: p, file: p.wasm, mode: {mode}}}]");
    let mut rig = Rig::new(vec![]);
    node(&rig, 2, &xid(63));
    rig.write("p.wasm", fatal("1"));
    rig.write("policies.yaml", of_mode("paused"));
    rig.start();
    rig.write("policies.yaml", of_mode("enforce"));
    rig.reloaded(&[("p", ReloadChange::Held)]);
    rig.fails("p", xid(63));
    let status = rig.status("p");
    assert_eq!(status.phase, Phase::Paused, "{status:?}");
    assert!(status.detail.contains("not admitted"), "{}", status.detail);
}

#[test]
fn n8_a_drill_in_the_journal_hides_nothing_that_is_real() {
    let both = |memory: &mut crate::component::Memory| {
        let mut says = |cause: u64| {
            let said = memory.decision(&[Verdict { cause, ..GOOD }]);
            (cause, format!("i32.const {said}"))
        };
        vec![says(1), says(2)]
    };
    let real = Signal {
        samples: Some(Default::default()),
        ..at_ms(1)
    };
    let drill = Signal {
        seq: SignalSeq(2),
        drill: true,
        ..at_ms(2)
    };
    for (drills_count, cause) in [(false, 1), (true, 2)] {
        let mut rig = Rig::new(vec![bundled("p", quiet("p", &["TestFault"]))]);
        rig.config.drills_count = drills_count;
        let signals = vec![real.clone(), drill.clone()];
        rig.bench
            .with(|inner| inner.journals = vec![journal("GPU-0", signals, vec![])]);
        rig.start();
        rig.write("p.wasm", moody("p", &["TestFault"], both));
        rig.reloaded(&[("p", ReloadChange::Swapped)]);
        let rejudged = rig.bench.with(|inner| inner.rejudged.clone());
        let said = &rejudged[0].decision.verdicts[0];
        assert_eq!(said.cause, SignalSeq(cause), "drills count: {drills_count}");
    }
}

#[test]
fn h9_a_journal_of_which_something_was_dropped_is_told_in_the_diff() {
    let mut rig = Rig::new(vec![bundled("p", quiet("p", &["TestFault"]))]);
    node(&rig, 20, &at_ms(7));
    rig.start();
    rig.bench
        .with(|inner| inner.journals.iter_mut().for_each(|of| of.is_cut = true));
    rig.write(
        "p.wasm",
        moody("p", &["TestFault", "Other"], |_| Vec::new()),
    );
    rig.reloaded(&[("p", ReloadChange::Swapped)]);
    let diff = rig.detail("p").verdict_diff;
    let line = diff.last().expect("what was left out");
    assert!(
        line.starts_with("left out: what the journals had no room for"),
        "{line}"
    );
    assert!(
        line.contains("GPU-7; and 12 more") && !line.contains("GPU-8;"),
        "{line}"
    );
}

#[test]
fn h9_what_came_while_an_operator_had_it_paused_is_looked_over_when_it_is_resumed() {
    for gpus in [1, 2] {
        let mut rig = Rig::new(vec![bundled("p", quiet("p", &["TestFault"]))]);
        rig.start();
        let old = rig.bench.digest("p");
        rig.command(PolicyCommand::Pause {
            name: "p".to_owned(),
            reason: "maintenance".to_owned(),
        });
        rig.write("p.wasm", fatal("1"));
        rig.reloaded(&[("p", ReloadChange::Swapped)]);
        let new = rig.bench.digest("p");
        // What happened meanwhile.
        node(&rig, gpus, &xid(63));
        rig.bench.log();
        rig.reloaded(&[("p", ReloadChange::Unchanged)]);
        assert_eq!(rig.status("p").phase, Phase::Paused);
        assert!(rig.bench.log().is_empty());
        let report = rig.command(PolicyCommand::Resume {
            name: "p".to_owned(),
        });
        if gpus > 1 {
            assert_eq!(report.outcomes[0].change, ReloadChange::Held, "{report:?}");
            assert_eq!(rig.bench.digest("p"), old);
            rig.reloaded(&[("p", ReloadChange::Held)]);
            rig.command(accept(&new[..12]));
        } else {
            assert_eq!(
                report.outcomes[0].change,
                ReloadChange::Swapped,
                "{report:?}"
            );
        }
        assert_eq!(rig.bench.digest("p"), new);
        answered(pose(&*rig.bench.policy("p"), xid(63)));
        assert_eq!(rig.bench.with(|inner| inner.rejudged.len()), gpus);
        assert_eq!(rig.status("p").phase, Phase::Running);
        rig.reloaded(&[("p", ReloadChange::Unchanged)]);
    }
}

#[test]
fn h9_what_is_accepted_with_one_configuration_is_held_with_another() {
    let mut rig = Rig::new(vec![bundled("p", quiet("p", &["TestFault"]))]);
    node(&rig, 2, &xid(63));
    rig.start();
    rig.write("p.wasm", fatal("1"));
    let with = |terms: &str| format!("policies: [{{name: p, file: p.wasm, {terms}}}]");
    rig.write("policies.yaml", with("config: a"));
    rig.reloaded(&[("p", ReloadChange::Held)]);
    let held = rig.status("p").held.unwrap().digest;
    rig.command(accept(&held[..12]));
    assert_eq!(*rig.bench.digest("p"), *held);
    for other in ["config: b", "config: a, limits: {memory-bytes-max: 1MiB}"] {
        rig.write("policies.yaml", with(other));
        rig.reloaded(&[("p", ReloadChange::Held)]);
        // Held over a restart that forgot the journal, too.
        node(&rig, 0, &xid(63));
        rig.start();
        assert_eq!(rig.status("p").held.unwrap().digest, held, "{other}");
        node(&rig, 2, &xid(63));
    }
    // What was accepted still is.
    rig.write("policies.yaml", with("config: a"));
    rig.reloaded(&[("p", ReloadChange::Swapped)]);
}
