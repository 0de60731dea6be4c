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
            &["ecc", "--gpu", "1", "--uncorrected", "--count", "2"],
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
            &["fail", "nvmlDeviceGetName", "--code", "999"],
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
