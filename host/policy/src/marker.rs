//! Crash markers: a file for each loaded policy that says whether a call of it is under way, so that
//! whoever starts after the daemon died knows in whose call it did (design H5).
//!
//! Two writes a call into a page that the system holds, some 300 ns each, and nothing is waited for: a
//! mark need not survive the machine, only the process.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::ledger::{CHANCE_MAX, make_private, read_bounded};

/// Marks read at a start: more are no work of ours.
const MARKS_MAX: usize = 256;

/// Under way or not, nanoseconds in calls so far, nanoseconds since the daemon started.
const RECORD_BYTES: usize = 17;

/// A run younger than this tells nothing: what kills a daemon as it starts (a probe, the memory limit) finds
/// it in some policy's first call.
const RUN_TELLING: Duration = Duration::from_secs(10);

/// Where the kernel says which boot this is. A mark of another boot blames nobody: the machine went down.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const BOOT_ID_NAME: &str = "boot";
const BOOT_ID_BYTES_MAX: u64 = 64;

const IDLE: u8 = b'-';
const IN_CALL: u8 = b'!';

/// A share of time of which nothing is known: it is the weakest evidence there is.
const SHARE_UNKNOWN: f64 = CHANCE_MAX;

/// Where this run's marks are.
#[derive(Debug)]
pub(crate) struct Markers {
    directory: PathBuf,
    began: Instant,
    next: AtomicU64,
}

/// How the last run ended for one digest.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Mark {
    pub(crate) digest: String,
    pub(crate) in_call: bool,
    /// The part of the run that was spent in its calls, 0 to 1: how likely a kill that has nothing to do
    /// with it hits one of them.
    pub(crate) share: f64,
}

impl Markers {
    /// Reads the marks of the run before, and begins those of this one.
    ///
    /// # Errors
    /// The directory can't be made, read or cleared.
    pub(crate) fn enter(directory: &Path) -> io::Result<(Self, Vec<Mark>)> {
        make_private(directory)?;
        let boot = read_bounded(Path::new(BOOT_ID), BOOT_ID_BYTES_MAX).ok();
        let is_of_this_boot =
            read_bounded(&directory.join(BOOT_ID_NAME), BOOT_ID_BYTES_MAX).ok() == boot;
        let mut marks = Vec::new();
        for entry in fs::read_dir(directory)?.take(MARKS_MAX) {
            let path = entry?.path();
            marks.extend(read(&path).filter(|_| is_of_this_boot));
            // What is no mark of ours is in nobody's way.
            let _ = fs::remove_file(&path);
        }
        if let Some(boot) = boot {
            fs::write(directory.join(BOOT_ID_NAME), boot)?;
        }
        let markers = Self {
            directory: directory.to_owned(),
            began: Instant::now(),
            next: AtomicU64::new(0),
        };
        Ok((markers, marks))
    }

    /// A marker for a policy that is being loaded. Without one it runs all the same: a full disk must not
    /// cost the node its policies.
    pub(crate) fn of(self: &Arc<Self>, digest: &str) -> Option<Arc<Marker>> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.directory.join(format!("{digest}-{number}"));
        let opened = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path);
        let made = opened.and_then(|file| {
            file.write_all_at(&[IDLE; RECORD_BYTES], 0)?;
            Ok(file)
        });
        match made {
            Ok(file) => Some(Arc::new(Marker {
                file,
                path,
                began: self.began,
                busy_ns: AtomicU64::new(0),
            })),
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "no crash marker: a crash of the daemon in this policy will not be blamed on it");
                None
            }
        }
    }
}

fn read(path: &Path) -> Option<Mark> {
    let name = path.file_name()?.to_str()?;
    let (digest, _) = name.split_once('-')?;
    let bytes = read_bounded(path, RECORD_BYTES as u64).ok()?;
    let number = |range: std::ops::Range<usize>| {
        let bytes: [u8; 8] = bytes.get(range)?.try_into().ok()?;
        Some(u64::from_le_bytes(bytes))
    };
    let share = match (number(1..9), number(9..17)) {
        (Some(busy), Some(elapsed)) if elapsed >= nanos(RUN_TELLING) => {
            (busy as f64 / elapsed as f64).min(1.0)
        }
        _ => SHARE_UNKNOWN,
    };
    Some(Mark {
        digest: digest.to_owned(),
        in_call: bytes.first() == Some(&IN_CALL),
        share,
    })
}

/// Marks the calls of one policy. Gone with it: what was unloaded is not to blame.
#[derive(Debug)]
pub(crate) struct Marker {
    file: File,
    path: PathBuf,
    began: Instant,
    busy_ns: AtomicU64,
}

impl Marker {
    /// A call begins; it ends when what is returned is dropped.
    pub(crate) fn call(&self) -> InCall<'_> {
        let begun = Instant::now();
        let mut record = [0; RECORD_BYTES];
        let elapsed = nanos(begun.saturating_duration_since(self.began));
        let words = [self.busy_ns.load(Ordering::Relaxed), elapsed];
        for (to, word) in record
            .get_mut(1..)
            .unwrap_or_default()
            .chunks_mut(8)
            .zip(words)
        {
            to.copy_from_slice(&word.to_le_bytes());
        }
        if let Some(state) = record.first_mut() {
            *state = IN_CALL;
        }
        // Its page is there since it was made; should the disk refuse after all, this crash is not blamed.
        let _ = self.file.write_at(&record, 0);
        InCall {
            marker: self,
            begun,
        }
    }
}

impl Drop for Marker {
    fn drop(&mut self) {
        // Idle as it is, it would tell the next run nothing.
        let _ = fs::remove_file(&self.path);
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[derive(Debug)]
pub(crate) struct InCall<'a> {
    marker: &'a Marker,
    begun: Instant,
}

impl Drop for InCall<'_> {
    fn drop(&mut self) {
        let busy = nanos(self.begun.elapsed());
        self.marker.busy_ns.fetch_add(busy, Ordering::Relaxed);
        let _ = self.marker.file.write_at(&[IDLE], 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h5_a_call_that_never_ended_is_found_by_the_next_run_once() {
        let home = tempfile::tempdir().unwrap();
        let (markers, marks) = Markers::enter(home.path()).unwrap();
        assert_eq!(marks, []);
        let markers = Arc::new(markers);
        let (dying, idle, unloaded) = (markers.of("aa"), markers.of("bb"), markers.of("cc"));
        drop(dying.as_ref().unwrap().call());
        let in_call = dying.as_ref().unwrap().call();
        drop(idle.as_ref().unwrap().call());
        drop(unloaded);

        let (_, mut marks) = Markers::enter(home.path()).unwrap();
        marks.sort_by(|a, b| a.digest.cmp(&b.digest));
        let found: Vec<_> = marks
            .iter()
            .map(|mark| (mark.digest.as_str(), mark.in_call))
            .collect();
        assert_eq!(found, [("aa", true), ("bb", false)]);
        assert!(marks.iter().all(|mark| (0.0..=1.0).contains(&mark.share)));
        let (_, marks) = Markers::enter(home.path()).unwrap();
        assert_eq!(marks, []);
        drop(in_call);
    }

    #[test]
    fn h5_the_share_of_time_in_calls_travels_with_the_mark() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("aa-0");
        let mut record = vec![IN_CALL];
        record.extend(30_000_000_000_u64.to_le_bytes());
        record.extend(120_000_000_000_u64.to_le_bytes());
        drop(Markers::enter(home.path()).unwrap());
        fs::write(&path, &record).unwrap();
        fs::write(home.path().join("bb-1"), b"!").unwrap();
        // A run that had just begun.
        let mut young = vec![IN_CALL];
        young.extend(0_u64.to_le_bytes());
        young.extend(9_000_000_000_u64.to_le_bytes());
        fs::write(home.path().join("cc-2"), young).unwrap();
        let (_, mut marks) = Markers::enter(home.path()).unwrap();
        marks.sort_by(|a, b| a.digest.cmp(&b.digest));
        assert_eq!(marks[0].share, 0.25);
        assert!(marks[1].in_call && marks[1].share == SHARE_UNKNOWN);
        assert!(marks[2].in_call && marks[2].share == SHARE_UNKNOWN);
        // The machine went down: nobody is to blame.
        fs::write(&path, record).unwrap();
        fs::write(home.path().join(BOOT_ID_NAME), b"another").unwrap();
        fs::create_dir(home.path().join("dd-3")).unwrap();
        let (_, marks) = Markers::enter(home.path()).unwrap();
        assert_eq!(marks, []);
    }
}
