use std::sync::Arc;
use std::time::Duration;

use device_api_core::clock::WallTime;
use device_api_core::durable::Change;
use device_api_core::ids::SignalSeq;
use device_api_core::incident::{Incident, IncidentState, Wanted};
use device_api_core::signal::{Attr, SignalKind, Source, Target};

use super::*;

fn gpu() -> DeviceUuid {
    DeviceUuid::new("GPU-0")
}

fn xid(code: u64) -> Observation {
    Observation {
        code: Some(code),
        evidence: format!("XID {code}"),
        ..Observation::new(SignalKind::Xid, Target::Uuid(gpu()), Source::Nvml)
    }
}

fn at(seconds: u64) -> Told {
    let boot = BootTime::default().after(Duration::from_secs(seconds));
    Told {
        at: Moment {
            seq: SignalSeq(seconds),
            boot,
            wall: WallTime { unix_ns: boot.ns },
        },
        drill: false,
        repeats: 1,
    }
}

fn listed(incidents: &mut Incidents, at: Moment) -> Vec<Incident> {
    let max = usize::MAX;
    let all = Wanted {
        max,
        ..Wanted::newest()
    };
    incidents.sweep(at.boot);
    incidents.select(&all).list().listed
}

/// After some milliseconds of the first second.
fn soon(ms: u64) -> Told {
    let boot = BootTime::default().after(Duration::from_millis(ms));
    let moment = Moment { boot, ..at(0).at };
    Told {
        at: moment,
        ..at(0)
    }
}

#[test]
fn n5_one_fault_is_one_incident_whatever_the_source() {
    let (mut incidents, gpu) = (Incidents::default(), gpu());
    let (first, _) = incidents.of(&gpu, &xid(79), at(0));
    let from_kmsg = Observation {
        source: Source::Kmsg,
        evidence: "NVRM: Xid 79".to_owned(),
        ..xid(79)
    };
    assert_eq!(incidents.of(&gpu, &from_kmsg, at(1)).0, first);
    let lost = Observation {
        kind: SignalKind::GpuLost,
        code: None,
        ..xid(0)
    };
    let drill = Told {
        drill: true,
        ..at(2)
    };
    assert_eq!(incidents.of(&gpu, &lost, drill).0, first);
    assert_ne!(incidents.of(&gpu, &xid(48), at(2)).0, first);
    let other = DeviceUuid::new("GPU-1");
    assert_ne!(incidents.of(&other, &xid(79), at(2)).0, first);

    let listed = listed(&mut incidents, at(2).at);
    assert_eq!(listed.len(), 3);
    let fallen = listed.last().unwrap();
    assert_eq!((fallen.id, fallen.count, fallen.drill), (first, 3, false));
    assert_eq!((fallen.kind, fallen.code), (SignalKind::Xid, Some(79)));
    assert_eq!(fallen.last_seen, at(2).at.wall);
    let accounts: Vec<_> = fallen
        .accounts
        .iter()
        .map(|account| (&account.source, account.count, account.evidence.as_str()))
        .collect();
    assert_eq!(
        accounts,
        [
            (&Source::Nvml, 2, "XID 79"),
            (&Source::Kmsg, 1, "NVRM: Xid 79")
        ]
    );
}

#[test]
fn n5_an_incident_of_which_nothing_stands_closes_after_ten_quiet_minutes() {
    let (mut incidents, gpu) = (Incidents::default(), gpu());
    let (first, _) = incidents.of(&gpu, &xid(31), at(0));
    let quiet = limits::INCIDENT_QUIET.as_secs();
    assert_eq!(incidents.of(&gpu, &xid(31), at(quiet)).0, first);
    let later = at(2 * quiet + 1);
    assert_eq!(
        listed(&mut incidents, later.at)[0].state,
        IncidentState::Closed {
            at: at(2 * quiet).at.wall,
            why: "quiet".to_owned(),
        }
    );
    assert_eq!(incidents.len(), 0);
    let (second, _) = incidents.of(&gpu, &xid(31), later);
    assert_ne!(second, first);
    assert_eq!(
        listed(&mut incidents, later.at)
            .iter()
            .map(|i| i.id)
            .collect::<Vec<_>>(),
        [second, first],
        "the newest first"
    );
}

#[test]
fn n5_roots_are_the_logs_word_and_the_vendors_rules() {
    #[track_caller]
    fn check(first: &Observation, then: &Observation, after: Told, is_root: bool) {
        let (mut incidents, gpu) = (Incidents::default(), gpu());
        let (root, _) = incidents.of(&gpu, first, soon(0));
        let (follower, told) = incidents.of(&gpu, then, after);
        assert_eq!(told, is_root.then_some(root));
        let listed = listed(&mut incidents, after.at);
        let listed = listed.iter().find(|incident| incident.id == follower);
        assert_eq!(listed.unwrap().root, is_root.then_some(root));
    }
    let caused = Observation {
        caused_by: Some(145),
        ..xid(45)
    };
    check(&xid(145), &caused, at(60), true);
    for code in [63, 64, 94, 95] {
        check(&xid(48), &xid(code), soon(100), true);
        check(&xid(48), &xid(code), soon(101), false);
    }
    check(&xid(48), &xid(31), soon(1), false);
    check(&xid(13), &xid(45), at(10), true);
    check(&xid(13), &xid(45), at(11), false);
    check(&xid(13), &xid(31), at(1), false);
}

/// Field 230 says so.
fn action(value: i64) -> Observation {
    Observation {
        code: u64::try_from(value).ok(),
        attrs: vec![Attr::int("action", value)],
        ..Observation::new(
            SignalKind::RecoveryAction,
            Target::Uuid(gpu()),
            Source::Field230,
        )
    }
}

#[test]
fn n5_a_recovery_action_follows_the_xid_that_the_vendor_links_with_it() {
    #[track_caller]
    fn check(before: &[Observation], asked: &Observation, after: Told, root: Option<usize>) {
        let (mut incidents, gpu) = (Incidents::default(), gpu());
        let mut ids = Vec::new();
        for observation in before {
            ids.push(incidents.of(&gpu, observation, soon(0)).0);
        }
        let root = root.map(|at| ids[at]);
        let (id, told) = incidents.of(&gpu, asked, after);
        assert_eq!(told, root);
        let listed = listed(&mut incidents, after.at);
        let listed = listed.iter().find(|incident| incident.id == id).unwrap();
        assert_eq!(listed.root, root);
        // Told again by another source, long after.
        let (again, told) = incidents.of(&gpu, &action(2), at(60));
        assert_eq!((again, told), (id, None));
    }
    let lost = Observation {
        kind: SignalKind::GpuLost,
        code: None,
        ..xid(0)
    };
    for asked in [xid(154), action(1)] {
        check(&[xid(79)], &asked, at(10), Some(0));
        check(std::slice::from_ref(&lost), &asked, at(1), Some(0));
        check(&[xid(79)], &asked, at(11), None);
        // The first of its chain, and what the application does meanwhile is not it.
        check(&[xid(48), xid(94)], &asked, at(1), Some(0));
        check(&[xid(95), xid(31), xid(45)], &asked, at(1), Some(0));
        // No action is asked for on account of those.
        check(&[xid(31)], &asked, at(1), None);
        check(&[], &asked, at(1), None);
    }
    let (mut incidents, gpu) = (Incidents::default(), gpu());
    incidents.of(&gpu, &xid(79), at(0));
    assert_eq!(
        incidents.of(&gpu, &action(0), at(1)).1,
        None,
        "the end of one"
    );
    // The kernel log comes late.
    let (asked, _) = incidents.of(&gpu, &action(2), at(20));
    let (fallen, _) = incidents.of(&gpu, &xid(95), at(21));
    incidents.of(&gpu, &xid(154), at(22));
    let listed = listed(&mut incidents, at(22).at);
    let asked = listed.iter().find(|incident| incident.id == asked);
    assert_eq!(asked.unwrap().root, Some(fallen));
}

#[test]
fn n5_a_cleanup_follows_the_first_fault_of_a_chain_and_no_two_follow_each_other() {
    let (mut incidents, gpu) = (Incidents::default(), gpu());
    let (dbe, _) = incidents.of(&gpu, &xid(48), soon(0));
    incidents.of(&gpu, &xid(63), soon(2));
    assert_eq!(incidents.of(&gpu, &xid(45), soon(5)).1, Some(dbe));
    // A log that says of each that the other caused it.
    let mutual = |code, by| Observation {
        caused_by: Some(by),
        ..xid(code)
    };
    let (a, _) = incidents.of(&gpu, &mutual(119, 120), soon(6));
    let (b, _) = incidents.of(&gpu, &mutual(120, 119), soon(7));
    incidents.of(&gpu, &mutual(119, 120), soon(8));
    let listed = listed(&mut incidents, soon(8).at);
    let root = |id| listed.iter().find(|i| i.id == id).unwrap().root;
    assert_eq!((root(a), root(b)), (None, Some(a)));
}

#[test]
fn n5_a_storm_of_800000_repeats_of_29_codes_is_29_incidents_with_their_counts() {
    let (mut incidents, gpu) = (Incidents::default(), gpu());
    let storm: Vec<Observation> = (0..29).map(|n| xid(100 + n)).collect();
    const REPEATS: u64 = 800_000;
    for n in 0..REPEATS {
        let observation = &storm[n as usize % storm.len()];
        incidents.of(&gpu, observation, soon(n / 1000));
    }
    let listed = listed(&mut incidents, soon(800).at);
    assert_eq!(listed.len(), 29);
    assert_eq!(listed.iter().map(|i| i.count).sum::<u64>(), REPEATS);
    let each = REPEATS / 29;
    assert!(listed.iter().all(|i| [each, each + 1].contains(&i.count)));
}

#[test]
fn incidents_are_bounded_and_the_quietest_make_room() {
    let (mut incidents, gpu) = (Incidents::default(), gpu());
    let newest = 3 * limits::INCIDENTS_MAX as u64;
    for code in 1000..=1000 + newest {
        let told = Told {
            at: Moment {
                seq: SignalSeq(code),
                ..at(0).at
            },
            ..at(0)
        };
        incidents.of(&gpu, &xid(code), told);
        assert!(incidents.len() <= limits::INCIDENTS_MAX);
    }
    let listed = listed(&mut incidents, at(0).at);
    assert!(listed.len() <= limits::INCIDENTS_MAX + limits::INCIDENTS_CLOSED_MAX);
    assert_eq!(listed[0].code, Some(1000 + newest));
    assert_eq!(listed[0].state, IncidentState::Open);
    assert!(incidents.known[&gpu].faults.len() <= limits::INCIDENTS_MAX);
}

#[test]
fn what_is_no_fault_is_not_listed_and_readings_are_told_apart() {
    let (mut incidents, gpu) = (Incidents::default(), gpu());
    let reading = |key: &str| Observation {
        attrs: vec![Attr::text("key", key)],
        ..Observation::new(SignalKind::Reading, Target::Uuid(gpu.clone()), Source::Nvml)
    };
    let (hot, _) = incidents.of(&gpu, &reading("temperature.gpu"), at(0));
    assert_eq!(
        incidents.of(&gpu, &reading("temperature.gpu"), at(1)).0,
        hot
    );
    assert_ne!(incidents.of(&gpu, &reading("power.draw"), at(1)).0, hot);
    let none = Observation {
        attrs: vec![Attr::int("action", 0)],
        ..Observation::new(
            SignalKind::RecoveryAction,
            Target::Uuid(gpu.clone()),
            Source::Field230,
        )
    };
    incidents.of(&gpu, &none, at(1));
    assert_eq!(listed(&mut incidents, at(1).at), []);
    for n in 0..2 * limits::READINGS_PER_GPU_MAX {
        incidents.of(&gpu, &reading(&format!("made.up-{n}")), at(2));
    }
    let readings = incidents.known[&gpu].readings.len();
    assert_eq!(readings, limits::READINGS_PER_GPU_MAX);
    // What is past the bound is one, and the others stay what they are.
    let mut number = |key: &str| incidents.of(&gpu, &reading(key), at(3)).0;
    let (one, other) = (number("one.more"), number("and.another"));
    assert_eq!((one, other), (number("one.more"), number("one.more")));
    assert_eq!(number("temperature.gpu"), hot);
}

#[test]
fn n5_an_incident_has_its_xid_whichever_source_was_first() {
    #[track_caller]
    fn check(told: [Observation; 2], code: u64) {
        let (mut incidents, gpu) = (Incidents::default(), gpu());
        let ids = told.map(|observation| incidents.of(&gpu, &observation, at(0)).0);
        assert_eq!(ids[0], ids[1], "one fault");
        let listed = listed(&mut incidents, at(1).at);
        let shown = listed.iter().map(|it| (it.kind, it.code));
        let xid = (SignalKind::Xid, Some(code));
        assert_eq!(shown.collect::<Vec<_>>(), [xid], "{listed:?}");
        assert_eq!(listed[0].count, 2);
    }
    let lost = Observation {
        kind: SignalKind::GpuLost,
        code: None,
        ..xid(0)
    };
    check([lost.clone(), xid(79)], 79);
    check([xid(79), lost], 79);
    check([action(1), xid(154)], 154);
    check([xid(154), action(1)], 154);
}

#[test]
fn n5_what_is_news_is_written_once_and_a_lister_keeps_what_it_was_given() {
    let (mut incidents, gpu) = (Incidents::default(), gpu());
    let saved = |incidents: &mut Incidents, save| {
        let changes = incidents.unsaved(save).into_iter();
        let saved = changes.map(|change| {
            let Change::Incident(memory) = change else {
                panic!("{change:?}");
            };
            memory.incident.code.unwrap()
        });
        saved.collect::<Vec<_>>()
    };
    for code in [31, 43] {
        incidents.of(&gpu, &xid(code), at(0));
    }
    let selected = incidents.select(&Wanted::newest());
    assert_eq!(saved(&mut incidents, Save::News), [31, 43]);
    assert!(saved(&mut incidents, Save::News).is_empty());
    incidents.of(&gpu, &xid(43), at(1));
    assert!(saved(&mut incidents, Save::News).is_empty(), "a repeat");
    assert_eq!(saved(&mut incidents, Save::All), [43]);
    let by_another = Observation {
        source: Source::Kmsg,
        ..xid(31)
    };
    incidents.of(&gpu, &by_another, at(2));
    assert_eq!(saved(&mut incidents, Save::News), [31]);
    // One that is closed before it was written.
    incidents.of(&gpu, &xid(13), at(3));
    incidents.sweep(at(4 + limits::INCIDENT_QUIET.as_secs()).at.boot);
    let mut closed = saved(&mut incidents, Save::News);
    closed.sort();
    assert_eq!(closed, [13, 31, 43]);
    assert!(saved(&mut incidents, Save::All).is_empty());
    let again = [
        incidents.select(&Wanted::newest()),
        incidents.select(&Wanted::newest()),
    ];
    let [a, b] = again.map(|selected| selected.incidents);
    let is_shared = |(a, b): (&Arc<Incident>, &Arc<Incident>)| Arc::ptr_eq(a, b);
    assert_eq!(a.len(), 3);
    assert!(
        a.iter().zip(&b).all(is_shared),
        "none is copied to be picked"
    );
    let counts = selected.list().listed.into_iter().map(|it| it.count);
    assert_eq!(counts.collect::<Vec<_>>(), [1, 1]);
}

#[test]
fn n5_a_list_has_what_is_wanted_of_it_and_says_how_much_is_left_out() {
    let (mut incidents, gpu) = (Incidents::default(), gpu());
    let (first, _) = incidents.of(&gpu, &xid(31), at(0));
    let later = 2 * limits::INCIDENT_QUIET.as_secs();
    let ids: Vec<_> = (1..=5)
        .map(|n| incidents.of(&gpu, &xid(31 + n), at(later)).0)
        .collect();
    let other = DeviceUuid::new("GPU-1");
    let (elsewhere, _) = incidents.of(&other, &xid(31), at(later));
    incidents.sweep(at(later).at.boot);
    let check = |wanted: Wanted, expected: &[IncidentId], left_out: usize| {
        let told = incidents.select(&wanted).list();
        let listed: Vec<_> = told.listed.iter().map(|incident| incident.id).collect();
        assert_eq!(
            (&*listed, told.left_out),
            (expected, left_out),
            "{wanted:?}"
        );
    };
    let newest = Wanted::newest;
    let all = [elsewhere, ids[4], ids[3], ids[2], ids[1], ids[0], first];
    check(newest(), &all, 0);
    let max = 2;
    check(Wanted { max, ..newest() }, &all[..2], 5);
    let before = Some(ids[4]);
    check(
        Wanted {
            max,
            before,
            ..newest()
        },
        &all[2..4],
        3,
    );
    let device = Some(other.clone());
    check(Wanted { device, ..newest() }, &[elsewhere], 0);
    let open = Some(false);
    check(Wanted { open, ..newest() }, &[first], 0);
    let open = Some(true);
    check(
        Wanted {
            open,
            max,
            ..newest()
        },
        &all[..2],
        4,
    );
}

#[test]
fn n7_what_ends_which_faults() {
    #[track_caller]
    fn check(event: ClearOn, ends: &[&str]) {
        let (mut incidents, gpu) = (Incidents::default(), gpu());
        let lost = Observation {
            kind: SignalKind::GpuLost,
            code: None,
            ..xid(0)
        };
        let drilled = Told {
            drill: true,
            ..at(1)
        };
        let all = [
            ("fault", xid(48), at(1)),
            ("action", action(2), at(1)),
            ("lost", lost, at(1)),
            ("after", xid(63), at(3)),
            ("stands", xid(31), at(1)),
            ("drill", xid(13), drilled),
        ];
        let ids = all.map(|(name, told, at)| (name, incidents.of(&gpu, &told, at).0));
        incidents.change(ids[4].1, |record| record.raise("X"));
        let other = DeviceUuid::new("GPU-1");
        let (elsewhere, _) = incidents.of(&other, &xid(48), at(1));
        for (drill, over) in [(true, &[][..]), (false, ends)] {
            let ended = Ended {
                event,
                through: SignalSeq(2),
                drill,
            };
            incidents.end(&gpu, &ended, at(4).at);
            let of_drill = ends.contains(&"drill").then_some("drill");
            let over: Vec<_> = over.iter().copied().chain(of_drill).collect();
            for (name, id) in ids {
                let is_over = !incidents.open.contains_key(&id);
                assert_eq!(is_over, over.contains(&name), "{event:?} and {name}");
            }
            assert!(incidents.open.contains_key(&elsewhere));
        }
        let listed = listed(&mut incidents, at(4).at);
        let closed = listed.iter().filter_map(|it| match &it.state {
            IncidentState::Closed { why, .. } => Some(&**why),
            IncidentState::Open => None,
        });
        assert_eq!(closed.collect::<Vec<_>>(), vec![event.as_str(); ends.len()]);
        // What comes after is new, and follows what is.
        let is_new = ends.contains(&"fault");
        let (again, _) = incidents.of(&gpu, &xid(48), at(5));
        assert_eq!(again != ids[0].1, is_new);
        assert_eq!(incidents.of(&gpu, &xid(95), at(5)).1, Some(again));
    }
    let all = ["fault", "action", "lost", "drill"];
    check(ClearOn::GpuReset, &all);
    check(ClearOn::NodeReboot, &all);
    check(ClearOn::RecoveryNone, &["action"]);
    check(ClearOn::Replacement, &["lost"]);
    for none in [
        ClearOn::DriverRebind,
        ClearOn::Quiet,
        ClearOn::Policy,
        ClearOn::Operator,
    ] {
        check(none, &[]);
    }
}
