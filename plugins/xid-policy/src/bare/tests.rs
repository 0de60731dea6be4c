//! A bare code and its line, as the daemon hands them over: each call on a fresh instance, so that every test is
//! one of a restart too.

use device_policy_sdk::testing::Bench as SdkBench;
use device_policy_sdk::types::{Decision, Judgement, Severity, Signal};

use super::*;
use crate::XidPolicy;
use crate::finding::{APPLICATION, CRITICAL};

type Bench = SdkBench<XidPolicy>;

/// Of 145: restart the application. Of 149: reset the GPU.
const HARMLESS: &str =
    "RLW_SRC_TRACK Nonfatal XC1 i0 Link 17 (0x04084507 0x00000004 0x00000000 0x00000000)";
const HARMLESS_TOO: &str =
    "RLW_SRC_TRACK Nonfatal XC1 i0 Link 03 (0x04084507 0x00000004 0x00000000 0x00000000)";
/// Of 144, alike but for the error status.
const SAFE: &str = "SAW_MVB Nonfatal XC0 i0 Link 3 (0x00000001 0x00000008 0x00000000)";
const NEEDS_RESET: &str = "SAW_MVB Fatal XC0 i0 Link 5 (0x00000001 0x00000002 0x00000000)";
const UNKNOWN: &str = "SAW_MVB Nonfatal XC0 i0 Link 3 (0x00000001 0x40000001)";

/// As NVML tells it.
fn bare(bench: &mut Bench, code: u64) -> Signal {
    Signal {
        sources: vec!["nvml".to_owned()],
        ..bench.xid(code, &format!("NVML event XidCriticalError {code}"))
    }
}

#[track_caller]
fn see(bench: &mut Bench, signal: Signal) -> Decision {
    bench.evaluate(&[signal]).unwrap()
}

#[track_caller]
fn see_bare(bench: &mut Bench, code: u64) -> Decision {
    let signal = bare(bench, code);
    see(bench, signal)
}

#[track_caller]
fn see_line(bench: &mut Bench, code: u64, line: &str) -> Decision {
    let signal = bench.xid(code, line);
    see(bench, signal)
}

/// So much time passes, and the wake with it.
#[track_caller]
fn wake(bench: &mut Bench, after_ms: u64) -> Decision {
    bench.host.now_ms += after_ms;
    let timer = bench.timer(WAKE);
    see(bench, timer)
}

/// Conditions that are problems, with their reasons.
fn problems(bench: &Bench) -> Vec<(&str, &str)> {
    let all = bench.conditions.iter();
    let problems = all.filter(|(_, verdict)| verdict.state == Judgement::Problem);
    problems
        .map(|((condition, _), verdict)| (condition.as_str(), verdict.reason.as_str()))
        .collect()
}

fn after(decision: &Decision) -> Vec<(&str, u64)> {
    let wakes = decision.wakes.iter();
    wakes
        .map(|wake| (wake.name.as_str(), wake.after_ms))
        .collect()
}

const APPLICATION_FAULT: (&str, &str) = (APPLICATION, "ApplicationFault");
const AWAITING: (&str, &str) = (DEGRADED, "AwaitingKernelLine");
const UNDECODED: (&str, &str) = (DEGRADED, "UndecodedNvLinkError");

#[test]
fn n5_a_code_that_both_sources_tell_is_judged_once_by_its_line_in_either_order() {
    for codes in [[145, 145], [144, 144], [74, 74]] {
        let line = match codes[0] {
            145 => HARMLESS,
            144 => SAFE,
            _ => "NVLink: fatal error detected on link 14(0x1, 0x0, 0x0, 0x0, 0x0, 0x0, 0x0)",
        };
        for line_first in [true, false] {
            for together in [true, false] {
                let mut bench = Bench::new("");
                let mut pair = [bare(&mut bench, codes[0]), bench.xid(codes[1], line)];
                if line_first {
                    pair.swap(0, 1);
                }
                if together {
                    assert_eq!(bench.evaluate(&pair).unwrap().wakes, []);
                } else {
                    for signal in pair {
                        bench.host.now_ms += 5;
                        see(&mut bench, signal);
                    }
                }
                let seen = problems(&bench);
                assert_eq!(seen.len(), 1, "{codes:?} {line_first} {together}: {seen:?}");
                assert_eq!(seen[0].0, APPLICATION);
                wake(&mut bench, WINDOW_MS);
                assert_eq!(problems(&bench).len(), 1);
            }
        }
    }
}

#[test]
fn n5_what_waits_for_its_line_is_not_told_healthy_and_asks_for_nothing() {
    let mut bench = Bench::new("");
    let decision = see_bare(&mut bench, 145);
    assert_eq!(problems(&bench), [AWAITING]);
    let verdict = &decision.verdicts[0];
    assert_eq!(
        (verdict.severity, verdict.action.as_str()),
        (Severity::Warning, "NONE")
    );
    assert_eq!(after(&decision), [(WAKE, WINDOW_MS)]);
    let provisional = attr::of_text("provisional", &verdict.reason);
    assert_eq!(decision.attrs, [provisional]);
    let again = see_bare(&mut bench, 145);
    assert_eq!(after(&again), [], "a second one must not put the end off");
    assert_eq!(again.verdicts[0].message, verdict.message);
    let line = see_line(&mut bench, 145, HARMLESS);
    assert_eq!(after(&line), [(WAKE, 0)]);
    assert_eq!(line.attrs, []);
    assert_eq!(problems(&bench), [APPLICATION_FAULT]);
}

#[test]
fn n6_a_bare_code_of_which_no_line_comes_is_undecoded_each_time() {
    let mut bench = Bench::new("");
    see_bare(&mut bench, 145);
    wake(&mut bench, WINDOW_MS);
    assert_eq!(problems(&bench), [UNDECODED]);
    let verdict = bench.condition(DEGRADED).unwrap();
    assert_eq!(
        (verdict.severity, verdict.action.as_str()),
        (Severity::Warning, "CONTACT_SUPPORT")
    );
    for part in [
        "XID 145",
        "contact support",
        "NVML event XidCriticalError 145",
    ] {
        assert!(verdict.message.contains(part), "{}", verdict.message);
    }
    // Minutes later: another, of an error that was decoded before.
    let mut bench = Bench::new("");
    see_line(&mut bench, 145, HARMLESS);
    see_bare(&mut bench, 145);
    bench.host.now_ms += 180_000;
    let decision = see_bare(&mut bench, 145);
    assert_eq!(after(&decision), [(WAKE, WINDOW_MS)]);
    wake(&mut bench, WINDOW_MS);
    assert_eq!(problems(&bench), [APPLICATION_FAULT, UNDECODED]);
}

#[test]
fn a_late_line_takes_back_what_the_bare_code_raised_and_no_more() {
    let mut bench = Bench::new("");
    see_bare(&mut bench, 145);
    wake(&mut bench, WINDOW_MS);
    bench.host.now_ms += 30_000;
    see_line(&mut bench, 145, HARMLESS);
    assert_eq!(problems(&bench), [APPLICATION_FAULT]);
    // A late line speaks for the past: what comes now waits for its own.
    bench.host.now_ms += 10;
    see_bare(&mut bench, 145);
    assert_eq!(problems(&bench), [APPLICATION_FAULT, AWAITING]);

    // One that is harmful is no less so for being late, and takes the bare code's word away too.
    let mut bench = Bench::new("");
    see_bare(&mut bench, 144);
    wake(&mut bench, WINDOW_MS);
    bench.host.now_ms += 30_000;
    see_line(&mut bench, 144, NEEDS_RESET);
    assert_eq!(problems(&bench), [(CRITICAL, "GpuResetRequired")]);

    // Of an error that was told without a line long ago, one of today says nothing.
    let mut bench = Bench::new("");
    see_bare(&mut bench, 145);
    wake(&mut bench, WINDOW_MS);
    bench.host.now_ms += 3_600_000;
    see_bare(&mut bench, 145);
    see_line(&mut bench, 145, HARMLESS);
    assert_eq!(problems(&bench), [APPLICATION_FAULT, UNDECODED]);
}

#[test]
fn a_line_speaks_for_the_bare_code_beside_it_before_an_older_one() {
    let mut bench = Bench::new("");
    see_bare(&mut bench, 145);
    wake(&mut bench, WINDOW_MS);
    bench.host.now_ms += 60_000;
    see_bare(&mut bench, 145);
    bench.host.now_ms += 5;
    see_line(&mut bench, 145, HARMLESS);
    assert_eq!(
        problems(&bench),
        [APPLICATION_FAULT, UNDECODED],
        "the first is as unknown as it was"
    );
}

#[test]
fn of_several_errors_of_one_code_each_line_counts() {
    let orders: [&[&str]; 4] = [
        &["", "", SAFE, NEEDS_RESET],
        &["", "", NEEDS_RESET, SAFE],
        &[NEEDS_RESET, SAFE, "", ""],
        &["", SAFE, "", NEEDS_RESET],
    ];
    for order in orders {
        let mut bench = Bench::new("");
        for line in order {
            bench.host.now_ms += 5;
            let signal = match *line {
                "" => bare(&mut bench, 144),
                line => bench.xid(144, line),
            };
            see(&mut bench, signal);
        }
        wake(&mut bench, WINDOW_MS);
        assert_eq!(
            problems(&bench),
            [
                (APPLICATION, "Informational"),
                (CRITICAL, "GpuResetRequired")
            ],
            "{order:?}"
        );
    }
}

#[test]
fn what_a_line_left_undecoded_is_not_taken_back_by_another_line() {
    for unknown in [UNKNOWN, "SAW_MVB Nonfatal XC0"] {
        let mut bench = Bench::new("");
        see_bare(&mut bench, 144);
        see_line(&mut bench, 144, unknown);
        assert_eq!(problems(&bench), [UNDECODED], "at once, {unknown}");
        for _ in 0..3 {
            see_bare(&mut bench, 144);
            see_line(&mut bench, 144, SAFE);
            wake(&mut bench, WINDOW_MS);
            assert_eq!(
                problems(&bench),
                [(APPLICATION, "Informational"), UNDECODED],
                "{unknown}"
            );
        }
    }
    // Nor where a bare code had been left undecoded before.
    let mut bench = Bench::new("");
    see_bare(&mut bench, 144);
    wake(&mut bench, WINDOW_MS);
    see_bare(&mut bench, 144);
    see_line(&mut bench, 144, UNKNOWN);
    see_line(&mut bench, 144, SAFE);
    assert_eq!(
        problems(&bench),
        [(APPLICATION, "Informational"), UNDECODED]
    );
}

#[test]
fn n5_a_storm_is_judged_by_the_lines_that_it_left() {
    let mut bench = Bench::new("");
    let mut decisions = 0;
    for at in 0..100_u32 {
        bench.host.now_ms += 50;
        let storm = Signal {
            repeats: 100,
            ..bare(&mut bench, 145)
        };
        decisions += see(&mut bench, storm).verdicts.len();
        if at < 20 {
            let line = if at % 2 == 0 { HARMLESS } else { HARMLESS_TOO };
            see_line(&mut bench, 145, line);
        }
    }
    assert_eq!(problems(&bench), [APPLICATION_FAULT]);
    assert_eq!(decisions, 1, "the first alone had to wait");
    // It does not speak for ever: what goes on and on without a line is unknown.
    for _ in 0..200 {
        bench.host.now_ms += 50;
        see_bare(&mut bench, 145);
    }
    assert_eq!(problems(&bench), [APPLICATION_FAULT, AWAITING]);
}

#[test]
fn n9_lines_and_bare_codes_of_instances_and_codes_are_their_own() {
    let mut bench = Bench::new("");
    let on = |signal: Signal| Signal {
        instance: Some("MIG-1".to_owned()),
        ..signal
    };
    let of_instance = on(bare(&mut bench, 145));
    see(&mut bench, of_instance);
    see_bare(&mut bench, 145);
    see_bare(&mut bench, 144);
    see_line(&mut bench, 145, HARMLESS);
    let on_instance = (DEGRADED.to_owned(), Some("MIG-1".to_owned()));
    let reason = |bench: &Bench| bench.conditions[&on_instance].reason.clone();
    assert_eq!(reason(&bench), "AwaitingKernelLine");
    assert_eq!(
        bench.condition(DEGRADED).unwrap().reason,
        "AwaitingKernelLine"
    );
    wake(&mut bench, WINDOW_MS);
    assert_eq!(reason(&bench), "UndecodedNvLinkError");
    let line = on(bench.xid(145, HARMLESS));
    see(&mut bench, line);
    assert!(!bench.conditions[&on_instance].message.contains("145"));
    assert_eq!(
        bench.condition(DEGRADED).unwrap().reason,
        "UndecodedNvLinkError",
        "144, of which no line came"
    );
    let line = bench.xid(144, SAFE);
    see(&mut bench, line);
    assert_eq!(bench.condition(DEGRADED).unwrap().state, Judgement::Ok);
}

#[test]
fn n8_a_drills_line_speaks_for_no_real_error() {
    let mut bench = Bench::new("");
    let drill = |signal: Signal| Signal {
        drill: true,
        ..signal
    };
    let line = drill(bench.xid(145, HARMLESS));
    see(&mut bench, line);
    let decision = see_bare(&mut bench, 145);
    assert_eq!(after(&decision), [(WAKE, WINDOW_MS)]);
    let line = drill(bench.xid(145, HARMLESS));
    see(&mut bench, line);
    wake(&mut bench, WINDOW_MS);
    assert_eq!(bench.condition(DEGRADED).unwrap().reason, UNDECODED.1);
    let line = drill(bench.xid(145, HARMLESS));
    see(&mut bench, line);
    assert_eq!(bench.condition(DEGRADED).unwrap().reason, UNDECODED.1);
}

#[test]
fn one_that_comes_just_before_the_wake_of_another_has_its_own_time() {
    let mut bench = Bench::new("");
    see_bare(&mut bench, 145);
    bench.host.now_ms += 900;
    see_bare(&mut bench, 147);
    let decision = wake(&mut bench, 100);
    assert_eq!(after(&decision), [(WAKE, WINDOW_MS)]);
    let message = &bench.condition(DEGRADED).unwrap().message;
    assert!(message.contains("147 (AwaitingKernelLine)"), "{message}");
    let decision = wake(&mut bench, WINDOW_MS);
    assert_eq!(after(&decision), []);
    let message = &bench.condition(DEGRADED).unwrap().message;
    assert!(message.contains("145 (UndecodedNvLinkError)"), "{message}");
}

#[test]
fn what_the_host_cleared_while_it_waited_is_not_raised_by_the_wake() {
    let mut bench = Bench::new("");
    see_bare(&mut bench, 145);
    bench.clear(DEGRADED);
    assert_eq!(wake(&mut bench, WINDOW_MS).verdicts, []);
    see_bare(&mut bench, 145);
    assert_eq!(problems(&bench), [AWAITING], "and what comes again is");
}

#[test]
fn another_code_of_the_condition_stays_when_a_line_takes_the_bare_code_back() {
    let mut bench = Bench::new("");
    see_line(&mut bench, 54, "");
    see_bare(&mut bench, 145);
    see_line(&mut bench, 145, HARMLESS);
    assert_eq!(
        problems(&bench),
        [APPLICATION_FAULT, (DEGRADED, "CheckMechanicals")]
    );
    let message = &bench.condition(DEGRADED).unwrap().message;
    assert!(!message.contains("145"), "{message}");
}

#[test]
fn n6_where_the_site_has_fixed_what_a_code_is_nothing_waits() {
    for (config, condition) in [
        (r#"{"profile":"device-plugin"}"#, CRITICAL),
        (r#"{"profile":"gke"}"#, APPLICATION),
        (r#"{"profile":"eks"}"#, APPLICATION),
        (r#"{"profile":"gpud"}"#, APPLICATION),
        (r#"{"extra_fatal":[145]}"#, CRITICAL),
        (r#"{"overrides":{"145":{"severity":"info"}}}"#, APPLICATION),
    ] {
        for order in [[true, false], [false, true]] {
            let mut bench = Bench::new(config);
            for is_bare in order {
                let signal = if is_bare {
                    bare(&mut bench, 145)
                } else {
                    bench.xid(145, HARMLESS)
                };
                assert_eq!(see(&mut bench, signal).wakes, [], "{config}");
                let seen: Vec<&str> = problems(&bench).iter().map(|it| it.0).collect();
                assert_eq!(seen, [condition], "{config}");
            }
        }
    }
    let mut bench = Bench::new(r#"{"ignored":[145]}"#);
    assert_eq!(see_bare(&mut bench, 145), Decision::default());
    assert_eq!(see_line(&mut bench, 145, HARMLESS), Decision::default());
    // An action alone leaves the severity to the line.
    let mut bench = Bench::new(r#"{"overrides":{"145":{"action":"RESTART_BM"}}}"#);
    see_bare(&mut bench, 145);
    assert_eq!(problems(&bench), [AWAITING]);
    wake(&mut bench, WINDOW_MS);
    assert_eq!(problems(&bench), [(DEGRADED, "ConfiguredByOperator")]);
    assert_eq!(bench.condition(DEGRADED).unwrap().action, "RESTART_BM");
    see_line(&mut bench, 145, HARMLESS);
    assert_eq!(problems(&bench), [(APPLICATION, "ConfiguredByOperator")]);
}

#[test]
fn n6_gpud_asks_the_line_and_has_one_word_of_it() {
    for order in [[true, false], [false, true]] {
        let mut bench = Bench::new(r#"{"profile":"gpud"}"#);
        for is_bare in order {
            let signal = if is_bare {
                bare(&mut bench, 144)
            } else {
                bench.xid(144, NEEDS_RESET)
            };
            see(&mut bench, signal);
        }
        assert_eq!(problems(&bench), [(CRITICAL, "JudgedByProfile")]);
    }
}

#[test]
fn a_ledger_that_is_not_ours_is_begun_anew() {
    let mut bench = Bench::new("");
    see_line(&mut bench, 145, HARMLESS);
    bench.host.state.insert("bare".to_owned(), vec![0xff; 9]);
    see_bare(&mut bench, 145);
    assert_eq!(problems(&bench), [APPLICATION_FAULT, AWAITING]);
    assert!(bench.host.log.borrow()[0].contains("not readable"));
}
