//! Programs besides `devicectl`, `device-api-server`, kubectl and Helm: ours by their help, addresses of ours by a daemon
//! that answers there, and of others the list of those that nobody checks.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command as Process, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use device_api_tests::markdown::{Document, documents};
use device_api_tests::shell::{self, Command};
use device_api_tests::tools::root;
use device_api_tests::{Node, binary, http};
use serde_json::Value;

use crate::devicectl::inner;
use crate::help::Usage;

/// Who checks it is in this folder, but for Helm: `tests/tests/chart/documents.rs`.
const CHECKED: [&str; 9] = [
    "cargo",
    "cosign",
    "curl",
    "device-api-server",
    "devicectl",
    "helm",
    "install",
    "kubectl",
    "nvml-sim",
];

/// Every machine has them, or they are somebody else's and need what a test has not: an engine, a forge, a network, a GPU.
const UNCHECKED: &[&str] = &[
    "base64",
    "cd",
    "componentize-py",
    "cp",
    "df",
    "dmesg",
    "docker",
    "gh",
    "git",
    "go",
    "grep",
    "grpcurl",
    "ls",
    "mkdir",
    "mv",
    "node",
    "npm",
    "nvidia-smi",
    "openssl",
    "pip",
    "python",
    "python3",
    "rustup",
    "sha256sum",
    "systemctl",
    "systemd-sysusers",
    "tail",
    "tar",
    "trivy",
    "uname",
    "wasm-tools",
];

/// Crates that an author makes, by the page that tells of them.
const OF_AUTHORS: [(&str, &str); 1] = [("docs/writing-policies.md", "pcie-width")];

/// Ports that the daemon has by itself, and what its log calls the listener.
const PORTS: [(&str, &str); 2] = [("8081", "/healthz"), ("9090", "/metrics")];

/// Every command of a document, also those that another one is to run, and those in a sentence that begin so.
fn commands(document: &Document, inline: &[&str]) -> Result<Vec<Command>> {
    let mut all = document.commands()?;
    let kubectl = all.iter().filter(|of| of.program() == "kubectl");
    let within: Vec<_> = kubectl.filter_map(inner).collect();
    all.extend(within);
    for quoted in document.quoted() {
        if !quoted.contains('…') && inline.iter().any(|begin| quoted.starts_with(begin)) {
            all.extend(shell::commands(&quoted, &mut Default::default())?);
        }
    }
    Ok(all)
}

#[test]
fn every_program_of_the_documents_is_checked_or_known_to_be_not() -> Result<()> {
    let mut unseen: BTreeSet<&str> = UNCHECKED.iter().chain(&CHECKED).copied().collect();
    for document in documents()? {
        for command in commands(&document, &[])? {
            let program = command.program();
            ensure!(
                UNCHECKED.contains(&program) || CHECKED.contains(&program),
                "{}: {}: who checks {program}?",
                document.name,
                command.text()
            );
            unseen.remove(program);
        }
    }
    ensure!(unseen.is_empty(), "no document has {unseen:?}");
    Ok(())
}

#[test]
fn commands_of_the_simulator_are_commands() -> Result<()> {
    let (program, nowhere) = (binary("nvml-sim")?, tempfile::tempdir()?);
    let mut tried = 0;
    for document in documents()? {
        for command in commands(&document, &["nvml-sim "])? {
            let words = command.arguments();
            if command.program() != "nvml-sim" || words == ["COMMAND", "--help"] {
                continue;
            }
            let mut process = Process::new(&program);
            process
                .args(words)
                .env("NVML_SIM_SOCKET", nowhere.path().join("nobody.sock"))
                .current_dir(root()?)
                .stdin(Stdio::null());
            // The one that writes a file.
            if words.first().is_some_and(|word| word == "old-library") {
                process.arg("--help");
            }
            let output = process.output()?;
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            // 1: nobody simulates. 2: it was not understood; a sentence may leave out what a command needs.
            let is_short = words.len() == 1 && told.contains("required");
            ensure!(
                matches!(output.status.code(), Some(0 | 1)) || is_short,
                "{}: {}: {told}",
                document.name,
                command.text()
            );
            tried += 1;
        }
    }
    ensure!(tried > 8, "{tried} commands found: is this test blind?");
    Ok(())
}

/// What `-p` and `--test` may name.
struct Workspace {
    packages: BTreeSet<String>,
    targets: BTreeSet<String>,
}

impl Workspace {
    fn read() -> Result<Self> {
        let mut cargo = Process::new(env!("CARGO"));
        cargo
            .args(["metadata", "--no-deps", "--offline", "--format-version=1"])
            .current_dir(root()?);
        let output = cargo.output()?;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{told}");
        let told: Value = serde_json::from_slice(&output.stdout)?;
        let name = |of: &Value| of["name"].as_str().map(str::to_owned);
        let packages = told["packages"].as_array().context("no packages")?;
        let targets = packages.iter().filter_map(|of| of["targets"].as_array());
        Ok(Self {
            packages: packages.iter().filter_map(name).collect(),
            targets: targets.flatten().filter_map(name).collect(),
        })
    }

    fn check(&self, words: &[String], page: &str) -> Result<()> {
        for pair in words.windows(2) {
            let known = match &*pair[0] {
                "-p" | "--package" => &self.packages,
                "--test" => &self.targets,
                _ => continue,
            };
            let is_theirs = OF_AUTHORS.contains(&(page, &pair[1]));
            ensure!(known.contains(&pair[1]) || is_theirs, "no {}", pair[1]);
        }
        Ok(())
    }
}

/// Of `cargo xtask` command and flags, by its help (what it passes on it names there); of cargo's own, what they name.
#[test]
fn commands_of_cargo_name_what_there_is() -> Result<()> {
    let (xtask, workspace) = (Usage::of("xtask")?, Workspace::read()?);
    let mut tried = 0;
    for document in documents()? {
        for command in commands(&document, &["cargo ", "WRITE_DOCS=1 cargo "])? {
            let at = || format!("{}: {}", document.name, command.text());
            let words = command.arguments();
            if command.program() != "cargo"
                || words.len() < 2
                || words == ["xtask", "help", "COMMAND"]
            {
                continue;
            }
            workspace.check(words, &document.name).with_context(at)?;
            if words.first().is_none_or(|word| word != "xtask") {
                continue;
            }
            let (usage, rest) = xtask.parted(&words[1..]).with_context(at)?;
            // After `--` they are the test harness's.
            let is_test = words.get(1).is_some_and(|word| word == "test");
            let is_ours = |word: &&String| !(is_test && *word == "--");
            let flags = rest.iter().take_while(is_ours);
            for flag in flags.filter(|word| word.starts_with('-') && *word != "--") {
                ensure!(usage.flags.contains(flag), "{}: no {flag}", at());
            }
            tried += 1;
        }
    }
    ensure!(tried > 15, "{tried} commands found: is this test blind?");
    Ok(())
}

/// What is asked of a port of the daemon's, it answers there.
#[test]
fn addresses_of_the_daemon_answer() -> Result<()> {
    let node = Node::start()?;
    let mut tried = 0;
    for document in documents()? {
        for command in commands(&document, &["curl "])? {
            if command.program() != "curl" {
                continue;
            }
            let at = || format!("{}: {}", document.name, command.text());
            let mut addresses = command.arguments().iter();
            let address = addresses.find(|word| !word.starts_with('-'));
            let address = address.with_context(at)?;
            if address.starts_with("https://") {
                continue; // of a release: release.rs
            }
            let (host, path) = address.split_once('/').with_context(at)?;
            let (_, port) = host.rsplit_once(':').with_context(at)?;
            let Some((_, listener)) = PORTS.iter().find(|(known, _)| *known == port) else {
                bail!("{}: the daemon does not listen there", at());
            };
            let (code, body) = http(&node.address(listener)?, &format!("/{path}"))?;
            ensure!(code == 200, "{}: {code}, {body}", at());
            tried += 1;
        }
    }
    ensure!(tried > 6, "{tried} commands found: is this test blind?");
    Ok(())
}

/// The ports are the daemon's own, as its table of settings has them.
#[test]
fn ports_of_the_documents_are_the_defaults() -> Result<()> {
    let page = fs::read_to_string(root()?.join("docs/configuration.md"))?;
    for row in [
        "| `--health-port PORT` | `8081` |",
        "| `--metrics-port PORT` | `9090` |",
    ] {
        ensure!(page.contains(row), "docs/configuration.md has no {row}");
    }
    Ok(())
}
