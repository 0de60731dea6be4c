//! The clock of this machine.

use device_api_core::clock::{BootTime, Clock, WallTime, system_wall_time};
use rustix::time::{ClockId, clock_gettime};

const NS_PER_SECOND: u64 = 1_000_000_000;

/// Wall time, and `CLOCK_BOOTTIME`: monotonic, time asleep included, the same for every process
/// since boot, so that what one run stored the next can compare (design C8).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    fn wall(&self) -> WallTime {
        system_wall_time()
    }

    fn boot(&self) -> BootTime {
        let now = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        let ns = u64::try_from(now.tv_nsec).unwrap_or(0);
        BootTime {
            ns: seconds.saturating_mul(NS_PER_SECOND).saturating_add(ns),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_time_is_the_systems_uptime_and_never_falls() {
        let clock = SystemClock;
        let first = clock.boot();
        let uptime = std::fs::read_to_string("/proc/uptime").expect("Linux");
        let second = clock.boot();
        let seconds: f64 = uptime
            .split(' ')
            .next()
            .and_then(|s| s.parse().ok())
            .expect("a number");
        // /proc/uptime is cut to hundredths, and a container may be told its own start instead.
        let resolution = 0.011;
        assert!(second >= first);
        assert!(
            second.ns as f64 / 1e9 + resolution >= seconds,
            "{second:?} against {seconds}"
        );
        assert!(clock.wall().unix_ms() > 1_700_000_000_000);
    }
}
