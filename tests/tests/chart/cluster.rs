//! As much of an API server as Helm's `lookup` asks: what there is, one namespace, and RuntimeClasses.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::helm::{Chart, NAMESPACE, RELEASE, run};

/// The RuntimeClass that this cluster has.
const PRESENT: &str = "nvidia-cdi";

/// As its path has it, as an object has it, and whether it is in a namespace.
type Kind = (&'static str, &'static str, bool);

/// Kinds by their groups and versions.
const KINDS: [(&str, &[Kind]); 3] = [
    (
        "v1",
        &[
            ("configmaps", "ConfigMap", true),
            ("namespaces", "Namespace", false),
            ("secrets", "Secret", true),
            ("serviceaccounts", "ServiceAccount", true),
            ("services", "Service", true),
        ],
    ),
    ("apps/v1", &[("daemonsets", "DaemonSet", true)]),
    (
        "node.k8s.io/v1",
        &[("runtimeclasses", "RuntimeClass", false)],
    ),
];

/// What is at a path; `None`: nothing.
fn content(path: &str) -> Option<Value> {
    let class = format!("/apis/node.k8s.io/v1/runtimeclasses/{PRESENT}");
    let group = |name: &str| {
        let version = json!({"groupVersion": format!("{name}/v1"), "version": "v1"});
        json!({"name": name, "versions": [&version], "preferredVersion": &version})
    };
    match path {
        "/version" => Some(json!({"major": "1", "minor": "34", "gitVersion": "v1.34.0"})),
        "/api" => Some(json!({"kind": "APIVersions", "versions": ["v1"]})),
        "/apis" => {
            let groups = [group("apps"), group("node.k8s.io")];
            Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
        }
        "/api/v1/namespaces/kube-system" => Some(
            json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "kube-system"}}),
        ),
        _ if path == class => Some(
            json!({"kind": "RuntimeClass", "apiVersion": "node.k8s.io/v1",
            "metadata": {"name": PRESENT}, "handler": PRESENT}),
        ),
        _ if path.ends_with("/secrets") => {
            Some(json!({"kind": "SecretList", "apiVersion": "v1", "items": []}))
        }
        _ => {
            let group = path
                .strip_prefix("/apis/")
                .or_else(|| path.strip_prefix("/api/"))?;
            let (_, kinds) = KINDS.iter().find(|(name, _)| *name == group)?;
            let resource = |(name, kind, namespaced): &Kind| {
                json!({"name": name, "singularName": "", "namespaced": namespaced, "kind": kind,
                    "verbs": ["create", "get", "list"]})
            };
            let resources: Vec<_> = kinds.iter().map(resource).collect();
            Some(
                json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group, "resources": resources}),
            )
        }
    }
}

fn answer_to(path: &str) -> (u16, Value) {
    let nothing = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound",
        "message": format!("no {path}"), "code": 404});
    content(path).map_or((404, nothing), |body| (200, body))
}

fn serve(stream: TcpStream) -> Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().context("no request")??;
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let target = request.split(' ').nth(1).unwrap_or_default();
    let path = target.split('?').next().unwrap_or_default();
    let (code, body) = answer_to(path);
    let body = body.to_string();
    let head = "Content-Type: application/json\r\nConnection: close\r\nContent-Length";
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {code} .\r\n{head}: {}\r\n\r\n{body}",
        body.len()
    )?;
    Ok(())
}

/// Where it is described for Helm. It serves until the test's process ends.
fn start(folder: &std::path::Path) -> Result<PathBuf> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || serve(stream));
        }
    });
    let file = folder.join("kubeconfig");
    let cluster = json!({"apiVersion": "v1", "kind": "Config", "current-context": "it",
        "clusters": [{"name": "it", "cluster": {"server": format!("http://{address}")}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        "users": [{"name": "it", "user": {}}]});
    std::fs::write(&file, cluster.to_string())?;
    Ok(file)
}

/// What `helm install` says in such a cluster, with nothing installed; or why it refuses.
fn install(chart: &Chart, values: &str) -> Result<std::result::Result<String, String>> {
    let folder = tempfile::tempdir()?;
    let kubeconfig = start(folder.path())?;
    let mut helm = chart.helm();
    helm.args(["install", RELEASE]).arg(&chart.folder);
    helm.args([
        "--namespace",
        NAMESPACE,
        "--disable-openapi-validation",
        "--dry-run=server",
    ]);
    helm.env("KUBECONFIG", kubeconfig)
        .env("HOME", folder.path());
    run(helm.args(["--values", "-"]), values)
}

/// What stands at the end of an install with these values; `helm template` renders no notes.
pub(crate) fn notes(chart: &Chart, values: &str) -> Result<String> {
    let values = format!("{}\n{values}\n", with_present());
    install(chart, &values)?.map_err(anyhow::Error::msg)
}

fn with_present() -> String {
    format!("nvml: {{runtimeClassName: {PRESENT}}}")
}

/// What Helm says where the RuntimeClass of the values is missing; and that it says nothing where it is there.
pub(crate) fn without_runtime_class(chart: &Chart) -> Result<String> {
    install(chart, &with_present())?.map_err(anyhow::Error::msg)?;
    // Whoever may not ask has it left out.
    let unasked = "nvml: {checkRuntimeClass: false}";
    install(chart, unasked)?.map_err(anyhow::Error::msg)?;
    let why = install(chart, "{}")?
        .err()
        .context("no refusal without RuntimeClass")?;
    for word in [
        "nvml.runtimeClassName",
        "no RuntimeClass \"nvidia\"",
        "GPU operator",
        "with nvml.driverRoot and kernelLog.enabled",
    ] {
        ensure!(why.contains(word), "{why}");
    }
    Ok(why)
}
