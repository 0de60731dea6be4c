//! Objects that the documents name, as in `daemonset/gpus-device-api-server`, are those of the release that they install.

use anyhow::{Context as _, Result, ensure};
use device_api_tests::markdown::documents;

use crate::helm::{Chart, RELEASE};

/// Words of kubectl for kinds that the chart makes.
const KINDS: [(&str, &str); 5] = [
    ("configmap", "ConfigMap"),
    ("daemonset", "DaemonSet"),
    ("ds", "DaemonSet"),
    ("service", "Service"),
    ("serviceaccount", "ServiceAccount"),
];

/// Kind and name, of words such as `daemonset/a` and `daemonset a`; of a name that is to be filled in, nothing.
fn named<'a>(words: &[&'a str]) -> Vec<(&'static str, &'a str)> {
    let kind = |word: &str| KINDS.iter().find(|(known, _)| *known == word);
    let mut named = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let pair = match word.split_once('/') {
            Some((of, name)) => kind(of).map(|(_, kind)| (*kind, name)),
            None if *word == "daemonset" => {
                let next = words.get(at + 1).filter(|next| !next.starts_with('-'));
                next.map(|name| ("DaemonSet", *name))
            }
            None => None,
        };
        let is_name = |name: &str| name.starts_with(|c: char| c.is_ascii_lowercase());
        named.extend(pair.filter(|(_, name)| is_name(name)));
    }
    named
}

#[test]
fn objects_that_the_documents_name_are_made() -> Result<()> {
    let Some(chart) = Chart::find()? else {
        return Ok(());
    };
    let rendered = chart.rendered("metrics: {serviceMonitor: {enabled: true}}")?;
    let mut tried = 0;
    for document in documents()? {
        let mut lines: Vec<String> = document.commands()?.iter().map(|of| of.text()).collect();
        lines.extend(document.quoted());
        for line in lines.iter().filter(|line| line.starts_with("kubectl ")) {
            let words: Vec<_> = line.split(' ').collect();
            for (kind, name) in named(&words) {
                let at = || format!("{}: {line}", document.name);
                rendered.named(kind, name).with_context(at)?;
                tried += 1;
            }
        }
    }
    ensure!(tried > 8, "{tried} names found: is this test blind?");
    ensure!(RELEASE == "gpus", "the documents install gpus");
    Ok(())
}
