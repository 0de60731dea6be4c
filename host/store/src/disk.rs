//! The disk as the store uses it, so that tests can put a slow, full or failing one in its place.

use std::fmt::Debug;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
    /// For writing; it is made anew, and what has its name is emptied.
    Create,
}

/// Where the store's file is.
pub trait Disk: Debug + Send + Sync {
    /// # Errors
    /// As of `open(2)`.
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>>;

    /// # Errors
    /// As of `rename(2)`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Returns when the names in a directory would survive a power loss.
    ///
    /// # Errors
    /// As of `open(2)` and `fsync(2)`.
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;

    /// Which file has that name: device and inode. `None`: this disk does not tell files apart.
    ///
    /// # Errors
    /// As of `stat(2)`.
    fn identity(&self, path: &Path) -> io::Result<Option<(u64, u64)>> {
        let _ = path;
        Ok(None)
    }
}

/// An open file.
pub trait DiskFile: Debug + Send + Sync {
    /// Length in bytes.
    ///
    /// # Errors
    /// Those of the disk; so for the others.
    fn size(&self) -> io::Result<u64>;

    /// Fills `out` from `offset` on. The caller has seen to it that so much is there.
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Cuts it, or makes it longer by zeros.
    fn resize(&self, bytes: u64) -> io::Result<()>;

    /// Returns when all that was written would survive a power loss.
    fn sync(&self) -> io::Result<()>;
}

/// The file system of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalDisk;

impl Disk for LocalDisk {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        // Opening a FIFO would wait for whoever opens its other end.
        if std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is no regular file",
            ));
        }
        let mut options = OpenOptions::new();
        options.read(true);
        match access {
            Access::Read => {}
            Access::Write => {
                options.write(true);
            }
            // Conditions and policy state are nobody else's to read.
            Access::Create => {
                options.write(true).create(true).truncate(true).mode(0o640);
            }
        }
        Ok(Arc::new(options.open(path)?))
    }

    fn identity(&self, path: &Path) -> io::Result<Option<(u64, u64)>> {
        let metadata = std::fs::metadata(path)?;
        Ok(Some((metadata.dev(), metadata.ino())))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()
    }
}

/// Bytes read and written again at a time after a sync failed.
const REWRITE_BYTES: usize = 64 * 1024;

/// Writes a file's content over itself. After a failed sync the kernel holds pages for written that are
/// not, and a later sync that succeeds says nothing of them; written again they are.
pub(crate) fn rewrite(file: &dyn DiskFile) -> io::Result<()> {
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

impl DiskFile for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(out, offset)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.write_all_at(data, offset)
    }

    fn resize(&self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}
