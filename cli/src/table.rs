//! Tables for people, in the manner of `kubectl`: columns as wide as their widest cell, three
//! blanks between, colour where it is wanted.

use std::io::{self, Write};

use device_api_proto::native::{Condition, Gpu, GpuSpec};

use crate::client::qualified;
use crate::text::escape;
use crate::words::{self, Judgement};

/// One cell: safe text and how to paint it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) text: String,
    pub(crate) paint: Option<Paint>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Paint {
    Good,
    Warning,
    Bad,
    Faint,
}

impl Paint {
    fn code(self) -> &'static str {
        match self {
            Self::Good => "\x1b[32m",
            Self::Warning => "\x1b[33m",
            Self::Bad => "\x1b[31m",
            Self::Faint => "\x1b[2m",
        }
    }
}

impl Cell {
    /// Text from anywhere; what is empty shows as `-`.
    pub(crate) fn new(text: &str) -> Self {
        let text = if text.is_empty() {
            "-".to_owned()
        } else {
            escape(text).into_owned()
        };
        Self { text, paint: None }
    }

    pub(crate) fn painted(text: &str, paint: Option<Paint>) -> Self {
        Self {
            paint,
            ..Self::new(text)
        }
    }

    /// The text between the escape sequences of its colour, if `colour`.
    pub(crate) fn show(&self, colour: bool) -> String {
        match self.paint.filter(|_| colour) {
            Some(paint) => format!("{}{}\x1b[0m", paint.code(), self.text),
            None => self.text.clone(),
        }
    }
}

/// Writes rows under their heads, each column as wide as its widest cell.
pub(crate) fn write(
    out: &mut dyn Write,
    heads: &[&str],
    rows: &[Vec<Cell>],
    colour: bool,
) -> io::Result<()> {
    let mut widths: Vec<usize> = heads.iter().map(|head| width(head)).collect();
    for row in rows {
        for (column, cell) in widths.iter_mut().zip(row) {
            *column = (*column).max(width(&cell.text));
        }
    }
    let heads: Vec<Cell> = heads.iter().map(|head| Cell::new(head)).collect();
    for row in std::iter::once(&heads).chain(rows) {
        write_row(out, row, &widths, colour)?;
    }
    Ok(())
}

/// Writes one row in columns of at least `widths`; the last one is not padded.
pub(crate) fn write_row(
    out: &mut dyn Write,
    row: &[Cell],
    widths: &[usize],
    colour: bool,
) -> io::Result<()> {
    let last = row.len().saturating_sub(1);
    for (at, (cell, column)) in row.iter().zip(widths).enumerate() {
        let pad = if at == last {
            0
        } else {
            column.saturating_sub(width(&cell.text)) + 3
        };
        write!(out, "{}{:pad$}", cell.show(colour), "")?;
    }
    writeln!(out)
}

fn width(text: &str) -> usize {
    text.chars().count()
}

pub(crate) const HEADS: [&str; 7] = [
    "NAME", "INDEX", "PRODUCT", "HEALTH", "ACTION", "REASON", "AGE",
];
pub(crate) const HEADS_WIDE: [&str; 13] = [
    "NAME",
    "INDEX",
    "PRODUCT",
    "HEALTH",
    "ACTION",
    "REASON",
    "AGE",
    "PCI",
    "DRIVER",
    "ARCH",
    "MEMORY",
    "CONDITION",
    "VERSION",
];

/// One GPU as a row under [`HEADS`], or [`HEADS_WIDE`].
pub(crate) fn gpu_row(gpu: &Gpu, now: jiff::Timestamp, wide: bool) -> Vec<Cell> {
    let none = GpuSpec::default();
    let spec = gpu.spec.as_ref().unwrap_or(&none);
    let mut row = vec![
        Cell::new(&qualified(gpu)),
        index(gpu),
        Cell::new(&spec.product),
        health(gpu),
        action(gpu),
        Cell::new(&reason(gpu)),
        Cell::new(&age(words::timestamp(gpu.creation_timestamp.as_ref()), now)),
    ];
    if wide {
        let decider = gpu
            .status
            .as_ref()
            .map_or("", |status| status.health_condition.as_str());
        row.extend([
            Cell::new(&spec.pci_address),
            Cell::new(&spec.driver_version),
            Cell::new(&spec.architecture),
            Cell::new(&spec.memory_bytes.map(memory).unwrap_or_default()),
            Cell::new(decider),
            Cell::new(&gpu.resource_version.to_string()),
        ]);
    }
    row
}

pub(crate) fn index(gpu: &Gpu) -> Cell {
    let index = gpu.spec.as_ref().and_then(|spec| spec.index);
    Cell::new(&index.map(|index| index.to_string()).unwrap_or_default())
}

pub(crate) fn health(gpu: &Gpu) -> Cell {
    let word = words::health(gpu);
    let paint = match word {
        "Healthy" => Paint::Good,
        "Unhealthy" => Paint::Bad,
        "Degraded" => Paint::Warning,
        _ => Paint::Faint,
    };
    Cell::painted(word, Some(paint))
}

pub(crate) fn action(gpu: &Gpu) -> Cell {
    let word = words::action(gpu);
    Cell::painted(word, (word == "NONE").then_some(Paint::Faint))
}

/// Why the GPU is as it is: the reason of the condition that decides its health; else, of the one
/// that recommends the action; else of a problem that changes neither, so that an application's
/// fault shows as well.
pub(crate) fn reason(gpu: &Gpu) -> String {
    telling(gpu)
        .map(|condition| mark(&condition.reason, condition.drill))
        .unwrap_or_default()
}

fn telling(gpu: &Gpu) -> Option<&Condition> {
    let status = gpu.status.as_ref()?;
    let by_type = |wanted: &str| {
        status
            .conditions
            .iter()
            .find(|condition| !wanted.is_empty() && condition.r#type == wanted)
    };
    by_type(&status.health_condition)
        .or_else(|| by_type(&status.recommended_action_condition))
        .or_else(|| {
            status
                .conditions
                .iter()
                .find(|condition| words::judgement(condition) == Judgement::Problem)
        })
}

fn mark(reason: &str, drill: bool) -> String {
    if drill {
        format!("{reason} (drill)")
    } else {
        reason.to_owned()
    }
}

/// Time since `then`, in its largest unit, as `kubectl` has it.
pub(crate) fn age(then: Option<jiff::Timestamp>, now: jiff::Timestamp) -> String {
    then.map(|then| span(now.as_second().saturating_sub(then.as_second())))
        .unwrap_or_default()
}

/// Seconds in the largest unit of which there are two, or the only one there is.
pub(crate) fn span(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    match seconds.max(0) {
        seconds if seconds < 2 * MINUTE => format!("{seconds}s"),
        seconds if seconds < 2 * HOUR => format!("{}m", seconds / MINUTE),
        seconds if seconds < 2 * DAY => format!("{}h", seconds / HOUR),
        seconds => format!("{}d", seconds / DAY),
    }
}

/// Bytes as GiB with one decimal.
pub(crate) fn memory(bytes: u64) -> String {
    let tenths = u128::from(bytes) * 10 / (1 << 30);
    format!("{}.{}Gi", tenths / 10, tenths % 10)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use device_api_proto::native::{ConditionStatus, GpuStatus, Health, Polarity, Severity};

    pub(crate) fn gpu(name: &str) -> Gpu {
        let spec = GpuSpec {
            uuid: name.to_owned(),
            product: "NVIDIA H100 80GB HBM3".to_owned(),
            index: Some(3),
            memory_bytes: Some(85_520_809_984),
            pci_address: "0000:a1:00.0".to_owned(),
            ..GpuSpec::default()
        };
        let status = GpuStatus {
            health: Health::Healthy.into(),
            ..GpuStatus::default()
        };
        Gpu {
            name: name.to_owned(),
            namespace: "default".to_owned(),
            resource_version: 7,
            spec: Some(spec),
            status: Some(status),
            ..Gpu::default()
        }
    }

    pub(crate) fn problem(type_: &str, reason: &str) -> Condition {
        Condition {
            r#type: type_.to_owned(),
            reason: reason.to_owned(),
            status: ConditionStatus::True.into(),
            polarity: Polarity::TrueIsProblem.into(),
            severity: Severity::Info.into(),
            ..Condition::default()
        }
    }

    #[track_caller]
    fn check_row(gpu: &Gpu, wide: bool, expected: &[&str]) {
        let row = gpu_row(gpu, jiff::Timestamp::from_second(1_000).unwrap(), wide);
        assert_eq!(
            row.iter()
                .map(|cell| cell.text.as_str())
                .collect::<Vec<_>>(),
            expected
        );
    }

    #[test]
    fn a_row_says_what_the_daemon_says_and_dashes_for_the_rest() {
        let mut gpu = gpu("GPU-1");
        check_row(
            &gpu,
            false,
            &[
                "GPU-1",
                "3",
                "NVIDIA H100 80GB HBM3",
                "Healthy",
                "NONE",
                "-",
                "-",
            ],
        );
        gpu.creation_timestamp = Some(prost_types::Timestamp {
            seconds: 400,
            nanos: 0,
        });
        gpu.namespace = "other".to_owned();
        let status = gpu.status.as_mut().unwrap();
        status.health = Health::Unhealthy.into();
        status.health_condition = "B".to_owned();
        status.recommended_action = "RESTART_BM".to_owned();
        status.conditions = vec![
            problem("A", "First"),
            Condition {
                drill: true,
                ..problem("B", "Off\x1b[Bus")
            },
        ];
        let row = [
            "other/GPU-1",
            "3",
            "NVIDIA H100 80GB HBM3",
            "Unhealthy",
            "RESTART_BM",
            "Off\\u{1b}[Bus (drill)",
            "10m",
            "0000:a1:00.0",
            "-",
            "-",
            "79.6Gi",
            "B",
            "7",
        ];
        check_row(&gpu, true, &row);
        check_row(
            &Gpu::default(),
            false,
            &["-", "-", "-", "Unknown", "NONE", "-", "-"],
        );
    }

    #[test]
    fn an_applications_fault_shows_though_the_gpu_is_healthy() {
        let mut gpu = gpu("GPU-1");
        let fine = Condition {
            status: ConditionStatus::False.into(),
            ..problem("A", "NoXid")
        };
        gpu.status.as_mut().unwrap().conditions = vec![fine, problem("B", "ApplicationFault")];
        assert_eq!(reason(&gpu), "ApplicationFault");
    }

    #[test]
    fn columns_are_as_wide_as_their_cells_and_colour_does_not_count() {
        let rows = [
            vec![Cell::painted("é", Some(Paint::Good)), Cell::new("x")],
            vec![Cell::new("long"), Cell::new("")],
        ];
        let render = |colour| {
            let mut out = Vec::new();
            write(&mut out, &["A", "B"], &rows, colour).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(render(false), "A      B\né      x\nlong   -\n");
        assert_eq!(
            render(true),
            "A      B\n\x1b[32mé\x1b[0m      x\nlong   -\n"
        );
    }

    #[test]
    fn ages_and_sizes_read_well() {
        let ages = [-5, 0, 119, 120, 7_199, 7_200, 172_799, 172_800].map(span);
        assert_eq!(ages, ["0s", "0s", "119s", "2m", "119m", "2h", "47h", "2d"]);
        assert_eq!(
            [0, 1 << 30, u64::MAX].map(memory),
            ["0.0Gi", "1.0Gi", "17179869183.9Gi"]
        );
    }
}
