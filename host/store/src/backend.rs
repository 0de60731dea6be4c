//! The database's file: bounded in size, and it remembers what the disk said.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use crate::disk::DiskFile;

/// What went wrong on the disk. The database repeats its first error as "previous I/O error", which
/// helps nobody.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    first: Mutex<Option<Said>>,
}

#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) what: String,
    /// It was the sync that failed: what was written before may be lost though it reads well.
    pub(crate) in_sync: bool,
}

impl Trouble {
    pub(crate) fn first(&self) -> Option<Said> {
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        first.clone()
    }

    fn note<T>(&self, doing: &str, in_sync: bool, result: io::Result<T>) -> io::Result<T> {
        result.inspect_err(|error| {
            let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert_with(|| Said {
                what: format!("{doing} the store file failed: {error}"),
                in_sync,
            });
        })
    }
}

#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) bytes_max: u64,
    pub(crate) trouble: Arc<Trouble>,
}

impl Backend {
    pub(crate) fn size(&self) -> io::Result<u64> {
        self.trouble
            .note("looking at the size of", false, self.file.size())
    }
}

impl redb::StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.size()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        // A damaged file makes the database ask for what is not there: no fault of the disk.
        if offset.saturating_add(out.len() as u64) > self.size()? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.trouble
            .note("reading", false, self.file.read(offset, out))
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let resized = if bytes > self.bytes_max && bytes > self.size()? {
            Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!(
                    "it would pass {} bytes, the bound on its size; delete GPUs that are gone, or \
                     forget providers",
                    self.bytes_max
                ),
            ))
        } else {
            self.file.resize(bytes)
        };
        self.trouble.note("growing", false, resized)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.trouble.note("syncing", true, self.file.sync())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.trouble
            .note("writing", false, self.file.write(offset, data))
    }
}
