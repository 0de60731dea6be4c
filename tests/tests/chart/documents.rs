//! What the documents have one give to Helm: each command is one, and renders the chart; so do values, and objects of
//! Kubernetes are such.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use device_api_tests::markdown::{Document, documents};
use device_api_tests::shell::{self, Command};
use serde_json::Value;

use crate::helm::{Chart, folder, run};
use crate::schemas::objections;

/// What a component is to the chart's schema: the preamble of one, in base64.
const COMPONENT: &str = "AGFzbQ0AAQA=";

/// Whether a block of YAML is values of the chart.
fn is_values(block: &Value) -> Result<bool> {
    let schema = fs::read_to_string(folder()?.join("values.schema.json"))?;
    let schema: Value = serde_json::from_str(&schema)?;
    let known = schema["properties"].as_object().context("no properties")?;
    let keys = block.as_object().context("no mapping")?;
    Ok(keys.keys().all(|key| known.contains_key(key)) && !block["policies"].is_array())
}

/// The YAML of all documents, with where it stands.
fn yaml(documents: &[Document]) -> Result<Vec<(String, String, Value)>> {
    let mut found = Vec::new();
    for document in documents {
        for block in document.blocks() {
            if block.info.starts_with("yaml") {
                let at = format!("{}, line {}", document.name, block.line);
                let value = serde_saphyr::from_str(&block.text).with_context(|| at.clone())?;
                found.push((at, block.text, value));
            }
        }
    }
    Ok(found)
}

#[test]
fn values_that_the_documents_show_render() -> Result<()> {
    let Some(chart) = Chart::find()? else {
        return Ok(());
    };
    let mut tried = 0;
    for (at, text, value) in yaml(&documents()?)? {
        if is_values(&value).with_context(|| at.clone())? {
            if let Err(why) = chart.template(&text, &[])? {
                bail!("{at}: {why}");
            }
            tried += 1;
        }
    }
    ensure!(tried >= 5, "{tried} blocks found: is this test blind?");
    Ok(())
}

#[test]
fn objects_that_the_documents_show_are_objects() -> Result<()> {
    let mut tried = 0;
    for (at, _, value) in yaml(&documents()?)? {
        if !value["kind"].is_string() {
            continue;
        }
        let found = objections(&value)?.with_context(|| format!("{at}: no kind that we know"))?;
        ensure!(found.is_empty(), "{at}: {found:?}");
        tried += 1;
    }
    ensure!(tried >= 2, "{tried} objects found: is this test blind?");
    Ok(())
}

/// Commands of Helm that have commands.
const GROUPS: [&str; 6] = ["dependency", "get", "plugin", "registry", "repo", "show"];

/// As Helm's help calls it: `install`, `show values`.
fn name_of(command: &Command) -> String {
    let mut words = command.arguments().iter().map(String::as_str);
    let first = words.next().unwrap_or_default();
    match words.next().filter(|_| GROUPS.contains(&first)) {
        Some(second) => format!("{first} {second}"),
        None => first.to_owned(),
    }
}

/// The flags of a command of Helm, by its own help, and whether each takes a word.
fn flags(chart: &Chart, command: &str) -> Result<BTreeMap<String, bool>> {
    let mut helm = chart.helm();
    helm.args(command.split(' ')).arg("--help");
    let help = run(&mut helm, "")?.map_err(anyhow::Error::msg)?;
    ensure!(
        help.contains(&format!("helm {command}")),
        "no command {command} of Helm"
    );
    let mut flags = BTreeMap::new();
    for line in help
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with('-'))
    {
        let words = line.split("  ").next().unwrap_or_default();
        let (names, words): (Vec<_>, Vec<_>) = words
            .split([' ', ','])
            .filter(|word| !word.is_empty())
            .partition(|word| word.starts_with('-'));
        // One that may be left out (`[=true]`) is never the next word.
        let takes = words.first().is_some_and(|word| !word.contains("[="));
        let is_wait = names.contains(&"--wait");
        flags.extend(
            names
                .iter()
                .map(|name| ((*name).to_owned(), takes && !is_wait)),
        );
    }
    Ok(flags)
}

/// The words of a command without its flags, and its flags with their words.
type Parted = (Vec<String>, Vec<(String, Option<String>)>);

fn parted(command: &Command, known: &BTreeMap<String, bool>) -> Result<Parted> {
    let mut plain = Vec::new();
    let mut given = Vec::new();
    let mut words = command.arguments().iter().skip(1);
    while let Some(word) = words.next() {
        if !word.starts_with('-') {
            plain.push(word.clone());
            continue;
        }
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (&**word, None),
        };
        let takes = known.get(name).with_context(|| format!("no flag {name}"))?;
        let value = match value {
            None if *takes => Some(words.next().context("a flag without its word")?.clone()),
            value => value,
        };
        given.push((name.to_owned(), value));
    }
    Ok((plain, given))
}

/// The flags that say what is rendered.
const RENDERED: [&str; 6] = ["--namespace", "-n", "--set", "--set-file", "--values", "-f"];

/// What Helm has against rendering what a command would install.
fn objection(chart: &Chart, (plain, given): &Parted, files: &Path) -> Result<Option<String>> {
    let [name, of] = &**plain else {
        bail!("{plain:?} is no release and chart");
    };
    ensure!(
        of == "charts/device-api-server"
            || (of.starts_with("oci://") && of.ends_with("/charts/device-api-server")),
        "{of} is not our chart"
    );
    let mut helm = chart.helm();
    helm.args(["template", name])
        .arg(&chart.folder)
        .arg("--kube-version=1.34.0");
    for (flag, value) in given.iter().filter(|(flag, _)| RENDERED.contains(&&**flag)) {
        helm.arg(flag).args(value);
    }
    Ok(run(helm.current_dir(files), "")?.err())
}

/// Files as the documents name them: a block's first line, `# NAME`; and what a policy's author has.
fn files(documents: &[Document]) -> Result<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("thermal.b64"), COMPONENT)?;
    for (at, text, _) in yaml(documents)? {
        let first = text.lines().next().and_then(|line| line.strip_prefix("# "));
        let Some(name) = first.filter(|name| name.ends_with(".yaml") && !name.contains(' ')) else {
            continue;
        };
        let path = folder.path().join(name);
        ensure!(!path.exists(), "{at}: there is another {name}");
        fs::write(path, text)?;
    }
    Ok(folder)
}

#[test]
fn commands_of_helm_that_the_documents_show_are_commands() -> Result<()> {
    let Some(chart) = Chart::find()? else {
        return Ok(());
    };
    let documents = documents()?;
    let files = files(&documents)?;
    let mut known = BTreeMap::new();
    let mut tried = 0;
    for document in &documents {
        for command in document.commands()? {
            if command.program() != "helm" {
                continue;
            }
            let of = name_of(&command);
            let at = || format!("{}: {}", document.name, command.text());
            if !known.contains_key(&of) {
                known.insert(of.clone(), flags(&chart, &of).with_context(at)?);
            }
            let parted = parted(&command, &known[&of]).with_context(at)?;
            if ["install", "upgrade", "template"].contains(&&*of)
                && let Some(why) = objection(&chart, &parted, files.path()).with_context(at)?
            {
                bail!("{}: {why}", at());
            }
            tried += 1;
        }
    }
    ensure!(tried > 12, "{tried} commands found: is this test blind?");
    Ok(())
}

/// In a sentence a command may be named without what it needs; command and flags are right.
#[test]
fn commands_of_helm_that_sentences_name_are_commands() -> Result<()> {
    let Some(chart) = Chart::find()? else {
        return Ok(());
    };
    let mut tried = 0;
    for document in documents()? {
        for quoted in document.quoted() {
            if !quoted.starts_with("helm ") || quoted.contains('…') {
                continue;
            }
            let at = || format!("{}: `{quoted}`", document.name);
            for command in shell::commands(&quoted, &mut BTreeMap::new())? {
                let known = flags(&chart, &name_of(&command)).with_context(at)?;
                parted(&command, &known).with_context(at)?;
                tried += 1;
            }
        }
    }
    ensure!(tried > 6, "{tried} commands found: is this test blind?");
    Ok(())
}
