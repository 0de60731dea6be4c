//! The table of bounds that a site may set: `--limit NAME=VALUE`. Parsing, help, messages and
//! `docs/limits.md` all come from it. The names are those that refused clients read in
//! `ResourceExhausted`.

use std::time::Duration;

use device_api_core::limits::{
    Bounds, EVIDENCE_BYTES_MAX, EVIDENCE_PER_CONDITION_MAX, MESSAGE_BYTES_MAX,
};

use crate::units::{Size, parse_duration, parse_size};

/// What a bound counts; its figures in the table are in this unit's smallest part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Count,
    /// Microseconds.
    Duration,
    /// Bytes.
    Size,
}

/// One bound.
#[derive(Debug)]
struct Row {
    name: &'static str,
    unit: Unit,
    min: u64,
    max: u64,
    get: fn(&Bounds) -> u64,
    set: fn(&mut Bounds, u64),
    what: &'static str,
}

/// One `NAME=VALUE`, within its range.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    row: &'static Row,
    value: u64,
}

impl PartialEq for Setting {
    fn eq(&self, other: &Self) -> bool {
        (self.row.name, self.value) == (other.row.name, other.value)
    }
}

/// Why settings, each fine for itself, do not go together.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LimitError {
    #[error("--limit {name} is given twice; give each limit once")]
    Twice { name: &'static str },
    #[error(
        "--limit watches-per-connection ({watches}) must be less than streams-per-connection ({streams}), or a client that watches has no stream left for its calls"
    )]
    NoStreamLeft { watches: usize, streams: u32 },
    #[error(
        "--limit send-bytes ({send}) must be at least {min}, the largest that a GPU with conditions-per-gpu ({conditions}) of them can be, or watches end that meet one"
    )]
    GpuTooLarge {
        send: usize,
        min: usize,
        conditions: usize,
    },
    #[error(
        "--limit condition-bytes ({texts}) must be at most half of send-bytes ({send}), or a list of all GPUs can be too large to send"
    )]
    ListTooLarge { texts: usize, send: usize },
}

/// The most that a condition has on the wire: its message, its evidence, and as much as all the rest of it.
const CONDITION_BYTES: usize =
    MESSAGE_BYTES_MAX + EVIDENCE_PER_CONDITION_MAX * EVIDENCE_BYTES_MAX + 2 * 1024;

const MS: u64 = 1_000;
const S: u64 = 1_000 * MS;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

macro_rules! count {
    ($name:literal, $field:ident, $range:expr, $what:literal) => {
        Row {
            name: $name,
            unit: Unit::Count,
            min: *$range.start(),
            max: *$range.end(),
            get: |bounds| u64::try_from(bounds.$field).unwrap_or(u64::MAX),
            // In its range, which fits.
            set: |bounds, value| bounds.$field = value.try_into().unwrap_or(bounds.$field),
            what: $what,
        }
    };
}

macro_rules! bytes {
    ($name:literal, $field:ident, $range:expr, $what:literal) => {
        Row {
            unit: Unit::Size,
            ..count!($name, $field, $range, $what)
        }
    };
}

macro_rules! time {
    ($name:literal, $field:ident, $range:expr, $what:literal) => {
        Row {
            name: $name,
            unit: Unit::Duration,
            min: *$range.start(),
            max: *$range.end(),
            get: |bounds| u64::try_from(bounds.$field.as_micros()).unwrap_or(u64::MAX),
            set: |bounds, value| bounds.$field = Duration::from_micros(value),
            what: $what,
        }
    };
}

/// All of them.
static TABLE: &[Row] = &[
    count!(
        "gpus",
        gpus,
        1..=16_384,
        "GPUs in the store. The largest NVLink domain has 72, MIG makes 7 of each; the rest is room for names that nobody cleans up."
    ),
    count!(
        "conditions-per-gpu",
        conditions_per_gpu,
        16..=1_024,
        "Conditions of one GPU. Two policies own a dozen; a node has a handful of providers."
    ),
    count!(
        "providers",
        providers,
        1..=4_096,
        "Providers known at once: one per agent on a node."
    ),
    bytes!(
        "condition-bytes",
        condition_bytes,
        64 * KIB..=64 * MIB,
        "Text of all conditions that providers have written, of all GPUs. A list holds them all, so it is half of send-bytes at most."
    ),
    count!(
        "condition-types",
        condition_types,
        16..=65_536,
        "Condition types that providers own in all."
    ),
    time!(
        "barrier-wait",
        barrier_wait,
        10 * MS..=S,
        "How long a read waits for decisions at most, queueing included."
    ),
    time!(
        "compile-deadline",
        compile_deadline,
        S..=3_600 * S,
        "How long one policy may take to compile; what takes longer is not compiled again."
    ),
    time!(
        "request-time",
        request_time,
        S..=600 * S,
        "How long any call but a watch may take; a shorter deadline of the client's counts instead."
    ),
    count!(
        "history-events",
        history_events,
        16..=1_048_576,
        "Changes kept for watches that resume."
    ),
    count!(
        "exact-events",
        exact_events,
        1..=1_048_576,
        "Changes that an exact watch may be behind before it is ended; those that it resumes with do not count."
    ),
    time!(
        "bookmark-interval",
        bookmark_interval,
        S..=3_600 * S,
        "How often an idle watch is told the newest version."
    ),
    count!(
        "watches",
        watches,
        1..=65_536,
        "Watch streams in all. One user takes at most half of them."
    ),
    count!(
        "watches-per-connection",
        watches_per_connection,
        1..=10_000,
        "Watch streams on one connection; less than its streams, so that calls get through."
    ),
    count!(
        "streams-per-connection",
        streams_per_connection,
        2..=10_000,
        "HTTP/2 streams on one connection, calls and watches together."
    ),
    count!(
        "connections",
        connections,
        4..=65_536,
        "Connections on all listeners of the API; fewer where the process may not open as many files. One user takes at most half of them."
    ),
    bytes!(
        "receive-bytes",
        receive_bytes,
        64 * KIB..=64 * MIB,
        "Size of a message that a client sends."
    ),
    bytes!(
        "send-bytes",
        send_bytes,
        256 * KIB..=256 * MIB,
        "Size of a message that a client is sent: at least a GPU with all its conditions, and twice condition-bytes."
    ),
];

/// Reads `NAME=VALUE`.
pub(crate) fn parse(text: &str) -> Result<Setting, String> {
    let (name, value) = text
        .split_once('=')
        .ok_or("expected NAME=VALUE, as in gpus=2048")?;
    let row = TABLE.iter().find(|row| row.name == name).ok_or_else(|| {
        let names: Vec<_> = TABLE.iter().map(|row| row.name).collect();
        format!("there is no limit {name:?}; there are {}", names.join(", "))
    })?;
    let value = row.parse(value)?;
    if (row.min..=row.max).contains(&value) {
        Ok(Setting { row, value })
    } else {
        let range = row.range();
        Err(format!(
            "{name} is {}; it must lie in {range}",
            row.show(value)
        ))
    }
}

/// The defaults with `settings` over them.
///
/// # Errors
/// [`LimitError`].
pub(crate) fn bounds(settings: &[Setting]) -> Result<Bounds, LimitError> {
    let mut bounds = Bounds::default();
    for (at, setting) in settings.iter().enumerate() {
        let name = setting.row.name;
        if settings.iter().take(at).any(|other| other.row.name == name) {
            return Err(LimitError::Twice { name });
        }
        (setting.row.set)(&mut bounds, setting.value);
    }
    go_together(&bounds)?;
    Ok(bounds)
}

fn go_together(bounds: &Bounds) -> Result<(), LimitError> {
    let (watches, streams) = (bounds.watches_per_connection, bounds.streams_per_connection);
    if u32::try_from(watches).is_ok_and(|watches| watches >= streams) {
        return Err(LimitError::NoStreamLeft { watches, streams });
    }
    let (send, conditions) = (bounds.send_bytes, bounds.conditions_per_gpu);
    let min = conditions * CONDITION_BYTES;
    if send < min {
        return Err(LimitError::GpuTooLarge {
            send,
            min,
            conditions,
        });
    }
    let texts = bounds.condition_bytes;
    if texts > send / 2 {
        return Err(LimitError::ListTooLarge { texts, send });
    }
    Ok(())
}

/// The help of `--limit`.
pub(crate) fn help() -> String {
    let mut text = "Sets a bound. May be given more than once. Past it, a call is refused with \
                    ResourceExhausted (or DeadlineExceeded) naming it."
        .to_owned();
    for row in TABLE {
        let (name, default, range) = (row.name, row.show(row.default()), row.range());
        text += &format!("\n- {name} ({default}; {range}): {}", row.what);
    }
    text
}

impl Row {
    fn default(&self) -> u64 {
        (self.get)(&Bounds::default())
    }

    fn parse(&self, text: &str) -> Result<u64, String> {
        match self.unit {
            Unit::Count => text
                .parse()
                .map_err(|_| format!("{}: expected a whole number", self.name)),
            Unit::Duration => parse_duration(text)
                .and_then(|time| u64::try_from(time.as_micros()).map_err(|_| "too long".to_owned()))
                .map_err(|why| format!("{}: {why}", self.name)),
            Unit::Size => parse_size(text)
                .map(|Size { bytes }| bytes)
                .map_err(|why| format!("{}: {why}", self.name)),
        }
    }

    fn range(&self) -> String {
        format!("{} to {}", self.show(self.min), self.show(self.max))
    }

    /// As [`Row::parse`] reads it.
    fn show(&self, value: u64) -> String {
        const DURATIONS: [(u64, &str); 4] = [(60 * S, "m"), (S, "s"), (MS, "ms"), (1, "us")];
        const SIZES: [(u64, &str); 3] = [(MIB, "MiB"), (KIB, "KiB"), (1, "")];
        let units: &[_] = match self.unit {
            Unit::Count => &[],
            Unit::Duration => &DURATIONS,
            Unit::Size => &SIZES,
        };
        let fits = |(size, _): &&(u64, &str)| value >= *size && value.is_multiple_of(*size);
        match units.iter().find(fits) {
            Some((size, unit)) => format!("{}{unit}", value / size),
            None => value.to_string(),
        }
    }
}

/// A row as the chart has it.
#[cfg(test)]
pub(crate) struct ForChart {
    pub(crate) name: &'static str,
    /// `count`, `duration` or `size`.
    pub(crate) unit: &'static str,
    pub(crate) min: u64,
    pub(crate) max: u64,
    pub(crate) shown_min: String,
    pub(crate) shown_max: String,
}

#[cfg(test)]
pub(crate) fn for_chart() -> Vec<ForChart> {
    let row = |row: &Row| ForChart {
        name: row.name,
        unit: match row.unit {
            Unit::Count => "count",
            Unit::Duration => "duration",
            Unit::Size => "size",
        },
        min: row.min,
        max: row.max,
        shown_min: row.show(row.min),
        shown_max: row.show(row.max),
    };
    TABLE.iter().map(row).collect()
}

#[cfg(test)]
#[path = "limits_tests.rs"]
mod tests;
