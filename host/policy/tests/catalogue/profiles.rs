//! The other systems' profiles, against the files that say what those systems do.

use std::collections::BTreeMap;
use std::path::PathBuf;

use device_api_core::action::Action;
use device_api_core::verdict::Severity;
use device_api_core::xid::catalog;

use crate::asked::{DRIVER, alone, profile, xid};

/// The profiles, the vendor's first.
pub(crate) const NAMES: [&str; 5] = ["vendor", "device-plugin", "gke", "eks", "gpud"];

/// A file of data/xid-profiles, read by the test.
pub(crate) struct Listed {
    /// What its head lines say, by key.
    pub(crate) head: BTreeMap<String, String>,
    rows: BTreeMap<(String, String), Row>,
}

#[derive(Clone)]
pub(crate) struct Row {
    pub(crate) severity: Severity,
    /// Empty: that system says none.
    pub(crate) action: String,
    pub(crate) word: String,
}

pub(crate) fn data(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../data")).join(path)
}

impl Listed {
    pub(crate) fn read(name: &str) -> Self {
        let path = data(&format!("xid-profiles/{name}.csv"));
        let text = std::fs::read_to_string(&path).unwrap();
        let head = text
            .lines()
            .filter_map(|line| line.strip_prefix("# ")?.split_once(": "))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let mut reader = csv::ReaderBuilder::new()
            .comment(Some(b'#'))
            .from_path(&path)
            .unwrap();
        let mut rows = BTreeMap::new();
        for record in reader.records().map(Result::unwrap) {
            let severity = match &record[2] {
                "healthy" => Severity::Info,
                "degraded" => Severity::Warning,
                "unhealthy" => Severity::Fatal,
                other => panic!("{name}: {other}"),
            };
            let (action, word) = (record[3].to_owned(), record[4].to_owned());
            let row = Row {
                severity,
                action,
                word,
            };
            rows.insert((record[0].to_owned(), record[1].to_owned()), row);
        }
        Self { head, rows }
    }

    /// What that system does with a code; of a line that says Fatal where it looks at that.
    pub(crate) fn of(&self, code: u64, fatal_line: bool) -> &Row {
        let row = |code: &str, line: &str| self.rows.get(&(code.to_owned(), line.to_owned()));
        let code = code.to_string();
        let telling = fatal_line.then(|| row(&code, "fatal")).flatten();
        telling
            .or_else(|| row(&code, ""))
            .or_else(|| row("*", ""))
            .expect("a row for every code")
    }

    pub(crate) fn lists(&self, code: u64) -> bool {
        self.rows.contains_key(&(code.to_string(), String::new()))
    }
}

#[test]
fn n6_the_component_follows_each_profile_for_every_code() {
    let vendor = profile("vendor");
    let codes = || catalog().iter().map(|entry| entry.code).chain([9999]);
    let vendors: BTreeMap<u64, Action> = codes()
        .map(|code| (code, alone(&vendor, DRIVER, xid(code, "")).action))
        .collect();
    for name in &NAMES[1..] {
        let (policy, listed) = (profile(name), Listed::read(name));
        for code in codes() {
            let row = listed.of(code, false);
            let verdict = alone(&policy, DRIVER, xid(code, ""));
            let action = match (row.severity, row.action.as_str()) {
                (Severity::Info, _) => Action::None,
                (_, "") if vendors[&code] == Action::None => Action::ContactSupport,
                (_, "") => vendors[&code],
                (_, word) => Action::from_word(word).expect("a known action"),
            };
            assert_eq!(
                (verdict.severity, verdict.action),
                (row.severity, action),
                "{name} {code}: {}",
                verdict.message
            );
            assert_eq!(verdict.reason, "JudgedByProfile", "{name} {code}");
            assert!(verdict.message.contains(&row.word), "{}", verdict.message);
        }
    }
}

/// What was read of the same systems when the catalogue was made, by someone else.
#[test]
fn n6_the_profiles_agree_with_the_columns_of_the_catalogue() {
    let mut reader = csv::Reader::from_path(data("xid-catalog.csv")).unwrap();
    let headers = reader.headers().unwrap().clone();
    let column = |name: &str| headers.iter().position(|head| head == name).unwrap();
    let systems = ["device-plugin", "gke", "eks", "gpud"];
    let columns = systems.map(|name| column(&name.replace('-', "_")));
    let listed = systems.map(Listed::read);
    for record in reader.records().map(Result::unwrap) {
        let code: u64 = record[column("xid")].parse().unwrap();
        for ((name, at), listed) in systems.iter().zip(columns).zip(&listed) {
            let row = listed.of(code, false);
            let expected = match (*name, &record[at]) {
                ("device-plugin", "ignored") | ("gke" | "eks", "") => Severity::Info,
                ("device-plugin", "critical") | ("eks", "fatal") | ("gke", "unhealthy") => {
                    Severity::Fatal
                }
                ("gke", "condition") => Severity::Warning,
                ("gpud", "") => {
                    assert!(!listed.lists(code), "{code}");
                    Severity::Info
                }
                ("gpud", class) => {
                    assert!(row.word.starts_with(class), "{code}: {} {class}", row.word);
                    row.severity
                }
                other => panic!("{code}: {other:?}"),
            };
            assert_eq!(row.severity, expected, "{name} {code}");
        }
    }
}

#[test]
fn every_profile_says_where_it_is_from() {
    for name in &NAMES[1..] {
        let head = Listed::read(name).head;
        for key in ["system", "version", "source"] {
            assert!(head.contains_key(key), "{name}: no head line {key}");
        }
        let source = &head["source"];
        assert!(source.contains("github.com/"), "{name}: {source}");
        let commit = source.rsplit("commit ").next().unwrap();
        assert_eq!(commit.len(), 40, "{name}: {source}");
    }
}
