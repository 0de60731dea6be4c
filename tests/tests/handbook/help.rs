//! What our programs take, as their own help has it.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use device_api_tests::binary;

/// A program, or a command of it.
pub(crate) struct Usage {
    /// Whatever its help has that begins with `-`, those of its commands left out.
    pub(crate) flags: BTreeSet<String>,
    pub(crate) commands: BTreeMap<String, Usage>,
}

impl Usage {
    /// Asks a program of ours, and each of its commands, for its help.
    pub(crate) fn of(program: &str) -> Result<Self> {
        Self::read(program, &mut Vec::new())
    }

    fn read(program: &str, path: &mut Vec<String>) -> Result<Self> {
        let mut command = Command::new(binary(program)?);
        command.args(&*path).arg("--help").stdin(Stdio::null());
        let output = command.output()?;
        ensure!(output.status.success(), "{program} {path:?} has no help");
        let help = String::from_utf8(output.stdout)?;
        let mut commands = BTreeMap::new();
        for name in names(&help) {
            path.push(name.to_owned());
            commands.insert(name.to_owned(), Self::read(program, path)?);
            path.pop();
        }
        let words = help.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
        let flags = words.filter(|word| word.len() > 1 && word.starts_with('-'));
        let flags = flags.map(str::to_owned).collect();
        Ok(Self { flags, commands })
    }

    /// All flags, those of its commands too.
    pub(crate) fn all_flags(&self) -> BTreeSet<String> {
        let mut flags = self.flags.clone();
        for command in self.commands.values() {
            flags.extend(command.all_flags());
        }
        flags
    }

    /// Each command that has none of its own, in words.
    pub(crate) fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        for (name, command) in &self.commands {
            if command.commands.is_empty() {
                paths.push(name.clone());
            }
            paths.extend(command.paths().iter().map(|path| format!("{name} {path}")));
        }
        paths
    }

    /// The command that these words begin with, and the words that are left for it.
    pub(crate) fn parted<'a>(&self, words: &'a [String]) -> Result<(&Self, &'a [String])> {
        let mut command = self;
        let mut words = words;
        while !command.commands.is_empty() {
            let (first, rest) = words.split_first().context("no command")?;
            if first.starts_with('-') {
                break;
            }
            let found = command.commands.get(first);
            command = found.with_context(|| format!("no command {first}"))?;
            words = rest;
        }
        Ok((command, words))
    }
}

/// The commands that a help lists: two blanks before each, and more before what goes on.
fn names(help: &str) -> Vec<&str> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let lines = lines.take_while(|line| !line.is_empty());
    let names = lines.filter_map(|line| line.strip_prefix("  "));
    let names = names.filter(|rest| !rest.starts_with(' '));
    let names = names.filter_map(|rest| rest.split(' ').next());
    names.filter(|name| *name != "help").collect()
}

#[test]
fn a_help_is_read() -> Result<()> {
    let help = "A b\n\nCommands:\n  get   List [alias: list]\n          more\n  help  Print\n\nOptions:\n  -h, --help\n";
    ensure!(names(help) == ["get"], "{:?}", names(help));
    let usage = Usage::of("devicectl")?;
    ensure!(usage.flags.contains("--socket"), "{:?}", usage.flags);
    let words = ["nvml", "attach", "--no-wait"].map(str::to_owned);
    let (attach, rest) = usage.parted(&words)?;
    ensure!(
        attach.flags.contains("--no-wait") && rest == ["--no-wait"],
        "{rest:?}"
    );
    ensure!(usage.parted(&["bogus".to_owned()]).is_err());
    Ok(())
}
