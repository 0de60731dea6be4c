//! docs/install.md and docs/upgrade.md, typed word by word: the lines of kubectl and Helm in their order, with the files
//! that the pages show. What needs a kubelet is left out, by name.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use device_api_tests::markdown::{Document, documents};
use device_api_tests::{guests, shell};
use serde_json::json;

use crate::release::Release;
use crate::shared::{Cluster, cluster};

/// Where the pages have the chart from; it lies here.
const PUBLISHED: &str = "oci://ghcr.io/device-api/charts/device-api-server";
const CHECKOUT: &str = "charts/device-api-server";
/// Words of a line that only a kubelet or a controller can answer.
const FOR_A_KUBELET: [&str; 5] = [
    "exec ",
    "logs ",
    "rollout status",
    "helm test",
    "delete namespace",
];
/// A Helm that Go built has a Kubernetes of 2020 in mind where it asks no cluster.
const TEMPLATE: &str = "helm template --kube-version=1.34.0 ";
/// Where the pages install.
const NAMESPACE: &str = "device-api";
/// The pages' `NODE`.
const NODE: &str = "node-1";

fn page(name: &str) -> Result<Document> {
    let mut pages = documents()?.into_iter();
    pages
        .find(|page| page.name == name)
        .with_context(|| format!("no {name}"))
}

/// A heading's part of a page, up to the next heading of its level or above.
fn section(page: &Document, heading: &str) -> Result<Document> {
    let level = heading.split(' ').next().unwrap_or_default().len();
    let (mut text, mut is_in, mut is_block) = (String::new(), false, false);
    for line in page.text.lines() {
        is_block ^= line.starts_with("```");
        let depth = line.len() - line.trim_start_matches('#').len();
        if !is_block && (1..=level).contains(&depth) {
            is_in = line == heading;
        }
        if is_in {
            text += line;
            text.push('\n');
        }
    }
    ensure!(!text.is_empty(), "{}: no {heading}", page.name);
    Ok(Document {
        name: page.name.clone(),
        path: page.path.clone(),
        text,
    })
}

/// The line that asks for the daemon's pod finds it, and nothing else: a DaemonSet's controller would have made it.
fn finds_the_pod(cluster: &Arc<Cluster>, part: &Document, folder: &Path) -> Result<()> {
    let release = Release {
        cluster: cluster.clone(),
        namespace: NAMESPACE.to_owned(),
    };
    let pod = release.pod()?;
    let name = pod["metadata"]["name"].as_str().context("no name")?;
    cluster.create(std::slice::from_ref(&pod))?;
    let is_it = |line: &&str| line.starts_with("POD=");
    let line = part.text.lines().find(is_it).context("no POD=")?;
    let answer = cluster.type_in(folder, &format!("{line}\nprintf %s \"$POD\""))?;
    let found = answer.map_err(anyhow::Error::msg)?;
    ensure!(found == name, "{line}: {found:?}");
    Ok(())
}

/// Files that a page shows, by the names in their first lines.
fn write_files(page: &Document, folder: &Path) -> Result<()> {
    for block in page.blocks().iter().filter(|block| block.info == "yaml") {
        let first = block
            .text
            .lines()
            .next()
            .and_then(|line| line.strip_prefix("# "));
        if let Some(name) = first.filter(|name| name.ends_with(".yaml") && !name.contains(' ')) {
            fs::write(folder.join(name), &block.text)?;
        }
    }
    Ok(fs::write(folder.join("thermal.wasm"), guests::SLOW_GUEST)?)
}

/// What a page has one add to a file, by a first line `# to NAME`.
fn add_to_files(page: &Document, folder: &Path) -> Result<()> {
    let mut added = 0;
    for block in page.blocks().iter().filter(|block| block.info == "yaml") {
        let first = block.text.lines().next();
        if let Some(name) = first.and_then(|line| line.strip_prefix("# to ")) {
            let path = folder.join(name);
            let before = fs::read_to_string(&path).with_context(|| format!("no {name}"))?;
            fs::write(path, format!("{before}{}", block.text))?;
            added += 1;
        }
    }
    ensure!(added > 0, "{}: nothing is added to a file", page.name);
    Ok(())
}

/// Of each shell block the lines for kubectl and Helm, in order; how many were typed.
fn typed(cluster: &Cluster, page: &Document, folder: &Path) -> Result<usize> {
    let mut count = 0;
    for block in page.blocks().iter().filter(|block| block.info == "sh") {
        for line in block.text.replace("\\\n", " ").lines() {
            let commands = shell::commands(line, &mut BTreeMap::new())?;
            let is_ours = |program: &str| program == "kubectl" || program == "helm";
            let is_ours = !commands.is_empty() && commands.iter().all(|of| is_ours(of.program()));
            if !is_ours || FOR_A_KUBELET.iter().any(|words| line.contains(words)) {
                continue;
            }
            type_it(cluster, line, folder).with_context(|| format!("{}: {line}", page.name))?;
            count += 1;
        }
    }
    Ok(count)
}

fn type_it(cluster: &Cluster, line: &str, folder: &Path) -> Result<()> {
    let chart = cluster.chart.folder.display().to_string();
    // No pod starts here, so none is waited for.
    let line = line
        .replace(PUBLISHED, CHECKOUT)
        .replace(CHECKOUT, &chart)
        .replace(" --wait", "")
        .replace(" NODE ", &format!(" {NODE} "))
        .replace("helm template ", TEMPLATE);
    let answer = cluster.type_in(folder, &line)?;
    answer.map(drop).map_err(anyhow::Error::msg)
}

#[test]
#[ignore = "needs an API server: cargo xtask e2e"]
fn the_pages_on_install_and_upgrade_work_word_by_word() -> Result<()> {
    let Some(cluster) = cluster()? else {
        return Ok(());
    };
    let (install, upgrade) = (page("docs/install.md")?, page("docs/upgrade.md")?);
    let folder = tempfile::tempdir()?;
    write_files(&install, folder.path())?;
    write_files(&upgrade, folder.path())?;
    cluster.create(&[json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}})])?;
    let type_section = |page: &Document, heading: &str, expected: usize| -> Result<()> {
        let part = section(page, heading)?;
        let count = typed(&cluster, &part, folder.path())?;
        ensure!(
            count == expected,
            "{heading}: {count} lines typed, not {expected}"
        );
        Ok(())
    };

    type_section(&install, "### 1. The nodes", 2)?;
    type_section(&install, "### 3. The release", 3)?;
    // The first consumer is the namespace's that one works in, whose account a controller makes.
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "default"}});
    cluster.create(&[account])?;
    add_to_files(&install, folder.path())?;
    type_section(&install, "## The first policy", 3)?;
    type_section(&install, "## The first consumer", 1)?;
    let alert = section(&install, "## The first alert")?;
    finds_the_pod(&cluster, &alert, folder.path())?;
    type_section(&install, "## The first alert", 1)?;
    type_section(&upgrade, "## Before", 1)?;
    type_section(&upgrade, "## Roll it out", 7)?;
    let daemons = cluster.get("device-api", &["daemonset", "gpus-device-api-server"])?;
    ensure!(
        daemons.to_string().contains("gpu-policies"),
        "the upgrade lost the site's policies: {daemons}"
    );
    type_section(&upgrade, "## Go back", 2)?;
    // Each of the other ways begins where none was gone.
    for heading in [
        "### Without a RuntimeClass",
        "### GKE",
        "## From a checkout",
    ] {
        type_section(&install, "## Uninstall", 1)?;
        let left = cluster.get("device-api", &["daemonsets"])?;
        ensure!(left["items"] == json!([]), "{left}");
        let count = if heading == "## From a checkout" {
            2
        } else {
            1
        };
        type_section(&install, heading, count)?;
        let installed = cluster.get("device-api", &["daemonset", "gpus-device-api-server"])?;
        ensure!(installed["spec"].is_object(), "{heading}: {installed}");
    }
    Ok(())
}
