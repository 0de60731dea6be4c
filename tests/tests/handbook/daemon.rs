//! Each `device-api-server` that a document has one type is one, by its own `--check-config`.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use device_api_tests::binary;
use device_api_tests::markdown::documents;

use crate::help::Usage;

/// Where the documents have policies and settings; here there is nothing.
const ETC: &str = "/etc/device-api";

const CHECK: &str = "--check-config";

/// A folder as the documents have it beneath `/etc/device-api`.
pub(crate) fn etc() -> Result<tempfile::TempDir> {
    let etc = tempfile::tempdir()?;
    fs::create_dir(etc.path().join("policies"))?;
    let settings = "packaging/systemd/device-api-server.yaml";
    let settings = device_api_tests::tools::root()?.join(settings);
    fs::copy(settings, etc.path().join("device-api-server.yaml"))?;
    Ok(etc)
}

/// With `etc` in the place of `/etc/device-api`.
pub(crate) fn moved(text: &str, etc: &Path) -> String {
    text.replace(ETC, &etc.to_string_lossy())
}

/// What the daemon has against these arguments; `None`: nothing.
pub(crate) fn objection(arguments: &[String]) -> Result<Option<String>> {
    let mut command = Command::new(binary("device-api-server")?);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("DEVICE_API_")) {
        command.env_remove(name);
    }
    if !arguments.iter().any(|word| word == CHECK) {
        command.arg(CHECK);
    }
    let output = command.args(arguments).stdin(Stdio::null()).output()?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    match output.status.code().context("killed")? {
        0 => Ok(None),
        code => Ok(Some(format!("exit code {code}, {told}"))),
    }
}

#[test]
fn commands_of_the_documents_are_commands() -> Result<()> {
    let etc = etc()?;
    let mut tried = 0;
    for document in documents()? {
        for command in document.commands()? {
            if command.program() != "device-api-server" {
                continue;
            }
            let arguments = command.arguments().iter();
            let arguments: Vec<_> = arguments.map(|word| moved(word, etc.path())).collect();
            if let Some(why) = objection(&arguments)? {
                anyhow::bail!("{}: {}: {why}", document.name, command.text());
            }
            tried += 1;
        }
    }
    ensure!(tried >= 4, "{tried} commands found: is this test blind?");
    Ok(())
}

/// The flags that a document names anywhere, as in `--state-dir`: of the daemon, of devicectl, or of a program that is
/// named here.
#[test]
fn flags_that_sentences_name_are_flags() -> Result<()> {
    let mut known = Usage::of("device-api-server")?.all_flags();
    known.extend(Usage::of("devicectl")?.all_flags());
    let mut tried = 0;
    for document in documents()? {
        // Pages for operators; others tell of other programs as well.
        if !PAGES.contains(&&*document.name) {
            continue;
        }
        for quoted in document.quoted() {
            let Some(flag) = quoted
                .split([' ', '='])
                .next()
                .filter(|word| word.starts_with("--"))
            else {
                continue;
            };
            ensure!(
                known.contains(flag) || OTHERS.contains(&flag),
                "{}: no flag {flag}",
                document.name
            );
            tried += 1;
        }
    }
    ensure!(tried > 50, "{tried} flags found: is this test blind?");
    Ok(())
}

const PAGES: [&str; 9] = [
    "docs/configuration.md",
    "docs/incidents.md",
    "docs/install.md",
    "docs/limits.md",
    "docs/operate.md",
    "docs/policies.md",
    "docs/security.md",
    "docs/troubleshooting.md",
    "docs/upgrade.md",
];

/// Of Helm.
const OTHERS: [&str; 4] = [
    "--reuse-values",
    "--reset-then-reuse-values",
    "--set",
    "--set-file",
];
