//! Design H5: from failure over back-off and quarantine to the last good version, over restarts too; and
//! what operators can do about it.

use std::fs;
use std::time::Duration;

use device_api_core::error::ApiError;
use device_api_core::limits::POLICIES_LISTED_MAX;
use device_api_core::policy::FailureKind;
use device_api_core::policy_status::{Mode, Phase, ReloadChange};
use device_api_core::ports::PolicyCommand;
use device_api_policy::Supervisor;

use crate::bench::{Rig, bundled};
use crate::component::{GOOD, Memory, always, component, moody, quiet};
use crate::directory::sha256;
use crate::house::{answered, at_ms, pose, xid};

/// Traps on signals of this millisecond, says nothing of others.
const BAD: u64 = 666;

fn brittle(mark: &str) -> Vec<u8> {
    moody("p", &["TestFault"], |memory| {
        memory.push(mark);
        vec![(BAD, "unreachable".to_owned())]
    })
}

/// Fails until it is quarantined; with a hasty rig that is one back-off and the trial after it.
fn fail_until_quarantined(rig: &Rig) {
    let failure = rig.fails("p", at_ms(BAD));
    assert_eq!(failure.kind, FailureKind::Trap, "{failure}");
    let failure = rig.fails("p", at_ms(BAD));
    assert_eq!(failure.kind, FailureKind::Unavailable, "{failure}");
    assert!(
        failure.detail.contains("asked again in 250 ms"),
        "{failure}"
    );
    rig.clock.advance(Duration::from_millis(250));
    let failure = rig.fails("p", at_ms(BAD));
    assert_eq!(failure.kind, FailureKind::Trap, "{failure}");
    rig.settle();
}

/// As an operator types it.
fn release_of(name: &str, digest: &str) -> String {
    format!(
        "`devicectl policy release {name} --digest {}`",
        &digest[..12]
    )
}

fn by_name(name: &str) -> String {
    name.to_owned()
}

#[test]
fn h5_back_off_is_visible_answers_at_once_and_ends_by_itself() {
    let mut rig = Rig::new(vec![bundled("p", brittle("1"))]).hasty();
    rig.start();
    answered(pose(&*rig.bench.policy("p"), xid(31)));
    rig.fails("p", at_ms(BAD));
    let status = rig.status("p");
    assert_eq!(status.phase, Phase::BackOff);
    assert!(status.detail.contains("trap"), "{}", status.detail);
    assert!(!rig.supervisor().report().0);
    rig.clock.advance(Duration::from_millis(250));
    answered(pose(&*rig.bench.policy("p"), xid(31)));
    assert_eq!(rig.status("p").phase, Phase::Running);
    let detail = rig.detail("p");
    assert_eq!(detail.failures[0].kind, FailureKind::Trap);
    let counters = detail.status.counters;
    assert_eq!(
        (counters.calls, counters.latency.iter().sum::<u64>()),
        (3, 3)
    );
    assert!(counters.busy_cpu > Duration::ZERO && counters.memory_bytes_peak > 0);
}

#[test]
fn h5_without_another_version_the_seat_answers_unavailable_and_says_why() {
    let mut rig = Rig::new(vec![]).hasty();
    rig.write("p.wasm", brittle("1"));
    rig.start();
    fail_until_quarantined(&rig);
    let failure = rig.fails("p", xid(31));
    assert_eq!(failure.kind, FailureKind::Unavailable);
    assert!(failure.detail.contains("quarantined"), "{failure}");
    let status = rig.status("p");
    assert_eq!(status.phase, Phase::Quarantined);
    assert_eq!(status.quarantined.len(), 1);
    assert_eq!(status.counters.quarantines, 1);
    // Nobody judges; what it counted and how it failed stay.
    assert_eq!(status.active, None);
    assert!(status.counters.calls > 0, "{:?}", status.counters);
    assert_eq!(rig.detail("p").failures[0].kind, FailureKind::Trap);
    let told = rig.supervisor().report().1;
    assert!(
        told.starts_with("no policy judges; p is quarantined: it failed"),
        "{told}"
    );
    let (name, why) = rig.bench.with(|inner| inner.reports.pop()).unwrap();
    assert!(name == "p" && why.unwrap().contains("quarantined"));
    // A reload does not bring it back; another version does, and all is well.
    let changes = rig.reload();
    assert!(
        changes[0]
            .2
            .contains(&release_of("p", &status.quarantined[0].digest)),
        "{changes:?}"
    );
    rig.write("p.wasm", brittle("2"));
    rig.reloaded(&[("p", ReloadChange::Swapped)]);
    answered(pose(&*rig.bench.policy("p"), xid(31)));
    assert_eq!(
        rig.bench.with(|inner| inner.reports.pop()),
        Some(("p".to_owned(), None))
    );
}

#[test]
fn h5_quarantine_seats_the_last_good_version_whose_file_is_long_gone() {
    let mut rig = Rig::new(vec![]).hasty();
    rig.write("p.wasm", brittle("good"));
    rig.start();
    let good = rig.bench.digest("p");
    rig.write("p.wasm", brittle("bad"));
    rig.reloaded(&[("p", ReloadChange::Swapped)]);
    let bad = rig.bench.digest("p");
    assert_eq!(rig.status("p").last_good.unwrap().id.digest.as_ref(), good);
    fail_until_quarantined(&rig);
    assert_eq!(rig.bench.digest("p"), good);
    let status = rig.status("p");
    assert_eq!(status.phase, Phase::LastGood);
    assert!(status.detail.contains("quarantined"), "{}", status.detail);
    answered(pose(&*rig.bench.policy("p"), xid(31)));

    // Nor is it tried after a restart.
    rig.start();
    assert_eq!(rig.bench.log().len(), 1);
    assert_eq!(rig.bench.digest("p"), good);
    assert_eq!(rig.status("p").phase, Phase::LastGood);
    assert_eq!(rig.status("p").quarantined[0].digest.as_ref(), bad);

    // Released, it is tried again.
    let release = PolicyCommand::Release {
        name: by_name("p"),
        digest: bad[..12].to_owned(),
    };
    rig.command(release);
    assert_eq!(rig.bench.digest("p"), bad);
    assert_eq!(rig.status("p").phase, Phase::Running);
}

#[test]
fn h5_the_bundled_one_is_the_last_resort_for_its_name() {
    let mut rig = Rig::new(vec![bundled("p", brittle("bundled"))]).hasty();
    rig.config.state_dir = None;
    rig.write("p.wasm", brittle("mine"));
    rig.start();
    fail_until_quarantined(&rig);
    let status = rig.status("p");
    assert_eq!(status.active.unwrap().origin.as_ref(), "bundled/p");
    assert_eq!((status.phase, status.last_good), (Phase::StandIn, None));
}

#[test]
fn h5_a_version_proves_itself_and_only_then_replaces_the_last_good() {
    let mut rig = Rig::new(vec![]).hasty();
    rig.config.poll_interval = Duration::from_millis(20);
    rig.write("p.wasm", brittle("1"));
    rig.start();
    assert_eq!(rig.status("p").last_good, None);
    answered(pose(&*rig.bench.policy("p"), xid(31)));
    let digest = rig.bench.digest("p");
    let policies = rig.policies();
    // Looked at with each look of the supervisor; a command is a step of it.
    let proved = (0..10_000).any(|_| {
        rig.settle();
        let list = policies.list();
        list[0]
            .last_good
            .as_ref()
            .is_some_and(|good| *good.id.digest == *digest)
    });
    assert!(proved);
}

#[test]
fn h5_an_operator_quarantines_and_the_one_before_takes_over() {
    let mut rig = Rig::new(vec![]);
    rig.write("p.wasm", brittle("1"));
    rig.start();
    let first = rig.bench.digest("p");
    rig.write("p.wasm", brittle("2"));
    rig.reload();
    let quarantine = |name: &str| PolicyCommand::Quarantine {
        name: by_name(name),
        reason: "looks \x1b[31mwrong".to_owned(),
        digest: String::new(),
    };
    // Another was looked at: a reload has come in between.
    let other = PolicyCommand::Quarantine {
        name: by_name("p"),
        reason: "wrong".to_owned(),
        digest: first.to_string(),
    };
    let refused = rig.try_command(other);
    assert!(matches!(refused, Err(ApiError::Precondition { .. })));
    assert_ne!(rig.bench.digest("p"), first);
    let report = rig.command(quarantine("p"));
    assert!(
        report.outcomes[0].detail.contains("judges instead"),
        "{report:?}"
    );
    assert_eq!(rig.bench.digest("p"), first);
    let why = &rig.status("p").quarantined[0].why;
    assert!(
        why.contains("by an operator: looks \\u{1b}[31mwrong"),
        "{why}"
    );
    let unknown = rig.try_command(quarantine("nobody")).unwrap_err();
    assert!(matches!(unknown, ApiError::NoPolicy { .. }), "{unknown}");
}

#[test]
fn h7_a_pause_lasts_until_it_is_resumed_over_restarts_too() {
    let mut rig = Rig::new(vec![bundled("p", quiet("p", &["A"]))]);
    rig.start();
    let pause = PolicyCommand::Pause {
        name: by_name("p"),
        reason: "maintenance".to_owned(),
    };
    rig.command(pause);
    for _ in 0..2 {
        let failure = rig.fails("p", xid(31));
        assert!(
            failure
                .detail
                .contains("paused by an operator: maintenance"),
            "{failure}"
        );
        assert_eq!(rig.status("p").phase, Phase::Paused);
        let told = rig
            .bench
            .with(|inner| inner.reports.last().cloned())
            .unwrap();
        assert!(told.1.unwrap().contains("maintenance"));
        rig.start();
    }
    let resume = || PolicyCommand::Resume { name: by_name("p") };
    rig.command(resume());
    answered(pose(&*rig.bench.policy("p"), xid(31)));
    assert_eq!(
        rig.bench.with(|inner| inner.reports.pop()),
        Some((by_name("p"), None))
    );
    assert!(matches!(
        rig.try_command(resume()),
        Err(ApiError::Precondition { .. })
    ));
}

/// The daemon dies in a call of a policy: what it leaves is a mark that says so.
fn die_in_call_of(rig: &mut Rig, digest: &str) {
    let home = rig.state.path().join("policies");
    let calls = home.join("calls");
    // Nothing that a good end would still have written.
    let ledger = fs::read(home.join("ledger.json")).unwrap();
    rig.stop();
    fs::write(home.join("ledger.json"), ledger).unwrap();
    // Hardly ever called, in a run of two minutes.
    let mut record = vec![b'!'];
    record.extend(0_u64.to_le_bytes());
    record.extend(120_000_000_000_u64.to_le_bytes());
    fs::write(calls.join(format!("{digest}-0")), record).unwrap();
}

#[test]
fn h5_two_crashes_in_its_calls_quarantine_a_version_before_it_is_even_configured() {
    let mut rig = Rig::new(vec![]);
    rig.write("p.wasm", brittle("good"));
    rig.start();
    let good = rig.bench.digest("p");
    rig.write("p.wasm", brittle("deadly"));
    rig.reload();
    let deadly = rig.bench.digest("p");
    die_in_call_of(&mut rig, &deadly);
    rig.start();
    assert_eq!(rig.bench.digest("p"), deadly, "one crash may be a kill");
    die_in_call_of(&mut rig, &deadly);
    rig.start();
    assert_eq!(rig.bench.digest("p"), good);
    let status = rig.status("p");
    assert!(
        status.quarantined[0].why.contains("the daemon died"),
        "{status:?}"
    );
    assert_eq!(status.counters.instances, 1, "of the good one");
}

#[test]
fn h5_a_run_that_ended_well_between_two_crashes_forgives() {
    let mut rig = Rig::new(vec![bundled("p", brittle("1"))]);
    rig.start();
    let digest = rig.bench.digest("p");
    for _ in 0..5 {
        die_in_call_of(&mut rig, &digest);
        rig.start();
        rig.stop();
        rig.start();
        assert_eq!(rig.status("p").phase, Phase::Running);
    }
}

#[test]
fn h7_safe_mode_runs_nothing_and_says_so() {
    let mut rig = Rig::new(vec![bundled("p", b"not even looked at".to_vec())]);
    rig.config.safe_mode = true;
    rig.start();
    assert!(rig.bench.with(|inner| inner.seated.is_empty()));
    let status = rig.status("p");
    assert_eq!((status.phase, status.mode), (Phase::Paused, Mode::Paused));
    assert!(status.detail.contains("safe mode"));
    let refused = rig.try_command(PolicyCommand::Reload).unwrap_err();
    assert!(refused.to_string().contains("safe mode"), "{refused}");
    assert!(!rig.supervisor().report().0);
}

#[test]
fn commands_after_the_end_are_answered() {
    let mut rig = Rig::new(vec![]);
    rig.start();
    let policies = rig.policies();
    rig.stop();
    let answer = crate::bench::block_on(policies.command(PolicyCommand::Reload));
    assert!(
        matches!(answer, Err(ApiError::Unavailable { .. })),
        "{answer:?}"
    );
}

#[test]
fn h12_a_policy_can_be_described() {
    let mut rig = Rig::new(vec![bundled(
        "p",
        always("p", &["TestFault"], "1", &[GOOD]),
    )]);
    rig.start();
    let detail = rig.detail("p");
    assert_eq!(detail.owns[0].condition, "TestFault");
    assert_eq!(detail.status.active.unwrap().id.version.as_ref(), "1.0.0");
    let deadline = detail
        .limits
        .iter()
        .find(|(name, _)| name == "call-deadline");
    assert_eq!(deadline.unwrap().1, "1s");
    let unknown = rig.policies().describe("nobody").unwrap_err();
    assert!(matches!(unknown, ApiError::NoPolicy { .. }));
    assert!(
        Supervisor::policies(rig.supervisor()).list()[0]
            .detail
            .is_empty()
    );
}

#[test]
fn h5_a_roll_back_to_the_version_that_stands_in_makes_it_the_one_to_keep() {
    let mut rig = Rig::new(vec![]).hasty();
    rig.config.poll_interval = Duration::from_millis(20);
    rig.write("p.wasm", brittle("good"));
    rig.start();
    let good = rig.bench.digest("p");
    rig.write("p.wasm", brittle("bad"));
    rig.reload();
    let quarantine = || PolicyCommand::Quarantine {
        name: by_name("p"),
        reason: "wrong".to_owned(),
        digest: String::new(),
    };
    rig.command(quarantine());
    assert_eq!(rig.bench.digest("p"), good);
    // The operator takes the new version back, and the old one proves itself.
    rig.write("p.wasm", brittle("good"));
    rig.reloaded(&[("p", ReloadChange::Unchanged)]);
    answered(pose(&*rig.bench.policy("p"), xid(31)));
    let ledger = rig.state.path().join("policies").join("ledger.json");
    let looks_at = |member: &str| {
        let text = fs::read_to_string(&ledger).unwrap();
        let ledger: serde_json::Value = serde_json::from_str(&text).unwrap();
        ledger["policies"]["p"][member]["digest"]
            .as_str()
            .map(str::to_owned)
    };
    assert_eq!(looks_at("seated").as_deref(), Some(&*good));
    // Two looks later whoever was to be proved is.
    for _ in 0..2 {
        let begun = std::time::Instant::now();
        while begun.elapsed() < 2 * rig.config.poll_interval {
            rig.settle();
        }
    }
    assert_eq!(looks_at("last_good").as_deref(), Some(&*good));
    rig.write("p.wasm", brittle("bad as well"));
    // Unless a look of its own was faster.
    rig.reload();
    assert_ne!(rig.bench.digest("p"), good);
    rig.command(quarantine());
    assert_eq!(rig.bench.digest("p"), good);
}

#[test]
fn h8_whose_seat_stays_empty_is_told_and_so_is_that_it_is_wanted_no_more() {
    let mut rig = Rig::new(vec![bundled("own", quiet("own", &["Own"]))]).hasty();
    rig.write("p.wasm", brittle("1"));
    rig.start();
    fail_until_quarantined(&rig);
    let told = |rig: &Rig| {
        let of_p = |inner: &mut crate::bench::Inner| {
            let mut of_p = inner.reports.iter().rev().filter(|(name, _)| name == "p");
            of_p.next().map(|(_, why)| why.clone())
        };
        rig.bench.with(of_p)
    };
    // After a restart too.
    rig.start();
    let why = told(&rig).expect("a report").expect("a reason");
    assert!(why.contains("quarantined"), "{why}");
    fs::remove_file(rig.path("p.wasm")).unwrap();
    rig.write("policies.yaml", "policies: []");
    rig.reload();
    assert_eq!(told(&rig), Some(None));

    let mut rig = Rig::new(vec![]);
    rig.write("p.wasm", b"bad");
    rig.start();
    let why = told(&rig).expect("a report").expect("a reason");
    assert!(why.contains("p.wasm can't be loaded"), "{why}");
    rig.write("p.wasm", brittle("1"));
    rig.reload();
    assert_eq!(told(&rig), Some(None));
    // Paused, then a shadow: nobody waits for it any more.
    let of_mode = |mode: &str| format!("policies: [{{name: p, file: p.wasm, mode: {mode}}}]");
    rig.write("policies.yaml", of_mode("paused"));
    rig.reload();
    assert!(told(&rig).unwrap().is_some());
    rig.write("policies.yaml", of_mode("shadow"));
    rig.reload();
    assert_eq!(told(&rig), Some(None));
}

#[test]
fn h5_what_judged_before_the_daemon_and_the_file_changed_at_once_is_gone_back_to() {
    let mut rig = Rig::new(vec![]);
    rig.write("p.wasm", brittle("1"));
    rig.start();
    let first = rig.bench.digest("p");
    rig.stop();
    rig.write("p.wasm", brittle("2"));
    rig.start();
    assert_ne!(rig.bench.digest("p"), first);
    rig.command(PolicyCommand::Quarantine {
        name: by_name("p"),
        reason: "wrong".to_owned(),
        digest: String::new(),
    });
    assert_eq!(rig.bench.digest("p"), first);
}

#[test]
fn h5_what_crashed_before_it_said_its_name_is_shown_and_can_be_released() {
    for with_name in ["p", "any"] {
        let mut rig = Rig::new(vec![bundled("own", quiet("own", &["Own"]))]);
        rig.start();
        let digest = sha256(&brittle("deadly"));
        for _ in 0..2 {
            die_in_call_of(&mut rig, &digest);
            rig.start();
        }
        rig.write("p.wasm", brittle("deadly"));
        let outcomes = rig.reload();
        let why = &outcomes.iter().find(|(name, ..)| name == "p").unwrap().2;
        assert!(why.contains(&release_of("p", &digest)), "{why}");
        let status = rig.status("p");
        assert_eq!(status.phase, Phase::Quarantined);
        assert_eq!(*status.quarantined[0].digest, *digest);
        // By its digest, whatever its name; without one, by the name under which it is shown.
        let by_digest = with_name == "any";
        rig.command(PolicyCommand::Release {
            name: by_name(with_name),
            digest: if by_digest {
                digest[..12].to_owned()
            } else {
                String::new()
            },
        });
        assert_eq!(rig.bench.digest("p"), digest);
        assert!(rig.status("p").quarantined.is_empty());
    }
}

#[test]
fn h2_closed_it_holds_no_instance_and_reopened_it_has_one_before_it_is_asked() {
    let mut rig = Rig::new(vec![bundled("p", quiet("p", &["A"]))]);
    rig.start();
    assert_eq!(rig.status("p").counters.instances, 1);
    rig.command(PolicyCommand::Pause {
        name: by_name("p"),
        reason: "maintenance".to_owned(),
    });
    rig.command(PolicyCommand::Resume { name: by_name("p") });
    let begun = std::time::Instant::now();
    while rig.status("p").counters.instances == 1 {
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "the old instance lives"
        );
        std::thread::yield_now();
    }
    answered(pose(&*rig.bench.policy("p"), xid(31)));
    assert_eq!(rig.status("p").counters.instances, 2);
}

#[test]
fn h12_files_that_are_no_policies_do_not_crowd_out_who_judges() {
    let mut rig = Rig::new(vec![bundled("z", quiet("z", &["A"]))]);
    for at in 0..2 * POLICIES_LISTED_MAX {
        rig.write(&format!("a{at:02}.wasm"), b"nothing");
    }
    rig.start();
    let listed = rig.policies().list();
    assert_eq!(listed.len(), POLICIES_LISTED_MAX);
    assert!(listed.is_sorted_by(|a, b| a.name < b.name));
    assert_eq!(rig.status("z").phase, Phase::Running);
    // Each can be looked at by its name, and is told of.
    assert!(rig.detail("a95").status.refused.is_some());
    let told = rig.supervisor().report().1;
    assert!(
        told.starts_with("1 policy judges: z@") && told.len() < 16 * 1024,
        "{told}"
    );
}

#[test]
fn h5_starts_that_cost_more_than_calls_may_are_strikes() {
    // A start of some 10 ms for each call, of which it may take 5.
    let mut memory = Memory::default();
    let (info, nothing) = (memory.info("p", &["A"]), memory.decision(&[]));
    let configure = format!(
        "(local $i i32)
         (loop (local.set $i (i32.add (local.get $i) (i32.const 1)))
           (br_if 0 (i32.lt_u (local.get $i) (i32.const 30000000))))
         i32.const {info}"
    );
    let mut source = bundled(
        "p",
        component(&memory, &configure, &format!("i32.const {nothing}")),
    );
    source.limits.calls_per_instance_max = 1;
    source.limits.call_deadline = Duration::from_millis(5);
    let mut rig = Rig::new(vec![source]).hasty();
    rig.start();
    let policy = rig.bench.policy("p");
    let begun = std::time::Instant::now();
    // A call may fail for want of processor time, which is no strike; the next one will not.
    while rig.status("p").phase != Phase::BackOff {
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "{:?}",
            rig.status("p")
        );
        let _ = pose(&*policy, xid(31));
    }
    let failure = rig.fails("p", xid(31));
    assert!(failure.detail.contains("asked again"), "{failure}");
}
