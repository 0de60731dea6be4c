//! `cargo xtask e2e`

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::workspace::Workspace;
use crate::{process, setup, skipped};

/// Tests the chart against a real API server of Kubernetes, with the real Helm.
///
/// Has Go build the API server, etcd and kubectl of tests/kubernetes into the target folder, which takes some minutes
/// once. Where there is no Go, or its modules can't be had, it says so and ends with 0; with
/// DEVICE_API_REQUIRE_TOOLCHAINS=1 that is a failure.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Passed on to the tests: names of those to run, or flags of the harness.
    ///
    /// Example: `cargo xtask e2e upgrade --nocapture`.
    #[arg(
        value_name = "TEST_ARGS",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub(crate) test_args: Vec<OsString>,
}

/// Where the tests look for what is built here.
const PROGRAMS: &str = "DEVICE_API_KUBERNETES";
/// The Go module, and what it is built from.
const MODULE: &str = "tests/kubernetes";
const SOURCES: [&str; 5] = [
    "go.mod",
    "go.sum",
    "etcd/main.go",
    "kube-apiserver/main.go",
    "kubectl/main.go",
];
/// Its programs, each in a folder of its name.
const NAMES: [&str; 3] = ["etcd", "kube-apiserver", "kubectl"];
/// What Go may take for each package that it compiles at a time: with two, the API server took 0.65 GB (Go 1.26, x86_64),
/// its link included.
const PACKAGE_BYTES: u64 = 512 << 20;

/// # Errors
/// Set-up, a build or a test fails. Of tests, cargo's closing lines say which, and its exit code is kept.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let programs = match programs(workspace, Path::new("go"))? {
        Programs::Built(folder) => folder,
        Programs::Missing(why) => return skipped::skip(&format!("e2e: {why}")),
    };
    setup::toolchain(workspace)?;
    setup::target(workspace, setup::WASI_TARGET)?;
    setup::build(workspace)?;

    // All packages, as in `test`: a part would be built anew, with other features of what it uses.
    let mut cargo = workspace.cargo();
    cargo
        .args(["test", "--workspace", "--all-features", "--test", "cluster"])
        .args(["--", "--ignored"])
        .args(&args.test_args)
        .env(PROGRAMS, programs);
    skipped::run(workspace, &mut cargo)
}

#[derive(Debug)]
enum Programs {
    /// In this folder, now or before, from what the module is now.
    Built(PathBuf),
    /// Why they can't be had here.
    Missing(String),
}

fn programs(workspace: &Workspace, go: &Path) -> Result<Programs> {
    let module = workspace.root.join(MODULE);
    let tools = workspace.target_dir.join("tools").join("kubernetes");
    fs::create_dir_all(&tools).with_context(|| format!("making {}", tools.display()))?;
    let lock = File::create(tools.join("lock")).context("making the lock of the tools")?;
    lock.lock().context("locking the tools")?;

    let wanted = stamp(&module)?;
    let built = tools.join("stamp");
    if fs::read(&built).is_ok_and(|stamp| stamp == wanted) {
        return Ok(Programs::Built(tools));
    }
    if let Err(why) = at_hand(go, &module) {
        return Ok(Programs::Missing(why));
    }
    // A build that is cut short leaves no stamp.
    if built.exists() {
        fs::remove_file(&built).context("removing the stamp of the tools")?;
    }
    let module_file = fs::read_to_string(module.join("go.mod")).context("reading go.mod")?;
    let flags = linker_flags(&module_file).context("tests/kubernetes/go.mod: no version")?;
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let at_a_time = compiled_at_a_time(&memory).to_string();
    // One after the other: what takes the most is to link one.
    for name in NAMES {
        process::run(
            workspace
                .at_root(go)
                .arg("-C")
                .arg(&module)
                .args(["build", "-p", &at_a_time, "-ldflags", &flags, "-o"])
                .arg(tools.join(name))
                .arg(format!("./{name}")),
        )?;
    }
    fs::write(&built, wanted).context("writing the stamp of the tools")?;
    Ok(Programs::Built(tools))
}

/// Whether there is a Go, with what the programs are built from: in its cache, or fetched now. A build that fails after
/// that is a failure, and no excuse.
fn at_hand(go: &Path, module: &Path) -> std::result::Result<(), String> {
    let go = |arguments: &[&str]| {
        let mut command = Command::new(go);
        command.arg("-C").arg(module).args(arguments);
        command
    };
    if !process::succeeds(&mut go(&["version"])) {
        return Err("there is no Go to build an API server with (go on the path)".to_owned());
    }
    // The first asks for what is imported alone. It fails for an error of our sources as well, and the second does not.
    if process::succeeds(&mut go(&["list", "-deps", "./..."])) {
        return Ok(());
    }
    let output = go(&["mod", "download"]).output();
    let output = output.map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let last = words.lines().rfind(|line| !line.trim().is_empty());
    Err(format!(
        "Go can't have the modules of {MODULE}: {}",
        last.unwrap_or("go mod download failed")
    ))
}

/// As many as there are cores, where there is memory for them; of `/proc/meminfo`, or of something else that says nothing.
fn compiled_at_a_time(memory: &str) -> u64 {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let mut lines = memory.lines();
    let available = lines.find_map(|line| line.strip_prefix("MemAvailable:"));
    let kibibytes = available.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    let fit = kibibytes.map_or(cores, |kibibytes| kibibytes * 1024 / PACKAGE_BYTES);
    fit.clamp(1, cores)
}

/// All that the programs are built from, itself: it is short, and a hash would want a crate.
fn stamp(module: &Path) -> Result<Vec<u8>> {
    let mut stamp = Vec::new();
    for source in SOURCES {
        let path = module.join(source);
        let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        stamp.extend(bytes);
    }
    Ok(stamp)
}

/// No debug information, and the version that a release is told by its own build: Helm asks for it.
fn linker_flags(module_file: &str) -> Option<String> {
    let version = module_file.lines().find_map(|line| {
        let (name, version) = line.trim().split_once(' ')?;
        (name == "k8s.io/kubernetes").then_some(version)
    })?;
    let (major, rest) = version.strip_prefix('v')?.split_once('.')?;
    let (minor, _) = rest.split_once('.')?;
    let facts = [
        ("gitVersion", version),
        ("gitMajor", major),
        ("gitMinor", minor),
    ];
    let set = facts.map(|(name, value)| format!("-X k8s.io/component-base/version.{name}={value}"));
    Some(format!("-s -w {}", set.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Go that says so of its modules, whatever else it can do.
    #[track_caller]
    fn check_go(script: &str, expected: std::result::Result<(), &str>) {
        let dir = tempfile::tempdir().unwrap();
        let go = dir.path().join("go");
        crate::process::write_program(&go, &format!("#!/bin/sh\n{script}\n"));
        let found = at_hand(&go, dir.path());
        assert_eq!(found.as_ref().map_err(String::as_str).copied(), expected);
    }

    #[test]
    fn a_go_without_its_modules_is_as_good_as_none() {
        check_go("exit 0", Ok(()));
        check_go("[ $3 != list ]", Ok(()));
        check_go(
            "[ $3 = version ] && exit\necho a >&2\necho 'module lookup disabled' >&2\nexit 1",
            Err("Go can't have the modules of tests/kubernetes: module lookup disabled"),
        );
        let none = "there is no Go to build an API server with (go on the path)";
        check_go("exit 1", Err(none));
        let absent = at_hand(Path::new("/no/such/go"), Path::new("/"));
        assert_eq!(absent, Err(none.to_owned()));
    }

    #[test]
    fn memory_bounds_what_go_compiles_at_a_time() {
        let available =
            |gibibytes: u64| format!("A: 1 kB\nMemAvailable:  {} kB\n", gibibytes << 20);
        assert_eq!(compiled_at_a_time(&available(0)), 1);
        let cores = compiled_at_a_time("");
        assert_eq!(compiled_at_a_time(&available(1 << 10)), cores);
        assert!(compiled_at_a_time(&available(1)) <= 2);
    }

    #[test]
    fn the_programs_know_their_version() {
        let flags = linker_flags("require (\n\tk8s.io/kubernetes v1.34.2\n)\n").unwrap();
        for part in ["gitVersion=v1.34.2", "gitMajor=1", "gitMinor=34"] {
            assert!(flags.contains(part), "{part:?} is not in {flags:?}");
        }
        assert_eq!(linker_flags("k8s.io/kubernetes-like v1.34.2"), None);
    }

    /// Whatever changes one of the programs makes another stamp; a source that the list lacks would not.
    #[test]
    fn every_source_is_in_the_stamp() {
        let module = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("..")
            .join(MODULE);
        let mut found = vec!["go.mod".to_owned(), "go.sum".to_owned()];
        for entry in fs::read_dir(&module).unwrap().flatten() {
            if entry.path().is_dir() {
                for file in fs::read_dir(entry.path()).unwrap().flatten() {
                    let folder = entry.file_name().into_string().unwrap();
                    found.push(format!("{folder}/{}", file.file_name().to_string_lossy()));
                }
            }
        }
        found.sort();
        let mut known = SOURCES.to_vec();
        known.sort_unstable();
        assert_eq!(found, known);
        for name in NAMES {
            assert!(known.contains(&&*format!("{name}/main.go")), "{name}");
        }
        let programs = known.iter().filter(|source| source.ends_with(".go"));
        assert_eq!(programs.count(), NAMES.len());
        assert!(!stamp(&module).unwrap().is_empty());
    }
}
