//! The documents say what is so: tests that docs/consistency.md and docs/threat-model.md name exist, and run; each
//! contract that holds has tests that cite it; sources that are named are there. What one is to type and write: tests/handbook.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use device_api_tests::hostile::Hostile;

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

/// The tests of a source: functions with an attribute that makes them one before them.
fn tests_of(source: &str) -> BTreeSet<&str> {
    let mut tests = BTreeSet::new();
    let mut is_test = false;
    for line in source.lines().map(str::trim) {
        if line.starts_with("//") {
            continue;
        }
        let name = line.split_once("fn ").filter(|_| !line.starts_with("#["));
        if let Some((_, name)) = name.filter(|_| is_test) {
            tests.extend(name.split('(').next());
        }
        // An attribute may take several lines.
        let is_over = line.is_empty() || name.is_some();
        is_test = (is_test && !is_over) || line == "#[test]" || line.starts_with("#[tokio::test");
    }
    tests
}

/// Each number of a document has tests, and each test that it cites exists.
#[track_caller]
fn proven(document: &str, numbers: impl Iterator<Item = String>) -> Result<()> {
    let root = root()?;
    let cited = cited(&fs::read_to_string(root.join(document))?)?;
    for number in numbers {
        ensure!(cited.contains_key(&number), "{document}: no {number}");
    }
    // What stands under a heading without a number (`## P`) is an introduction.
    let is_line = |number: &String| number.bytes().any(|byte| byte.is_ascii_digit());
    for (number, tests) in cited {
        if tests.is_empty() && !is_line(&number) {
            continue;
        }
        ensure!(!tests.is_empty(), "{document}, {number}: no test");
        for (file, test) in tests {
            let source = fs::read_to_string(root.join(&file))
                .with_context(|| format!("{document}, {number}: no {file}"))?;
            ensure!(
                tests_of(&source).contains(&*test),
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
    let lines = [("P", 9), ("W", 4), ("C", 4)].into_iter();
    let numbers = lines.flat_map(|(of, count)| (1..=count).map(move |n| format!("{of}{n}")));
    proven("docs/threat-model.md", numbers)
}

#[test]
fn a_test_without_its_attribute_is_none() {
    #[track_caller]
    fn check(source: &str, expected: &[&str]) {
        assert!(
            tests_of(source).iter().eq(expected),
            "{:?}",
            tests_of(source)
        );
    }
    check("#[test]\nfn a_b() {", &["a_b"]);
    check("#[tokio::test]\n#[ignore]\nasync fn a_b() {", &["a_b"]);
    check("#[test]\n// fn c() {\nfn a() {}\n\nfn a_b() {", &["a"]);
    check("#[test]\n#[expect(\nreason\n)]\nfn a() {", &["a"]);
    check("#[test]\nfn a_bc()\n-> () {\nfn a_b() {", &["a_bc"]);
}

/// Where our sources are.
const SOURCES: [&str; 10] = [
    "benches", "cli", "demo", "host", "plugins", "proto", "sdk", "tests", "xtask", "fuzz",
];

/// Every Rust source of ours.
fn sources(root: &Path) -> Result<Vec<PathBuf>> {
    let mut folders: Vec<PathBuf> = SOURCES.iter().map(|name| root.join(name)).collect();
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let entry = entry?;
            let (kind, path) = (entry.file_type()?, entry.path());
            if kind.is_dir() && entry.file_name() != "target" {
                folders.push(path);
            } else if kind.is_file() && path.extension().is_some_and(|of| of == "rs") {
                sources.push(path);
            }
        }
    }
    Ok(sources)
}

/// The numbers that a test has in its name, as in `h3_h6_a_swap`: those at its beginning.
fn numbers_of(test: &str) -> impl Iterator<Item = String> {
    let is_number = |word: &&str| {
        let (section, digits) = word.split_at_checked(1).unwrap_or_default();
        "cwphn".contains(section)
            && !digits.is_empty()
            && digits.bytes().all(|b| b.is_ascii_digit())
    };
    test.split('_').take_while(is_number).map(str::to_uppercase)
}

/// The lines of docs/contracts.md: number, and how far it is.
fn contracts(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| ")?.split(" | ");
        let number = cells.next()?;
        let digits = number.strip_prefix(['C', 'W', 'P', 'H', 'N'])?;
        digits.parse::<u8>().ok()?;
        Some((number, cells.last()?))
    })
}

/// A test that stands for a line has its number in its name, so a line that holds without one is a claim.
#[test]
fn every_contract_that_holds_has_tests_that_cite_it() -> Result<()> {
    let root = root()?;
    let mut cited = BTreeSet::new();
    for source in sources(&root)? {
        let source = fs::read_to_string(source)?;
        for test in tests_of(&source) {
            cited.extend(numbers_of(test));
        }
    }
    let text = fs::read_to_string(root.join("docs/contracts.md"))?;
    let contracts: BTreeMap<&str, &str> = contracts(&text).collect();
    for (section, count) in [("C", 8), ("W", 4), ("P", 4), ("H", 14), ("N", 9)] {
        for number in (1..=count).map(|n| format!("{section}{n}")) {
            let today = contracts
                .get(&*number)
                .with_context(|| format!("docs/contracts.md: no {number}"))?;
            ensure!(
                cited.contains(&number) || today.starts_with("to come"),
                "docs/contracts.md, {number}: {today:?}, and no test has it in its name"
            );
        }
    }
    for number in cited {
        ensure!(
            contracts.contains_key(&*number),
            "a test cites {number}, which docs/contracts.md does not have"
        );
    }
    Ok(())
}

#[test]
fn the_numbers_of_a_test_stand_at_its_beginning() {
    #[track_caller]
    fn check(test: &str, expected: &[&str]) {
        assert!(numbers_of(test).eq(expected.iter().copied()), "{test}");
    }
    check("h3_h6_a_swap", &["H3", "H6"]);
    check("a_c2_gap", &[]);
    check("who_h3", &[]);
    check("h_3", &[]);
    let row = "| H1 | says `a` | holds |\n| | contract | today |\n| --- | --- | --- |";
    assert!(contracts(row).eq([("H1", "holds |")]));
}

/// Documents of ours that name files.
const DOCUMENTS: [&str; 7] = [
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "README.md",
    "SECURITY.md",
    "charts/device-api-server/README.md",
    "examples/README.md",
    "wit/README.md",
];

fn documents(root: &Path) -> Result<Vec<PathBuf>> {
    let mut documents: Vec<PathBuf> = DOCUMENTS.iter().map(|name| root.join(name)).collect();
    for folder in ["docs", "docs/runbooks"] {
        for entry in fs::read_dir(root.join(folder))? {
            documents.push(entry?.path());
        }
    }
    documents.retain(|path| path.is_file());
    Ok(documents)
}

/// Where a document names a source, it is there: with its whole path, or by its name alone.
#[test]
fn sources_that_the_documents_name_are_there() -> Result<()> {
    let root = root()?;
    let sources = sources(&root)?;
    let names: BTreeSet<_> = sources.iter().filter_map(|path| path.file_name()).collect();
    for document in documents(&root)? {
        let text = fs::read_to_string(&document)?;
        // Examples in other languages, and what goes on over a line, are no names of files.
        let named = quoted(&text).into_iter().filter(|word| {
            let is_name = |b: u8| b.is_ascii_alphanumeric() || b"/._-".contains(&b);
            word.bytes().all(is_name) && !word.starts_with('.')
        });
        for word in named {
            let is_ours = SOURCES.iter().any(|of| {
                word.strip_prefix(of)
                    .is_some_and(|rest| rest.starts_with('/'))
            });
            let is_there = if is_ours {
                root.join(word).exists()
            } else if word.ends_with(".rs") && !word.contains('/') {
                names.contains(std::ffi::OsStr::new(word))
            } else {
                true
            };
            ensure!(is_there, "{}: no {word}", document.display());
        }
    }
    Ok(())
}

#[test]
fn the_readme_counts_the_hostile_guests() -> Result<()> {
    let text = fs::read_to_string(root()?.join("README.md"))?;
    let says = format!("[{} hostile ones]", Hostile::ALL.len());
    ensure!(text.contains(&says), "README.md does not say {says}");
    Ok(())
}

/// Who is woken by a phase finds it in the handbook's table: all that the metric may say (docs/metrics.md is generated).
#[test]
fn every_phase_of_a_policy_is_in_the_table_of_states() -> Result<()> {
    let root = root()?;
    let metrics = fs::read_to_string(root.join("docs/metrics.md"))?;
    let mut rows = metrics.lines();
    let row = rows.find(|row| row.starts_with("| `device_api_server_policy_phase`"));
    let (_, phases) = row
        .and_then(|row| row.split_once("`phase` ("))
        .context("docs/metrics.md: no phases")?;
    let phases = quoted(phases.split(')').next().unwrap_or_default());
    ensure!(phases.len() > 5, "{phases:?}");
    let page = fs::read_to_string(root.join("docs/operate.md"))?;
    for phase in phases {
        let row = format!("\n| `{phase}` |");
        ensure!(page.contains(&row), "docs/operate.md: no state {phase}");
    }
    Ok(())
}

/// The table of docs/policies.md has each metric of a policy; `…_total` is one that was not named before.
#[test]
fn h2_every_metric_of_policies_is_documented() -> Result<()> {
    let root = root()?;
    let catalog = fs::read_to_string(root.join("host/runtime/src/metrics/catalog.rs"))?;
    let metrics = catalog.split('"').filter(|word| {
        word.starts_with("device_api_server_policy_") && !word.contains(char::is_whitespace)
    });
    let metrics: BTreeSet<&str> = metrics.collect();
    let page = fs::read_to_string(root.join("docs/policies.md"))?;
    let rows = page
        .lines()
        .filter(|line| line.starts_with("| `device_api_server_"));
    let mut missing = metrics.clone();
    for row in rows {
        let names = quoted(row.split(" | ").next().unwrap_or_default());
        for name in names.iter().filter_map(|name| name.split('{').next()) {
            let is_it = |metric: &&&str| match name.strip_prefix('…') {
                None => **metric == name,
                Some(end) => metric.ends_with(end),
            };
            let found = missing.iter().find(is_it).copied();
            let is_other = name == "device_api_server_fallbacks_total";
            ensure!(
                found.is_some() || is_other,
                "docs/policies.md: no metric {name}, or it is there twice"
            );
            missing.retain(|metric| Some(*metric) != found);
        }
    }
    ensure!(
        missing.is_empty() && metrics.len() > 20,
        "docs/policies.md does not have {missing:?}"
    );
    Ok(())
}
