//! The state directory: who holds it, what an earlier run left in it, and how the file is opened.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use device_api_core::clock::WallTime;

use crate::db::{Db, Fault, Loaded};
use crate::disk::{Access, Disk, DiskFile, rewrite};
use crate::overlay::Overlay;
use crate::store::{OpenError, Settings};

/// Name of the file in the state directory.
pub const FILE_NAME: &str = "store.redb";

/// A new file is made under this name and takes its own when it is whole: what has the right name and is
/// no database was damaged.
const NEW_NAME: &str = "store.redb.new";

/// Files set aside in one second that get names of their own.
const SET_ASIDE_PER_SECOND_MAX: u32 = 1000;

/// Times that an old file is tried to be read where the disk fails, with pauses from
/// [`Settings::read_pause`] on that double: three seconds in all. A network disk that is mounted again
/// takes about one; the daemon serves nothing meanwhile.
///
/// [`Settings::read_pause`]: crate::Settings::read_pause
const READ_TRIES: u32 = 6;

/// Mode of a state directory that is made here: nobody but the daemon has anything to do in it.
const DIRECTORY_MODE: u32 = 0o700;

/// What is known of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Known {
    /// There was none when the run began; it is made when the disk lets us.
    Absent,
    /// What it held is in this run's state.
    Ours,
    /// It holds what this run could not read, and is left alone until the next.
    Untouchable(String),
}

/// Why the file is not open.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) why: String,
    /// It does not help to try again in this run.
    pub(crate) for_good: bool,
}

impl Refusal {
    fn now(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            for_good: false,
        }
    }
}

/// Holds the ceiling of the versions reserved, in decimal.
const CEILING_NAME: &str = "versions";

#[derive(Debug)]
pub(crate) struct Home {
    directory: PathBuf,
    path: PathBuf,
    disk: Arc<dyn Disk>,
    bytes_max: u64,
    read_pause: Duration,
    lock: Option<File>,
    known: Known,
    /// Names were changed in the directory, and that is not durable yet.
    owes_names: bool,
    /// Which file we write to, once it is open.
    placed: Option<(u64, u64)>,
    /// The last sync failed: pages that read well may never have reached the disk.
    rewrite: bool,
}

/// What an earlier run left.
#[derive(Debug, Default)]
pub(crate) struct Left {
    /// `None`: no file, or one that can't be used.
    pub(crate) loaded: Option<Loaded>,
    /// The ceiling of a file that can't be used, where at least that was readable.
    pub(crate) ceiling: u64,
    /// The old file was set aside: what that means, for whoever asks how the store is.
    pub(crate) set_aside: Option<String>,
}

impl Home {
    /// Makes and locks the directory. A disk that does not let us is no error: it is tried again.
    pub(crate) fn enter(directory: &Path, settings: Settings) -> Result<Self, OpenError> {
        let mut home = Self {
            directory: directory.to_owned(),
            path: directory.join(FILE_NAME),
            disk: settings.disk,
            bytes_max: settings.file_bytes_max,
            read_pause: settings.read_pause,
            lock: None,
            known: Known::Absent,
            placed: None,
            owes_names: false,
            rewrite: false,
        };
        match fs::metadata(directory) {
            Ok(there) if !there.is_dir() => {
                return Err(OpenError::NotADirectory(directory.to_owned()));
            }
            // A file stands where a directory above it should.
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return Err(OpenError::NotADirectory(directory.to_owned()));
            }
            Ok(_) | Err(_) => {}
        }
        match home.occupy() {
            Err(Taken::ByAnother) => Err(OpenError::Locked(directory.to_owned())),
            // Told when the file is opened for writing.
            Ok(()) | Err(Taken::Not(_)) => Ok(home),
        }
    }

    fn occupy(&mut self) -> Result<(), Taken> {
        if self.lock.is_some() {
            return Ok(());
        }
        let directory = &self.directory;
        DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY_MODE)
            .create(directory)
            .map_err(|error| {
                Taken::Not(format!("making {} failed: {error}", directory.display()))
            })?;
        // The directory itself is locked: it stays when files in it change their names, and it can be
        // locked where nothing can be written.
        let lock = File::open(directory).map_err(|error| {
            Taken::Not(format!("opening {} failed: {error}", directory.display()))
        })?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Taken::ByAnother),
            Err(TryLockError::Error(error)) => tracing::warn!(
                %error,
                directory = %directory.display(),
                "this file system has no locks; see to it that no other daemon has this state directory"
            ),
        }
        self.lock = Some(lock);
        Ok(())
    }

    /// Reads what an earlier run left, without changing it; what was read and is wrong is set aside. A
    /// disk that fails says nothing of the content: it is asked again for a bounded time, and then the
    /// file is left as it is.
    ///
    /// # Errors
    /// A later daemon's: nothing is wrong with it, and who can't read it must not say what it does not know.
    pub(crate) fn look(&mut self, now: WallTime) -> Result<Left, OpenError> {
        let mut pause = self.read_pause;
        for left in (0..READ_TRIES).rev() {
            let why = match self.read_old() {
                Ok(None) => {
                    return Ok(Left {
                        ceiling: self.noted_ceiling(),
                        ..Left::default()
                    });
                }
                Ok(Some(loaded)) => {
                    self.known = Known::Ours;
                    return Ok(Left {
                        loaded: Some(loaded),
                        ..Left::default()
                    });
                }
                Err(NotRead::Newer { found }) => {
                    let path = self.path.clone();
                    return Err(OpenError::Newer { path, found });
                }
                Err(NotRead::Wrong { why, ceiling }) => {
                    return Ok(Left {
                        set_aside: self.set_aside(&why, now),
                        loaded: None,
                        ceiling: ceiling.max(self.noted_ceiling()),
                    });
                }
                Err(NotRead::Disk(why)) => why,
            };
            if left > 0 {
                tracing::warn!(%why, tries_left = left, "the old state can't be read now; trying again");
                thread::sleep(pause);
                pause = pause.saturating_mul(2);
                continue;
            }
            let why = format!(
                "{why}, {READ_TRIES} times; the file is left as it is, and nothing is written in this \
                 run: see to the disk and restart the daemon"
            );
            tracing::error!(%why, "the old state can't be read, and every GPU starts Unknown");
            self.known = Known::Untouchable(why);
        }
        Ok(Left::default())
    }

    /// `None`: there is no file.
    fn read_old(&self) -> Result<Option<Loaded>, NotRead> {
        let path = self.path.display();
        let file = match self.disk.open(&self.path, Access::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(NotRead::Disk(format!("opening {path} failed: {error}"))),
        };
        let overlay = Overlay::new(file).map_err(|error| {
            NotRead::Disk(format!("looking at the size of {path} failed: {error}"))
        })?;
        match Db::open(Arc::new(overlay), u64::MAX) {
            Ok((_, loaded)) => Ok(Some(loaded)),
            Err(Fault::Disk { said }) => Err(NotRead::Disk(format!(
                "reading {path} failed: {}",
                said.what
            ))),
            Err(Fault::Newer { found }) => Err(NotRead::Newer { found }),
            Err(fault @ Fault::Damaged { ceiling, .. }) => {
                let why = fault.to_string();
                Err(NotRead::Wrong { why, ceiling })
            }
        }
    }

    /// Gives a file that can't be used another name. It is never deleted: it may be evidence. Where that went well, says
    /// what it comes to.
    fn set_aside(&mut self, why: &str, now: WallTime) -> Option<String> {
        let seconds = now.unix_ms() / 1000;
        let free = (0..SET_ASIDE_PER_SECOND_MAX)
            .map(|number| match number {
                0 => format!("{FILE_NAME}.corrupt-{seconds}"),
                _ => format!("{FILE_NAME}.corrupt-{seconds}.{number}"),
            })
            .map(|name| self.directory.join(name))
            .find(|path| !fs::exists(path).unwrap_or(true));
        let renamed = match &free {
            Some(free) => self.disk.rename(&self.path, free),
            None => Err(io::ErrorKind::AlreadyExists.into()),
        };
        if renamed.is_ok() {
            // Made durable before anything else is.
            self.owes_names = true;
        }
        match (renamed, free) {
            (Ok(()), Some(kept)) => {
                let kept = kept.display();
                tracing::error!(
                    why,
                    %kept,
                    set_aside_in_all = self.count_set_aside(),
                    "the old state can't be used: {why}. It was set aside, and every GPU starts Unknown. \
                     Delete the files that were set aside once nobody needs them"
                );
                Some(format!(
                    "the old state could not be used ({why}) and is kept as {kept}: what stood before this run is \
                     forgotten"
                ))
            }
            (Err(error), _) => {
                let path = self.path.display();
                let why = format!(
                    "{path} can't be used ({why}), and setting it aside failed: {error}; move it \
                     away and restart the daemon"
                );
                tracing::error!(%why, "the old state can't be used, and every GPU starts Unknown");
                self.known = Known::Untouchable(why);
                None
            }
            (Ok(()), None) => None,
        }
    }

    fn count_set_aside(&self) -> usize {
        let prefix = format!("{FILE_NAME}.corrupt-");
        fs::read_dir(&self.directory).map_or(0, |entries| {
            let names = entries.flatten().map(|entry| entry.file_name());
            names
                .filter(|name| name.to_string_lossy().starts_with(&prefix))
                .count()
        })
    }

    /// Opens the file for writing; makes it if there was none when the run began.
    pub(crate) fn connect(&mut self) -> Result<(Db, Loaded), Refusal> {
        if let Known::Untouchable(why) = &self.known {
            return Err(Refusal {
                why: why.clone(),
                for_good: true,
            });
        }
        self.occupy().map_err(|taken| match taken {
            Taken::ByAnother => {
                Refusal::now(format!("another daemon holds {}", self.directory.display()))
            }
            Taken::Not(why) => Refusal::now(why),
        })?;
        self.settle_names()?;
        let (mut db, loaded) = match self.known {
            Known::Absent => self.create()?,
            Known::Ours | Known::Untouchable(_) => self.reopen()?,
        };
        db.compact(&loaded)
            .map_err(|fault| self.refusal("compacting", &fault))?;
        self.placed = self.identity()?;
        Ok((db, loaded))
    }

    fn identity(&self) -> Result<Option<(u64, u64)>, Refusal> {
        self.disk.identity(&self.path).map_err(|error| {
            Refusal::now(format!(
                "{} is gone ({error}), and what is written would go with it: put it back, or restart the \
                 daemon to begin anew",
                self.path.display()
            ))
        })
    }

    /// Whether the file that we write to still has its name: what is written to one that was removed or
    /// moved away does not survive us.
    pub(crate) fn check_in_place(&self) -> Result<(), Refusal> {
        if self.placed.is_none() || self.identity()? == self.placed {
            return Ok(());
        }
        Err(Refusal::now(format!(
            "{} was replaced by another file while the daemon runs: put the old one back, or restart the \
             daemon to go on from the new one",
            self.path.display()
        )))
    }

    /// The ceiling of all versions that any run here reserved, as a file of its own tells: for when the
    /// store itself can't.
    fn noted_ceiling(&self) -> u64 {
        let path = self.directory.join(CEILING_NAME);
        let why = match fs::read_to_string(&path) {
            Ok(noted) => match noted.trim().parse() {
                Ok(ceiling) => return ceiling,
                Err(error) => error.to_string(),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => return 0,
            Err(error) => error.to_string(),
        };
        tracing::warn!(path = %path.display(), why, "which versions were given out can't be read beside the store; the clock is to say what is newer than all of them");
        0
    }

    /// Notes it. A second line of defence: where it fails, the store's own still stands.
    pub(crate) fn note_ceiling(&self, ceiling: u64) {
        let new = self.directory.join(format!("{CEILING_NAME}.new"));
        let noted = File::create(&new).and_then(|mut file| {
            writeln!(file, "{ceiling}")?;
            file.sync_all()?;
            fs::rename(&new, self.directory.join(CEILING_NAME))
        });
        if let Err(error) = noted {
            tracing::debug!(%error, "the reserved versions could not be noted beside the store");
        }
    }

    /// Says what the next attempt must know of a failed one.
    pub(crate) fn failed(&mut self, fault: &Fault) {
        if let Fault::Disk { said } = fault {
            self.rewrite |= said.in_sync;
        }
    }

    fn refusal(&self, doing: &str, fault: &Fault) -> Refusal {
        Refusal::now(format!("{doing} {} failed: {fault}", self.path.display()))
    }

    fn opened(&self, path: &Path, access: Access) -> Result<Arc<dyn DiskFile>, Refusal> {
        self.disk.open(path, access).map_err(|error| {
            Refusal::now(format!(
                "opening {} for writing failed: {error}",
                path.display()
            ))
        })
    }

    fn create(&mut self) -> Result<(Db, Loaded), Refusal> {
        let path = self.path.display();
        match self.disk.open(&self.path, Access::Read) {
            Ok(_) => {
                let why = format!(
                    "{path} came up after the daemon had begun without it; restart the daemon to go \
                     on from it"
                );
                self.known = Known::Untouchable(why.clone());
                return Err(Refusal {
                    why,
                    for_good: true,
                });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(Refusal::now(format!("looking for {path} failed: {error}")));
            }
        }
        let new = self.directory.join(NEW_NAME);
        let file = self.opened(&new, Access::Create)?;
        let db =
            Db::create(file, self.bytes_max).map_err(|fault| self.refusal("making", &fault))?;
        self.disk.rename(&new, &self.path).map_err(|error| {
            Refusal::now(format!("naming {} failed: {error}", self.path.display()))
        })?;
        // From here on the file is this run's, whatever becomes of the sync.
        self.known = Known::Ours;
        self.owes_names = true;
        self.settle_names()?;
        Ok((db, Loaded::default()))
    }

    fn reopen(&mut self) -> Result<(Db, Loaded), Refusal> {
        self.check_in_place()?;
        let file = self.opened(&self.path, Access::Write)?;
        if self.rewrite {
            rewrite(&*file).map_err(|error| {
                Refusal::now(format!(
                    "writing {} again after a failed sync failed: {error}",
                    self.path.display()
                ))
            })?;
            self.rewrite = false;
        }
        let opened = Db::open(file, self.bytes_max);
        if let Err(fault) = &opened {
            self.failed(fault);
        }
        opened.map_err(|fault| self.refusal("opening", &fault))
    }

    /// Makes names durable, where they are not.
    fn settle_names(&mut self) -> Result<(), Refusal> {
        if self.owes_names {
            let synced = self.disk.sync_directory(&self.directory);
            synced.map_err(|error| {
                let directory = self.directory.display();
                Refusal::now(format!("syncing {directory} failed: {error}"))
            })?;
            self.owes_names = false;
        }
        Ok(())
    }
}

/// Why nothing is known of what an earlier run left.
enum NotRead {
    /// The disk did not say what is there.
    Disk(String),
    /// What is there is a later daemon's.
    Newer { found: u32 },
    /// What is there is no state of ours, or not whole.
    Wrong { why: String, ceiling: u64 },
}

/// Why the directory is not ours.
enum Taken {
    ByAnother,
    Not(String),
}
