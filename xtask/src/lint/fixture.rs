//! Small workspaces on disk, for the tests of the checks.

use std::fs;

use tempfile::TempDir;

use crate::workspace::Workspace;

/// A temporary folder with `files` (path, text) in it.
pub(crate) fn folder(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    dir
}

/// The workspace in `dir`, as cargo tells of it.
pub(crate) fn workspace(dir: &TempDir) -> Workspace {
    Workspace::load_from(&dir.path().join("Cargo.toml")).unwrap()
}

/// A manifest of one crate with more lines after its `[package]`.
pub(crate) fn manifest(name: &str, rest: &str) -> String {
    format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n{rest}\n")
}
