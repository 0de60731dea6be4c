//! `devicectl node own`, as root with `CAP_CHOWN` alone: what the chart's init container is.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use device_api_tests::tools::{may_become, skip, works};
use device_api_tests::{binary, copy_binary};
use tempfile::TempDir;

/// Somebody else than root; no account is needed.
const UID: u32 = 65_534;
const GID: u32 = 4_242;

/// The daemon's user before.
const BEFORE: u32 = 1_234;

/// One more than `node own` takes.
const TOO_MANY: usize = 10_001;

/// Root that has no other capability.
fn with_chown_alone() -> Command {
    let mut command = Command::new("setpriv");
    command.args([
        "--bounding-set=-all,+chown",
        "--inh-caps=-all,+chown",
        "--no-new-privs",
    ]);
    command
}

/// A folder, where owners can be changed.
fn folder() -> Result<Option<TempDir>> {
    let dir = tempfile::tempdir()?;
    // Where it may not take the others away, setpriv may say nothing, and leave them.
    let alone = ["grep", "-q", "^CapBnd:\t0*1$", "/proc/self/status"];
    let possible = may_become(UID, GID)
        .and_then(|()| works_in_what_others_own(dir.path()).map_err(|error| error.to_string()))
        .and_then(|()| works(with_chown_alone().args(alone)));
    if let Err(why) = possible {
        return skip(&format!(
            "changing owners needs root, and setpriv to have no capability besides: {why}"
        ));
    }
    Ok(Some(dir))
}

/// As the tests do, beside what they are of.
fn works_in_what_others_own(dir: &Path) -> std::io::Result<()> {
    let given = dir.join("given");
    fs::create_dir(&given)?;
    fs::set_permissions(&given, Permissions::from_mode(0o700))?;
    chown(&given, Some(UID), Some(GID))?;
    File::create(given.join("file"))?;
    fs::set_permissions(&given, Permissions::from_mode(0o750))?;
    fs::remove_dir_all(given)
}

/// What came of it: exit code, standard output, standard error.
type Said = (Option<i32>, String, String);

fn said(mut command: Command) -> Result<Said> {
    let output = command.output()?;
    let text = |bytes| String::from_utf8(bytes);
    let code = output.status.code();
    Ok((code, text(output.stdout)?, text(output.stderr)?))
}

/// One directory, for `socket` or `state`.
fn own(kind: &str, dir: &Path) -> Result<Said> {
    own_all(&[(kind, dir)])
}

fn own_all(dirs: &[(&str, &Path)]) -> Result<Said> {
    let mut command = with_chown_alone();
    command
        .arg(binary("devicectl")?)
        .args(["node", "own"])
        .arg(format!("--owner={UID}:{GID}"));
    for (kind, dir) in dirs {
        command.arg(format!("--{kind}-dir={}", dir.display()));
    }
    said(command)
}

fn make_dir(path: &Path, mode: u32) -> Result<()> {
    fs::create_dir(path)?;
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    Ok(())
}

fn make_file(path: &Path) -> Result<()> {
    File::create(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(())
}

/// A socket that nobody listens on any more.
fn make_socket(path: &Path, mode: u32) -> Result<()> {
    drop(UnixListener::bind(path)?);
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    Ok(())
}

fn give_to(uid: u32, paths: &[&Path]) -> Result<()> {
    for path in paths {
        chown(path, Some(uid), Some(uid))?;
    }
    Ok(())
}

/// Owner, group and mode.
fn seen(path: &Path) -> Result<(u32, u32, u32)> {
    let stat = fs::symlink_metadata(path)?;
    Ok((stat.uid(), stat.gid(), stat.mode() & 0o7777))
}

#[test]
fn what_the_kubelet_made_becomes_the_daemons() -> Result<()> {
    let Some(dir) = folder()? else { return Ok(()) };
    let (sockets, state) = (dir.path().join("sockets"), dir.path().join("state"));
    make_dir(&sockets, 0o755)?;
    make_dir(&state, 0o777)?;
    // A disk of its own has that.
    make_dir(&state.join("lost+found"), 0o700)?;
    let both = [("socket", &*sockets), ("state", &*state)];

    let (code, said, errors) = own_all(&both)?;
    ensure!((code, &*errors) == (Some(0), ""), "{errors}");
    ensure!(seen(&sockets)? == (UID, GID, 0o750));
    ensure!(seen(&state)? == (UID, GID, 0o700));
    ensure!(seen(&state.join("lost+found"))? == (0, 0, 0o700));
    ensure!(
        said.contains(&format!("sockets: {UID}:{GID} 0750\n")),
        "{said}"
    );

    let (code, said, errors) = own_all(&both)?;
    ensure!((code, &*errors) == (Some(0), ""), "{errors}");
    ensure!(said.matches(", as before").count() == 2, "{said}");
    Ok(())
}

/// A state directory as a daemon of `uid` leaves it.
fn old_state(state: &Path, uid: u32) -> Result<()> {
    make_dir(state, 0o700)?;
    for name in ["code", "policies", "policies/good", "policies/calls"] {
        make_dir(&state.join(name), 0o700)?;
    }
    for name in [
        "store.redb",
        "store.redb.corrupt-1790000000",
        "versions",
        "code/a-b.code",
        "policies/ledger.json",
        "policies/ledger.json.damaged-newer",
        "policies/good/0123",
        "policies/calls/boot",
    ] {
        make_file(&state.join(name))?;
        give_to(uid, &[&state.join(name)])?;
    }
    for name in ["", "code", "policies", "policies/good", "policies/calls"] {
        give_to(uid, &[&state.join(name)])?;
    }
    Ok(())
}

#[test]
fn state_of_another_user_goes_with_its_directory() -> Result<()> {
    let Some(dir) = folder()? else { return Ok(()) };
    let (state, secret) = (dir.path().join("state"), dir.path().join("secret"));
    old_state(&state, BEFORE)?;
    make_file(&secret)?;
    // What a daemon that was taken over would leave for root to give away.
    let good = state.join("policies/good");
    symlink(&secret, good.join("link"))?;
    fs::hard_link(&secret, good.join("second-name"))?;

    let (exit, said, errors) = own("state", &state)?;
    ensure!((exit, &*errors) == (Some(0), ""), "{errors}");
    ensure!(seen(&state)? == (UID, GID, 0o700));
    ensure!(seen(&state.join("code"))? == (UID, GID, 0o700));
    for file in ["store.redb", "code/a-b.code", "policies/calls/boot"] {
        ensure!(seen(&state.join(file))? == (UID, GID, 0o600), "{file}");
    }
    let kept = seen(&secret)?;
    ensure!(kept == (0, 0, 0o600), "a second name gives nothing away");
    ensure!(said.matches("left alone").count() == 2, "{said}");
    Ok(())
}

#[test]
fn a_socket_that_a_daemon_of_another_user_left_is_in_nobodys_way() -> Result<()> {
    let Some(dir) = folder()? else { return Ok(()) };
    let sockets = dir.path().join("run");
    make_dir(&sockets, 0o750)?;
    let (socket, lock) = (sockets.join("a.sock"), sockets.join(".a.sock.lock"));
    make_socket(&socket, 0o660)?;
    make_file(&lock)?;
    for before in [BEFORE, 0] {
        give_to(before, &[&sockets, &socket, &lock])?;
        let (code, _, errors) = own("socket", &sockets)?;
        ensure!((code, &*errors) == (Some(0), ""), "{errors}");
        ensure!(seen(&sockets)? == (UID, GID, 0o750));
        ensure!(seen(&lock)?.0 == UID, "the next daemon has to open it");
        ensure!(
            seen(&socket)?.0 == before,
            "the next daemon makes another: this one is not touched"
        );
    }
    Ok(())
}

#[test]
fn a_directory_of_others_is_refused_by_what_is_in_it_and_stays_as_it_was() -> Result<()> {
    let Some(dir) = folder()? else { return Ok(()) };
    let run = dir.path().join("run");
    make_dir(&run, 0o755)?;
    // As it is where a database runs: all of one owner, who is not root.
    let database = dir.path().join("database");
    make_dir(&database, 0o700)?;
    make_file(&database.join("base"))?;
    give_to(BEFORE, &[&database, &database.join("base")])?;
    // Many a program runs as nobody, the chart's default.
    let nobodys = dir.path().join("nobodys");
    make_dir(&nobodys, 0o755)?;
    make_file(&nobodys.join("key"))?;
    give_to(UID, &[&nobodys])?;
    let home = dir.path().join("home");
    make_dir(&home, 0o700)?;
    make_dir(&home.join("code"), 0o700)?;
    make_file(&home.join("code/main.rs"))?;
    make_socket(&run.join("bus"), 0o666)?;
    let state = dir.path().join("state");
    old_state(&state, BEFORE)?;
    make_file(&state.join("policies/notes"))?;
    for (kind, path, entry) in [
        ("socket", &run, "bus"),
        ("state", &run, "bus"),
        ("socket", &database, "base"),
        ("state", &database, "base"),
        ("state", &nobodys, "key"),
        ("socket", &nobodys, "key"),
        ("state", &home, "code/main.rs"),
        ("state", &state, "policies/notes"),
    ] {
        let before = (seen(path)?, seen(&path.join(entry))?);
        let (code, _, errors) = own(kind, path)?;
        let expected = format!("devicectl: {}: ", path.join(entry).display());
        ensure!(errors.starts_with(&expected), "{errors} is not {expected}");
        ensure!(
            errors.contains("name a directory of the daemon's own"),
            "{errors}"
        );
        ensure!(code == Some(1), "{code:?}");
        let after = (seen(path)?, seen(&path.join(entry))?);
        ensure!(before == after, "{} was changed", path.display());
    }
    for name in ["policies", "store.redb", "policies/good"] {
        ensure!(seen(&state.join(name))?.0 == BEFORE, "{name}");
    }

    // One that is refused keeps the others from being changed, too.
    let fresh = dir.path().join("fresh");
    make_dir(&fresh, 0o755)?;
    let (code, _, _) = own_all(&[("socket", &fresh), ("state", &database)])?;
    ensure!(code == Some(1) && seen(&fresh)? == (0, 0, 0o755));
    Ok(())
}

#[test]
fn entries_are_counted_before_the_first_is_given_away() -> Result<()> {
    let Some(dir) = folder()? else { return Ok(()) };
    let state = dir.path().join("state");
    old_state(&state, BEFORE)?;
    let good = state.join("policies/good");
    for number in 0..TOO_MANY {
        File::create(good.join(number.to_string()))?;
    }
    let deep = dir.path().join("deep");
    old_state(&deep, BEFORE)?;
    fs::create_dir_all(deep.join("policies/good/1/2/3/4/5/6/7/8/9"))?;
    for (path, named) in [(&state, "policies/good/"), (&deep, "policies/good/1/2/3")] {
        let (code, _, errors) = own("state", path)?;
        let expected = format!("devicectl: {}", path.join(named).display());
        ensure!(errors.starts_with(&expected), "{errors} is not {expected}");
        ensure!(errors.contains("is it the daemon's?"), "{errors}");
        ensure!(code == Some(1), "{code:?}");
        ensure!(seen(path)? == (BEFORE, BEFORE, 0o700));
        ensure!(seen(&path.join("store.redb"))?.0 == BEFORE);
    }
    ensure!(seen(&good.join("0"))?.0 == 0, "no entry changed its owner");
    Ok(())
}

#[test]
fn what_is_no_directory_is_refused_by_name() -> Result<()> {
    let Some(dir) = folder()? else { return Ok(()) };
    let at = |name: &str| dir.path().join(name);
    let (real, link, file) = (at("real"), at("link"), at("file"));
    make_dir(&real, 0o755)?;
    symlink(&real, &link)?;
    File::create(&file)?;
    for (path, why) in [
        (&link, "it is a symbolic link"),
        (&file, "it is no directory"),
        (&at("absent"), "cannot open it: No such file"),
        (&"/".into(), "it is the root of the file system"),
        (&real.join(".."), "it is the root of the file system"),
    ] {
        let (code, _, errors) = own("socket", path)?;
        let expected = format!("devicectl: {}: {why}", path.display());
        ensure!(errors.starts_with(&expected), "{errors} is not {expected}");
        ensure!(code == Some(1), "{code:?}");
    }
    ensure!(seen(&real)? == (0, 0, 0o755), "nothing was followed");
    Ok(())
}

#[test]
fn one_directory_is_not_for_sockets_and_state() -> Result<()> {
    let Some(dir) = folder()? else { return Ok(()) };
    let (fresh, same) = (dir.path().join("fresh"), dir.path().join("./fresh/"));
    make_dir(&fresh, 0o755)?;
    let (code, _, errors) = own_all(&[("socket", &fresh), ("state", &same)])?;
    ensure!(
        errors.contains("give each a directory of its own"),
        "{errors}"
    );
    ensure!(code == Some(1) && seen(&fresh)? == (0, 0, 0o755));
    let (code, _, errors) = own_all(&[("socket", &fresh), ("socket", &same)])?;
    ensure!(code == Some(0), "{errors}");
    Ok(())
}

#[test]
fn what_many_programs_share_is_refused_even_where_it_is_empty() -> Result<()> {
    // As one who could not harm this machine, should it not be refused.
    if let Err(why) = may_become(UID, GID) {
        skip::<()>(&format!("only root may become somebody else: {why}"))?;
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755))?;
    let program = dir.path().join("devicectl");
    copy_binary("devicectl", &program)?;
    for path in ["/etc", "/var/lib", "/tmp/", "/usr/bin", "/srv/../var/log"] {
        let mut command = Command::new(&program);
        command.uid(UID).gid(UID).args(["node", "own"]);
        command.arg(format!("--owner={UID}:{GID}"));
        command.arg(format!("--state-dir={path}"));
        let (code, _, errors) = said(command)?;
        let expected = format!("devicectl: {path}: it is one that many programs share");
        ensure!(errors.starts_with(&expected), "{errors}");
        ensure!(code == Some(1), "{code:?}");
    }
    Ok(())
}

#[test]
fn wrong_usage_says_what_is_expected() -> Result<()> {
    let check = |args: &[&str], expected: &str| -> Result<()> {
        let mut command = Command::new(binary("devicectl")?);
        command.args(["node", "own"]).args(args);
        let (code, _, errors) = said(command)?;
        ensure!(
            errors.contains(expected),
            "{errors} does not say {expected}"
        );
        ensure!(code == Some(2), "{code:?}");
        Ok(())
    };
    check(&["--owner=1:1"], "--socket-dir")?;
    check(&["--socket-dir=/x"], "--owner")?;
    for owner in ["nobody", "1", "1:", ":1", "-1:1", "+1:1", "4294967295:1"] {
        let flag = format!("--owner={owner}");
        check(
            &[&flag, "--socket-dir=/x"],
            "expected two numbers, as in 65534:65534",
        )?;
    }
    Ok(())
}
