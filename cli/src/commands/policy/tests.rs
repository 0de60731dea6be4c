//! What is printed of policies.

use device_api_proto::native::{
    GetPolicyResponse, ListPoliciesResponse, Policy, PolicyChange, PolicyCounters,
    PolicyFailureCount, PolicyFailureKind, PolicyFallback, PolicyLatencyBucket, PolicyLimitCount,
    PolicyLimitKind, PolicyMode, PolicyOutcome, PolicyOwnedType, PolicyPhase, PolicySetAside,
    PolicySubscription, PolicyVersion,
};

use super::*;
use crate::client::{OnPolicy, Report};
use crate::policy_view::{DetailView, PolicyList, PolicyView, ReportView};

const NASTY: &str = "a\u{1b}[2J\u{202e}\nb";

fn buckets(calls: &[(u64, u64)]) -> Vec<PolicyLatencyBucket> {
    let bucket = |(micros_max, calls): &(u64, u64)| PolicyLatencyBucket {
        micros_max: *micros_max,
        calls: *calls,
    };
    calls.iter().map(bucket).collect()
}

fn digest(digit: char) -> String {
    String::from(digit).repeat(64)
}

fn aside(number: &str, digit: char, why: &str) -> PolicySetAside {
    PolicySetAside {
        version: number.to_owned(),
        digest: digest(digit),
        origin: "/policies/x.wasm".to_owned(),
        since: None,
        why: why.to_owned(),
    }
}

fn policy(name: &str) -> Policy {
    Policy {
        name: name.to_owned(),
        mode: PolicyMode::Enforce.into(),
        phase: PolicyPhase::Running.into(),
        active: Some(PolicyVersion {
            version: "1.0.0".to_owned(),
            digest: digest('a'),
            origin: "bundled/xid-policy".to_owned(),
            since: None,
        }),
        counters: Some(PolicyCounters {
            calls: 100,
            failures: vec![PolicyFailureCount {
                kind: PolicyFailureKind::Trap.into(),
                calls: 2,
            }],
            latency: buckets(&[(5, 90), (10, 9), (0, 1)]),
            instances: 3,
            limits_hit: vec![PolicyLimitCount {
                kind: PolicyLimitKind::HostCalls.into(),
                times: 4,
            }],
            memory_bytes_peak: 1_100_000,
            shadow_compared: 8,
            shadow_disagreements: 1,
            ..PolicyCounters::default()
        }),
        ..Policy::default()
    }
}

fn listed(policies: &[Policy], wide: bool) -> String {
    let mut out = Vec::new();
    list::print(&mut out, policies, wide, false).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_list_says_what_each_is_and_does() {
    let expected = "\
NAME         VERSION   DIGEST         MODE      PHASE     CALLS   FAILURES   P99      AGE
xid-policy   1.0.0     aaaaaaaaaaaa   enforce   running   100     2          <=10us   -
";
    assert_eq!(listed(&[policy("xid-policy")], false), expected);
    let wide = listed(&[policy("xid-policy")], true);
    let row = wide.lines().nth(1).unwrap();
    for told in ["1075Ki", " 1/8 ", "bundled/xid-policy"] {
        assert!(row.contains(told), "{wide}");
    }
    assert!(listed(&[], false).starts_with("No policies: "));
}

#[test]
fn what_waits_for_someone_stands_below_the_list_with_what_to_type() {
    let mut held = policy("xid-policy");
    held.held = Some(aside("2.0.0", 'b', "3 GPUs would be Unhealthy"));
    held.quarantined = ('1'..='5')
        .map(|digit| aside("1.1.0", digit, "trap"))
        .collect();
    let mut paused = policy("quiet");
    paused.phase = PolicyPhase::Paused.into();
    paused.detail = "maintenance".to_owned();
    // No command ends that.
    let mut fixed = policy("fixed");
    fixed.mode = PolicyMode::Paused.into();
    fixed.phase = PolicyPhase::Paused.into();
    fixed.detail = "by policies.yaml: change its mode there".to_owned();
    let mut refused = policy("bad");
    refused.refused = Some(PolicySetAside {
        version: String::new(),
        digest: String::new(),
        ..aside("", 'c', "no component")
    });
    let mut wanted = policy("wanted");
    wanted.quarantined = vec![aside("1.1.0", 'e', "loops")];
    wanted.refused = Some(aside("", 'e', "wanted.wasm is quarantined"));
    let mut slow = policy("slow");
    slow.phase = PolicyPhase::Compiling.into();
    slow.detail = "policy slow.wasm is being compiled".to_owned();
    let text = listed(&[held, paused, fixed, refused, wanted, slow], false);
    assert!(text.contains(" compiling "), "{text}");
    let (_, notes) = text.split_once("\n\n").unwrap();
    let expected = "\
xid-policy: version 2.0.0 (bbbbbbbbbbbb) is held: 3 GPUs would be Unhealthy
    devicectl policy describe xid-policy
    devicectl policy accept xid-policy --digest bbbbbbbbbbbb
xid-policy: version 1.1.0 (111111111111) is quarantined: trap
    devicectl policy release xid-policy --digest 111111111111
xid-policy: version 1.1.0 (222222222222) is quarantined: trap
    devicectl policy release xid-policy --digest 222222222222
xid-policy: version 1.1.0 (333333333333) is quarantined: trap
    devicectl policy release xid-policy --digest 333333333333
xid-policy: 2 more versions are quarantined
    devicectl policy describe xid-policy
quiet is paused: maintenance
    devicectl policy resume quiet
fixed is paused: by policies.yaml: change its mode there
bad: a version of /policies/x.wasm is refused: no component
    devicectl policy reload
wanted: version 1.1.0 (eeeeeeeeeeee) is quarantined: loops
    devicectl policy release wanted --digest eeeeeeeeeeee
slow: policy slow.wasm is being compiled
";
    assert_eq!(notes, expected);
}

#[test]
fn h7_what_concerns_all_policies_stands_above_the_list() {
    let mut out = Vec::new();
    let listed = ListPoliciesResponse {
        policies: vec![policy("xid-policy")],
        refused: format!("policies.yaml is refused: {NASTY}"),
        unsaved: "ledger.json: No space left".to_owned(),
        damage: "the ledger could not be read".to_owned(),
    };
    list::all(&mut out, &listed, false, false).unwrap();
    let text = String::from_utf8(out).unwrap();
    let (above, table) = text.split_once("\n\n").unwrap();
    let expected = "\
The set of policies is refused: policies.yaml is refused: a\\u{1b}[2J\\u{202e}\\nb
    devicectl policy reload
What is decided of policies can't be saved, and a restart forgets it: ledger.json: No space left
the ledger could not be read";
    assert_eq!(above, expected);
    assert!(table.starts_with("NAME "), "{text}");
    let value = serde_json::to_value(PolicyList::from(&listed)).unwrap();
    assert_eq!(value["unsaved"], "ledger.json: No space left");
    let well = PolicyList::from(&ListPoliciesResponse::default());
    let value = serde_json::to_value(well).unwrap();
    assert_eq!(value, serde_json::json!({"policies": []}));
}

#[test]
fn the_ninety_ninth_of_a_hundred_calls_is_in_its_bucket() {
    #[track_caller]
    fn check(calls: &[(u64, u64)], expected: &str) {
        assert_eq!(list::p99(&buckets(calls)), expected, "{calls:?}");
    }
    check(&[], "");
    check(&[(1, 0), (0, 0)], "");
    check(&[(1, 1), (0, 0)], "<=1us");
    check(&[(1, 99), (5_000, 1), (0, 0)], "<=1us");
    check(&[(1, 98), (5_000, 2), (0, 0)], "<=5ms");
    check(&[(1, 98), (250, 0), (0, 2)], ">250us");
    check(&[(1, 198), (1_000, 2), (0, 0)], "<=1us");
    check(&[(1, 197), (1_000, 3), (0, 0)], "<=1ms");
}

fn detail() -> GetPolicyResponse {
    GetPolicyResponse {
        policy: Some(Policy {
            held: Some(aside("2.0.0", 'b', NASTY)),
            ..policy("xid-policy")
        }),
        fallback: PolicyFallback::Catalogue.into(),
        grants: vec!["xid-79".to_owned()],
        owns: vec![PolicyOwnedType {
            condition_type: "XidCriticalError".to_owned(),
            true_is_problem: true,
            reasons: vec!["FallenOffTheBus".to_owned(), NASTY.to_owned()],
        }],
        subscriptions: vec![
            PolicySubscription {
                kind: "xid".to_owned(),
                code_min: Some(63),
                code_max: Some(64),
                ..PolicySubscription::default()
            },
            PolicySubscription {
                kind: "reading".to_owned(),
                key: "temperature.gpu".to_owned(),
                above: Some(85.0),
                deadband: 2.5,
                min_interval: Some(prost_types::Duration {
                    seconds: 10,
                    nanos: 0,
                }),
                ..PolicySubscription::default()
            },
            PolicySubscription {
                kind: "reading".to_owned(),
                key: "temperature.gpu".to_owned(),
                relative_to: "temperature.slowdown".to_owned(),
                above: Some(-3.0),
                below: Some(0.0),
                ..PolicySubscription::default()
            },
        ],
        verdict_diff: vec![format!("xid 63: {NASTY}")],
        ..GetPolicyResponse::default()
    }
}

#[test]
fn h12_a_description_tells_it_all() {
    let mut out = Vec::new();
    let now = jiff::Timestamp::from_second(1_000).unwrap();
    describe::describe(&mut out, &detail(), now, false).unwrap();
    let text = String::from_utf8(out).unwrap();
    let (a, b) = (digest('a'), digest('b'));
    let expected = format!(
        "\
Name:          xid-policy
Mode:          enforce
Phase:         running
Active:        1.0.0 sha256:{a} (bundled/xid-policy, )
Last good:     none
Held:          2.0.0 sha256:{b} (/policies/x.wasm, )
               a\\u{{1b}}[2J\\u{{202e}}\\nb
Fallback:      catalogue
May lower:     xid-79
Owns:          XidCriticalError (True is a problem): FallenOffTheBus, a\\u{{1b}}[2J\\u{{202e}}\\nb
Wants:         xid 63-64
Wants:         reading temperature.gpu above 85 changes over 2.5 every 10s at most
Wants:         reading temperature.gpu above temperature.slowdown-3 below temperature.slowdown
State schema:  0
Calls:         100 (2 trap); p99 <=10us
Limits hit:    4 host-calls
Used:          1075Ki memory at most, 0Ki state of one GPU at most, 3 instances
Shadow:        1 of 8 batches judged otherwise, 0 dropped
Judges otherwise than the version before:
  xid 63: a\\u{{1b}}[2J\\u{{202e}}\\nb
To do:
  devicectl policy accept xid-policy --digest bbbbbbbbbbbb
"
    );
    assert_eq!(text, expected);
}

fn outcome(name: &str, change: PolicyChange) -> PolicyOutcome {
    PolicyOutcome {
        name: name.to_owned(),
        change: change.into(),
        digest: digest('a'),
        detail: NASTY.to_owned(),
    }
}

#[test]
fn h6_a_reload_says_what_came_of_each_and_what_was_refused() {
    let print = |answer: &Report| {
        let mut out = Vec::new();
        command::print(&mut out, answer, false).unwrap();
        String::from_utf8(out).unwrap()
    };
    let mut answer = Report {
        outcomes: vec![
            outcome("good", PolicyChange::Swapped),
            outcome("held", PolicyChange::Held),
            outcome("slow", PolicyChange::Compiling),
        ],
        refused: String::new(),
        policy: None,
    };
    let text = print(&answer);
    assert!(
        text.contains("good   swapped     aaaaaaaaaaaa   a\\u{1b}[2J\\u{202e}\\nb\n"),
        "{text}"
    );
    assert!(text.ends_with("devicectl policy list\n"), "{text}");
    assert!(text.contains("slow   compiling   aaaaaaaaaaaa"), "{text}");
    assert_eq!(command::refusals(&answer, None), None);

    answer.outcomes.push(outcome("bad", PolicyChange::Refused));
    answer
        .outcomes
        .push(outcome("worse", PolicyChange::Refused));
    assert_eq!(
        command::refusals(&answer, None).as_deref(),
        Some("bad, worse")
    );

    answer.refused = "policies.yaml: unknown key".to_owned();
    assert_eq!(
        command::refusals(&answer, None).as_deref(),
        Some("the whole set (policies.yaml: unknown key)")
    );
    let text = print(&answer);
    let told = "The set was refused; of the one before:\n";
    assert!(text.starts_with(told) && text.contains("worse"), "{text}");
    answer.outcomes.clear();
    assert_eq!(
        print(&answer),
        "No version was taken up: the set was refused.\n"
    );
}

#[test]
fn h5_the_version_that_the_question_shows_is_the_one_that_is_meant() {
    let policy = policy("xid-policy");
    for (given, sent) in [("", digest('a')), ("bbbbbbbbbbbb", "b".repeat(12))] {
        let order = command::Order::Quarantine {
            reason: "why",
            digest: given,
        };
        let OnPolicy::Quarantine(request) = order.shown(&policy) else {
            panic!("{order:?}");
        };
        assert_eq!(request.digest, sent);
    }
}

#[test]
fn no_policys_text_drives_a_terminal_and_programs_get_it_whole() {
    let mut nasty = policy("xid-policy");
    nasty.detail = NASTY.to_owned();
    nasty.phase = PolicyPhase::Paused.into();
    nasty.active.as_mut().unwrap().version = NASTY.to_owned();
    nasty.quarantined = vec![aside(NASTY, '1', NASTY)];
    let text = listed(std::slice::from_ref(&nasty), true);
    assert!(
        !text
            .chars()
            .any(|c| c != '\n' && c.is_control() || c == '\u{202e}'),
        "{text:?}"
    );
    let value = serde_json::to_value(PolicyView::from(&nasty)).unwrap();
    assert_eq!(value["detail"], NASTY);
    assert_eq!(value["quarantined"][0]["why"], NASTY);
    assert_eq!(value["counters"]["latency"][0]["microsMax"], 5);
    assert_eq!(value["counters"]["limitsHit"][0]["limit"], "host-calls");
    assert!(value["counters"]["latency"][2].get("microsMax").is_none());
    let value = serde_json::to_value(DetailView::from(&detail())).unwrap();
    assert_eq!(value["name"], "xid-policy");
    assert_eq!(value["subscriptions"][1]["minIntervalSeconds"], 10.0);
    let answer = Report {
        outcomes: vec![
            outcome("a", PolicyChange::Held),
            outcome("b", PolicyChange::Compiling),
        ],
        refused: String::new(),
        policy: None,
    };
    let value = serde_json::to_value(ReportView::from(&answer)).unwrap();
    assert_eq!(value["outcomes"][0]["change"], "held");
    assert_eq!(value["outcomes"][1]["change"], "compiling");
}
