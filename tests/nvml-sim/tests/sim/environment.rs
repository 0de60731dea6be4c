//! A configuration that can't be used: a code, one line that helps, and nothing half started.

use std::fs;
use std::os::unix::net::UnixListener;

use crate::process::{self, initialised, isolated, load, nvml};

const UNINITIALIZED: u32 = 1;
const UNKNOWN: u32 = 999;

#[test]
fn initialises_in_vain() {
    isolated(&[("NVML_SIM_GPUS", "0")], || {
        let lib = load();
        let mut count = 0;
        assert_eq!(nvml!(lib.nvmlInit_v2()), UNKNOWN);
        assert_eq!(nvml!(lib.nvmlDeviceGetCount_v2(&mut count)), UNINITIALIZED);
    });
}

#[test]
fn serves_the_socket_of_its_environment() {
    isolated(&[], || {
        let _lib = initialised();
        let path = std::env::var_os("NVML_SIM_SOCKET").unwrap();
        let mut client = nvml_sim::control::Client::connect(path).unwrap();
        assert_eq!(client.status().unwrap().gpus.len(), 8);
    });
}

fn refused(name: &str, value: &str, line: &str) {
    let stderr = process::run("environment::initialises_in_vain", &[(name, value)]);
    let lines: Vec<_> = stderr
        .lines()
        .filter(|line| line.starts_with("nvml-sim:"))
        .collect();
    assert_eq!(lines.len(), 1, "{stderr}");
    assert!(lines[0].contains(line), "{stderr}");
}

#[test]
fn a_bad_value_is_one_clear_line() {
    for count in ["0", "65", "-1", "eight"] {
        refused("NVML_SIM_GPUS", count, "use 1 to 64");
    }
    refused(
        "NVML_SIM_PROFILE",
        "rtx",
        "use one of a100, h100, h200, b200, gb200, v100",
    );
    refused(
        "NVML_SIM_SOCKET",
        "/nowhere/at/all.sock",
        "a short path in a folder you may write to",
    );
    refused("NVML_SIM_SOCKET", &"x".repeat(200), "give a short path");
}

#[test]
fn a_stale_socket_is_taken_over_a_live_one_and_a_file_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sim.sock");
    let socket = path.to_str().unwrap();
    let live = UnixListener::bind(&path).unwrap();
    refused("NVML_SIM_SOCKET", socket, "served by another process");
    drop(live);
    assert!(path.exists());
    process::run(
        "environment::serves_the_socket_of_its_environment",
        &[("NVML_SIM_SOCKET", socket)],
    );

    let file = folder.path().join("file");
    fs::write(&file, "precious").unwrap();
    refused(
        "NVML_SIM_SOCKET",
        file.to_str().unwrap(),
        "a file that is no socket",
    );
    assert_eq!(fs::read(&file).unwrap(), b"precious");
}
