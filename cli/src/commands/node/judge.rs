//! Whether a directory is the daemon's to have: looked at, all of them, before anything is changed.
//!
//! A path is typed once, for every node, and the directory that it names by mistake is taken from whoever uses
//! it. So all that is in it must have a name that the daemon gives. (An owner of its own is no sign: a database's
//! directory has one, too, and 65534 is many a program's.)

use std::ffi::OsStr;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, CWD, FileType, Stat, access};

use super::{
    DEPTH_MAX, ENTRIES_MAX, Kind, OwnError, chown, failed, is_owned, open, own_ids, place,
};
use crate::args::Owner;
use crate::failure::Failure;

/// Directories that many programs share, by the Filesystem Hierarchy Standard and where a kubelet and the driver
/// keep theirs.
const SHARED: [&str; 30] = [
    "/",
    "/dev",
    "/dev/shm",
    "/etc",
    "/home",
    "/media",
    "/mnt",
    "/opt",
    "/root",
    "/run",
    "/run/lock",
    "/run/nvidia",
    "/run/systemd",
    "/run/user",
    "/srv",
    "/tmp",
    "/var",
    "/var/cache",
    "/var/lib",
    "/var/lib/kubelet",
    "/var/local",
    "/var/lock",
    "/var/log",
    "/var/mail",
    "/var/opt",
    "/var/run",
    "/var/run/lock",
    "/var/run/nvidia",
    "/var/spool",
    "/var/tmp",
];

/// The system's with all that is in them.
const SYSTEM: [&str; 9] = [
    "/bin", "/boot", "/lib", "/lib32", "/lib64", "/proc", "/sbin", "/sys", "/usr",
];

/// Of the file system's own, where a disk is mounted.
pub(super) const LOST_AND_FOUND: &str = "lost+found";

/// Of a socket of the daemon's, whoever made its directory.
const SOCKET_MODE: u32 = 0o660;

/// Whether a directory is one that no program has for itself.
pub(crate) fn is_system(path: &Path) -> bool {
    SHARED.iter().any(|listed| path == Path::new(listed))
        || SYSTEM.iter().any(|tree| path.starts_with(tree))
}

/// A directory that may be given away; as it was opened.
pub(super) struct Judged {
    pub(super) path: PathBuf,
    pub(super) kind: Kind,
    pub(super) dir: OwnedFd,
    pub(super) stat: Stat,
}

/// # Errors
/// It is not to be given away. It is as it was.
pub(super) fn judge(path: &Path, kind: Kind, owner: Owner) -> Result<Judged, Failure> {
    let refused = |why| Err(failed(path, why));
    // `/`, and paths that end in `..`, which may lead there.
    if path.file_name().is_none() {
        return refused(OwnError::Root);
    }
    let (dir, stat) = open(CWD, path, path)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {}
        FileType::Symlink => return refused(OwnError::Link),
        FileType::RegularFile
        | FileType::Fifo
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Socket
        | FileType::Unknown => return refused(OwnError::NotDirectory),
    }
    let real = fs::canonicalize(path);
    if is_system(path) || real.is_ok_and(|real| is_system(&real)) {
        return refused(OwnError::System);
    }
    let judged = Judged {
        path: path.to_owned(),
        kind,
        dir,
        stat,
    };
    if judged.is_right(owner) {
        return Ok(judged);
    }
    let within = match kind {
        Kind::Socket => Within::Sockets,
        Kind::State => Within::State,
    };
    let mut entries_left = ENTRIES_MAX;
    look(
        &judged.dir,
        &stat,
        path,
        within,
        DEPTH_MAX,
        &mut entries_left,
    )?;
    Ok(judged)
}

impl Judged {
    /// Whether both are one directory, that can't be right for both.
    pub(super) fn contradicts(&self, other: &Self) -> bool {
        let is = |stat: &Stat| (stat.st_dev, stat.st_ino);
        self.kind != other.kind && is(&self.stat) == is(&other.stat)
    }

    /// Whether it is as it is to be.
    pub(super) fn is_right(&self, owner: Owner) -> bool {
        is_owned(&self.stat, owner) && self.stat.st_mode & 0o7777 == self.kind.mode()
    }
}

/// Which directory of the daemon's it is, and so what may be in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Within {
    Sockets,
    State,
    Policies,
    Code,
    /// Named by policies and digests, whatever is in it.
    Any,
    /// It is not looked into.
    Apart,
}

impl Within {
    /// What an entry is; `None`: the daemon did not make it.
    fn take(self, name: &OsStr, stat: &Stat) -> Option<Self> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        let name = name.to_str().unwrap_or_default();
        let ends = |ending: &str| name.ends_with(ending);
        let is_file = kind == FileType::RegularFile;
        let is_dir = kind == FileType::Directory;
        match self {
            Self::Any => Some(Self::Any),
            Self::Sockets | Self::State if is_dir && name == LOST_AND_FOUND => Some(Self::Apart),
            Self::Sockets => {
                let is_socket = kind == FileType::Socket && stat.st_mode & 0o777 == SOCKET_MODE;
                let is_lock =
                    is_file && stat.st_size == 0 && name.starts_with('.') && ends(".lock");
                (is_socket || is_lock).then_some(Self::Apart)
            }
            Self::State if is_dir && name == "code" => Some(Self::Code),
            Self::State if is_dir && name == "policies" => Some(Self::Policies),
            Self::State => {
                let is_ours =
                    name.starts_with("store.redb") || matches!(name, "versions" | "versions.new");
                (is_file && is_ours).then_some(Self::Apart)
            }
            Self::Policies if is_dir && matches!(name, "good" | "calls") => Some(Self::Any),
            Self::Policies => (is_file && name.starts_with("ledger.")).then_some(Self::Apart),
            Self::Code => {
                let is_ours = ends(".code") || ends(".tmp");
                (is_file && is_ours).then_some(Self::Apart)
            }
            Self::Apart => None,
        }
    }
}

fn look(
    dir: &OwnedFd,
    stat: &Stat,
    path: &Path,
    within: Within,
    depth_left: usize,
    entries_left: &mut usize,
) -> Result<(), Failure> {
    let is_open = access(place(dir), Access::READ_OK | Access::EXEC_OK).is_ok();
    if is_open {
        return entries(dir, path, within, depth_left, entries_left);
    }
    // Another user's alone: without a capability that reads past modes it is root's while it is looked into.
    let whose = Owner {
        uid: stat.st_uid,
        gid: stat.st_gid,
    };
    chown(dir, own_ids()).map_err(|why| failed(path, why))?;
    let outcome = entries(dir, path, within, depth_left, entries_left);
    chown(dir, whose).map_err(|why| failed(path, why))?;
    outcome
}

fn entries(
    dir: &OwnedFd,
    path: &Path,
    within: Within,
    depth_left: usize,
    entries_left: &mut usize,
) -> Result<(), Failure> {
    let unlisted = |error| failed(path, OwnError::List(error));
    for entry in fs::read_dir(place(dir)).map_err(unlisted)? {
        let name = entry.map_err(unlisted)?.file_name();
        let at = path.join(&name);
        let too_many = || failed(&at, OwnError::TooMany);
        *entries_left = entries_left.checked_sub(1).ok_or_else(too_many)?;
        let (entry, stat) = open(dir, Path::new(&name), &at)?;
        let Some(inner) = within.take(&name, &stat) else {
            return Err(failed(&at, OwnError::Foreign));
        };
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if is_dir && inner != Within::Apart {
            let depth_left = depth_left.checked_sub(1).ok_or_else(too_many)?;
            look(&entry, &stat, &at, inner, depth_left, entries_left)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_that_many_share_are_known_and_one_of_the_daemons_own_is_not() {
        for listed in SHARED.iter().chain(&SYSTEM) {
            assert!(is_system(Path::new(listed)), "{listed}");
        }
        for (path, expected) in [
            ("/var/run/", true),
            ("/usr/local/device-api", true),
            ("/sys/fs/cgroup", true),
            ("/var/run/device-api", false),
            ("/run/device-api", false),
            ("/var/lib/device-api", false),
            ("/libations", false),
            ("/opt/device-api/state", false),
        ] {
            assert_eq!(is_system(Path::new(path)), expected, "{path}");
        }
    }
}
