//! What is told of policies.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use device_api_core::clock::WallTime;
use device_api_core::error::ApiError;
use device_api_core::policy::PolicyId;
use device_api_core::policy_status::{
    LATENCY_BUCKETS_MICROS, Mode, PolicyDetail, ReloadReport, SetAside, Version,
};
use device_api_core::ports::{Pending, PolicyCommand};

use super::super::tests::{check, rendered};
use super::*;

/// A policy host as far as a scrape goes.
#[derive(Debug, Default)]
struct Host(Mutex<Vec<PolicyStatus>>, PolicyHostStatus);

impl Host {
    fn change(&self, change: impl FnOnce(&mut Vec<PolicyStatus>)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Policies for Host {
    fn list(&self) -> Vec<PolicyStatus> {
        self.0.lock().expect("no test panics under it").clone()
    }

    fn host(&self) -> PolicyHostStatus {
        self.1.clone()
    }

    fn describe(&self, name: &str) -> Result<PolicyDetail, ApiError> {
        let name = name.to_owned();
        Err(ApiError::NoPolicy { name })
    }

    fn command(&self, _: PolicyCommand) -> Pending<Result<ReloadReport, ApiError>> {
        let why = "nothing but scrapes".to_owned();
        Box::pin(std::future::ready(Err(ApiError::Unavailable { why })))
    }
}

fn version(name: &str, version: &str) -> Version {
    Version {
        id: PolicyId {
            name: name.into(),
            version: version.into(),
            digest: "abc".into(),
        },
        origin: "bundled/xid-policy".into(),
        since: WallTime::from_ms(1),
    }
}

fn set_aside() -> SetAside {
    SetAside {
        id: None,
        digest: "def".into(),
        origin: "x.wasm".into(),
        since: WallTime::from_ms(1),
        why: "too eager".to_owned(),
    }
}

/// Of which everything has happened, each another number of times.
fn status(name: &str) -> PolicyStatus {
    let mut latency = [0; LATENCY_BUCKETS_MICROS.len() + 1];
    latency[0] = 60;
    latency[3] = 30;
    latency[12] = 10;
    PolicyStatus {
        name: name.into(),
        mode: Mode::Shadow,
        phase: Phase::LastGood,
        detail: "too eager".to_owned(),
        active: Some(version(name, "1.0")),
        last_good: Some(version(name, "1.0")),
        held: Some(set_aside()),
        quarantined: vec![set_aside(), set_aside()],
        refused: None,
        counters: PolicyCounters {
            limits_hit: [0, 3, 0, 0, 0, 0, 0, 1],
            calls: 100,
            failures: [1, 2, 3, 4, 5],
            latency,
            busy: Duration::from_millis(1_500),
            busy_cpu: Duration::from_millis(750),
            instances: 6,
            memory_bytes_peak: 1 << 20,
            state_bytes_peak: 77,
            log_lines_suppressed: 8,
            unknown_words: 9,
            swaps: 10,
            quarantines: 11,
            shadow_compared: 12,
            shadow_disagreements: 13,
            shadow_dropped: 14,
        },
    }
}

fn host_of(policies: Vec<PolicyStatus>) -> Arc<Host> {
    Arc::new(Host(Mutex::new(policies), PolicyHostStatus::default()))
}

fn watching(host: &Arc<Host>) -> Metrics {
    let metrics = Metrics::new().expect("metrics");
    metrics
        .watch_policies(host.clone())
        .expect("the first time");
    metrics
}

/// One policy to which everything has happened.
pub(in super::super) fn busy() -> Arc<dyn Policies> {
    let happened = || Some("why".to_owned());
    let host = PolicyHostStatus {
        refused: happened(),
        sets_refused: 1,
        unsaved: None,
        damage: happened(),
    };
    Arc::new(Host(Mutex::new(vec![status("xid-policy")]), host))
}

#[test]
fn the_histogram_has_the_buckets_that_are_counted() {
    let micros = catalog::POLICY_CALL
        .iter()
        .map(|bound| (bound * 1e6).round() as u64);
    assert_eq!(micros.collect::<Vec<_>>(), LATENCY_BUCKETS_MICROS);
}

#[test]
fn h12_each_number_of_a_policy_is_told() {
    let text = rendered(&watching(&host_of(vec![status("xid-policy")])));
    let check = |line: &str| check(&text, &format!("device_api_server_policy_{line}"));
    check(
        "info{digest=\"abc\",mode=\"shadow\",origin=\"bundled/xid-policy\",policy=\"xid-policy\",version=\"1.0\"} 1",
    );
    check("phase{phase=\"last-good\",policy=\"xid-policy\"} 1");
    check("phase{phase=\"running\",policy=\"xid-policy\"} 0");
    for (outcome, calls) in [
        ("ok", 85),
        ("refused", 1),
        ("trap", 2),
        ("deadline", 3),
        ("invalid", 4),
        ("unavailable", 5),
    ] {
        check(&format!(
            "evaluations_total{{outcome=\"{outcome}\",policy=\"xid-policy\"}} {calls}"
        ));
    }
    check("limits_hit_total{limit=\"memory\",policy=\"xid-policy\"} 3");
    check("limits_hit_total{limit=\"state\",policy=\"xid-policy\"} 1");
    for (name, value) in [
        ("cpu_seconds_total", "0.75"),
        ("deadline_misses_total", "3"),
        ("traps_total", "2"),
        ("instances_started_total", "6"),
        ("memory_peak_bytes", "1048576"),
        ("state_peak_bytes", "77"),
        ("log_lines_dropped_total", "8"),
        ("unknown_words_total", "9"),
        ("swaps_total", "10"),
        ("quarantines_total", "11"),
        ("quarantined_versions", "2"),
        ("held_versions", "1"),
        ("shadow_compared_total", "12"),
        ("shadow_disagreements_total", "13"),
        ("shadow_dropped_total", "14"),
    ] {
        check(&format!("{name}{{policy=\"xid-policy\"}} {value}"));
    }
}

#[test]
fn h5_what_is_no_single_policys_affair_is_told_without_a_policy() {
    #[track_caller]
    fn told(host: PolicyHostStatus, expected: [u64; 4]) {
        let text = rendered(&watching(&Arc::new(Host(Mutex::default(), host))));
        let names = [
            "set_refused",
            "sets_refused_total",
            "ledger_writable",
            "ledger_set_aside_total",
        ];
        for (name, value) in names.into_iter().zip(expected) {
            check(&text, &format!("device_api_server_policy_{name} {value}"));
        }
    }
    told(PolicyHostStatus::default(), [0, 0, 1, 0]);
    let why = || Some("why".to_owned());
    let host = PolicyHostStatus {
        refused: why(),
        sets_refused: 3,
        unsaved: why(),
        damage: why(),
    };
    told(host, [1, 3, 0, 1]);
}

#[test]
fn durations_are_a_histogram_with_cumulative_buckets() {
    let text = rendered(&watching(&host_of(vec![status("xid-policy")])));
    for (le, calls) in [
        ("0.000001", 60),
        ("0.000005", 60),
        ("0.00001", 90),
        ("0.025", 90),
        ("+Inf", 100),
    ] {
        check(
            &text,
            &format!(
                "device_api_server_policy_call_duration_seconds_bucket{{policy=\"xid-policy\",le=\"{le}\"}} {calls}"
            ),
        );
    }
    for (of, value) in [("sum", "1.5"), ("count", "100")] {
        check(
            &text,
            &format!(
                "device_api_server_policy_call_duration_seconds_{of}{{policy=\"xid-policy\"}} {value}"
            ),
        );
    }
}

#[test]
fn a_version_that_was_replaced_and_a_policy_that_is_gone_are_no_longer_told_of() {
    let host = host_of(vec![status("xid-policy"), status("extra")]);
    let metrics = watching(&host);
    let text = rendered(&metrics);
    assert!(
        text.contains("version=\"1.0\"") && text.contains("\"extra\""),
        "{text}"
    );
    host.change(|policies| {
        policies.truncate(1);
        policies[0].active = Some(version("xid-policy", "1.1"));
    });
    let text = rendered(&metrics);
    assert!(
        text.contains("version=\"1.1\"") && !text.contains("version=\"1.0\""),
        "{text}"
    );
    assert!(!text.contains("\"extra\""), "{text}");
    host.change(|policies| policies[0].active = None);
    let text = rendered(&metrics);
    assert!(!text.contains("policy_info{"), "{text}");
    host.change(Vec::clear);
    assert!(!rendered(&metrics).contains("policy=\""));
}

/// Names are checked where policies are loaded. Were one not, it would still be one label of one line.
#[test]
fn a_hostile_name_stays_a_label() {
    let name = "x\"} 1\ndevice_api_server_up 0\n\\\u{1b}[2J{";
    let text = rendered(&watching(&host_of(vec![status(name)])));
    check(&text, "device_api_server_up 1");
    assert!(
        !text.lines().any(|line| line == "device_api_server_up 0"),
        "{text}"
    );
    let told = "device_api_server_policy_traps_total{policy=\"x\\\"} 1\\ndevice_api_server_up 0\\n\\\\\u{1b}[2J{\"} 2";
    check(&text, told);
}

#[test]
fn series_are_as_many_as_there_may_be_policies_and_none_is_there_twice() {
    let mut policies: Vec<_> = (0..2 * POLICIES_MAX)
        .map(|n| status(&format!("policy-{n:02}")))
        .collect();
    policies.insert(0, status("policy-00"));
    let text = rendered(&watching(&host_of(policies)));
    let mut traps: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("device_api_server_policy_traps_total{"))
        .collect();
    assert_eq!(traps.len(), POLICIES_MAX);
    traps.dedup();
    assert_eq!(traps.len(), POLICIES_MAX);
}

#[test]
fn files_that_are_no_policies_hide_no_series_of_those_that_judge() {
    let mut policies: Vec<_> = (0..2 * POLICIES_MAX)
        .map(|n| PolicyStatus {
            active: None,
            phase: Phase::Refused,
            last_good: None,
            held: None,
            quarantined: Vec::new(),
            ..status(&format!("a{n:02}"))
        })
        .collect();
    policies.push(status("xid-policy"));
    policies.push(PolicyStatus {
        active: None,
        phase: Phase::Quarantined,
        ..status("z-policy")
    });
    let text = rendered(&watching(&host_of(policies)));
    for name in ["xid-policy", "z-policy"] {
        assert!(text.contains(&format!("policy=\"{name}\"")), "{text}");
    }
}

#[test]
fn counts_that_disagree_make_no_negative_number() {
    let mut policy = status("xid-policy");
    policy.counters.calls = 0;
    let text = rendered(&watching(&host_of(vec![policy])));
    check(
        &text,
        "device_api_server_policy_evaluations_total{outcome=\"ok\",policy=\"xid-policy\"} 0",
    );
}
