//! `IncidentService`, `devicectl incidents` and `devicectl gpu clear|explain` against the real daemon: each fault once,
//! however many sources tell of it, and an operator's word on it (design N5, N7, H12).

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use device_api_proto::native::{ConditionStatus, Gpu, Health};
use device_api_tests::{Node, PATIENCE, binary, condition_of, health_of};
use nvml_sim::profile::Identity;
use rustix::process::Signal;
use serde_json::Value;

/// What a command came to.
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

fn devicectl(node: &Node, args: &[&str]) -> Result<Said> {
    let output = Command::new(binary("devicectl")?)
        .arg("--socket")
        .arg(node.socket())
        .args(args)
        .output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Said {
        code: output.status.code(),
        out: text(&output.stdout),
        err: text(&output.stderr),
    })
}

/// Does it, and it succeeds.
fn done(node: &Node, args: &[&str]) -> Result<String> {
    let said = devicectl(node, args)?;
    ensure!(said.code == Some(0), "{args:?}: {}{}", said.out, said.err);
    Ok(said.out)
}

/// It fails, and says why.
fn refused(node: &Node, args: &[&str], says: &str) -> Result<()> {
    let said = devicectl(node, args)?;
    ensure!(
        said.code == Some(1),
        "{args:?}: {:?} {}",
        said.code,
        said.out
    );
    ensure!(said.err.contains(says), "{args:?}: {}", said.err);
    Ok(())
}

fn incidents(node: &Node, args: &[&str]) -> Result<Vec<Value>> {
    let args = [&["incidents", "-o", "json"], args].concat();
    let told: Value = serde_json::from_str(&done(node, &args)?)?;
    let all = told.get("incidents").and_then(Value::as_array);
    Ok(all.context("no incidents in the answer")?.clone())
}

/// The first of the incidents that is as wanted: what sources add to one later is no news to a watch.
fn until(node: &Node, args: &[&str], what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let start = Instant::now();
    loop {
        let all = incidents(node, args)?;
        if let Some(found) = all.iter().find(|one| wanted(one)) {
            return Ok(found.clone());
        }
        ensure!(start.elapsed() < PATIENCE, "none is {what}: {all:#?}");
    }
}

fn texts<'a>(incident: &'a Value, of: &str, field: &str) -> BTreeSet<&'a str> {
    let all = incident.get(of).and_then(Value::as_array);
    let texts = all.into_iter().flatten();
    let texts = texts.filter_map(|one| one.get(field).and_then(Value::as_str));
    texts.collect()
}

fn sources(incident: &Value) -> BTreeSet<&str> {
    texts(incident, "evidence", "source")
}

fn stands(gpu: &Gpu, type_: &str) -> bool {
    condition_of(gpu, type_).is_some_and(|it| it.status() == ConditionStatus::True)
}

#[tokio::test]
async fn n5_what_nvml_the_kernel_log_and_field_230_tell_of_is_one_incident() -> Result<()> {
    let node = Node::start()?;
    let mut client = node.healthy().await?;
    let gpu = node.gpus().into_iter().nth(2).context("no GPU 2")?;
    assert_eq!(incidents(&node, &[])?, Vec::<Value>::new());

    let mut watch = client.watch(0).await?;
    let line = format!(
        "NVRM: Xid (PCI:{}): 154, GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)",
        gpu.pci.kernel()
    );
    node.kernel_log([&*line])?;
    let mut sim = node.sim()?;
    sim.recovery_action(2, 1)?;
    sim.xid(2, &[154])?;
    let unhealthy = |gpu: &Gpu| health_of(gpu) == Health::Unhealthy;
    watch.until(&gpu.uuid, "Unhealthy", unhealthy).await?;

    let all_three = BTreeSet::from(["nvml", "kmsg", "field-230"]);
    let told = until(&node, &[], "told of by three sources", |one| {
        sources(one) == all_three
    })?;
    let of_gpu = incidents(&node, &["--gpu", "2"])?;
    assert_eq!(of_gpu.len(), 1, "{of_gpu:#?}");
    assert_eq!(told["gpu"], *gpu.uuid);
    assert_eq!(told["state"], "open");
    assert_eq!(told["drill"], true, "a simulated GPU's are");
    assert!(told["count"].as_u64() >= Some(3), "{told:#}");
    assert!(told["firstSeenTime"].as_str() <= told["lastSeenTime"].as_str());
    assert!(
        texts(&told, "evidence", "text").contains(&*line),
        "the line as the kernel wrote it: {told:#}"
    );
    assert_eq!(
        told["sources"].as_array().map(Vec::len),
        Some(3),
        "{told:#}"
    );
    let judged = until(&node, &[], "judged", |one| {
        texts(one, "verdicts", "judgement").contains("problem")
    })?;
    let owner = &judged["verdicts"][0]["owner"];
    assert_eq!(
        (&owner["kind"], &owner["name"]),
        (&"policy".into(), &"xid-policy".into())
    );
    assert_eq!(owner["digest"].as_str().map(str::len), Some(64), "{owner}");
    assert_eq!(incidents(&node, &["--gpu", "3"])?, Vec::<Value>::new());
    let table = done(&node, &["incidents"])?;
    assert!(
        table.contains(&*gpu.uuid) && table.contains("open"),
        "{table}"
    );

    // What it raised is cleared by a reset, and the incident with it.
    sim.gpu_reset(2)?;
    let healthy = |gpu: &Gpu| health_of(gpu) == Health::Healthy;
    watch.until(&gpu.uuid, "Healthy again", healthy).await?;
    let closed = until(&node, &["--all"], "closed", |one| {
        one["id"] == told["id"] && one["state"] == "closed"
    })?;
    assert!(closed["closedTime"].is_string(), "{closed:#}");
    let by = closed["closedBy"].as_str().unwrap_or_default();
    assert!(["gpu-reset", "recovery-none"].contains(&by), "{closed:#}");
    assert_eq!(incidents(&node, &["--gpu", "2"])?, Vec::<Value>::new());
    Ok(())
}

#[tokio::test]
async fn n5_a_gpu_off_the_bus_has_its_xid_in_either_order_and_numbers_go_on_after_a_kill()
-> Result<()> {
    let mut node = Node::start()?;
    node.healthy().await?;
    let fallen = |node: &Node, at: usize| -> Result<()> {
        let pci = node.gpus()[at].pci.kernel();
        let line = format!("NVRM: Xid (PCI:{pci}): 79, pid=0, GPU has fallen off the bus.");
        node.kernel_log([&*line])
    };
    let mut greatest = 0;
    for (at, lost_first) in [(1_usize, true), (2, false)] {
        let gpu = u32::try_from(at)?;
        let name = at.to_string();
        let by = |node: &Node, lost: bool| match lost {
            true => node.sim()?.lost(gpu).map(drop).map_err(Into::into),
            false => fallen(node, at),
        };
        for (told, lost) in [(1, lost_first), (2, !lost_first)] {
            by(&node, lost)?;
            let both = |one: &Value| sources(one).len() == told;
            until(&node, &["--gpu", &name], "told of", both)?;
        }
        let one = incidents(&node, &["--gpu", &name])?;
        let shown = one.iter().map(|one| (&one["kind"], &one["xid"]));
        let xid: (Value, Value) = ("xid".into(), 79.into());
        assert_eq!(shown.collect::<Vec<_>>(), [(&xid.0, &xid.1)], "{one:#?}");
        greatest = greatest.max(one[0]["id"].as_u64().context("no number")?);
    }
    node.stop(Signal::KILL)?;
    node.start_again()?;
    node.daemon.wait_for(&["NVML is in use"])?;
    node.sim()?.xid(3, &[31])?;
    let next = until(&node, &["--gpu", "3"], "31", |one| one["xid"] == 31)?;
    assert!(next["id"].as_u64() > Some(greatest), "{next:#}");
    Ok(())
}

#[tokio::test]
async fn n7_a_clear_by_hand_is_what_explain_says_to_run_and_is_audited() -> Result<()> {
    let node = Node::start()?;
    let mut client = node.healthy().await?;
    let name = node.uuid(1)?;
    let mut watch = client.watch(0).await?;
    node.sim()?.xid(1, &[119])?;
    let gpu = watch
        .until(&name, "told of", |gpu| stands(gpu, "XidCriticalError"))
        .await?;
    let raised = condition_of(&gpu, "XidCriticalError")
        .context("gone")?
        .incident;

    let explained = done(&node, &["gpu", "explain", "1"])?;
    let wanted = format!("devicectl gpu clear {name} XidCriticalError --reason WHY");
    assert!(explained.contains(&wanted), "{explained}");
    let reset = format!("nvidia-smi --gpu-reset -i {}", node.gpus()[1].pci);
    assert!(explained.contains(&reset), "{explained}");
    for said in ["policy xid-policy", "Evidence: nvml", "Clears:"] {
        assert!(explained.contains(said), "no {said:?} in\n{explained}");
    }

    refused(
        &node,
        &["gpu", "clear", "1", "NoSuchThing", "--reason", "x"],
        "no condition \"NoSuchThing\"",
    )?;
    refused(
        &node,
        &["gpu", "clear", "1", "Ready", "--reason", "x"],
        "Ready",
    )?;
    refused(
        &node,
        &["gpu", "clear", "99", "X", "--reason", "x"],
        "\"99\" not found",
    )?;

    let why = "board was reseated, ticket 4711";
    let clear = ["gpu", "clear", "1", "XidCriticalError", "--reason", why];
    let said = done(&node, &clear)?;
    assert!(
        said.contains("XidCriticalError of") && said.contains("is cleared"),
        "{said}"
    );
    watch
        .until(&name, "cleared", |gpu| !stands(gpu, "XidCriticalError"))
        .await?;
    let line = node
        .daemon
        .wait_for(&["audit", "ClearCondition", "outcome=\"OK\""])?;
    for said in [
        "identity=\"uid:",
        &*name,
        why,
        "condition=\"XidCriticalError\"",
    ] {
        assert!(line.contains(said), "no {said:?} in {line}");
    }
    let closed = until(&node, &["--all"], "closed", |one| {
        one["id"] == raised && one["state"] == "closed"
    })?;
    assert_eq!(closed["closedBy"], "operator", "{closed:#}");
    refused(&node, &clear, "is no problem")?;

    // Seen again, it stands again.
    node.sim()?.xid(1, &[119])?;
    watch
        .until(&name, "told of again", |gpu| {
            stands(gpu, "XidCriticalError")
        })
        .await?;
    Ok(())
}

#[tokio::test]
async fn n7_a_floor_that_was_cleared_by_hand_comes_back_when_its_fault_is_seen_again() -> Result<()>
{
    // Without policies the floor speaks for itself.
    let node = Node::builder()?.flag("safe-mode", "true").start()?;
    let mut client = node.native().await?;
    let name = node.uuid(4)?;
    let mut watch = client.watch(0).await?;
    watch.until(&name, "there", |_| true).await?;
    let floored = |gpu: &Gpu| stands(gpu, "FaultFloor");
    node.sim()?.xid(4, &[79])?;
    let gpu = watch.until(&name, "on the floor", floored).await?;
    assert_eq!(health_of(&gpu), Health::Unhealthy);

    let clear = ["gpu", "clear", &*name, "FaultFloor", "--reason", "a drill"];
    done(&node, &clear)?;
    assert!(
        !floored(&client.get(&name).await?),
        "a read after the answer sees it"
    );
    watch.until(&name, "cleared", |gpu| !floored(gpu)).await?;
    node.sim()?.xid(4, &[79])?;
    watch.until(&name, "on the floor again", floored).await?;
    Ok(())
}

/// A port that the simulated NVSwitch 0000:07:00.0 has: each H100 is at five of it side by side, so GPU 6 at this one.
const PORT_OF_GPU_6: u32 = 30;

#[tokio::test]
async fn n4_a_fatal_sxid_reaches_the_gpu_at_that_port_and_one_of_the_whole_switch_all_behind_it()
-> Result<()> {
    let mut node = Node::start()?;
    node.healthy().await?;
    node.stop(Signal::TERM)?;
    node.start_again()?;
    let mut client = node.healthy().await?;
    // Its inventory is known from before, and names no such switch; that a GPU is at that address is chance.
    node.kernel_log([
        "nvidia-nvswitch0: SXid (PCI:0000:c3:00.0): 24007, Fatal, Link 28 sourcetrack timeout error (First)",
    ])?;
    node.daemon
        .wait_for(&["NVSwitch error, of no GPU", "0000:c3:00.0", "drill=true"])?;

    let switch = "nvidia-nvswitch0: SXid (PCI:0000:07:00.0)";
    let first = format!("{switch}: 20034, Fatal, Link {PORT_OF_GPU_6} LTSSM Fault Up");
    let zeros = "0x00000000, ".repeat(7);
    let severity = format!("Severity 1 Engine instance {PORT_OF_GPU_6} Sub-engine instance 00");
    let mut watch = client.watch(0).await?;
    node.kernel_log([
        &*first,
        &format!("{switch}: 20034, {severity}"),
        &format!("{switch}: 20034, Data {{0x10000000, {zeros}0x00000000}}"),
        &format!("{switch}: 22013, Non-fatal, Link 0 Minion Link DLREQ interrupt"),
    ])?;
    let hit = node.uuid(6)?;
    let unhealthy = |gpu: &Gpu| health_of(gpu) == Health::Unhealthy;
    let gpu = watch.until(&hit, "Unhealthy", unhealthy).await?;
    ensure!(stands(&gpu, "NvSwitchError"), "{gpu:#?}");
    let status = gpu.status.as_ref().context("no status")?;
    assert_eq!(status.recommended_action, "COMPONENT_RESET");
    let told = until(&node, &[], "of the fatal one", |one| one["sxid"] == 20034)?;
    assert_eq!(told["gpu"], *hit);
    assert_eq!(told["count"], 1, "three lines: {told:#}");
    assert_eq!(told["drill"], true);
    assert_eq!(texts(&told, "evidence", "text"), BTreeSet::from([&*first]));
    let mild = until(&node, &[], "of the mild one", |one| one["sxid"] == 22013)?;
    assert_eq!(mild["gpu"], *node.uuid(0)?);
    assert_eq!(incidents(&node, &[])?.len(), 2);
    for Identity { uuid, .. } in node.gpus() {
        let is_hit = uuid == hit;
        let expected = [Health::Healthy, Health::Unhealthy][usize::from(is_hit)];
        assert_eq!(health_of(&client.get(&uuid).await?), expected, "{uuid}");
    }
    let explained = done(&node, &["gpu", "explain", "6"])?;
    assert!(explained.contains("nvidia-smi --gpu-reset"), "{explained}");

    node.kernel_log([&*format!("{switch}: 10003, Fatal, unhandled interrupt")])?;
    for gpu in node.gpus() {
        let mut watch = client.watch(0).await?;
        watch.until(&gpu.uuid, "Unhealthy", unhealthy).await?;
    }
    let all = incidents(&node, &[])?;
    let of_switch = all.iter().filter(|one| one["sxid"] == 10003);
    let gpus: BTreeSet<_> = of_switch.map(|one| one["gpu"].as_str()).collect();
    assert_eq!((gpus.len(), all.len()), (8, 10), "{all:#?}");
    Ok(())
}

/// Waits are as short as they may be.
const SOON: &str = "
policies:
  - {name: xid-policy}
  - name: nvml-health
    config: {pcie_settle_s: 1, nvlink_settle_s: 1, fabric_settle_s: 1}
";

/// The incident that is open of a GPU: one.
fn only(node: &Node, gpu: u32) -> Result<Value> {
    let mut all = incidents(node, &["--gpu", &gpu.to_string()])?;
    ensure!(all.len() == 1, "of GPU {gpu}: {all:#?}");
    all.pop().context("none")
}

/// The number that a GPU's condition names.
fn named(gpu: &Gpu, condition: &str) -> Result<u64> {
    let condition = condition_of(gpu, condition).context("no such condition")?;
    Ok(condition.incident)
}

#[tokio::test]
async fn n5_a_fault_is_one_incident_where_a_policy_waits_too() -> Result<()> {
    let node = Node::start()?;
    let mut client = node.healthy().await?;
    let name = node.uuid(4)?;
    let mut watch = client.watch(0).await?;
    node.sim()?.xid(4, &[48])?;
    // First it waits for a 63 or a 94, and the timer of that brings the verdict.
    let gpu = watch
        .until(&name, "uncontained", |gpu| stands(gpu, "XidCriticalError"))
        .await?;
    let incident = only(&node, 4)?;
    assert_eq!(incident["xid"], 48);
    assert_eq!(incident["id"], named(&gpu, "XidCriticalError")?);
    assert!(
        texts(&incident, "verdicts", "condition").contains("XidCriticalError"),
        "{incident:#}"
    );
    assert!(
        !texts(&incident, "evidence", "text").contains(""),
        "{incident:#}"
    );
    let explained = done(&node, &["gpu", "explain", "4"])?;
    assert!(explained.contains(": a timer, set on: "), "{explained}");
    Ok(())
}

#[tokio::test]
async fn n5_what_readings_tell_of_is_one_incident_with_what_was_read() -> Result<()> {
    let builder = Node::builder()?;
    let file = builder.dir().join("policies.yaml");
    std::fs::write(&file, SOON)?;
    let node = builder
        .flag("policies-file", file.to_string_lossy())
        .start()?;
    let mut client = node.healthy().await?;
    // What is set, the condition, and what is told of it.
    let told = [
        ("temperature.gpu", 89, "Temperature", "temperature."),
        (
            "row-remap.pending",
            1,
            "RowRemap",
            "row-remap.pending=1, before 0",
        ),
        (
            "pcie.link-width",
            8,
            "PcieLink",
            "a timer, set on: pcie.link-width=8, before 16",
        ),
        ("nvlink.3.up", 0, "NvLink", "nvlink.active-mask="),
        ("fabric.status", 1, "Fabric", "fabric.status=1, before 0"),
    ];
    let mut sim = node.sim()?;
    for (gpu, (figure, value, ..)) in (0..).zip(told) {
        sim.set(gpu, &[(figure, value)])?;
    }
    let mut ids = Vec::new();
    for (at, (_, _, condition, evidence)) in (0..).zip(told) {
        let name = node.uuid(at)?;
        let mut watch = client.watch(0).await?;
        let gpu = watch
            .until(&name, condition, |gpu| stands(gpu, condition))
            .await?;
        let incident = only(&node, at)?;
        assert_eq!(incident["kind"], "reading");
        assert_eq!(incident["id"], named(&gpu, condition)?);
        let texts = texts(&incident, "evidence", "text");
        let is_told = texts.iter().any(|text| text.starts_with(evidence));
        ensure!(is_told, "{condition}: {texts:?}");
        let explained = done(&node, &["gpu", "explain", &at.to_string()])?;
        ensure!(explained.contains(evidence), "{explained}");
        ids.push(incident["id"].clone());
    }
    // When the GPUs are found again it is still so.
    sim.unload()?;
    let gone = |gpu: &Gpu| {
        let reached = condition_of(gpu, "NvmlReachable");
        reached.is_some_and(|it| it.status() == ConditionStatus::Unknown)
    };
    let mut watch = client.watch(0).await?;
    let last = node.uuid(7)?;
    watch.until(&last, "without a driver", gone).await?;
    sim.load()?;
    for (at, (_, _, condition, _)) in (0..).zip(told) {
        let name = node.uuid(at)?;
        let is_back = |gpu: &Gpu| {
            let reached = condition_of(gpu, "NvmlReachable");
            reached.is_some_and(|it| it.status() == ConditionStatus::True)
        };
        let mut watch = client.watch(0).await?;
        let back = watch.until(&name, "back", is_back).await?;
        ensure!(stands(&back, condition), "{condition}: {back:?}");
    }
    for (at, id) in (0..).zip(ids) {
        assert_eq!(only(&node, at)?["id"], id);
    }
    Ok(())
}

#[tokio::test]
async fn n5_that_an_operator_lets_go_of_the_driver_is_no_incident() -> Result<()> {
    let node = Node::start()?;
    let mut client = node.healthy().await?;
    done(
        &node,
        &["nvml", "release", "--for", "reset", "--ttl", "10m"],
    )?;
    let released = |gpu: &Gpu| {
        condition_of(gpu, "NvmlReachable").is_some_and(|reached| reached.reason == "Released")
    };
    for gpu in node.gpus() {
        let mut watch = client.watch(0).await?;
        let gpu = watch.until(&gpu.uuid, "let go of", released).await?;
        assert_eq!(named(&gpu, "NvmlReachable")?, 0);
    }
    assert_eq!(incidents(&node, &["--all"])?, Vec::<Value>::new());
    let explained = done(&node, &["gpu", "explain", "2"])?;
    assert!(explained.contains("devicectl nvml attach"), "{explained}");
    assert!(!explained.contains("gpu clear"), "{explained}");
    done(&node, &["nvml", "attach"])?;
    let name = node.uuid(2)?;
    let back = |gpu: &Gpu| !released(gpu) && health_of(gpu) == Health::Healthy;
    let mut watch = client.watch(0).await?;
    watch.until(&name, "back", back).await?;
    assert_eq!(incidents(&node, &["--all"])?, Vec::<Value>::new());
    Ok(())
}

#[tokio::test]
async fn n5_the_recovery_action_follows_the_xid_that_it_is_asked_for() -> Result<()> {
    let node = Node::start()?;
    let mut client = node.healthy().await?;
    let name = node.uuid(3)?;
    let mut watch = client.watch(0).await?;
    let mut sim = node.sim()?;
    sim.xid(3, &[79])?;
    watch
        .until(&name, "off the bus", |gpu| stands(gpu, "XidCriticalError"))
        .await?;
    sim.recovery_action(3, 2)?;
    watch
        .until(&name, "asked for", |gpu| {
            stands(gpu, "RecoveryActionRequired")
        })
        .await?;
    let fallen = until(&node, &[], "of XID 79", |one| one["xid"] == 79)?;
    let asked = until(&node, &[], "of the action", |one| {
        one["root"] == fallen["id"]
    })?;
    assert_ne!(asked["id"], fallen["id"]);
    assert_eq!(incidents(&node, &[])?.len(), 2);
    Ok(())
}

#[tokio::test]
async fn n5_what_is_well_or_unknown_names_no_incident_and_explain_says_when_it_is_known_again()
-> Result<()> {
    let node = Node::start()?;
    let mut client = node.healthy().await?;
    let name = node.uuid(3)?;
    let names = |gpu: &Gpu| -> Vec<String> {
        let status = gpu.status.clone().unwrap_or_default();
        let named = status.conditions.into_iter().filter(|it| it.incident != 0);
        named.map(|it| it.r#type).collect()
    };
    assert_eq!(names(&client.get(&name).await?), Vec::<String>::new());
    let mut watch = client.watch(0).await?;
    let mut sim = node.sim()?;
    sim.hang(Some(3), "nvmlDeviceGetPowerUsage")?;
    let hangs =
        |gpu: &Gpu| condition_of(gpu, "NvmlReachable").is_some_and(|it| it.reason == "CallHangs");
    let gpu = watch.until(&name, "Unknown: a call hangs", hangs).await?;
    assert_eq!(names(&gpu), Vec::<String>::new());
    assert_eq!(incidents(&node, &["--all"])?, Vec::<Value>::new());
    let said = done(&node, &["explain", "3"])?;
    assert!(
        said.contains("Clears:   by itself, once the call has returned"),
        "{said}"
    );
    sim.unhang()?;
    let answers =
        |gpu: &Gpu| condition_of(gpu, "NvmlReachable").is_some_and(|it| it.reason == "Answers");
    let gpu = watch.until(&name, "answering again", answers).await?;
    assert_eq!(names(&gpu), Vec::<String>::new());
    Ok(())
}
