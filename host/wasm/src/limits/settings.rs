//! The limits by name, as a site sets them, and as documents list them.

use std::time::Duration;

use crate::limits::{EPOCH_TICK, KIB, Limits, MIB};

/// How a limit is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Count,
    Bytes,
    Micros,
}

/// One limit: its name, its range, and what it is for.
#[derive(Clone, Copy, Debug)]
pub struct LimitRow {
    name: &'static str,
    unit: Unit,
    min: u64,
    max: u64,
    get: fn(&Limits) -> u64,
    set: fn(&mut Limits, u64),
    /// What is limited, and why the default and the ceiling are what they are.
    what: &'static str,
}

/// A limit that does not exist, does not read as one, or is outside the range in which it still limits
/// something and lets something run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LimitError {
    #[error("limit {name} is {value}: set it to between {min} and {max}")]
    Range {
        name: &'static str,
        value: String,
        min: String,
        max: String,
    },
    #[error("limit {name} is {value:?}: expected {expected}")]
    Unreadable {
        name: &'static str,
        value: String,
        expected: &'static str,
    },
    #[error("there is no limit {name:?}: there are {}", Limits::NAMES.join(", "))]
    Unknown { name: String },
}

impl LimitError {
    /// The limit that it is about, as it was given.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Range { name, .. } | Self::Unreadable { name, .. } => name,
            Self::Unknown { name } => name,
        }
    }
}

/// Longest name or value that an error repeats.
const WORD_BYTES_MAX: usize = 64;

macro_rules! row {
    ($name:literal, $unit:ident, $field:ident, $range:expr, $what:literal) => {
        LimitRow {
            name: $name,
            unit: Unit::$unit,
            min: *$range.start(),
            max: *$range.end(),
            get: |limits| u64::try_from(limits.$field).unwrap_or(u64::MAX),
            // In its range, which fits.
            set: |limits, value| limits.$field = value.try_into().unwrap_or(limits.$field),
            what: $what,
        }
    };
}

macro_rules! time {
    ($name:literal, $field:ident, $range:expr, $what:literal) => {
        LimitRow {
            name: $name,
            unit: Unit::Micros,
            min: *$range.start(),
            max: *$range.end(),
            get: |limits| micros(limits.$field),
            set: |limits, value| limits.$field = Duration::from_micros(value),
            what: $what,
        }
    };
}

const TICK: u64 = EPOCH_TICK.as_micros() as u64;
const K: u64 = KIB as u64;
const M: u64 = MIB as u64;

const ROWS: [LimitRow; Limits::NAMES.len()] = [
    row!(
        "component-bytes-max",
        Bytes,
        component_bytes_max,
        8..=128 * M,
        "size of the component: a Python guest has 18 MB; compiling takes some 20 times as much memory"
    ),
    row!(
        "memory-bytes-max",
        Bytes,
        memory_bytes_max,
        64 * K..=256 * M,
        "all linear memories together: Rust needs less than 2 MiB, JavaScript 9.1, Python 12.3; one \
         instruction that no deadline interrupts can fill it, 16MiB in 7 ms, 256MiB in some 60"
    ),
    row!(
        "memories-max",
        Count,
        memories_max,
        1..=64,
        "linear memories: toolchains make one or two; each takes 4 GiB of addresses"
    ),
    row!(
        "table-elements-max",
        Count,
        table_elements_max,
        1..=1_000_000,
        "elements of all tables together, 8 bytes each: Python has some 10,000"
    ),
    row!(
        "tables-max",
        Count,
        tables_max,
        1..=1_000,
        "tables: one a module, and one for the adapters"
    ),
    row!(
        "instances-max",
        Count,
        instances_max,
        1..=1_000,
        "core instances: Rust makes three, Python's linked libraries some 30"
    ),
    row!(
        "handles-max",
        Count,
        handles_max,
        0..=100_000,
        "resource handles alive at a time"
    ),
    time!(
        "call-deadline",
        call_deadline,
        TICK..=1_000_000,
        "one call: a realistic one takes microseconds, and readers wait 50 ms at most"
    ),
    time!(
        "start-deadline",
        start_deadline,
        TICK..=30_000_000,
        "to instantiate and configure: interpreters run their start-up code"
    ),
    row!(
        "host-calls-max",
        Count,
        host_calls_max,
        1..=1_000_000,
        "host functions called in one call: 64 signals with 64 look-ups each; no deadline interrupts one"
    ),
    row!(
        "crossing-bytes-max",
        Bytes,
        crossing_bytes_max,
        K..=64 * M,
        "bytes copied out of the guest at one crossing: a few of its bytes can describe gigabytes"
    ),
    row!(
        "calls-per-instance-max",
        Count,
        calls_per_instance_max,
        1..=1_000_000_000,
        "calls until the instance is replaced: bounds what a slow leak adds up to"
    ),
    row!(
        "log-lines-max",
        Count,
        log_lines_max,
        1..=1_000,
        "lines a second that it may log, more at once after a pause: a storm of signals must not become \
         one in the log"
    ),
];

impl Limits {
    /// All names, as [`Limits::set`] takes them.
    pub const NAMES: [&str; 13] = [
        "component-bytes-max",
        "memory-bytes-max",
        "memories-max",
        "table-elements-max",
        "tables-max",
        "instances-max",
        "handles-max",
        "call-deadline",
        "start-deadline",
        "host-calls-max",
        "crossing-bytes-max",
        "calls-per-instance-max",
        "log-lines-max",
    ];

    /// The table of all limits, in the order of [`Limits::NAMES`].
    #[must_use]
    pub fn rows() -> &'static [LimitRow] {
        &ROWS
    }

    /// Sets the limit of that name: a count, a size (`16MiB`, `512KiB`, or bytes) or a duration (`5ms`,
    /// `500us`, `2s`). `_` in a name reads as `-`. Nothing is changed by an error.
    ///
    /// # Errors
    /// [`LimitError`].
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), LimitError> {
        let row = ROWS
            .iter()
            .find(|row| row.is_named(name))
            .ok_or_else(|| LimitError::Unknown { name: short(name) })?;
        let value = row.parse(value)?;
        row.check(value)?;
        (row.set)(self, value);
        Ok(())
    }

    /// Refuses the first limit that is out of range.
    ///
    /// # Errors
    /// [`LimitError::Range`], naming the limit and its range.
    pub fn check(&self) -> Result<(), LimitError> {
        ROWS.iter().try_for_each(|row| row.check((row.get)(self)))
    }
}

impl LimitRow {
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What is limited, and why the default and the ceiling are what they are.
    #[must_use]
    pub fn what(&self) -> &'static str {
        self.what
    }

    /// As [`Limits::set`] reads it.
    #[must_use]
    pub fn default_value(&self) -> String {
        self.value(&Limits::default())
    }

    /// `1 to 64`.
    #[must_use]
    pub fn range(&self) -> String {
        format!("{} to {}", self.show(self.min), self.show(self.max))
    }

    /// What it is in `limits`, as [`Limits::set`] reads it.
    #[must_use]
    pub fn value(&self, limits: &Limits) -> String {
        self.show((self.get)(limits))
    }

    fn is_named(&self, name: &str) -> bool {
        name.len() == self.name.len()
            && name
                .bytes()
                .map(|byte| if byte == b'_' { b'-' } else { byte })
                .eq(self.name.bytes())
    }

    fn check(&self, value: u64) -> Result<(), LimitError> {
        if (self.min..=self.max).contains(&value) {
            return Ok(());
        }
        Err(LimitError::Range {
            name: self.name,
            value: self.show(value),
            min: self.show(self.min),
            max: self.show(self.max),
        })
    }

    fn parse(&self, text: &str) -> Result<u64, LimitError> {
        let (units, expected): (&[(&str, u64)], _) = match self.unit {
            Unit::Count => (&[("", 1)], "a whole number"),
            Unit::Bytes => (
                &[
                    ("", 1),
                    ("KiB", K),
                    ("Ki", K),
                    ("MiB", M),
                    ("Mi", M),
                    ("GiB", K * M),
                    ("Gi", K * M),
                ],
                "a whole number and one of KiB, MiB, GiB, as in 16MiB",
            ),
            Unit::Micros => (
                &[("us", 1), ("µs", 1), ("ms", 1_000), ("s", 1_000_000)],
                "a whole number and one of us, ms, s, as in 5ms",
            ),
        };
        let read = || {
            let digits = text.bytes().take_while(u8::is_ascii_digit).count();
            let (number, unit) = text.split_at_checked(digits)?;
            let (_, times) = units.iter().find(|(name, _)| *name == unit)?;
            // Digits that are too many are more than any range has.
            let number = number
                .parse::<u64>()
                .ok()
                .or((digits > 0).then_some(u64::MAX))?;
            Some(number.saturating_mul(*times))
        };
        read().ok_or_else(|| LimitError::Unreadable {
            name: self.name,
            value: short(text),
            expected,
        })
    }

    /// As [`LimitRow::parse`] reads it.
    fn show(&self, value: u64) -> String {
        let units: &[(u64, &str)] = match self.unit {
            Unit::Count => &[],
            Unit::Bytes => &[(K * M, "GiB"), (M, "MiB"), (K, "KiB")],
            Unit::Micros => &[(1_000_000, "s"), (1_000, "ms"), (1, "us")],
        };
        let fits = |(size, _): &&(u64, &str)| value >= *size && value.is_multiple_of(*size);
        match units.iter().find(fits) {
            Some((size, unit)) => format!("{}{unit}", value / size),
            None => value.to_string(),
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A word of a file, fit for a message.
fn short(text: &str) -> String {
    let end = text.floor_char_boundary(WORD_BYTES_MAX);
    text.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
