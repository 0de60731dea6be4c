//! What a directory looks like from outside, and what of it has changed since.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use device_api_core::clock::WallTime;

use super::{Kind, entries, origin};

/// What a ConfigMap volume swaps.
const CONFIGMAP_DATA: &str = "..data";

/// What the directory and the file beside it look like from outside: equal as long as nobody touched
/// what is in use. Costs a few system calls an entry, and opens no file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    /// What all of the set hangs on: the directory, its `..data`, and `policies.yaml`.
    whole: BTreeMap<PathBuf, Seen>,
    /// The `*.wasm`, and what is meant to be one, by name.
    files: BTreeMap<String, Seen>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    /// Device, inode, size, and times of change in nanoseconds (content, then inode).
    There {
        id: (u64, u64),
        size: u64,
        changed: (i64, i64, i64, i64),
    },
    /// Device and inode: another one in its place is another set.
    Directory(u64, u64),
    Link(PathBuf),
    Not(io::ErrorKind),
}

/// What has changed from one look to another.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Since {
    /// These files, by name; what was read of the others is of both looks. Empty: nothing.
    Files(BTreeSet<String>),
    /// What all of it hangs on: its name.
    Whole(String),
}

/// How long after a change another may have the same time: the clock of a file system ticks every few
/// milliseconds, that of an old one every second, which nobody writes policies on.
const SAME_TICK: u64 = 100_000_000;

impl Look {
    /// Something was changed a moment ago: that it looks the same later need not mean that it is.
    pub(crate) fn is_fresh(&self, now: WallTime) -> bool {
        let mut all = self.whole.values().chain(self.files.values());
        all.any(|seen| match seen {
            Seen::There { changed, .. } => {
                let (_, _, seconds, ns) = *changed;
                let seconds = u64::try_from(seconds).unwrap_or(0);
                let at = seconds.saturating_mul(1_000_000_000);
                let at = at.saturating_add(u64::try_from(ns).unwrap_or(0));
                // A time to come, by a clock that went back, is no moment ago.
                at.abs_diff(now.unix_ns) < SAME_TICK
            }
            Seen::Directory(..) | Seen::Link(_) | Seen::Not(_) => false,
        })
    }

    pub(crate) fn since(&self, before: &Self) -> Since {
        if let Some(path) = differing(&self.whole, &before.whole).next() {
            let name = path.file_name().unwrap_or(path.as_os_str());
            return Since::Whole(origin(&name.to_string_lossy()));
        }
        Since::Files(differing(&self.files, &before.files).cloned().collect())
    }
}

/// Keys of what is in one alone, or is not the same in both.
fn differing<'a, K: Ord>(
    one: &'a BTreeMap<K, Seen>,
    other: &'a BTreeMap<K, Seen>,
) -> impl Iterator<Item = &'a K> {
    let keys = one.keys().chain(other.keys());
    keys.filter(|key| one.get(key) != other.get(key))
}

/// Looks at a directory, and at a file elsewhere.
pub(crate) fn look(directory: Option<&Path>, file: Option<&Path>) -> Look {
    let (mut whole, mut files) = (BTreeMap::new(), BTreeMap::new());
    if let Some(directory) = directory {
        // Before the entries: whatever is swapped from here on is seen at the next look.
        let data = directory.join(CONFIGMAP_DATA);
        let target = fs::read_link(&data);
        whole.insert(
            data,
            target.map_or_else(|error| Seen::Not(error.kind()), Seen::Link),
        );
        let found = fs::metadata(directory).and_then(|it| Ok((it, entries(directory)?)));
        let seen = match found {
            Ok((metadata, entries)) => {
                for entry in entries {
                    let seen = there(&entry.path);
                    match entry.kind {
                        Kind::PoliciesFile => whole.insert(entry.path, seen),
                        Kind::Policy | Kind::Misnamed => files.insert(entry.name, seen),
                    };
                }
                Seen::Directory(metadata.dev(), metadata.ino())
            }
            Err(error) => Seen::Not(error.kind()),
        };
        whole.insert(directory.to_owned(), seen);
    }
    if let Some(file) = file {
        whole.insert(file.to_owned(), there(file));
    }
    Look { whole, files }
}

fn there(path: &Path) -> Seen {
    match fs::metadata(path) {
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
    }
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
    fn h6_a_file_is_told_from_what_the_whole_set_hangs_on() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        let yaml = tempfile::NamedTempFile::new().unwrap();
        let looks = || look(Some(root.path()), Some(yaml.path()));
        let files =
            |names: &[&str]| Since::Files(names.iter().map(|name| (*name).to_owned()).collect());
        let whole = |name: &str| Since::Whole(name.to_owned());
        fs::write(path("a.wasm"), b"x").unwrap();
        fs::write(path("b.wasm"), b"x").unwrap();
        let first = looks();
        assert_eq!(looks().since(&first), files(&[]));
        fs::write(path("a.wasm"), b"longer").unwrap();
        fs::remove_file(path("b.wasm")).unwrap();
        fs::write(path("c.wasm"), b"x").unwrap();
        fs::write(path("notes.txt"), b"x").unwrap();
        let second = looks();
        assert_eq!(second.since(&first), files(&["a.wasm", "b.wasm", "c.wasm"]));

        // A ConfigMap is one thing, whatever else changes with it.
        std::os::unix::fs::symlink("..1", path("..data")).unwrap();
        fs::remove_file(path("c.wasm")).unwrap();
        assert_eq!(looks().since(&second), whole("..data"));
        let third = looks();
        fs::write(path("policies.yaml"), b"x").unwrap();
        assert_eq!(looks().since(&third), whole("policies.yaml"));
        let fourth = looks();
        fs::write(yaml.path(), b"x").unwrap();
        let name = yaml.path().file_name().unwrap().to_str().unwrap();
        assert_eq!(looks().since(&fourth), whole(name));
        // Another directory under the same name.
        let fifth = looks();
        let elsewhere = root.path().with_extension("old");
        fs::rename(root.path(), &elsewhere).unwrap();
        fs::create_dir(root.path()).unwrap();
        assert!(matches!(looks().since(&fifth), Since::Whole(_)));
        fs::remove_dir_all(elsewhere).unwrap();
    }
}
