//! Components of WASI toolchains: Rust's `wasm32-wasip2`, componentize-py, componentize-js.
//!
//! Each is built in a folder below `workshop`, locked, as tests may be processes of their own, and is
//! built again only when its sources have changed.

use std::env;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

const TARGET: &str = "wasm32-wasip2";

/// Set to 1 where every toolchain is there, so that a skipped guest is a failure.
const REQUIRE: &str = "DEVICE_API_REQUIRE_TOOLCHAINS";
/// A file for what was skipped, as tests/src/tools.rs has it.
const SKIPPED: &str = "DEVICE_API_SKIPPED";

/// The contract's world.
const WORLD: &str = "health-policy";

/// A guest crate of the workspace, for the target whose compiler makes components by itself.
///
/// # Errors
/// The target is missing (says how to add it), or the guest does not build.
pub fn rust(workshop: &Path, package: &str) -> Result<PathBuf> {
    let (folder, _lock) = bench(workshop, "rust")?;
    // cargo knows what is up to date.
    crate::build(&root()?, &folder, TARGET, &[package])?;
    let file = format!("{}.wasm", package.replace('-', "_"));
    Ok(folder.join(TARGET).join("guest").join(file))
}

/// A folder from the workspace's root, with `policy.py` and `requirements.txt`; `None` where there is no
/// Python 3, or its packages can't be had.
///
/// # Errors
/// It does not build, or skipping is not allowed.
pub fn python(workshop: &Path, folder: &str) -> Result<Option<PathBuf>> {
    let sources = root()?.join(folder);
    let (bench, _lock) = bench(workshop, "python")?;
    let (venv, out) = (bench.join("venv"), bench.join("policy.wasm"));
    let tool = venv.join("bin/componentize-py");
    let requirements = sources.join("requirements.txt");
    let install = || {
        works(
            Command::new("python3")
                .args(["-m", "venv", "--clear"])
                .arg(&venv),
        )?;
        works(
            Command::new(venv.join("bin/python"))
                .args(["-m", "pip", "install", "--quiet", "--requirement"])
                .arg(&requirements),
        )
    };
    let packages = contents(std::slice::from_ref(&requirements))?;
    if let Err(why) = once(&bench.join("installed"), &packages, install)? {
        return skip(&format!("no Python guest: {why}"));
    }
    // The interpreter at work within leaves its cache beside what it compiles.
    let folder = bench.join("source");
    fs::create_dir_all(&folder)?;
    let policy = folder.join("policy.py");
    fs::copy(sources.join("policy.py"), &policy).context("cannot copy policy.py")?;
    let wit = wit()?;
    let inputs = contents(&[requirements, policy, wit.clone()])?;
    let build = || {
        works(
            Command::new(&tool)
                .arg("--wit-path")
                .arg(&wit)
                .args(["--world", WORLD, "componentize", "policy", "--python-path"])
                .arg(&folder)
                .arg("--output")
                .arg(&out)
                // It unpacks a Python library there, and a folder for temporary files is often small.
                .env("TMPDIR", &bench),
        )
    };
    once(&bench.join("built"), &inputs, build)?.map_err(anyhow::Error::msg)?;
    Ok(Some(out))
}

/// A folder from the workspace's root, with `policy.js`, `build.mjs` and an npm package with a lock file;
/// `None` where there is no Node.js, or its packages can't be had.
///
/// # Errors
/// It does not build, or skipping is not allowed.
pub fn javascript(workshop: &Path, folder: &str) -> Result<Option<PathBuf>> {
    let sources = root()?.join(folder);
    let (bench, _lock) = bench(workshop, "javascript")?;
    let out = bench.join("policy.wasm");
    let packages = ["package.json", "package-lock.json"];
    let programs = ["policy.js", "build.mjs"];
    let paths =
        |names: &[&str]| -> Vec<PathBuf> { names.iter().map(|name| sources.join(name)).collect() };
    for name in packages.iter().chain(&programs) {
        fs::copy(sources.join(name), bench.join(name))
            .with_context(|| format!("cannot copy {name}"))?;
    }
    let install = || {
        works(Command::new("node").arg("--version"))?;
        // Not `ci`, which refuses a lock file that was made where a package for another system was not
        // to be had.
        works(Command::new("npm").current_dir(&bench).args([
            "install",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            "--loglevel=error",
        ]))
    };
    if let Err(why) = once(
        &bench.join("installed"),
        &contents(&paths(&packages))?,
        install,
    )? {
        return skip(&format!("no JavaScript guest: {why}"));
    }
    let wit = wit()?;
    let mut inputs = paths(&packages);
    inputs.extend(paths(&programs));
    inputs.push(wit.clone());
    let build = || {
        works(
            Command::new("node")
                .arg(bench.join("build.mjs"))
                .arg(&wit)
                .arg(&out),
        )
    };
    once(&bench.join("built"), &contents(&inputs)?, build)?.map_err(anyhow::Error::msg)?;
    Ok(Some(out))
}

fn root() -> Result<PathBuf> {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .context("the workspace root is not there")
}

fn wit() -> Result<PathBuf> {
    Ok(root()?.join("wit"))
}

fn bench(workshop: &Path, name: &str) -> Result<(PathBuf, File)> {
    let folder = workshop.join(name);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let lock = File::create(folder.join("lock"))?;
    lock.lock()?;
    Ok((folder, lock))
}

/// Does it, unless it was done with the same inputs. The stamp is written last, so that work that was
/// cut short is done again.
fn once(
    stamp: &Path,
    inputs: &[u8],
    work: impl FnOnce() -> std::result::Result<(), String>,
) -> Result<std::result::Result<(), String>> {
    if fs::read(stamp).is_ok_and(|done| done == inputs) {
        return Ok(Ok(()));
    }
    if let Err(why) = work() {
        return Ok(Err(why));
    }
    fs::write(stamp, inputs).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(Ok(()))
}

/// Of files, and of the files in folders, in the order of their names.
fn contents(paths: &[PathBuf]) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    for path in paths {
        let mut files = vec![path.clone()];
        if path.is_dir() {
            let entries = fs::read_dir(path)?.collect::<std::io::Result<Vec<_>>>()?;
            files = entries.iter().map(fs::DirEntry::path).collect();
            files.sort();
        }
        for file in files {
            all.extend(fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?);
        }
    }
    Ok(all)
}

/// Whether it works; else its own words.
fn works(command: &mut Command) -> std::result::Result<(), String> {
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!(
            "{command:?}: {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )),
        Err(error) => Err(format!("{command:?}: {error}")),
    }
}

/// # Errors
/// Skipping is not allowed.
fn skip<T>(why: &str) -> Result<Option<T>> {
    ensure!(
        env::var(REQUIRE).as_deref() != Ok("1"),
        "{REQUIRE}=1, and {why}"
    );
    let why = why.lines().collect::<Vec<_>>().join(" ");
    let Some(file) = env::var_os(SKIPPED).filter(|file| !file.is_empty()) else {
        // Not `eprintln`, which a test that passes keeps to itself.
        let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
        return Ok(None);
    };
    let mut told = File::options().append(true).create(true).open(file)?;
    told.write_all(format!("{why}\n").as_bytes())?;
    Ok(None)
}
