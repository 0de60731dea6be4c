//! Links from one document to another, or to a file of ours, with what they name in it.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use device_api_tests::markdown::{Document, documents};

/// Without `a/..`; nothing here is a link of the file system.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => _ = plain.pop(),
            Component::CurDir => {}
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => plain.push(part),
        }
    }
    plain
}

fn check(document: &Document, link: &str, all: &BTreeMap<&Path, &Document>) -> Result<()> {
    let (target, anchor) = link.split_once('#').unwrap_or((link, ""));
    let folder = document.path.parent().context("no folder")?;
    let path = match target {
        "" => document.path.clone(),
        target => plain(&folder.join(target)),
    };
    ensure!(path.exists(), "{}: no {target}", document.name);
    if anchor.is_empty() {
        return Ok(());
    }
    let other = all
        .get(&*path)
        .with_context(|| format!("{}: {link}: {target} is no document of ours", document.name))?;
    ensure!(
        other.anchors().contains(anchor),
        "{}: {} has no heading for #{anchor}",
        document.name,
        other.name
    );
    Ok(())
}

/// Our own repository, as the forge shows it: what follows is a path of the checkout.
const OURS: [&str; 2] = [
    "https://github.com/device-api/device-api-server/blob/main/",
    "https://github.com/device-api/device-api-server/tree/main/",
];

/// Files besides the documents that tell people where to read on, or folders of such.
const TELLING: [&str; 6] = [
    ".github",
    "Cargo.toml",
    "Dockerfile",
    "charts",
    "cli/src",
    "packaging",
];

/// Every address in a text, up to what can't be in one.
fn addresses(text: &str) -> impl Iterator<Item = &str> {
    let begins = text.match_indices("https://").map(|(at, _)| &text[at..]);
    begins.map(|rest| {
        let is_end = |c: char| c.is_whitespace() || "\"'`)>]|".contains(c);
        rest.split(is_end).next().unwrap_or_default()
    })
}

/// Addresses on the forge are of files that are here, with their headings. Other people's are not looked at: no test
/// asks a network.
#[test]
fn addresses_of_our_repository_lead_to_files_and_headings() -> Result<()> {
    let root = device_api_tests::tools::root()?;
    let documents = documents()?;
    let all: BTreeMap<_, _> = documents.iter().map(|of| (&*of.path, of)).collect();
    let mut texts: Vec<(String, String)> = documents
        .iter()
        .map(|of| (of.name.clone(), of.text.clone()))
        .collect();
    let mut paths: Vec<_> = TELLING.iter().map(|name| root.join(name)).collect();
    while let Some(path) = paths.pop() {
        if path.is_dir() {
            for entry in std::fs::read_dir(&path)? {
                paths.push(entry?.path());
            }
        } else {
            texts.push((path.display().to_string(), std::fs::read_to_string(&path)?));
        }
    }
    let mut tried = 0;
    for (name, text) in &texts {
        for address in addresses(text) {
            let Some(path) = OURS.iter().find_map(|ours| address.strip_prefix(ours)) else {
                continue;
            };
            // A template ends the path, and gives the rest.
            let path = path.split("{{").next().unwrap_or_default();
            let from_root = Document {
                name: name.clone(),
                path: root.join("README.md"),
                text: String::new(),
            };
            check(&from_root, path.trim_end_matches(['.', ',']), &all)?;
            tried += 1;
        }
    }
    ensure!(tried > 10, "{tried} addresses found: is this test blind?");
    Ok(())
}

#[test]
fn links_of_the_documents_lead_to_files_and_headings() -> Result<()> {
    let documents = documents()?;
    let all = documents.iter().map(|of| (&*of.path, of)).collect();
    let (mut anchors, mut wrong) = (0, Vec::new());
    for document in &documents {
        for link in document.links().iter().filter(|link| !link.contains("://")) {
            wrong.extend(check(document, link, &all).err().map(|why| why.to_string()));
            anchors += usize::from(link.contains('#'));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    ensure!(anchors > 20, "{anchors} anchors found: is this test blind?");
    Ok(())
}

/// Each page of docs/ is in its table, so that who looks for it finds it.
#[test]
fn every_page_is_in_the_table_of_documents() -> Result<()> {
    let documents = documents()?;
    let find = |name: &str| documents.iter().find(|of| of.name == name);
    let table = find("docs/README.md").context("no docs/README.md")?.links();
    for document in &documents {
        let page = document
            .name
            .strip_prefix("docs/")
            .filter(|name| *name != "README.md");
        if let Some(page) = page.filter(|page| !page.contains('/')) {
            ensure!(
                table.iter().any(|link| link == page),
                "docs/README.md does not have {page}"
            );
        }
    }
    Ok(())
}
