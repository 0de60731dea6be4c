//! The socket, and what is found where no daemon answers.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use device_api_tests::tools::{may_become, skip};
use device_api_tests::{Node, copy_binary};

use crate::Doctor;

#[test]
fn without_a_daemon_it_looks_at_what_is_there() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let missing = dir.path().join("run/device.sock");
    let said = Doctor::of(&missing)?.says()?;
    said.check("socket.directory", "fail", "run does not exist")?;
    said.check("socket.file", "fail", "mount the socket's directory")?;
    said.check("socket.connect", "skipped", "no socket")?;
    said.check("api.answers", "skipped", "the daemon did not say")?;
    said.check("nvml.gpus", "skipped", "the daemon did not say")?;

    let dead = dir.path().join("dead.sock");
    drop(UnixListener::bind(&dead)?);
    let said = Doctor::of(&dead)?.says()?;
    ensure!(said.failed() == ["socket.connect"], "{}", said.text);
    said.check("socket.connect", "fail", "nobody listens")?;

    let file = dir.path().join("file");
    fs::write(&file, "")?;
    let said = Doctor::of(&file)?.says()?;
    said.check("socket.file", "fail", "is no socket")?;
    said.check("socket.connect", "skipped", "is no socket")?;

    // What is found here without the daemon: a library, and a directory of state that others may read.
    let folder = dir.path().join("root/usr/lib64");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("libnvidia-ml.so.1"), "")?;
    let state = dir.path().join("state");
    fs::create_dir(&state)?;
    fs::set_permissions(&state, Permissions::from_mode(0o755))?;
    let doctor = Doctor::of(&dead)?
        .arg("--driver-root", dir.path().join("root"))
        .arg("--state-dir", &state);
    let said = doctor.says()?;
    said.check("nvml.library", "ok", "root/usr/lib64/libnvidia-ml.so.1")?;
    said.check("store.directory", "warn", "chmod 0700")?;
    Ok(())
}

/// A node whose socket is in a directory of its own, that others may reach; and devicectl, where they may run it.
fn shared_node() -> Result<(Node, PathBuf, PathBuf)> {
    let builder = Node::builder()?;
    fs::set_permissions(builder.dir(), Permissions::from_mode(0o755))?;
    let program = builder.dir().join("devicectl");
    copy_binary("devicectl", &program)?;
    let socket = builder.dir().join("run/device.sock");
    let node = builder
        .flag("unix-socket", socket.to_string_lossy())
        .start()?;
    Ok((node, socket, program))
}

#[test]
fn who_may_not_pass_is_told_which_group_may() -> Result<()> {
    let group = 4_242;
    if let Err(why) = may_become(65_534, group) {
        skip::<()>(&format!("only root may become somebody else: {why}"))?;
        return Ok(());
    }
    let (node, socket, program) = shared_node()?;
    let directory = socket.parent().context("a directory")?;
    let as_user = |uid, gid| Doctor::from(&program, &socket)?.user(uid, gid).says();

    // The daemon is root here, with root's group: nobody is told to join that.
    let said = as_user(65_534, 65_534)?;
    said.check("socket.directory", "fail", "a group of its own")?;
    for path in [directory, &socket] {
        chown(path, None, Some(group))?;
    }

    let said = as_user(65_534, 65_534)?;
    said.check("socket.directory", "fail", "mode 0750")?;
    said.check("socket.directory", "fail", &format!("join group {group}:"))?;
    said.check("socket.connect", "skipped", "not ours to pass")?;
    said.check("api.answers", "skipped", "")?;
    said.check("daemon.ready", "skipped", "--health-address")?;
    let readyz = Doctor::from(&program, &socket)?
        .user(65_534, 65_534)
        .arg("--health-address", node.address("/healthz")?);
    readyz.says()?.check("daemon.ready", "ok", "says ready")?;

    // The directory lets everybody pass, and the socket does not.
    fs::set_permissions(directory, Permissions::from_mode(0o755))?;
    let said = as_user(65_534, 65_534)?;
    said.check("socket.directory", "warn", "chmod 0750")?;
    said.check("socket.connect", "fail", "mode 0660")?;
    said.check(
        "socket.connect",
        "fail",
        &format!("supplementalGroups: [{group}]"),
    )?;

    // A member of the group reads.
    let said = as_user(65_534, group)?;
    said.check("socket.connect", "ok", "uid 65534")?;
    said.check("api.access", "ok", "--allow-write-gid")?;
    let of_the_way = |id: &&&str| id.starts_with("socket.") || id.starts_with("api.");
    ensure!(
        said.failed().iter().filter(of_the_way).count() == 0,
        "{}",
        said.text
    );

    // Whoever may write to the directory may put another socket there.
    fs::set_permissions(directory, Permissions::from_mode(0o777))?;
    let said = as_user(65_534, group)?;
    said.check("socket.directory", "fail", "chmod 0750")?;
    drop(node);
    Ok(())
}

#[tokio::test]
async fn a_socket_that_all_may_reach_is_told_though_it_works() -> Result<()> {
    let node = Node::start()?;
    node.healthy().await?;
    let socket = node.socket();
    let directory = socket.parent().context("a directory")?;
    fs::set_permissions(directory, Permissions::from_mode(0o755))?;
    let said = Doctor::of(socket)?.says()?;
    said.check("socket.directory", "warn", "chmod 0750")?;
    said.check("socket.file", "ok", "mode 0660")?;
    fs::set_permissions(socket, Permissions::from_mode(0o666))?;
    let said = Doctor::of(socket)?.says()?;
    ensure!(said.failed() == ["socket.file"], "{}", said.text);
    said.check("socket.file", "fail", "chmod 0660")?;
    Ok(())
}

#[tokio::test]
async fn a_socket_that_is_not_the_one_of_a_daemon_that_runs_has_another_remedy() -> Result<()> {
    let node = Node::start()?;
    node.healthy().await?;
    let health = node.address("/healthz")?;
    // Not the daemon's own path: what is removed there comes back.
    let elsewhere = node.dir().join("elsewhere.sock");
    let says = || {
        let doctor = Doctor::of(&elsewhere)?;
        doctor.arg("--health-address", &health).says()
    };
    let said = says()?;
    said.check("daemon.ready", "ok", "says ready")?;
    said.check("socket.file", "fail", "path of its --unix-socket")?;
    said.check(
        "socket.file",
        "fail",
        "device-api-server runs, by 127.0.0.1:",
    )?;
    // One that another daemon left there.
    drop(UnixListener::bind(&elsewhere)?);
    let said = says()?;
    said.check("socket.connect", "fail", "another device-api-server runs")?;
    Ok(())
}
