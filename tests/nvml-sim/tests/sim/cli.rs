//! The command: what it prints and how it exits.

use std::process::{Command, Output};

use crate::process::{folder, initialised, isolated};

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(env!("CARGO_BIN_EXE_nvml-sim"))
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn commands_reach_the_node() {
    isolated(&[], || {
        let _lib = initialised();
        let (code, out, err) = run(&["lost", "--gpu", "3"]);
        assert_eq!((code, err.as_str()), (Some(0), ""));
        assert!(out.starts_with("GPU 3 is lost"), "{out}");
        let (_, status, _) = run(&["status", "--json"]);
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        assert_eq!(status["status"]["gpus"][3]["lost"], true);
        for arguments in [
            &["xid", "--gpu", "5", "79", "94", "--only", "nvml"][..],
            &["found", "--gpu", "3"],
            &["ecc", "--gpu", "1", "--kind", "uncorrected", "--count", "2"],
            &[
                "row-remap",
                "--gpu",
                "1",
                "--uncorrectable",
                "1",
                "--pending",
            ],
            &["temperature", "--gpu", "0", "95"],
            &["throttle", "--gpu", "0", "hw-slowdown"],
            &["recovery-action", "--gpu", "0", "1"],
            &["slow", "nvmlDeviceGetName", "--ms", "1"],
            &["hang", "nvmlDeviceGetName", "--gpu", "0"],
            &["unhang"],
            &["fail", "nvmlDeviceGetName", "--code", "999", "--times", "3"],
            &["set", "--gpu", "2", "utilization.gpu=90,nvlink.3.up=0"],
            &["throttle", "--gpu", "0", "hw-slowdown,sw-power-cap"],
            &["throttle", "--gpu", "0", "0x40"],
            &["mig-mode", "--gpu", "7", "true"],
            &["mig-create", "--gpu", "7", "3g.40gb", "1g.10gb"],
            &["mig-xid", "--gpu", "7", "--gpu-instance", "7", "43"],
            &["mig-destroy", "--gpu", "7", "--gpu-instance", "7"],
            &["replace", "--gpu", "6"],
            &["gpu-reset", "--gpu", "7"],
            &["driver", "--library", "580.95.05"],
            &["advance", "10"],
            &["unfail"],
            &["unload"],
            &["load"],
            &["reset"],
        ] {
            let (code, out, err) = run(arguments);
            assert_eq!(
                (code, err.as_str(), out.lines().count()),
                (Some(0), "", 1),
                "{arguments:?}"
            );
        }
    });
}

#[test]
fn a_scenario_is_played_and_its_end_told() {
    isolated(&[], || {
        let _lib = initialised();
        let scenario = folder().join("heat.yaml");
        let text =
            "profile: h100\ngpus: 1\nsteps:\n  - do: [{temperature: {gpu: 0, celsius: 88}}]\n";
        std::fs::write(&scenario, text).unwrap();
        let scenario = scenario.to_str().unwrap();
        assert_eq!(run(&["check", scenario]).1, "heat: 1 steps\n");
        let (code, out, err) = run(&["play", scenario, "--speed", "100"]);
        assert_eq!(
            (code, err.as_str(), out.as_str()),
            (Some(0), "", "played heat: 1 steps\n")
        );
        let status = crate::process::client().status().unwrap();
        assert_eq!(status.gpus[0].temperature_c, 88);
        std::fs::write(scenario, text.replace("celsius", "kelvin")).unwrap();
        let (code, _, err) = run(&["play", scenario]);
        assert_eq!((code, err.lines().count()), (Some(1), 1), "{err}");
        assert!(
            err.contains("heat.yaml:4: do: temperature: unknown field `kelvin`"),
            "{err}"
        );
        let (code, _, err) = run(&["play", scenario, "--speed", "-1"]);
        assert_eq!(code, Some(2), "{err}");
    });
}

#[test]
fn what_needs_no_simulation_works_without() {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("libnvidia-ml.so.1");
    let copy = copy.to_str().unwrap();
    let (code, out, err) = run(&["old-library", copy, "--driver", "535"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(
        out.contains("without nvmlDeviceGetGpuFabricInfoV, "),
        "{out}"
    );
    assert!(std::fs::metadata(copy).unwrap().len() > 0);
    assert_eq!(run(&["old-library", copy]).0, Some(2));
    let (_, profiles, _) = run(&["profiles"]);
    assert_eq!(profiles.lines().count(), 6);
    assert!(
        profiles.contains("NVIDIA B200, 183359 MiB, 18 NVLinks, MIG: 1g.23gb"),
        "{profiles}"
    );
    assert!(run(&["figures"]).1.contains("nvlink.N.crc-flit\n"));
}

#[test]
fn mistakes_are_one_line_and_a_code() {
    isolated(&[], || {
        let nobody = folder().join("nobody.sock");
        let (code, _, err) = run(&["--socket", nobody.to_str().unwrap(), "status"]);
        assert_eq!((code, err.lines().count()), (Some(1), 1), "{err}");
        assert!(
            err.contains("start a daemon") && err.contains("NVML_SIM_SOCKET"),
            "{err}"
        );
        let _lib = initialised();
        let (code, _, err) = run(&["lost", "--gpu", "8"]);
        assert_eq!(
            (code, err.as_str()),
            (Some(1), "nvml-sim: no GPU 8: this node has 0 to 7\n")
        );
        assert_eq!(run(&["explode"]).0, Some(2));
        assert_eq!(run(&["xid", "--gpu", "0"]).0, Some(2));
    });
}
