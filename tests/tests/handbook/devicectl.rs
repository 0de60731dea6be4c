//! Each `devicectl` that a document has one type is one: with nobody to connect to, it gets as far as that.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use device_api_tests::binary;
use device_api_tests::markdown::documents;
use device_api_tests::shell;

use crate::help::Usage;

/// What `kubectl exec` and the like are to run.
pub(crate) fn inner(command: &shell::Command) -> Option<shell::Command> {
    let at = command.words.iter().position(|word| word == "--")?;
    let words = command.words.get(at + 1..)?.to_vec();
    (!words.is_empty()).then_some(shell::Command { words })
}

/// Of what acts on this machine, and not on a daemon, only the words are tried: a page may name any directory.
const HARMFUL: [&str; 2] = ["node", "own"];

fn run(devicectl: &Path, nowhere: &Path, arguments: &[String]) -> Result<Output> {
    let mut command = Command::new(devicectl);
    command.args(arguments);
    if arguments.windows(2).any(|words| words == HARMFUL) {
        command.arg("--help");
    }
    let output = command
        .env("DEVICE_API_SOCKET", nowhere.join("nobody.sock"))
        .current_dir(nowhere)
        .stdin(Stdio::null())
        .output()?;
    Ok(output)
}

/// With the tests' own user for an owner nothing would stop it.
#[test]
fn a_page_that_gives_directories_away_harms_nobody() -> Result<()> {
    let (devicectl, folder) = (binary("devicectl")?, tempfile::tempdir()?);
    let theirs = folder.path().join("theirs");
    fs::create_dir(&theirs)?;
    fs::set_permissions(&theirs, Permissions::from_mode(0o751))?;
    let found = fs::metadata(&theirs)?;
    let own = format!(
        "node own --owner={}:{} --socket-dir={}",
        found.uid(),
        found.gid(),
        theirs.display()
    );
    let words = shell::commands(&own, &mut Default::default())?;
    let output = run(&devicectl, folder.path(), &words[0].words)?;
    let mode = fs::metadata(&theirs)?.permissions().mode() & 0o777;
    ensure!(
        output.status.success() && mode == 0o751,
        "{mode:o}, {output:?}"
    );
    Ok(())
}

/// Pages from which one types in a pod, where nobody can be asked.
fn is_typed_in_a_pod(page: &str) -> bool {
    let pages = [
        "docs/operate.md",
        "docs/install.md",
        "docs/troubleshooting.md",
    ];
    pages.contains(&page) || page.starts_with("docs/runbooks/")
}

/// What asks first gets its answer with it there: `kubectl exec` has no terminal.
#[test]
fn what_asks_is_answered() -> Result<()> {
    let usage = Usage::of("devicectl")?;
    let (mut tried, mut wrong) = (0, Vec::new());
    for document in documents()? {
        let all = document.commands()?;
        let mut commands: Vec<_> = all.iter().filter_map(inner).collect();
        if is_typed_in_a_pod(&document.name) {
            commands.extend(all);
            for quoted in document.quoted() {
                if quoted.starts_with("devicectl ") {
                    commands.extend(shell::commands(&quoted, &mut Default::default())?);
                }
            }
        }
        for command in &commands {
            let words = command.arguments();
            if command.program() != "devicectl" || words.len() < 3 {
                continue; // another's, or just the name of a command
            }
            let (of, rest) = usage.parted(words)?;
            let is_answered = rest.iter().any(|word| word == "--yes");
            if of.flags.contains("--yes") && !is_answered {
                wrong.push(format!("{}: {}", document.name, command.text()));
            }
            tried += usize::from(is_answered);
        }
    }
    ensure!(wrong.is_empty(), "no --yes: {wrong:#?}");
    ensure!(tried > 4, "{tried} commands found: is this test blind?");
    Ok(())
}

/// The page's table of commands has each that there is.
#[test]
fn the_page_has_every_command() -> Result<()> {
    let documents = documents()?;
    let page = documents.iter().find(|of| of.name == "docs/devicectl.md");
    let page = page.context("no docs/devicectl.md")?;
    let rows = page.text.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.filter_map(|row| row.split(" | ").next());
    let quoted: Vec<_> = cells
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect();
    for path in Usage::of("devicectl")?.paths() {
        let is_it = |named: &&str| {
            let rest = named.strip_prefix(&*path);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
        };
        ensure!(
            quoted.iter().any(is_it),
            "docs/devicectl.md: no `{path}` in the table"
        );
    }
    Ok(())
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
            let begin = match quoted.split_once(" -- ") {
                Some((kubectl, within)) if kubectl.starts_with("kubectl ") => within,
                _ => &quoted,
            };
            let Some(rest) = begin.strip_prefix("devicectl ") else {
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
