//! An API server of Kubernetes over an etcd, in a folder of their own, on this machine's loopback.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail, ensure};
use device_api_tests::Program;
use serde_json::json;
use tempfile::TempDir;

use crate::identity;

/// A free port may be another's by the time the server takes it.
const PORTS_MAX: usize = 5;
/// The house's patience and more: an API server reads hundreds of megabytes of itself before it says a word, and every
/// answer is a process.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);
/// The same, as clients take it.
pub(crate) const TIMEOUT: &str = "--timeout=300s";
/// Between two questions, whoever is asked has the machine for itself.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// On sockets in its folder, hence no ports and no certificates; nothing is to survive a power cut.
const ETCD: [&str; 7] = [
    "--data-dir=etcd",
    "--listen-client-urls=unix://etcd.sock:0",
    "--advertise-client-urls=unix://etcd.sock:0",
    "--listen-peer-urls=unix://peer.sock:0",
    "--initial-advertise-peer-urls=unix://peer.sock:0",
    "--initial-cluster=default=unix://peer.sock:0",
    "--unsafe-no-fsync",
];

/// Who may do what is decided as kubeadm sets it up; admission is the default set, with `PodSecurity` by
/// name, lest a default that changes go unseen.
const API: [&str; 15] = [
    "--bind-address=127.0.0.1",
    "--advertise-address=127.0.0.1",
    "--endpoint-reconciler-type=none",
    "--service-cluster-ip-range=10.0.0.0/24",
    "--authorization-mode=Node,RBAC",
    "--enable-admission-plugins=PodSecurity",
    "--client-ca-file=ca.crt",
    "--tls-cert-file=server.crt",
    "--tls-private-key-file=server.key",
    "--service-account-issuer=https://kubernetes.default.svc",
    "--service-account-key-file=tokens.pub",
    "--service-account-signing-key-file=tokens.key",
    "--profiling=false",
    // A value of the chart needs each.
    "--allow-privileged=true",
    "--feature-gates=ImageVolume=true",
];

/// Killed when dropped: the API server before its etcd.
pub(crate) struct Server {
    _api: Program,
    _etcd: Program,
    kubectl: PathBuf,
    folder: TempDir,
}

impl Server {
    /// Starts both, from the folder of their programs, and returns when the server says that it is ready.
    pub(crate) fn start(programs: &Path) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        identity::write(folder.path())?;
        let etcd = spawn("etcd", programs, folder.path(), &ETCD)?;
        let kubectl = programs.join("kubectl");
        let api = start_api(programs, &kubectl, folder.path())?;
        Ok(Self {
            _api: api,
            _etcd: etcd,
            kubectl,
            folder,
        })
    }

    pub(crate) fn kubectl(&self) -> Command {
        client(&self.kubectl, self.folder.path())
    }

    /// Tells a client where the server is, and who asks; nothing of the home of whoever runs the tests is read.
    pub(crate) fn tell(&self, client: &mut Command) {
        tell(client, self.folder.path());
    }
}

fn client(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program);
    tell(&mut command, folder);
    command
}

fn tell(client: &mut Command, folder: &Path) {
    client
        .env("KUBECONFIG", folder.join("kubeconfig"))
        .env("KUBECACHEDIR", folder.join("cache"))
        .env("KUBERC", "off")
        .env("HOME", folder);
}

/// On a free port, which the file for clients then names.
fn start_api(programs: &Path, kubectl: &Path, folder: &Path) -> Result<Program> {
    let etcd = format!("--etcd-servers=unix://{}/etcd.sock:0", folder.display());
    for _ in 0..PORTS_MAX {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        write_kubeconfig(folder, port)?;
        let port = format!("--secure-port={port}");
        let flags: Vec<&str> = API.into_iter().chain([&*etcd, &*port]).collect();
        let mut api = spawn("kube-apiserver", programs, folder, &flags)?;
        if wait_until_ready(&mut api, || client(kubectl, folder))? {
            return Ok(api);
        }
    }
    bail!("{PORTS_MAX} ports were free, and another's before the API server had them")
}

/// Asks until it is ready. False: its port is another's.
fn wait_until_ready(api: &mut Program, kubectl: impl Fn() -> Command) -> Result<bool> {
    let began = SystemTime::now();
    loop {
        let mut question = kubectl();
        question.args(["get", "--raw=/readyz", "--request-timeout=5s"]);
        let answer = question.output().context("running kubectl")?;
        if answer.status.success() && answer.stdout == b"ok" {
            return Ok(true);
        }
        if let Some(status) = api.ended(ASK_AGAIN)? {
            let said = api.said()?;
            ensure!(
                said.contains("address already in use"),
                "the API server ended with {status}:\n{said}"
            );
            return Ok(false);
        }
        ensure!(
            began.elapsed().unwrap_or(PATIENCE) < PATIENCE,
            "the API server is not ready after {PATIENCE:?}: {}\n{}",
            String::from_utf8_lossy(&answer.stderr),
            api.said()?
        );
    }
}

fn write_kubeconfig(folder: &Path, port: u16) -> Result<()> {
    let file = |name: &str| folder.join(name);
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "it",
        "clusters": [{"name": "it", "cluster":
            {"server": format!("https://127.0.0.1:{port}"), "certificate-authority": file("ca.crt")}}],
        "users": [{"name": "it", "user":
            {"client-certificate": file("admin.crt"), "client-key": file("admin.key")}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}]});
    Ok(fs::write(folder.join("kubeconfig"), config.to_string())?)
}

fn spawn(name: &str, programs: &Path, folder: &Path, flags: &[&str]) -> Result<Program> {
    let mut command = Command::new(programs.join(name));
    command.args(flags).current_dir(folder);
    let program = Program::spawn(&command, &folder.join(format!("{name}.log")));
    program.with_context(|| format!("starting {name} of {}", programs.display()))
}
