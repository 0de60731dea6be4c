//! Source files that nothing compiles: no `mod`, `include!` or target leads to them.
//!
//! A test file that no `mod` names is never run and never fails, so it looks like a test that passes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::lint::modules::{self, Source};
use crate::lint::sources;
use crate::workspace::{Package, Workspace};

/// Folders of a crate whose files must be reached.
const FOLDERS: [&str; 4] = ["src", "tests", "benches", "examples"];

/// Findings, one a file.
///
/// # Errors
/// A file can't be read, or cargo can't read a manifest outside the workspace.
pub(crate) fn check(workspace: &Workspace) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for package in &workspace.packages {
        findings.extend(dead_in(workspace, package)?);
    }
    for manifest in manifests(workspace)? {
        let members = || {
            workspace
                .packages
                .iter()
                .map(|package| package.manifest_path.as_path())
        };
        if members().all(|member| member != manifest)
            && manifest != workspace.root.join("Cargo.toml")
        {
            // A crate of its own (a guest that must not be built for the host): same rule.
            for package in &Workspace::load_from(&manifest)?.packages {
                findings.extend(dead_in(workspace, package)?);
            }
        }
    }
    findings.sort();
    findings.dedup();
    Ok(findings)
}

fn manifests(workspace: &Workspace) -> Result<Vec<PathBuf>> {
    let is_manifest = |path: &Path| path.file_name().is_some_and(|name| name == "Cargo.toml");
    sources::files(
        &workspace.root,
        &|dir| dir != workspace.target_dir,
        &is_manifest,
    )
}

fn dead_in(workspace: &Workspace, package: &Package) -> Result<Vec<String>> {
    let reached = reached(package)?;
    let own = |dir: &Path| !dir.join("Cargo.toml").exists();
    let mut findings = Vec::new();
    for folder in FOLDERS {
        for path in sources::files(&package.dir().join(folder), &own, &sources::is_rust)? {
            if path
                .canonicalize()
                .is_ok_and(|path| !reached.contains(&path))
            {
                findings.push(format!(
                    "{}: nothing compiles this file: name it in a `mod` of {} or remove it",
                    workspace.relative(&path).display(),
                    package.name
                ));
            }
        }
    }
    Ok(findings)
}

/// Every file that a target of `package` leads to.
fn reached(package: &Package) -> Result<BTreeSet<PathBuf>> {
    // A file may be reached as a root and as a module, which look for names in different folders.
    let mut walked = BTreeSet::new();
    let mut pending: Vec<Source> = package
        .targets
        .iter()
        .map(|target| Source::root(target.src_path.clone()))
        .collect();
    while let Some(source) = pending.pop() {
        // One that isn't there is under a `cfg` that is off, or rustc says so.
        let Ok(path) = source.path.canonicalize() else {
            continue;
        };
        let source = Source { path, ..source };
        if sources::is_rust(&source.path) && !walked.contains(&source) {
            pending.extend(modules::references(&source, &sources::read(&source.path)?));
        }
        walked.insert(source);
    }
    Ok(walked.into_iter().map(|source| source.path).collect())
}

#[cfg(test)]
mod tests {
    use crate::lint::fixture;

    /// A crate with a `src/lib.rs`, these `files`, and a second crate within one of its folders.
    #[track_caller]
    fn check(lib: &str, files: &[(&str, &str)], expected: &[&str]) {
        let workspace = "[workspace]\nmembers = [\"tests/inner\"]\nexclude = [\"guest\"]";
        let manifest = fixture::manifest("a", workspace);
        let inner = fixture::manifest("inner", "");
        let mut all = vec![
            ("Cargo.toml", manifest.as_str()),
            ("src/lib.rs", lib),
            ("tests/inner/Cargo.toml", inner.as_str()),
            ("tests/inner/src/lib.rs", ""),
        ];
        all.extend(files);
        let dir = fixture::folder(&all);
        let findings = super::check(&fixture::workspace(&dir)).unwrap();
        let found: Vec<&str> = findings
            .iter()
            .filter_map(|finding| Some(finding.split_once(": ")?.0))
            .collect();
        assert_eq!(found, expected, "{findings:?}");
    }

    #[test]
    fn a_file_that_no_mod_names_is_dead() {
        check("", &[("src/b.rs", "")], &["src/b.rs"]);
        check(
            "// mod b;\nconst A: &str = \"mod b;\";",
            &[("src/b.rs", "")],
            &["src/b.rs"],
        );
        check("#[cfg(test)]\nmod b;", &[("src/b.rs", "")], &[]);
        check(
            "mod b;",
            &[("src/b/mod.rs", "pub(crate) mod c;"), ("src/b/c.rs", "")],
            &[],
        );
        // Named by the dead only.
        check(
            "",
            &[("src/b.rs", "mod c;"), ("src/b/c.rs", "")],
            &["src/b.rs", "src/b/c.rs"],
        );
        // Named from the wrong place.
        check(
            "mod b;",
            &[("src/b.rs", "mod c;"), ("src/c.rs", "")],
            &["src/c.rs"],
        );
    }

    #[test]
    fn targets_are_roots() {
        let files = [
            ("src/main.rs", "mod b;"),
            ("src/b.rs", ""),
            ("src/bin/x.rs", ""),
            ("build.rs", ""),
        ];
        check("", &files, &[]);
        check(
            "",
            &[("tests/t.rs", "mod common;"), ("tests/common/mod.rs", "")],
            &[],
        );
        check("", &[("tests/common/mod.rs", "")], &["tests/common/mod.rs"]);
        check("", &[("benches/group/b.rs", "")], &["benches/group/b.rs"]);
    }

    #[test]
    fn build_scripts_reach_too() {
        check(
            "",
            &[
                ("build.rs", "#[path = \"src/table.rs\"] mod table;"),
                ("src/table.rs", ""),
            ],
            &[],
        );
    }

    #[test]
    fn a_crate_in_a_crate_is_its_own() {
        check(
            "",
            &[("tests/inner/src/x.rs", "")],
            &["tests/inner/src/x.rs"],
        );
        check(
            "",
            &[
                ("tests/inner/src/lib.rs", "mod x;"),
                ("tests/inner/src/x.rs", ""),
            ],
            &[],
        );
        let guest = fixture::manifest("guest", "");
        let files = [
            ("guest/Cargo.toml", guest.as_str()),
            ("guest/src/lib.rs", ""),
            ("guest/src/x.rs", ""),
        ];
        check("", &files, &["guest/src/x.rs"]);
    }

    #[test]
    fn the_message_names_file_and_crate() {
        let dir = fixture::folder(&[
            ("Cargo.toml", &fixture::manifest("a", "")),
            ("src/lib.rs", ""),
            ("src/b.rs", ""),
        ]);
        let findings = super::check(&fixture::workspace(&dir)).unwrap();
        let [finding] = findings.as_slice() else {
            panic!("{findings:?}")
        };
        assert!(
            finding.starts_with("src/b.rs: nothing compiles this file"),
            "{finding}"
        );
        assert!(finding.contains("`mod` of a"), "{finding}");
    }
}
