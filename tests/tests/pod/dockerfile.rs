//! The Dockerfile, without an engine to build it: that it agrees with the workspace and the chart.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use device_api_tests::binary;
use device_api_tests::tools::root;
use serde_json::Value;

/// Debian's releases, as its images and distroless name them.
const DEBIAN: [(&str, &str); 2] = [("bookworm", "12"), ("trixie", "13")];

/// Words of the OCI that whoever finds an image asks for.
const LABELS: [&str; 7] = [
    "title",
    "description",
    "source",
    "documentation",
    "licenses",
    "version",
    "revision",
];

/// Instructions in their order; a stage begins with each `FROM`.
pub(crate) struct Dockerfile {
    instructions: Vec<(String, String)>,
}

impl Dockerfile {
    pub(crate) fn read() -> Result<Self> {
        let text = fs::read_to_string(root()?.join("Dockerfile"))?;
        let lines = text
            .lines()
            .filter(|line| !line.trim_start().starts_with('#'));
        let text = lines.collect::<Vec<_>>().join("\n").replace("\\\n", " ");
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        let instructions = lines.map(|line| {
            let (word, rest) = line.split_once(' ').with_context(|| line.to_owned())?;
            let rest: Vec<_> = rest.split_whitespace().collect();
            Ok((word.to_owned(), rest.join(" ")))
        });
        Ok(Self {
            instructions: instructions.collect::<Result<_>>()?,
        })
    }

    /// What is said with a word, in the stage that becomes the image or in all of them.
    fn all<'a>(&'a self, word: &'a str) -> impl Iterator<Item = &'a str> {
        let said = self.instructions.iter();
        said.filter(move |(found, _)| found == word)
            .map(|(_, rest)| rest.as_str())
    }

    fn in_the_image(&self, word: &str) -> Result<&str> {
        let last = self
            .instructions
            .iter()
            .rposition(|(found, _)| found == "FROM");
        let image = self.instructions.get(last.context("no FROM")?..);
        let mut said = image.unwrap_or_default().iter();
        let (_, rest) = said
            .find(|(found, _)| found == word)
            .with_context(|| format!("the image has no {word}"))?;
        Ok(rest)
    }

    /// Those with a default, before and between the stages.
    fn arguments(&self) -> BTreeMap<&str, &str> {
        self.all("ARG")
            .filter_map(|rest| rest.split_once('='))
            .collect()
    }

    /// With the arguments' defaults.
    fn expanded(&self, text: &str) -> String {
        let arguments = self.arguments();
        let expand = |text: String, (name, value): (&&str, &&str)| {
            text.replace(&format!("${{{name}}}"), value)
        };
        arguments.iter().fold(text.to_owned(), expand)
    }

    /// The programs that are installed: name, and path in the image.
    pub(crate) fn programs(&self) -> Result<Vec<(String, PathBuf)>> {
        let build = self.all("RUN").find(|run| run.contains("cargo build"));
        let build = build.context("nothing is built")?;
        let (_, installed) = build
            .split_once("install -D -t /out ")
            .context("no install")?;
        let copied = self.in_the_image("COPY")?;
        let to = copied
            .strip_prefix("--from=build /out/ ")
            .context("no COPY of /out/")?;
        let programs = installed.split(' ').map(|path| {
            let name = path
                .strip_prefix("target/release/")
                .context("no release build")?;
            Ok((name.to_owned(), Path::new(to).join(name)))
        });
        programs.collect()
    }

    /// The packages that are built.
    pub(crate) fn packages(&self) -> Vec<&str> {
        let runs = self.all("RUN").flat_map(|run| run.split(' '));
        let words: Vec<_> = runs.collect();
        let pairs = words.windows(2).filter(|pair| pair[0] == "--package");
        pairs.map(|pair| pair[1]).collect()
    }

    pub(crate) fn entrypoint(&self) -> Result<Vec<String>> {
        Ok(serde_json::from_str(self.in_the_image("ENTRYPOINT")?)?)
    }
}

fn values() -> Result<Value> {
    let path = root()?.join("charts/device-api-server/values.yaml");
    Ok(serde_saphyr::from_str(&fs::read_to_string(path)?)?)
}

#[test]
fn what_it_installs_is_built_and_what_it_starts_is_installed() -> Result<()> {
    let dockerfile = Dockerfile::read()?;
    let programs = dockerfile.programs()?;
    let names: Vec<_> = programs.iter().map(|(name, _)| name.as_str()).collect();
    ensure!(names == dockerfile.packages(), "{names:?}");
    for name in names {
        binary(name)?;
    }
    let entrypoint = dockerfile.entrypoint()?;
    let is_it = |(_, path): &(String, PathBuf)| Path::new(&entrypoint[0]) == path;
    ensure!(programs.iter().any(is_it), "{entrypoint:?}: {programs:?}");
    // Where a container finds what the chart calls by name.
    let on_the_path = |path: &Path| {
        let folder = path.parent().map(Path::to_string_lossy);
        crate::image::PATH
            .split(':')
            .any(|known| folder.as_deref() == Some(known))
    };
    ensure!(
        programs.iter().all(|(_, path)| on_the_path(path)),
        "{programs:?}"
    );
    Ok(())
}

#[test]
fn its_user_and_ports_are_the_charts() -> Result<()> {
    let (dockerfile, values) = (Dockerfile::read()?, values()?);
    let user = &values["podSecurity"];
    let user = format!("{}:{}", user["runAsUser"], user["runAsGroup"]);
    ensure!(dockerfile.in_the_image("USER")? == user, "{user}");
    let ports = &values["ports"];
    let ports = format!("{} {}", ports["health"], ports["metrics"]);
    ensure!(dockerfile.in_the_image("EXPOSE")? == ports, "{ports}");
    Ok(())
}

#[test]
fn its_labels_say_what_the_workspace_says() -> Result<()> {
    let dockerfile = Dockerfile::read()?;
    let labels = dockerfile.in_the_image("LABEL")?;
    for label in LABELS {
        let label = format!("org.opencontainers.image.{label}=\"");
        ensure!(labels.contains(&label), "no {label}");
    }
    let manifest = fs::read_to_string(root()?.join("Cargo.toml"))?;
    for (key, label) in [("license", "licenses"), ("repository", "source")] {
        let line = manifest
            .lines()
            .find(|line| line.starts_with(&format!("{key} = ")));
        let Some((_, value)) = line.and_then(|line| line.split_once(" = ")) else {
            ensure!(key != "license", "the workspace has no {key}");
            continue;
        };
        ensure!(
            labels.contains(&format!("{label}={value}")),
            "{label} is not {value}"
        );
    }
    let (_, page) = labels.split_once("/blob/main/").context("no page")?;
    let page = page.split('"').next().unwrap_or_default();
    ensure!(root()?.join(page).is_file(), "no {page}");
    Ok(())
}

#[test]
fn it_builds_with_the_workspaces_toolchain_on_the_debian_that_it_runs_on() -> Result<()> {
    let dockerfile = Dockerfile::read()?;
    let arguments = dockerfile.arguments();
    let rust = arguments.get("RUST").context("no RUST")?;
    let toolchain = fs::read_to_string(root()?.join("rust-toolchain.toml"))?;
    ensure!(
        toolchain.contains(&format!("channel = \"{rust}\"")),
        "{rust}: {toolchain}"
    );
    let bases: Vec<_> = dockerfile
        .all("FROM")
        .map(|base| dockerfile.expanded(base))
        .collect();
    let [build, image] = &bases[..] else {
        anyhow::bail!("two stages: {bases:?}");
    };
    let debian = arguments.get("DEBIAN").context("no DEBIAN")?;
    let known = DEBIAN.iter().find(|(name, _)| name == debian);
    let (name, number) = known.with_context(|| format!("what number has {debian}?"))?;
    ensure!(
        build.contains(&format!("rust:{rust}-slim-{name} AS build")),
        "{build}"
    );
    ensure!(image.contains(&format!("/cc-debian{number}:")), "{image}");
    Ok(())
}
