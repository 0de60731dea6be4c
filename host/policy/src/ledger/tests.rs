use std::fs;

use super::*;
use crate::source::Bytes;

fn now() -> WallTime {
    WallTime::from_ms(7)
}

fn kept(digest: &str) -> Kept {
    Kept {
        digest: digest.to_owned(),
        version: "1.0.0".to_owned(),
        origin: "x.wasm".to_owned(),
        since_ms: 1,
        config: String::new(),
        limits: BTreeMap::new(),
        mode: String::new(),
        fallback: String::new(),
        grants: Vec::new(),
        owns: Vec::new(),
        unexamined: false,
    }
}

fn died_in(digest: &str, share: f64) -> Vec<Mark> {
    let mark = |digest: &str, in_call| Mark {
        digest: digest.to_owned(),
        in_call,
        share,
    };
    vec![mark(digest, true), mark("other", false)]
}

#[test]
fn h5_what_is_remembered_survives_and_bytes_that_nobody_names_go() {
    let home = tempfile::tempdir().unwrap();
    let open = || Books::open(Some(home.path().join("policies")), now()).unwrap();
    let mut books = open();
    let bytes = Bytes::from(b"good".to_vec());
    let digest = sha256(&bytes);
    books.keep(&digest, &bytes);
    books.ledger.of("a").last_good = Some(kept(&digest));
    books.ledger.accept("a", "d1", "s");
    books.save();
    let mut books = open();
    assert_eq!(books.bytes(&digest, 100).as_deref(), Some(&b"good"[..]));
    assert!(books.ledger.is_accepted("a", "d1", "s"));
    assert!(books.bytes(&digest, 3).is_none(), "beyond its bound");
    books.ledger.of("a").last_good = None;
    books.save();
    assert!(open().bytes(&digest, 100).is_none());
}

#[test]
fn h5_kept_bytes_that_changed_are_not_used() {
    let home = tempfile::tempdir().unwrap();
    let mut books = Books::open(Some(home.path().to_owned()), now()).unwrap();
    let bytes = Bytes::from(b"good".to_vec());
    let digest = sha256(&bytes);
    books.keep(&digest, &bytes);
    fs::write(home.path().join("good").join(&digest), b"evil").unwrap();
    assert!(books.bytes(&digest, 100).is_none());
}

#[test]
fn h5_a_damaged_ledger_is_set_aside() {
    let home = tempfile::tempdir().unwrap();
    for text in [
        "{\"format\": 1, \"polic",
        "{\"format\":0,\"policies\":{},\"quarantined\":[],\"crashes\":{}}",
    ] {
        fs::write(home.path().join("ledger.json"), text).unwrap();
        let books = Books::open(Some(home.path().to_owned()), now()).unwrap();
        let lost = books.ledger.lost.clone().unwrap();
        let told = lost.told();
        assert!(told.contains("ledger.json.damaged-7"), "{told}");
        let empty = Ledger {
            lost: Some(lost),
            ..Ledger::default()
        };
        assert_eq!(books.ledger, empty);
        assert!(books.damage().unwrap().contains(&told));
        let aside = home.path().join("ledger.json.damaged-7");
        assert_eq!(fs::read_to_string(aside).unwrap(), text);
    }
    // The run that set it aside could write no new one: that it was lost is known all the same.
    let books = Books::open(Some(home.path().to_owned()), now()).unwrap();
    assert!(books.ledger.lost.is_some());
}

#[test]
fn h5_a_newer_daemons_ledger_is_refused_and_not_a_byte_of_it_is_changed() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("ledger.json");
    let open = || Books::open(Some(home.path().to_owned()), now());
    // As ours but for its number, and of another form altogether.
    for text in [
        "{\"format\":2,\"policies\":{},\"quarantined\":[],\"crashes\":{}}",
        "{\"sets\":[1],\"format\":7}",
    ] {
        fs::write(&path, text).unwrap();
        for _ in 0..2 {
            let refused = open().unwrap_err().to_string();
            let said = |word: &str| refused.contains(word);
            assert!(said(&path.display().to_string()), "{refused}");
            assert!(said("reads up to 1: a newer"), "{refused}");
            assert!(
                said("Run that one") && said("move the file away"),
                "{refused}"
            );
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            let there = fs::read_dir(home.path()).unwrap().count();
            assert_eq!(there, 2, "the ledger, and `good`");
        }
    }
    // The way out that it names: versions of the site are doubted, as after damage.
    fs::rename(&path, home.path().join("ledger.json.damaged-newer")).unwrap();
    assert!(open().unwrap().ledger.lost.is_some());
}

#[test]
fn h5_bytes_that_found_no_room_are_kept_once_there_is_some() {
    let home = tempfile::tempdir().unwrap();
    let mut books = Books::open(Some(home.path().to_owned()), now()).unwrap();
    let bytes = Bytes::from(b"good".to_vec());
    let digest = sha256(&bytes);
    // Where its bytes are to be written first.
    let full = home.path().join("good").join(&digest).with_extension("new");
    fs::create_dir(&full).unwrap();
    books.keep(&digest, &bytes);
    books.ledger.of("a").seated = Some(kept(&digest));
    books.save();
    assert!(books.unsaved().unwrap().contains(&digest));
    assert!(books.settle(|saved, ledger| saved == ledger).is_ok());
    assert!(books.bytes(&digest, 100).is_some());
    fs::remove_dir(&full).unwrap();
    books.save();
    assert_eq!(books.unsaved(), None);
    let again = Books::open(Some(home.path().to_owned()), now()).unwrap();
    assert!(again.bytes(&digest, 100).is_some());
}

#[test]
fn h5_without_a_home_it_remembers_as_long_as_it_lives() {
    let mut books = Books::open(None, now()).unwrap();
    let bytes = Bytes::from(b"good".to_vec());
    books.keep("d", &bytes);
    books.ledger.of("a").seated = Some(kept("d"));
    books.save();
    assert!(books.bytes("d", 100).is_some());
    books.ledger.of("a").seated = None;
    books.save();
    assert!(books.bytes("d", 100).is_none());
}

/// Runs that die in calls of one policy until it is quarantined.
#[track_caller]
fn crashes_until_out(share: f64, expected: usize) {
    let mut ledger = Ledger::default();
    ledger.of("p").seated = Some(kept("d"));
    let out = (1..100).find(|_| {
        ledger.judge_crashes(&died_in("d", share), now());
        ledger.quarantine_of("d", "").is_some()
    });
    assert_eq!(out, Some(expected), "at a share of {share}");
    assert_eq!(ledger.quarantine_of("d", "").unwrap().name, "p");
    assert!(ledger.quarantine_of("other", "").is_none());
}

#[test]
fn h5_two_crashes_quarantine_and_more_are_needed_of_one_that_is_always_busy() {
    crashes_until_out(0.0, 2);
    crashes_until_out(0.01, 2);
    crashes_until_out(0.04, 3);
    crashes_until_out(0.1, 4);
    crashes_until_out(1.0, 4);
}

#[test]
fn h5_a_run_that_ends_elsewhere_forgives_a_crash() {
    let mut ledger = Ledger::default();
    for _ in 0..50 {
        ledger.judge_crashes(&died_in("d", 0.0), now());
        ledger.judge_crashes(&died_in("x", 0.0), now());
        let mut elsewhere = died_in("d", 0.0);
        elsewhere[0].in_call = false;
        ledger.judge_crashes(&elsewhere, now());
        ledger.forgive_crashes("x");
    }
    assert!(ledger.quarantined.is_empty());
}

#[test]
fn h5_a_release_forgets_the_crashes_too() {
    let mut ledger = Ledger::default();
    for _ in 0..2 {
        ledger.judge_crashes(&died_in("d", 0.0), now());
    }
    assert_eq!(ledger.release(|entry| entry.digest == "d"), 1);
    ledger.judge_crashes(&died_in("d", 0.0), now());
    assert!(ledger.quarantine_of("d", "").is_none());
}

#[test]
fn the_ledger_is_bounded() {
    let mut ledger = Ledger::default();
    for at in 0..QUARANTINED_MAX + 10 {
        let digest = at.to_string();
        ledger.of(&digest);
        ledger.accept("a", &digest, "s");
        ledger.quarantine(Quarantined {
            digest: digest.clone(),
            setting: String::new(),
            name: String::new(),
            version: String::new(),
            origin: String::new(),
            since_ms: 0,
            why: String::new(),
        });
        ledger.judge_crashes(&died_in(&digest, 0.0), now());
    }
    assert_eq!(ledger.quarantined.len(), QUARANTINED_MAX);
    assert!(ledger.policies.len() <= POLICIES_REMEMBERED_MAX);
    assert!(ledger.crashes.len() <= CRASHES_MAX);
    assert!(ledger.is_accepted("a", &(QUARANTINED_MAX + 9).to_string(), "s"));
}

#[test]
fn h5_what_a_configuration_caused_is_cured_by_another() {
    let mut ledger = Ledger::default();
    let bad = setting("bad", &Limits::default());
    ledger.quarantine(Quarantined {
        digest: "d".to_owned(),
        setting: bad.clone(),
        name: "p".to_owned(),
        version: String::new(),
        origin: String::new(),
        since_ms: 0,
        why: String::new(),
    });
    let good = setting("good", &Limits::default());
    let roomy = Limits {
        host_calls_max: 9_999,
        ..Limits::default()
    };
    assert!(ledger.quarantine_of("d", &bad).is_some() && ledger.is_blamed("d"));
    assert!(ledger.quarantine_of("d", &good).is_none());
    assert!(ledger.quarantine_of("d", &setting("bad", &roomy)).is_none());
    // A crash is the file's own.
    for _ in 0..2 {
        ledger.judge_crashes(&died_in("d", 0.0), now());
    }
    assert!(ledger.quarantine_of("d", &good).is_some());
}

#[test]
fn h9_an_accept_is_for_one_setting_and_until_another_is_seated() {
    let mut ledger = Ledger::default();
    ledger.accept("p", "d", "a");
    assert!(ledger.is_accepted("p", "d", "a") && !ledger.is_accepted("p", "d", "b"));
    ledger.forget_other_accepts("p", "d", "a");
    assert!(ledger.is_accepted("p", "d", "a"));
    ledger.forget_other_accepts("p", "e", "a");
    assert!(!ledger.is_accepted("p", "d", "a"));
}

#[test]
fn h5_a_full_ledger_forgets_who_is_not_seated() {
    let mut ledger = Ledger::default();
    ledger.of("aa").seated = Some(kept("d"));
    for at in 0..POLICIES_REMEMBERED_MAX + 3 {
        ledger.of(&format!("b{at}")).last_good = Some(kept("e"));
    }
    assert!(ledger.policies["aa"].seated.is_some());
    assert_eq!(ledger.policies.len(), POLICIES_REMEMBERED_MAX);
}

#[test]
fn h5_kept_bytes_are_bounded_and_those_in_a_seat_stay() {
    for on_disk in [true, false] {
        let home = tempfile::tempdir().unwrap();
        let mut books = Books::open(on_disk.then(|| home.path().to_owned()), now()).unwrap();
        books.good_bytes_max = 35;
        let of = |since_ms, digest: &str| Kept {
            since_ms,
            ..kept(digest)
        };
        let keep = |books: &mut Books, mark: &str| {
            let bytes = Bytes::from(mark.repeat(10).into_bytes());
            let digest = sha256(&bytes);
            books.keep(&digest, &bytes);
            digest
        };
        let digests: Vec<String> = ["a", "b", "c", "d", "e"]
            .iter()
            .map(|mark| keep(&mut books, mark))
            .collect();
        let is_kept = |books: &Books, at: usize| books.bytes(&digests[at], 100).is_some();
        // `old` and `new` are gone from the set, `here` has a seat and something to go back to.
        books.ledger.of("new").last_good = Some(of(9, &digests[0]));
        books.ledger.of("old").last_good = Some(of(5, &digests[1]));
        books.ledger.of("here").last_good = Some(of(1, &digests[2]));
        books.ledger.of("here").seated = Some(of(2, &digests[3]));
        books.save();
        let kept: Vec<bool> = (0..4).map(|at| is_kept(&books, at)).collect();
        assert_eq!(kept, [true, false, true, true]);
        assert_eq!(books.ledger.of("old").last_good, None);
        // With more in seats than there is room for, nothing else is kept, and all of those are.
        books.good_bytes_max = 10;
        books.ledger.of("there").seated = Some(of(1, &digests[4]));
        if !is_kept(&books, 4) {
            keep(&mut books, "e");
        }
        books.save();
        let kept: Vec<bool> = (0..5).map(|at| is_kept(&books, at)).collect();
        assert_eq!(kept, [false, false, false, true, true]);
        // Who stands in for a quarantined one has its seat.
        let mut books = Books::open(None, now()).unwrap();
        books.good_bytes_max = 10;
        let [bad, good] = ["x", "y"].map(|mark| keep(&mut books, mark));
        books.ledger.of("p").seated = Some(of(2, &bad));
        books.ledger.of("p").last_good = Some(of(1, &good));
        books.ledger.quarantine(Quarantined {
            digest: bad,
            setting: String::new(),
            name: "p".to_owned(),
            version: String::new(),
            origin: String::new(),
            since_ms: 3,
            why: "it failed".to_owned(),
        });
        books.save();
        assert!(books.bytes(&good, 100).is_some());
    }
}

#[test]
fn h5_the_ledgers_of_earlier_and_later_daemons_are_read() {
    let home = tempfile::tempdir().unwrap();
    let text = r#"{
      "format": 1,
      "policies": {"a": {
        "last_good": {"digest": "d1", "version": "1", "origin": "a.wasm", "since_ms": 1, "config": "", "limits": {}},
        "seated": null, "accepted": [], "paused": null,
        "held": {"digest": "d2", "config": "as an earlier one had it", "why": "it would drain the node"}
      }},
      "quarantined": [
        {"digest": "d3", "name": "b", "version": "1", "origin": "b.wasm", "since_ms": 2, "why": "traps", "new": {}}
      ],
      "crashes": {}, "what_a_later_one_adds": [1]
    }"#;
    fs::write(home.path().join("ledger.json"), text).unwrap();
    let books = Books::open(Some(home.path().to_owned()), now()).unwrap();
    assert_eq!(books.damage(), None);
    assert_eq!(books.ledger.quarantined[0].digest, "d3");
    let a = &books.ledger.policies["a"];
    assert_eq!(a.last_good.as_ref().unwrap().digest, "d1");
    assert_eq!(a.held.as_ref().unwrap().digest, "d2");
}

#[test]
fn h5_a_ledger_that_could_not_be_read_again_is_not_written() {
    let home = tempfile::tempdir().unwrap();
    let open = || Books::open(Some(home.path().to_owned()), now()).unwrap();
    let mut books = open();
    books.ledger.accept("a", "d1", "s");
    books.save();
    books.ledger.of("a").last_good = Some(Kept {
        config: "x".repeat(5 << 20),
        ..kept("d1")
    });
    books.save();
    let why = books.unsaved().unwrap();
    assert!(why.contains("at most 4194304 are read again"), "{why}");
    assert!(
        open().ledger.is_accepted("a", "d1", "s"),
        "what was saved stays"
    );
    books.ledger.of("a").last_good = Some(kept("d1"));
    books.save();
    assert_eq!(books.unsaved(), None);
}

#[test]
fn h5_in_doubt_what_lay_there_is_spared_and_nothing_else() {
    let home = tempfile::tempdir().unwrap();
    let good = |digest: &str| home.path().join("good").join(digest);
    fs::create_dir(home.path().join("good")).unwrap();
    fs::write(good("old"), "old").unwrap();
    fs::write(home.path().join("ledger.json"), "{").unwrap();
    let mut books = Books::open(Some(home.path().to_owned()), now()).unwrap();
    for digest in ["one", "two"] {
        books.keep(digest, &Bytes::from(b"x".to_vec()));
        books.ledger.of("a").seated = Some(kept(digest));
        books.save();
    }
    assert!(good("old").exists() && good("two").exists());
    assert!(!good("one").exists(), "nobody names it");
    books.ledger.lost = None;
    books.save();
    assert!(!good("old").exists());
}
