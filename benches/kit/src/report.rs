//! What comes out: a table for people, JSON for the rest.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;

use crate::stats::Spread;

/// Everything of one run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// How it was measured, in words.
    pub setting: Vec<(&'static str, String)>,
    pub sections: Vec<Section>,
}

/// Cases of one kind.
#[derive(Debug, Serialize)]
pub struct Section {
    /// A word to find it by.
    pub name: &'static str,
    pub title: String,
    pub rows: Vec<Row>,
    /// What to know when reading it, and what was left out and why.
    pub notes: Vec<String>,
}

impl Section {
    pub fn new(name: &'static str, title: impl Into<String>) -> Self {
        Self {
            name,
            title: title.into(),
            rows: Vec::new(),
            notes: Vec::new(),
        }
    }
}

/// One case.
#[derive(Debug, Serialize)]
pub struct Row {
    pub case: String,
    /// "×" for ratios, else what it counts in.
    pub unit: &'static str,
    pub value: Spread,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub goal: Option<Goal>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub met: Option<bool>,
    /// What the value was made from, in the order of the lanes.
    pub figures: Vec<Figures>,
}

impl Row {
    pub fn new(case: impl Into<String>, unit: &'static str, value: Spread) -> Self {
        Self {
            case: case.into(),
            unit,
            value,
            goal: None,
            met: None,
            figures: Vec::new(),
        }
    }

    #[must_use]
    pub fn goal(mut self, goal: Goal) -> Self {
        self.met = Some(goal.is_met(self.value.median));
        self.goal = Some(goal);
        self
    }

    #[must_use]
    pub fn with(mut self, figures: impl IntoIterator<Item = Figures>) -> Self {
        self.figures.extend(figures);
        self
    }
}

/// What was measured of one lane, absolutely.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    pub lane: String,
    /// Name (with its unit) and number.
    pub values: Vec<(&'static str, f64)>,
}

/// What design section 8 asks for; the median is held against it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

impl Goal {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(goal) => value >= goal,
            Self::AtMost(goal) => value <= goal,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtLeast(goal) => format!("≥ {goal}"),
            Self::AtMost(goal) => format!("≤ {goal}"),
        }
    }
}

impl Report {
    /// Of one run on this machine. `rounds`: how many, of what.
    #[must_use]
    pub fn new(rounds: String, is_quick: bool, sections: Vec<Section>) -> Self {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let mut setting = vec![
            ("cores", format!("{cores}, shared by all that runs")),
            ("rounds", rounds),
            (
                "values",
                "median (5th to 95th percentile) over the rounds".to_owned(),
            ),
        ];
        if is_quick {
            setting.push(("quick", "the numbers are good for nothing".to_owned()));
        }
        Self { setting, sections }
    }

    /// Prints it to standard output, and writes it as JSON where a file is named.
    ///
    /// # Errors
    /// The file can't be written, or nobody reads the output.
    pub fn publish(&self, json: Option<&Path>) -> anyhow::Result<()> {
        if let Some(path) = json {
            let text = serde_json::to_vec_pretty(self)?;
            fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        let mut out = std::io::stdout().lock();
        self.print(&mut out)?;
        Ok(out.flush()?)
    }

    /// # Errors
    /// `out` is closed.
    pub fn print(&self, out: &mut impl Write) -> std::io::Result<()> {
        for (name, value) in &self.setting {
            writeln!(out, "{name}: {value}")?;
        }
        for section in &self.sections {
            section.print(out)?;
        }
        let rows = self.sections.iter().flat_map(|section| &section.rows);
        let judged: Vec<bool> = rows.filter_map(|row| row.met).collect();
        let met = judged.iter().filter(|met| **met).count();
        writeln!(out, "\n{met} of {} goals met", judged.len())
    }
}

impl Section {
    fn print(&self, out: &mut impl Write) -> std::io::Result<()> {
        writeln!(out, "\n{}", self.title)?;
        let width = self.rows.iter().map(|row| row.case.chars().count()).max();
        let width = width.unwrap_or(0);
        for row in &self.rows {
            let Spread { median, p5, p95 } = row.value;
            let value = format!("{} {}", number(median), row.unit);
            let spread = format!("({} to {})", number(p5), number(p95));
            let goal = match (row.goal, row.met) {
                (Some(goal), Some(true)) => format!("{}, met", goal.text()),
                (Some(goal), _) => format!("{}, MISSED", goal.text()),
                (None, _) => String::new(),
            };
            writeln!(
                out,
                "  {:<width$}  {value:>10}  {spread:<18} {goal:<14}",
                row.case
            )?;
            for figures in &row.figures {
                let values: Vec<String> = figures
                    .values
                    .iter()
                    .map(|(name, value)| format!("{name} {}", number(*value)))
                    .collect();
                writeln!(out, "      {:<10} {}", figures.lane, values.join(" · "))?;
            }
        }
        for note in &self.notes {
            writeln!(out, "  ({note})")?;
        }
        Ok(())
    }
}

/// Three digits that count.
fn number(value: f64) -> String {
    let size = value.abs();
    if size >= 100.0 || value == 0.0 {
        format!("{value:.0}")
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(median: f64, goal: Goal) -> Row {
        let value = Spread {
            median,
            p5: median,
            p95: median,
        };
        Row::new("a case", "×", value).goal(goal)
    }

    #[test]
    fn the_median_is_held_against_the_goal() {
        assert_eq!(row(0.9, Goal::AtLeast(0.9)).met, Some(true));
        assert_eq!(row(0.89, Goal::AtLeast(0.9)).met, Some(false));
        assert_eq!(row(1.5, Goal::AtMost(1.5)).met, Some(true));
        assert_eq!(row(1.6, Goal::AtMost(1.5)).met, Some(false));
    }

    #[test]
    fn a_missed_goal_is_seen() {
        let mut section = Section::new("x", "X");
        section.rows = vec![row(0.5, Goal::AtLeast(0.9)), row(0.95, Goal::AtLeast(0.9))];
        let report = Report {
            setting: Vec::new(),
            sections: vec![section],
        };
        let mut text = Vec::new();
        report.print(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("≥ 0.9, MISSED"), "{text}");
        assert!(text.contains("≥ 0.9, met"), "{text}");
        assert!(text.contains("1 of 2 goals met"), "{text}");
    }
}
