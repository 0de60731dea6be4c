//! An application's own mistake on a GPU: provoked, and followed to the consumer.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use device_api_proto::native::Health;
use device_api_tests::{Node, health_of};

use crate::report::{Line, Section};

/// Exit code of the program: no CUDA here.
const NO_CUDA: i32 = 2;

/// The program that makes the mistake, in C.
const PROGRAM: &str = include_str!("../provoke.c");

/// How a mistake is made on a GPU.
#[derive(Clone, Debug)]
pub(crate) enum Provoke {
    /// With the program that is built of our source.
    Program,
    /// With a command of the caller's, which gets the UUID as its last argument.
    Command(String),
}

/// A daemon of ours over real NVML, a mistake on one GPU, and what comes of it. NVML's events are all that it hears:
/// its kernel log is an empty FIFO.
///
/// # Errors
/// The daemon does not come up, or the mistake fails otherwise than for want of CUDA. All else is in the section.
pub(crate) fn check(library: Option<&Path>, uuid: &str, provoke: &Provoke) -> Result<Section> {
    let builder = Node::builder()?;
    let node = match library {
        Some(library) => builder
            .without_nvml()
            .flag("nvml-library", library.to_string_lossy()),
        None => builder.with_nvml_of_the_machine(),
    };
    let node = node.start()?;
    let runtime = tokio::runtime::Runtime::new().context("starting a runtime")?;
    let before = runtime.block_on(health(&node, uuid))?;
    let is_usable = is_usable(before);
    let mut lines = vec![Line::of(
        "health before",
        before.as_str_name(),
        USABLE,
        is_usable,
    )];
    match make(provoke, uuid, node.dir())? {
        Made::Yes => lines.extend(runtime.block_on(follow(&node, uuid))),
        Made::No(why) => lines.push(Line::skipped("an application's XID, end to end", why)),
    }
    Ok(Section {
        title: "An application's mistake, end to end".to_owned(),
        lines,
    })
}

/// What a GPU is to be before an application's mistake, and after it.
const USABLE: &str = "HEALTH_HEALTHY or HEALTH_DEGRADED";

fn is_usable(health: Health) -> bool {
    matches!(health, Health::Healthy | Health::Degraded)
}

async fn health(node: &Node, uuid: &str) -> Result<Health> {
    let known = |gpu: &_| health_of(gpu) != Health::Unknown;
    let mut watch = node.native().await?.watch(0).await?;
    watch.until(uuid, "known", known).await?;
    Ok(health_of(&node.native().await?.get(uuid).await?))
}

/// Whether the mistake was made.
enum Made {
    Yes,
    No(String),
}

fn make(provoke: &Provoke, uuid: &str, room: &Path) -> Result<Made> {
    let mut command = match provoke {
        Provoke::Program => Command::new(build(room)?),
        Provoke::Command(command) => {
            let mut words = command.split_whitespace();
            let mut program = Command::new(words.next().context("no command to provoke with")?);
            program.args(words);
            program
        }
    };
    let output = command
        .arg(uuid)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("running {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    match output.status.code() {
        Some(0) => Ok(Made::Yes),
        Some(NO_CUDA) => Ok(Made::No(said)),
        _ => bail!("{command:?}: {}: {said}", output.status),
    }
}

fn build(room: &Path) -> Result<PathBuf> {
    let (source, program) = (room.join("provoke.c"), room.join("provoke"));
    std::fs::write(&source, PROGRAM).with_context(|| format!("writing {}", source.display()))?;
    let mut compiler = Command::new("cc");
    compiler.arg("-o").arg(&program).arg(&source).arg("-ldl");
    let output = compiler
        .output()
        .context("running cc: install a C compiler")?;
    if !output.status.success() {
        bail!("{compiler:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(program)
}

async fn follow(node: &Node, uuid: &str) -> Vec<Line> {
    let opened = node
        .daemon
        .wait_for(&["incident opened", uuid, "fault=xid "]);
    let code = opened.as_deref().ok().and_then(code_of);
    let is_it = code.is_some_and(|code| CODES.contains(&code));
    let wanted = format!("an XID of these: {CODES:?}");
    let told = match (code, opened) {
        (Some(code), _) => format!("XID {code}"),
        (None, Ok(line)) => line,
        (None, Err(error)) => error.to_string(),
    };
    // A read waits for the decision (design C2): no need to wait for it here.
    let after = match node.native().await {
        Ok(mut client) => client.get(uuid).await.map(|gpu| health_of(&gpu)),
        Err(error) => Err(error),
    };
    let shown = match &after {
        Ok(after) => after.as_str_name().to_owned(),
        Err(error) => error.to_string(),
    };
    vec![
        Line::of("NVML's event, as an incident", told, wanted, is_it),
        Line::of("health after", shown, USABLE, after.is_ok_and(is_usable)),
    ]
}

/// What an illegal access comes to: MMU fault, graphics exception, and the stop of the channel that follows.
const CODES: [u64; 3] = [31, 13, 43];

/// The XID of an incident's line in the log.
fn code_of(line: &str) -> Option<u64> {
    let (_, after) = line.split_once("fault=xid ")?;
    let digits = after.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}
