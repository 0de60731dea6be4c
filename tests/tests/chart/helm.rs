//! Helm, and what it renders.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use device_api_tests::tools::{root, skip, works};
use serde_json::Value;

/// Another Helm than the one on the path.
const HELM: &str = "DEVICE_API_HELM";
/// What Go builds where there is no Helm.
const MODULE: &str = "helm.sh/helm/v3/cmd/helm";
const VERSION: &str = "v3.22.0";

/// Without a cluster Helm has a version of its own in mind; one that Go built without more, v1.20.
const KUBERNETES: &str = "--kube-version=1.34.0";

/// The release's name; the namespace is another word, so that no test takes one for the other.
pub(crate) const RELEASE: &str = "gpus";
pub(crate) const NAMESPACE: &str = "monitoring";

/// The chart, and a Helm to render it.
pub(crate) struct Chart {
    helm: PathBuf,
    pub(crate) folder: PathBuf,
}

/// What Helm made of some values, or why it refused them.
pub(crate) type Answer = std::result::Result<Rendered, String>;

pub(crate) struct Rendered {
    pub(crate) objects: Vec<Value>,
}

impl Chart {
    /// `None` where there is no Helm, and none can be had.
    pub(crate) fn find() -> Result<Option<Self>> {
        let folder = folder()?;
        if let Some(helm) = std::env::var_os(HELM) {
            let helm = PathBuf::from(helm);
            return Ok(Some(Self { helm, folder }));
        }
        let helm = PathBuf::from("helm");
        if works(Command::new(&helm).arg("version")).is_ok() {
            return Ok(Some(Self { helm, folder }));
        }
        match built() {
            Ok(helm) => Ok(Some(Self { helm, folder })),
            Err(why) => skip(&format!(
                "no Helm on the path or in {HELM}, and no Go to build it: {why:#}"
            )),
        }
    }

    /// Helm, with no cluster, and nothing of the home of whoever runs the tests.
    pub(crate) fn helm(&self) -> Command {
        let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join("helm");
        let mut command = Command::new(&self.helm);
        command
            .env("HELM_CACHE_HOME", scratch.join("cache"))
            .env("HELM_CONFIG_HOME", scratch.join("config"))
            .env("HELM_DATA_HOME", scratch.join("data"))
            .env("KUBECONFIG", "/dev/null")
            .stdin(Stdio::null());
        command
    }

    /// Renders the chart with these values (YAML, over the defaults) and flags.
    pub(crate) fn template(&self, values: &str, flags: &[&str]) -> Result<Answer> {
        let mut command = self.helm();
        command.args(["template", RELEASE]).arg(&self.folder);
        command
            .args(["--namespace", NAMESPACE, "--values", "-", KUBERNETES])
            .args(flags);
        match run(&mut command, values)? {
            Ok(text) => Ok(Ok(Rendered::parse(&text)?)),
            Err(why) => Ok(Err(why)),
        }
    }

    /// Renders what has to be right.
    pub(crate) fn rendered(&self, values: &str) -> Result<Rendered> {
        let answer = self.template(values, &[])?;
        answer.map_err(|why| anyhow::anyhow!("refused:\n{values}\n{why}"))
    }
}

/// Runs Helm with the values as its standard input: what it prints, or why it failed.
pub(crate) fn run(
    command: &mut Command,
    values: &str,
) -> Result<std::result::Result<String, String>> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("running {command:?}"))?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    match stdin.write_all(values.as_bytes()) {
        // It ended before it read them; what it says tells more.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        written => written?,
    }
    drop(stdin);
    let output = child.wait_with_output()?;
    let (said, errors) = (
        String::from_utf8(output.stdout)?,
        String::from_utf8(output.stderr)?,
    );
    Ok(if output.status.success() {
        Ok(said)
    } else {
        Err(errors)
    })
}

impl Rendered {
    fn parse(text: &str) -> Result<Self> {
        // A line of a document is never its own end: what holds text is indented.
        let documents = text
            .split("\n---\n")
            .map(|part| part.trim_start_matches("---\n"));
        let mut objects = Vec::new();
        for document in documents {
            let object: Option<Value> =
                serde_saphyr::from_str(document).with_context(|| document.to_owned())?;
            objects.extend(object);
        }
        Ok(Self { objects })
    }

    pub(crate) fn kinds(&self) -> Vec<&str> {
        let kinds = self
            .objects
            .iter()
            .filter_map(|object| object["kind"].as_str());
        let mut kinds: Vec<_> = kinds.collect();
        kinds.sort_unstable();
        kinds
    }

    /// The one object of that kind and name.
    pub(crate) fn named(&self, kind: &str, name: &str) -> Result<&Value> {
        let is_it = |object: &&Value| {
            object["kind"] == kind && (name.is_empty() || object["metadata"]["name"] == name)
        };
        let found: Vec<_> = self.objects.iter().filter(is_it).collect();
        ensure!(found.len() == 1, "{} objects {kind} {name}", found.len());
        Ok(found[0])
    }

    /// The only object of that kind.
    pub(crate) fn the(&self, kind: &str) -> Result<&Value> {
        self.named(kind, "")
    }

    /// The daemon's pods, as the DaemonSet has them.
    pub(crate) fn pod(&self) -> Result<&Value> {
        Ok(&self.the("DaemonSet")?["spec"]["template"]["spec"])
    }

    /// The daemon's configuration file.
    pub(crate) fn configuration(&self) -> Result<&str> {
        let files = self
            .objects
            .iter()
            .filter(|object| object["kind"] == "ConfigMap");
        let mut files = files.filter_map(|map| map["data"]["device-api-server.yaml"].as_str());
        files.next().context("no configuration")
    }
}

pub(crate) fn folder() -> Result<PathBuf> {
    Ok(root()?.join("charts/device-api-server"))
}

#[test]
fn a_program_that_reads_nothing_is_heard() -> Result<()> {
    let long = "a".repeat(1 << 20);
    let mut ends = Command::new("sh");
    let said = run(ends.args(["-c", "exec <&-; echo why >&2; exit 1"]), &long)?;
    ensure!(said == Err("why\n".to_owned()), "{said:?}");
    Ok(())
}

/// One that Go has built, now or before.
fn built() -> Result<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .context("no target folder")?;
    let tools = target.join("tools").join(format!("helm-{VERSION}"));
    let helm = tools.join("helm");
    fs::create_dir_all(&tools)?;
    // Tests may be processes of their own.
    let lock = File::create(tools.join("lock"))?;
    lock.lock()?;
    if !helm.is_file() {
        let mut go = Command::new("go");
        go.args(["install", &format!("{MODULE}@{VERSION}")])
            .env("GOBIN", &tools);
        works(&mut go).map_err(anyhow::Error::msg)?;
    }
    Ok(helm)
}
