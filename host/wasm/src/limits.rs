//! Every bound of the engine room and why it is what it is. None can be switched off: a setting
//! outside its range is refused by [`Limits::check`].

use std::time::Duration;

mod settings;

pub use settings::{LimitError, LimitRow};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// How often a running guest looks at the clock, and so by how much it can overrun its deadline.
/// 1 ms: a fifth of the default deadline, and one short wake-up a millisecond only while a call runs.
pub const EPOCH_TICK: Duration = Duration::from_millis(1);

/// Stack of a guest, the same for all programs of an engine. Rust and C guests need a few KiB,
/// interpreters some 100 KiB; a calling thread has 2 MiB by default, so the host keeps ample room.
pub const GUEST_STACK_BYTES: usize = 256 * KIB;

/// Addresses that each linear memory has to itself: all that 32 bits reach.
pub(crate) const MEMORY_RESERVATION: u64 = 4 << 30;

/// Addresses on either side of it that nobody has: beyond any constant offset that compilers write
/// beside an index.
pub(crate) const MEMORY_GUARD: u64 = 32 << 20;

/// Functions named in a trap's message: enough to see who called whom, without a page of text.
pub(crate) const TRAP_FRAMES_MAX: usize = 8;

/// Longest text kept from a guest's failure: names in it are the guest's own words.
pub(crate) const MESSAGE_BYTES_MAX: usize = KIB;

/// Names listed in one load error; a WASI build imports dozens.
pub(crate) const NAMES_LISTED_MAX: usize = 8;

/// Part of the memory limit at which an instance is worn, in percent: linear memory never shrinks,
/// so one bad call would leave it at the brink. Above what Python holds at rest (12.3 of 16 MiB).
const WORN_MEMORY_PERCENT: usize = 87;

/// What one program's guests may use. Start from [`Limits::default`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Size of the component, in bytes. Default 32 MiB: a Python guest is 18 MB, and compiling takes
    /// some 20 times the input in memory.
    pub component_bytes_max: usize,
    /// All linear memories of an instance together, in bytes. Default 16 MiB: a JavaScript guest
    /// needs 9.1 MiB, a Python guest 12.3, a Rust guest less than 2. One instruction can fill all of it,
    /// which no deadline interrupts: 16 MiB take up to 7 ms the first time,
    /// the ceiling of 256 MiB some 60 ms.
    pub memory_bytes_max: usize,
    /// Linear memories. Default 8: toolchains make one or two; each reserves 4 GiB of addresses.
    pub memories_max: usize,
    /// Elements of all tables together. Default 65,536: 8 bytes each, and Python's function table
    /// has some 10,000.
    pub table_elements_max: usize,
    /// Tables. Default 32: one a module and one for the adapters.
    pub tables_max: usize,
    /// Core instances that one component may consist of. Default 64: Rust makes three, Python's
    /// linked libraries some 30.
    pub instances_max: usize,
    /// Resource handles alive at a time. Default 1,024; a world without resources needs none.
    pub handles_max: usize,
    /// Wall time of one call. Default 5 ms: a realistic call takes microseconds, and readers wait
    /// at most 50 ms for everything.
    pub call_deadline: Duration,
    /// Wall time to instantiate and configure. Default 100 ms: interpreters run their start-up code.
    pub start_deadline: Duration,
    /// Host functions called during one call, or during the start. Default 4,096: 64 signals with
    /// 64 look-ups each. The deadline does not interrupt a host function, so their number is bounded.
    pub host_calls_max: u32,
    /// Bytes that the host copies out of a guest at one crossing (arguments of one host function,
    /// result of one call). Default 1 MiB; a few guest bytes can describe gigabytes to copy.
    pub crossing_bytes_max: usize,
    /// Calls after which an instance is worn. Default 100,000: bounds what a guest's slow leak or
    /// fragmentation adds up to, at some 30 µs for a new instance every 100,000 calls.
    pub calls_per_instance_max: u64,
    /// Lines a second that a guest may log, to whatever the world gives it for that. Default 20: more
    /// than anyone reads. What is left out is counted by the world.
    pub log_lines_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            component_bytes_max: 32 * MIB,
            memory_bytes_max: 16 * MIB,
            memories_max: 8,
            table_elements_max: 65_536,
            tables_max: 32,
            instances_max: 64,
            handles_max: 1_024,
            call_deadline: Duration::from_millis(5),
            start_deadline: Duration::from_millis(100),
            host_calls_max: 4_096,
            crossing_bytes_max: MIB,
            calls_per_instance_max: 100_000,
            log_lines_max: 20,
        }
    }
}

impl Limits {
    /// Time that a log line takes up of what [`Limits::log_lines_max`] allows.
    #[must_use]
    pub fn log_interval(&self) -> Duration {
        Duration::from_secs(1) / self.log_lines_max.max(1)
    }

    /// Memory in use from which on an instance counts as worn, in bytes.
    pub(crate) fn worn_memory_bytes(&self) -> usize {
        self.memory_bytes_max / 100 * WORN_MEMORY_PERCENT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_limit_can_be_switched_off() {
        let base = Limits::default();
        for (name, limits) in [
            (
                "memory-bytes-max",
                Limits {
                    memory_bytes_max: usize::MAX,
                    ..base
                },
            ),
            (
                "call-deadline",
                Limits {
                    call_deadline: Duration::MAX,
                    ..base
                },
            ),
            (
                "start-deadline",
                Limits {
                    start_deadline: Duration::ZERO,
                    ..base
                },
            ),
            (
                "host-calls-max",
                Limits {
                    host_calls_max: u32::MAX,
                    ..base
                },
            ),
            (
                "calls-per-instance-max",
                Limits {
                    calls_per_instance_max: 0,
                    ..base
                },
            ),
        ] {
            assert_eq!(limits.check().unwrap_err().name(), name);
        }
    }

    #[test]
    fn python_at_rest_is_not_worn() {
        assert!(Limits::default().worn_memory_bytes() > 123 * MIB / 10);
    }
}
