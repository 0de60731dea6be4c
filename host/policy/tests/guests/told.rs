//! What an operator reads of policies: each thing once, in words that lead on (design H7, H12).

use std::time::Duration;

use device_api_core::error::ApiError;
use device_api_core::policy_status::{Mode, Phase};
use device_api_core::ports::PolicyCommand;

use crate::bench::{Rig, bundled};
use crate::component::{moody, quiet};
use crate::house::{at_ms, xid};

fn resume() -> PolicyCommand {
    PolicyCommand::Resume {
        name: "p".to_owned(),
    }
}

#[track_caller]
fn paused_by_the_site(rig: &Rig) {
    let error = rig.try_command(resume()).unwrap_err();
    let ApiError::Precondition { why } = error else {
        panic!("{error:?}");
    };
    assert_eq!(
        why,
        "p is paused by policies.yaml, not by an operator: change its mode there"
    );
}

#[test]
fn h7_a_set_that_is_refused_is_told_while_it_is_and_counted_once() {
    let mut rig = Rig::new(vec![bundled("p", quiet("p", &["A"]))]);
    rig.start();
    let told = |rig: &Rig| {
        let host = rig.policies().host();
        (host.refused.unwrap_or_default(), host.sets_refused)
    };
    assert_eq!(told(&rig), (String::new(), 0));
    for (text, count) in [("x: 1", 1), ("x: 1", 1), ("policies: [{}]", 2)] {
        rig.write("policies.yaml", text);
        rig.refused(&["policies.yaml is refused"]);
        let (why, counted) = told(&rig);
        assert!(why.contains("policies.yaml is refused"), "{why}");
        assert_eq!(counted, count, "{text}");
    }
    rig.write("policies.yaml", "policies: []");
    rig.reload();
    assert_eq!(told(&rig), (String::new(), 2));
}

#[test]
fn h7_a_pause_of_the_site_is_ended_by_the_site_alone() {
    let mut rig = Rig::new(vec![bundled("p", quiet("p", &["A"]))]);
    rig.write("policies.yaml", "policies: [{name: p, mode: paused}]");
    rig.start();
    let status = rig.status("p");
    assert_eq!((status.phase, status.mode), (Phase::Paused, Mode::Paused));
    assert_eq!(status.detail, "by policies.yaml: change its mode there");
    paused_by_the_site(&rig);
    // By both: the one does not end the other.
    rig.command(PolicyCommand::Pause {
        name: "p".to_owned(),
        reason: "maintenance".to_owned(),
    });
    let detail = rig.status("p").detail;
    for word in ["maintenance", "policies.yaml", "`devicectl policy resume`"] {
        assert!(detail.contains(word), "{detail:?} lacks {word:?}");
    }
    rig.command(resume());
    assert_eq!(rig.status("p").phase, Phase::Paused);
    paused_by_the_site(&rig);
    // An operator's alone.
    rig.write("policies.yaml", "policies: []");
    rig.reload();
    rig.command(PolicyCommand::Pause {
        name: "p".to_owned(),
        reason: "maintenance".to_owned(),
    });
    assert_eq!(rig.status("p").detail, "by an operator: maintenance");
    let failure = rig.fails("p", xid(31)).detail;
    assert!(
        failure.contains("paused by an operator: maintenance"),
        "{failure}"
    );
}

#[test]
fn h12_readyz_says_how_many_judge_and_each_trouble_once() {
    let brittle = moody("p", &["A"], |_| vec![(666, "unreachable".to_owned())]);
    let mut rig = Rig::new(vec![bundled("own", quiet("own", &["B"]))]).hasty();
    rig.write("p.wasm", brittle);
    rig.write("look.wasm", quiet("look", &["C"]));
    rig.write(
        "policies.yaml",
        "policies: [{name: p, file: p.wasm}, {name: next, file: look.wasm, mode: shadow}]",
    );
    rig.start();
    let told = rig.supervisor().report();
    assert!(
        told.0 && told.1.starts_with("2 policies judge: own@1.0.0 ("),
        "{told:?}"
    );
    assert!(
        told.1.contains("; loaded, and not judging: look@1.0.0 ("),
        "{told:?}"
    );
    rig.fails("p", at_ms(666));
    let (is_well, told) = rig.supervisor().report();
    // Backing off it is not asked, and so does not judge.
    assert!(
        !is_well && told.starts_with("1 policy judges: own@"),
        "{told}"
    );
    rig.clock.advance(Duration::from_millis(250));
    rig.fails("p", at_ms(666));
    rig.settle();
    let status = rig.status("p");
    assert_eq!((status.phase, status.active), (Phase::Quarantined, None));
    assert!(
        status.detail.starts_with("it failed repeatedly"),
        "{}",
        status.detail
    );
    let (_, told) = rig.supervisor().report();
    assert!(told.starts_with("1 policy judges: own@"), "{told}");
    assert!(
        told.contains("; p is quarantined: it failed repeatedly, at last: "),
        "{told}"
    );
    // And where nobody is left.
    let mut rig = Rig::new(vec![bundled("p", quiet("p", &["A"]))]);
    rig.start();
    rig.command(PolicyCommand::Quarantine {
        name: "p".to_owned(),
        reason: "wrong".to_owned(),
        digest: String::new(),
    });
    let (_, told) = rig.supervisor().report();
    assert_eq!(
        told,
        "no policy judges; p is quarantined: by an operator: wrong"
    );
}
