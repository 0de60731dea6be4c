//! The policy directory, a mounted ConfigMap included: there each entry is a link into a hidden
//! directory that is swapped as a whole.

mod look;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use device_api_core::limits::{POLICY_DIRECTORY_ENTRIES_MAX as ENTRIES_MAX, POLICY_SET_BYTES_MAX};
use device_api_core::signal::printable;
use device_api_wasm::begins_as_component;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

pub(crate) use look::{Look, Since, look};

use crate::error::PolicyError;
use crate::ledger::{hex, sha256};
use crate::manifest::POLICIES_FILE;
use crate::source::Bytes;

pub(crate) const ENDING: &str = ".wasm";

/// What is kept of a file that is no component: enough to see what it is instead.
const HEAD_BYTES: usize = 4096;

/// Of the rest so much at a time goes into its digest.
const CHUNK_BYTES: u64 = 64 * 1024;

/// What an entry is by its name; others do not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Policy,
    PoliciesFile,
    /// It is meant to be a policy.
    Misnamed,
}

/// An entry that counts.
#[derive(Debug)]
struct Entry {
    /// Fit to be shown.
    name: String,
    path: PathBuf,
    kind: Kind,
}

/// The entries that count, sorted by name; at most one more than is allowed.
fn entries(directory: &Path) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(directory)?.take(ENTRIES_MAX + 1) {
        let entry = entry?;
        let Some((name, kind)) = named(&entry.file_name()) else {
            continue;
        };
        let path = entry.path();
        entries.push(Entry { name, path, kind });
    }
    entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

/// What ends in `.wasm` in whatever letters is meant to be a policy, and is told of.
fn named(name: &OsStr) -> Option<(String, Kind)> {
    let bytes = name.as_encoded_bytes();
    if bytes.starts_with(b".") {
        return None;
    }
    let ends = bytes
        .len()
        .checked_sub(ENDING.len())
        .and_then(|at| bytes.get(at..));
    let is_meant = ends.is_some_and(|ends| ends.eq_ignore_ascii_case(ENDING.as_bytes()));
    match name.to_str() {
        Some(POLICIES_FILE) => Some((POLICIES_FILE.to_owned(), Kind::PoliciesFile)),
        Some(name) if name.ends_with(ENDING) => Some((name.to_owned(), Kind::Policy)),
        Some(name) => is_meant.then(|| (name.to_owned(), Kind::Misnamed)),
        None => is_meant.then(|| (bytes.escape_ascii().to_string(), Kind::Misnamed)),
    }
}

/// What is in the directory.
#[derive(Debug)]
pub(crate) struct Listing {
    /// Without links in its path.
    pub(crate) root: PathBuf,
    /// The `*.wasm`, sorted; hidden ones left out.
    pub(crate) policies: Vec<String>,
    /// What is meant to be one, and has a name that can't be listed: `.WASM`, or no UTF-8.
    pub(crate) misnamed: Vec<String>,
    pub(crate) has_policies_file: bool,
}

/// # Errors
/// It can't be read, or has more entries than a policy directory would.
pub(crate) fn list(directory: &Path) -> Result<Listing, PolicyError> {
    let unreadable = |source: io::Error| PolicyError::ReadDirectory {
        path: directory.to_owned(),
        source,
    };
    let root = fs::canonicalize(directory).map_err(unreadable)?;
    let count = fs::read_dir(&root)
        .map_err(unreadable)?
        .take(ENTRIES_MAX + 1)
        .count();
    if count > ENTRIES_MAX {
        return Err(PolicyError::CrowdedDirectory {
            path: directory.to_owned(),
            max: ENTRIES_MAX,
        });
    }
    let mut listing = Listing {
        root,
        policies: Vec::new(),
        misnamed: Vec::new(),
        has_policies_file: false,
    };
    for entry in entries(&listing.root).map_err(unreadable)? {
        match entry.kind {
            Kind::Policy => listing.policies.push(entry.name),
            Kind::Misnamed => listing.misnamed.push(entry.name),
            Kind::PoliciesFile => listing.has_policies_file = true,
        }
    }
    Ok(listing)
}

/// A file name, fit for a message.
pub(crate) fn origin(name: &str) -> String {
    printable(name, 255)
}

/// What is left for the files of one set, which are held together while it is taken up.
#[derive(Debug)]
pub(crate) struct Room {
    left: usize,
    max: usize,
    /// Of what is no component, to be read for its digest: a thousand large files must not hold up those that
    /// judge.
    hashed: usize,
}

impl Default for Room {
    fn default() -> Self {
        Self::of(POLICY_SET_BYTES_MAX)
    }
}

impl Room {
    fn of(max: usize) -> Self {
        Self {
            left: max,
            max,
            hashed: max,
        }
    }
}

/// A file that is meant to be a component, as it was read.
#[derive(Debug)]
pub(crate) struct Found {
    /// The beginning alone, where that is no component's: it is refused for it.
    pub(crate) bytes: Bytes,
    /// Of all of it: its SHA-256, lower-case hex; of the beginning alone where many large files are no components.
    pub(crate) digest: String,
}

/// Reads a component, as [`read`] does. What is none takes no room.
pub(crate) fn read_component(
    root: &Path,
    name: &str,
    bytes_max: usize,
    room: &mut Room,
) -> Result<Found, PolicyError> {
    let mut opened = Opened::at(root, name, bytes_max)?;
    let head = opened.next(Vec::new(), HEAD_BYTES)?;
    if !begins_as_component(&head) {
        if opened.size > room.hashed {
            return Ok(Found {
                digest: sha256(&head),
                bytes: head.into(),
            });
        }
        room.hashed -= opened.size;
        return opened.hashed(head);
    }
    let too_much = |origin: String| PolicyError::TooLargeTogether {
        origin,
        max: room.max,
    };
    if opened.size > room.left {
        return Err(too_much(opened.origin));
    }
    // It may have grown.
    let bytes = opened.next(head, bytes_max.min(room.left).saturating_add(1))?;
    if bytes.len() > room.left && bytes.len() <= bytes_max {
        return Err(too_much(opened.origin));
    }
    let bytes = opened.bounded(bytes)?;
    room.left -= bytes.len();
    Ok(Found {
        digest: sha256(&bytes),
        bytes: bytes.into(),
    })
}

/// Reads a regular file beneath `root`, links followed, in one go and not beyond its bound.
pub(crate) fn read(root: &Path, name: &str, bytes_max: usize) -> Result<Vec<u8>, PolicyError> {
    let mut opened = Opened::at(root, name, bytes_max)?;
    let bytes = opened.next(Vec::new(), bytes_max.saturating_add(1))?;
    opened.bounded(bytes)
}

/// A regular file beneath the root, which was within its bound when it was opened.
struct Opened {
    origin: String,
    file: File,
    size: usize,
    bytes_max: usize,
}

impl Opened {
    fn at(root: &Path, name: &str, bytes_max: usize) -> Result<Self, PolicyError> {
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
        let file = open(root, &path).map_err(unreadable)?;
        // Looked at again through the handle: what was opened is what counts.
        let metadata = file.metadata().map_err(unreadable)?;
        refuse_special(&origin, metadata.file_type())?;
        let size = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
        let opened = Self {
            origin,
            file,
            size,
            bytes_max,
        };
        opened.within(size)?;
        Ok(opened)
    }

    /// Reads on until there are so many bytes, or no more.
    fn next(&mut self, mut bytes: Vec<u8>, until: usize) -> Result<Vec<u8>, PolicyError> {
        // All at once, without room to spare.
        let expected = self.size.min(until).saturating_sub(bytes.len());
        bytes.reserve_exact(expected);
        let left = as_u64(until.saturating_sub(bytes.len()));
        let read = self.file.by_ref().take(left).read_to_end(&mut bytes);
        read.map_err(|source| self.unreadable(source))?;
        Ok(bytes)
    }

    /// The digest of what begins so, the rest read and let go of.
    fn hashed(mut self, head: Vec<u8>) -> Result<Found, PolicyError> {
        let mut hash = Sha256::new();
        let (mut chunk, mut bytes) = (head.clone(), head.len());
        while !chunk.is_empty() {
            hash.update(&chunk);
            chunk.clear();
            // One more than is allowed tells.
            let left = self.bytes_max.saturating_sub(bytes).saturating_add(1);
            let mut next = self.file.by_ref().take(CHUNK_BYTES.min(as_u64(left)));
            let read = next.read_to_end(&mut chunk);
            bytes = bytes.saturating_add(read.map_err(|source| self.unreadable(source))?);
            self.within(bytes)?;
        }
        Ok(Found {
            bytes: head.into(),
            digest: hex(&hash.finalize()),
        })
    }

    fn bounded(&self, bytes: Vec<u8>) -> Result<Vec<u8>, PolicyError> {
        self.within(bytes.len())?;
        Ok(bytes)
    }

    fn within(&self, bytes: usize) -> Result<(), PolicyError> {
        if bytes > self.bytes_max {
            return Err(PolicyError::TooLarge {
                origin: self.origin.clone(),
                max: self.bytes_max,
            });
        }
        Ok(())
    }

    fn unreadable(&self, source: io::Error) -> PolicyError {
        PolicyError::ReadFile {
            origin: self.origin.clone(),
            source,
        }
    }
}

fn as_u64(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// `path`, without links, is beneath `root`, and stays so whatever is swapped for a link meanwhile. Without
/// waiting for a writer, should the file have become a FIFO since it was looked at.
fn open(root: &Path, path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let beneath = path.strip_prefix(root).map_err(io::Error::other)?;
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    match openat2(File::open(root)?, beneath, flags, Mode::empty(), within) {
        // A kernel before 5.6, or a sandbox that does not know the call.
        Err(Errno::NOSYS | Errno::PERM) => {
            Ok(rustix::fs::open(path, flags, Mode::empty()).map(File::from)?)
        }
        opened => Ok(opened.map(File::from)?),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A component's header, and as many bytes in all.
    fn component(bytes: usize) -> Vec<u8> {
        let mut all = b"\0asm\x0d\0\x01\0".to_vec();
        all.resize(bytes, 0);
        all
    }

    #[test]
    fn h2_components_share_a_room_and_what_is_none_takes_nothing_of_it() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let mut room = Room::of(100_000);
        let mut read = |name: &str, bytes: Vec<u8>| {
            fs::write(root.join(name), &bytes).unwrap();
            let read = read_component(&root, name, 70_000, &mut room);
            read.inspect(|read| assert_eq!(read.digest, sha256(&bytes)))
                .map(|read| read.bytes.len())
                .map_err(|error| error.to_string())
        };
        assert_eq!(read("a.wasm", component(60_000)), Ok(60_000));
        // Whole where it is short, else its beginning.
        assert_eq!(read("b.wasm", vec![b'x'; 70_000]), Ok(HEAD_BYTES));
        assert_eq!(read("c.wasm", b"\0asm".to_vec()), Ok(4));
        let told = read("d.wasm", component(40_001)).unwrap_err();
        assert!(
            told.contains("d.wasm") && told.contains("more than 100000 bytes together"),
            "{told}"
        );
        for large in [component(70_001), vec![b'x'; 70_001]] {
            let told = read("e.wasm", large).unwrap_err();
            assert!(told.contains("has more than 70000 bytes:"), "{told}");
        }
        assert_eq!(read("f.wasm", component(40_000)), Ok(40_000));
        assert!(read("g.wasm", component(8)).is_err());
    }

    #[test]
    fn h6_a_directory_that_became_a_link_leads_nowhere_else() {
        let (root, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = root.path().canonicalize().unwrap();
        fs::write(elsewhere.path().join("a.wasm"), b"x").unwrap();
        fs::create_dir(root.join("mid")).unwrap();
        fs::write(root.join("mid/a.wasm"), b"x").unwrap();
        let path = root.join("mid/a.wasm");
        assert!(open(&root, &path).is_ok());
        fs::remove_dir_all(root.join("mid")).unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), root.join("mid")).unwrap();
        assert!(open(&root, &path).is_err());
    }
}
