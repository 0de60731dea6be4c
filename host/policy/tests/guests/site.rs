//! What the directory and policies.yaml say, and who has which name by it (design H6, H7, H14).

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::sync::Arc;

use device_api_core::policy_status::{Mode, Phase, ReloadChange};
use rustix::fs::{CWD, FileType, Mode as FileMode, mknodat};

use crate::bench::{Rig, bundled};
use crate::component::{Verdict, always, quiet};
use crate::house::xid;

use ReloadChange::{Refused, Removed, Swapped, Unchanged};

/// A bundled `own`, and `x2.wasm`, which calls itself so too.
fn rig() -> Rig {
    let rig = Rig::new(vec![bundled("own", quiet("own", &["Own"]))]);
    rig.write("x2.wasm", always("own", &["Own"], "2", &[]));
    rig
}

#[track_caller]
fn origin(rig: &Rig, name: &str) -> String {
    rig.status(name)
        .active
        .expect("in its seat")
        .origin
        .to_string()
}

#[track_caller]
fn why(rig: &Rig, name: &str, words: &[&str]) {
    let status = rig.status(name);
    for word in words {
        assert!(
            status.detail.contains(word),
            "{:?} lacks {word:?}",
            status.detail
        );
    }
}

#[test]
fn h7_an_entry_goes_before_a_file_that_is_not_listed() {
    let mut rig = rig();
    rig.start();
    assert_eq!(origin(&rig, "own"), "x2.wasm");
    rig.write("policies.yaml", "policies: [{name: own}]");
    rig.reloaded(&[("own", Swapped), ("x2", Refused)]);
    let told = [
        "x2.wasm is not listed",
        "\"own\"",
        "bundled/own",
        "`file: x2.wasm`",
        "remove",
    ];
    why(&rig, "x2", &told);
    assert_eq!(origin(&rig, "own"), "bundled/own");
    // Its terms are what counts, from the start on too.
    rig.write("policies.yaml", "policies: [{name: own, mode: paused}]");
    rig.reloaded(&[("own", Unchanged), ("x2", Refused)]);
    let is_paused = |rig: &Rig| {
        assert_eq!(rig.status("own").phase, Phase::Paused);
        assert_eq!(origin(rig, "own"), "bundled/own");
        rig.fails("own", xid(31));
    };
    is_paused(&rig);
    rig.start();
    is_paused(&rig);
    rig.write("policies.yaml", "policies: [{name: own, config: {a: 1}}]");
    rig.reloaded(&[("own", Swapped), ("x2", Refused)]);
    assert_eq!(origin(&rig, "own"), "bundled/own");
}

#[test]
fn h7_an_entry_for_a_file_goes_before_another_file_of_that_name() {
    let mut rig = Rig::new(vec![]);
    rig.write("a.wasm", quiet("a", &["A"]));
    rig.start();
    rig.write("b.wasm", always("a", &["A"], "2", &[]));
    rig.write("policies.yaml", "policies: [{name: a, file: b.wasm}]");
    // Its own name is taken, so it is shown by that of its file.
    rig.reloaded(&[("a", Swapped), ("a.wasm", Refused)]);
    why(&rig, "a.wasm", &["a.wasm is not listed", "b.wasm"]);
    assert_eq!(origin(&rig, "a"), "b.wasm");
}

#[test]
fn h7_without_its_file_an_entry_rolls_back_to_the_bundled_policy() {
    let mut rig = rig();
    rig.write("policies.yaml", "policies: [{name: own, file: x2.wasm}]");
    rig.start();
    assert_eq!(origin(&rig, "own"), "x2.wasm");
    rig.write("policies.yaml", "policies: [{name: own}]");
    rig.reloaded(&[("own", Swapped), ("x2", Refused)]);
    assert_eq!(origin(&rig, "own"), "bundled/own");
}

const NEXT: &str = "policies: [{name: next, file: x2.wasm, mode: shadow}]";

#[test]
fn h11_a_shadow_whose_entry_is_gone_does_not_judge_by_that() {
    let mut rig = rig();
    rig.write("policies.yaml", NEXT);
    rig.start();
    assert_eq!(rig.status("next").mode, Mode::Shadow);
    let still = |rig: &Rig| {
        assert_eq!(origin(rig, "own"), "bundled/own");
        why(
            rig,
            "x2",
            &[
                "x2.wasm looked on as a shadow",
                "list it",
                "remove the file",
            ],
        );
    };
    rig.write("policies.yaml", "policies: []");
    rig.reloaded(&[("next", Removed), ("own", Unchanged), ("x2", Refused)]);
    still(&rig);
    rig.reloaded(&[("own", Unchanged), ("x2", Refused)]);
    // With the list gone, after a restart, and under another name.
    fs::remove_file(rig.path("policies.yaml")).unwrap();
    rig.reloaded(&[("own", Unchanged), ("x2", Refused)]);
    rig.start();
    still(&rig);
    fs::copy(rig.path("x2.wasm"), rig.path("x3.wasm")).unwrap();
    rig.reloaded(&[("own", Unchanged), ("x2", Refused), ("x3", Refused)]);
    // Nor does what is put in its place.
    fs::remove_file(rig.path("x3.wasm")).unwrap();
    rig.write("x2.wasm", always("own", &["Own"], "3", &[]));
    rig.reloaded(&[("own", Unchanged), ("x2", Refused), ("x3", Removed)]);
    // Listed it does, and goes on without being listed.
    rig.write("policies.yaml", "policies: [{name: own, file: x2.wasm}]");
    rig.reloaded(&[("own", Swapped), ("x2", Removed)]);
    rig.write("policies.yaml", "policies: []");
    rig.reloaded(&[("own", Unchanged)]);
    assert_eq!(origin(&rig, "own"), "x2.wasm");
}

#[test]
fn h11_a_shadow_whose_entry_goes_while_no_daemon_runs_does_not_judge_by_that() {
    let mut rig = rig();
    // Nobody else has that name.
    rig.write("y.wasm", quiet("y", &["Y"]));
    let both = "policies: [{name: next, file: x2.wasm, mode: shadow}, {name: z, file: y.wasm, mode: shadow}]";
    rig.write("policies.yaml", both);
    rig.start();
    rig.stop();
    rig.write("policies.yaml", "policies: []");
    rig.start();
    assert_eq!(origin(&rig, "own"), "bundled/own");
    for (name, file) in [("x2", "x2.wasm"), ("y", "y.wasm")] {
        why(&rig, name, &[file, "looked on as a shadow"]);
    }
    // A file that went, and comes back, is a new one.
    fs::remove_file(rig.path("x2.wasm")).unwrap();
    rig.reload();
    rig.write("x2.wasm", always("own", &["Own"], "2", &[]));
    rig.reload();
    assert_eq!(origin(&rig, "own"), "x2.wasm");
}

#[test]
fn h11_a_shadow_by_the_name_of_what_judges_takes_nobodys_place_over_a_restart_either() {
    let mut rig = Rig::new(vec![]);
    rig.write("p.wasm", quiet("p", &["A"]));
    rig.start();
    rig.write("next.wasm", always("p", &["A"], "2", &[]));
    let text = "policies: [{name: p, file: next.wasm, mode: shadow}]";
    rig.write("policies.yaml", text);
    rig.reloaded(&[("next", Refused), ("p", Unchanged)]);
    let holds = |rig: &Rig| {
        assert_eq!(origin(rig, "p"), "p.wasm");
        why(
            rig,
            "next",
            &["shadow \"p\"", "p.wasm judges", "another name"],
        );
    };
    holds(&rig);
    rig.start();
    holds(&rig);
    // The other way round the newcomer takes nothing from the shadow.
    fs::remove_file(rig.path("p.wasm")).unwrap();
    rig.reloaded(&[("next", Removed), ("p", Swapped)]);
    assert_eq!(rig.status("p").mode, Mode::Shadow);
    rig.write("q.wasm", always("p", &["A"], "3", &[]));
    rig.reloaded(&[("p", Unchanged), ("q", Refused)]);
    why(&rig, "q", &["q.wasm is not listed", "next.wasm"]);
}

#[test]
fn h7_a_file_without_a_list_is_refused_and_the_running_set_stays() {
    let mut rig = rig();
    rig.write("a.wasm", quiet("a", &["A"]));
    let text = "policies: [{name: next, file: x2.wasm, mode: shadow}, {name: a, file: a.wasm, mode: paused}]";
    rig.write("policies.yaml", text);
    rig.start();
    let a = rig.bench.policy("a");
    for text in ["", "# later\n", "{}", "~", "policies:\n"] {
        rig.write("policies.yaml", text);
        rig.refused(&[
            "policies.yaml is refused",
            "running set stays",
            "`policies: []`",
        ]);
        assert!(!rig.supervisor().report().0);
    }
    let holds = |rig: &Rig| {
        assert_eq!(origin(rig, "own"), "bundled/own");
        assert_eq!(rig.status("a").phase, Phase::Paused);
        rig.fails("a", xid(31));
    };
    holds(&rig);
    assert!(Arc::ptr_eq(&a, &rig.bench.policy("a")));
    // Nor does a run that begins with it.
    rig.start();
    holds(&rig);
}

#[test]
fn h7_a_bundled_policy_is_no_shadow_with_a_file_or_without() {
    let mut rig = rig();
    rig.start();
    for entry in [
        "{name: own, mode: shadow}",
        "{name: own, file: x2.wasm, mode: shadow}",
    ] {
        rig.write("policies.yaml", format!("policies: [{entry}]"));
        let told = [
            "line 1",
            "\"own\"",
            "goes on judging",
            "give the shadow another name",
        ];
        rig.refused(&told);
    }
}

#[test]
fn h7_a_list_that_can_not_be_read_is_told_of_as_a_list() {
    let mut rig = rig();
    rig.start();
    let path = rig.path("policies.yaml");
    let refused = |word: &str| {
        let report = rig.command(device_api_core::ports::PolicyCommand::Reload);
        let why = report.refused.unwrap();
        assert!(
            why.contains(word) && why.contains("running set stays"),
            "{why}"
        );
        for wrong in ["strip", "component", "policy policies.yaml"] {
            assert!(!why.contains(wrong), "{why}");
        }
        assert_eq!(origin(&rig, "own"), "x2.wasm");
    };
    fs::write(&path, " ".repeat(256 * 1024 + 1)).unwrap();
    refused("more than 262144 bytes: is it the right file?");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    refused("it is a directory, not a regular file: put the list itself there");
    fs::remove_dir(&path).unwrap();
    mknodat(CWD, &path, FileType::Fifo, FileMode::RUSR, 0).unwrap();
    refused("it is a FIFO, not a regular file");
    fs::remove_file(&path).unwrap();
    symlink("nowhere", &path).unwrap();
    refused("it can't be read");
    fs::remove_file(&path).unwrap();
    symlink("/etc/hostname", &path).unwrap();
    refused("outside of the policy directory");
}

#[test]
fn h6_what_is_refused_takes_no_place_and_what_runs_goes_first() {
    let mut rig = Rig::new(vec![bundled("own", quiet("own", &["Own"]))]);
    rig.write("z.wasm", quiet("z", &["Z"]));
    rig.start();
    let z = rig.bench.policy("z");
    // No component; one of another kind; one that fails when it is tried; one whose type is another's.
    for at in 0..40 {
        rig.write(&format!("a{at}.wasm"), b"junk");
        rig.write(&format!("b{at}.wasm"), b"\0asm\x01\0\0\0");
    }
    let bad = Verdict {
        condition: "NotMine",
        ..crate::component::GOOD
    };
    for at in 0..9 {
        let name = format!("c{at}");
        rig.write(
            &format!("{name}.wasm"),
            always(&name, &[&name], "1", &[bad]),
        );
        let taken = format!("d{at}");
        rig.write(&format!("{taken}.wasm"), quiet(&taken, &["Own"]));
    }
    rig.write("y.wasm", quiet("y", &["Y"]));
    rig.reload();
    assert!(Arc::ptr_eq(&z, &rig.bench.policy("z")));
    assert_eq!(rig.status("z").refused, None);
    // What turned out to be unfit is known now.
    rig.reload();
    assert_eq!(origin(&rig, "y"), "y.wasm");
    rig.start();
    rig.reload();
    for name in ["y", "z"] {
        assert_eq!(rig.status(name).phase, Phase::Running, "{name}");
    }
}

#[test]
fn h6_the_seventeenth_is_refused_and_those_that_run_stay_over_a_restart() {
    let mut rig = Rig::new(vec![]);
    let file = |name: &str| rig_file(name);
    for at in 10..26 {
        let name = format!("m{at}");
        rig.write(&format!("{name}.wasm"), file(&name));
    }
    rig.start();
    rig.write("a.wasm", file("a"));
    for _ in 0..2 {
        let outcomes = rig.reload();
        let refused: Vec<_> = outcomes
            .iter()
            .filter(|(_, change, _)| *change == Refused)
            .collect();
        assert_eq!(refused.len(), 1, "{outcomes:?}");
        assert!(
            refused[0].0 == "a" && refused[0].2.contains("16 others"),
            "{outcomes:?}"
        );
        rig.start();
    }
    for at in 10..26 {
        assert_eq!(rig.status(&format!("m{at}")).phase, Phase::Running);
    }
}

fn rig_file(name: &str) -> Vec<u8> {
    quiet(name, &[&name.to_uppercase()])
}

#[test]
fn h6_whatever_a_new_name_is_refused_for_the_old_one_judges_on() {
    let own = || bundled("own", quiet("own", &["Own"]));
    for (bytes, text, heir) in [
        // Of a name that is in use, and is not what it calls itself.
        (rig_file("a"), "{name: own, file: f.wasm}", "own"),
        (rig_file("a"), "{name: b, file: f.wasm, mode: paused}", "b"),
        // It calls itself so, and owns what is another's.
        (quiet("b", &["Own"]), "{name: b, file: f.wasm}", "b"),
        // It fails when it is tried.
        (
            always("b", &["B"], "1", &[crate::component::GOOD]),
            "{name: b, file: f.wasm}",
            "b",
        ),
        // It has an entry's name.
        (quiet("own", &["Own"]), "{name: own}", "f"),
        (b"junk".to_vec(), "{name: b, file: f.wasm}", "b"),
    ] {
        let mut rig = Rig::new(vec![own()]);
        rig.write("f.wasm", rig_file("a"));
        rig.start();
        let a = rig.bench.policy("a");
        rig.write("f.wasm", bytes);
        rig.write("policies.yaml", format!("policies: [{text}]"));
        for _ in 0..2 {
            let outcomes = rig.reload();
            let of = |name: &str| {
                outcomes
                    .iter()
                    .find(|(other, ..)| other == name)
                    .map(|it| it.1)
            };
            assert_eq!(of("a"), Some(Unchanged), "{text}: {outcomes:?}");
            assert_eq!(of(heir), Some(Refused), "{text}: {outcomes:?}");
            assert!(Arc::ptr_eq(&a, &rig.bench.policy("a")), "{text}");
        }
        // Over a restart too.
        let digest = rig.bench.digest("a");
        rig.start();
        assert_eq!(rig.bench.digest("a"), digest, "{text}");
        rig.reload();
        assert_eq!(rig.bench.digest("a"), digest, "{text}");
        // Mended, it has its place.
        rig.write("f.wasm", quiet("b", &["A"]));
        rig.write("policies.yaml", "policies: [{name: b, file: f.wasm}]");
        rig.reload();
        assert!(
            rig.bench.with(|inner| !inner.seated.contains_key("a")),
            "{text}"
        );
        rig.bench.policy("b");
    }
}

#[test]
fn h6_a_file_whose_name_was_mistyped_leaves_what_ran_from_it() {
    let mut rig = Rig::new(vec![]);
    rig.write("a.wasm", rig_file("a"));
    rig.start();
    fs::rename(rig.path("a.wasm"), rig.path("a.WASM")).unwrap();
    rig.write("policies.yaml", "policies: []");
    rig.reloaded(&[("a", Unchanged), ("a.WASM", Refused)]);
    rig.bench.policy("a");
}

#[test]
fn p1_a_condition_type_stays_its_owners_over_a_restart() {
    let mut rig = Rig::new(vec![]);
    rig.write("b.wasm", quiet("other", &["Nasty"]));
    rig.start();
    rig.write("a.wasm", quiet("nasty", &["Nasty"]));
    rig.reloaded(&[("nasty", Refused), ("other", Unchanged)]);
    for _ in 0..2 {
        rig.start();
        rig.bench.policy("other");
        why(&rig, "nasty", &["\"Nasty\"", "b.wasm"]);
        assert!(rig.bench.with(|inner| !inner.seated.contains_key("nasty")));
    }
    // A new version of its own file keeps it, though it was replaced while no daemon ran.
    rig.stop();
    rig.write("b.wasm", always("other", &["Nasty"], "2", &[]));
    rig.start();
    rig.bench.policy("other");
    // What it gives up is free, and what it looks on with is nobody's.
    rig.write("b.wasm", quiet("other", &["Else"]));
    rig.reload();
    rig.bench.policy("nasty");
    rig.write(
        "policies.yaml",
        "policies: [{name: nasty, file: a.wasm, mode: shadow}]",
    );
    rig.write("b.wasm", quiet("other", &["Nasty"]));
    rig.reload();
    rig.start();
    assert_eq!(rig.status("other").phase, Phase::Running);
    assert_eq!(rig.status("nasty").mode, Mode::Shadow);
}

#[test]
fn h11_what_became_a_shadow_does_not_judge_where_the_next_run_begins_without_a_set() {
    let mut rig = Rig::new(vec![]);
    rig.write("a.wasm", rig_file("a"));
    rig.start();
    rig.write(
        "policies.yaml",
        "policies: [{name: a, file: a.wasm, mode: shadow}]",
    );
    rig.reload();
    rig.stop();
    rig.write("policies.yaml", "nonsense: 1");
    rig.start();
    assert!(rig.bench.with(|inner| inner.seated.is_empty()));
}

#[test]
fn h6_a_name_that_can_not_be_a_policys_is_told_of() {
    let mut rig = Rig::new(vec![]);
    rig.write("good.wasm", rig_file("good"));
    rig.write("B.WASM", rig_file("b"));
    rig.write("c.Wasm", rig_file("c"));
    rig.write(".d.WASM", b"hidden");
    fs::write(
        rig.directory
            .path()
            .join(OsStr::from_bytes(b"\xff\xfe.wasm")),
        rig_file("e"),
    )
    .unwrap();
    fs::write(
        rig.directory.path().join(OsStr::from_bytes(b"\xff")),
        b"no policy",
    )
    .unwrap();
    rig.start();
    rig.reloaded(&[
        ("B.WASM", Refused),
        ("\\xff\\xfe", Refused),
        ("c.Wasm", Refused),
        ("good", Unchanged),
    ]);
    for name in ["B.WASM", "c.Wasm", "\\xff\\xfe"] {
        why(
            &rig,
            name,
            &[
                name,
                "ends in .wasm, in small letters, and is UTF-8",
                "rename",
            ],
        );
    }
    assert!(rig.bench.with(|inner| inner.seated.len() == 1));
    // A new name is noticed by looking.
    fs::rename(rig.path("B.WASM"), rig.path("b.wasm")).unwrap();
    rig.reloaded(&[
        ("B.WASM", Removed),
        ("\\xff\\xfe", Refused),
        ("b", Swapped),
        ("c.Wasm", Refused),
        ("good", Unchanged),
    ]);
}

#[test]
fn h6_a_thousand_files_that_are_none_are_one_short_line_of_readiness() {
    let mut rig = Rig::new(vec![]);
    rig.write("good.wasm", rig_file("good"));
    for at in 0..1000 {
        let name = format!("junk-with-a-rather-long-name-{at}.wasm");
        fs::write(rig.path(&name), format!("junk {at}")).unwrap();
    }
    rig.start();
    rig.bench.policy("good");
    let (well, line) = rig.supervisor().report();
    assert!(
        !well && line.contains("good@") && line.contains("and 992 more"),
        "{line}"
    );
    assert!(line.len() < 4096, "{} bytes: {line}", line.len());
    // Half of what PolicyReady has room for, so that none is logged as left out.
    let told = |rig: &Rig| {
        rig.bench.with(|inner| {
            let names = inner.reports.drain(..).map(|(name, _)| name);
            names.collect::<std::collections::BTreeSet<_>>().len()
        })
    };
    assert_eq!(told(&rig), 16);
    rig.reload();
    assert_eq!(told(&rig), 16);
    for at in 0..30 {
        fs::write(rig.path(&format!("more-{at}")), b"").unwrap();
    }
    rig.refused(&["more than 1024 entries", "running set stays"]);
    rig.bench.policy("good");
}
