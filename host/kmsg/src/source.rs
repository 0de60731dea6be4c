//! Opening a kernel log, and waiting for more of it.

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, major, minor, open, stat};
use rustix::io::Errno;

/// `/dev/kmsg` by whatever name: Linux gives it this device number.
const KMSG_DEVICE: (u32, u32) = (1, 11);

/// What kind of thing a kernel log is read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `/dev/kmsg`: each read is one record.
    Kmsg,
    Fifo,
    File,
}

/// A log, open for reading.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) fd: OwnedFd,
    pub(crate) kind: Kind,
    /// Device and inode: tells whether the path still means this one.
    pub(crate) id: (u64, u64),
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("cannot open the kernel log {}; it is tried again", .0.display())]
    Open(PathBuf, #[source] Errno),
    #[error("cannot stat the kernel log {}; it is tried again", .0.display())]
    Stat(PathBuf, #[source] Errno),
    #[error("{} is {what}; the kernel log must be /dev/kmsg, a FIFO or a regular file", path.display())]
    NotALog { path: PathBuf, what: &'static str },
}

impl Log {
    pub(crate) fn open(path: &Path) -> Result<Self, OpenError> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let fd = open(path, flags, Mode::empty())
            .map_err(|errno| OpenError::Open(path.to_owned(), errno))?;
        let stat = fstat(&fd).map_err(|errno| OpenError::Stat(path.to_owned(), errno))?;
        let no_log = |what| {
            Err(OpenError::NotALog {
                path: path.to_owned(),
                what,
            })
        };
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Kind::File,
            FileType::Fifo => Kind::Fifo,
            FileType::CharacterDevice
                if (major(stat.st_rdev), minor(stat.st_rdev)) == KMSG_DEVICE =>
            {
                Kind::Kmsg
            }
            FileType::CharacterDevice | FileType::BlockDevice => return no_log("another device"),
            FileType::Directory => return no_log("a directory"),
            FileType::Symlink | FileType::Socket | FileType::Unknown => return no_log("neither"),
        };
        Ok(Self {
            fd,
            kind,
            id: id(&stat),
        })
    }

    /// The path means another file by now. One that is just away does not count: it may come back.
    pub(crate) fn is_replaced(&self, path: &Path) -> bool {
        stat(path).is_ok_and(|stat| id(&stat) != self.id)
    }

    /// Size of a regular file, in bytes.
    pub(crate) fn size(&self) -> Result<u64, Errno> {
        fstat(&self.fd).map(|stat| u64::try_from(stat.st_size).unwrap_or(0))
    }
}

fn id(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

/// Ends a wait from another thread.
pub(crate) struct Stop {
    set: AtomicBool,
    event: OwnedFd,
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stop").field(&self.is_set()).finish()
    }
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    /// There is something to read.
    Readable,
    /// The last writer of the FIFO is gone, and all it wrote is read.
    HungUp,
    /// Time is up, or a signal handler ran: look again.
    Elapsed,
    Stopped,
}

impl Stop {
    pub(crate) fn new() -> Result<Self, Errno> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self {
            set: AtomicBool::new(false),
            event,
        })
    }

    pub(crate) fn set(&self) {
        self.set.store(true, Ordering::SeqCst);
        // Fails only where the counter is full, which wakes the reader as well.
        let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
    }

    pub(crate) fn is_set(&self) -> bool {
        self.set.load(Ordering::SeqCst)
    }

    /// Waits for `log` to become readable (where given), for the time, or for the stop.
    pub(crate) fn wait(&self, log: Option<&Log>, at_most: Option<Duration>) -> Result<Wake, Errno> {
        let timeout = at_most.map(|time| Timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(time.subsec_nanos()),
        });
        let fd = log.map_or_else(|| self.event.as_fd(), |log| log.fd.as_fd());
        let mut fds = [
            PollFd::from_borrowed_fd(fd, PollFlags::IN),
            PollFd::new(&self.event, PollFlags::IN),
        ];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        if self.is_set() {
            return Ok(Wake::Stopped);
        }
        let [log_events, _] = fds.map(|fd| fd.revents());
        Ok(if log_events.intersects(PollFlags::IN | PollFlags::ERR) {
            Wake::Readable
        } else if log_events.contains(PollFlags::HUP) {
            Wake::HungUp
        } else {
            Wake::Elapsed
        })
    }
}
