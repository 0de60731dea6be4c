//! The socket: is it there, who may pass to it, does anyone answer.

use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use super::check::Check;
use super::place::{Place, ownership, shown};
use crate::commands::node::is_system;
use crate::failure::Failure;

const FILE: &str = "socket.file";
const DIRECTORY: &str = "socket.directory";
const CONNECT: &str = "socket.connect";

const SEARCH: u32 = 0o1;
const WRITE: u32 = 0o2;
const STICKY: u32 = 0o1000;
const GROUP_WRITES: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;
const OTHERS_LOOK: u32 = 0o005;

/// A socket, and what is known of it by asking.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) path: &'a Path,
    /// The daemon's user, where it said so.
    pub(super) daemon: Option<u32>,
    /// Why there is no connection.
    pub(super) refused: Option<&'a Failure>,
    /// Where a daemon says that it is ready.
    pub(super) ready: Option<SocketAddr>,
}

impl Asked<'_> {
    pub(super) fn check(self, place: &Place) -> Vec<Check> {
        vec![directory(place, self), file(self), connect(place, self)]
    }

    /// What to do where it is not there.
    fn absent(self) -> String {
        match self.ready {
            None => START.to_owned(),
            Some(address) => format!(
                "device-api-server runs, by {address}: name the path of its --unix-socket with --socket; where it is this one, it was removed: the daemon makes it again within a second, or its log says why not, and a restart does"
            ),
        }
    }
}

fn of(meta: &Metadata) -> (u32, u32, u32) {
    (meta.uid(), meta.gid(), meta.mode())
}

fn directory(place: &Place, asked: Asked<'_>) -> Check {
    let directory = parent(asked.path);
    let mut ancestors: Vec<&Path> = directory.ancestors().collect();
    ancestors.reverse();
    let mut last = None;
    for path in ancestors {
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        let meta = match fs::metadata(path) {
            Ok(meta) => meta,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let why = format!("{} does not exist", shown(path));
                return Check::fail(DIRECTORY, why, asked.absent());
            }
            Err(error) => {
                let why = format!("cannot look at {}: {error}", shown(path));
                return Check::fail(DIRECTORY, why, "become root, and look again");
            }
        };
        if !place.may(of(&meta), SEARCH) {
            return blocked(place, path, &meta);
        }
        last = Some(meta);
    }
    match last {
        Some(meta) => safe(&directory, &meta, asked.daemon),
        None => Check::skipped(DIRECTORY, "the socket's path has no directory"),
    }
}

const START: &str = "start device-api-server, or name its socket with --socket; in a pod, mount the socket's \
     directory (not the socket: a restart makes another)";

fn parent(socket: &Path) -> PathBuf {
    match socket.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn blocked(place: &Place, path: &Path, meta: &Metadata) -> Check {
    let why = format!(
        "{} may not pass {}, which is {}",
        place.who(),
        shown(path),
        ownership(of(meta))
    );
    let group_passes = (meta.mode() >> 3) & SEARCH != 0;
    let fix = if group_passes && !place.gids.contains(&meta.gid()) {
        join(meta.gid())
    } else {
        format!(
            "as its owner: chmod 0750 {}, and be a member of its group; or become root",
            shown(path)
        )
    };
    Check::fail(DIRECTORY, why, fix)
}

fn join(gid: u32) -> String {
    if gid == 0 {
        // Nobody should become a member of root's group to read.
        return "become root; or have the daemon run with a group of its own (chart: podSecurity.runAsGroup, unit: Group=) and join that".to_owned();
    }
    format!(
        "join group {gid}: `supplementalGroups: [{gid}]` in a pod, `usermod -aG` and a new login on a node; or become root"
    )
}

/// Whether it is the daemon's, or root's, to say which socket is there.
fn safe(path: &Path, meta: &Metadata, daemon: Option<u32>) -> Check {
    let what = format!("{} is {}", shown(path), ownership(of(meta)));
    let fix = if is_system(path) {
        "have --unix-socket name one in a directory of the daemon's own, which is made with mode 0750".to_owned()
    } else {
        format!("chmod 0750 {}", shown(path))
    };
    let is_sticky = meta.mode() & STICKY != 0;
    if !is_sticky && meta.mode() & OTHERS_WRITE != 0 {
        let why = format!("{what}: anyone may put a socket of their own there");
        return Check::fail(DIRECTORY, why, fix);
    }
    if !is_sticky && meta.mode() & GROUP_WRITES != 0 {
        let why = format!("{what}: its group may put a socket of its own there");
        return Check::warn(DIRECTORY, why, fix);
    }
    if let Some(daemon) = daemon
        && meta.uid() != 0
        && meta.uid() != daemon
    {
        let why = format!(
            "{what}, and the daemon is uid {daemon}: its owner may put another socket there"
        );
        let fix = format!("chown {daemon} {}", shown(path));
        return Check::warn(DIRECTORY, why, fix);
    }
    if meta.mode() & OTHERS_LOOK != 0 {
        let why = format!(
            "{what}: who is not of its group sees the socket, and what its mode is decides alone"
        );
        return Check::warn(DIRECTORY, why, fix);
    }
    Check::ok(DIRECTORY, what)
}

fn file(asked: Asked<'_>) -> Check {
    let socket = asked.path;
    let target = fs::metadata(socket);
    if let Ok(meta) = target
        && meta.file_type().is_socket()
        && meta.mode() & OTHERS_WRITE != 0
    {
        let what = format!("{} is {}", shown(socket), ownership(of(&meta)));
        let why = format!("{what}: whoever passes its directory reads, of whatever group");
        let fix = format!("chmod 0660 {}, as the daemon makes it", shown(socket));
        return Check::fail(FILE, why, fix);
    }
    match fs::symlink_metadata(socket) {
        Ok(meta) if meta.file_type().is_socket() => Check::ok(
            FILE,
            format!("{} is a socket {}", shown(socket), ownership(of(&meta))),
        ),
        Ok(meta) if meta.file_type().is_symlink() && is_socket(socket) => {
            Check::ok(FILE, format!("{} leads to a socket", shown(socket)))
        }
        Ok(_) => Check::fail(
            FILE,
            format!("{} is no socket", shown(socket)),
            "name the daemon's socket with --socket; what is there the daemon will not remove",
        ),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let why = format!("{} does not exist", shown(socket));
            Check::fail(FILE, why, asked.absent())
        }
        Err(error) => Check::skipped(FILE, format!("cannot look at {}: {error}", shown(socket))),
    }
}

fn is_socket(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.file_type().is_socket())
}

fn connect(place: &Place, asked: Asked<'_>) -> Check {
    let socket = asked.path;
    let Some(failure) = asked.refused else {
        return Check::ok(CONNECT, format!("connected as {}", place.who()));
    };
    let why = failure.to_string();
    let Failure::Connect { source, .. } = failure else {
        let fix = "name the socket of device-api-server with --socket; where it is that, see the daemon's log";
        return Check::fail(CONNECT, why, fix);
    };
    let kind = source.kind();
    if kind == ErrorKind::NotFound {
        Check::skipped(CONNECT, "there is no socket to connect to")
    } else if kind == ErrorKind::PermissionDenied {
        denied(place, socket)
    } else if kind == ErrorKind::ConnectionRefused {
        dead(asked)
    } else {
        Check::fail(CONNECT, why, "see the daemon's log")
    }
}

/// Nobody listens.
fn dead(asked: Asked<'_>) -> Check {
    let socket = asked.path;
    if fs::metadata(socket).is_ok_and(|meta| !meta.file_type().is_socket()) {
        return Check::skipped(CONNECT, "what is there is no socket");
    }
    let why = format!(
        "nobody listens on {}: the daemon that made it is gone",
        shown(socket)
    );
    let fix = match asked.ready {
        None => {
            "start device-api-server again, and see its log for why it ended; it replaces the socket".to_owned()
        }
        Some(address) => format!(
            "another device-api-server runs, by {address}: name the path of its --unix-socket with --socket"
        ),
    };
    Check::fail(CONNECT, why, fix)
}

fn denied(place: &Place, socket: &Path) -> Check {
    let Ok(meta) = fs::metadata(socket) else {
        return Check::skipped(CONNECT, "the directory is not ours to pass");
    };
    let what = format!("{} is {}", shown(socket), ownership(of(&meta)));
    if place.may(of(&meta), WRITE) {
        return Check::fail(
            CONNECT,
            format!("{what}, and it is refused all the same"),
            "a security module (SELinux, AppArmor) or a missing capability refuses it: see the audit log of the machine",
        );
    }
    let why = format!("{what}, and {} may not write to it", place.who());
    Check::fail(CONNECT, why, join(meta.gid()))
}
