//! Words that have their place in the sources, against the table in `edges.rs`.

use std::path::Path;

use anyhow::Result;

use crate::edges::{NAMED_IN, NamedIn};
use crate::lint::lexer::{self, Token};
use crate::lint::sources;
use crate::workspace::Workspace;

/// Findings, one a line.
///
/// # Errors
/// A source file can't be read.
pub(crate) fn check(workspace: &Workspace) -> Result<Vec<String>> {
    check_against(workspace, NAMED_IN)
}

fn check_against(workspace: &Workspace, rules: &[NamedIn]) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for path in sources::all_rust(workspace)? {
        let source = sources::read(&path)?;
        let relative = workspace.relative(&path);
        let rules: Vec<&NamedIn> = rules
            .iter()
            .filter(|rule| !is_place(relative, rule))
            .collect();
        for located in lexer::tokens(&source) {
            let Some(rule) = rules
                .iter()
                .find(|rule| located.token == Token::Word(rule.word))
            else {
                continue;
            };
            findings.push(format!(
                "{}:{}: `{}` has its place in {}: {}. If that has changed, edit NAMED_IN in xtask/src/edges.rs",
                relative.display(),
                located.line,
                rule.word,
                rule.places.join(", "),
                rule.why
            ));
        }
    }
    Ok(findings)
}

fn is_place(path: &Path, rule: &NamedIn) -> bool {
    rule.places.iter().any(|place| {
        if place.ends_with('/') {
            path.starts_with(place)
        } else {
            path == Path::new(place)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lint::fixture;

    const RULES: &[NamedIn] = &[
        NamedIn {
            word: "lock",
            places: &["src/gate.rs"],
            why: "one lock",
        },
        NamedIn {
            word: "unsafe",
            places: &["src/ffi/"],
            why: "C only",
        },
    ];

    #[track_caller]
    fn check(file: &str, source: &str, expected: &[&str]) {
        let dir = fixture::folder(&[
            ("Cargo.toml", &fixture::manifest("a", "")),
            ("src/lib.rs", ""),
            ("target/CACHEDIR.TAG", ""),
            ("target/gen.rs", "use lock;"),
            (file, source),
        ]);
        let findings = check_against(&fixture::workspace(&dir), RULES).unwrap();
        assert_eq!(findings.len(), expected.len(), "{findings:?}");
        for (finding, part) in findings.iter().zip(expected) {
            assert!(finding.contains(part), "{part:?} is not in {finding:?}");
        }
    }

    #[test]
    fn a_word_in_its_place_is_fine() {
        check("src/gate.rs", "use lock::RwLock;", &[]);
        check("src/ffi/mod.rs", "unsafe {}", &[]);
    }

    #[test]
    fn a_word_out_of_place_is_found_with_its_line() {
        check(
            "src/b.rs",
            "// lock\nuse lock::RwLock;",
            &["src/b.rs:2: `lock`"],
        );
        check(
            "src/gate.rs",
            "unsafe {}",
            &["`unsafe` has its place in src/ffi/: C only"],
        );
        check(
            "tests/t.rs",
            "#[unsafe(no_mangle)]\nfn f() { unsafe {} }",
            &["tests/t.rs:1", "tests/t.rs:2"],
        );
        // A place is a folder, not a prefix of one.
        check("src/ffi_more.rs", "unsafe {}", &["src/ffi_more.rs:1"]);
    }

    #[test]
    fn comments_strings_and_longer_names_are_no_use() {
        check(
            "src/b.rs",
            "/* lock */ const A: &str = \"unsafe\"; fn unsafe_code() {}",
            &[],
        );
    }
}
