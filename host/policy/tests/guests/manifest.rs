//! Design H7: policies.yaml, over a real directory.

use std::fs;
use std::sync::Arc;

use device_api_core::policy_status::{Mode, Phase, ReloadChange};
use device_api_core::seating::Fallback;
use device_api_core::xid;
use device_api_policy::Unlisted;

use crate::bench::{Rig, bundled};
use crate::component::{always, quiet};
use crate::house::{answered, pose, xid};

use ReloadChange::{Refused, Swapped, Unchanged};

fn rig() -> Rig {
    let mut rig = Rig::new(vec![bundled("own", quiet("own", &["Own"]))]);
    rig.write("a.wasm", quiet("a", &["A"]));
    rig.write("policies.yaml", "policies: [{name: a, file: a.wasm}]");
    rig.start();
    rig
}

#[test]
fn h7_terms_limits_and_configuration_reach_the_policy_without_other_changes() {
    let rig = rig();
    let before = rig.bench.policy("a");
    let text = "
policies:
  - name: a
    file: a.wasm
    fallback: unhealthy
    grants: [xid-79]
    limits: {memory-bytes-max: 8MiB}
    config: {threshold: 3}
  - name: own
    config: [1]
";
    rig.write("policies.yaml", text);
    rig.reloaded(&[("a", Swapped), ("own", Swapped)]);
    let seated = rig.bench.policy("a");
    assert!(!Arc::ptr_eq(&before, &seated));
    assert_eq!(seated.terms().fallback, Fallback::Unhealthy);
    assert!(seated.terms().may_lower("xid-79"));
    let detail = rig.detail("a");
    assert_eq!(&detail.terms, seated.terms());
    assert!(
        detail
            .limits
            .contains(&("memory-bytes-max".to_owned(), "8MiB".to_owned()))
    );
    rig.reloaded(&[("a", Unchanged), ("own", Unchanged)]);
}

#[test]
fn h7_a_bad_file_is_refused_as_a_whole_and_the_running_set_stays() {
    let rig = rig();
    let (a, own) = (rig.bench.policy("a"), rig.bench.policy("own"));
    rig.write("b.wasm", quiet("b", &["B"]));
    let pin = "0".repeat(64);
    for (text, words) in [
        (
            "policies: [{name: b, file: b.wasm, colour: red}]",
            vec!["colour", "line 1"],
        ),
        (
            "policies:\n  - {name: b, file: b.wasm}\n  - {name: b, file: a.wasm}\n",
            vec!["line 3", "twice"],
        ),
        (
            "policies: [{name: b, file: b.wasm, limits: {tables-max: 9999}}]",
            vec!["tables-max", "1000"],
        ),
        (
            "policies: [{name: b, file: c.wasm}]",
            vec!["line 1", "\"b\"", "file", "c.wasm"],
        ),
        (
            "policies: [{name: b}]",
            vec!["\"b\"", "file", "bundled policies are own"],
        ),
        (
            "policies: [{name: own, file: a.wasm, mode: shadow}]",
            vec!["shadow another name"],
        ),
        (
            &format!("policies: [{{name: b, file: b.wasm, sha256: \"{pin}\"}}]"),
            vec!["sha256", &pin, "b.wasm has the SHA-256"],
        ),
        ("policies: [", vec!["policies.yaml"]),
    ] {
        rig.write("policies.yaml", text);
        let mut words = words;
        words.extend(["policies.yaml", "running set stays"]);
        rig.refused(&words);
        assert!(Arc::ptr_eq(&a, &rig.bench.policy("a")));
        assert!(Arc::ptr_eq(&own, &rig.bench.policy("own")));
    }
    assert!(!rig.supervisor().report().0);
}

#[test]
fn h7_a_pin_that_fits_is_no_obstacle() {
    let rig = rig();
    let digest = rig.bench.digest("a");
    rig.write(
        "policies.yaml",
        format!("policies: [{{name: a, file: a.wasm, sha256: \"{digest}\"}}]"),
    );
    rig.reloaded(&[("a", Unchanged), ("own", Unchanged)]);
}

#[test]
fn h7_the_first_set_of_a_run_is_refused_and_the_set_of_the_run_before_judges() {
    let mut rig = rig();
    let a = rig.bench.digest("a");
    rig.write("policies.yaml", "nonsense: 1");
    fs::remove_file(rig.path("a.wasm")).unwrap();
    rig.start();
    assert_eq!(rig.bench.digest("a"), a);
    rig.bench.policy("own");
    let status = rig.status("a");
    assert_eq!(status.phase, Phase::StandIn);
    assert!(
        status.detail.contains("policies.yaml is refused"),
        "{}",
        status.detail
    );
    // Mended, it is what the site wants again, and nothing is loaded anew.
    rig.write("a.wasm", quiet("a", &["A"]));
    rig.write("policies.yaml", "policies: [{name: a, file: a.wasm}]");
    rig.bench.log();
    rig.reloaded(&[("a", Unchanged), ("own", Unchanged)]);
    assert!(rig.bench.log().is_empty());
    assert_eq!(rig.status("a").phase, Phase::Running);
}

#[test]
fn h7_paused_is_loaded_and_not_asked_and_comes_back_without_loading() {
    let rig = rig();
    let a = rig.bench.policy("a");
    rig.write(
        "policies.yaml",
        "policies: [{name: a, file: a.wasm, mode: paused}]",
    );
    rig.reload();
    let status = rig.status("a");
    assert_eq!((status.phase, status.mode), (Phase::Paused, Mode::Paused));
    assert!(
        rig.fails("a", xid(31))
            .detail
            .contains("paused by policies.yaml")
    );
    assert!(rig.supervisor().report().0, "as the site wants it");
    rig.write("policies.yaml", "policies: [{name: a, file: a.wasm}]");
    rig.reload();
    assert!(Arc::ptr_eq(&a, &rig.bench.policy("a")));
    answered(pose(&*a, xid(31)));
}

#[test]
fn h7_unlisted_policies_run_with_defaults_or_are_refused_alone() {
    let mut rig = rig();
    rig.write("b.wasm", quiet("b", &["B"]));
    rig.reloaded(&[("a", Unchanged), ("b", Swapped), ("own", Unchanged)]);
    rig.config.unlisted = Unlisted::Refuse;
    rig.start();
    assert!(rig.bench.with(|inner| !inner.seated.contains_key("b")));
    rig.bench.policy("a");
    let why = rig.status("b").detail;
    assert!(
        why.contains("b.wasm is not listed") && why.contains("--unlisted-policies=defaults"),
        "{why}"
    );
}

#[test]
fn h7_a_name_that_is_not_the_components_own_is_refused() {
    let rig = rig();
    rig.write("policies.yaml", "policies: [{name: alpha, file: a.wasm}]");
    // What judged by its own name goes on.
    rig.reloaded(&[("a", Unchanged), ("alpha", Refused), ("own", Unchanged)]);
    let why = rig.status("alpha").detail;
    assert!(
        why.contains(r#"names itself "a""#) && why.contains(r#"lists it as "alpha""#),
        "{why}"
    );
}

#[test]
fn h7_the_file_may_lie_elsewhere() {
    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().join("site.yaml");
    fs::write(
        &file,
        "policies: [{name: a, file: a.wasm, fallback: ignore}]",
    )
    .unwrap();
    let mut rig = rig();
    rig.config.policies_file = Some(file.clone());
    rig.start();
    assert_eq!(rig.bench.policy("a").terms().fallback, Fallback::Ignore);
    fs::remove_file(&file).unwrap();
    rig.refused(&["site.yaml", "running set stays"]);
}

#[test]
fn h6_a_file_of_the_catalogues_size_is_admitted_and_asked_once_for_each_code() {
    // The counters begin when it takes its seat: admission is no work of its.
    let rig = rig();
    assert!(xid::catalog().len() > 100);
    rig.write("a.wasm", always("a", &["A"], "2", &[]));
    rig.reload();
    assert_eq!(rig.status("a").counters.calls, 0);
    answered(pose(&*rig.bench.policy("a"), xid(31)));
    assert_eq!(rig.status("a").counters.calls, 1);
    assert_eq!(rig.status("a").counters.swaps, 1);
}

#[test]
fn h7_a_policy_taken_out_of_the_list_judges_no_more_although_its_file_stays() {
    let mut rig = rig();
    rig.config.unlisted = Unlisted::Refuse;
    rig.start();
    rig.bench.policy("a");
    rig.write("policies.yaml", "policies: []");
    rig.reloaded(&[("a", Refused), ("own", Unchanged)]);
    assert!(rig.bench.with(|inner| !inner.seated.contains_key("a")));
    let status = rig.status("a");
    assert_eq!((status.phase, status.active), (Phase::Refused, None));
    // What it owned is free.
    rig.write("b.wasm", quiet("b", &["A"]));
    rig.write("policies.yaml", "policies: [{name: b, file: b.wasm}]");
    rig.reloaded(&[("a", Refused), ("b", Swapped), ("own", Unchanged)]);
}

#[test]
fn h7_the_mode_counts_although_the_file_beside_it_is_refused() {
    let rig = rig();
    let of_mode = |mode: &str| format!("policies: [{{name: a, file: a.wasm, mode: {mode}}}]");
    rig.write("a.wasm", b"bad");
    rig.write("policies.yaml", of_mode("paused"));
    rig.reloaded(&[("a", Refused), ("own", Unchanged)]);
    assert_eq!(rig.status("a").phase, Phase::Paused);
    let failure = rig.fails("a", xid(31));
    assert!(
        failure.detail.contains("paused by policies.yaml"),
        "{failure}"
    );
    rig.write("a.wasm", b"still bad");
    rig.write("policies.yaml", of_mode("enforce"));
    rig.reloaded(&[("a", Refused), ("own", Unchanged)]);
    assert_eq!(rig.status("a").phase, Phase::Running);
    answered(pose(&*rig.bench.policy("a"), xid(31)));
}

#[test]
fn h7_a_run_that_begins_without_a_set_goes_on_with_what_judged_and_on_its_terms() {
    let mut rig = Rig::new(vec![]).hasty();
    rig.config.poll_interval = std::time::Duration::from_millis(20);
    let text = |mode: &str| {
        format!(
            "policies: [{{name: a, file: a.wasm, mode: {mode}, fallback: unhealthy, grants: [xid-79]}}]"
        )
    };
    rig.write("a.wasm", quiet("a", &["A"]));
    rig.write("policies.yaml", text("enforce"));
    rig.start();
    answered(pose(&*rig.bench.policy("a"), xid(31)));
    let begun = std::time::Instant::now();
    while rig.status("a").last_good.is_none() {
        rig.settle();
        assert!(begun.elapsed().as_secs() < 30);
    }
    // Not proved yet when the run ends.
    rig.write("a.wasm", always("a", &["A"], "2", &[]));
    rig.reloaded(&[("a", Swapped)]);
    let newer = rig.bench.digest("a");
    rig.stop();
    let good = fs::read(rig.path("a.wasm")).unwrap();
    rig.write("policies.yaml", "nonsense: 1");
    rig.start();
    assert_eq!(rig.bench.digest("a"), newer);
    let seated = rig.bench.policy("a");
    assert_eq!(seated.terms().fallback, Fallback::Unhealthy);
    assert!(seated.terms().may_lower("xid-79"));
    // Nor does a paused one begin to judge.
    rig.write("a.wasm", good);
    rig.write("policies.yaml", text("paused"));
    rig.reload();
    rig.stop();
    rig.write("policies.yaml", "nonsense: 1");
    rig.start();
    assert_eq!(rig.bench.digest("a"), newer);
    assert_eq!(rig.status("a").phase, Phase::Paused);
    rig.fails("a", xid(31));
}
