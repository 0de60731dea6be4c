//! The checker itself: histories that it must accept, and such that it must refuse, and why.

use super::*;

const A: Key = 0;
const B: Key = 1;
const FIELD: Field = 0;

/// The content of an object at a version; the field holds `value`.
fn content(version: Version, value: u64) -> Content {
    Content {
        digest: version * 1000,
        fields: [(FIELD, value)].into(),
    }
}

fn seen(key: Key, version: Version) -> Seen {
    Seen {
        key,
        version,
        content: version * 1000,
    }
}

fn change(version: Version, key: Key, kind: Kind, value: u64) -> Change {
    Change {
        version,
        key,
        kind,
        content: content(version, value),
    }
}

fn operation(began: Time, ended: Time, answer: Answer) -> Operation {
    Operation {
        began,
        ended,
        answer,
    }
}

fn wrote(key: Key, version: Version, value: u64) -> Answer {
    Answer::Wrote {
        seen: seen(key, version),
        field: Some((FIELD, value)),
        expected: None,
    }
}

fn list(version: Version, of: &[(Key, Version)]) -> Answer {
    let seen = of.iter().map(|(key, version)| seen(*key, *version));
    Answer::List {
        version,
        seen: seen.collect(),
    }
}

/// A at 1 and B at 2 when it begins; then A is written at 3, B at 4, A at 5: at 10, 20 and 30.
fn history(more: impl IntoIterator<Item = Operation>) -> History {
    let mut operations = vec![
        operation(10, 15, wrote(A, 3, 30)),
        operation(20, 25, wrote(B, 4, 40)),
        operation(30, 35, wrote(A, 5, 50)),
    ];
    operations.extend(more);
    History {
        start: 2,
        initial: vec![(seen(A, 1), content(1, 10)), (seen(B, 2), content(2, 20))],
        changes: vec![
            change(3, A, Kind::Modified, 30),
            change(4, B, Kind::Modified, 40),
            change(5, A, Kind::Modified, 50),
        ],
        operations,
        faults: Vec::new(),
    }
}

#[track_caller]
fn accepts(history: &History) {
    if let Err(violation) = check(history) {
        panic!("refused: {violation}");
    }
}

#[track_caller]
fn refuses(history: &History, is_it: impl Fn(&Violation) -> bool) {
    match check(history) {
        Ok(_) => panic!("accepted"),
        Err(violation) => assert!(is_it(&violation), "refused for another reason: {violation}"),
    }
}

#[test]
fn what_is_right_is_accepted() {
    accepts(&history([
        // Before, during and after the first write.
        operation(1, 5, Answer::Read(seen(A, 1))),
        operation(11, 14, Answer::Read(seen(A, 1))),
        operation(11, 14, Answer::Read(seen(A, 3))),
        operation(16, 17, Answer::Read(seen(A, 3))),
        operation(16, 36, list(3, &[(A, 3), (B, 2)])),
        operation(26, 29, list(4, &[(A, 3), (B, 4)])),
        operation(40, 41, list(5, &[(A, 5), (B, 4)])),
        operation(40, 41, Answer::Absent(7)),
        operation(40, 41, Answer::Present(A)),
        operation(
            40,
            41,
            Answer::Conflict {
                key: A,
                expected: 3,
            },
        ),
        // A write of what is there already is a read.
        operation(40, 41, wrote(A, 5, 50)),
    ]));
}

#[test]
fn c1_a_stale_read_is_refused() {
    let stale = operation(16, 17, Answer::Read(seen(A, 1)));
    refuses(&history([stale]), |v| {
        matches!(v, Violation::Stale { floor: 3, .. })
    });
}

/// Neither read is wrong alone: the second goes back behind the first.
#[test]
fn c1_going_back_is_refused() {
    let first = operation(11, 12, Answer::Read(seen(A, 3)));
    accepts(&history([first.clone()]));
    let second = operation(13, 14, Answer::Read(seen(A, 1)));
    accepts(&history([second.clone()]));
    refuses(&history([first, second]), |v| {
        matches!(v, Violation::Stale { floor: 3, .. })
    });
}

/// Over two objects: whoever saw B's write must see A's, which was before.
#[test]
fn c1_going_back_across_objects_is_refused() {
    let first = operation(21, 22, Answer::Read(seen(B, 4)));
    let second = operation(23, 24, Answer::Read(seen(A, 1)));
    refuses(&history([first, second]), |v| {
        matches!(v, Violation::Stale { .. })
    });
}

#[test]
fn c1_a_torn_list_is_refused() {
    for torn in [
        list(4, &[(A, 1), (B, 4)]),
        list(4, &[(A, 5), (B, 4)]),
        list(4, &[(A, 3)]),
        list(4, &[(A, 3), (A, 3), (B, 4)]),
        list(9, &[(A, 5), (B, 4)]),
    ] {
        let torn = operation(21, 40, torn);
        refuses(&history([torn]), |v| {
            matches!(v, Violation::TornList { .. })
        });
    }
}

#[test]
fn c1_a_list_of_the_past_is_refused() {
    let old = operation(26, 29, list(3, &[(A, 3), (B, 2)]));
    refuses(&history([old]), |v| {
        matches!(v, Violation::Stale { floor: 4, .. })
    });
}

#[test]
fn c5_a_version_with_two_contents_is_refused() {
    let other = Seen {
        content: 1,
        ..seen(A, 3)
    };
    let read = operation(16, 17, Answer::Read(other));
    refuses(&history([read]), |v| {
        matches!(v, Violation::TwoContents { .. })
    });
}

#[test]
fn c5_a_version_of_another_object_or_of_none_is_refused() {
    for unknown in [seen(B, 3), seen(A, 4), seen(A, 6), seen(9, 9)] {
        let read = operation(36, 37, Answer::Read(unknown));
        refuses(&history([read]), |v| {
            matches!(v, Violation::UnknownVersion(_))
        });
    }
}

#[test]
fn c5_versions_that_are_missing_or_come_again_are_refused() {
    for version in [4, 6, 9] {
        let mut bad = history([]);
        bad.changes[2].version = version;
        refuses(&bad, |v| matches!(v, Violation::Gap { after: 4, .. }));
    }
}

#[test]
fn untruthful_types_are_refused() {
    for kind in [Kind::Modified, Kind::Deleted] {
        let mut bad = history([]);
        bad.changes.push(change(6, 7, kind, 0));
        refuses(&bad, |v| matches!(v, Violation::Untruthful(_)));
    }
    let mut bad = history([]);
    bad.changes.push(change(6, A, Kind::Added, 0));
    refuses(&bad, |v| matches!(v, Violation::Untruthful(_)));
}

#[test]
fn what_is_seen_before_its_write_began_is_refused() {
    let early = operation(1, 2, Answer::Read(seen(A, 3)));
    refuses(&history([early]), |v| {
        matches!(v, Violation::SeenTooSoon { floor: 3, .. })
    });
}

/// Two writers of other fields: the second wrote back what it had read before the first wrote.
#[test]
fn p1_a_lost_update_of_a_field_is_refused() {
    const OTHER: Field = 1;
    let both = |version: Version, one: u64, two: u64| Content {
        digest: version * 1000,
        fields: [(FIELD, one), (OTHER, two)].into(),
    };
    let mut lost = history([]);
    lost.initial[0].1 = both(1, 10, 11);
    lost.changes[0].content = both(3, 30, 11);
    lost.changes[2].content = both(5, 30, 51);
    lost.operations[2].answer = Answer::Wrote {
        seen: seen(A, 5),
        field: Some((OTHER, 51)),
        expected: None,
    };
    accepts(&lost);
    lost.changes[2].content = both(5, 10, 51);
    refuses(&lost, |v| {
        matches!(
            v,
            Violation::FieldLost {
                version: 5,
                key: A,
                field: FIELD
            }
        )
    });
    lost.changes[2].content.fields = [(OTHER, 51)].into();
    refuses(&lost, |v| {
        matches!(
            v,
            Violation::FieldLost {
                version: 5,
                key: A,
                field: FIELD
            }
        )
    });
}

#[test]
fn an_acknowledged_write_that_is_not_there_is_refused() {
    let mut lost = history([]);
    lost.changes[2].content = content(5, 30);
    refuses(&lost, |v| {
        matches!(
            v,
            Violation::FieldLost {
                version: 5,
                key: A,
                field: FIELD
            }
        )
    });
}

#[test]
fn a_write_by_nobody_is_refused_but_one_that_was_not_answered_may_be() {
    let mut odd = history([]);
    odd.changes.push(change(6, B, Kind::Modified, 60));
    refuses(&odd, |v| {
        matches!(v, Violation::FieldLost { version: 6, .. })
    });
    let field = Some((FIELD, 60));
    odd.operations
        .push(operation(40, 50, Answer::Unknown { key: B, field }));
    accepts(&odd);
}

#[test]
fn an_update_of_another_version_than_expected_is_refused() {
    let expecting = |expected| {
        let mut history = history([]);
        history.operations[2].answer = Answer::Wrote {
            seen: seen(A, 5),
            field: Some((FIELD, 50)),
            expected: Some(expected),
        };
        history
    };
    accepts(&expecting(3));
    refuses(&expecting(1), |v| {
        matches!(
            v,
            Violation::LostUpdate {
                replaced: Some(3),
                ..
            }
        )
    });
}

#[test]
fn deletions_are_points_as_writes_are() {
    let mut history = history([operation(40, 45, Answer::Deleted(A))]);
    refuses(&history, |v| matches!(v, Violation::Stale { .. }));
    history.changes.push(change(6, A, Kind::Deleted, 50));
    accepts(&history);
    for answer in [Answer::Read(seen(A, 5)), Answer::Present(A)] {
        let mut late = history.clone();
        late.operations.push(operation(46, 47, answer));
        refuses(&late, |v| matches!(v, Violation::Stale { .. }));
    }
    history
        .operations
        .push(operation(46, 47, Answer::Absent(A)));
    history
        .operations
        .push(operation(48, 49, list(6, &[(B, 4)])));
    accepts(&history);
    history.changes.push(change(7, B, Kind::Deleted, 40));
    refuses(&history, |v| {
        matches!(v, Violation::DeletedByNobody { version: 7, key: B })
    });
}

#[test]
fn c2_a_read_after_a_fault_was_observed_and_before_its_decision_is_refused() {
    // A's write at 5 is the decision about something that was observed at 27.
    let with = |more| {
        let mut history = history([more]);
        history.faults.push(Fault {
            key: A,
            observed: 27,
            decided: 5,
        });
        history
    };
    let is_early = |v: &Violation| matches!(v, Violation::Early { .. });
    accepts(&with(operation(26, 40, Answer::Read(seen(A, 3)))));
    refuses(&with(operation(28, 40, Answer::Read(seen(A, 3)))), is_early);
    let old_list = list(4, &[(A, 3), (B, 4)]);
    accepts(&with(operation(26, 40, old_list.clone())));
    refuses(&with(operation(28, 40, old_list)), is_early);
    // Another object's readers don't wait, also for what is older.
    accepts(&with(operation(28, 29, Answer::Read(seen(B, 4)))));
    let held = with(operation(28, 40, Answer::Read(seen(A, 5))));
    assert_eq!(check(&held).map(|verdict| verdict.held), Ok(1));
}

/// A long random run of a store that does everything right, and the same with one answer made wrong.
#[test]
fn a_right_run_is_accepted_and_any_one_old_answer_in_it_is_refused() {
    let mut random = 0x9E37_79B9_u64;
    let mut next = move |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let mut newest = [(0, 1), (1, 2), (2, 3), (3, 4)].map(|(key, version)| seen(key, version));
    let mut run = History {
        start: 4,
        initial: newest.map(|s| (s, content(s.version, 0))).to_vec(),
        ..History::default()
    };
    let mut version = 4;
    for step in 0..10_000_u64 {
        let time = step * 10;
        let at = usize::try_from(next(4)).expect("fits");
        let answer = if next(3) == 0 {
            version += 1;
            let key = newest[at].key;
            newest[at] = seen(key, version);
            run.changes.push(change(version, key, Kind::Modified, step));
            wrote(key, version, step)
        } else if next(8) == 0 {
            Answer::List {
                version,
                seen: newest.into(),
            }
        } else {
            Answer::Read(newest[at])
        };
        run.operations.push(operation(time, time + 5, answer));
    }
    // Values start anew with each write, so that no write is a repetition.
    accepts(&run);
    let mut tried = 0;
    for at in (2000..10_000).step_by(97) {
        let Answer::Read(read) = run.operations[at].answer else {
            continue;
        };
        let older = run
            .changes
            .iter()
            .rev()
            .find(|c| c.key == read.key && c.version < read.version);
        let Some(older) = older else { continue };
        let mut bad = run.clone();
        bad.operations[at].answer = Answer::Read(seen(read.key, older.version));
        refuses(&bad, |v| matches!(v, Violation::Stale { .. }));
        tried += 1;
    }
    assert!(tried > 20, "{tried}");
}
