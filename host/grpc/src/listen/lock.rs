//! One server at a time looks at a socket's path and binds it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};

use super::BindError;

/// Whoever can open a file can hold a lock on it, so nobody else can.
const MODE: Mode = Mode::from_raw_mode(0o600);

/// Files opened that were gone when they were locked: each is another server that started meanwhile.
const TRIES: usize = 16;

/// A locked file of ours beside the socket, which goes with it. (A lock on the directory itself could be
/// held by all who may read it.)
#[derive(Debug)]
pub(super) struct Lock {
    path: PathBuf,
    // Unlocked when it is closed, after the file was removed.
    _file: File,
}

impl Lock {
    /// Held from the look at the socket's path until the socket listens.
    pub(super) fn take(directory: &Path, socket: &Path) -> Result<Self, BindError> {
        let name = socket.file_name().unwrap_or_default().to_string_lossy();
        let path = directory.join(format!(".{name}.lock"));
        let busy = |path| Err(BindError::Busy { lock: path });
        for _ in 0..TRIES {
            let file = open(&path).map_err(|source| BindError::Lock {
                lock: path.clone(),
                source,
            })?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return busy(path),
                Err(errno) => {
                    let source = errno.into();
                    return Err(BindError::Lock { lock: path, source });
                }
            }
            // Whoever held it may have removed it, and another made the next.
            if is_at(&file, &path) {
                return Ok(Self { path, _file: file });
            }
        }
        busy(path)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(path = ?self.path, %error, "a lock file stays behind; it harms nobody");
        }
    }
}

/// A file of ours, made where there is none. No link is followed, and a FIFO makes nobody wait.
fn open(path: &Path) -> io::Result<File> {
    let flags =
        OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, MODE)?);
    let meta = file.metadata()?;
    if meta.is_file() && meta.uid() == rustix::process::geteuid().as_raw() {
        // One that was there may have another mode.
        rustix::fs::fchmod(&file, MODE)?;
        Ok(file)
    } else {
        Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "it is no file of the daemon's user",
        ))
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let same = || {
        let (ours, there) = (file.metadata().ok()?, fs::symlink_metadata(path).ok()?);
        Some((ours.dev(), ours.ino()) == (there.dev(), there.ino()))
    };
    same().unwrap_or(false)
}
