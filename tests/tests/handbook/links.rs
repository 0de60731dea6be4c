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
