//! The log of a run under faults: each level means one thing, repeats are few, and no secret is in it.

#![expect(
    clippy::indexing_slicing,
    reason = "a JSON value that lacks what is asked for is null, and a test says so"
)]

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use device_api_proto::native;
use device_api_tests::{Node, binary};
use nvml_sim::control::Request;
use rcgen::{CertificateParams, KeyPair};
use rustix::process::Signal;
use serde_json::Value;
use tonic::metadata::MetadataValue;

/// Lines of the kernel log that nobody understands.
const NONSENSE: u32 = 3000;

/// Of a policy's configuration, which may hold what is nobody's business.
const IN_CONFIGURATION: &str = "hunter2-of-the-policy";
/// What a client sends besides its request.
const TOKEN: &str = "Bearer hunter2-of-the-client";
/// A lease that someone guesses.
const GUESSED: &str = "hunter2-guessed-lease";

const FAMILIAR: [&str; 5] = ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"];

/// A line, as a program reads it.
fn parsed(line: &str) -> Result<Value> {
    serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))
}

fn message(line: &Value) -> &str {
    line["message"].as_str().unwrap_or_default()
}

/// The leases that it was given: one that lasts, and one that nobody uses and that runs out.
async fn provider(node: &Node) -> Result<Vec<String>> {
    let mut client = node.native().await?;
    let mut leases = Vec::new();
    for (name, seconds) in [("agent", 600), ("short-lived", 1)] {
        let registration = native::RegisterProviderRequest {
            name: name.to_owned(),
            lease_duration: Some(prost_types::Duration { seconds, nanos: 0 }),
        };
        let lease = client.providers.register_provider(registration).await?;
        leases.push(lease.into_inner().lease_id);
    }
    let heartbeat = |lease_id: &str| {
        let lease_id = lease_id.to_owned();
        let mut request = tonic::Request::new(native::HeartbeatRequest { lease_id });
        let token = MetadataValue::from_static(TOKEN);
        request.metadata_mut().insert("authorization", token);
        request
    };
    let lease = leases.first().context("no lease")?;
    client.providers.heartbeat(heartbeat(lease)).await?;
    let guessed = client.providers.heartbeat(heartbeat(GUESSED)).await;
    ensure!(guessed.is_err(), "a guessed lease is none");
    Ok(leases)
}

/// All that happens to it.
async fn ill_treat(node: &Node) -> Result<Vec<String>> {
    node.healthy().await?;
    let leases = provider(node).await?;
    let lines: Vec<String> = (0..NONSENSE)
        .map(|n| format!("NVRM: Xid (PCI:0000:1b:00): no number, {n}"))
        .collect();
    node.kernel_log(lines.iter().map(String::as_str))?;
    let mut sim = node.sim()?;
    sim.xid(5, &[79])?;
    let call = Some("nvmlDeviceGetTemperature".to_owned());
    sim.request(&Request::Hang { gpu: Some(2), call })?;
    node.daemon.wait_for(&["has hung for"])?;
    sim.request(&Request::Unhang {
        gpu: None,
        call: None,
    })?;
    let line = parsed(&node.daemon.wait_for(&["API: TCP"])?)?;
    let address = line["address"].as_str().context("no address")?;
    let mut nonsense = TcpStream::connect(address)?;
    nonsense.write_all(b"GET / HTTP/1.1\r\nauthorization: Bearer hunter2-of-the-client\r\n\r\n")?;
    node.daemon.wait_for(&["TLS client not let in"])?;
    let mut log_level = Command::new(binary("devicectl")?);
    log_level.arg("--socket").arg(node.socket());
    ensure!(
        log_level
            .args(["log-level", "trace"])
            .output()?
            .status
            .success()
    );
    node.daemon.wait_for(&["provider lost"])?;
    node.daemon.wait_for(&["not understood", "\"seen\":2048"])?;
    Ok(leases)
}

fn started(verbose: &str) -> Result<(Node, String)> {
    let builder = Node::builder()?;
    let key = KeyPair::generate()?;
    let cert = CertificateParams::new(vec!["localhost".to_owned()])?.self_signed(&key)?;
    let path = |name: &str| builder.dir().join(name);
    fs::write(path("tls.key"), key.serialize_pem())?;
    fs::write(path("tls.crt"), cert.pem())?;
    fs::create_dir(path("policies"))?;
    let manifest = format!(
        "policies:\n  - name: nvml-health\n    config:\n      no-such-key: {IN_CONFIGURATION}\n"
    );
    fs::write(path("policies/policies.yaml"), manifest)?;
    let (key_file, cert_file) = (path("tls.key"), path("tls.crt"));
    let policies = path("policies");
    let node = builder
        .flag("tls-key", key_file.to_string_lossy())
        .flag("tls-cert", cert_file.to_string_lossy())
        .flag("policy-dir", policies.to_string_lossy())
        .flag("log-format", "json")
        .env("DEVICE_API_VERBOSE", verbose)
        .start()?;
    Ok((node, key.serialize_pem()))
}

#[tokio::test]
async fn no_secret_is_in_it_however_much_is_logged() -> Result<()> {
    let (mut node, key) = started("2")?;
    let leases = ill_treat(&node).await?;
    node.stop(Signal::TERM)?;
    let log = node.daemon.log();
    ensure!(
        log.iter().any(|line| line.contains("starting")),
        "the log is not whole"
    );
    let mut secrets: Vec<&str> = vec![GUESSED, IN_CONFIGURATION, "hunter2"];
    secrets.extend(leases.iter().map(String::as_str));
    secrets.extend(key.lines().filter(|line| !line.starts_with("---")));
    ensure!(secrets.len() > 5 && secrets.iter().all(|secret| secret.len() > 6));
    for line in &log {
        let found = secrets.iter().find(|secret| line.contains(**secret));
        ensure!(found.is_none(), "{found:?} is in {line}");
    }
    Ok(())
}

#[tokio::test]
async fn each_level_means_one_thing_and_repeats_are_few() -> Result<()> {
    let (mut node, _) = started("0")?;
    ill_treat(&node).await?;
    node.stop(Signal::TERM)?;
    let lines = node.daemon.log();
    let lines = lines.iter().map(|line| parsed(line));
    let lines = lines.collect::<Result<Vec<_>>>()?;
    for line in &lines {
        let level = line["level"].as_str().unwrap_or_default();
        ensure!(FAMILIAR.contains(&level), "{line}");
        ensure!(
            line["timestamp"].is_string() && line["target"].is_string(),
            "{line}"
        );
        ensure!(!message(line).is_empty(), "{line}");
    }
    for (words, level, field) in [
        ("starting", "INFO", "configuration"),
        ("started", "INFO", "target"),
        ("policy refused", "ERROR", "policy"),
        ("incident opened", "INFO", "gpu"),
        ("GPU is Unhealthy", "INFO", "reason"),
        ("has hung for", "ERROR", "gpu"),
        ("not understood", "WARN", "seen"),
        ("provider lost", "WARN", "provider"),
        ("TLS client not let in", "WARN", "peer"),
        ("administrative write", "INFO", "identity"),
        ("drained", "INFO", "target"),
    ] {
        let is_it = |line: &&Value| message(line).contains(words);
        let line = lines
            .iter()
            .find(is_it)
            .with_context(|| format!("no {words}"))?;
        ensure!(line["level"] == level && !line[field].is_null(), "{line}");
    }
    // What someone has to act upon is what was done to the daemon, and nothing besides.
    let expected = ["policy refused", "has hung for"];
    for line in lines.iter().filter(|line| line["level"] == "ERROR") {
        let is_expected = expected.iter().any(|words| message(line).contains(words));
        ensure!(is_expected, "{line}");
    }
    let nonsense = lines
        .iter()
        .filter(|line| message(line).contains("not understood"));
    let nonsense = nonsense.count();
    // 1, 2, 4, … 2048.
    ensure!(nonsense == 12, "{nonsense} lines of {NONSENSE}");
    Ok(())
}

#[tokio::test]
async fn what_happens_to_gpus_is_in_it_also_where_no_catalogue_and_no_nvml_knows_it() -> Result<()>
{
    let node = Node::start()?;
    node.healthy().await?;
    node.kernel_log([
        "NVRM: Xid (PCI:0000:1b:00): 999, pid=1, name=a, of a driver to come",
        "NVRM: Xid (PCI:0000:fe:00): 79, pid=1, GPU has fallen off the bus.",
    ])?;
    let opened = node.daemon.wait_for(&["incident opened", "xid 999"])?;
    ensure!(opened.contains(" INFO "), "{opened}");
    let unknown = node
        .daemon
        .wait_for(&["a GPU that is not known yet", "0000:fe:00"])?;
    ensure!(unknown.contains("fallen off the bus"), "{unknown}");
    node.sim()?.xid(5, &[79])?;
    let turned = node.daemon.wait_for(&["GPU is Unhealthy"])?;
    for word in [" INFO ", "was=", "health=Unhealthy", "action=RESTART_BM"] {
        ensure!(turned.contains(word), "{word}: {turned}");
    }
    Ok(())
}
