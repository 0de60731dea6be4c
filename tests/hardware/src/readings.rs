//! Every reading of docs/readings.md: its type, and the range that is plausible for a board of today.
//!
//! The ranges are wide on purpose. They find a unit that is wrong by a thousand, a counter read as a
//! temperature, and the library's "not available" taken for a figure; not a board that is warm.

use device_api_core::signal::{Reading, Samples, Value};

use crate::report::{Line, Outcome, Section};
use crate::smi::{Smi, SmiGpu};
use crate::source::Snapshot;

/// What a reading may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plausible {
    Int(i64, i64),
    Flag,
    Text,
}

use Plausible::{Flag, Int, Text};

const COUNT: Plausible = Int(0, i64::MAX);
/// GPUs idle at some 20 °C in a cold aisle and shut down below 110.
const CELSIUS: Plausible = Int(5, 120);
/// Idle boards draw more than a watt; the largest are rated at 1,400 W.
const MILLIWATTS: Plausible = Int(1_000, 2_000_000);
const MEGAHERTZ: Plausible = Int(0, 10_000);
const PERCENT: Plausible = Int(0, 100);
/// 1 GiB to 1 TiB.
const MEMORY: Plausible = Int(1 << 30, 1 << 40);
const BANKS: Plausible = Int(0, 1 << 20);

/// By key; all of docs/readings.md.
const READINGS: &[(&str, Plausible)] = &[
    ("nvml.state", Int(0, 0)),
    ("nvml.hung-call", Text),
    ("nvml.hung-ms", Int(0, 0)),
    ("nvml.error", Text),
    ("temperature.gpu", CELSIUS),
    ("temperature.memory", CELSIUS),
    ("temperature.margin", Int(-30, 120)),
    ("temperature.slowdown", Int(60, 130)),
    ("temperature.shutdown", Int(60, 130)),
    ("temperature.gpu-max", Int(60, 130)),
    ("temperature.memory-max", Int(60, 130)),
    ("power.draw", MILLIWATTS),
    ("power.draw-instant", MILLIWATTS),
    ("power.limit", Int(10_000, 2_000_000)),
    ("power.limit-default", Int(10_000, 2_000_000)),
    ("power.limit-min", Int(1_000, 2_000_000)),
    ("power.limit-max", Int(10_000, 2_000_000)),
    ("clocks.throttle-reasons", Int(0, (1 << 32) - 1)),
    ("clocks.graphics", MEGAHERTZ),
    ("clocks.sm", MEGAHERTZ),
    ("clocks.memory", Int(0, 20_000)),
    ("clocks.performance-state", Int(0, 15)),
    ("ecc.enabled", Flag),
    ("ecc.enabled-pending", Flag),
    ("ecc.volatile.corrected", COUNT),
    ("ecc.volatile.uncorrected", COUNT),
    ("ecc.aggregate.corrected", COUNT),
    ("ecc.aggregate.uncorrected", COUNT),
    ("ecc.dram.volatile.corrected", COUNT),
    ("ecc.dram.volatile.uncorrected", COUNT),
    ("ecc.sram.threshold-exceeded", Flag),
    ("ecc.sram.volatile.corrected", COUNT),
    ("ecc.sram.volatile.uncorrected", COUNT),
    ("ecc.sram.aggregate.corrected", COUNT),
    ("ecc.sram.aggregate.uncorrected", COUNT),
    ("row-remap.correctable", Int(0, 1 << 20)),
    ("row-remap.uncorrectable", Int(0, 1 << 20)),
    ("row-remap.pending", Flag),
    ("row-remap.failure", Flag),
    ("row-remap.banks.max", BANKS),
    ("row-remap.banks.high", BANKS),
    ("row-remap.banks.partial", BANKS),
    ("row-remap.banks.low", BANKS),
    ("row-remap.banks.none", BANKS),
    ("retired-pages.corrected", Int(0, 1 << 20)),
    ("retired-pages.uncorrected", Int(0, 1 << 20)),
    ("retired-pages.pending", Flag),
    ("pcie.link-width", Int(1, 32)),
    ("pcie.link-width-max", Int(1, 32)),
    ("pcie.link-generation", Int(1, 7)),
    ("pcie.link-generation-max", Int(1, 7)),
    ("pcie.replays", COUNT),
    ("pcie.replay-rollovers", COUNT),
    ("pcie.correctable-errors", COUNT),
    ("pcie.non-fatal-errors", COUNT),
    ("pcie.fatal-errors", COUNT),
    ("pcie.recoveries", COUNT),
    ("nvlink.links", Int(1, 36)),
    ("nvlink.links-active", Int(0, 36)),
    ("nvlink.active-mask", COUNT),
    ("nvlink.crc-flit-errors", COUNT),
    ("nvlink.crc-data-errors", COUNT),
    ("nvlink.replay-errors", COUNT),
    ("nvlink.recovery-errors", COUNT),
    ("nvlink.receive-errors", COUNT),
    ("nvlink.link-recoveries", COUNT),
    ("nvlink.link-recovery-failures", COUNT),
    ("nvlink.symbol-errors", COUNT),
    ("fabric.state", Int(0, 3)),
    ("fabric.status", Int(0, 999)),
    ("fabric.health", Int(0, (1 << 32) - 1)),
    ("memory.used", Int(0, 1 << 40)),
    ("memory.total", MEMORY),
    ("utilization.gpu", PERCENT),
    ("utilization.memory", PERCENT),
    ("recovery.action", Int(0, 10)),
];

/// A reading that nvidia-smi shows as well, how far the two may be apart, and what one of ours is in its unit.
struct Shown {
    key: &'static str,
    paths: &'static [&'static str],
    apart: f64,
    unit: f64,
}

/// The two look some seconds apart: sensors move meanwhile, limits and what counts faults of the memory do not.
const SHOWN: &[Shown] = &[
    shown("temperature.gpu", &["temperature/gpu_temp"], 10.0, 1.0),
    shown(
        "temperature.memory",
        &["temperature/memory_temp"],
        10.0,
        1.0,
    ),
    shown(
        "temperature.slowdown",
        &["temperature/gpu_temp_slow_threshold"],
        0.0,
        1.0,
    ),
    shown(
        "temperature.shutdown",
        &["temperature/gpu_temp_max_threshold"],
        0.0,
        1.0,
    ),
    shown(
        "power.limit",
        &[
            "gpu_power_readings/current_power_limit",
            "power_readings/power_limit",
        ],
        0.01,
        1000.0,
    ),
    shown("memory.total", &["fb_memory_usage/total"], 1.0, 1_048_576.0),
    shown("pcie.replays", &["pci/replay_counter"], 16.0, 1.0),
    shown(
        "row-remap.correctable",
        &["remapped_rows/remapped_row_corr"],
        0.0,
        1.0,
    ),
    shown(
        "row-remap.uncorrectable",
        &["remapped_rows/remapped_row_unc"],
        0.0,
        1.0,
    ),
    shown(
        "retired-pages.corrected",
        &["retired_pages/multiple_single_bit_retirement/retired_count"],
        0.0,
        1.0,
    ),
    shown(
        "retired-pages.uncorrected",
        &["retired_pages/double_bit_retirement/retired_count"],
        0.0,
        1.0,
    ),
];

const fn shown(key: &'static str, paths: &'static [&'static str], apart: f64, unit: f64) -> Shown {
    Shown {
        key,
        paths,
        apart,
        unit,
    }
}

/// Each reading of each GPU against its range, and against nvidia-smi where that shows it.
pub(crate) fn check(snapshot: &Snapshot, smi: &Smi) -> Vec<Section> {
    let mut sections = Vec::new();
    for (index, theirs) in smi.gpus.iter().enumerate() {
        let Some(samples) = snapshot.samples.get(theirs.uuid()) else {
            continue;
        };
        sections.push(Section {
            title: format!("Readings of GPU {index}"),
            lines: plausible(samples).chain(unknown(samples)).collect(),
        });
        sections.push(Section {
            title: format!("Readings of GPU {index} beside nvidia-smi's"),
            lines: SHOWN
                .iter()
                .map(|shown| beside(shown, samples, theirs))
                .collect(),
        });
    }
    sections
}

fn plausible(samples: &Samples) -> impl Iterator<Item = Line> {
    READINGS
        .iter()
        .map(|(key, plausible)| match samples.get(*key) {
            Some(Ok(Reading { value, .. })) => Line::of(
                *key,
                words(value),
                range(*plausible),
                is_plausible(value, *plausible),
            ),
            Some(Err(miss)) => Line::skipped(*key, format!("absent: {miss:?}")),
            None => Line::skipped(*key, "absent: not sampled"),
        })
}

/// Keys that the table does not have.
fn unknown(samples: &Samples) -> impl Iterator<Item = Line> {
    let is_known = |key: &str| READINGS.iter().any(|(known, _)| *known == key);
    let unknown = samples.keys().filter(move |key| !is_known(key));
    unknown.map(|key| Line::of(key.clone(), "", "a row in docs/readings.md", false))
}

fn is_plausible(value: &Value, plausible: Plausible) -> bool {
    match (value, plausible) {
        (Value::Int(value), Int(least, most)) => (least..=most).contains(value),
        (Value::Flag(_), Flag) | (Value::Text(_), Text) => true,
        (Value::Int(_) | Value::Flag(_) | Value::Text(_) | Value::Real(_) | Value::Bytes(_), _) => {
            false
        }
    }
}

fn range(plausible: Plausible) -> String {
    match plausible {
        Int(least, i64::MAX) => format!("integer, {least} or more"),
        Int(least, most) => format!("integer, {least} to {most}"),
        Flag => "flag".to_owned(),
        Text => "text".to_owned(),
    }
}

fn words(value: &Value) -> String {
    match value {
        Value::Flag(flag) => flag.to_string(),
        Value::Int(int) => int.to_string(),
        Value::Real(real) => real.to_string(),
        Value::Text(text) => text.clone(),
        Value::Bytes(bytes) => format!("{} bytes", bytes.len()),
    }
}

fn beside(shown: &Shown, samples: &Samples, theirs: &SmiGpu) -> Line {
    let Some(told) = theirs.number(shown.paths) else {
        return Line::skipped(shown.key, "not shown");
    };
    let ours = match samples.get(shown.key) {
        Some(Ok(Reading {
            value: Value::Int(ours),
            ..
        })) => Some(*ours),
        Some(_) | None => None,
    };
    let Some(ours) = ours else {
        return Line::of(shown.key, "absent", told.to_string(), false);
    };
    let scaled = in_unit(ours, shown.unit);
    let is_near = (scaled - told).abs() <= shown.apart;
    let held_against = format!("{told}, at most {} apart", shown.apart);
    Line::of(shown.key, scaled.to_string(), held_against, is_near)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "bytes of a GPU's memory and what is smaller: below 2^53"
)]
fn in_unit(ours: i64, unit: f64) -> f64 {
    ours as f64 / unit
}

/// Readings that a GPU has, of those that there are.
pub(crate) fn served(snapshot: &Snapshot) -> Line {
    let lines = snapshot
        .samples
        .values()
        .flat_map(|samples| plausible(samples));
    let (mut there, mut absent) = (0_usize, 0_usize);
    for line in lines {
        match line.outcome {
            Outcome::Ok | Outcome::Wrong => there += 1,
            Outcome::Skipped => absent += 1,
        }
    }
    Line::of(
        "readings that are served, all GPUs",
        there.to_string(),
        format!("more than are absent ({absent})"),
        there > absent,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The keys of the table in docs/readings.md.
    fn documented() -> Vec<String> {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/readings.md");
        let page = std::fs::read_to_string(page).unwrap();
        let (_, table) = page.split_once("| key | type |").unwrap();
        let (table, _) = table.split_once("\n\n").unwrap();
        let rows = table.lines().filter_map(|row| row.strip_prefix("| `"));
        let keys = rows.map(|row| row.split_once('`').unwrap().0.to_owned());
        keys.collect()
    }

    #[test]
    fn every_reading_of_the_docs_has_its_range() {
        let known: Vec<&str> = READINGS.iter().map(|(key, _)| *key).collect();
        assert_eq!(documented(), known);
    }

    #[test]
    fn a_type_or_a_unit_that_is_wrong_is_found() {
        assert!(is_plausible(&Value::Int(35), CELSIUS));
        assert!(!is_plausible(&Value::Int(35_000), CELSIUS));
        assert!(!is_plausible(&Value::Real(35.0), CELSIUS));
        assert!(!is_plausible(&Value::Int(1), Flag));
        assert!(
            !is_plausible(&Value::Int(350), MILLIWATTS),
            "watts for milliwatts"
        );
    }
}
