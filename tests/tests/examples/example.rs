//! A running example, and what it is to know.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail, ensure};
use device_api_proto::native::{ConditionStatus, Gpu, Health};
use device_api_tests::{Native, Node, PATIENCE, condition_of, health_of};
use rustix::process::Signal;

/// How long an example may be silent before the daemon is asked again what is so.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// On a busy machine a policy misses its time now and then, and is back a moment later; not so often in a row.
const RESTARTS_MAX: u32 = 10;

/// A running example, and what it has printed.
pub(crate) struct Example {
    pub(crate) child: Child,
    lines: Receiver<String>,
    /// Of standard output and standard error, in the order in which they came.
    pub(crate) seen: Vec<String>,
}

impl Example {
    pub(crate) fn start(mut command: Command, node: &Node) -> Result<Self> {
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
    pub(crate) fn until(
        &mut self,
        what: &str,
        mut wanted: impl FnMut(&str) -> bool,
    ) -> Result<String> {
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

    pub(crate) fn until_starts_with(&mut self, start: &str) -> Result<String> {
        self.until(start, |line| line.starts_with(start))
    }

    /// Waits until what it has printed is what the daemon answers: of each GPU the newest version, and what
    /// it says of it. Asks the daemon again, since on a slow machine a policy may have the last word late.
    pub(crate) async fn until_it_knows(
        &mut self,
        node: &Node,
        says: Says,
    ) -> Result<BTreeMap<String, Gpu>> {
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

    /// The lines after the first so many.
    pub(crate) fn since(&self, before: usize) -> &[String] {
        self.seen.get(before..).unwrap_or_default()
    }

    /// Stops the daemon and starts it again, until that falls between two changes; gives what the example has printed since.
    ///
    /// Where something changed between its last event and the daemon's end (a policy that answers again, say), that part of the
    /// history is gone: then it has to list again, and must not go on (W1).
    pub(crate) async fn goes_on_after(
        &mut self,
        node: &mut Node,
        signal: Signal,
        says: Says,
    ) -> Result<Vec<String>> {
        for _ in 0..RESTARTS_MAX {
            let before = self.seen.len();
            node.stop(signal)?;
            node.start_again()?;
            let going_on = node.daemon.wait_for(&["going on from the store"])?;
            let durable = number(&going_on, "version=")?;
            settled(node, true).await?;
            self.until_it_knows(node, says).await?;
            let told = self.seen.iter().filter(|line| line.contains("version="));
            let told = told
                .map(|line| number(line, "version="))
                .collect::<Result<Vec<_>>>()?;
            let saw_all = told.contains(&durable);
            let since = self.since(before);
            let lists = |line: &String| line.starts_with("LIST ") || line.starts_with("EXPIRED");
            ensure!(
                since.iter().any(lists) != saw_all,
                "it had seen all up to {durable}: {saw_all}; then:\n{}",
                since.join("\n")
            );
            if saw_all {
                return Ok(since.to_vec());
            }
        }
        bail!("{RESTARTS_MAX} times something changed while the daemon went down")
    }

    /// The versions of the events it has printed.
    pub(crate) fn versions(&self) -> Result<Vec<i64>> {
        let is_event = |line: &&String| {
            ["ADDED ", "MODIFIED ", "DELETED "]
                .iter()
                .any(|kind| line.starts_with(kind))
        };
        self.seen
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
pub(crate) fn number(line: &str, key: &str) -> Result<i64> {
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
pub(crate) type Says = fn(&Gpu) -> String;

pub(crate) fn native_says(gpu: &Gpu) -> String {
    let status = gpu.status.clone().unwrap_or_default();
    let health = status.health().as_str_name().replace("HEALTH_", "");
    let (version, action) = (gpu.resource_version, status.recommended_action);
    format!("version={version} health={health} action={action}")
}

pub(crate) fn ready(gpu: &Gpu) -> &'static str {
    match condition_of(gpu, "Ready").map(|ready| ready.status()) {
        Some(ConditionStatus::True) => "True",
        Some(ConditionStatus::False) => "False",
        Some(ConditionStatus::Unknown) => "Unknown",
        Some(ConditionStatus::Unspecified) | None => "absent",
    }
}

pub(crate) fn upstream_says(gpu: &Gpu) -> String {
    let action = gpu.status.clone().unwrap_or_default().recommended_action;
    let version = gpu.resource_version;
    format!("version={version} ready={} action={action}", ready(gpu))
}

pub(crate) fn informer_says(gpu: &Gpu) -> String {
    format!("version={} ready={}", gpu.resource_version, ready(gpu))
}

/// Which GPU is broken, so that it is not Healthy after any restart.
pub(crate) const BROKEN: u32 = 5;

/// Waits until all that has to happen after a start has: every GPU was seen, the broken one by its policy.
pub(crate) async fn settled(node: &Node, is_broken: bool) -> Result<()> {
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

pub(crate) async fn list(client: &mut Native) -> Result<BTreeMap<String, Gpu>> {
    let gpus = client.list().await?.gpus;
    Ok(gpus
        .into_iter()
        .map(|gpu| (gpu.name.clone(), gpu))
        .collect())
}

pub(crate) fn said(gpus: &BTreeMap<String, Gpu>, says: Says) -> BTreeMap<String, String> {
    gpus.iter()
        .map(|(name, gpu)| (name.clone(), says(gpu)))
        .collect()
}
