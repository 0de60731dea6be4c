//! What the documents have one fetch and check of a release is what the release's workflow makes and signs.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use device_api_tests::markdown::documents;
use device_api_tests::shell::Command;
use device_api_tests::tools::root;

const WORKFLOW: &str = ".github/workflows/release.yml";

/// The files of a release, as the workflow has them and as a document has.
const FILES: [(&str, &str); 4] = [
    ("SHA256SUMS.sigstore.json", "/SHA256SUMS.sigstore.json"),
    ("sha256sum -- * >SHA256SUMS", "/SHA256SUMS"),
    (
        "device-api-server-$VERSION-linux-${{ matrix.machine }}.tar.gz",
        "/device-api-server-0.1.0-linux-",
    ),
    ("device-api-server.cdx.json", "device-api-server.cdx.json"),
];

fn commands() -> Result<Vec<Command>> {
    let documents = documents()?;
    let mut commands = Vec::new();
    for name in ["docs/install.md", "docs/security.md"] {
        let page = documents.iter().find(|of| of.name == name);
        commands.extend(page.with_context(|| format!("no {name}"))?.commands()?);
    }
    Ok(commands)
}

#[test]
fn files_that_one_fetches_are_files_of_a_release() -> Result<()> {
    let workflow = fs::read_to_string(root()?.join(WORKFLOW))?;
    let commands = commands()?;
    for (made, fetched) in FILES {
        ensure!(workflow.contains(made), "{WORKFLOW} does not make {made}");
        ensure!(
            commands.iter().any(|of| of.text().contains(fetched)),
            "nobody is told of {fetched}"
        );
    }
    for command in commands.iter().filter(|of| of.program() == "curl") {
        let (_, file) = command
            .text()
            .rsplit_once('/')
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .context("no file")?;
        let is_made = FILES
            .iter()
            .any(|(_, fetched)| file.starts_with(fetched.trim_start_matches('/')));
        ensure!(is_made, "{}: {WORKFLOW} makes no {file}", command.text());
    }
    Ok(())
}

/// Each signature is checked for who made it: this workflow, on that tag, by the issuer of its runs.
#[test]
fn every_signature_is_checked_for_the_workflow_that_makes_it() -> Result<()> {
    let identity =
        format!("https://github.com/device-api/device-api-server/{WORKFLOW}@refs/tags/v0.1.0");
    let workflow = fs::read_to_string(root()?.join(WORKFLOW))?;
    let mut signed = Vec::new();
    for command in commands()?.iter().filter(|of| of.program() == "cosign") {
        let after = |flag: &str| {
            let at = command.words.iter().position(|word| word == flag)?;
            command.words.get(at + 1)
        };
        ensure!(
            after("--certificate-identity") == Some(&identity),
            "{}",
            command.text()
        );
        ensure!(
            after("--certificate-oidc-issuer")
                .is_some_and(|of| of == "https://token.actions.githubusercontent.com"),
            "{}",
            command.text()
        );
        signed.extend(command.words.last().cloned());
    }
    let expected = [
        "ghcr.io/device-api/device-api-server:0.1.0",
        "ghcr.io/device-api/charts/device-api-server:0.1.0",
        "SHA256SUMS",
    ];
    ensure!(signed == expected, "{signed:?}");
    ensure!(
        workflow.matches("cosign sign").count() == expected.len(),
        "{WORKFLOW} signs something that nobody is told to check"
    );
    Ok(())
}
