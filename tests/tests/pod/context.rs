//! The docker context, `.dockerignore`: it holds all that a build of the image's packages reads.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use device_api_tests::binary;
use device_api_tests::tools::{root, skip, works};

use crate::dockerfile::Dockerfile;

/// What gets in: nothing, but for what is named.
struct Context {
    allowed: Vec<String>,
    /// Names of folders that stay out, wherever they are.
    refused: Vec<String>,
}

impl Context {
    fn read() -> Result<Self> {
        let text = fs::read_to_string(root()?.join(".dockerignore"))?;
        let lines = text.lines().map(str::trim);
        let mut lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        ensure!(lines.next() == Some("*"), "first of all, nothing");
        let (mut allowed, mut refused) = (Vec::new(), Vec::new());
        for line in lines {
            let has_pattern = |name: &str| name.contains(['*', '?', '[', '!']);
            match (line.strip_prefix('!'), line.strip_prefix("**/")) {
                (Some(name), _) if !has_pattern(name) => allowed.push(name.to_owned()),
                (_, Some(name)) if !has_pattern(name) => refused.push(name.to_owned()),
                _ => bail!("this test does not know the pattern {line}"),
            }
        }
        Ok(Self { allowed, refused })
    }

    /// `path`: from the root of the checkout.
    fn has(&self, path: &Path) -> bool {
        let mut folders = path.iter().map(|name| name.to_string_lossy());
        let is_refused = folders.any(|name| self.refused.iter().any(|known| *known == name));
        !is_refused && self.allowed.iter().any(|allowed| path.starts_with(allowed))
    }
}

/// The files of a checkout; `None` where it is no checkout.
fn checked_out() -> Result<Option<Vec<PathBuf>>> {
    let mut git = Command::new("git");
    git.current_dir(root()?);
    git.args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]);
    let output = git.output()?;
    if !output.status.success() {
        return skip("no checkout of git");
    }
    let text = String::from_utf8(output.stdout)?;
    let paths = text.split('\0').filter(|path| !path.is_empty());
    let paths: BTreeSet<_> = paths.map(PathBuf::from).collect();
    // One that is removed and not yet committed is listed still.
    let there = |path: &PathBuf| root().is_ok_and(|root| root.join(path).is_file());
    Ok(Some(paths.into_iter().filter(there).collect()))
}

#[test]
fn the_context_is_a_workspace_that_the_lock_file_fits() -> Result<()> {
    let (context, Some(files)) = (Context::read()?, checked_out()?) else {
        return Ok(());
    };
    for allowed in &context.allowed {
        ensure!(
            root()?.join(allowed).exists(),
            ".dockerignore: no {allowed}"
        );
    }
    let copy = tempfile::tempdir()?;
    for path in files.iter().filter(|path| context.has(path)) {
        let to = copy.path().join(path);
        fs::create_dir_all(to.parent().context("no parent")?)?;
        fs::copy(root()?.join(path), to)?;
    }
    // Of this machine alone: a build has fetched no crate that is for another.
    let mut rustc = Command::new("rustc");
    let host = rustc.args(["--print", "host-tuple"]).output()?;
    let host = String::from_utf8(host.stdout)?;
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--format-version=1", "--locked", "--offline"]);
    cargo.args(["--filter-platform", host.trim()]);
    works(cargo.current_dir(copy.path())).map_err(anyhow::Error::msg)
}

/// What the last build of a program read of the checkout, by cargo's word: sources, what they include, and what build
/// scripts of its dependencies look at.
fn read_by(program: &str) -> Result<Vec<PathBuf>> {
    let built = binary(program)?;
    let listed = fs::read_to_string(built.with_extension("d"))?;
    let (_, paths) = listed.split_once(": ").context("no dependencies")?;
    // A blank in a path is escaped.
    let paths = paths.trim_end().replace("\\ ", "\0");
    let paths = paths.split(' ').map(|path| path.replace('\0', " "));
    Ok(paths
        .map(|path| without_detours(Path::new(&path)))
        .collect())
}

/// Without `..`, which `include_str!` is written with.
fn without_detours(path: &Path) -> PathBuf {
    let mut straight = PathBuf::new();
    for part in path.components() {
        if part == Component::ParentDir {
            straight.pop();
        } else {
            straight.push(part);
        }
    }
    straight
}

#[test]
fn the_context_has_all_that_a_build_reads() -> Result<()> {
    let (context, Some(files)) = (Context::read()?, checked_out()?) else {
        return Ok(());
    };
    let (root, dockerfile) = (root()?, Dockerfile::read()?);
    let mut known = 0;
    for program in dockerfile.packages() {
        for path in read_by(program)? {
            let Ok(path) = path.strip_prefix(&root) else {
                // Made by a build script, or of a crate from elsewhere.
                continue;
            };
            let below = files.iter().filter(|file| file.starts_with(path));
            let missing: Vec<_> = below.filter(|file| !context.has(file)).collect();
            ensure!(missing.is_empty(), "{program} is built from {missing:?}");
            known += 1;
        }
    }
    ensure!(
        known > 100,
        "{known} paths: was it built from another checkout? Run `cargo build -p device-api-server -p devicectl`"
    );
    Ok(())
}
