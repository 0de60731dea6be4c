//! Design H6: how much of a directory is read, and what changes while it is.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use device_api_core::policy_status::{Phase, ReloadChange};

use crate::bench::{Rig, replace};
use crate::component::{always, quiet};

const MIB: u64 = 1 << 20;

/// A component with nothing in it but a section that long, which takes no room on the disk.
fn hollow(path: &Path, bytes: u64) {
    let mut file = File::create(path).unwrap();
    let length = u32::try_from(bytes - 14).unwrap();
    file.write_all(b"\0asm\x0d\0\x01\0\0").unwrap();
    let digits = (0..5_u32).map(|at| {
        let more = if at == 4 { 0 } else { 0x80 };
        u8::try_from((length >> (7 * at)) & 0x7f).unwrap() | more
    });
    file.write_all(&digits.collect::<Vec<_>>()).unwrap();
    file.set_len(bytes).unwrap();
}

#[test]
fn h2_the_files_of_a_set_are_bounded_together_and_the_one_past_it_is_told_by_name() {
    let mut rig = Rig::new(vec![]);
    for at in 0..8 {
        hollow(&rig.path(&format!("h{at}.wasm")), 20 * MIB);
    }
    rig.write("z.wasm", quiet("z", &["Z"]));
    rig.start();
    for at in 0..8 {
        let status = rig.status(&format!("h{at}"));
        let word = if at < 6 {
            "does not export"
        } else {
            "more than 134217728 bytes together"
        };
        assert!(status.detail.contains(word), "{at}: {}", status.detail);
    }
    // It fits in beside those that were read.
    assert_eq!(rig.status("z").phase, Phase::Running);
}

#[test]
fn h2_a_listed_file_past_the_bound_of_the_set_refuses_it_as_a_whole() {
    let mut rig = Rig::new(vec![]);
    rig.write("a.wasm", quiet("a", &["A"]));
    rig.start();
    hollow(&rig.path("one.wasm"), 100 * MIB);
    hollow(&rig.path("two.wasm"), 100 * MIB);
    let entry = |name: &str| {
        format!(
            "  - {{name: {name}, file: {name}.wasm, limits: {{component-bytes-max: 128MiB}}}}\n"
        )
    };
    rig.write(
        "policies.yaml",
        format!("policies:\n{}{}", entry("one"), entry("two")),
    );
    rig.refused(&[
        "policies.yaml is refused, and the running set stays",
        "policy \"two\", file",
        "two.wasm",
        "more than 134217728 bytes together",
    ]);
    rig.bench.policy("a");
}

#[test]
fn h2_what_is_no_component_takes_no_room_from_those_that_are() {
    let mut rig = Rig::new(vec![]);
    for at in 0..5 {
        let garbage = File::create(rig.path(&format!("g{at}.wasm"))).unwrap();
        garbage.set_len(31 * MIB).unwrap();
    }
    rig.write("z.wasm", quiet("z", &["Z"]));
    rig.start();
    assert_eq!(rig.status("z").phase, Phase::Running);
    for at in 0..5 {
        let status = rig.status(&format!("g{at}"));
        assert!(
            status.detail.contains("something else"),
            "{}",
            status.detail
        );
        // Named by the whole of it.
        assert_eq!(status.refused.unwrap().digest.len(), 64);
    }
}

/// Runs `test` while `step` is repeated beside it, however that ends.
fn meanwhile(step: impl Fn(usize) + Sync, test: impl FnOnce()) {
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        scope.spawn(|| {
            let mut steps = 0..;
            while !stop.load(Ordering::SeqCst) {
                step(steps.next().unwrap());
            }
        });
        test();
    });
}

#[test]
fn h6_a_file_that_is_rewritten_all_the_time_holds_up_itself_alone() {
    let mut rig = Rig::new(vec![]);
    let restless = ["1", "2"].map(|mark| always("restless", &["R"], mark, &[]));
    rig.write("a.wasm", quiet("a", &["A"]));
    rig.write("restless.wasm", &restless[0]);
    // What takes long to read.
    File::create(rig.path("slow.wasm"))
        .unwrap()
        .set_len(16 * MIB)
        .unwrap();
    rig.start();
    let path = rig.path("restless.wasm");
    let mut told = Vec::new();
    let rewrite = |step: usize| replace(&path, &restless[step % 2]);
    meanwhile(rewrite, || {
        for mark in 0..8 {
            let new = always("a", &["A"], &mark.to_string(), &[]);
            rig.write("a.wasm", &new);
            let outcomes = rig.reload();
            let of = |name: &str| outcomes.iter().find(|(other, ..)| other == name).cloned();
            let (_, change, detail) = of("a").unwrap();
            assert_eq!(change, ReloadChange::Swapped, "{detail}");
            // Its running version stays.
            rig.bench.policy("restless");
            told.extend(of("restless"));
        }
    });
    let is_told = |(_, change, detail): &(String, ReloadChange, String)| {
        *change == ReloadChange::Refused
            && detail.contains("restless.wasm changes while it is read")
    };
    assert!(told.iter().any(is_told), "{told:?}");
    // And once it is at rest, it is read.
    rig.write("restless.wasm", always("restless", &["R"], "3", &[]));
    rig.reload();
    let status = rig.status("restless");
    assert_eq!((status.phase, status.refused), (Phase::Running, None));
}

#[test]
fn h6_a_listed_file_that_is_rewritten_all_the_time_does_not_refuse_the_set() {
    let mut rig = Rig::new(vec![]);
    let restless = ["1", "2"].map(|mark| always("restless", &["R"], mark, &[]));
    rig.write("a.wasm", quiet("a", &["A"]));
    rig.write("restless.wasm", &restless[0]);
    File::create(rig.path("slow.wasm"))
        .unwrap()
        .set_len(16 * MIB)
        .unwrap();
    rig.write(
        "policies.yaml",
        "policies: [{name: restless, file: restless.wasm}, {name: a, file: a.wasm}]",
    );
    rig.start();
    let path = rig.path("restless.wasm");
    // As a whole, and in its place.
    let rewrite = |step: usize| match step % 2 {
        0 => replace(&path, &restless[0]),
        _ => fs::write(&path, &restless[1]).unwrap(),
    };
    meanwhile(rewrite, || {
        for mark in 0..8 {
            rig.write("a.wasm", always("a", &["A"], &mark.to_string(), &[]));
            let outcomes = rig.reload();
            let a = outcomes.iter().find(|(name, ..)| name == "a").unwrap();
            assert_eq!(a.1, ReloadChange::Swapped, "{}", a.2);
            rig.bench.policy("restless");
        }
    });
}
