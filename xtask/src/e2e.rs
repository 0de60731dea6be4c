//! `cargo xtask e2e`

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::workspace::Workspace;
use crate::{process, setup};

/// Tests the chart against a real API server of Kubernetes, with the real Helm.
///
/// Has Go build the API server, etcd and kubectl of tests/kubernetes into the target folder, which takes some minutes
/// once. Where there is no Go it says so and ends with 0; with DEVICE_API_REQUIRE_TOOLCHAINS=1 that is a failure.
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

/// As tests/src/tools.rs has it: 1 where every program is there.
const REQUIRE: &str = "DEVICE_API_REQUIRE_TOOLCHAINS";
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

/// # Errors
/// Set-up or a build fails. Otherwise cargo takes our place: its closing lines are the last.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    if !process::succeeds(Command::new("go").arg("version")) {
        return without_go(std::env::var(REQUIRE).ok().as_deref());
    }
    setup::toolchain(workspace)?;
    setup::target(workspace, setup::WASI_TARGET)?;
    setup::build(workspace)?;
    let programs = programs(workspace)?;

    // All packages, as in `test`: a part would be built anew, with other features of what it uses.
    let mut cargo = workspace.cargo();
    cargo
        .args(["test", "--workspace", "--all-features", "--test", "cluster"])
        .args(["--", "--ignored"])
        .args(&args.test_args)
        .env(PROGRAMS, programs);
    process::become_it(&mut cargo)
}

fn without_go(require: Option<&str>) -> Result<()> {
    let why = "there is no Go to build an API server with (go on the path)";
    if require == Some("1") {
        bail!("{REQUIRE}=1, and {why}");
    }
    eprintln!("SKIPPED: e2e: {why}");
    Ok(())
}

/// The folder of the programs, built now or before from what the module is now.
fn programs(workspace: &Workspace) -> Result<PathBuf> {
    let module = workspace.root.join(MODULE);
    let tools = workspace.target_dir.join("tools").join("kubernetes");
    fs::create_dir_all(&tools).with_context(|| format!("making {}", tools.display()))?;
    let lock = File::create(tools.join("lock")).context("making the lock of the tools")?;
    lock.lock().context("locking the tools")?;

    let wanted = stamp(&module)?;
    let built = tools.join("stamp");
    if fs::read(&built).is_ok_and(|stamp| stamp == wanted) {
        return Ok(tools);
    }
    // A build that is cut short leaves no stamp.
    if built.exists() {
        fs::remove_file(&built).context("removing the stamp of the tools")?;
    }
    let module_file = fs::read_to_string(module.join("go.mod")).context("reading go.mod")?;
    let flags = linker_flags(&module_file).context("tests/kubernetes/go.mod: no version")?;
    process::run(
        workspace
            .at_root("go")
            .arg("-C")
            .arg(&module)
            .args(["build", "-ldflags", &flags, "-o"])
            .arg(&tools)
            .arg("./..."),
    )?;
    fs::write(&built, wanted).context("writing the stamp of the tools")?;
    Ok(tools)
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

    #[test]
    fn a_missing_go_is_said_and_forgiven_unless_it_is_required() {
        assert!(without_go(None).is_ok());
        assert!(without_go(Some("0")).is_ok());
        let error = without_go(Some("1")).unwrap_err().to_string();
        assert!(
            error.contains(REQUIRE) && error.contains("no Go"),
            "{error}"
        );
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
        assert!(!stamp(&module).unwrap().is_empty());
    }
}
