//! The documents say what is so: tests that docs/consistency.md and docs/threat-model.md name exist, and run; links lead somewhere.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

fn root() -> Result<PathBuf> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(tests.parent().context("no parent")?.to_owned())
}

/// What stands in backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// Of each number the tests that stand for it, as (file, test): lines `- FILE: TEST, TEST`, which may go on.
fn cited(text: &str) -> Result<BTreeMap<String, Vec<(String, String)>>> {
    let mut cited: BTreeMap<String, Vec<_>> = BTreeMap::new();
    let (mut number, mut file) = (String::new(), String::new());
    for line in text.lines() {
        let heading = line
            .strip_prefix("### ")
            .or_else(|| line.strip_prefix("## "));
        if let Some(heading) = heading {
            number = heading.split(' ').next().unwrap_or_default().to_owned();
            cited.entry(number.clone()).or_default();
            file.clear();
            continue;
        }
        let mut words = quoted(line).into_iter();
        if line.starts_with("- `") {
            file = words.next().context("no file")?.to_owned();
        } else if !line.starts_with("  `") {
            file.clear();
        }
        if !file.is_empty() {
            let tests = words.map(|test| (file.clone(), test.to_owned()));
            cited.entry(number.clone()).or_default().extend(tests);
        }
    }
    Ok(cited)
}

/// Whether a source has a test of that name: the function, with an attribute that makes it one before it.
fn has_test(source: &str, name: &str) -> bool {
    let function = format!("fn {name}(");
    let mut is_test = false;
    for line in source.lines().map(str::trim) {
        if is_test && line.contains(&function) {
            return true;
        }
        let is_above = line.starts_with("#[") || line.starts_with("//");
        is_test = (is_test && is_above) || line == "#[test]" || line.starts_with("#[tokio::test");
    }
    false
}

/// Each number of a document has tests, and each of them exists.
#[track_caller]
fn proven(document: &str, numbers: impl Iterator<Item = String>) -> Result<()> {
    let root = root()?;
    let cited = cited(&fs::read_to_string(root.join(document))?)?;
    for number in numbers {
        let tests = cited
            .get(&number)
            .with_context(|| format!("{document}: no {number}"))?;
        ensure!(!tests.is_empty(), "{document}, {number}: no test");
        for (file, test) in tests {
            let source = fs::read_to_string(root.join(file))
                .with_context(|| format!("{document}, {number}: no {file}"))?;
            ensure!(
                has_test(&source, test),
                "{document}, {number}: no test {test} in {file}"
            );
        }
    }
    Ok(())
}

#[test]
fn every_line_of_consistency_has_tests_and_each_exists() -> Result<()> {
    let numbers = (1..=8).map(|n| format!("C{n}"));
    let numbers = numbers.chain((1..=4).map(|n| format!("W{n}")));
    proven("docs/consistency.md", numbers)
}

#[test]
fn every_line_of_the_threat_model_has_tests_and_each_exists() -> Result<()> {
    let lines = [("P", 8), ("W", 4), ("C", 4)].into_iter();
    let numbers = lines.flat_map(|(of, count)| (1..=count).map(move |n| format!("{of}{n}")));
    proven("docs/threat-model.md", numbers)
}

#[test]
fn a_test_without_its_attribute_is_none() {
    assert!(has_test("#[test]\nfn a_b() {", "a_b"));
    assert!(has_test(
        "#[tokio::test]\n#[ignore]\nasync fn a_b() {",
        "a_b"
    ));
    assert!(!has_test("#[test]\nfn a() {}\n\nfn a_b() {", "a_b"));
    assert!(!has_test("#[test]\nfn a_bc() {", "a_b"));
}

/// Links from one document to another, or to a file of ours.
#[test]
fn links_of_the_documents_lead_to_files() -> Result<()> {
    let root = root()?;
    let alone = [
        "README.md",
        "examples/README.md",
        "charts/device-api-server/README.md",
    ];
    let mut documents: Vec<_> = alone.iter().map(|path| root.join(path)).collect();
    for folder in ["docs", "docs/runbooks"] {
        for entry in fs::read_dir(root.join(folder))? {
            documents.push(entry?.path());
        }
    }
    for document in documents.iter().filter(|path| path.is_file()) {
        let text = fs::read_to_string(document)?;
        let folder = document.parent().context("no folder")?;
        for link in text.split("](").skip(1) {
            let target = link.split([')', '#', ' ']).next().unwrap_or_default();
            ensure!(
                target.is_empty() || target.contains("://") || folder.join(target).exists(),
                "{}: no {target}",
                document.display()
            );
        }
    }
    Ok(())
}
