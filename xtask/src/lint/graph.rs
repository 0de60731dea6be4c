//! Who uses whom, against the table in `edges.rs`.

use std::collections::BTreeSet;

use crate::edges::{CRATES, Crate, ONLY_HERE, OnlyHere, Others};
use crate::workspace::{Dependency, Package, Workspace};

/// What every message ends with.
const WHERE: &str = "xtask/src/edges.rs";

/// Findings, one a line.
pub(crate) fn check(workspace: &Workspace) -> Vec<String> {
    check_against(workspace, CRATES, ONLY_HERE)
}

fn check_against(workspace: &Workspace, crates: &[Crate], only_here: &[OnlyHere]) -> Vec<String> {
    let ours: BTreeSet<&str> = workspace
        .packages
        .iter()
        .map(|package| package.name.as_str())
        .collect();
    let mut findings = Vec::new();
    for package in &workspace.packages {
        let manifest = workspace.relative(&package.manifest_path).display();
        let Some(row) = crates.iter().find(|row| row.name == package.name) else {
            findings.push(format!(
                "{manifest}: the crate {} has no row: add one to CRATES in {WHERE}, with what it may use and why",
                package.name
            ));
            continue;
        };
        for dependency in &package.dependencies {
            let finding = if ours.contains(dependency.name.as_str()) {
                of_ours(row, dependency)
            } else {
                of_others(row, dependency).or_else(|| out_of_place(package, dependency, only_here))
            };
            findings.extend(finding.map(|finding| format!("{manifest}: {finding}")));
        }
    }
    for row in crates.iter().filter(|row| !ours.contains(row.name)) {
        findings.push(format!(
            "{WHERE}: CRATES has a row for {}, which is not in the workspace: remove it",
            row.name
        ));
    }
    findings
}

fn of_ours(row: &Crate, dependency: &Dependency) -> Option<String> {
    let name = dependency.name.as_str();
    let in_tests = dependency.kind.as_deref() == Some("dev");
    if row.may_use.contains(&name) || (in_tests && row.tests_may_use.contains(&name)) {
        return None;
    }
    let allowed = match row.may_use {
        [] => "no crate of ours".to_owned(),
        names => names.join(", "),
    };
    let field = if in_tests { "tests_may_use" } else { "may_use" };
    Some(format!(
        "{} must not use {name}: {}. It may use {allowed}. If the edge is right, add it to {field} in {WHERE}",
        row.name, row.why
    ))
}

fn of_others(row: &Crate, dependency: &Dependency) -> Option<String> {
    let in_code = dependency.kind.is_none();
    (row.others == Others::Forbidden && in_code).then(|| {
        format!(
            "{} must not use {}: {} ({WHERE})",
            row.name, dependency.name, row.why
        )
    })
}

fn out_of_place(
    package: &Package,
    dependency: &Dependency,
    only_here: &[OnlyHere],
) -> Option<String> {
    let rule = only_here
        .iter()
        .find(|rule| belongs_to(&dependency.name, rule.package))?;
    if rule.crates.contains(&package.name.as_str()) {
        return None;
    }
    Some(format!(
        "{} must not use {}, whose place is {}: {}. If that has changed, edit ONLY_HERE in {WHERE}",
        package.name,
        dependency.name,
        rule.crates.join(", "),
        rule.why
    ))
}

/// `tonic` and `tonic-health` belong to `tonic`; `tonicity` does not.
fn belongs_to(name: &str, family: &str) -> bool {
    name.strip_prefix(family)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lint::fixture;

    const A: Crate = Crate {
        name: "a",
        may_use: &[],
        tests_may_use: &[],
        others: Others::Allowed,
        why: "a is alone",
    };
    const B: Crate = Crate { name: "b", ..A };
    const TONIC: OnlyHere = OnlyHere {
        package: "tonic",
        crates: &["b"],
        why: "one protocol",
    };

    /// A workspace of `a`, with these dependency tables, and an empty `b`.
    fn findings(tables: &str, crates: &[Crate], only_here: &[OnlyHere]) -> Vec<String> {
        let dir = fixture::folder(&[
            (
                "Cargo.toml",
                "[workspace]\nresolver = \"3\"\nmembers = [\"a\", \"b\"]\n",
            ),
            ("a/Cargo.toml", &fixture::manifest("a", tables)),
            ("a/src/lib.rs", ""),
            ("b/Cargo.toml", &fixture::manifest("b", "")),
            ("b/src/lib.rs", ""),
        ]);
        check_against(&fixture::workspace(&dir), crates, only_here)
    }

    #[track_caller]
    fn check(tables: &str, crates: &[Crate], expected: &[&str]) {
        let findings = findings(tables, crates, &[TONIC]);
        match (findings.as_slice(), expected) {
            ([], []) => {}
            ([finding], parts) if !parts.is_empty() => {
                for part in parts {
                    assert!(finding.contains(part), "{part:?} is not in {finding:?}");
                }
            }
            (findings, _) => panic!("expected {expected:?}, found {findings:?}"),
        }
    }

    const ON_B: &str = "[dependencies]\nb = { path = \"../b\" }";
    const TEST_ON_B: &str = "[dev-dependencies]\nb = { path = \"../b\" }";
    const BUILD_ON_B: &str = "[build-dependencies]\nb = { path = \"../b\" }";

    #[test]
    fn edges_between_ours() {
        check("", &[A, B], &[]);
        check(
            ON_B,
            &[
                Crate {
                    may_use: &["b"],
                    ..A
                },
                B,
            ],
            &[],
        );
        check(
            ON_B,
            &[A, B],
            &[
                "a/Cargo.toml",
                "a must not use b",
                "a is alone",
                "no crate of ours",
                " may_use in",
            ],
        );
        check(BUILD_ON_B, &[A, B], &["a must not use b"]);
        // What tests may use, the code may not.
        let tests_only = Crate {
            tests_may_use: &["b"],
            ..A
        };
        check(TEST_ON_B, &[tests_only, B], &[]);
        check(ON_B, &[tests_only, B], &["a must not use b"]);
        check(
            TEST_ON_B,
            &[A, B],
            &["a must not use b", "tests_may_use in"],
        );
    }

    #[test]
    fn a_renamed_or_target_specific_edge_is_no_way_out() {
        let renamed = "[dependencies]\nz = { path = \"../b\", package = \"b\" }";
        check(renamed, &[A, B], &["a must not use b"]);
        let on_unix = "[target.'cfg(unix)'.dependencies]\nb = { path = \"../b\" }";
        check(on_unix, &[A, B], &["a must not use b"]);
    }

    #[test]
    fn a_crate_without_a_row_and_a_row_without_a_crate() {
        check(
            "",
            &[A],
            &["the crate b has no row", "CRATES in xtask/src/edges.rs"],
        );
        check(
            "",
            &[A, B, Crate { name: "gone", ..A }],
            &["row for gone", "remove it"],
        );
    }

    #[test]
    fn std_alone_means_std_alone() {
        let pure = Crate {
            others: Others::Forbidden,
            ..A
        };
        check(
            "[dependencies]\nserde = \"1\"",
            &[pure, B],
            &["a must not use serde"],
        );
        check("[build-dependencies]\ncsv = \"1\"", &[pure, B], &[]);
        check("[dev-dependencies]\nproptest = \"1\"", &[pure, B], &[]);
    }

    #[test]
    fn crates_of_others_have_their_place() {
        check(
            "[dependencies]\ntonic = \"1\"",
            &[A, B],
            &["a must not use tonic", "whose place is b", "one protocol"],
        );
        check(
            "[dev-dependencies]\ntonic-health = \"1\"",
            &[A, B],
            &["a must not use tonic-health"],
        );
        check("[dependencies]\ntonicity = \"1\"", &[A, B], &[]);
    }

    #[test]
    fn the_tables_name_crates_that_have_a_row() {
        let known: BTreeSet<&str> = CRATES.iter().map(|row| row.name).collect();
        assert_eq!(known.len(), CRATES.len(), "a crate has two rows");
        for row in CRATES {
            for name in row.may_use.iter().chain(row.tests_may_use) {
                assert!(
                    known.contains(name),
                    "{} may use {name}, which has no row",
                    row.name
                );
            }
        }
        for rule in ONLY_HERE {
            for name in rule.crates {
                assert!(
                    known.contains(name),
                    "{} may be in {name}, which has no row",
                    rule.package
                );
            }
        }
    }
}
