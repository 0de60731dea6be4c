//! The 95 rows by which the vendor decodes XIDs 144 to 150, read here a second time, bit by bit.

use device_api_core::signal::Signal;
use device_api_core::verdict::Severity;

use crate::asked::{alone, profile, xid};
use crate::profiles::{Listed, NAMES, data};

/// Drivers of the two generations, and one that nobody told.
pub(crate) const DRIVERS: [(&str, Option<usize>); 3] =
    [("570.124.06", Some(0)), ("580.82.07", Some(1)), ("", None)];

/// One case of a row: the row itself, or its second action.
pub(crate) struct Case {
    pub(crate) code: u64,
    unit: String,
    /// By generation.
    pub(crate) patterns: [String; 2],
    pub(crate) statuses: Vec<u32>,
    action: String,
    /// Whether the driver's line says Fatal.
    fatal: bool,
}

pub(crate) fn cases() -> Vec<Case> {
    let mut reader = csv::Reader::from_path(data("xid-144-150-decode.csv")).unwrap();
    let mut cases = Vec::new();
    for record in reader.records().map(Result::unwrap) {
        let statuses = record[4].split('/').filter(|part| !part.is_empty());
        let hex = |part: &str| u32::from_str_radix(part.trim_start_matches("0x"), 16).unwrap();
        let statuses: Vec<u32> = statuses.map(hex).collect();
        for (patterns, action) in [([2, 3], 5), ([6, 7], 8)] {
            if record[action].is_empty() {
                continue;
            }
            cases.push(Case {
                code: record[0].parse().unwrap(),
                unit: record[1].to_owned(),
                patterns: patterns.map(|at| record[at].to_owned()),
                statuses: statuses.clone(),
                action: record[action].to_owned(),
                fatal: !record[10].starts_with("Non-fatal"),
            });
        }
    }
    assert_eq!(cases.len(), 98, "95 rows, three of which have two cases");
    cases
}

fn fits(pattern: &str, word: u32) -> bool {
    pattern.chars().rev().enumerate().all(|(bit, place)| {
        let set = word >> bit & 1 == 1;
        place == '-' || (place == '1') == set
    })
}

pub(crate) fn sample(pattern: &str) -> u32 {
    u32::from_str_radix(&pattern.replace('-', "0"), 2).unwrap()
}

impl Case {
    fn covers(&self, generation: Option<usize>, info: u32, status: u32) -> bool {
        let generations = generation.map_or(0..=1, |one| one..=one);
        let status_fits = self.statuses.is_empty()
            || self.statuses.iter().any(|want| match self.code {
                149 | 150 => *want == status,
                _ => want & status != 0,
            });
        status_fits
            && generations
                .into_iter()
                .any(|at| fits(&self.patterns[at], info))
    }

    pub(crate) fn line(&self, info: u32, status: u32) -> Signal {
        let word = if self.fatal { "Fatal" } else { "Nonfatal" };
        let unit = self.unit.split([' ', '/']).next().unwrap_or_default();
        let text = format!("{unit} {word} XC0 i0 Link 01 ({info:#010x} {status:#010x} 0x0)");
        xid(self.code, &text)
    }
}

/// Worst first wins, as in the guidance: a reset before all else.
fn severity(action: &str) -> Severity {
    match action {
        "RESET_GPU" => Severity::Fatal,
        "IGNORE" | "XID_154_EVAL" => Severity::Info,
        other => panic!("a bucket that nobody has read: {other}"),
    }
}

#[test]
fn n4_every_row_by_driver_generation_through_the_component_for_every_profile() {
    let cases = cases();
    let policies = NAMES.map(|name| (name, profile(name)));
    let listed = |name: &str| (name != "vendor").then(|| Listed::read(name));
    let listed = NAMES.map(listed);
    let mut asked = 0;
    for case in &cases {
        let statuses = if case.statuses.is_empty() {
            &[0][..]
        } else {
            &case.statuses
        };
        for (driver, generation) in DRIVERS {
            for status in statuses {
                let info = sample(&case.patterns[generation.unwrap_or(1)]);
                let worst = cases
                    .iter()
                    .filter(|other| {
                        other.code == case.code && other.covers(generation, info, *status)
                    })
                    .map(|other| severity(&other.action))
                    .max()
                    .expect("the row itself");
                for ((name, policy), listed) in policies.iter().zip(&listed) {
                    let verdict = alone(policy, driver, case.line(info, *status));
                    let expected = listed
                        .as_ref()
                        .map_or(worst, |listed| listed.of(case.code, case.fatal).severity);
                    assert_eq!(
                        verdict.severity, expected,
                        "{name}, driver {driver:?}, XID {} {} ({info:#x} {status:#x}): {}",
                        case.code, case.unit, verdict.message
                    );
                    asked += 1;
                }
            }
        }
    }
    assert!(asked >= 98 * 3 * 5, "{asked}");
}

/// By generation: how many of the cases end in each health, through the component.
pub(crate) fn tally(policy: &device_api_policy::LoadedPolicy) -> Vec<(&'static str, [usize; 3])> {
    let labels = ["before R575", "R575 and later", "not known"];
    let cases = cases();
    let count = |(at, label): (usize, &'static str)| {
        let (driver, generation) = DRIVERS[at];
        let mut tally = [0; 3];
        for case in &cases {
            let info = sample(&case.patterns[generation.unwrap_or(1)]);
            let status = case.statuses.first().copied().unwrap_or_default();
            let verdict = alone(policy, driver, case.line(info, status));
            tally[verdict.severity as usize] += 1;
        }
        (label, tally)
    };
    labels.into_iter().enumerate().map(count).collect()
}
