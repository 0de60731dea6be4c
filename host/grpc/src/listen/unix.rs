//! A Unix socket that is ours from bind to removal.
//!
//! ```text
//! directory there? ──no──▶ create 0750
//!   │ ours alone to write in? ──no──▶ OthersDirectory
//!   │ lock: two daemons that start at once take turns
//!   ▼
//! path: nothing ───────────────┬──▶ bind ─▶ chmod 0660 ─▶ listen
//!       a socket, refused ─────┘ (removed: its server is dead)
//!       a socket that answers ──▶ Live
//!       anything else ──────────▶ NotASocket, never deleted
//! ```

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::time::Duration;

use device_api_core::limits::SOCKET_PATH_BYTES_MAX;
use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::{UnixListener, UnixStream};

use super::BindError;
use super::lock::Lock;

/// Owner and group connect; others don't (design P4).
const SOCKET_MODE: u32 = 0o660;
const DIRECTORY_MODE: u32 = 0o750;
const WRITABLE_BY_OTHERS: u32 = 0o022;
const STICKY: u32 = 0o1000;

/// Connections that wait to be accepted: what the kernel allows by default (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;

/// How long a listening server may take to let us connect when we ask whether it lives. The kernel
/// answers for it, unless its backlog is full.
const PROBE_MAX: Duration = Duration::from_secs(1);

/// A listening socket and its file, which goes with it.
#[derive(Debug)]
pub(crate) struct UnixSocket {
    // Dropped first: the file goes before the listener, so that nobody finds it dead.
    file: SocketFile,
    listener: UnixListener,
}

impl UnixSocket {
    pub(super) async fn bind(path: &Path) -> Result<Self, BindError> {
        let address = address(path)?;
        let directory = directory_of(path)?;
        create_directory(&directory)?;
        check_directory(&directory)?;
        let _lock = Lock::take(&directory, path)?;
        clear_stale(path).await?;

        let socket = create(path, &address)?;
        let file = SocketFile::of(path).map_err(|source| BindError::BindUnix {
            path: path.to_owned(),
            source,
        })?;
        // The mode at creation passed through the umask. Nobody connects in between: it does not
        // listen yet.
        fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE)).map_err(|source| {
            BindError::Mode {
                path: path.to_owned(),
                source,
            }
        })?;
        let listener = listen(socket).map_err(|source| BindError::BindUnix {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self { file, listener })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.file.path
    }

    pub(super) fn listener(&self) -> &UnixListener {
        &self.listener
    }

    /// Why nobody finds it at its path; `None`: it is there.
    pub(super) fn lost(&self) -> Option<String> {
        match identity(&self.file.path) {
            Ok(there) if there == self.file.identity => None,
            Ok(_) => Some("another file has its path".to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Some("its file is gone".to_owned())
            }
            Err(error) => Some(format!("its path can't be looked at ({error})")),
        }
    }

    /// Binds the path that was lost once more, by the rules of the first time, and lets go of the listener that nobody
    /// reaches. (The kernel keeps the inode of the old file until then, so no new one passes for it.)
    pub(super) async fn bind_anew(&mut self) -> Result<(), BindError> {
        let anew = Self::bind(&self.file.path).await?;
        let mut old = std::mem::replace(self, anew);
        old.file.is_lost = true;
        Ok(())
    }
}

/// The file of a socket that we bound. Removed on drop, if it is still ours.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
    /// Another has its path by now, as we know.
    is_lost: bool,
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            identity: identity(path)?,
            is_lost: false,
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_lost {
            return;
        }
        if !identity(&self.path).is_ok_and(|now| now == self.identity) {
            tracing::warn!(path = ?self.path, "the socket file is not ours any more; left alone");
        } else if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = ?self.path, %error, "the socket file could not be removed");
        }
    }
}

/// Device and inode of the file itself, not of what a link points to.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let meta = fs::symlink_metadata(path)?;
    Ok((meta.dev(), meta.ino()))
}

fn address(path: &Path) -> Result<SocketAddrUnix, BindError> {
    let len = path.as_os_str().as_bytes().len();
    if len > SOCKET_PATH_BYTES_MAX {
        return Err(BindError::PathTooLong {
            path: path.to_owned(),
            len,
        });
    }
    SocketAddrUnix::new(path).map_err(|source| BindError::BindUnix {
        path: path.to_owned(),
        source: source.into(),
    })
}

fn directory_of(path: &Path) -> Result<PathBuf, BindError> {
    let (Some(parent), Some(_)) = (path.parent(), path.file_name()) else {
        return Err(BindError::NoFileName {
            path: path.to_owned(),
        });
    };
    Ok(if parent.as_os_str().is_empty() {
        PathBuf::from(".")
    } else {
        parent.to_owned()
    })
}

/// Creates the directory where it is missing; one that is there keeps its mode.
fn create_directory(directory: &Path) -> Result<(), BindError> {
    if directory.is_dir() {
        return Ok(());
    }
    DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY_MODE)
        .create(directory)
        .and_then(|()| fs::set_permissions(directory, Permissions::from_mode(DIRECTORY_MODE)))
        .map_err(|source| BindError::CreateDirectory {
            directory: directory.to_owned(),
            source,
        })
}

/// Whoever may write in the directory may replace the socket (design P4). In one with the sticky bit
/// (`/tmp`) only its owner may, and the owner of the socket.
fn check_directory(directory: &Path) -> Result<(), BindError> {
    let meta = fs::metadata(directory).map_err(|source| BindError::LookDirectory {
        directory: directory.to_owned(),
        source,
    })?;
    let own = rustix::process::geteuid().as_raw();
    let mode = meta.mode() & 0o7777;
    let by = if meta.uid() != 0 && meta.uid() != own {
        format!("belongs to uid {}", meta.uid())
    } else if mode & WRITABLE_BY_OTHERS != 0 && mode & STICKY == 0 {
        format!("has mode {mode:04o}")
    } else {
        return Ok(());
    };
    let directory = directory.to_owned();
    Err(BindError::OthersDirectory { directory, by })
}

/// Removes the socket of a server that is dead; anything else at `path` is an error.
async fn clear_stale(path: &Path) -> Result<(), BindError> {
    let inspect = |source| BindError::Inspect {
        path: path.to_owned(),
        source,
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(inspect(error)),
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(BindError::NotASocket {
                path: path.to_owned(),
            });
        }
        Ok(_) => {}
    }
    match tokio::time::timeout(PROBE_MAX, UnixStream::connect(path)).await {
        // One whose backlog is full is alive, too.
        Ok(Ok(_)) | Err(_) => {
            return Err(BindError::Live {
                path: path.to_owned(),
            });
        }
        Ok(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {
            return Err(BindError::Live {
                path: path.to_owned(),
            });
        }
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {}
        Ok(Err(error)) => return Err(inspect(error)),
    }
    tracing::info!(?path, "taking over a stale socket");
    fs::remove_file(path).map_err(|source| BindError::RemoveStale {
        path: path.to_owned(),
        source,
    })
}

/// A bound socket that does not listen yet. Its mode is set before it has a name, so that the file
/// is never more open than [`SOCKET_MODE`].
fn create(path: &Path, address: &SocketAddrUnix) -> Result<OwnedFd, BindError> {
    let failed = |errno: rustix::io::Errno| BindError::BindUnix {
        path: path.to_owned(),
        source: errno.into(),
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .map_err(failed)?;
    rustix::fs::fchmod(&socket, Mode::from_raw_mode(SOCKET_MODE)).map_err(|errno| {
        BindError::Mode {
            path: path.to_owned(),
            source: errno.into(),
        }
    })?;
    rustix::net::bind(&socket, address).map_err(failed)?;
    Ok(socket)
}

fn listen(socket: OwnedFd) -> io::Result<UnixListener> {
    rustix::net::listen(&socket, BACKLOG)?;
    UnixListener::from_std(socket.into())
}

#[cfg(test)]
mod tests;
