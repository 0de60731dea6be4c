//! Each `devicectl` that a document has one type is one: with nobody to connect to, it gets as far as that.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Result, ensure};
use device_api_tests::binary;
use device_api_tests::markdown::documents;
use device_api_tests::shell;

/// What `kubectl exec` and the like are to run.
pub(crate) fn inner(command: &shell::Command) -> Option<shell::Command> {
    let at = command.words.iter().position(|word| word == "--")?;
    let words = command.words.get(at + 1..)?.to_vec();
    (!words.is_empty()).then_some(shell::Command { words })
}

fn run(devicectl: &Path, nowhere: &Path, arguments: &[String]) -> Result<Output> {
    let output = Command::new(devicectl)
        .args(arguments)
        .env("DEVICE_API_SOCKET", nowhere.join("nobody.sock"))
        .current_dir(nowhere)
        .stdin(Stdio::null())
        .output()?;
    Ok(output)
}

#[test]
fn commands_of_the_documents_are_commands() -> Result<()> {
    let devicectl = binary("devicectl")?;
    let nowhere = tempfile::tempdir()?;
    let (mut tried, mut wrong) = (0, Vec::new());
    for document in documents()? {
        let commands = document.commands()?;
        let within: Vec<_> = commands.iter().filter_map(inner).collect();
        for command in commands.iter().chain(&within) {
            if command.program() != "devicectl" {
                continue;
            }
            let output = run(&devicectl, nowhere.path(), command.arguments())?;
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            // 0: it needs no daemon. 1: it asks whether it may, and nobody says yes, or something is not as it should
            // be. 3: nobody to connect to. 2 is a wrong usage.
            if !matches!(output.status.code(), Some(0 | 1 | 3)) {
                wrong.push(format!("{}: {}: {told}", document.name, command.text()));
            }
            tried += 1;
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    ensure!(tried > 30, "{tried} commands found: is this test blind?");
    Ok(())
}

/// In a sentence a command may be named without what it needs, or with `…`; what is there is right.
#[test]
fn commands_that_sentences_name_are_commands() -> Result<()> {
    let devicectl = binary("devicectl")?;
    let nowhere = tempfile::tempdir()?;
    let (mut tried, mut wrong) = (0, Vec::new());
    for document in documents()? {
        for quoted in document.quoted() {
            let Some(rest) = quoted.strip_prefix("devicectl ") else {
                continue;
            };
            if rest.contains(['|', '[']) || rest.contains("COMMAND") {
                continue; // several commands in one
            }
            // At its end: and so on.
            let rest = rest.trim_end_matches([' ', '…']).replace('…', "x");
            let words = shell::commands(&rest, &mut Default::default())?;
            let words = words.first().map_or(&[][..], |command| &command.words);
            let output = run(&devicectl, nowhere.path(), words)?;
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            let is_short = told.contains("required") || told.contains("subcommand");
            let is_unknown = told.contains("unrecognized") || told.contains("unexpected");
            if output.status.code() == Some(2) && (is_unknown || !is_short) {
                wrong.push(format!("{}: `{quoted}`: {told}", document.name));
            }
            tried += 1;
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    ensure!(tried > 30, "{tried} commands found: is this test blind?");
    Ok(())
}
