//! The policy directory, a mounted ConfigMap included: there each entry is a link into a hidden
//! directory that is swapped as a whole.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use device_api_core::clock::WallTime;
use device_api_core::signal::printable;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use crate::error::PolicyError;
use crate::manifest::POLICIES_FILE;

/// Entries of the directory that are looked at: a wrong directory must not cost a long walk.
const ENTRIES_MAX: usize = 1024;

pub(crate) const ENDING: &str = ".wasm";

/// What a ConfigMap volume swaps.
const CONFIGMAP_DATA: &str = "..data";

/// What the directory and the file beside it look like from outside: equal as long as nobody touched
/// what is in use. Costs a few system calls an entry, and opens no file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Look(Vec<(PathBuf, Seen)>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    /// Device, inode, size, and times of change in nanoseconds (content, then inode).
    There {
        id: (u64, u64),
        size: u64,
        changed: (i64, i64, i64, i64),
    },
    Link(PathBuf),
    Not(io::ErrorKind),
}

/// How long after a change another may have the same time: the clock of a file system ticks every few
/// milliseconds, that of an old one every second, which nobody writes policies on.
const SAME_TICK: u64 = 100_000_000;

impl Look {
    /// Something was changed a moment ago: that it looks the same later need not mean that it is.
    pub(crate) fn is_fresh(&self, now: WallTime) -> bool {
        self.0.iter().any(|(_, seen)| match seen {
            Seen::There { changed, .. } => {
                let (_, _, seconds, ns) = *changed;
                let seconds = u64::try_from(seconds).unwrap_or(0);
                let at = seconds.saturating_mul(1_000_000_000);
                let at = at.saturating_add(u64::try_from(ns).unwrap_or(0));
                // A time to come, by a clock that went back, is no moment ago.
                at.abs_diff(now.unix_ns) < SAME_TICK
            }
            Seen::Link(_) | Seen::Not(_) => false,
        })
    }
}

/// Looks at a directory, and at a file elsewhere.
pub(crate) fn look(directory: Option<&Path>, file: Option<&Path>) -> Look {
    let mut seen: Vec<(PathBuf, Seen)> = Vec::new();
    if let Some(directory) = directory {
        // Before the entries: whatever is swapped from here on is seen at the next look.
        let data = directory.join(CONFIGMAP_DATA);
        match fs::read_link(&data) {
            Ok(target) => seen.push((data, Seen::Link(target))),
            Err(error) => seen.push((data, Seen::Not(error.kind()))),
        }
        match names(directory) {
            Ok(names) => seen.extend(names.iter().map(|name| there(directory.join(name)))),
            Err(error) => seen.push((directory.to_owned(), Seen::Not(error.kind()))),
        }
    }
    seen.extend(file.map(|file| there(file.to_owned())));
    Look(seen)
}

fn there(path: PathBuf) -> (PathBuf, Seen) {
    let seen = match fs::metadata(&path) {
        Ok(metadata) => Seen::There {
            id: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            changed: (
                metadata.mtime(),
                metadata.mtime_nsec(),
                metadata.ctime(),
                metadata.ctime_nsec(),
            ),
        },
        Err(error) => Seen::Not(error.kind()),
    };
    (path, seen)
}

/// The entries that count, sorted; at most one more than is allowed.
fn names(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)?.take(ENTRIES_MAX + 1) {
        // A name that is no UTF-8 can't end in a way that we asked for and be shown as well.
        let name = entry?.file_name().into_string().unwrap_or_default();
        let is_policy = name.ends_with(ENDING) && !name.starts_with('.');
        if is_policy || name == POLICIES_FILE {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// What is in the directory.
#[derive(Debug)]
pub(crate) struct Listing {
    /// Without links in its path.
    pub(crate) root: PathBuf,
    /// The `*.wasm`, sorted; hidden ones left out.
    pub(crate) policies: Vec<String>,
    pub(crate) has_policies_file: bool,
}

/// # Errors
/// It can't be read, or has more entries than a policy directory would.
pub(crate) fn list(directory: &Path) -> Result<Listing, PolicyError> {
    let unreadable = |source: io::Error| PolicyError::ReadDirectory {
        path: directory.to_owned(),
        source,
    };
    let root = fs::canonicalize(directory).map_err(unreadable)?;
    let count = fs::read_dir(&root)
        .map_err(unreadable)?
        .take(ENTRIES_MAX + 1)
        .count();
    if count > ENTRIES_MAX {
        return Err(PolicyError::CrowdedDirectory {
            path: directory.to_owned(),
            max: ENTRIES_MAX,
        });
    }
    let mut policies = names(&root).map_err(unreadable)?;
    let all = policies.len();
    policies.retain(|name| name != POLICIES_FILE);
    Ok(Listing {
        root,
        has_policies_file: policies.len() != all,
        policies,
    })
}

/// A file name, fit for a message.
pub(crate) fn origin(name: &str) -> String {
    printable(name, 255)
}

/// Reads a regular file beneath `root`, links followed, in one go and not beyond its bound.
pub(crate) fn read(root: &Path, name: &str, bytes_max: usize) -> Result<Vec<u8>, PolicyError> {
    let origin = origin(name);
    let unreadable = |source: io::Error| PolicyError::ReadFile {
        origin: origin.clone(),
        source,
    };
    let path = fs::canonicalize(root.join(name)).map_err(unreadable)?;
    if !path.starts_with(root) {
        return Err(PolicyError::Outside {
            origin,
            target: path,
        });
    }
    refuse_special(
        &origin,
        fs::metadata(&path).map_err(unreadable)?.file_type(),
    )?;
    let file = open(root, &path).map_err(unreadable)?;
    // Looked at again through the handle: what was opened is what counts.
    let metadata = file.metadata().map_err(unreadable)?;
    refuse_special(&origin, metadata.file_type())?;
    let too_large = |bytes: u64| usize::try_from(bytes).map_or(true, |bytes| bytes > bytes_max);
    if too_large(metadata.len()) {
        return Err(PolicyError::TooLarge {
            origin,
            max: bytes_max,
        });
    }
    let mut bytes = Vec::new();
    let bound = u64::try_from(bytes_max)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    file.take(bound)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() > bytes_max {
        return Err(PolicyError::TooLarge {
            origin,
            max: bytes_max,
        });
    }
    Ok(bytes)
}

/// `path`, without links, is beneath `root`, and stays so whatever is swapped for a link meanwhile. Without
/// waiting for a writer, should the file have become a FIFO since it was looked at.
fn open(root: &Path, path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let beneath = path.strip_prefix(root).map_err(io::Error::other)?;
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    match openat2(File::open(root)?, beneath, flags, Mode::empty(), within) {
        // A kernel before 5.6, or a sandbox that does not know the call.
        Err(Errno::NOSYS | Errno::PERM) => {
            Ok(rustix::fs::open(path, flags, Mode::empty()).map(File::from)?)
        }
        opened => Ok(opened.map(File::from)?),
    }
}

fn refuse_special(origin: &str, kind: fs::FileType) -> Result<(), PolicyError> {
    let found = if kind.is_file() {
        return Ok(());
    } else if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    };
    Err(PolicyError::NotAFile {
        origin: origin.to_owned(),
        found,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h6_a_change_of_a_moment_ago_is_fresh_and_one_of_a_time_to_come_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.wasm");
        fs::write(&file, b"x").unwrap();
        let metadata = fs::metadata(&file).unwrap();
        let changed = metadata.ctime() * 1_000_000_000 + metadata.ctime_nsec();
        let changed = u64::try_from(changed).unwrap();
        let look = look(Some(directory.path()), None);
        let at = |unix_ns: u64| look.is_fresh(WallTime { unix_ns });
        assert!(at(changed) && at(changed + SAME_TICK - 1));
        // The clock was set back by the smallest step that is none of the tick's.
        assert!(!at(changed + SAME_TICK) && !at(changed - SAME_TICK));
    }

    #[test]
    fn h6_a_directory_that_became_a_link_leads_nowhere_else() {
        let (root, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = root.path().canonicalize().unwrap();
        fs::write(elsewhere.path().join("a.wasm"), b"x").unwrap();
        fs::create_dir(root.join("mid")).unwrap();
        fs::write(root.join("mid/a.wasm"), b"x").unwrap();
        let path = root.join("mid/a.wasm");
        assert!(open(&root, &path).is_ok());
        fs::remove_dir_all(root.join("mid")).unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), root.join("mid")).unwrap();
        assert!(open(&root, &path).is_err());
    }
}
