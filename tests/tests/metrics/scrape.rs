//! What a scrape says, and what docs/metrics.md says of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use device_api_tests::tools::root;
use device_api_tests::{Node, PATIENCE};

/// One series: its metric, its labels, its value.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) metric: String,
    /// As they are written, with what is escaped in them.
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

/// What was exported at one moment.
#[derive(Debug)]
pub(crate) struct Scrape {
    pub(crate) text: String,
    pub(crate) series: Vec<Series>,
    /// Of each metric its type.
    pub(crate) types: BTreeMap<String, String>,
}

impl Scrape {
    pub(crate) fn of(node: &Node) -> Result<Self> {
        let text = node.metrics()?;
        let (mut series, mut types) = (Vec::new(), BTreeMap::new());
        for line in text.lines() {
            if let Some(type_) = line.strip_prefix("# TYPE ") {
                let (name, type_) = type_.split_once(' ').context("no type")?;
                types.insert(name.to_owned(), type_.to_owned());
            } else if !line.starts_with('#') {
                series.push(parsed(line).with_context(|| line.to_owned())?);
            }
        }
        Ok(Self {
            text,
            series,
            types,
        })
    }

    /// The value of the one series of a metric that has these labels; `None`: there is none such.
    pub(crate) fn value(&self, metric: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let has = |series: &&Series| {
            series.metric == metric
                && labels
                    .iter()
                    .all(|(name, value)| series.labels.get(*name).is_some_and(|is| is == value))
        };
        self.series.iter().find(has).map(|series| series.value)
    }

    /// How many series each metric has; of a histogram, all that it is on the wire.
    pub(crate) fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for series in &self.series {
            *counts.entry(self.metric(&series.metric)).or_default() += 1;
        }
        counts
    }

    /// The metric that a series is of.
    fn metric(&self, series: &str) -> String {
        let ends = ["_bucket", "_sum", "_count"];
        let mut bases = ends.iter().filter_map(|end| series.strip_suffix(end));
        let is_histogram = |base: &&str| self.types.get(*base).is_some_and(|is| is == "histogram");
        bases.find(is_histogram).unwrap_or(series).to_owned()
    }

    /// How many there are of what the page counts by.
    fn population(&self, of: &str) -> Result<usize> {
        let (metric, label) = match of {
            "GPU" => ("device_api_server_gpu_health", "uuid"),
            "MIG instance" => ("device_api_server_mig_instance_health", "uuid"),
            "policy" => ("device_api_server_policy_phase", "policy"),
            other => anyhow::bail!("{other:?}: by what is it counted?"),
        };
        let series = self.series.iter().filter(|series| series.metric == metric);
        let named: BTreeSet<_> = series
            .filter_map(|series| series.labels.get(label))
            .collect();
        Ok(named.len())
    }

    /// No metric has more series than the page says, nor other labels.
    pub(crate) fn check(&self, page: &[Row]) -> Result<()> {
        let counts = self.counts();
        for row in page {
            let each = match &row.each {
                Some(of) => self.population(of)?,
                None => 1,
            };
            let count = counts.get(&row.name).copied().unwrap_or_default();
            ensure!(
                count <= row.most * each,
                "{}: {count} series, and the page says {} for each of {each}",
                row.name,
                row.most
            );
        }
        for series in &self.series {
            let name = self.metric(&series.metric);
            let row = page.iter().find(|row| row.name == name);
            let row = row.with_context(|| format!("{name} is not on the page"))?;
            let labels = series.labels.keys().filter(|label| *label != "le");
            let labels: BTreeSet<_> = labels.cloned().collect();
            ensure!(labels == row.labels, "{name}: {labels:?}");
        }
        Ok(())
    }
}

/// Pause between scrapes, which leaves the daemon the cores it shares with its test.
const POLL: Duration = Duration::from_millis(50);

/// Scrapes until it shows what it should.
pub(crate) fn until(
    node: &Node,
    what: &str,
    mut shows: impl FnMut(&Scrape) -> bool,
) -> Result<Scrape> {
    let start = Instant::now();
    loop {
        let scrape = Scrape::of(node)?;
        if shows(&scrape) {
            return Ok(scrape);
        }
        ensure!(start.elapsed() < PATIENCE, "not in time: {what}");
        std::thread::sleep(POLL);
    }
}

fn parsed(line: &str) -> Result<Series> {
    let (name, rest) = line.split_at(line.find(['{', ' ']).context("no value")?);
    let mut labels = BTreeMap::new();
    let mut rest = rest.strip_prefix('{').unwrap_or(rest);
    while let Some((label, quoted)) = rest
        .split_once("=\"")
        .filter(|_| !rest.starts_with([' ', '}']))
    {
        let mut is_escaped = false;
        let end = quoted.find(|c| {
            let ends = c == '"' && !is_escaped;
            is_escaped = c == '\\' && !is_escaped;
            ends
        });
        let (value, after) = quoted.split_at(end.context("an open quote")?);
        let label = label.trim_start_matches(',').to_owned();
        ensure!(
            labels.insert(label, value.to_owned()).is_none(),
            "a label twice"
        );
        rest = after.strip_prefix('"').context("no quote")?;
    }
    let value = rest.trim_start_matches('}').trim();
    Ok(Series {
        metric: name.to_owned(),
        labels,
        value: value.parse().context("no number")?,
    })
}

/// One metric, as docs/metrics.md has it.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) kind: String,
    labels: BTreeSet<String>,
    /// Series at most; for each of these, if `Some`.
    most: usize,
    each: Option<String>,
}

/// The page.
pub(crate) fn page() -> Result<Vec<Row>> {
    let text = fs::read_to_string(root()?.join("docs/metrics.md"))?;
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    let rows = rows.map(|line| row(line).with_context(|| line.to_owned()));
    let rows = rows.collect::<Result<Vec<_>>>()?;
    ensure!(rows.len() > 120, "{} rows: is this test blind?", rows.len());
    Ok(rows)
}

fn row(line: &str) -> Result<Row> {
    let cells: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
    let [name, kind, labels, _, most, _] = cells[..] else {
        anyhow::bail!("{} cells", cells.len());
    };
    let (most, each) = match most.split_once(" a ") {
        Some((most, each)) => (most, Some(each.to_owned())),
        None => (most, None),
    };
    // What stands in parentheses says what the label may be.
    let mut bare = String::new();
    let mut depth = 0;
    for c in labels.chars() {
        depth += i32::from(c == '(');
        if depth == 0 {
            bare.push(c);
        }
        depth -= i32::from(c == ')');
    }
    let labels = bare.split('`').skip(1).step_by(2).map(str::to_owned);
    Ok(Row {
        name: name.trim_matches('`').to_owned(),
        kind: kind.to_owned(),
        labels: labels.collect(),
        most: most.parse()?,
        each,
    })
}

#[test]
fn a_scrape_is_read_with_what_is_escaped_in_it() -> Result<()> {
    let series = parsed(r#"x_total{a="1",b="y\"} 7\n,c=\"z",d="\\"} 2.5"#)?;
    ensure!(
        series.metric == "x_total" && series.value == 2.5,
        "{series:?}"
    );
    let labels: Vec<_> = series.labels.iter().collect();
    let expected = [("a", "1"), ("b", r#"y\"} 7\n,c=\"z"#), ("d", r"\\")];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    ensure!(
        labels
            == expected
                .iter()
                .map(|(name, value)| (name, value))
                .collect::<Vec<_>>(),
        "{labels:?}"
    );
    ensure!(parsed("up 1")?.labels.is_empty(), "none");
    Ok(())
}
