//! `devicectl doctor` against the real daemon, in each misconfiguration that it is to find.

#![expect(
    clippy::indexing_slicing,
    reason = "a JSON value that lacks what is asked for is null, and a test says so"
)]

mod kept;
mod local;

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use device_api_tests::{Node, PATIENCE, binary};
use nvml_sim::control::Request;
use rcgen::{CertificateParams, KeyPair};
use serde_json::Value;

/// Whoever runs it, in which surroundings.
struct Doctor {
    command: Command,
}

/// What it said.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    /// State, why and what to do, by id.
    checks: BTreeMap<String, (String, String)>,
    text: String,
}

impl Doctor {
    fn of(socket: &Path) -> Result<Self> {
        Self::from(&binary("devicectl")?, socket)
    }

    fn from(program: &Path, socket: &Path) -> Result<Self> {
        let mut command = Command::new(program);
        command.arg("--socket").arg(socket).arg("doctor");
        command.env_remove("KUBERNETES_SERVICE_HOST");
        command.env_remove("NVIDIA_VISIBLE_DEVICES");
        Ok(Self { command })
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    fn arg(mut self, name: &str, value: impl AsRef<Path>) -> Self {
        self.command.arg(name).arg(value.as_ref());
        self
    }

    fn user(mut self, uid: u32, gid: u32) -> Self {
        self.command.uid(uid).gid(gid);
        self
    }

    fn says(mut self) -> Result<Said> {
        let output = self.command.args(["-o", "json"]).output()?;
        let text = String::from_utf8(output.stdout)?;
        let errors = String::from_utf8_lossy(&output.stderr);
        let report: Value =
            serde_json::from_str(&text).with_context(|| format!("{text}{errors}"))?;
        let mut checks = BTreeMap::new();
        for check in report["checks"].as_array().context("no checks")? {
            let text = |key: &str| check[key].as_str().unwrap_or_default().to_owned();
            let said = (text("state"), text("why") + " | " + &text("fix"));
            let before = checks.insert(text("id"), said);
            ensure!(before.is_none(), "{check} twice");
        }
        let failed = checks.values().filter(|(state, _)| state == "fail").count();
        ensure!(report["failed"] == failed, "{report}");
        let code = output.status.code();
        ensure!(code == Some(i32::from(failed > 0)), "{code:?} of {text}");
        Ok(Said { code, checks, text })
    }
}

impl Said {
    fn check(&self, id: &str, state: &str, words: &str) -> Result<()> {
        let (got, said) = self.checks.get(id).context(id.to_owned())?;
        ensure!(
            got == state && said.contains(words),
            "{id} is {got}: {said}"
        );
        Ok(())
    }

    fn failed(&self) -> Vec<&str> {
        self.of("fail")
    }

    fn of(&self, state: &str) -> Vec<&str> {
        let of = self.checks.iter().filter(|(_, (got, _))| got == state);
        of.map(|(id, _)| &**id).collect()
    }
}

/// Asks until the check is in that state: what the daemon notices takes it a moment.
fn until(socket: &Path, id: &str, state: &str, words: &str) -> Result<Said> {
    let deadline = SystemTime::now() + PATIENCE;
    loop {
        let said = Doctor::of(socket)?.says()?;
        let outcome = said.check(id, state, words);
        if outcome.is_ok() || SystemTime::now() > deadline {
            return outcome.map(|()| said);
        }
    }
}

#[tokio::test]
async fn a_node_that_is_well_has_nothing_that_fails_and_nothing_is_changed() -> Result<()> {
    let node = Node::start()?;
    let mut client = node.healthy().await?;
    // The harness makes it for all.
    fs::set_permissions(node.dir(), Permissions::from_mode(0o750))?;
    // Healthy comes with the first of the policies.
    until(node.socket(), "policies.running", "ok", "judge")?;
    let before = client.list().await?.resource_version;
    let said = Doctor::of(node.socket())?.says()?;
    ensure!(said.code == Some(0), "{}", said.text);
    // The simulated library is nothing for a real node, and said to be so.
    ensure!(said.of("warn") == ["nvml.library"], "{}", said.text);
    for (id, words) in [
        ("socket.directory", "is of"),
        ("socket.file", "mode 0660"),
        ("socket.connect", "connected as uid"),
        ("api.version", "daemon 0."),
        ("api.access", "may read and write"),
        ("api.calls", "all"),
        ("daemon.ready", "ready"),
        ("daemon.parts", "kernel-log"),
        ("daemon.log-level", "device_api=info"),
        ("daemon.boot-id", "boot "),
        ("nvml.calls", "none hangs"),
        ("nvml.gpus", "NVML shows 8"),
        ("kernel-log.access", "kmsg"),
        ("store.durable", "durable in"),
        ("store.directory", "mode 0700"),
        ("policies.running", "judge"),
        ("gpus.known", "8 GPUs"),
        ("providers.lost", "none"),
    ] {
        said.check(id, "ok", words)?;
    }
    said.check("tls.certificate", "skipped", "no TLS")?;
    ensure!(client.list().await?.resource_version == before);
    let audited = node
        .daemon
        .log()
        .into_iter()
        .filter(|line| line.contains(" audit"));
    ensure!(audited.count() == 0, "no check writes");
    Ok(())
}

#[tokio::test]
async fn a_library_that_is_missing_or_of_another_version_is_said_with_the_remedy() -> Result<()> {
    let node = Node::builder()?.without_nvml().start()?;
    let said = until(node.socket(), "nvml.library", "fail", "no-such-library.so")?;
    said.check("nvml.version", "skipped", "not in use")?;
    said.check("cluster.runtime-class", "skipped", "no pod")?;
    // The same in a pod that asked for a driver, of which there is no sign.
    if !Path::new("/dev/nvidiactl").exists() {
        let pod = Doctor::of(node.socket())?
            .env("KUBERNETES_SERVICE_HOST", "10.0.0.1")
            .env("NVIDIA_VISIBLE_DEVICES", "all");
        let said = pod.says()?;
        said.check("cluster.runtime-class", "fail", "nvml.runtimeClassName")?;
    }

    let node = Node::start()?;
    node.healthy().await?;
    let mut sim = node.sim()?;
    sim.request(&Request::Unload)?;
    sim.request(&Request::Driver {
        version: Some("580.95.05".to_owned()),
        library: None,
    })?;
    sim.request(&Request::Load)?;
    let said = until(node.socket(), "nvml.version", "fail", "VERSION_MISMATCH")?;
    said.check("nvml.version", "fail", "unload the old kernel module")?;
    Ok(())
}

#[tokio::test]
async fn a_call_that_hangs_and_a_driver_that_is_let_go_of_are_told() -> Result<()> {
    let node = Node::start()?;
    node.healthy().await?;
    let mut sim = node.sim()?;
    let call = Some("nvmlDeviceGetTemperature".to_owned());
    let hang = Request::Hang { gpu: Some(3), call };
    sim.request(&hang)?;
    let said = until(
        node.socket(),
        "nvml.calls",
        "fail",
        "nvmlDeviceGetTemperature",
    )?;
    said.check("nvml.calls", "fail", &node.uuid(3)?)?;
    let call = Some("nvmlDeviceGetTemperature".to_owned());
    sim.request(&Request::Unhang { gpu: Some(3), call })?;
    until(node.socket(), "nvml.calls", "ok", "none hangs")?;

    let release = ["nvml", "release", "--for=upgrade", "--ttl=10m"];
    let mut command = Command::new(binary("devicectl")?);
    command.arg("--socket").arg(node.socket()).args(release);
    ensure!(command.output()?.status.success());
    let said = Doctor::of(node.socket())?.says()?;
    said.check("nvml.library", "warn", "devicectl nvml attach")?;
    Ok(())
}

#[test]
fn a_certificate_that_runs_out_is_told_before_it_has() -> Result<()> {
    for (hours, state, words) in [
        (48_i64, "ok", "good until"),
        (1, "warn", "runs out at"),
        (-1, "fail", "ran out at"),
    ] {
        let builder = Node::builder()?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec!["localhost".to_owned()])?;
        let (now, away) = (
            SystemTime::now(),
            Duration::from_hours(hours.unsigned_abs()),
        );
        let end = if hours < 0 { now - away } else { now + away };
        params.not_before = (now - Duration::from_hours(24)).into();
        params.not_after = end.into();
        let (key_file, cert_file) = (builder.dir().join("key"), builder.dir().join("cert"));
        fs::write(&key_file, key.serialize_pem())?;
        fs::write(&cert_file, params.self_signed(&key)?.pem())?;
        let node = builder
            .flag("tls-key", key_file.to_string_lossy())
            .flag("tls-cert", cert_file.to_string_lossy())
            .start()?;
        let said = Doctor::of(node.socket())?.says()?;
        said.check("tls.certificate", state, words)?;
    }
    Ok(())
}
