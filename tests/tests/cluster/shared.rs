//! One cluster for all tests that run at a time: each has namespaces of its own in it.

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use anyhow::{Context as _, Result, bail, ensure};
use device_api_tests::tools::{root, skip};
use serde_json::{Map, Value, json};

use crate::helm::{Answer as Rendering, Chart, run};
use crate::server::{Server, TIMEOUT};

/// The programs' folder, which `cargo xtask e2e` says.
const PROGRAMS: &str = "DEVICE_API_KUBERNETES";
/// The class of the chart's default values.
const CLASS: &str = "nvidia";

/// What a client said in the end: its output, or its errors.
pub(crate) type Answer = std::result::Result<String, String>;

/// An API server, what a cluster has before our chart comes, and the clients.
pub(crate) struct Cluster {
    server: Server,
    pub(crate) chart: Chart,
    /// What Helm said to an install of the defaults before there was a `RuntimeClass`.
    pub(crate) before_the_class: Answer,
}

/// What the tests before have found.
enum Shared {
    /// Ends with the last test that holds it, for a static is never dropped.
    Started(Weak<Cluster>),
    /// It would not start for the next one either, and each try takes its time.
    Failed(String),
}

static SHARED: Mutex<Shared> = Mutex::new(Shared::Started(Weak::new()));

/// `None` where it can't be had, and that is said.
pub(crate) fn cluster() -> Result<Option<Arc<Cluster>>> {
    let Some(programs) = std::env::var_os(PROGRAMS) else {
        return skip("no API server: `cargo xtask e2e` builds one and runs this");
    };
    let Some(chart) = Chart::find()? else {
        return Ok(None);
    };
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    match &*shared {
        Shared::Started(cluster) => {
            if let Some(cluster) = cluster.upgrade() {
                return Ok(Some(cluster));
            }
        }
        Shared::Failed(why) => bail!("as in the test before: {why}"),
    }
    match Cluster::start(programs.as_ref(), chart) {
        Ok(cluster) => {
            let cluster = Arc::new(cluster);
            *shared = Shared::Started(Arc::downgrade(&cluster));
            Ok(Some(cluster))
        }
        Err(error) => {
            *shared = Shared::Failed(format!("{error:#}"));
            Err(error)
        }
    }
}

impl Cluster {
    fn start(programs: &Path, chart: Chart) -> Result<Self> {
        let mut cluster = Self {
            server: Server::start(programs)?,
            chart,
            before_the_class: Ok(String::new()),
        };
        let definitions = definitions()?;
        cluster.create(&definitions)?;
        let wait = ["wait", "--for=condition=Established", TIMEOUT];
        cluster.done(&[&wait[..], &["customresourcedefinition", "--all"]].concat())?;

        cluster.namespace("without-class", "privileged")?;
        let namespace = ["--namespace", "without-class"];
        let install = [&["install", crate::helm::RELEASE, "CHART"], &namespace[..]].concat();
        cluster.before_the_class = cluster.helm(&install, "{}")?;
        let class = json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass",
            "metadata": {"name": CLASS}, "handler": CLASS});
        cluster.create(&[class])?;
        Ok(cluster)
    }

    /// A namespace of a level of Pod Security, with the service account that a controller would make.
    pub(crate) fn namespace(&self, name: &str, level: &str) -> Result<()> {
        let label = "pod-security.kubernetes.io/enforce";
        self.create(&[
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {label: level}}}),
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": name}}),
        ])
    }

    pub(crate) fn create(&self, objects: &[Value]) -> Result<()> {
        self.send(&["create"], objects)?
            .map_err(anyhow::Error::msg)?;
        Ok(())
    }

    /// What the server says to these objects, with `create` or `apply` and flags. Unknown fields and warnings are errors.
    pub(crate) fn send(&self, verb: &[&str], objects: &[Value]) -> Result<Answer> {
        // One by one: of a List it asks a schema of its own, and not the server.
        let stream: Vec<_> = objects.iter().map(Value::to_string).collect();
        let strict = ["--validate=strict", "--warnings-as-errors", "--filename=-"];
        self.kubectl(&[verb, &strict].concat(), &stream.join("\n"))
    }

    pub(crate) fn kubectl(&self, arguments: &[&str], input: &str) -> Result<Answer> {
        run(self.server.kubectl().args(arguments), input)
    }

    /// What kubectl says where it has to succeed.
    pub(crate) fn done(&self, arguments: &[&str]) -> Result<String> {
        let answer = self.kubectl(arguments, "")?;
        answer.map_err(|why| anyhow::anyhow!("kubectl {}: {why}", arguments.join(" ")))
    }

    pub(crate) fn get(&self, namespace: &str, what: &[&str]) -> Result<Value> {
        let command = ["get", "--output=json", "--namespace", namespace];
        Ok(serde_json::from_str(
            &self.done(&[&command, what].concat())?,
        )?)
    }

    /// Every object of a namespace, of whatever kind, by kind and name.
    pub(crate) fn inventory(&self, namespace: &str) -> Result<Vec<String>> {
        let kinds = [
            "api-resources",
            "--namespaced",
            "--verbs=list",
            "--output=name",
        ];
        let kinds: Vec<_> = self.done(&kinds)?.lines().map(str::to_owned).collect();
        let command = ["get", "--output=name", "--namespace", namespace];
        let found = self.done(&[&command[..], &[&kinds.join(",")]].concat())?;
        let mut found: Vec<_> = found.lines().map(str::to_owned).collect();
        found.sort();
        Ok(found)
    }

    /// Helm, with values on its standard input; `CHART` stands for the chart.
    pub(crate) fn helm(&self, arguments: &[&str], values: &str) -> Result<Answer> {
        let mut helm = self.helm_command(arguments);
        if !values.is_empty() {
            helm.args(["--values", "-"]);
        }
        run(&mut helm, values)
    }

    pub(crate) fn helm_command(&self, arguments: &[&str]) -> Command {
        let mut helm = self.chart.helm();
        self.server.tell(&mut helm);
        for argument in arguments {
            match *argument {
                "CHART" => helm.arg(&self.chart.folder),
                other => helm.arg(other),
            };
        }
        helm
    }

    /// Types a line in a folder, where kubectl and Helm are ours and talk to this cluster.
    pub(crate) fn type_in(&self, folder: &Path, line: &str) -> Result<Answer> {
        let (kubectl, helm) = (self.server.kubectl(), self.helm_command(&[]));
        let mut shell = Command::new("sh");
        for (name, value) in helm.get_envs() {
            shell.env(name, value.unwrap_or_default());
        }
        shell
            .env("OUR_KUBECTL", kubectl.get_program())
            .env("OUR_HELM", helm.get_program())
            .current_dir(folder);
        let ours = "kubectl() { command \"$OUR_KUBECTL\" \"$@\"; }\nhelm() { command \"$OUR_HELM\" \"$@\"; }";
        run(shell.args(["-e", "-c", &format!("{ours}\n{line}")]), "")
    }

    /// What Helm renders of a case of the matrix.
    pub(crate) fn rendered(&self, values: &str, flags: &[&str]) -> Result<Vec<Value>> {
        let rendering: Rendering = self.chart.template(values, flags)?;
        let rendered = rendering.map_err(|why| anyhow::anyhow!("{values}: {why}"))?;
        Ok(rendered.objects)
    }
}

/// The kinds of prometheus-operator, from the schemas of the chart's tests.
fn definitions() -> Result<Vec<Value>> {
    let path = root()?.join("tests/fixtures/kubernetes/prometheus-operator.json");
    let schemas: Value = serde_json::from_str(&std::fs::read_to_string(path)?)?;
    let kinds = schemas["kinds"].as_object().context("no kinds")?;
    let mut definitions = Vec::new();
    for (kind, name) in kinds {
        let (version, kind) = kind.rsplit_once('/').context("no version")?;
        let (group, version) = version.split_once('/').context("no group")?;
        let mut schema = schemas["definitions"][name.as_str().context("no name")?].clone();
        structural(&mut schema);
        // The server's own to check.
        schema["properties"]["metadata"] = json!({"type": "object"});
        let singular = kind.to_lowercase();
        let plural = format!("{singular}s");
        definitions.push(json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.{group}")},
            "spec": {"group": group, "scope": "Namespaced",
                "names": {"kind": kind, "plural": plural, "singular": singular},
                "versions": [{"name": version, "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": schema}}]}}));
    }
    ensure!(definitions.len() == 2, "{} definitions", definitions.len());
    Ok(definitions)
}

/// From the form that refuses what it does not name to that of a definition, where the server does so itself.
fn structural(schema: &mut Value) {
    let Some(schema) = schema.as_object_mut() else {
        return;
    };
    if schema.get("additionalProperties") == Some(&Value::Bool(false)) {
        schema.remove("additionalProperties");
    }
    if schema.remove("anyOf").is_some() {
        schema.insert("x-kubernetes-int-or-string".to_owned(), Value::Bool(true));
    }
    let fields = schema.get_mut("properties").and_then(Value::as_object_mut);
    fields
        .into_iter()
        .flat_map(Map::values_mut)
        .for_each(structural);
    for word in ["items", "additionalProperties"] {
        schema.get_mut(word).into_iter().for_each(structural);
    }
}
