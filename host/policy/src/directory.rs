//! Policies from a directory, a mounted ConfigMap included: there each entry is a link into a hidden
//! directory that is swapped as a whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use device_api_core::limits::POLICIES_MAX;
use device_api_core::signal::printable;
use device_api_wasm::Limits;
use rustix::fs::OFlags;

use crate::error::PolicyError;
use crate::load::{PolicyHost, PolicySource};
use crate::runner::LoadedPolicy;

/// Entries of the directory that are looked at: a wrong directory must not cost a long walk.
const ENTRIES_MAX: usize = 1024;

/// What a file is loaded with.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// For the guest's `configure`; empty means its defaults.
    pub config: String,
    pub limits: Limits,
}

/// What came of a directory.
#[derive(Debug, Default)]
pub struct DirectoryLoad {
    /// In the order of their file names. [`merge`](crate::merge) makes a set of them.
    pub policies: Vec<Arc<LoadedPolicy>>,
    pub errors: Vec<PolicyError>,
}

impl PolicyHost {
    /// Loads every `*.wasm` of a directory, in the order of their names; hidden entries are left out.
    /// `settings` is asked with the file's name without its ending. One that can't be used is one
    /// error, and the others are loaded.
    pub fn load_dir(&self, directory: &Path, settings: impl Fn(&str) -> Settings) -> DirectoryLoad {
        let mut load = DirectoryLoad::default();
        let (root, names) = match candidates(directory) {
            Ok(found) => found,
            Err(error) => {
                load.errors.push(error);
                return load;
            }
        };
        for (at, name) in names.into_iter().enumerate() {
            let loaded = if at < POLICIES_MAX {
                let Settings { config, limits } =
                    settings(name.strip_suffix(ENDING).unwrap_or(&name));
                read(&root, &name, limits.component_bytes_max).and_then(|bytes| {
                    self.load(&PolicySource {
                        origin: origin(&name),
                        bytes: bytes.into(),
                        config,
                        limits,
                    })
                })
            } else {
                Err(PolicyError::TooMany {
                    origin: origin(&name),
                    max: POLICIES_MAX,
                })
            };
            match loaded {
                Ok(policy) => load.policies.push(policy),
                Err(error) => load.errors.push(error),
            }
        }
        load
    }
}

const ENDING: &str = ".wasm";

/// The directory without links in its path, and the names in it that may be policies, sorted.
fn candidates(directory: &Path) -> Result<(PathBuf, Vec<String>), PolicyError> {
    let unreadable = |source: io::Error| PolicyError::ReadDirectory {
        path: directory.to_owned(),
        source,
    };
    let root = fs::canonicalize(directory).map_err(unreadable)?;
    let mut names = Vec::new();
    for (at, entry) in fs::read_dir(&root).map_err(unreadable)?.enumerate() {
        if at >= ENTRIES_MAX {
            return Err(PolicyError::CrowdedDirectory {
                path: directory.to_owned(),
                max: ENTRIES_MAX,
            });
        }
        // A name that is no UTF-8 can't end in a way that we asked for and be shown as well.
        let name = entry.map_err(unreadable)?.file_name().into_string();
        names.extend(
            name.ok()
                .filter(|name| name.ends_with(ENDING) && !name.starts_with('.')),
        );
    }
    names.sort_unstable();
    Ok((root, names))
}

/// A file name, fit for a message.
fn origin(name: &str) -> String {
    printable(name, 255)
}

/// Reads a regular file beneath `root`, links followed, in one go and not beyond its bound.
fn read(root: &Path, name: &str, bytes_max: usize) -> Result<Vec<u8>, PolicyError> {
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
    let file = open(&path).map_err(unreadable)?;
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

/// Without waiting for a writer, should the file have become a FIFO since it was looked at.
fn open(path: &Path) -> io::Result<File> {
    let flags = i32::try_from((OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC).bits());
    OpenOptions::new()
        .read(true)
        .custom_flags(flags.unwrap_or_default())
        .open(path)
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
