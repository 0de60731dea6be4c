//! The metrics that the daemon exports, from its one table of them, and those that a text names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context as _, Result, ensure};
use device_api_tests::tools::root;
use regex::Regex;

/// Of Prometheus itself, of cAdvisor, of kube-state-metrics; with what may be asked of them.
const OTHERS: [(&str, &str); 5] = [
    ("up", "whether Prometheus could scrape"),
    (
        "kube_daemonset_status_number_unavailable",
        "pods of a DaemonSet that are not ready, or not there",
    ),
    (
        "container_memory_working_set_bytes",
        "what counts against a container's limit",
    ),
    (
        "container_spec_memory_limit_bytes",
        "the limit, 0 where there is none",
    ),
    (
        "container_cpu_cfs_throttled_seconds_total",
        "how long a CPU limit held it up",
    ),
];

/// What Prometheus and the scrape add to every series.
const ADDED: [&str; 8] = [
    "job",
    "instance",
    "namespace",
    "pod",
    "node",
    "container",
    "le",
    "service",
];

/// Names and labels of the daemon's metrics; of a histogram, of the three that it is on the wire.
pub(crate) struct Exported(BTreeMap<String, BTreeSet<String>>);

impl Exported {
    pub(crate) fn read() -> Result<Self> {
        let text = fs::read_to_string(root()?.join("host/runtime/src/metrics/catalog.rs"))?;
        let row = Regex::new(
            r#"(?m)^    [A-Z_]+ (Counter|Gauge|Histogram\(\w+\)), "(\w+)", \[([^\]]*)\], ""#,
        )?;
        let word = Regex::new(r#""(\w+)""#)?;
        let mut exported = BTreeMap::new();
        for row in row.captures_iter(&text) {
            let (kind, name) = (&row[1], &row[2]);
            let labels = word.captures_iter(&row[3]).map(|label| label[1].to_owned());
            let labels: BTreeSet<_> = labels.collect();
            let ends: &[&str] = if kind.starts_with("Histogram") {
                &["_bucket", "_sum", "_count"]
            } else {
                &[""]
            };
            for end in ends {
                exported.insert(format!("{name}{end}"), labels.clone());
            }
        }
        let rows = text.matches("\", [").count();
        ensure!(
            rows > 60 && row.captures_iter(&text).count() == rows,
            "the table is written otherwise than read"
        );
        Ok(Self(exported))
    }

    /// Each metric that an expression names is exported, with the labels it is asked for.
    pub(crate) fn check(&self, expr: &str) -> Result<()> {
        for (metric, labels) in selected(expr)? {
            if OTHERS.iter().any(|(other, _)| *other == metric) {
                continue;
            }
            let known = self
                .0
                .get(&metric)
                .with_context(|| format!("{metric} is not exported: {expr}"))?;
            for label in labels {
                let is_known = known.contains(&label) || ADDED.contains(&label.as_str());
                ensure!(is_known, "{metric} has no label {label}: {expr}");
            }
        }
        Ok(())
    }
}

/// Metrics of an expression, and the labels that it selects them by. What is no metric in PromQL is followed by
/// a parenthesis, or a word of the language.
fn selected(expr: &str) -> Result<Vec<(String, Vec<String>)>> {
    const WORDS: [&str; 12] = [
        "and",
        "or",
        "unless",
        "by",
        "without",
        "on",
        "ignoring",
        "group_left",
        "group_right",
        "bool",
        "offset",
        "inf",
    ];
    let lists = Regex::new(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")?;
    let durations = Regex::new(r"\[[^\]]*\]")?;
    let bare = lists.replace_all(expr, " ");
    let bare = durations.replace_all(&bare, " ");
    let word = Regex::new(r#"\b([a-zA-Z_:][\w:]*)\s*(\{[^}]*\}|\()?"#)?;
    let label = Regex::new(r#"(\w+)\s*(=~|!~|!=|=)\s*""#)?;
    let mut found = Vec::new();
    for word in word.captures_iter(&bare) {
        let after = word.get(2).map_or("", |after| after.as_str());
        if after == "(" || WORDS.contains(&&word[1]) {
            continue;
        }
        let labels = label
            .captures_iter(after)
            .map(|label| label[1].to_owned())
            .collect();
        found.push((word[1].to_owned(), labels));
    }
    Ok(found)
}

#[test]
fn metrics_and_labels_are_found_in_expressions() -> Result<()> {
    let found = |expr: &str| -> Result<Vec<String>> {
        Ok(selected(expr)?
            .into_iter()
            .map(|(metric, labels)| format!("{metric}{labels:?}"))
            .collect())
    };
    let expr = r#"sum by (a, b) (rate(x_total{c="y z", d=~"e|f"}[5m])) / on (g) h > 0.5 and time() - i < 1e3"#;
    ensure!(
        found(expr)? == [r#"x_total["c", "d"]"#, "h[]", "i[]"],
        "{:?}",
        found(expr)?
    );
    let exported = Exported::read()?;
    exported.check("device_api_server_store_commit_seconds_bucket{le=\"1\"}")?;
    for wrong in [
        "device_api_server_store_commit_seconds",
        "rate(device_api_server_no_such_total[5m])",
        "device_api_server_up{colour=\"red\"}",
    ] {
        ensure!(exported.check(wrong).is_err(), "{wrong} is taken");
    }
    Ok(())
}
