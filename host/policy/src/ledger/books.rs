//! The ledger on the disk, and the bytes that it names.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::{fs, io};

use device_api_core::clock::WallTime;

use super::files::{make_private, read_bounded, replace, sha256};
use super::{FORMAT, Ledger, Lost, Quarantined, Versioned};
use crate::error::PolicyHostError;
use crate::source::Bytes;

/// Size of a ledger, written or read: an entry has some 300 bytes, and there are at most a thousand.
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
    /// The bytes of kept versions, without a home, or until there is room for them.
    memory: HashMap<String, Bytes>,
    /// Why what is known is not saved, and what to do, as it was said.
    unsaved: Option<String>,
    /// Why nothing can be saved in all of this run.
    shut: Option<String>,
    /// A ledger could not be read when this run began: what that costs.
    damage: Option<String>,
    /// Bytes that lay there then: while it is doubted what was lost, they may yet be named again.
    spared: BTreeSet<String>,
    pub(super) good_bytes_max: u64,
}

const LEDGER_NAME: &str = "ledger.json";
const GOOD_NAME: &str = "good";

impl Books {
    /// Opens the ledger of a state directory; one that can't be read is set aside, and a new one begins.
    ///
    /// # Errors
    /// A later daemon wrote it.
    pub(crate) fn open(home: Option<PathBuf>, now: WallTime) -> Result<Self, PolicyHostError> {
        let mut books = Self {
            ledger: Ledger::default(),
            written: Ledger::default(),
            home: None,
            memory: HashMap::new(),
            unsaved: None,
            shut: None,
            damage: None,
            spared: BTreeSet::new(),
            good_bytes_max: GOOD_BYTES_MAX,
        };
        let Some(home) = home else {
            return Ok(books);
        };
        if let Err(error) = make_private(&home.join(GOOD_NAME)) {
            books.shut(format!("{} can't be used ({error})", home.display()));
            return Ok(books);
        }
        match find(&home, now)? {
            Found::Ledger(ledger) => {
                books.written = Ledger::clone(&ledger);
                books.ledger = *ledger;
            }
            Found::Damaged(lost) => {
                books.forgotten(&lost);
                books.ledger.lost = Some(lost);
            }
            Found::Stuck { lost, why } => {
                books.forgotten(&lost);
                books.ledger.lost = Some(lost);
                books.shut(why);
                return Ok(books);
            }
        }
        if books.ledger.lost.is_some() {
            books.spared = names(&home.join(GOOD_NAME)).collect();
        }
        books.home = Some(home);
        Ok(books)
    }

    fn forgotten(&mut self, lost: &Lost) {
        let damage = format!(
            "{}: what was quarantined, paused, accepted or good before is forgotten, and files of the policy \
             directory wait for `devicectl policy accept`; quarantine and pause anew what was",
            lost.told()
        );
        tracing::error!("{damage}");
        self.damage = Some(damage);
    }

    /// Nothing is saved in this run.
    fn shut(&mut self, why: String) {
        let why = format!("{why}: mend it, and restart the daemon");
        tracing::error!(
            "what is known of policies can't be saved, and a restart forgets it: {why}"
        );
        self.unsaved = Some(why.clone());
        self.shut = Some(why);
    }

    /// Why what is decided now does not outlast this run, and what to do; `None`: it does, or need not.
    pub(crate) fn unsaved(&self) -> Option<&str> {
        self.unsaved.as_deref()
    }

    pub(crate) fn has_saved(&self, entry: &Quarantined) -> bool {
        self.written.quarantined.contains(entry)
    }

    /// What was forgotten when this run began, and why.
    pub(crate) fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }

    /// Where crash markers go.
    pub(crate) fn calls(&self) -> Option<PathBuf> {
        self.home.as_ref().map(|home| home.join("calls"))
    }

    /// Writes what has changed, and lets go of bytes that nobody names. What can't be written is tried again
    /// by the next call, which comes within a second.
    pub(crate) fn save(&mut self) {
        let has_all = self.home.is_none() || self.memory.is_empty();
        if self.ledger == self.written && has_all {
            self.saved(Ok(()));
            return;
        }
        self.ledger.format = FORMAT;
        self.bound_good();
        let named = self.ledger.named();
        self.memory
            .retain(|digest, _| named.contains(digest.as_str()));
        let outcome = self.write();
        self.saved(outcome);
    }

    /// [`Self::save`].
    ///
    /// # Errors
    /// Why it could not be saved, and what to do, unless what `is_same` compares is on the disk all the same.
    pub(crate) fn settle(
        &mut self,
        is_same: impl FnOnce(&Ledger, &Ledger) -> bool,
    ) -> Result<(), String> {
        self.save();
        if is_same(&self.written, &self.ledger) {
            return Ok(());
        }
        Err(self.unsaved.clone().unwrap_or_default())
    }

    /// The ledger first: it is small, and has what protects.
    fn write(&mut self) -> Result<(), String> {
        if let Some(why) = &self.shut {
            return Err(why.clone());
        }
        let Some(home) = &self.home else {
            self.written = self.ledger.clone();
            return Ok(());
        };
        let failed = |path: &Path, error: &io::Error| {
            format!(
                "{}: {error}: make room for it, or let the daemon write there; it is tried again each second",
                path.display()
            )
        };
        let path = home.join(LEDGER_NAME);
        if self.ledger != self.written {
            write(&path, &self.ledger).map_err(|error| failed(&path, &error))?;
            self.written = self.ledger.clone();
        }
        let good = home.join(GOOD_NAME);
        if self.ledger.lost.is_none() {
            self.spared.clear();
        }
        let mut named = self.ledger.named();
        named.extend(self.spared.iter().map(String::as_str));
        forget_others(&good, &named);
        let mut unkept = Ok(());
        self.memory.retain(|digest, bytes| {
            let path = good.join(digest);
            let kept = replace(&path, bytes).map_err(|error| failed(&path, &error));
            let is_unkept = kept.is_err();
            unkept = std::mem::replace(&mut unkept, Ok(())).and(kept);
            is_unkept
        });
        unkept
    }

    /// Said once.
    fn saved(&mut self, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => {
                if self.unsaved.take().is_some() {
                    tracing::info!("what is known of policies is saved again");
                }
            }
            Err(why) => {
                if self.unsaved.as_ref() != Some(&why) {
                    tracing::error!(
                        "what is known of policies can't be saved, and a restart forgets it: {why}"
                    );
                    self.unsaved = Some(why);
                }
            }
        }
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
            tracing::error!(%error, path = %path.display(), "the bytes of a policy could not be kept, which is tried again: a restart before that can't roll back to it");
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

/// What the runs before left.
enum Found {
    Ledger(Box<Ledger>),
    /// It is out of the way.
    Damaged(Lost),
    /// It is where it was, and must not be written over.
    Stuck {
        lost: Lost,
        why: String,
    },
}

fn find(home: &Path, now: WallTime) -> Result<Found, PolicyHostError> {
    let path = home.join(LEDGER_NAME);
    let damage = match read_bounded(&path, LEDGER_BYTES_MAX) {
        Ok(bytes) => {
            if let Some(found) = later_format(&bytes) {
                let reads = FORMAT;
                return Err(PolicyHostError::NewerLedger { path, found, reads });
            }
            match serde_json::from_slice::<Ledger>(&bytes) {
                Ok(ledger) if ledger.format == FORMAT => {
                    return Ok(Found::Ledger(Box::new(ledger)));
                }
                Ok(ledger) => format!("there is no format {}", ledger.format),
                Err(error) => error.to_string(),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(match set_aside_before(home) {
                Some(lost) => Found::Damaged(lost),
                None => Found::Ledger(Box::default()),
            });
        }
        Err(error) => error.to_string(),
    };
    let aside = home.join(format!("{LEDGER_NAME}.damaged-{}", now.unix_ms()));
    let mut lost = Lost {
        damage,
        aside: aside.display().to_string(),
    };
    Ok(match fs::rename(&path, &aside) {
        Ok(()) => Found::Damaged(lost),
        Err(error) => {
            lost.aside = path.display().to_string();
            let why = format!(
                "{} can't be read, nor be set aside as {} ({error})",
                path.display(),
                aside.display()
            );
            Found::Stuck { lost, why }
        }
    })
}

/// The format that a later daemon wrote, if one did.
fn later_format(ledger: &[u8]) -> Option<u32> {
    let versioned = serde_json::from_slice::<Versioned>(ledger).ok()?;
    (versioned.format > FORMAT).then_some(versioned.format)
}

/// By a run that could write no new one.
fn set_aside_before(home: &Path) -> Option<Lost> {
    let aside = fs::read_dir(home).into_iter().flatten().flatten();
    let aside = aside.filter(|entry| {
        let name = entry.file_name();
        name.to_string_lossy()
            .starts_with(&format!("{LEDGER_NAME}.damaged-"))
    });
    let aside = aside.map(|entry| entry.path()).max()?;
    Some(Lost {
        damage: "no other was written since".to_owned(),
        aside: aside.display().to_string(),
    })
}

fn write(path: &Path, ledger: &Ledger) -> io::Result<()> {
    let text = serde_json::to_vec_pretty(ledger)?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > LEDGER_BYTES_MAX {
        // It would be set aside by the next start, with all that it has.
        let why = format!(
            "it would have {} bytes, and at most {LEDGER_BYTES_MAX} are read again; configurations in policies.yaml are \
             kept in it",
            text.len()
        );
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
    }
    replace(path, &text)
}

/// Of the files in a directory, as far as they are text.
fn names(directory: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

/// What can't be removed is in nobody's way but the disk's.
fn forget_others(good: &Path, named: &BTreeSet<&str>) {
    for name in names(good).filter(|name| !named.contains(name.as_str())) {
        let _ = fs::remove_file(good.join(name));
    }
}
