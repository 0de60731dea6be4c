//! A directory of policies: what is in it, what only looks like it, and how it is merged.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use device_api_core::ports::Policy;
use device_api_policy::{DirectoryLoad, PolicyError, PolicyHost, Settings, merge};
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::component::quiet;
use crate::house::roomy;

fn load_dir(path: &Path) -> DirectoryLoad {
    let settings = |_: &str| Settings {
        limits: roomy(),
        ..Settings::default()
    };
    PolicyHost::new().unwrap().load_dir(path, settings)
}

fn names(load: &DirectoryLoad) -> Vec<&str> {
    load.policies
        .iter()
        .map(|policy| &*policy.info().id.name)
        .collect()
}

#[track_caller]
fn one_error(load: &DirectoryLoad, words: &[&str]) {
    let errors: Vec<String> = load.errors.iter().map(PolicyError::chain).collect();
    assert_eq!(errors.len(), 1, "{errors:?}");
    for word in words {
        assert!(errors[0].contains(word), "{errors:?}");
    }
}

#[test]
fn one_bad_file_is_one_error_and_the_others_load() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(directory.path().join(name), bytes).unwrap();
    write("b.wasm", &quiet("second", &["B"]));
    write("a.wasm", &quiet("first", &["A"]));
    write("bad.wasm", b"\0asm\x01\0\0\0");
    write("notes.txt", b"not a policy");
    write(".hidden.wasm", b"not looked at");
    let load = load_dir(directory.path());
    assert_eq!(names(&load), ["first", "second"]);
    assert_eq!(load.policies[0].origin(), "a.wasm");
    one_error(
        &load,
        &["policy bad.wasm can't be loaded", "core WebAssembly module"],
    );
}

#[test]
fn h6_a_configmap_volume_is_read_through_its_links() {
    let directory = tempfile::tempdir().unwrap();
    let version = directory.path().join("..2026_11_21");
    fs::create_dir(&version).unwrap();
    fs::write(version.join("calm.wasm"), quiet("calm", &["A"])).unwrap();
    symlink("..2026_11_21", directory.path().join("..data")).unwrap();
    symlink("..data/calm.wasm", directory.path().join("calm.wasm")).unwrap();
    let load = load_dir(directory.path());
    assert_eq!((names(&load), load.errors.len()), (vec!["calm"], 0));
}

#[test]
fn h6_a_directory_reached_through_a_link_is_no_way_out() {
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("calm.wasm"), quiet("calm", &["A"])).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let link = directory.path().join("policies");
    symlink(elsewhere.path(), &link).unwrap();
    assert_eq!(names(&load_dir(&link)), ["calm"]);

    symlink(
        elsewhere.path().join("calm.wasm"),
        directory.path().join("calm.wasm"),
    )
    .unwrap();
    one_error(
        &load_dir(directory.path()),
        &["calm.wasm is a link to", "outside of the policy directory"],
    );
}

#[test]
fn what_is_no_regular_file_is_refused_without_opening_it() {
    for (make, word) in [
        (
            (|path| fs::create_dir(path).unwrap()) as fn(&Path),
            "x.wasm is a directory",
        ),
        (
            |path| mknodat(CWD, path, FileType::Fifo, Mode::RUSR, 0).unwrap(),
            "x.wasm is a FIFO",
        ),
        (
            |path| symlink("nowhere", path).unwrap(),
            "x.wasm can't be read",
        ),
    ] {
        let directory = tempfile::tempdir().unwrap();
        make(&directory.path().join("x.wasm"));
        one_error(&load_dir(directory.path()), &[word]);
    }
}

#[test]
fn a_file_beyond_its_bound_is_not_read() {
    let directory = tempfile::tempdir().unwrap();
    let file = fs::File::create(directory.path().join("big.wasm")).unwrap();
    // Sparse: no bytes on the disk.
    file.set_len(1 << 40).unwrap();
    one_error(
        &load_dir(directory.path()),
        &["big.wasm has more than 33554432 bytes"],
    );
}

#[test]
fn a_directory_that_is_not_there_is_one_error() {
    one_error(
        &load_dir(Path::new("/nonexistent/policies")),
        &["policy directory /nonexistent/policies can't be read"],
    );
}

#[test]
fn h14_a_namesake_replaces_and_what_is_taken_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(directory.path().join(name), bytes).unwrap();
    write("mine.wasm", &quiet("first", &["A"]));
    write("other.wasm", &quiet("other", &["B"]));
    let bundled = |name, types: &[&str]| {
        let mut source = crate::house::source(quiet(name, types));
        source.origin = format!("bundled/{name}");
        crate::house::try_load(&source).unwrap()
    };
    let load = load_dir(directory.path());
    let merged = merge(
        vec![bundled("first", &["A"]), bundled("second", &["B"])],
        load.policies,
    );
    let origins: Vec<&str> = merged
        .policies
        .iter()
        .map(|policy| policy.origin())
        .collect();
    assert_eq!(origins, ["mine.wasm", "bundled/second"]);
    assert_eq!(merged.errors.len(), 1);
    let error = merged.errors[0].chain();
    assert!(
        error.contains(r#"other.wasm owns the condition type "B", and so does bundled/second"#),
        "{error}"
    );
}
