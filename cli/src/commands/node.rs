//! `devicectl node own`: gives directories of the host to the daemon's user, before the daemon starts.
//!
//! A kubelet makes a `hostPath` directory for root. The chart's init container runs this as root with
//! `CAP_CHOWN` and no other capability, and that explains the order: a directory is root's own while its
//! mode is set, since `CAP_FOWNER` would be needed otherwise, and the daemon's at the end.
//!
//! What is in the directory may have been put there by the daemon, or by whoever took it over. So nothing
//! is followed and nothing is looked up twice: each entry is opened once, as a place (`O_PATH`), looked at
//! and changed through that.

mod judge;

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, chownat, fstat, openat};
use rustix::process::geteuid;
use serde::Serialize;

pub(super) use self::judge::is_system;
use self::judge::{Judged, LOST_AND_FOUND, judge};

use crate::args::{Args, Format, Owner};
use crate::failure::Failure;
use crate::output::Output;
use crate::text::escape;

/// Members of the group reach the sockets in it; others do not even see them.
const SOCKET_DIR_MODE: u32 = 0o750;
/// For the daemon alone.
const STATE_DIR_MODE: u32 = 0o700;

/// Directories in directories; the daemon makes two levels.
const DEPTH_MAX: usize = 8;
/// Entries of one state directory; the daemon keeps some hundred files at most.
const ENTRIES_MAX: usize = 10_000;

/// Why a directory was not given away.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OwnError {
    #[error("it is the root of the file system; name the directory itself")]
    Root,
    #[error(
        "it is a symbolic link, which whoever owns it can turn elsewhere; name the directory itself"
    )]
    Link,
    #[error("it is no directory")]
    NotDirectory,
    #[error(
        "it is one that many programs share, and they would lose it; name a directory of the daemon's own, like /var/run/device-api or /var/lib/device-api"
    )]
    System,
    #[error(
        "the daemon did not make this, so the directory that it is in may be another's, and nothing was changed; name a directory of the daemon's own, or move this away"
    )]
    Foreign,
    #[error(
        "it is to be of sockets, which a group reaches, and of state, which is the daemon's alone; give each a directory of its own"
    )]
    Both,
    #[error("cannot open it: {0}")]
    Open(#[source] io::Error),
    #[error("cannot change its owner: {0}; this needs root with CAP_CHOWN")]
    Chown(#[source] io::Error),
    #[error("cannot change its mode: {0}; this needs root")]
    Chmod(#[source] io::Error),
    #[error("cannot list what is in it: {0}")]
    List(#[source] io::Error),
    #[error(
        "more than {ENTRIES_MAX} entries, or {DEPTH_MAX} levels of directories; is it the daemon's?"
    )]
    TooMany,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    directories: Vec<Owned>,
}

/// What came of one directory.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Owned {
    path: PathBuf,
    owner: String,
    mode: String,
    /// Whether it was so before.
    unchanged: bool,
    /// Entries whose owner is another now.
    entries_changed: usize,
    /// Entries that are neither directories nor files with one name, and were left to whoever has them.
    left_alone: Vec<PathBuf>,
}

pub(super) fn own<W: Write>(
    args: &Args,
    owner: Owner,
    socket_dirs: &[PathBuf],
    state_dirs: &[PathBuf],
    out: &mut Output<W>,
) -> Result<(), Failure> {
    let sockets = socket_dirs.iter().map(|path| (path, Kind::Socket));
    let states = state_dirs.iter().map(|path| (path, Kind::State));
    let judged: Result<Vec<_>, _> = sockets
        .chain(states)
        .map(|(path, kind)| judge(path, kind, owner))
        .collect();
    let judged = judged?;
    for (at, one) in judged.iter().enumerate() {
        if judged.iter().take(at).any(|other| other.contradicts(one)) {
            return Err(failed(&one.path, OwnError::Both));
        }
    }
    let given: Result<Vec<_>, _> = judged.iter().map(|judged| give(judged, owner)).collect();
    let report = Report {
        directories: given?,
    };
    match args.output {
        Format::Json => out.json(&report),
        Format::Yaml => out.yaml(&report, false),
        Format::Table | Format::Wide => out.print(|to, _| {
            report
                .directories
                .iter()
                .try_for_each(|owned| say(to, owned))
        }),
    }
}

fn say(to: &mut impl Write, owned: &Owned) -> io::Result<()> {
    let shown = |path: &Path| escape(&path.display().to_string()).into_owned();
    let already = if owned.unchanged { ", as before" } else { "" };
    let path = shown(&owned.path);
    writeln!(to, "{path}: {} {}{already}", owned.owner, owned.mode)?;
    if owned.entries_changed > 0 {
        writeln!(to, "{path}: {} entries besides", owned.entries_changed)?;
    }
    for left in &owned.left_alone {
        let why = "neither a directory nor a file with one name: left alone";
        writeln!(to, "{}: {why}", shown(left))?;
    }
    Ok(())
}

/// What a directory is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Sockets, and the locks beside them.
    Socket,
    State,
}

impl Kind {
    fn mode(self) -> u32 {
        match self {
            Self::Socket => SOCKET_DIR_MODE,
            Self::State => STATE_DIR_MODE,
        }
    }
}

fn give(judged: &Judged, owner: Owner) -> Result<Owned, Failure> {
    let Judged { path, dir, .. } = judged;
    let mode = judged.kind.mode();
    let mut owned = Owned {
        path: path.clone(),
        owner: owner.to_string(),
        mode: format!("{mode:04o}"),
        unchanged: judged.is_right(owner),
        entries_changed: 0,
        left_alone: Vec::new(),
    };
    // The top is given away last: where it is the daemon's, all in it is.
    if owned.unchanged {
        return Ok(owned);
    }
    let refused = |why| failed(path, why);
    chown(dir, own_ids()).map_err(refused)?;
    fs::set_permissions(place(dir), permissions(mode))
        .map_err(|error| refused(OwnError::Chmod(error)))?;
    let mut entries_left = ENTRIES_MAX;
    give_entries(dir, path, owner, DEPTH_MAX, &mut entries_left, &mut owned)?;
    chown(dir, owner).map_err(refused)?;
    Ok(owned)
}

/// Gives away what is in a directory that is ours at the moment.
fn give_entries(
    dir: &OwnedFd,
    path: &Path,
    owner: Owner,
    depth_left: usize,
    entries_left: &mut usize,
    owned: &mut Owned,
) -> Result<(), Failure> {
    let unlisted = |error| failed(path, OwnError::List(error));
    for entry in fs::read_dir(place(dir)).map_err(unlisted)? {
        let name = entry.map_err(unlisted)?.file_name();
        if name == LOST_AND_FOUND && *path == *owned.path {
            continue;
        }
        let at = path.join(&name);
        let too_many = || failed(&at, OwnError::TooMany);
        let refused = |why| failed(&at, why);
        *entries_left = entries_left.checked_sub(1).ok_or_else(too_many)?;
        let (place, stat) = open(dir, Path::new(&name), &at)?;
        let found = FileType::from_raw_mode(stat.st_mode);
        // The next daemon makes another.
        if found == FileType::Socket {
            continue;
        }
        if found == FileType::Directory {
            let depth_left = depth_left.checked_sub(1).ok_or_else(too_many)?;
            chown(&place, own_ids()).map_err(refused)?;
            give_entries(&place, &at, owner, depth_left, entries_left, owned)?;
        } else if found != FileType::RegularFile || stat.st_nlink != 1 {
            // A second name may be that of a file of root's elsewhere.
            owned.left_alone.push(at);
            continue;
        }
        if !is_owned(&stat, owner) {
            owned.entries_changed += 1;
        }
        chown(&place, owner).map_err(refused)?;
    }
    Ok(())
}

fn failed(path: &Path, why: OwnError) -> Failure {
    Failure::Own {
        path: path.to_owned(),
        why,
    }
}

/// A place in the file system, and what is there; of a symbolic link, the link. `name`: what errors call it.
fn open(at: impl AsFd, path: &Path, name: &Path) -> Result<(OwnedFd, Stat), Failure> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = openat(at, path, flags, Mode::empty())
        .and_then(|place| fstat(&place).map(|stat| (place, stat)));
    opened.map_err(|errno| failed(name, OwnError::Open(errno.into())))
}

fn chown(place: &OwnedFd, owner: Owner) -> Result<(), OwnError> {
    let (uid, gid) = owner.ids();
    chownat(place, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
        .map_err(|errno| OwnError::Chown(errno.into()))
}

/// Who we are: root, in the init container.
fn own_ids() -> Owner {
    Owner {
        uid: geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
    }
}

fn is_owned(stat: &Stat, owner: Owner) -> bool {
    (stat.st_uid, stat.st_gid) == (owner.uid, owner.gid)
}

/// The way to an open place for calls that take paths only.
fn place(fd: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", fd.as_raw_fd()).into()
}

fn permissions(mode: u32) -> fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(mode)
}
