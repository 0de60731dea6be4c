//! How much memory a compiler process may have: what the container has left.

use std::fs;
use std::path::Path;

use crate::compile::procfs;

const MIB: u64 = 1 << 20;

/// Enough for a small policy: one of 200 KB has 20 MiB resident, its program's pages included.
pub const COMPILE_MEMORY_BYTES_MIN: u64 = 64 * MIB;

/// Above this nobody needs it: Python's 18 MB compile with 350 MiB and not with 300 (297 resident), and
/// the largest that is let in by default has 32.
pub const COMPILE_MEMORY_BYTES_MAX: u64 = 1024 * MIB;

/// Left to the daemon: what it grows by meanwhile, the pages of the second process's program, and
/// page tables. A container that runs out is killed as a whole, the daemon first of all.
const RESERVE: u64 = 48 * MIB;

/// The daemon holds the code, twice for a moment, before the process that made it is gone: of Python's
/// 18 MB two times 33, a fifth of what compiling it takes.
const SHARE_PERCENT: u64 = 75;

/// What a compiler process may use: three quarters of what the container has left, its limit (the
/// least on the way up, cgroup v2 or v1) less what this process has resident and a reserve; where
/// there is no limit, the same of what the node has free. Within [`COMPILE_MEMORY_BYTES_MIN`], which
/// is given even if it is not there, since a small policy takes less, and [`COMPILE_MEMORY_BYTES_MAX`].
#[must_use]
pub fn compile_memory_bytes() -> u64 {
    let cgroups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limit = container_limit(Path::new("/sys/fs/cgroup"), &cgroups);
    let own = procfs::size("self", "VmRSS").unwrap_or_default();
    let free = fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|info| available(&info));
    bounded(limit, own, free)
}

fn bounded(limit: Option<u64>, own: u64, free: Option<u64>) -> u64 {
    let of_container = limit.map(|limit| limit.saturating_sub(own));
    let left = [of_container, free].into_iter().flatten().min();
    let left = left.unwrap_or(COMPILE_MEMORY_BYTES_MIN);
    let share = left.saturating_sub(RESERVE) / 100 * SHARE_PERCENT;
    share.clamp(COMPILE_MEMORY_BYTES_MIN, COMPILE_MEMORY_BYTES_MAX)
}

fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    kib.checked_mul(1 << 10)
}

/// The least memory limit of the groups that this process is in. In a container, the path that the
/// kernel tells may be the host's while the mount shows the container's own group as the root, so
/// the mount's root and each folder on the path are looked at, and what is not there counts not.
fn container_limit(mount: &Path, cgroups: &str) -> Option<u64> {
    cgroups
        .lines()
        .filter_map(|line| {
            let (_, line) = line.split_once(':')?;
            let (controllers, path) = line.split_once(':')?;
            let (root, file) = if controllers.is_empty() {
                (mount.to_owned(), "memory.max")
            } else if controllers.split(',').any(|name| name == "memory") {
                (mount.join("memory"), "memory.limit_in_bytes")
            } else {
                return None;
            };
            least_on_the_way(&root, path, file)
        })
        .min()
}

fn least_on_the_way(root: &Path, path: &str, file: &str) -> Option<u64> {
    let path = Path::new(path.trim_start_matches('/'));
    path.ancestors()
        .filter_map(|group| {
            let text = fs::read_to_string(root.join(group).join(file)).ok()?;
            // "max" in v2; a number that no machine has in v1, which is never the least.
            text.trim().parse().ok()
        })
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn it_is_what_is_left_within_its_range() {
        let of = |limit: Option<u64>, own: u64, free| bounded(limit, own, free) / MIB;
        assert_eq!(of(None, 40 * MIB, Some(64 * GIB)), 1024);
        assert_eq!(of(Some(512 * MIB), 40 * MIB, Some(64 * GIB)), 317);
        assert_eq!(of(Some(512 * MIB), 40 * MIB, Some(256 * MIB)), 155);
        assert_eq!(of(Some(128 * MIB), 40 * MIB, None), 64);
        assert_eq!(of(Some(32 * MIB), 40 * MIB, None), 64);
        assert_eq!(of(None, 40 * MIB, None), 64);
        assert!(
            (COMPILE_MEMORY_BYTES_MIN..=COMPILE_MEMORY_BYTES_MAX).contains(&compile_memory_bytes())
        );
    }

    #[test]
    fn the_least_limit_on_the_way_up_counts() {
        let mount = tempfile::tempdir().unwrap();
        let write = |path: &str, file: &str, text: &str| {
            let folder = mount.path().join(path);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(file), text).unwrap();
        };
        let limit = |cgroups: &str| container_limit(mount.path(), cgroups);
        assert_eq!(limit("0::/a/b\n"), None);
        write("a/b", "memory.max", "max\n");
        assert_eq!(limit("0::/a/b\n"), None);
        write("a", "memory.max", "1000\n");
        write("a/b", "memory.max", "2000\n");
        assert_eq!(limit("0::/a/b\n"), Some(1000));
        // The host's path, and a mount that begins at the container.
        write("", "memory.max", "500\n");
        assert_eq!(limit("0::/kubepods/pod1\n"), Some(500));

        write("memory/x", "memory.limit_in_bytes", "700\n");
        write("memory", "memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(limit("5:cpu,memory:/x\n4:pids:/y\n"), Some(700));
        assert_eq!(limit("4:pids:/x\n"), None);
        assert_eq!(limit("nonsense\n::"), Some(500));
    }

    #[test]
    fn free_memory_is_read_by_its_name() {
        let info = "MemTotal:  100 kB\nMemAvailable:     50 kB\n";
        assert_eq!(available(info), Some(50 << 10));
        assert_eq!(available("MemTotal:  100 kB\n"), None);
    }
}
