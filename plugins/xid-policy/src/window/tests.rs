use super::*;
use crate::XidPolicy;
use crate::finding::APPLICATION;
use device_policy_sdk::testing::Bench as SdkBench;
use device_policy_sdk::types::{Judgement, Verdict};

type Bench = SdkBench<XidPolicy>;

const THREE_A_DAY: &str =
    r#"{"windows":{"13":{"same":"gpc-tpc","count":3,"within_s":86400,"severity":"warning"}}}"#;
const HOUR_MS: u64 = 3_600_000;

fn at(gpc: u32, sm: u32) -> String {
    format!("Graphics SM Warp Exception on (GPC {gpc}, TPC 1, SM {sm}): Out Of Range Address")
}

/// One 13, and what then is said of its repeats.
fn fault(bench: &mut Bench, later_ms: u64, evidence: &str) -> Option<Verdict> {
    bench.host.now_ms += later_ms;
    let signal = bench.xid(13, evidence);
    let decision = bench.evaluate(&[signal]).unwrap();
    let of = |condition: &str| {
        let mut verdicts = decision.verdicts.iter();
        verdicts
            .find(|verdict| verdict.condition == condition)
            .cloned()
    };
    assert!(of(APPLICATION).is_some(), "the fault itself is judged too");
    of(REPEATS)
}

fn clears(verdict: &Verdict) -> Vec<(&str, u64)> {
    verdict
        .clears
        .iter()
        .map(|clear| (clear.on.as_str(), clear.after_ms))
        .collect()
}

#[test]
fn n6_the_third_at_one_place_in_a_day_asks_for_diagnostics() {
    let mut bench = Bench::new(THREE_A_DAY);
    assert_eq!(fault(&mut bench, 0, &at(7, 0)), None);
    assert_eq!(fault(&mut bench, HOUR_MS, &at(7, 1)), None);
    let verdict = fault(&mut bench, HOUR_MS, &at(7, 0)).expect("the third");
    assert_eq!(
        (verdict.severity, &*verdict.action, &*verdict.reason),
        (Severity::Warning, "RUN_DCGMEUD", "RepeatedFault")
    );
    for part in ["XID 13", "3 times within 24 h", "GPC 7, TPC 1"] {
        assert!(verdict.message.contains(part), "{}", verdict.message);
    }
    assert_eq!(
        clears(&verdict),
        [("quiet", 24 * HOUR_MS), ("replacement", 0), ("operator", 0)]
    );
    let fourth = fault(&mut bench, HOUR_MS, &at(7, 0)).expect("it stands");
    assert_eq!(fourth.message, verdict.message, "a repeat changes nothing");
}

#[test]
fn other_places_bursts_and_old_ones_do_not_count() {
    let mut bench = Bench::new(THREE_A_DAY);
    for gpc in 0..6 {
        assert_eq!(fault(&mut bench, HOUR_MS, &at(gpc, 0)), None, "elsewhere");
    }
    let mut bench = Bench::new(THREE_A_DAY);
    for _ in 0..50 {
        assert_eq!(fault(&mut bench, 1, &at(7, 0)), None, "one burst");
    }
    let mut bench = Bench::new(THREE_A_DAY);
    for _ in 0..10 {
        assert_eq!(
            fault(&mut bench, 12 * HOUR_MS, &at(7, 0)),
            None,
            "two a day"
        );
    }
    let mut bench = Bench::new(THREE_A_DAY);
    for _ in 0..10 {
        assert_eq!(fault(&mut bench, HOUR_MS, "no place told"), None);
    }
}

#[test]
fn it_stands_over_the_windows_end_and_counts_anew_when_cleared() {
    let mut bench = Bench::new(THREE_A_DAY);
    for _ in 0..3 {
        fault(&mut bench, HOUR_MS, &at(7, 0));
    }
    let late = fault(&mut bench, 23 * HOUR_MS, &at(7, 0));
    assert!(late.is_some(), "hysteresis: raised stays raised");
    bench.clear(REPEATS);
    assert_eq!(fault(&mut bench, HOUR_MS, &at(7, 0)), None);
    assert_eq!(fault(&mut bench, HOUR_MS, &at(7, 0)), None);
    assert!(fault(&mut bench, HOUR_MS, &at(7, 0)).is_some());
}

#[test]
fn a_batch_counts_like_calls_one_by_one() {
    let mut bench = Bench::new(THREE_A_DAY);
    let signals: Vec<Signal> = (0..4)
        .map(|hour| Signal {
            at_ms: bench.host.now_ms + hour * HOUR_MS,
            ..bench.xid(13, &at(7, 0))
        })
        .collect();
    bench.evaluate(&signals).unwrap();
    assert_eq!(
        bench.condition(REPEATS).map(|verdict| verdict.state),
        Some(Judgement::Problem)
    );
}

#[test]
fn n8_a_drill_never_fills_a_real_window() {
    let mut bench = Bench::new(THREE_A_DAY);
    for _ in 0..3 {
        bench.host.now_ms += HOUR_MS;
        let drill = Signal {
            drill: true,
            ..bench.xid(13, &at(7, 0))
        };
        bench.evaluate(&[drill]).unwrap();
    }
    assert!(bench.condition(REPEATS).is_some(), "a drill is judged");
    bench.clear(REPEATS);
    assert_eq!(fault(&mut bench, HOUR_MS, &at(7, 0)), None);
}

#[test]
fn n9_an_instances_repeats_stay_on_it() {
    let mut bench = Bench::new(THREE_A_DAY);
    for instance in ["MIG-1", "MIG-2", "MIG-1", "MIG-1"] {
        bench.host.now_ms += HOUR_MS;
        let signal = Signal {
            instance: Some(instance.to_owned()),
            ..bench.xid(13, &at(7, 0))
        };
        bench.evaluate(&[signal]).unwrap();
    }
    let raised: Vec<_> = bench
        .conditions
        .keys()
        .filter(|(condition, _)| condition == REPEATS)
        .collect();
    assert_eq!(raised, [&(REPEATS.to_owned(), Some("MIG-1".to_owned()))]);
}

#[test]
fn what_is_counted_is_bounded_and_foreign_bytes_begin_anew() {
    let mut bench = Bench::new(THREE_A_DAY);
    for gpc in 0..1000 {
        fault(&mut bench, 61_000, &at(gpc, 0));
    }
    let kept = bench.host.state.get("window/13").unwrap();
    assert_eq!(
        std::str::from_utf8(kept).unwrap().lines().count(),
        PLACES_MAX
    );
    assert!(kept.len() < 1024, "{}", kept.len());
    for bytes in [&b"\xff\xff"[..], b"a\tb\t2\t7\n", b"a\n", b"a\tb\t0\tx\n"] {
        let foreign = bytes.to_vec();
        bench.host.state.insert("window/13".to_owned(), foreign);
        bench.host.log.borrow_mut().clear();
        assert_eq!(fault(&mut bench, HOUR_MS, &at(7, 0)), None);
        assert!(bench.host.log.borrow()[0].contains("window/13 is not readable"));
    }
}

#[test]
fn a_quiet_time_of_none_leaves_it_to_a_person() {
    let mut bench = Bench::new(r#"{"windows":{"13":{"count":1,"quiet_s":0,"severity":"fatal"}}}"#);
    let verdict = fault(&mut bench, 0, "").unwrap();
    assert_eq!(clears(&verdict), [("replacement", 0), ("operator", 0)]);
    assert_eq!(verdict.severity, Severity::Fatal);
}

#[test]
fn n6_the_vendors_workflows_of_13_and_31_change_no_health() {
    let mut bench = Bench::new("");
    for _ in 0..3 {
        bench.host.now_ms += HOUR_MS;
        let signals = [bench.xid(13, &at(7, 0)), bench.xid(31, "MMU Fault")];
        bench.evaluate(&signals).unwrap();
    }
    let verdict = bench.condition(REPEATS).unwrap();
    assert_eq!(
        (verdict.severity, &*verdict.action),
        (Severity::Info, "RUN_DCGMEUD")
    );
    assert!(
        verdict.message.contains("Also standing: 13"),
        "{}",
        verdict.message
    );
    assert!(
        verdict.message.contains("stays healthy"),
        "{}",
        verdict.message
    );
}
