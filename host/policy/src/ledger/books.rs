//! The ledger on the disk, and the bytes that it names.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use device_api_core::clock::WallTime;
use rustix::fs::OFlags;
use sha2::{Digest, Sha256};

use super::{FORMAT, Ledger};
use crate::source::Bytes;

/// Size of a ledger that is read: an entry has some 300 bytes, and there are at most a thousand.
const LEDGER_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Bytes of versions to go back to, beside those in their seats: as much as sixteen policies of 32 MiB, which is
/// the most that one has by default. A node's state directory is its root disk.
const GOOD_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// The ledger and its place on the disk, if it has one.
#[derive(Debug)]
pub(crate) struct Books {
    pub(crate) ledger: Ledger,
    /// As it was last written.
    written: Ledger,
    home: Option<PathBuf>,
    /// The bytes of kept versions, without a home.
    memory: HashMap<String, Bytes>,
    /// Why it could not be written, as it was said.
    unwritten: Option<String>,
    pub(super) good_bytes_max: u64,
}

const LEDGER_NAME: &str = "ledger.json";
const GOOD_NAME: &str = "good";

impl Books {
    /// Opens the ledger of a state directory; one that can't be read is set aside, and a new one begins.
    pub(crate) fn open(home: Option<PathBuf>, now: WallTime) -> Self {
        let home = home.filter(|home| {
            let made = make_private(&home.join(GOOD_NAME));
            if let Err(error) = &made {
                tracing::error!(%error, path = %home.display(), "nothing about policies is remembered over a restart: check the state directory");
            }
            made.is_ok()
        });
        let ledger = home.as_deref().map(|home| read_or_set_aside(home, now));
        let ledger = ledger.unwrap_or_default();
        Self {
            written: ledger.clone(),
            ledger,
            home,
            memory: HashMap::new(),
            unwritten: None,
            good_bytes_max: GOOD_BYTES_MAX,
        }
    }

    /// Where crash markers go.
    pub(crate) fn calls(&self) -> Option<PathBuf> {
        self.home.as_ref().map(|home| home.join("calls"))
    }

    /// Writes what has changed, and lets go of bytes that nobody names.
    pub(crate) fn save(&mut self) {
        if self.ledger == self.written {
            return;
        }
        self.ledger.format = FORMAT;
        self.bound_good();
        let named = self.ledger.named();
        self.memory
            .retain(|digest, _| named.contains(digest.as_str()));
        if let Some(home) = &self.home {
            if let Err(error) = write(home, &self.ledger) {
                // Tried again each second, and said once.
                let why = error.to_string();
                if self.unwritten.as_ref() != Some(&why) {
                    tracing::error!(error = why, path = %home.display(), "what is known of policies could not be saved: check the state directory");
                    self.unwritten = Some(why);
                }
                return;
            }
            if self.unwritten.take().is_some() {
                tracing::info!(path = %home.display(), "what is known of policies is saved again");
            }
            forget_others(&home.join(GOOD_NAME), &named);
        }
        self.written = self.ledger.clone();
    }

    /// Forgets versions to go back to until there is room for the rest; those in their seats stay.
    fn bound_good(&mut self) {
        let bytes_max = self.good_bytes_max;
        loop {
            let sizes = self
                .ledger
                .named()
                .into_iter()
                .map(|digest| self.size(digest));
            let bytes: u64 = sizes.sum();
            if bytes <= bytes_max {
                return;
            }
            let Some((policy, kept)) = self.ledger.forget_a_good_one() else {
                return;
            };
            tracing::warn!(
                policy,
                version = kept.version,
                digest = kept.digest,
                bytes,
                bytes_max,
                "the versions kept to go back to take too much room: this one is kept no more"
            );
        }
    }

    fn size(&self, digest: &str) -> u64 {
        let in_memory = self.memory.get(digest).map(|bytes| bytes.len());
        let on_disk = || {
            let path = self.home.as_ref()?.join(GOOD_NAME).join(digest);
            Some(fs::symlink_metadata(path).ok()?.len())
        };
        let in_memory = in_memory.map(|bytes| u64::try_from(bytes).unwrap_or(u64::MAX));
        in_memory.or_else(on_disk).unwrap_or_default()
    }

    /// Keeps the bytes of a version that the ledger is about to name.
    pub(crate) fn keep(&mut self, digest: &str, bytes: &Bytes) {
        let Some(home) = &self.home else {
            self.memory.insert(digest.to_owned(), bytes.clone());
            return;
        };
        let path = home.join(GOOD_NAME).join(digest);
        if path.exists() {
            return;
        }
        if let Err(error) = replace(&path, bytes) {
            tracing::error!(%error, path = %path.display(), "the bytes of a policy could not be kept: without them there is no roll-back to it");
            self.memory.insert(digest.to_owned(), bytes.clone());
        }
    }

    /// The bytes of a kept version, as they were.
    pub(crate) fn bytes(&self, digest: &str, bytes_max: usize) -> Option<Bytes> {
        if let Some(bytes) = self.memory.get(digest) {
            return Some(bytes.clone());
        }
        let path = self.home.as_ref()?.join(GOOD_NAME).join(digest);
        let bytes = read_bounded(&path, u64::try_from(bytes_max).unwrap_or(u64::MAX));
        match bytes {
            Ok(bytes) if sha256(&bytes) == digest => Some(bytes.into()),
            Ok(_) => {
                tracing::error!(path = %path.display(), "a kept policy is not what it was: it is not used");
                // Kept anew when that version is seated again.
                let _ = fs::remove_file(&path);
                None
            }
            Err(error) => {
                tracing::error!(%error, path = %path.display(), "a kept policy can't be read");
                None
            }
        }
    }
}

/// SHA-256 in lower-case hex.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub(crate) fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A directory of our own: who else can write there can say what judges.
pub(crate) fn make_private(directory: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    let found = fs::symlink_metadata(directory)?;
    let wrong = if !found.is_dir() {
        "it is no directory"
    } else if found.uid() != rustix::process::geteuid().as_raw() {
        "it belongs to another user"
    } else if found.mode() & 0o022 != 0 {
        "others may write to it: chmod go-w"
    } else {
        return Ok(());
    };
    Err(io::Error::other(format!(
        "{}: {wrong}",
        directory.display()
    )))
}

pub(crate) fn read_bounded(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // No link, and nothing that a reader waits for.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(i32::try_from(flags.bits()).unwrap_or_default())
        .open(path)?;
    file.take(bytes_max.saturating_add(1))
        .read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > bytes_max {
        return Err(io::Error::other(format!("has more than {bytes_max} bytes")));
    }
    Ok(bytes)
}

fn read_or_set_aside(home: &Path, now: WallTime) -> Ledger {
    let path = home.join(LEDGER_NAME);
    let damage = match read_bounded(&path, LEDGER_BYTES_MAX) {
        Ok(bytes) => match serde_json::from_slice::<Ledger>(&bytes) {
            Ok(ledger) if ledger.format == FORMAT => return ledger,
            Ok(ledger) => format!(
                "it has the format {}, and this daemon reads {FORMAT}",
                ledger.format
            ),
            Err(error) => error.to_string(),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ledger::default(),
        Err(error) => error.to_string(),
    };
    let aside = home.join(format!("{LEDGER_NAME}.damaged-{}", now.unix_ms()));
    let moved = fs::rename(&path, &aside)
        .err()
        .map(|error| error.to_string());
    tracing::warn!(
        path = %path.display(), set_aside = %aside.display(), damage, moved,
        "the ledger of policies can't be read: a new one begins, and quarantines, pauses and last good versions are forgotten"
    );
    Ledger::default()
}

fn write(home: &Path, ledger: &Ledger) -> io::Result<()> {
    let text = serde_json::to_vec_pretty(ledger)?;
    replace(&home.join(LEDGER_NAME), &text)
}

/// Durably, and whole or not at all.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        // Not what somebody put there meanwhile.
        .create_new(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    if let Some(directory) = path.parent() {
        File::open(directory)?.sync_all()?;
    }
    Ok(())
}

/// What can't be removed is in nobody's way but the disk's.
fn forget_others(good: &Path, named: &BTreeSet<&str>) {
    for entry in fs::read_dir(good).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if !name.to_str().is_some_and(|name| named.contains(name)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}
