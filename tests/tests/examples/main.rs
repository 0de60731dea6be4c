//! The examples of `examples/`, in each language, on a real daemon: what docs/api.md promises of resuming
//! and of listing again is what they see.
//!
//! Those in Go and Python run where their toolchain is present and their packages can be had; else they say
//! so and pass, or fail where `DEVICE_API_REQUIRE_TOOLCHAINS=1`.

mod generated;
mod toolchains;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail, ensure};
use device_api_proto::native::{self, ConditionStatus, Gpu, Health};
use device_api_tests::{Native, Node, PATIENCE, binary, condition_of, health_of};
use rustix::process::Signal;

/// How long an example may be silent before the daemon is asked again what is so.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// A running example, and what it has printed.
struct Example {
    child: Child,
    lines: Receiver<String>,
    /// Of standard output and standard error, in the order in which they came.
    seen: Vec<String>,
}

impl Example {
    fn start(mut command: Command, node: &Node) -> Result<Self> {
        let target = format!("unix://{}", node.socket().display());
        let mut child = command
            .env("NVIDIA_DEVICE_API_TARGET", target)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("running {command:?}"))?;
        let (sender, lines) = channel();
        follow(child.stdout.take().context("no output")?, sender.clone());
        follow(child.stderr.take().context("no errors")?, sender);
        Ok(Self {
            child,
            lines,
            seen: Vec::new(),
        })
    }

    /// Waits for a line that was not waited for yet.
    fn until(&mut self, what: &str, mut wanted: impl FnMut(&str) -> bool) -> Result<String> {
        loop {
            let Ok(line) = self.lines.recv_timeout(PATIENCE) else {
                bail!(
                    "never printed {what}; it printed:\n{}",
                    self.seen.join("\n")
                );
            };
            self.seen.push(line.clone());
            if wanted(&line) {
                return Ok(line);
            }
        }
    }

    fn until_starts_with(&mut self, start: &str) -> Result<String> {
        self.until(start, |line| line.starts_with(start))
    }

    /// Waits until what it has printed is what the daemon answers: of each GPU the newest version, and what
    /// it says of it. Asks the daemon again, since on a slow machine a policy may have the last word late.
    async fn until_it_knows(&mut self, node: &Node, says: Says) -> Result<BTreeMap<String, Gpu>> {
        let mut client = node.native().await?;
        let deadline = SystemTime::now() + PATIENCE;
        loop {
            let gpus = list(&mut client).await?;
            if self.known() == said(&gpus, says) {
                return Ok(gpus);
            }
            match self.lines.recv_timeout(ASK_AGAIN) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Timeout) if SystemTime::now() < deadline => {}
                Err(_) => bail!(
                    "it never knew {:#?}; it printed:\n{}",
                    said(&gpus, says),
                    self.seen.join("\n")
                ),
            }
        }
    }

    /// The newest that it has printed of each GPU: the words after its name.
    fn known(&self) -> BTreeMap<String, String> {
        let mut known = BTreeMap::new();
        for line in &self.seen {
            match line.splitn(3, ' ').collect::<Vec<_>>().as_slice() {
                ["GPU" | "ADDED" | "MODIFIED" | "ADD" | "UPDATE", name, rest] => {
                    known.insert((*name).to_owned(), (*rest).to_owned());
                }
                ["DELETED" | "GONE" | "DELETE", name, _] => {
                    known.remove(*name);
                }
                _ => {}
            }
        }
        known
    }

    /// The versions of the events it has printed, from a line on.
    fn versions(&self, from: usize) -> Result<Vec<i64>> {
        let is_event = |line: &&String| {
            ["ADDED ", "MODIFIED ", "DELETED "]
                .iter()
                .any(|kind| line.starts_with(kind))
        };
        self.seen[from..]
            .iter()
            .filter(is_event)
            .map(|line| number(line, "version="))
            .collect()
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn follow(stream: impl Read + Send + 'static, sender: Sender<String>) {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
}

/// The number that follows `key` in a line, quoted or not.
fn number(line: &str, key: &str) -> Result<i64> {
    let (_, rest) = line
        .split_once(key)
        .with_context(|| format!("no {key} in {line:?}"))?;
    let digits: String = rest
        .trim_start_matches('"')
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    digits.parse().with_context(|| line.to_owned())
}

/// What an example says of a GPU after its name, in its dialect.
type Says = fn(&Gpu) -> String;

fn native_says(gpu: &Gpu) -> String {
    let status = gpu.status.clone().unwrap_or_default();
    let health = status.health().as_str_name().replace("HEALTH_", "");
    let (version, action) = (gpu.resource_version, status.recommended_action);
    format!("version={version} health={health} action={action}")
}

fn ready(gpu: &Gpu) -> &'static str {
    match condition_of(gpu, "Ready").map(|ready| ready.status()) {
        Some(ConditionStatus::True) => "True",
        Some(ConditionStatus::False) => "False",
        Some(ConditionStatus::Unknown) => "Unknown",
        Some(ConditionStatus::Unspecified) | None => "absent",
    }
}

fn upstream_says(gpu: &Gpu) -> String {
    let action = gpu.status.clone().unwrap_or_default().recommended_action;
    let version = gpu.resource_version;
    format!("version={version} ready={} action={action}", ready(gpu))
}

fn informer_says(gpu: &Gpu) -> String {
    format!("version={} ready={}", gpu.resource_version, ready(gpu))
}

/// Which GPU is broken, so that it is not Healthy after any restart.
const BROKEN: u32 = 5;

/// Waits until all that has to happen after a start has: every GPU was seen, the broken one by its policy.
async fn settled(node: &Node, is_broken: bool) -> Result<()> {
    let mut client = node.native().await?;
    let is_true = |gpu: &Gpu, type_: &str| {
        condition_of(gpu, type_).map(|condition| condition.status()) == Some(ConditionStatus::True)
    };
    for gpu in node.gpus() {
        let is_broken = is_broken && gpu.index == BROKEN;
        let wanted = |gpu: &Gpu| {
            if is_broken {
                is_true(gpu, "XidCriticalError") && !is_true(gpu, "PolicyFallback")
            } else {
                health_of(gpu) == Health::Healthy
            }
        };
        let mut watch = client.watch(0).await?;
        watch.until(&gpu.uuid, "as it should be", wanted).await?;
    }
    Ok(())
}

async fn list(client: &mut Native) -> Result<BTreeMap<String, Gpu>> {
    let gpus = client.list().await?.gpus;
    Ok(gpus
        .into_iter()
        .map(|gpu| (gpu.name.clone(), gpu))
        .collect())
}

fn said(gpus: &BTreeMap<String, Gpu>, says: Says) -> BTreeMap<String, String> {
    gpus.iter()
        .map(|(name, gpu)| (name.clone(), says(gpu)))
        .collect()
}

/// Breaks a GPU, restarts the daemon, and lets it forget its history: a consumer sees the fault, goes on
/// where it was without a list, and lists again when it must. C7, W1.
async fn check_consumer(command: Command, says: Says) -> Result<()> {
    let mut node = Node::start()?;
    settled(&node, false).await?;
    let mut example = Example::start(command, &node)?;
    example.until_starts_with("LIST ")?;
    example.until_starts_with("WATCH after=")?;

    node.sim()?.xid(BROKEN, &[79])?;
    settled(&node, true).await?;
    let gpus = example.until_it_knows(&node, says).await?;
    let name = node.uuid(BROKEN)?;
    let broken = &gpus[&name];

    let before = example.seen.len();
    let last = example.versions(0)?.into_iter().max();
    node.stop(Signal::TERM)?;
    example.until_starts_with("ENDED ")?;
    node.start_again()?;
    let resumed = example.until_starts_with("WATCH after=")?;
    ensure!(
        Some(number(&resumed, "after=")?) >= last,
        "from where it was: {resumed}"
    );
    settled(&node, true).await?;
    let gpus = example.until_it_knows(&node, says).await?;
    let since = &example.seen[before..];
    let lists = |line: &&String| line.starts_with("LIST ") || line.starts_with("EXPIRED");
    ensure!(
        since.iter().filter(lists).count() == 0,
        "it went on, without a list:\n{}",
        since.join("\n")
    );
    ensure!(
        gpus[&name].resource_version >= broken.resource_version,
        "C5: versions never go back"
    );
    let healed = |line: &&String| {
        line.contains(&name) && (line.contains("=HEALTHY") || line.contains("ready=True"))
    };
    ensure!(
        since.iter().filter(healed).count() == 0,
        "C7: a restart never heals:\n{}",
        since.join("\n")
    );
    let versions = example.versions(0)?;
    ensure!(
        versions.is_sorted_by(|a, b| a < b),
        "nothing came twice, or late: {versions:?}"
    );

    // A daemon that has lost its state knows no version of before.
    node.stop(Signal::TERM)?;
    node.forget_state()?;
    node.start_again()?;
    example.until_starts_with("EXPIRED")?;
    let listed = example.until_starts_with("LIST ")?;
    settled(&node, false).await?;
    example.until_it_knows(&node, says).await?;
    if listed.contains("asked=") {
        ensure!(
            number(&listed, "asked=")? >= versions.into_iter().max().unwrap_or_default(),
            "the list after an expiry names the old version: {listed}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn rust_consumer_resumes_after_a_restart_and_lists_again_on_expiry() -> Result<()> {
    check_consumer(Command::new(binary("example-consumer")?), native_says).await
}

#[tokio::test]
async fn go_consumer_resumes_after_a_restart_and_lists_again_on_expiry() -> Result<()> {
    let Some(go) = toolchains::go("examples/go")? else {
        return Ok(());
    };
    check_consumer(Command::new(go.join("consumer")), native_says).await
}

#[tokio::test]
async fn go_upstream_client_resumes_and_lists_with_the_old_version() -> Result<()> {
    let Some(go) = toolchains::go("examples/go")? else {
        return Ok(());
    };
    check_consumer(Command::new(go.join("upstream")), upstream_says).await
}

#[tokio::test]
async fn python_consumer_resumes_after_a_restart_and_lists_again_on_expiry() -> Result<()> {
    let Some(python) = toolchains::python()? else {
        return Ok(());
    };
    check_consumer(python.script("consumer.py"), native_says).await
}

/// As many events as were asked for, and then a good end.
async fn check_end(mut command: Command) -> Result<()> {
    let node = Node::start()?;
    settled(&node, false).await?;
    command.args(["--events", "1"]);
    let mut example = Example::start(command, &node)?;
    example.until_starts_with("WATCH after=")?;
    node.sim()?.xid(BROKEN, &[79])?;
    example.until_starts_with("MODIFIED ")?;
    let ended = example.child.wait()?;
    ensure!(ended.success(), "{ended}: {:?}", example.seen);
    Ok(())
}

#[tokio::test]
async fn consumers_end_after_the_events_asked_for() -> Result<()> {
    check_end(Command::new(binary("example-consumer")?)).await?;
    if let Some(go) = toolchains::go("examples/go")? {
        check_end(Command::new(go.join("consumer"))).await?;
    }
    if let Some(python) = toolchains::python()? {
        check_end(python.script("consumer.py")).await?;
    }
    Ok(())
}

/// client-go's own informer, as NVSentinel's clients set it up, with the setting that they need.
#[tokio::test]
async fn go_informer_of_kubernetes_0_35_syncs_with_watch_list_off() -> Result<()> {
    let Some(go) = toolchains::go("examples/go/informer")? else {
        return Ok(());
    };
    let mut command = Command::new(go.join("informer"));
    command.env("KUBE_FEATURE_WatchListClient", "false");
    let mut node = Node::start()?;
    settled(&node, false).await?;
    let mut example = Example::start(command, &node)?;
    example.until("SYNCED", |line| line == "SYNCED gpus=8")?;

    node.sim()?.xid(BROKEN, &[79])?;
    settled(&node, true).await?;
    acknowledged(&node).await?;
    example.until_it_knows(&node, informer_says).await?;

    // Killed: a daemon that drains may end a second watch at once, and a reflector that saw nothing in a watch
    // of less than a second lists again, for reasons of its own.
    let before = example.seen.len();
    node.stop(Signal::KILL)?;
    node.start_again()?;
    settled(&node, true).await?;
    example.until_it_knows(&node, informer_says).await?;
    let since = &example.seen[before..];
    ensure!(
        !since.iter().any(|line| line.starts_with("LIST")),
        "it resumed:\n{}",
        since.join("\n")
    );

    node.stop(Signal::KILL)?;
    node.forget_state()?;
    node.start_again()?;
    example.until_starts_with("EXPIRED")?;
    let listed = example.until_starts_with("LIST ")?;
    ensure!(
        number(&listed, "asked=")? > 0,
        "with the old version, which is no error: {listed}"
    );
    settled(&node, false).await?;
    example.until_it_knows(&node, informer_says).await?;
    Ok(())
}

/// Writes something that counts for nothing, so that all that was decided before it is durable when this
/// returns (C6).
async fn acknowledged(node: &Node) -> Result<()> {
    let status = native::GpuStatus {
        conditions: vec![native::Condition {
            r#type: "Inspected".to_owned(),
            status: ConditionStatus::True.into(),
            ..native::Condition::default()
        }],
        ..native::GpuStatus::default()
    };
    let request = native::UpdateGpuStatusRequest {
        name: node.uuid(0)?,
        status: Some(status),
        ..native::UpdateGpuStatusRequest::default()
    };
    let mut client = node.native().await?;
    client.gpus.update_gpu_status(request).await?;
    Ok(())
}

/// What docs/upstream-clients.md warns of: it gets every event, and waits for a bookmark for ever.
#[tokio::test]
async fn go_informer_of_kubernetes_0_35_never_syncs_with_watch_list_on() -> Result<()> {
    let Some(go) = toolchains::go("examples/go/informer")? else {
        return Ok(());
    };
    let mut command = Command::new(go.join("informer"));
    command.env_remove("KUBE_FEATURE_WatchListClient");
    let node = Node::start()?;
    settled(&node, false).await?;
    let mut example = Example::start(command, &node)?;
    for _ in node.gpus() {
        example.until_starts_with("EVENT ADDED ")?;
    }
    node.sim()?.xid(BROKEN, &[79])?;
    example.until_starts_with("EVENT MODIFIED ")?;
    let told = |line: &String| {
        ["SYNCED", "ADD ", "LIST"]
            .iter()
            .any(|w| line.starts_with(w))
    };
    ensure!(
        !example.seen.iter().any(told),
        "the warning in docs/upstream-clients.md is out of date:\n{}",
        example.seen.join("\n")
    );
    Ok(())
}

/// A provider registers, writes, beats, and writes again when the daemon, restarted, asks it to. P1, P2, C7.
async fn check_provider(mut command: Command) -> Result<()> {
    let mut node = Node::start()?;
    let mut client = node.healthy().await?;
    let name = node.uuid(0)?;
    let mut watch = client.watch(0).await?;
    command.args(["--gpu", &name, "--lease", "3", "--name", "rack-agent"]);
    let mut example = Example::start(command, &node)?;
    example.until_starts_with("REGISTERED rack-agent")?;
    let is_dry = |gpu: &Gpu| {
        condition_of(gpu, "CoolantLeak").map(|leak| leak.status()) == Some(ConditionStatus::False)
    };
    let gpu = watch.until(&name, "told to be dry", is_dry).await?;
    let owner = condition_of(&gpu, "CoolantLeak").and_then(|leak| leak.owner.clone());
    assert_eq!(owner.context("no owner")?.name, "rack-agent");
    example.until_starts_with("HEARTBEAT")?;

    node.stop(Signal::KILL)?;
    node.start_again()?;
    example.until_starts_with("WROTE CoolantLeak")?;
    let mut client = node.native().await?;
    let mut watch = client.watch(0).await?;
    watch.until(&name, "told to be dry again", is_dry).await?;
    example.until_starts_with("HEARTBEAT")?;
    Ok(())
}

#[tokio::test]
async fn rust_provider_writes_again_after_a_restart() -> Result<()> {
    check_provider(Command::new(binary("example-provider")?)).await
}

#[tokio::test]
async fn python_provider_writes_again_after_a_restart() -> Result<()> {
    let Some(python) = toolchains::python()? else {
        return Ok(());
    };
    check_provider(python.script("provider.py")).await
}

/// A wet sensor makes the GPU Degraded, and ends with the beats asked for.
#[tokio::test]
async fn rust_provider_tells_of_a_leak_and_ends() -> Result<()> {
    let node = Node::start()?;
    let mut client = node.healthy().await?;
    let name = node.uuid(0)?;
    let mut command = Command::new(binary("example-provider")?);
    command.args(["--gpu", &name, "--lease", "1", "--beats", "1", "--leaking"]);
    let mut example = Example::start(command, &node)?;
    let wrote = example.until_starts_with("WROTE CoolantLeak")?;
    ensure!(wrote.ends_with("health=DEGRADED"), "{wrote}");
    example.until_starts_with("HEARTBEAT")?;
    ensure!(example.child.wait()?.success(), "{:?}", example.seen);
    let gpu = client.get(&name).await?;
    let status = gpu.status.context("no status")?;
    assert_eq!(status.recommended_action, "CONTACT_SUPPORT");
    assert_eq!(status.recommended_action_condition, "CoolantLeak");
    Ok(())
}
