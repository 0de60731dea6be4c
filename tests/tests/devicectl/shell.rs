//! Completions, by the word of the shell that they are for.

use std::process::Command;

use anyhow::{Result, ensure};
use device_api_tests::binary;
use device_api_tests::tools::{skip, works};

/// What bash offers for a word that is unfinished, after others.
fn offered(before: &[&str], word: &str) -> Result<Vec<String>> {
    let mut command = Command::new(binary("devicectl")?);
    let script = command.args(["completions", "bash"]).output()?.stdout;
    let script = String::from_utf8(script)?;
    let (at, line) = (before.len(), before.join(" "));
    let last = before.last().copied().unwrap_or_default();
    let ask = format!(
        "{script}\nCOMP_WORDS=({line} {word}); COMP_CWORD={at}; _devicectl devicectl \"{word}\" \"{last}\"; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    );
    let output = Command::new("bash")
        .args(["--noprofile", "--norc", "-c", &ask])
        .output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(errors.is_empty(), "{line} {word}: {errors}");
    let said = String::from_utf8(output.stdout)?;
    Ok(said.lines().map(str::to_owned).collect())
}

#[test]
fn bash_completes_commands_and_their_words() -> Result<()> {
    if let Err(why) = works(Command::new("bash").arg("--version")) {
        skip::<()>(&format!("there is no bash here: {why}"))?;
        return Ok(());
    }
    ensure!(offered(&["devicectl"], "do")? == ["doctor"]);
    ensure!(offered(&["devicectl", "gpu"], "cl")? == ["clear"]);
    ensure!(offered(&["devicectl", "completions"], "z")? == ["zsh"]);
    Ok(())
}
