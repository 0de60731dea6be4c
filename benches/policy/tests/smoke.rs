//! The benchmark runs and its numbers are numbers, in rounds too small to say anything about speed. What it
//! measures it checks itself: that component and native twin agree, that repeats fold, that the policy judges.

use std::process::Command;

use serde_json::Value;

#[test]
fn a_quick_run_measures_everything() {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("bench.json");
    let output = Command::new(env!("CARGO_BIN_EXE_device-api-policy-bench"))
        .arg("--quick")
        .arg("--json")
        .arg(&json)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let report: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    let sections = report["sections"].as_array().unwrap();
    let names: Vec<_> = sections.iter().map(|section| &section["name"]).collect();
    assert_eq!(names, ["calls", "record", "allocations", "storm", "seats"]);
    for section in sections {
        let rows = section["rows"].as_array().unwrap();
        let is_number = |row: &Value| row["value"]["median"].as_f64().is_some_and(f64::is_finite);
        assert!(!rows.is_empty() && rows.iter().all(is_number), "{section}");
    }
}

/// What a signal allocates it allocates in each round, in a quick run too; what a timer's thread does meanwhile
/// falls into one or the other.
#[test]
fn a_storm_costs_the_pipeline_no_memory() {
    let output = Command::new(env!("CARGO_BIN_EXE_policy-bench-allocations"))
        .arg("quick")
        .output()
        .unwrap();
    let cases: Value = serde_json::from_slice(&output.stdout).unwrap();
    let fewest = |case: &str| {
        let of_case = cases
            .as_array()
            .unwrap()
            .iter()
            .find(|of| of["case"] == case);
        let rounds = of_case.unwrap()["rounds"].as_array().unwrap();
        rounds
            .iter()
            .map(|round| round["allocations"].as_f64().unwrap())
            .fold(f64::INFINITY, f64::min)
    };
    assert_eq!(fewest("Repeat"), 0.0, "a repeat that folds is only counted");
    assert_eq!(
        fewest("SameReading"),
        0.0,
        "nor is anything made of a reading that is the same"
    );
    assert!(fewest("NothingSaid") > 0.0, "the counter counts");
}
