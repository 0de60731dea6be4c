//! Each `policies.yaml` that a document shows is read, as the daemon would read it.

use std::path::{Path, PathBuf};

use super::*;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

fn documents(folder: &Path, to: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let (kind, path) = (entry.file_type().unwrap(), entry.path());
        if kind.is_dir() {
            documents(&path, to);
        } else if kind.is_file() && path.extension().is_some_and(|of| of == "md") {
            to.push(path);
        }
    }
}

/// The YAML of a page that begins as the file does, but for comments.
fn files(page: &str) -> impl Iterator<Item = &str> {
    let blocks = page.split("```").skip(1).step_by(2);
    let yaml = blocks.filter_map(|block| block.strip_prefix("yaml\n"));
    yaml.filter(|text| {
        let mut lines = text.lines().filter(|line| !line.starts_with('#'));
        let is_list = |line: &str| line.starts_with("  - ") || line.starts_with("- ");
        lines
            .next()
            .is_some_and(|line| line.starts_with("policies: [") || line == "policies:")
            && lines.next().is_none_or(is_list)
    })
}

/// A digest that is cut off, as nobody reads 64 digits.
fn whole(text: &str) -> String {
    let lines = text.lines().map(|line| match line.split_once("…\"") {
        Some((before, after)) if before.trim_start().starts_with("sha256: \"") => {
            let digits = before.rsplit('"').next().unwrap_or_default().len();
            format!("{before}{}\"{after}", "0".repeat(DIGEST_DIGITS - digits))
        }
        _ => line.to_owned(),
    });
    lines.map(|line| line + "\n").collect()
}

#[test]
fn h7_every_file_that_the_documents_show_is_taken() {
    let mut pages = vec![Path::new(ROOT).join("README.md")];
    documents(&Path::new(ROOT).join("docs"), &mut pages);
    documents(&Path::new(ROOT).join("charts"), &mut pages);
    let mut tried = 0;
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        for file in files(&text) {
            let listed = parse(&whole(file), &Limits::default());
            let listed = listed.unwrap_or_else(|why| panic!("{}: {why}\n{file}", page.display()));
            assert!(!listed.is_empty(), "{}: {file}", page.display());
            tried += 1;
        }
    }
    assert!(tried >= 10, "{tried} files found: is this test blind?");
}
