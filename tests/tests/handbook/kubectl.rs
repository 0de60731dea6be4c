//! Each `kubectl` that a document has one type is one: with no cluster it gets as far as looking for it, and what needs
//! none is done.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use device_api_tests::markdown::documents;
use device_api_tests::shell;
use device_api_tests::tools::{skip, works};

/// What kubectl says of a command line that is none.
const WRONG: [&str; 11] = [
    "unknown command",
    "unknown flag",
    "unknown shorthand",
    "flag needs an argument",
    "invalid argument",
    "must be specified",
    "required flag",
    "see help",
    "accepts",
    "unable to match a printer",
    "error parsing",
];

/// Of a command that a sentence names, what it needs may be left out; what is there is right.
const UNKNOWN: [&str; 3] = ["unknown command", "unknown flag", "unknown shorthand"];

/// Files that the commands read: what they are does not matter here.
const FILES: [&str; 3] = ["policies.yaml", "thermal.wasm", "consumer.yaml"];

fn objection(folder: &Path, arguments: &[String]) -> Result<Option<String>> {
    let output = Command::new("kubectl")
        .args(arguments)
        .env("KUBECONFIG", folder.join("kubeconfig"))
        .env("HOME", folder)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let told = told.to_lowercase();
    let is_wrong = WRONG.iter().any(|words| told.contains(words));
    // What makes an object and sends it nowhere needs no cluster.
    let is_dry = arguments.iter().any(|word| word == "--dry-run=client")
        && arguments.iter().any(|word| word == "create");
    let is_refused = is_wrong || (is_dry && !output.status.success());
    Ok(is_refused.then_some(told))
}

#[test]
fn commands_of_the_documents_are_commands() -> Result<()> {
    if let Err(why) = works(Command::new("kubectl").args(["version", "--client"])) {
        skip::<()>(&format!("no kubectl: {why}"))?;
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let path = folder.path();
    let nowhere = r#"{"apiVersion": "v1", "kind": "Config", "current-context": "it",
        "clusters": [{"name": "it", "cluster": {"server": "http://127.0.0.1:1"}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        "users": [{"name": "it", "user": {}}]}"#;
    fs::write(path.join("kubeconfig"), nowhere)?;
    for file in FILES {
        fs::write(path.join(file), "policies: []\n")?;
    }
    fs::create_dir(path.join("policies"))?;
    fs::write(path.join("policies/policies.yaml"), "policies: []\n")?;
    ensure!(
        objection(path, &["get".to_owned(), "--bogus".to_owned()])?.is_some(),
        "a flag that is none is found"
    );
    ensure!(
        objection(path, &["bogus".to_owned()])?.is_some_and(|why| why.contains(UNKNOWN[0])),
        "a command that is none is found"
    );
    let (mut tried, mut inline) = (0, 0);
    for document in documents()? {
        for command in document.commands()? {
            if command.program() != "kubectl" {
                continue;
            }
            if let Some(why) = objection(path, command.arguments())? {
                anyhow::bail!("{}: {}: {why}", document.name, command.text());
            }
            tried += 1;
        }
        let quoted = document.quoted();
        for quoted in quoted.iter().filter(|text| text.starts_with("kubectl ")) {
            for command in shell::commands(quoted, &mut Default::default())? {
                let why = objection(path, command.arguments())?;
                let why = why.filter(|why| UNKNOWN.iter().any(|words| why.contains(words)));
                ensure!(why.is_none(), "{}: `{quoted}`: {why:?}", document.name);
                inline += 1;
            }
        }
    }
    ensure!(
        tried > 20 && inline > 8,
        "{tried} and {inline} commands found: is this test blind?"
    );
    Ok(())
}
