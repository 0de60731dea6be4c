//! The source files of the checkout.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::workspace::Workspace;

/// A folder that says it is a cache (cachedir.tag) is generated, whatever it is called.
const CACHE_TAG: &str = "CACHEDIR.TAG";

/// Files below `dir` that are `wanted`, sorted. Hidden and generated folders are left out, as are
/// those that `enter` refuses. A `dir` that is not there has none.
///
/// # Errors
/// A folder can't be read.
pub(crate) fn files(
    dir: &Path,
    enter: &dyn Fn(&Path) -> bool,
    wanted: &dyn Fn(&Path) -> bool,
) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        if !folder.is_dir() {
            continue;
        }
        let entries =
            fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot read {}", folder.display()))?;
            let path = entry.path();
            let hidden = entry.file_name().to_string_lossy().starts_with('.');
            let kind = entry
                .file_type()
                .with_context(|| format!("cannot read {}", path.display()))?;
            if kind.is_dir() {
                if !hidden && !path.join(CACHE_TAG).exists() && enter(&path) {
                    folders.push(path);
                }
            } else if wanted(&path) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Whether `path` is a Rust source file by its name.
pub(crate) fn is_rust(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "rs")
}

/// Every Rust source file of the checkout, whether or not cargo knows it.
///
/// # Errors
/// A folder can't be read.
pub(crate) fn all_rust(workspace: &Workspace) -> Result<Vec<PathBuf>> {
    files(
        &workspace.root,
        &|dir| dir != workspace.target_dir,
        &is_rust,
    )
}

/// # Errors
/// The file can't be read as UTF-8.
pub(crate) fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
