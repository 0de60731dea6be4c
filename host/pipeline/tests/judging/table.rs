//! The table of docs/clears.md ("What is cleared, and when it was seen"), walked: each event against each thing that may
//! stand (N7). The page's own cells say what is to come of it, so that neither can go its own way. In-process, on a clock
//! that is moved by hand; `tests/tests/clears.rs` walks what the real daemon meets.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use device_api_core::action::Action;
use device_api_core::clock::Clock as _;
use device_api_core::condition::{self, Condition, FALLBACK, FAULT_FLOOR, Owner};
use device_api_core::ids::DeviceUuid;
use device_api_core::limits;
use device_api_core::policy::{Evaluated, Evaluation, Outcome};
use device_api_core::recovery::Recovery;
use device_api_core::signal::{Attr, Observation, SignalKind, Source, Target};
use device_api_core::verdict::{Clear, ClearOn, Decision, Judgement, Severity};

use crate::rig::*;

const PAGE: &str = include_str!("../../../../docs/clears.md");

/// Long past each quiet time of these tests.
const AN_HOUR: Duration = Duration::from_hours(1);

/// The table's rows: the event's words, and the cells under [`Column::ALL`].
fn rows() -> Vec<(&'static str, [&'static str; 4])> {
    let mut lines = PAGE
        .lines()
        .skip_while(|line| !line.starts_with("| | a policy's |"));
    let cells = |line: &'static str| -> Vec<&'static str> {
        let line = line.trim_matches('|');
        line.split('|').map(str::trim).collect()
    };
    let header = lines.next().expect("the table is there");
    let columns = [
        "",
        "a policy's",
        "floor",
        "assumed (`PolicyFallback`)",
        "a provider's",
    ];
    assert_eq!(cells(header), columns);
    let rows = lines.skip(1).take_while(|line| line.starts_with('|'));
    let row = |line| {
        let row = <[&str; 5]>::try_from(cells(line));
        let [event, a, b, c, d] = row.expect("as many cells as the header has");
        (event, [a, b, c, d])
    };
    rows.map(row).collect()
}

/// What may stand.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stands {
    /// A policy's problem that names the event, or does not.
    Policys {
        named: bool,
    },
    /// Of an XID that no policy reports.
    Floor(u64),
    /// Of a recovery action that no policy reports.
    Asked,
    /// Of a GPU that does not answer, which no policy reports.
    Lost,
    /// What is assumed of an XID that nobody judges.
    Assumed,
    Providers,
}

use Stands::{Asked, Assumed, Floor, Lost, Policys, Providers};

impl Stands {
    /// By column.
    const ALL: [&[Self]; 4] = [
        &[Policys { named: true }, Policys { named: false }],
        &[
            Floor(48),
            Floor(64),
            Floor(79),
            Floor(95),
            Floor(140),
            Asked,
            Lost,
        ],
        &[Assumed],
        &[Providers],
    ];

    fn condition(self) -> &'static str {
        match self {
            Policys { .. } => "pFault",
            Floor(_) | Asked | Lost => FAULT_FLOOR,
            Assumed => FALLBACK,
            Providers => "Fan",
        }
    }

    /// Whether it is to stand after the event, as the cell has it.
    fn by(self, cell: &str) -> bool {
        match cell {
            "stands" => true,
            "cleared" | "the one that is shown" => false,
            "if named" | "if named, and older" => self == Policys { named: false },
            "kept, but for the loss: see below" | "the same" => self != Lost,
            codes => {
                let ended = codes.split(", ").any(|of| match of.parse() {
                    Ok(code) => self == Floor(code),
                    Err(_) => {
                        assert_eq!(of, "recovery actions", "a cell that nobody walks: {codes}");
                        self == Asked
                    }
                });
                !ended
            }
        }
    }
}

/// Makes it happen; the rig after it is another where the daemon was restarted.
type Happens = fn(Rig, &Arc<Scripted>, Stands) -> Rig;

/// What happens, and the way out that names it.
struct Event {
    words: &'static str,
    names: Option<ClearOn>,
    /// In each of its ways.
    happens: &'static [Happens],
}

const EVENTS: &[Event] = &[
    Event {
        words: "the daemon restarts, or is killed",
        names: None,
        happens: &[
            |rig, policy, _| rig.restarted(std::slice::from_ref(policy), false),
            |rig, policy, _| rig.killed(std::slice::from_ref(policy)),
        ],
    },
    Event {
        words: "the node reboots",
        names: Some(ClearOn::NodeReboot),
        happens: &[|rig, policy, _| rig.restarted(std::slice::from_ref(policy), true)],
    },
    Event {
        words: "`gpu-reset`, noticed or reported",
        names: Some(ClearOn::GpuReset),
        happens: &[
            |rig, _, _| {
                rig.reset();
                rig
            },
            |rig, _, _| {
                rig.report_reset();
                rig
            },
        ],
    },
    Event {
        words: "`driver-rebind`",
        names: Some(ClearOn::DriverRebind),
        happens: &[|rig, _, _| {
            rig.recovered(Recovery::DriverRebind);
            rig
        }],
    },
    Event {
        words: "another GPU in the slot",
        names: Some(ClearOn::Replacement),
        happens: &[|rig, _, _| {
            rig.found("GPU-NEW", "0000:1b:00.0");
            let by = DeviceUuid::new("GPU-NEW");
            rig.recovered(Recovery::Replaced { by });
            rig
        }],
    },
    Event {
        words: "`recovery-none`",
        names: Some(ClearOn::RecoveryNone),
        happens: &[|rig, policy, _| {
            rig.sink.observe(action(0));
            policy.answer_all();
            rig
        }],
    },
    Event {
        words: "`quiet`",
        names: Some(ClearOn::Quiet),
        happens: &[|rig, _, _| {
            rig.later(AN_HOUR);
            rig
        }],
    },
    Event {
        words: "its policy says `ok`",
        names: None,
        happens: &[|rig, policy, _| {
            rig.sink.observe(Observation {
                attrs: vec![Attr::text("error", "corrected")],
                ..Observation::new(SignalKind::Ecc, Target::Uuid(gpu()), Source::Nvml)
            });
            assert_eq!(policy.waiting(), 1);
            policy.answer_all();
            rig
        }],
    },
    Event {
        words: "an operator",
        names: None,
        happens: &[|rig, _, standing| {
            let cleared = rig.clear(standing.condition());
            assert_eq!(cleared.is_ok(), standing != Providers, "{cleared:?}");
            rig
        }],
    },
];

fn action(value: i64) -> Observation {
    Observation {
        attrs: vec![Attr::int("action", value)],
        ..Observation::new(
            SignalKind::RecoveryAction,
            Target::Uuid(gpu()),
            Source::Field230,
        )
    }
}

/// Calls 63 a problem with these ways out, any ECC event the end of it, and says nothing of anything else.
fn judge(evaluation: &Evaluation, clears: &[Clear]) -> Outcome {
    let says = |signal: &device_api_core::signal::Signal| {
        let (state, severity) = match (signal.kind, signal.code) {
            (SignalKind::Xid, Some(63)) => (Judgement::Problem, Severity::Warning),
            (SignalKind::Ecc, _) => (Judgement::Ok, Severity::Info),
            _ => return None,
        };
        let mut said = verdict("p", state, severity, Action::None, signal);
        said.clears = clears.to_vec();
        Some(said)
    };
    let verdicts = evaluation.signals.iter().filter_map(says).collect();
    Ok(Evaluated {
        decision: Decision {
            verdicts,
            ..Decision::default()
        },
        state: evaluation.state.clone(),
    })
}

/// The policy of a GPU on which it stands.
fn policy(standing: Stands, names: Option<ClearOn>) -> Arc<Scripted> {
    let after = if names == Some(ClearOn::Quiet) {
        Duration::from_secs(60)
    } else {
        Duration::ZERO
    };
    let named = names.filter(|_| standing == Policys { named: true });
    let named = named.map(|on| Clear { on, after });
    let clears: Vec<Clear> = std::iter::once(Clear::on(ClearOn::Operator))
        .chain(named)
        .collect();
    let kinds: &[SignalKind] = if standing == Assumed {
        &[SignalKind::Ecc]
    } else {
        &[SignalKind::Xid, SignalKind::Ecc]
    };
    let kinds = kinds.iter().copied().map(every).collect();
    Scripted::new("p", kinds, move |evaluation| judge(evaluation, &clears))
}

/// A GPU on which it stands, and that was looked at since.
#[track_caller]
fn stood(standing: Stands, names: Option<ClearOn>) -> (Rig, Arc<Scripted>) {
    let policy = policy(standing, names);
    let rig = Rig::new(std::slice::from_ref(&policy));
    match standing {
        Policys { .. } => rig.xid(63),
        Floor(code) => rig.xid(code),
        Asked => rig.sink.observe(action(1)),
        Lost => rig.sink.observe(Observation::new(
            SignalKind::GpuLost,
            Target::Uuid(gpu()),
            Source::Nvml,
        )),
        Assumed => rig.xid(46),
        Providers => provides(&rig),
    }
    policy.answer_all();
    // A double-bit error waits for what contains it.
    rig.later(limits::CONTAINMENT_WINDOW);
    assert!(rig.is_problem(standing.condition()), "{standing:?}");
    rig.looked();
    (rig, policy)
}

fn provides(rig: &Rig) {
    let mut devices = rig.cache.devices.lock().unwrap();
    let (_, conditions) = devices.get_mut(&gpu()).unwrap();
    let bare = Condition::of_host("Fan", Judgement::Problem, "Stopped", rig.clock.wall());
    let owner = Owner::Provider("agent".into());
    condition::upsert(conditions, Condition { owner, ..bare });
}

#[test]
fn n7_the_table_of_what_clears_what_holds_cell_by_cell() {
    let rows = rows();
    let mut walked = 0;
    for (words, cells) in &rows {
        if *words == "flapping" {
            // Walked by `clearing::n7_a_policys_condition_that_flaps_is_held_and_the_hosts_own_are_not`.
            assert_eq!(*cells, ["held", "at once", "at once", "at once"]);
            continue;
        }
        let event = EVENTS.iter().find(|event| event.words == *words);
        let event = event.unwrap_or_else(|| panic!("nobody walks the row {words:?}"));
        for (column, cell) in Stands::ALL.into_iter().zip(cells) {
            for standing in column {
                for happens in event.happens {
                    let (rig, policy) = stood(*standing, event.names);
                    let rig = happens(rig, &policy, *standing);
                    let is_problem = rig.is_problem(standing.condition());
                    assert_eq!(
                        is_problem,
                        standing.by(cell),
                        "{standing:?} after {words:?} ({cell:?}): {:#?}",
                        rig.cache.condition(&gpu(), standing.condition())
                    );
                    walked += 1;
                }
            }
        }
    }
    assert_eq!(rows.len(), EVENTS.len() + 1, "a row is missing on the page");
    assert!(walked > 100, "{walked} cells");
}

/// "if named, and older": what came with, or after, the word that no action is asked for any more stands.
#[test]
fn n7_a_recovery_action_that_is_none_ends_nothing_that_is_newer() {
    let standing = Policys { named: true };
    let policy = policy(standing, Some(ClearOn::RecoveryNone));
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.sink.observe(action(1));
    rig.sink.observe(action(0));
    rig.xid(63);
    policy.answer_all();
    assert!(rig.is_problem("pFault"));
    rig.sink.observe(action(0));
    assert!(!rig.is_problem("pFault"), "it is older now");
}

/// "the one that is shown", of what is assumed.
#[test]
fn n7_of_two_faults_that_are_assumed_an_operator_clears_the_one_that_is_shown() {
    let (rig, _) = stood(Assumed, None);
    rig.xid(62);
    rig.later(BARRIER_WAIT);
    let shown = || rig.cache.condition(&gpu(), FALLBACK).unwrap().message;
    let first = shown();
    rig.clear(FALLBACK).unwrap();
    assert!(rig.is_problem(FALLBACK));
    assert_ne!(shown(), first);
    rig.clear(FALLBACK).unwrap();
    assert!(!rig.is_problem(FALLBACK));
}

/// What is assumed ends with a policy's word on it, and with nothing less.
#[test]
fn n7_what_is_assumed_of_a_fault_is_over_once_it_is_judged() {
    let works = Arc::new(AtomicBool::new(false));
    let policy = Scripted::new("p", vec![every(SignalKind::Xid)], {
        let works = works.clone();
        move |evaluation| match works.load(Ordering::Relaxed) {
            true => judge(evaluation, &[]),
            false => fails(device_api_core::policy::FailureKind::Trap)(evaluation),
        }
    });
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.xid(46);
    policy.answer_all();
    assert!(rig.is_problem(FALLBACK));
    works.store(true, Ordering::Relaxed);
    rig.later(Duration::from_mins(1));
    policy.answer_all();
    assert!(!rig.is_problem(FALLBACK));
}
