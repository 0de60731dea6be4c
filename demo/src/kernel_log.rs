//! Real kernel-log lines, moved onto the simulated node, and what became of each.

use std::collections::HashMap;

use anyhow::{Context as _, Result, bail, ensure};
use device_api_proto::native::{Condition, Gpu};
use device_api_tests::condition_of;

use crate::narrator;
use crate::story::{Scene, is_problem};

/// Lines from operators' reports, projects' test data and the vendor's documentation.
const SAMPLES: &str = include_str!("../../data/xid-kmsg-samples.tsv");
const CATALOG: &str = include_str!("../../data/xid-catalog.csv");

/// A code that no catalogue has: its condition tells that all lines before it were taken in.
const LAST_CODE: u64 = 9999;

/// One sample, moved.
struct Line {
    text: String,
    /// The simulated GPU it was moved to; `None` where the line names no GPU.
    gpu: Option<u32>,
    kind: Kind,
}

enum Kind {
    Xid(u64),
    FallenOffTheBus,
    /// An NVSwitch's, or no fault at all.
    Other,
}

/// Feeds the samples through the kernel log and checks what the node makes of each.
pub(crate) async fn tell(scene: &mut Scene) -> Result<()> {
    let lines = moved(
        &scene
            .node
            .gpus()
            .iter()
            .map(|gpu| gpu.pci.kernel())
            .collect::<Vec<_>>(),
    )?;
    narrator::step(
        "The kernel log: real lines from real machines",
        "The second source of XIDs, and the only one once NVML does not answer. Each line is moved onto one of our GPUs.",
    );
    let last_gpu = scene.node.gpus().last().context("no GPU")?.clone();
    let last = format!(
        "NVRM: Xid (PCI:{}): {LAST_CODE}, end of the samples",
        last_gpu.pci.kernel()
    );
    let mut watch = scene.watch().await?;
    scene.node.kernel_log(
        lines
            .iter()
            .map(|line| line.text.as_str())
            .chain([last.as_str()]),
    )?;
    narrator::did(&format!("{} lines written to the kernel log", lines.len()));
    let taken_in = |gpu: &Gpu| {
        condition_of(gpu, "XidDegraded").is_some_and(|condition| mentions(condition, LAST_CODE))
    };
    watch
        .until(&last_gpu.uuid, "judged for the last line", taken_in)
        .await?;

    // On a busy machine the vendor's class may stand in for a while until the policy is asked again.
    let judged = |gpu: &Gpu| !condition_of(gpu, "PolicyFallback").is_some_and(is_problem);
    for gpu in scene.node.gpus() {
        let mut watch = scene.watch().await?;
        watch
            .until(&gpu.uuid, "judged by the policies", judged)
            .await?;
    }
    let gpus: Vec<Gpu> = scene.client.list().await?.gpus;
    let by_index: HashMap<u32, &Gpu> = gpus
        .iter()
        .filter_map(|gpu| Some((gpu.spec.as_ref()?.index?, gpu)))
        .collect();
    let advice = advice()?;
    narrator::say("     GPU  WHAT      BECAME                                        LINE");
    for line in &lines {
        let became = match (&line.kind, line.gpu.and_then(|gpu| by_index.get(&gpu))) {
            (Kind::Xid(code), Some(gpu)) => {
                xid_became(*code, gpu, &advice).with_context(|| line.text.clone())?
            }
            (Kind::FallenOffTheBus, Some(gpu)) => {
                described(gpu, "GpuLost", None).with_context(|| {
                    format!("GPU {} was not lost: {}", narrator::index(gpu), line.text)
                })?
            }
            (Kind::Other, _) => "no fault of a GPU".to_owned(),
            (Kind::Xid(_) | Kind::FallenOffTheBus, None) => {
                bail!("not moved onto a GPU: {}", line.text)
            }
        };
        show(line, &became);
    }
    narrator::saw("every line became what the vendor's catalogue says");
    narrator::table(&gpus);
    Ok(())
}

fn show(line: &Line, became: &str) {
    let gpu = line
        .gpu
        .map_or_else(|| "-".to_owned(), |gpu| gpu.to_string());
    let what = match line.kind {
        Kind::Xid(code) => format!("XID {code}"),
        Kind::FallenOffTheBus => "lost".to_owned(),
        Kind::Other => "-".to_owned(),
    };
    let text: String = line.text.chars().take(100).collect();
    narrator::say(&format!("     {gpu:>3}  {what:<8}  {became:<44}  {text}"));
}

/// The condition that tells of an XID, which must be of the type that the vendor's advice asks for.
fn xid_became(code: u64, gpu: &Gpu, advice: &HashMap<u64, String>) -> Result<String> {
    let advice = advice.get(&code).map_or("", String::as_str);
    let types: &[&str] = match (code, advice) {
        (_, "RESTART_APP" | "IGNORE" | "WORKFLOW_XID_45") => &["XidApplicationError"],
        (_, "RESET_GPU" | "RESTART_BM" | "RESTART_VM") => &["XidCriticalError"],
        (154, _) => &["RecoveryActionRequired"],
        // Decoded from the text, by driver generation; or decided by what follows.
        (48 | 74 | 144..=150, _) => &["XidApplicationError", "XidDegraded", "XidCriticalError"],
        _ => &["XidDegraded"],
    };
    let code_in_text = (code != 154).then_some(code);
    let became = types
        .iter()
        .find_map(|type_| described(gpu, type_, code_in_text));
    became.with_context(|| {
        let said: Vec<_> = types
            .iter()
            .filter_map(|type_| condition_of(gpu, type_))
            .map(|c| &c.message)
            .collect();
        format!(
            "XID {code} ({advice}) is in none of {types:?} of GPU {}: {said:?}",
            narrator::index(gpu)
        )
    })
}

fn described(gpu: &Gpu, type_: &str, code: Option<u64>) -> Option<String> {
    let condition = condition_of(gpu, type_).filter(|condition| is_problem(condition))?;
    if !code.is_none_or(|code| mentions(condition, code)) {
        return None;
    }
    Some(format!(
        "{type_}: {}",
        code.map_or(&*condition.reason, |code| reason_for(condition, code))
    ))
}

/// Why the code stands: the condition's reason, or, behind another code, the one beside it.
fn reason_for(condition: &Condition, code: u64) -> &str {
    let behind = condition
        .message
        .split_once("Also standing:")
        .and_then(|(_, others)| {
            let (_, after) = others.split_once(&format!(" {code} ("))?;
            after.split(')').next()
        });
    behind.unwrap_or(&condition.reason)
}

/// Whether the message tells of the code: as the newest, or as one that also stands.
fn mentions(condition: &Condition, code: u64) -> bool {
    let message = &condition.message;
    [
        format!("XID {code} "),
        format!("XID {code}:"),
        format!(" {code} ("),
    ]
    .iter()
    .any(|words| message.contains(words))
}

fn advice() -> Result<HashMap<u64, String>> {
    let mut reader = csv::Reader::from_reader(CATALOG.as_bytes());
    let at = reader
        .headers()?
        .iter()
        .position(|column| column == "immediate_action")
        .context("no immediate_action")?;
    let rows = reader.records().map(|row| {
        let row = row?;
        let code = row.get(0).context("no code")?.parse()?;
        Ok((code, row.get(at).context("no action")?.to_owned()))
    });
    rows.collect()
}

/// The samples, each on one of the node's addresses: the same address always moves to the same GPU.
fn moved(addresses: &[String]) -> Result<Vec<Line>> {
    let mut taken: HashMap<String, usize> = HashMap::new();
    let mut lines = Vec::new();
    // One report of a GPU off the bus takes three lines: the first has its address.
    let mut reported = None;
    for row in SAMPLES.lines().filter(|row| !row.starts_with('#')) {
        let (_, text) = row.split_once('\t').context("a sample without a class")?;
        let kind = kind_of(text);
        if text.contains("fallen off the bus and is not responding") {
            lines.push(Line {
                text: text.to_owned(),
                gpu: reported.take(),
                kind: Kind::FallenOffTheBus,
            });
            continue;
        }
        if matches!(kind, Kind::Other)
            && !text.contains("GPU at")
            && !text.contains("The NVIDIA GPU")
        {
            lines.push(Line {
                text: text.to_owned(),
                gpu: None,
                kind,
            });
            continue;
        }
        let Some(found) = address_in(text) else {
            lines.push(Line {
                text: text.to_owned(),
                gpu: None,
                kind: Kind::Other,
            });
            continue;
        };
        let next = taken.len() % addresses.len();
        let gpu = *taken.entry(found.to_owned()).or_insert(next);
        let address = addresses.get(gpu).context("no such GPU")?;
        // The line that names a UUID would tell of another machine's.
        if text.contains("GPU at") {
            continue;
        }
        let gpu = u32::try_from(gpu)?;
        if text.contains("The NVIDIA GPU") {
            reported = Some(gpu);
        }
        lines.push(Line {
            text: text.replace(found, address),
            gpu: Some(gpu),
            kind,
        });
    }
    ensure!(lines.len() > 50, "only {} samples", lines.len());
    Ok(lines)
}

fn kind_of(text: &str) -> Kind {
    let code = || {
        let after = text.split_once(": Xid (")?.1.split_once("): ")?.1;
        after
            .split(|c: char| !c.is_ascii_digit())
            .next()?
            .parse()
            .ok()
    };
    match code() {
        Some(code) => Kind::Xid(code),
        None if text.contains("GPU has fallen off the bus") => Kind::FallenOffTheBus,
        None => Kind::Other,
    }
}

/// The PCI address in a line, without its function: hex digits and colons after `PCI:`, `Xid (`
/// or `GPU `.
fn address_in(text: &str) -> Option<&str> {
    ["PCI:", "Xid (", "NVRM: GPU ", "The NVIDIA GPU "]
        .iter()
        .find_map(|before| {
            let after = text.split_once(before)?.1;
            let end = after.find(|c: char| !c.is_ascii_hexdigit() && c != ':')?;
            after
                .get(..end)
                .filter(|address| address.contains(':') && address.len() >= 7)
        })
}
