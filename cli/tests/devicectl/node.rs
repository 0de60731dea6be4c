//! `devicectl node own`, as root with `CAP_CHOWN` alone: what the chart's init container is.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::process::Command;

/// Somebody else than root; no account is needed.
const UID: u32 = 65_534;
const GID: u32 = 4_242;

/// Whether this is a place where owners can be changed; says so if not.
fn can_chown() -> bool {
    let dir = tempfile::tempdir().unwrap();
    let is_root = chown(dir.path(), Some(UID), Some(GID)).is_ok();
    let has_setpriv = Command::new("setpriv").arg("--version").output().is_ok();
    if !(is_root && has_setpriv) {
        eprintln!("SKIPPED: changing owners needs root, and setpriv to have no capability besides");
    }
    is_root && has_setpriv
}

fn own<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> (Option<i32>, String, String) {
    let output = Command::new("setpriv")
        .args([
            "--bounding-set=-all,+chown",
            "--inh-caps=-all,+chown",
            "--no-new-privs",
        ])
        .arg(env!("CARGO_BIN_EXE_devicectl"))
        .args(["node", "own"])
        .arg(format!("--owner={UID}:{GID}"))
        .args(args)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn dir_with_mode(path: &Path, mode: u32) {
    fs::create_dir(path).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Owner, group and mode.
fn seen(path: &Path) -> (u32, u32, u32) {
    let stat = fs::symlink_metadata(path).unwrap();
    (stat.uid(), stat.gid(), stat.mode() & 0o7777)
}

#[test]
fn what_the_kubelet_made_becomes_the_daemons() {
    if !can_chown() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (sockets, state) = (dir.path().join("sockets"), dir.path().join("state"));
    dir_with_mode(&sockets, 0o755);
    dir_with_mode(&state, 0o777);
    let args = || {
        let (sockets, state) = (sockets.display(), state.display());
        [
            format!("--socket-dir={sockets}"),
            format!("--state-dir={state}"),
        ]
    };

    let (code, said, errors) = own(args());
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    assert_eq!(seen(&sockets), (UID, GID, 0o750));
    assert_eq!(seen(&state), (UID, GID, 0o700));
    assert!(
        said.contains(&format!("sockets: {UID}:{GID} 0750\n")),
        "{said}"
    );

    let (code, said, errors) = own(args());
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    assert_eq!(said.matches(", as before").count(), 2, "{said}");
}

#[test]
fn state_of_another_user_goes_with_its_directory() {
    if !can_chown() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let (code, secret) = (state.join("code"), dir.path().join("secret"));
    dir_with_mode(&state, 0o700);
    dir_with_mode(&code, 0o700);
    for file in [&state.join("state.redb"), &code.join("a"), &secret] {
        File::create(file).unwrap();
        fs::set_permissions(file, Permissions::from_mode(0o600)).unwrap();
    }
    // What a daemon that was taken over would leave for root to give away.
    symlink(&secret, state.join("link")).unwrap();
    fs::hard_link(&secret, state.join("second-name")).unwrap();
    for path in [&state, &code, &state.join("state.redb")] {
        chown(path, Some(1_234), Some(1_234)).unwrap();
    }

    let flag = format!("--state-dir={}", state.display());
    let (exit, said, errors) = own([&flag]);
    assert_eq!((exit, errors.as_str()), (Some(0), ""));
    assert_eq!(seen(&state), (UID, GID, 0o700));
    assert_eq!(seen(&code), (UID, GID, 0o700));
    assert_eq!(seen(&state.join("state.redb")), (UID, GID, 0o600));
    assert_eq!(seen(&code.join("a")), (UID, GID, 0o600));
    assert_eq!(
        seen(&secret),
        (0, 0, 0o600),
        "a second name gives nothing away"
    );
    assert_eq!(said.matches("left alone").count(), 2, "{said}");
}

#[test]
fn sockets_are_not_touched() {
    if !can_chown() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("other.sock");
    File::create(&file).unwrap();
    let flag = format!("--socket-dir={}", dir.path().display());
    assert_eq!(own([&flag]).0, Some(0));
    assert_eq!(seen(dir.path()), (UID, GID, 0o750));
    let (uid, gid, _) = seen(&file);
    assert_eq!((uid, gid), (0, 0));
}

#[test]
fn what_is_no_directory_is_refused_by_name() {
    if !can_chown() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (real, link, file) = (
        dir.path().join("real"),
        dir.path().join("link"),
        dir.path().join("file"),
    );
    dir_with_mode(&real, 0o755);
    symlink(&real, &link).unwrap();
    File::create(&file).unwrap();
    for (path, why) in [
        (link.as_path(), "it is a symbolic link"),
        (&file, "it is no directory"),
        (&dir.path().join("absent"), "cannot open it: No such file"),
        (Path::new("/"), "it is the root of the file system"),
        (&real.join(".."), "it is the root of the file system"),
    ] {
        let (code, _, errors) = own([format!("--socket-dir={}", path.display())]);
        let expected = format!("devicectl: {}: {why}", path.display());
        assert!(errors.starts_with(&expected), "{errors} is not {expected}");
        assert_eq!(code, Some(1));
    }
    assert_eq!(seen(&real), (0, 0, 0o755), "nothing was followed");
}

#[test]
fn wrong_usage_says_what_is_expected() {
    let check = |args: &[&str], expected: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_devicectl"))
            .args(["node", "own"])
            .args(args)
            .output()
            .unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(
            errors.contains(expected),
            "{errors} does not say {expected}"
        );
        assert_eq!(output.status.code(), Some(2));
    };
    check(&["--owner=1:1"], "--socket-dir");
    check(&["--socket-dir=/x"], "--owner");
    for owner in ["nobody", "1", "1:", ":1", "-1:1", "+1:1", "4294967295:1"] {
        let flag = format!("--owner={owner}");
        check(
            &[&flag, "--socket-dir=/x"],
            "expected two numbers, as in 65534:65534",
        );
    }
}
