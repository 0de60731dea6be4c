//! The memory limit of one container.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use anyhow::{Context as _, Result, ensure};
use device_api_tests::PATIENCE;

/// Version 2, and where version 1 has its memory controller.
const MOUNT: &str = "/sys/fs/cgroup";

/// Groups of this process, so that each has a name of its own.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// A control group with a limit. Removed when dropped, by when its processes have to be gone.
#[derive(Debug)]
pub(crate) struct Cgroup {
    path: PathBuf,
    is_v2: bool,
}

impl Cgroup {
    /// `None` where there is no memory controller to be had.
    pub(crate) fn with_limit(bytes: u64) -> Result<Option<Self>> {
        let has_memory = |file: &str| {
            let there = fs::read_to_string(Path::new(MOUNT).join(file)).unwrap_or_default();
            there.split_whitespace().any(|name| name == "memory")
        };
        let is_v2 = has_memory("cgroup.subtree_control");
        let parent = if is_v2 {
            PathBuf::from(MOUNT)
        } else {
            Path::new(MOUNT).join("memory")
        };
        if !parent.join("cgroup.procs").is_file() {
            return Ok(None);
        }
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("device-api-pod-{}-{count}", std::process::id()));
        if fs::create_dir(&path).is_err() {
            return Ok(None);
        }
        let group = Self { path, is_v2 };
        let (limit, of_swap) = if is_v2 {
            ("memory.max", "memory.swap.max")
        } else {
            ("memory.limit_in_bytes", "memory.swappiness")
        };
        fs::write(group.path.join(limit), bytes.to_string())
            .with_context(|| format!("limiting {}", group.path.display()))?;
        // A node has no swap; where this machine has none, the file may be missing.
        let _ = fs::write(group.path.join(of_swap), "0");
        Ok(Some(group))
    }

    /// A process that writes `0` here is in it.
    pub(crate) fn procs(&self) -> PathBuf {
        self.path.join("cgroup.procs")
    }

    /// What of it the container sees, and where.
    pub(crate) fn mount(&self) -> (&Path, &'static str) {
        let to = if self.is_v2 {
            MOUNT
        } else {
            "/sys/fs/cgroup/memory"
        };
        (&self.path, to)
    }

    fn read(&self, file: &str) -> Result<String> {
        let path = self.path.join(file);
        fs::read_to_string(&path).with_context(|| path.display().to_string())
    }

    fn row(&self, file: &str, key: &str) -> Result<u64> {
        let text = self.read(file)?;
        let mut rows = text.lines().filter_map(|line| line.split_once(' '));
        let row = rows.find(|(found, _)| *found == key);
        let (_, value) = row.with_context(|| format!("no {key} in {file}"))?;
        Ok(value.trim().parse()?)
    }

    /// Processes that the kernel killed for want of memory.
    pub(crate) fn killed(&self) -> Result<u64> {
        let file = if self.is_v2 {
            "memory.events"
        } else {
            "memory.oom_control"
        };
        self.row(file, "oom_kill")
    }

    /// The most that it ever had, pages of files included. `None` where the kernel does not say: version 2 of groups does since
    /// Linux 5.19.
    pub(crate) fn peak(&self) -> Result<Option<u64>> {
        let file = if self.is_v2 {
            "memory.peak"
        } else {
            "memory.max_usage_in_bytes"
        };
        if !self.path.join(file).try_exists()? {
            return Ok(None);
        }
        Ok(Some(self.read(file)?.trim().parse()?))
    }

    /// What the kubelet calls the working set: all that it has but pages of files that nobody asked for lately.
    pub(crate) fn working_set(&self) -> Result<u64> {
        let (file, key) = if self.is_v2 {
            ("memory.current", "inactive_file")
        } else {
            ("memory.usage_in_bytes", "total_inactive_file")
        };
        let usage: u64 = self.read(file)?.trim().parse()?;
        Ok(usage.saturating_sub(self.row("memory.stat", key)?))
    }
}

impl Drop for Cgroup {
    /// Its last process may have been killed, and not be gone yet.
    fn drop(&mut self) {
        let began = SystemTime::now();
        while let Err(error) = fs::remove_dir(&self.path) {
            if began.elapsed().unwrap_or(PATIENCE) >= PATIENCE {
                eprintln!("{} stays: {error}", self.path.display());
                return;
            }
            std::thread::yield_now();
        }
    }
}

#[test]
fn an_older_kernel_does_not_say_what_the_peak_was() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("group");
    fs::create_dir(&path)?;
    let group = Cgroup { path, is_v2: true };
    ensure!(group.peak()?.is_none(), "nothing says so");
    let file = group.path.join("memory.peak");
    fs::write(&file, "4096\n")?;
    ensure!(group.peak()? == Some(4096));
    // Else it is no empty group, and stays.
    fs::remove_file(file)?;
    Ok(())
}
