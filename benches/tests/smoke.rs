//! The benchmark runs and its numbers are numbers: over the daemon of this build, in rounds too small to
//! say anything about speed.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The daemon, built into the folder of the benchmark.
fn daemon() -> PathBuf {
    let bench = Path::new(env!("CARGO_BIN_EXE_device-api-bench"));
    let daemon = bench.with_file_name("device-api-server");
    assert!(
        daemon.is_file(),
        "{} was not built: run `cargo build --workspace` or `cargo xtask test`",
        daemon.display()
    );
    daemon
}

#[test]
fn a_quick_run_measures_everything() {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("bench.json");
    let output = Command::new(env!("CARGO_BIN_EXE_device-api-bench"))
        .args(["api", "--quick", "--daemon"])
        .arg(daemon())
        .arg("--dir")
        .arg(dir.path())
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
    for name in [
        "reads", "watches", "beside", "writes", "faults", "memory", "start",
    ] {
        assert!(names.contains(&&Value::from(name)), "{name} in {names:?}");
    }
    let table = String::from_utf8(output.stdout).unwrap();
    for section in sections {
        let rows = section["rows"].as_array().unwrap();
        assert!(!rows.is_empty(), "{section}");
        for row in rows {
            let case = row["case"].as_str().unwrap();
            assert!(table.contains(case), "{case} in {table}");
            // A few pages of memory may well be none; time and ratios are never.
            let may_be_zero = row["unit"] == "KiB";
            let median = row["value"]["median"].as_f64().unwrap();
            assert!(median.is_finite() && (median > 0.0 || may_be_zero), "{row}");
        }
    }
}
