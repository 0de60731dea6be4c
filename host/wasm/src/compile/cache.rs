//! Compiled code, kept between runs in a directory of our own.
//!
//! A file's name is what its code is of and for, its head says so again and seals the code. It is
//! written under another name first, so that a file that is there is whole, unless the disk or a
//! crash damaged it, which the seal tells. Nothing is synced: what is lost is compiled again. All
//! access is through the directory's descriptor, which was checked when it was opened; whoever moves
//! the directory afterwards moves what we hold.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT,
    fchmod, fstat, futimens, mkdirat, openat, renameat, statat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::compile::error::CompilerError;
use crate::compile::frame::CODE_BYTES_MAX;
use crate::compile::seal::{Broken, Code, FORMAT, Fields, Key, Seal, hex};

const MAGIC: [u8; 8] = *b"dapicode";
const HEAD_BYTES: usize = MAGIC.len() + 4 + Seal::LENGTH;

/// Files kept: 16 policies with their last good versions, for this version of the daemon and the one
/// before.
const FILES_MAX: usize = 64;

/// Bytes kept, all files together: fifteen interpreters at 33 MB of code each; Rust's guests have
/// half a megabyte.
const BYTES_MAX: u64 = 512 << 20;

/// Entries of the directory that are looked at. One with more is not ours alone.
const ENTRIES_MAX: usize = 1024;

/// Ours alone: what is in it runs in this process.
const DIRECTORY_MODE: u32 = 0o700;

const FILE_ENDING: &str = ".code";
const TEMPORARY_ENDING: &str = ".tmp";

/// Where to keep it, as opened and checked.
#[derive(Debug)]
pub(super) struct Cache {
    directory: OwnedFd,
    bounds: Bounds,
    temporary: AtomicU64,
}

#[derive(Clone, Copy, Debug)]
struct Bounds {
    files: usize,
    bytes: u64,
}

/// What a look-up found.
#[derive(Debug)]
pub(super) enum Found {
    Code(Code),
    Nothing,
    /// A file that was deleted.
    Damaged(Broken),
}

/// What writing a file changed besides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) evicted: u64,
}

impl Cache {
    /// Opens the directory, or makes it beneath one that exists, and removes what an earlier run left
    /// half written.
    ///
    /// # Errors
    /// It can't be made or opened, is no directory, belongs to someone else, may be entered by
    /// others, or has more in it than we put there.
    pub(super) fn open(path: &Path) -> Result<Self, CompilerError> {
        let directory = open_directory(path)?;
        let unreadable = |source: io::Error| CompilerError::CacheOpen {
            path: path.to_owned(),
            source,
        };
        check(
            path,
            &fstat(&directory).map_err(|error| unreadable(error.into()))?,
        )?;
        let cache = Self {
            directory,
            bounds: Bounds {
                files: FILES_MAX,
                bytes: BYTES_MAX,
            },
            temporary: AtomicU64::new(0),
        };
        for name in cache.names(path)? {
            if is_temporary(&name) {
                cache.remove(&name).map_err(unreadable)?;
            }
        }
        Ok(cache)
    }

    /// The code of `key`. A file that does not hold against its seal is deleted.
    ///
    /// # Errors
    /// A file is there and can't be read or deleted.
    pub(super) fn get(&self, key: &Key) -> io::Result<Found> {
        let name = name(key);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(&self.directory, &name, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(Found::Nothing),
            // A link, which we never made.
            Err(Errno::LOOP) => return self.discard(&name, Broken::Header),
            Err(error) => return Err(error.into()),
        };
        match read(&file, key)? {
            Ok(code) => {
                // The least recently used goes first. A file system that is read-only now keeps its times.
                let _ = futimens(&file, &USED_NOW);
                Ok(Found::Code(code))
            }
            Err(broken) => self.discard(&name, broken),
        }
    }

    /// Keeps the code of `key`, in place of others if need be; one that is larger than all the cache
    /// is not kept.
    ///
    /// # Errors
    /// It can't be written, and nothing of it is left; or the directory can't be read.
    pub(super) fn put(&self, key: &Key, code: &Code) -> io::Result<Written> {
        let bytes = u64::try_from(code.as_bytes().len()).unwrap_or(u64::MAX);
        if bytes.saturating_add(u64::try_from(HEAD_BYTES).unwrap_or(u64::MAX)) > self.bounds.bytes {
            return Ok(Written::default());
        }
        let number = self.temporary.fetch_add(1, Ordering::Relaxed);
        let temporary = format!("{}-{number}{TEMPORARY_ENDING}", std::process::id());
        let name = name(key);
        let written = self.write(&temporary, key, code).and_then(|()| {
            Ok(renameat(
                &self.directory,
                &temporary,
                &self.directory,
                &name,
            )?)
        });
        if let Err(error) = written {
            // The first error is the one to tell; a leftover goes at the next start.
            let _ = self.remove(&temporary);
            return Err(error);
        }
        let evicted = self.evict(&name)?;
        Ok(Written { evicted })
    }

    /// Deletes the code of `key`, which its engine did not take.
    ///
    /// # Errors
    /// Of the file system.
    pub(super) fn forget(&self, key: &Key) -> io::Result<()> {
        self.remove(&name(key))
    }

    fn write(&self, temporary: &str, key: &Key, code: &Code) -> io::Result<()> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let mut file = File::from(openat(&self.directory, temporary, flags, mode)?);
        let mut head = Vec::with_capacity(HEAD_BYTES);
        head.extend(MAGIC);
        head.extend(FORMAT.to_le_bytes());
        Seal::of(*key, code.as_bytes()).put(&mut head);
        file.write_all(&head)?;
        file.write_all(code.as_bytes())
    }

    /// Deletes the least recently used until the rest is within bounds; `new` stays.
    fn evict(&self, new: &str) -> io::Result<u64> {
        let mut kept: Vec<(i64, i64, u64, String)> = Vec::new();
        for name in self.listed()? {
            if !is_code(&name) {
                continue;
            }
            // Gone meanwhile: someone cleaned up.
            if let Ok(stat) = statat(&self.directory, &name, AtFlags::SYMLINK_NOFOLLOW) {
                let nanoseconds = i64::try_from(stat.st_mtime_nsec).unwrap_or_default();
                kept.push((stat.st_mtime, nanoseconds, size(&stat), name));
            }
        }
        kept.sort_unstable();
        let mut bytes: u64 = kept.iter().map(|(_, _, bytes, _)| bytes).sum();
        let mut files = kept.len();
        let mut evicted = 0;
        for (_, _, size, name) in kept.iter().filter(|(_, _, _, name)| name != new) {
            if files <= self.bounds.files && bytes <= self.bounds.bytes {
                break;
            }
            self.remove(name)?;
            files -= 1;
            bytes = bytes.saturating_sub(*size);
            evicted += 1;
        }
        Ok(evicted)
    }

    fn discard(&self, name: &str, broken: Broken) -> io::Result<Found> {
        self.remove(name)?;
        Ok(Found::Damaged(broken))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match unlinkat(&self.directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn names(&self, path: &Path) -> Result<Vec<String>, CompilerError> {
        let names = self.listed().map_err(|source| CompilerError::CacheOpen {
            path: path.to_owned(),
            source,
        })?;
        if names.len() > ENTRIES_MAX {
            return Err(CompilerError::CacheCrowded {
                path: path.to_owned(),
                max: ENTRIES_MAX,
            });
        }
        Ok(names)
    }

    /// At most one name more than [`ENTRIES_MAX`].
    fn listed(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.directory)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
            if names.len() > ENTRIES_MAX {
                break;
            }
        }
        Ok(names)
    }
}

const USED_NOW: Timestamps = Timestamps {
    last_access: Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_OMIT as _,
    },
    last_modification: Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_NOW as _,
    },
};

fn open_directory(path: &Path) -> Result<OwnedFd, CompilerError> {
    let at = |source: Errno| CompilerError::CacheOpen {
        path: path.to_owned(),
        source: source.into(),
    };
    let made = match mkdirat(rustix::fs::CWD, path, Mode::RWXU) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(error) => {
            return Err(CompilerError::CacheCreate {
                path: path.to_owned(),
                source: error.into(),
            });
        }
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = match openat(rustix::fs::CWD, path, flags, Mode::empty()) {
        Ok(directory) => directory,
        // A link, or a file: which of them, the error's name tells.
        Err(Errno::LOOP | Errno::NOTDIR) => {
            return Err(CompilerError::CacheKind {
                path: path.to_owned(),
            });
        }
        Err(error) => return Err(at(error)),
    };
    if made {
        // Whatever the umask took away.
        fchmod(&directory, Mode::RWXU).map_err(at)?;
    }
    Ok(directory)
}

fn check(path: &Path, stat: &Stat) -> Result<(), CompilerError> {
    let path = PathBuf::from(path);
    let own = geteuid().as_raw();
    if stat.st_uid != own {
        return Err(CompilerError::CacheOwner {
            path,
            owner: stat.st_uid,
            own,
        });
    }
    let mode = stat.st_mode & 0o7777;
    if mode != DIRECTORY_MODE {
        return Err(CompilerError::CacheMode { path, mode });
    }
    Ok(())
}

/// The code in a file, if it is ours and whole.
fn read(file: &OwnedFd, key: &Key) -> io::Result<Result<Code, Broken>> {
    let stat = fstat(file)?;
    let is_ours = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
        && stat.st_uid == geteuid().as_raw()
        && stat.st_mode & 0o077 == 0;
    if !is_ours {
        return Ok(Err(Broken::Header));
    }
    let max = CODE_BYTES_MAX.saturating_add(u64::try_from(HEAD_BYTES).unwrap_or(u64::MAX));
    let Ok(room) = usize::try_from(size(&stat).min(max)) else {
        return Ok(Err(Broken::Length));
    };
    let mut whole = Vec::new();
    whole.try_reserve_exact(room.saturating_add(1))?;
    File::from(file.try_clone()?)
        .take(max.saturating_add(1))
        .read_to_end(&mut whole)?;
    let mut fields = Fields(&whole);
    let is_of_this_version = fields.array() == Some(MAGIC) && fields.u32() == Some(FORMAT);
    let Some(seal) = Seal::take(&mut fields).filter(|_| is_of_this_version) else {
        return Ok(Err(Broken::Header));
    };
    Ok(seal.open(key, whole, HEAD_BYTES))
}

fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or_default()
}

/// `COMPONENT-ENGINE-FORMAT.code`: of the engine 16 digits, since the head has them all.
fn name(key: &Key) -> String {
    let engine = key.engine.first_chunk::<8>().copied().unwrap_or_default();
    format!(
        "{}-{}-{FORMAT}{FILE_ENDING}",
        hex(&key.component),
        hex(&engine)
    )
}

fn is_code(name: &str) -> bool {
    let parts = name.strip_suffix(FILE_ENDING).map(|stem| stem.split('-'));
    let Some(mut parts) = parts else { return false };
    let is_hex = |part: Option<&str>, length: usize| {
        part.is_some_and(|part| {
            part.len() == length && part.bytes().all(|byte| byte.is_ascii_hexdigit())
        })
    };
    is_hex(parts.next(), 64)
        && is_hex(parts.next(), 16)
        && parts.next().is_some_and(is_number)
        && parts.next().is_none()
}

fn is_temporary(name: &str) -> bool {
    name.strip_suffix(TEMPORARY_ENDING)
        .and_then(|stem| stem.split_once('-'))
        .is_some_and(|(process, number)| is_number(process) && is_number(number))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
