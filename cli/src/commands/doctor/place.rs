//! Where `doctor` runs: who it is, what is set, and the files of the machine, or of the pod.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{getegid, geteuid, getgroups};

/// Where it runs. Tests make their own.
#[derive(Debug)]
pub(super) struct Place {
    /// `/`, of which all paths are that are not an argument's.
    pub(super) root: PathBuf,
    pub(super) environment: BTreeMap<String, String>,
    pub(super) uid: u32,
    /// All groups, the first one first.
    pub(super) gids: Vec<u32>,
    pub(super) now: jiff::Timestamp,
}

/// The variables that are looked at.
const VARIABLES: [&str; 3] = [
    "KUBERNETES_SERVICE_HOST",
    "NVIDIA_DRIVER_CAPABILITIES",
    "NVIDIA_VISIBLE_DEVICES",
];

/// Of files of `/proc` and `/sys`, which have a line or a few.
const FILE_BYTES_MAX: usize = 4096;

impl Place {
    pub(super) fn here() -> Self {
        let variable = |name: &str| {
            let value = std::env::var_os(name)?;
            Some((name.to_owned(), value.to_string_lossy().into_owned()))
        };
        let own = [getegid()].into_iter();
        let gids = own.chain(getgroups().unwrap_or_default());
        Self {
            root: PathBuf::from("/"),
            environment: VARIABLES.into_iter().filter_map(variable).collect(),
            uid: geteuid().as_raw(),
            gids: gids.map(rustix::process::Gid::as_raw).collect(),
            now: jiff::Timestamp::now(),
        }
    }

    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.environment.get(name).map(String::as_str)
    }

    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    pub(super) fn has(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// Text of a small file.
    pub(super) fn read(&self, path: &str) -> Option<String> {
        let bytes = fs::read(self.path(path)).ok()?;
        let bytes = bytes.get(..bytes.len().min(FILE_BYTES_MAX))?;
        Some(String::from_utf8_lossy(bytes).trim().to_owned())
    }

    /// Whether it runs in a pod.
    pub(super) fn in_pod(&self) -> bool {
        self.variable("KUBERNETES_SERVICE_HOST").is_some()
    }

    /// Which of the names of a directory are wanted.
    pub(super) fn count(&self, directory: &str, is_wanted: impl Fn(&str) -> bool) -> usize {
        let entries = fs::read_dir(self.path(directory)).into_iter().flatten();
        let names = entries.flatten().map(|entry| entry.file_name());
        names
            .filter(|name| name.to_str().is_some_and(&is_wanted))
            .count()
    }

    /// Who it is, in words.
    pub(super) fn who(&self) -> String {
        let gids: Vec<String> = self.gids.iter().map(u32::to_string).collect();
        format!("uid {} (groups {})", self.uid, gids.join(", "))
    }

    /// Whether what belongs to `uid` and `gid` lets us do what `bit` of the mode's last digit stands for.
    pub(super) fn may(&self, (uid, gid, mode): (u32, u32, u32), bit: u32) -> bool {
        if self.uid == 0 {
            return true;
        }
        let shift = if self.uid == uid {
            6
        } else if self.gids.contains(&gid) {
            3
        } else {
            0
        };
        (mode >> shift) & bit != 0
    }
}

/// Owner, group and mode, as in `of 65534:65534, mode 0750`.
pub(super) fn ownership((uid, gid, mode): (u32, u32, u32)) -> String {
    format!("of {uid}:{gid}, mode {:04o}", mode & 0o7777)
}

/// A path in words.
pub(super) fn shown(path: &Path) -> String {
    path.display().to_string()
}
