//! `IncidentService`, `devicectl incidents` and `devicectl gpu clear|explain` against the real daemon: each fault once,
//! however many sources tell of it, and an operator's word on it (design N5, N7, H12).

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use device_api_proto::native::{ConditionStatus, Gpu, Health};
use device_api_tests::{Node, PATIENCE, binary, condition_of, health_of};
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
