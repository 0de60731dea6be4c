//! The state directory: who holds it, what an earlier run left in it, and how the file is opened.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use device_api_core::clock::WallTime;

use crate::db::{Db, Fault, Loaded};
use crate::disk::{Access, Disk, DiskFile};
use crate::overlay::Overlay;
use crate::store::OpenError;

/// Name of the file in the state directory.
pub const FILE_NAME: &str = "store.redb";

/// A new file is made under this name and takes its own when it is whole: what has the right name and is
/// no database was damaged.
const NEW_NAME: &str = "store.redb.new";

/// Files set aside in one second that get names of their own.
const SET_ASIDE_PER_SECOND_MAX: u32 = 1000;

/// Bytes read and written again at a time after a sync failed.
const REWRITE_BYTES: usize = 64 * 1024;

/// Mode of a state directory that is made here: the group may look (design P4).
const DIRECTORY_MODE: u32 = 0o750;

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

#[derive(Debug)]
pub(crate) struct Home {
    directory: PathBuf,
    path: PathBuf,
    disk: Arc<dyn Disk>,
    bytes_max: u64,
    lock: Option<File>,
    known: Known,
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
    pub(crate) was_set_aside: bool,
}

impl Home {
    /// Makes and locks the directory. A disk that does not let us is no error: it is tried again.
    pub(crate) fn enter(
        directory: &Path,
        disk: Arc<dyn Disk>,
        bytes_max: u64,
    ) -> Result<Self, OpenError> {
        let mut home = Self {
            directory: directory.to_owned(),
            path: directory.join(FILE_NAME),
            disk,
            bytes_max,
            lock: None,
            known: Known::Absent,
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

    /// Reads what an earlier run left, without changing it; sets it aside if it can't be used.
    pub(crate) fn look(&mut self, now: WallTime) -> Left {
        let file = match self.disk.open(&self.path, Access::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Left::default(),
            Err(error) => {
                let why = format!("opening {} failed: {error}", self.path.display());
                tracing::error!(%why, "the old state can't be read; nothing is written over it");
                self.known = Known::Untouchable(why);
                return Left::default();
            }
        };
        let opened = Overlay::new(file)
            .map_err(|error| Fault::Damaged {
                why: error.to_string(),
                ceiling: 0,
            })
            .and_then(|overlay| Db::open(Arc::new(overlay), u64::MAX));
        match opened {
            Ok((_, loaded)) => {
                self.known = Known::Ours;
                Left {
                    loaded: Some(loaded),
                    ..Left::default()
                }
            }
            Err(fault) => {
                let ceiling = match fault {
                    Fault::Disk { .. } => 0,
                    Fault::Damaged { ceiling, .. } | Fault::Newer { ceiling, .. } => ceiling,
                };
                self.set_aside(&fault.to_string(), now);
                Left {
                    loaded: None,
                    ceiling,
                    was_set_aside: self.known == Known::Absent,
                }
            }
        }
    }

    /// Gives a file that can't be used another name. It is never deleted: it may be evidence, or of use
    /// to a newer daemon.
    fn set_aside(&mut self, why: &str, now: WallTime) {
        let seconds = now.unix_ms() / 1000;
        let free = (0..SET_ASIDE_PER_SECOND_MAX)
            .map(|number| match number {
                0 => format!("{FILE_NAME}.corrupt-{seconds}"),
                _ => format!("{FILE_NAME}.corrupt-{seconds}.{number}"),
            })
            .map(|name| self.directory.join(name))
            .find(|path| !fs::exists(path).unwrap_or(true));
        let renamed = match &free {
            Some(free) => fs::rename(&self.path, free).and_then(|()| self.sync_directory()),
            None => Err(io::ErrorKind::AlreadyExists.into()),
        };
        match (renamed, free) {
            (Ok(()), Some(kept)) => tracing::error!(
                why,
                kept = %kept.display(),
                set_aside_in_all = self.count_set_aside(),
                "the old state can't be used: {why}. It was set aside, and every GPU starts Unknown. \
                 Delete the files that were set aside once nobody needs them"
            ),
            (Err(error), _) => {
                let path = self.path.display();
                let why = format!(
                    "{path} can't be used ({why}), and setting it aside failed: {error}; move it \
                     away and restart the daemon"
                );
                tracing::error!(%why, "the old state can't be used, and every GPU starts Unknown");
                self.known = Known::Untouchable(why);
            }
            (Ok(()), None) => {}
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
        let (mut db, loaded) = match self.known {
            Known::Absent => self.create()?,
            Known::Ours | Known::Untouchable(_) => self.reopen()?,
        };
        db.compact(&loaded)
            .map_err(|fault| self.refusal("compacting", &fault))?;
        Ok((db, loaded))
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
        if fs::exists(&self.path).unwrap_or(true) {
            let why = format!(
                "{} came up after the daemon had begun without it; restart the daemon to go on from it",
                self.path.display()
            );
            self.known = Known::Untouchable(why.clone());
            return Err(Refusal {
                why,
                for_good: true,
            });
        }
        let new = self.directory.join(NEW_NAME);
        let file = self.opened(&new, Access::Create)?;
        let db =
            Db::create(file, self.bytes_max).map_err(|fault| self.refusal("making", &fault))?;
        fs::rename(&new, &self.path)
            .and_then(|()| self.sync_directory())
            .map_err(|error| {
                Refusal::now(format!("naming {} failed: {error}", self.path.display()))
            })?;
        self.known = Known::Ours;
        Ok((db, Loaded::default()))
    }

    fn reopen(&mut self) -> Result<(Db, Loaded), Refusal> {
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

    /// Makes names durable.
    fn sync_directory(&self) -> io::Result<()> {
        File::open(&self.directory)?.sync_all()
    }
}

/// Why the directory is not ours.
enum Taken {
    ByAnother,
    Not(String),
}

/// Writes a file's content over itself. After a failed sync the kernel holds pages for written that are
/// not, and a later sync that succeeds says nothing of them; written again they are.
fn rewrite(file: &dyn DiskFile) -> io::Result<()> {
    let size = file.size()?;
    let mut buffer = vec![0; REWRITE_BYTES];
    let mut at = 0;
    while at < size {
        let step = (size - at).min(REWRITE_BYTES as u64) as usize;
        let Some(part) = buffer.get_mut(..step) else {
            break;
        };
        file.read(at, part)?;
        file.write(at, part)?;
        at += step as u64;
    }
    file.sync()
}
