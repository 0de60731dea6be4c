//! docs/install.md, where it goes into the daemon's container: with the page's own values, its commands in their order.

use anyhow::{Context as _, Result, ensure};
use device_api_tests::markdown::{Document, documents};
use serde_json::Value;

use crate::container::Container;
use crate::release::{Release, compiled};

/// The page that a site installs by.
pub(crate) struct Page(Document);

impl Page {
    pub(crate) fn read() -> Result<Self> {
        let mut pages = documents()?.into_iter();
        let page = pages.find(|page| page.name == "docs/install.md");
        Ok(Self(page.context("no docs/install.md")?))
    }

    /// A file that it shows, by the name in the first line; what it adds to it later included.
    pub(crate) fn file(&self, name: &str) -> Result<String> {
        let (first, later) = (format!("# {name}\n"), format!("# to {name}\n"));
        let blocks = self.0.blocks().into_iter();
        let texts = blocks.map(|block| block.text);
        let text: String = texts
            .filter(|text| text.starts_with(&first) || text.starts_with(&later))
            .collect();
        ensure!(!text.is_empty(), "docs/install.md shows no {name}");
        Ok(text)
    }

    /// What `kubectl exec` runs, in order.
    fn executed(&self) -> Result<Vec<Vec<String>>> {
        let commands = self.0.commands()?.into_iter();
        let execs = commands.filter(|command| {
            command.program() == "kubectl" && command.words.iter().any(|word| word == "exec")
        });
        let programs = execs.map(|command| {
            let mut words = command.words.split(|word| word == "--");
            let program = words.nth(1).context("an exec of nothing")?;
            Ok(program.to_vec())
        });
        programs.collect()
    }

    /// What Helm is told besides files of values, where the page installs without a RuntimeClass.
    pub(crate) fn without_a_class(&self) -> Result<Vec<String>> {
        let is_meant = |words: &[String]| {
            words.first().is_some_and(|word| word == "helm")
                && words.iter().any(|word| word == "nvml.runtimeClassName=")
        };
        let mut commands = self.0.commands()?.into_iter();
        let command = commands.find(|command| is_meant(&command.words));
        let words = command.context("no install without a class")?.words;
        let pairs = words.windows(2).filter(|pair| pair[0] == "--set");
        Ok(pairs.map(|pair| format!("--set={}", pair[1])).collect())
    }

    /// The release that it installs, once it has said where the policies come from.
    pub(crate) fn install(&self) -> Result<Option<Release>> {
        let Some(mut release) = Release::install(&self.file("site.yaml")?)? else {
            return Ok(None);
        };
        let policies = self.file("policies.yaml")?;
        let files = [("policies.yaml", policies.as_bytes())];
        release.machine.config_map("gpu-policies", &files)?;
        Ok(Some(release))
    }

    /// The pod of a file.
    pub(crate) fn pod(&self, name: &str) -> Result<Value> {
        let pod: Value = serde_saphyr::from_str(&self.file(name)?)?;
        ensure!(pod["kind"] == "Pod", "{name} is no pod");
        Ok(pod["spec"].clone())
    }
}

/// Runs it, as it is typed, where it has to succeed: what it said.
fn run(running: &Container, program: &[String]) -> Result<String> {
    let (status, said) = running.exec(program)?;
    ensure!(status.success(), "{}: {status}\n{said}", program.join(" "));
    Ok(said)
}

#[tokio::test]
async fn the_commands_of_the_page_work_in_the_container() -> Result<()> {
    let page = Page::read()?;
    let Some(mut release) = page.install()? else {
        return Ok(());
    };
    let running = release.started().await?;
    let mut client = release.healthy().await?;
    for policy in ["xid-policy", "nvml-health"] {
        compiled(&mut client, policy).await?;
    }
    let mut typed = Vec::new();
    for program in page.executed()? {
        let said = run(&running, &program)?;
        let words: Vec<_> = program.iter().map(String::as_str).collect();
        match words[1..] {
            ["get", "gpus"] => ensure!(said.matches("Healthy").count() == 8, "{said}"),
            ["doctor"] => ensure!(said.contains("daemon.ready"), "{said}"),
            ["policy", "list"] => ensure!(
                said.contains("xid-policy") && said.contains("nvml-health"),
                "{said}"
            ),
            ["policy", verb @ ("quarantine" | "release"), policy, ..] => {
                let policy = compiled(&mut client, policy).await?;
                let judges = policy.active.is_some();
                ensure!(judges == (verb == "release"), "{verb}: {policy:?}");
            }
            _ => anyhow::bail!("what does {words:?} do? Say it here"),
        }
        typed.push(
            words[1..]
                .iter()
                .take(2)
                .copied()
                .collect::<Vec<_>>()
                .join(" "),
        );
    }
    let expected = [
        "get gpus",
        "doctor",
        "policy list",
        "policy quarantine",
        "policy release",
    ];
    ensure!(typed == expected, "{typed:?}");
    Ok(())
}

/// What the page says of who keeps the default number.
#[tokio::test]
async fn by_default_nobody_in_the_container_operates() -> Result<()> {
    let page = Page::read()?;
    let Some(mut release) = Release::install("")? else {
        return Ok(());
    };
    let running = release.started().await?;
    let executed = page.executed()?;
    let mut writes = executed
        .iter()
        .filter(|program| program.iter().any(|word| word == "quarantine"));
    let (status, said) = running.exec(writes.next().context("no quarantine")?)?;
    ensure!(!status.success(), "anybody may: {said}");
    let shown = page.0.text.contains("(`may only read` says that");
    ensure!(shown && said.contains("may only read"), "{said}");
    Ok(())
}
