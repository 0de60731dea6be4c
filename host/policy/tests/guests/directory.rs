//! Design H6: a directory of policies, how it changes, and what only looks like a policy.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use device_api_core::policy_status::{Phase, ReloadChange};
use device_api_core::ports::PolicyCommand;
use device_api_policy::Unlisted;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::bench::{RealClock, Rig, bundled};
use crate::component::{always, quiet};
use crate::house::{answered, pose, xid};

use ReloadChange::{Refused, Removed, Swapped, Unchanged};

#[test]
fn h6_one_bad_file_is_one_refusal_and_the_others_judge() {
    let mut rig = Rig::new(vec![]);
    rig.write("b.wasm", quiet("second", &["B"]));
    rig.write("a.wasm", quiet("first", &["A"]));
    rig.write("bad.wasm", b"\0asm\x01\0\0\0");
    rig.write("notes.txt", b"not a policy");
    rig.write(".hidden.wasm", b"not looked at");
    rig.start();
    rig.bench.policy("first");
    rig.bench.policy("second");
    let names: Vec<_> = rig
        .policies()
        .list()
        .iter()
        .map(|status| status.name.to_string())
        .collect();
    assert_eq!(names, ["bad", "first", "second"]);
    let bad = rig.status("bad");
    assert_eq!(bad.phase, Phase::Refused);
    for word in ["policy bad.wasm can't be loaded", "core WebAssembly module"] {
        assert!(bad.detail.contains(word), "{}", bad.detail);
    }
    let (well, line) = rig.supervisor().report();
    assert!(
        !well && line.contains("bad is refused") && line.starts_with("2 policies judge: "),
        "{line}"
    );
    fs::remove_file(rig.path("bad.wasm")).unwrap();
    rig.reloaded(&[
        ("bad", Removed),
        ("first", Unchanged),
        ("second", Unchanged),
    ]);
    assert!(rig.supervisor().report().0);
}

#[test]
fn h6_what_changes_is_swapped_what_goes_is_unseated_and_the_rest_is_left_alone() {
    let mut rig = Rig::new(vec![]);
    rig.write("a.wasm", quiet("a", &["A"]));
    rig.write("b.wasm", quiet("b", &["B"]));
    rig.start();
    let (a, b) = (rig.bench.digest("a"), rig.bench.policy("b"));
    rig.bench.log();
    rig.reloaded(&[("a", Unchanged), ("b", Unchanged)]);
    assert!(rig.bench.log().is_empty());

    rig.write("a.wasm", always("a", &["A"], "two", &[]));
    rig.write("c.wasm", quiet("c", &["C"]));
    rig.reloaded(&[("a", Swapped), ("b", Unchanged), ("c", Swapped)]);
    assert_ne!(rig.bench.digest("a"), a);
    assert!(Arc::ptr_eq(&b, &rig.bench.policy("b")));
    fs::remove_file(rig.path("b.wasm")).unwrap();
    rig.reloaded(&[("a", Unchanged), ("b", Removed), ("c", Unchanged)]);
    assert!(rig.bench.with(|inner| !inner.seated.contains_key("b")));
}

#[test]
fn h6_a_bad_new_version_leaves_the_running_one_alone_and_says_why() {
    let mut rig = Rig::new(vec![]);
    rig.write("a.wasm", quiet("a", &["A"]));
    rig.start();
    let running = rig.bench.policy("a");
    for bad in [b"\0asm".to_vec(), b"garbage".to_vec(), vec![]] {
        rig.write("a.wasm", bad);
        rig.reloaded(&[("a", Refused)]);
        assert!(Arc::ptr_eq(&running, &rig.bench.policy("a")));
        let status = rig.status("a");
        assert_eq!(status.phase, Phase::Running);
        assert!(status.refused.unwrap().why.contains("a.wasm"));
        answered(pose(&*running, xid(31)));
    }
    rig.write("a.wasm", quiet("a", &["A"]));
    rig.reloaded(&[("a", Unchanged)]);
    assert_eq!(rig.status("a").refused, None);
}

/// A ConfigMap volume as the kubelet makes it.
struct ConfigMap<'a> {
    root: &'a Path,
    swaps: u32,
}

impl ConfigMap<'_> {
    /// The new content, swapped in as one, the old gone.
    fn swap(&mut self, files: &[(&str, &[u8])]) {
        let old = fs::read_link(self.root.join("..data")).ok();
        self.swaps += 1;
        let new = format!("..2026_11_21_{}", self.swaps);
        fs::create_dir(self.root.join(&new)).unwrap();
        for (name, bytes) in files {
            fs::write(self.root.join(&new).join(name), bytes).unwrap();
        }
        symlink(&new, self.root.join("..data_tmp")).unwrap();
        fs::rename(self.root.join("..data_tmp"), self.root.join("..data")).unwrap();
        for (name, _) in files {
            let link = self.root.join(name);
            if fs::symlink_metadata(&link).is_err() {
                symlink(Path::new("..data").join(name), link).unwrap();
            }
        }
        for entry in fs::read_dir(self.root).unwrap().flatten() {
            let name = entry.file_name().into_string().unwrap();
            if !name.starts_with("..") && !files.iter().any(|(file, _)| *file == name) {
                fs::remove_file(entry.path()).unwrap();
            }
        }
        if let Some(old) = old {
            fs::remove_dir_all(self.root.join(old)).unwrap();
        }
    }
}

#[test]
fn h6_a_configmap_is_noticed_within_2_s_two_swaps_at_once_included() {
    let mut rig = Rig::new(vec![]);
    rig.config.poll_interval = device_api_policy::POLL_INTERVAL_DEFAULT;
    let root = rig.directory.path().to_owned();
    let mut map = ConfigMap {
        root: &root,
        swaps: 0,
    };
    let version = |mark: &str| always("calm", &["A"], mark, &[]);
    map.swap(&[("calm.wasm", &version("0"))]);
    rig.start_with(Arc::new(RealClock(Instant::now())));
    for round in 0..3 {
        let before = rig.bench.digest("calm");
        map.swap(&[("calm.wasm", &version(&format!("{round} first")))]);
        let last = version(&format!("{round} second"));
        let begun = Instant::now();
        map.swap(&[("calm.wasm", &last)]);
        rig.bench.wait("the second swap", |inner| {
            let digest = &inner.seated["calm"].info().id.digest;
            **digest == *sha256(&last)
        });
        // A look a second, and the machine is not idle.
        assert!(
            begun.elapsed() < Duration::from_secs(6),
            "{:?}",
            begun.elapsed()
        );
        assert_ne!(rig.bench.digest("calm"), before);
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    let policy = crate::house::load(bytes.to_vec());
    device_api_core::ports::Policy::info(&*policy)
        .id
        .digest
        .to_string()
}

#[test]
fn h6_a_half_bad_configmap_swaps_the_good_half() {
    let mut rig = Rig::new(vec![]);
    let root = rig.directory.path().to_owned();
    let mut map = ConfigMap {
        root: &root,
        swaps: 0,
    };
    map.swap(&[
        ("a.wasm", &quiet("a", &["A"])),
        ("b.wasm", &quiet("b", &["B"])),
    ]);
    rig.start();
    let b = rig.bench.policy("b");
    map.swap(&[
        ("a.wasm", &always("a", &["A"], "2", &[])),
        ("b.wasm", b"bad"),
    ]);
    rig.reloaded(&[("a", Swapped), ("b", Refused)]);
    assert!(Arc::ptr_eq(&b, &rig.bench.policy("b")));
}

#[test]
fn h6_a_set_is_read_before_a_swap_or_after_it_and_never_half() {
    let mut rig = Rig::new(vec![]);
    let root = rig.directory.path().to_owned();
    let set = |mark: &str| {
        let of = |name: &str, type_: &str| always(name, &[type_], mark, &[]);
        (of("a", "A"), of("b", "B"))
    };
    let sets = [set("even"), set("odd")];
    let digests: Vec<_> = sets.iter().map(|(a, b)| (sha256(a), sha256(b))).collect();
    let mut map = ConfigMap {
        root: &root,
        swaps: 0,
    };
    map.swap(&[("a.wasm", &sets[0].0), ("b.wasm", &sets[0].1)]);
    rig.start();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut map = ConfigMap {
                root: &root,
                swaps: 1,
            };
            for (a, b) in sets.iter().cycle() {
                map.swap(&[("a.wasm", a), ("b.wasm", b)]);
                if stop.load(Ordering::SeqCst) {
                    return;
                }
            }
        });
        for _ in 0..30 {
            let report = rig.command(PolicyCommand::Reload);
            let found = (rig.bench.digest("a"), rig.bench.digest("b"));
            assert!(digests.contains(&found), "{report:?}");
        }
        stop.store(true, Ordering::SeqCst);
    });
    rig.reload();
    let found = (rig.bench.digest("a"), rig.bench.digest("b"));
    assert!(digests.contains(&found));
}

#[test]
fn h6_an_empty_or_vanished_directory_leaves_the_running_set_and_says_so() {
    let mut rig = Rig::new(vec![]);
    rig.write("a.wasm", quiet("a", &["A"]));
    rig.start();
    let a = rig.bench.policy("a");
    fs::remove_file(rig.path("a.wasm")).unwrap();
    rig.refused(&["is empty", "running set stays", "policies.yaml"]);
    let gone = rig.directory.path().with_extension("gone");
    fs::rename(rig.directory.path(), &gone).unwrap();
    rig.refused(&["can't be read", "running set stays"]);
    let (well, line) = rig.supervisor().report();
    assert!(!well && line.contains("can't be read"), "{line}");
    assert!(Arc::ptr_eq(&a, &rig.bench.policy("a")));

    fs::rename(&gone, rig.directory.path()).unwrap();
    rig.write("a.wasm", quiet("a", &["A"]));
    rig.reloaded(&[("a", Unchanged)]);
    assert!(rig.supervisor().report().0);
    // With a policies.yaml it is empty on purpose.
    fs::remove_file(rig.path("a.wasm")).unwrap();
    rig.write("policies.yaml", "policies: []\n");
    rig.reloaded(&[("a", Removed)]);
}

#[test]
fn h6_no_way_out_of_the_directory_and_nothing_but_regular_files() {
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("calm.wasm"), quiet("calm", &["A"])).unwrap();
    let outside = elsewhere.path().join("calm.wasm");
    type Case<'a> = (&'a dyn Fn(&Path), &'a str);
    let cases: [Case<'_>; 5] = [
        (
            &|path| fs::create_dir(path).unwrap(),
            "x.wasm is a directory",
        ),
        (
            &|path| mknodat(CWD, path, FileType::Fifo, Mode::RUSR, 0).unwrap(),
            "x.wasm is a FIFO",
        ),
        (
            &|path| symlink("nowhere", path).unwrap(),
            "x.wasm can't be read",
        ),
        (
            &|path| symlink(&outside, path).unwrap(),
            "outside of the policy directory",
        ),
        // Sparse: no bytes on the disk.
        (
            &|path| fs::File::create(path).unwrap().set_len(1 << 40).unwrap(),
            "more than 33554432 bytes",
        ),
    ];
    for (make, word) in cases {
        let mut rig = Rig::new(vec![]);
        make(&rig.path("x.wasm"));
        rig.start();
        let status = rig.status("x");
        assert!(status.detail.contains(word), "{}", status.detail);
        assert!(rig.bench.with(|inner| inner.seated.is_empty()));
    }
}

#[test]
fn h14_a_namesake_replaces_the_bundled_one_which_returns_when_it_goes() {
    let mut rig = Rig::new(vec![
        bundled("first", quiet("first", &["A"])),
        bundled("second", quiet("second", &["B"])),
    ]);
    rig.start();
    let own = rig.bench.digest("first");
    rig.write("mine.wasm", always("first", &["A"], "mine", &[]));
    rig.write("other.wasm", quiet("other", &["B"]));
    rig.write("twin.wasm", always("first", &["A"], "twin", &[]));
    let outcomes = rig.reload();
    let why = |name: &str| {
        let found = outcomes.iter().find(|(found, ..)| found == name);
        found.unwrap_or_else(|| panic!("{outcomes:?}"))
    };
    assert_eq!(why("first").1, Swapped);
    assert!(
        why("other")
            .2
            .contains(r#"owns the condition type "B", and so does bundled/second"#),
        "{outcomes:?}"
    );
    assert!(
        why("twin")
            .2
            .contains(r#"twin.wasm is named "first", and so is mine.wasm"#),
        "{outcomes:?}"
    );
    assert_eq!(
        rig.status("first").active.unwrap().origin.as_ref(),
        "mine.wasm"
    );
    assert_ne!(rig.bench.digest("first"), own);

    for file in ["mine.wasm", "other.wasm", "twin.wasm"] {
        fs::remove_file(rig.path(file)).unwrap();
    }
    rig.write("policies.yaml", "policies: []");
    rig.reload();
    assert_eq!(rig.bench.digest("first"), own);
}

#[test]
fn h14_a_bundled_one_whose_replacement_is_refused_judges() {
    let mut rig = Rig::new(vec![bundled("first", quiet("first", &["A"]))]);
    rig.write(
        "policies.yaml",
        "policies: [{name: first, file: mine.wasm}]",
    );
    rig.write("mine.wasm", b"bad");
    rig.start();
    rig.bench.policy("first");
    let status = rig.status("first");
    assert_eq!(status.phase, Phase::StandIn);
    assert!(status.refused.unwrap().why.contains("mine.wasm"));
}

#[test]
fn what_one_gives_up_is_free_for_another() {
    let mut rig = Rig::new(vec![]);
    rig.write("x.wasm", quiet("x", &["A", "B"]));
    rig.start();
    rig.write("a.wasm", quiet("a", &["B"]));
    rig.write("x.wasm", quiet("x", &["A"]));
    rig.reloaded(&[("a", Swapped), ("x", Swapped)]);
}

#[test]
fn h6_a_change_is_noticed_by_looking_and_sighup_looks_at_once() {
    let mut rig = Rig::new(vec![]);
    rig.config.poll_interval = Duration::from_millis(50);
    rig.write("a.wasm", quiet("a", &["A"]));
    rig.start_with(Arc::new(RealClock(Instant::now())));
    let old = rig.bench.digest("a");
    rig.write("a.wasm", always("a", &["A"], "2", &[]));
    rig.bench.wait("a look", |inner| {
        *inner.seated["a"].info().id.digest != *old
    });

    let mut rig = Rig::new(vec![]);
    rig.write("a.wasm", quiet("a", &["A"]));
    rig.start();
    let old = rig.bench.digest("a");
    rig.write("a.wasm", always("a", &["A"], "2", &[]));
    rig.supervisor().reload();
    rig.bench.wait("a reload", |inner| {
        *inner.seated["a"].info().id.digest != *old
    });
}

#[test]
fn h14_a_file_that_is_not_wanted_does_not_knock_a_bundled_one_out() {
    let mut rig = Rig::new(vec![bundled("first", quiet("first", &["A"]))]);
    rig.config.unlisted = Unlisted::Refuse;
    rig.write("first.wasm", b"");
    rig.start();
    rig.bench.policy("first");
    assert_eq!(rig.status("first").phase, Phase::Running);
    let outcomes = rig.reload();
    let refused = outcomes.iter().find(|(_, change, _)| *change == Refused);
    assert!(
        refused.is_some_and(|(.., why)| why.contains("first.wasm is not listed")),
        "{outcomes:?}"
    );
}

#[test]
fn h6_a_newcomer_of_the_same_name_does_not_displace_who_runs() {
    let mut rig = Rig::new(vec![]);
    rig.write("b.wasm", quiet("p", &["A"]));
    rig.start();
    let running = rig.bench.policy("p");
    rig.write("aaa.wasm", always("p", &["A"], "2", &[]));
    rig.reloaded(&[("aaa", Refused), ("p", Unchanged)]);
    assert!(Arc::ptr_eq(&running, &rig.bench.policy("p")));
    // Nor after a restart.
    let digest = rig.bench.digest("p");
    rig.start();
    assert_eq!(rig.bench.digest("p"), digest);
    // Its own file changed, it is still who it was.
    rig.write("b.wasm", always("p", &["A"], "3", &[]));
    rig.reloaded(&[("aaa", Refused), ("p", Swapped)]);
    assert_eq!(rig.status("p").active.unwrap().origin.as_ref(), "b.wasm");
    // A shadow takes nobody's place.
    fs::remove_file(rig.path("aaa.wasm")).unwrap();
    rig.write("next.wasm", always("p", &["A"], "4", &[]));
    rig.write(
        "policies.yaml",
        "policies: [{name: p, file: next.wasm, mode: shadow}]",
    );
    rig.reloaded(&[("aaa", Removed), ("next", Refused), ("p", Unchanged)]);
}

#[test]
fn h6_a_start_on_an_empty_mount_keeps_what_judged() {
    let mut rig = Rig::new(vec![bundled("own", quiet("own", &["Own"]))]);
    rig.write("a.wasm", quiet("a", &["A"]));
    rig.start();
    let a = rig.bench.digest("a");
    rig.stop();
    fs::remove_file(rig.path("a.wasm")).unwrap();
    rig.start();
    assert_eq!(rig.bench.digest("a"), a);
    rig.bench.policy("own");
    rig.refused(&["is empty", "policies.yaml"]);
    assert_eq!(rig.bench.digest("a"), a);
    // On purpose, and from then on it is empty for good.
    rig.write("policies.yaml", "policies: []");
    rig.reload();
    assert!(rig.bench.with(|inner| !inner.seated.contains_key("a")));
    fs::remove_file(rig.path("policies.yaml")).unwrap();
    rig.reloaded(&[("own", Unchanged)]);
    rig.start();
    rig.reloaded(&[("own", Unchanged)]);
}

#[test]
fn h6_a_new_name_that_is_refused_leaves_the_old_one_judging() {
    let mut rig = Rig::new(vec![]);
    rig.write("a.wasm", quiet("a", &["A"]));
    rig.write("policies.yaml", "policies: [{name: a, file: a.wasm}]");
    rig.start();
    let a = rig.bench.policy("a");
    rig.bench.log();
    rig.write("a.wasm", b"bad");
    rig.write("policies.yaml", "policies: [{name: q, file: a.wasm}]");
    rig.reloaded(&[("a", Unchanged), ("q", Refused)]);
    assert!(Arc::ptr_eq(&a, &rig.bench.policy("a")));
    assert!(rig.bench.log().is_empty());
    // It can be had: the old name goes, and its types with it.
    rig.write("a.wasm", quiet("q", &["A"]));
    rig.reloaded(&[("a", Removed), ("q", Swapped)]);
}
