//! `NvmlService`, `devicectl nvml` and the inventory of `devicectl gpu describe`, against the real daemon and the
//! simulated library (design N2; issue 5's inventory).

use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use device_api_proto::native::{Gpu, Health};
use device_api_tests::{Node, PATIENCE, binary, health_of};
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

/// Does it, and it succeeds; what it prints as JSON.
fn json(node: &Node, args: &[&str]) -> Result<Value> {
    let said = devicectl(node, &[args, &["-o", "json"]].concat())?;
    ensure!(said.code == Some(0), "{args:?}: {}{}", said.out, said.err);
    Ok(serde_json::from_str(&said.out)?)
}

/// How NVML is, once it is as wanted.
fn until(node: &Node, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let start = Instant::now();
    loop {
        let status = json(node, &["nvml", "status"])?;
        if wanted(&status) {
            return Ok(status);
        }
        ensure!(start.elapsed() < PATIENCE, "NVML is not {what}: {status:#}");
    }
}

fn is(health: Health) -> impl FnMut(&Gpu) -> bool {
    move |gpu| health_of(gpu) == health
}

#[tokio::test]
async fn n2_what_is_let_go_of_is_unknown_after_a_while_until_it_is_attached() -> Result<()> {
    let builder = Node::builder()?.flag("nvml-stale-after", "300ms");
    let node = builder.start()?;
    let mut client = node.healthy().await?;
    let name = node.uuid(3)?;
    let ready = json(&node, &["nvml", "status"])?;
    assert_eq!(
        (&ready["state"], &ready["gpus"]),
        (&"ready".into(), &8.into())
    );
    assert_eq!(ready["driverVersion"], "580.82.07");
    assert_eq!(ready["hungCalls"], Value::Array(Vec::new()));

    let mut watch = client.watch(0).await?;
    let released = json(&node, &["nvml", "release", "--for", "reset", "--ttl", "1h"])?;
    assert_eq!(
        (&released["state"], &released["releasePurpose"]),
        (&"released".into(), &"reset".into())
    );
    assert!(released["releasedUntil"].is_string(), "{released:#}");
    let line = node
        .daemon
        .wait_for(&["audit", "ReleaseNvml", "outcome=\"OK\""])?;
    for said in ["because=\"reset\"", "ttl=3600s", "identity=\"uid:"] {
        assert!(line.contains(said), "no {said} in {line}");
    }
    assert!(
        node.metrics()?
            .contains("device_api_server_nvml_health_monitor_running 0"),
        "nobody of ours has it open"
    );
    watch
        .until(&name, "Unknown, as stale", is(Health::Unknown))
        .await?;
    // The kernel log is heard meanwhile.
    let lost = format!(
        "NVRM: Xid (PCI:{}): 79, GPU has fallen off the bus.",
        node.gpus()[3].pci.kernel()
    );
    node.kernel_log([&*lost])?;
    watch
        .until(&name, "told of by the kernel", is(Health::Unhealthy))
        .await?;

    let other = node.uuid(5)?;
    let mut watch = client.watch(0).await?;
    watch
        .until(&other, "Unknown, as stale", is(Health::Unknown))
        .await?;
    let attached = json(&node, &["nvml", "attach"])?;
    assert_eq!(attached["state"], "ready", "it is waited for");
    node.daemon
        .wait_for(&["audit", "AttachNvml", "outcome=\"OK\""])?;
    watch
        .until(&other, "read again", is(Health::Healthy))
        .await?;
    Ok(())
}

#[tokio::test]
async fn n2_an_attach_that_finds_no_driver_says_why_and_fails() -> Result<()> {
    let node = Node::start()?;
    node.healthy().await?;
    json(
        &node,
        &["nvml", "release", "--for", "upgrade", "--ttl", "1h"],
    )?;
    node.sim()?.unload()?;
    let said = devicectl(&node, &["nvml", "attach"])?;
    assert_eq!(said.code, Some(1), "{}", said.out);
    assert!(said.out.contains("State:      missing"), "{}", said.out);
    assert!(
        said.err.contains("NVML is not in use: ") && said.err.contains("DRIVER_NOT_LOADED"),
        "{}",
        said.err
    );
    assert_eq!(said.err.lines().count(), 1, "{}", said.err);
    let words = ["AttachNvml", "why=\"NVML is not in use: "];
    node.daemon.wait_for(&words)?;
    // Who does not wait is told how it is, not what comes of it.
    assert_eq!(
        json(&node, &["nvml", "attach", "--no-wait"])?["state"],
        "missing"
    );
    // At once: the next attempt of its own accord may be a minute away by now.
    node.sim()?.load()?;
    assert_eq!(json(&node, &["nvml", "attach"])?["state"], "ready");
    Ok(())
}

#[tokio::test]
async fn n1_a_gpu_that_hangs_as_it_is_looked_for_is_named_by_its_index_and_counted_when_it_is_back()
-> Result<()> {
    let node = Node::start()?;
    let mut client = node.healthy().await?;
    let name = node.uuid(2)?;
    json(&node, &["nvml", "release", "--for=reset", "--ttl=1h"])?;
    let mut watch = client.watch(0).await?;
    node.sim()?.hang(Some(2), "nvmlDeviceGetUUID")?;
    let status = json(&node, &["nvml", "attach"])?;
    watch
        .until(&name, "Unknown, as it hangs", is(Health::Unknown))
        .await?;
    assert_eq!(status["state"], "ready");
    assert_eq!(status["gpus"], 7);
    let hung = &status["hungCalls"][0];
    assert_eq!(
        (&hung["call"], &hung["index"]),
        (&"nvmlDeviceGetUUID".into(), &2.into())
    );
    let named = "nvmlDeviceGetUUID on the GPU at index 2 has hung for ";
    let table = devicectl(&node, &["nvml", "status"])?.out;
    assert!(table.contains(named), "{table}");
    let metrics = node.metrics()?;
    let series = "device_api_server_nvml_gpu_count ";
    assert!(metrics.contains(&format!("{series}7")), "{metrics}");
    let said = devicectl(&node, &["nvml", "release", "--for=reset", "--ttl=11m"])?;
    assert!(said.err.contains(named), "{}", said.err);
    let line = node.daemon.wait_for(&["ReleaseNvml", "ttl=660s"])?;
    for said in ["outcome=\"refused\"", "on the GPU at index 2"] {
        assert!(line.contains(said), "no {said} in {line}");
    }

    node.sim()?.unhang()?;
    until(&node, "of 8 GPUs", |status| status["gpus"] == 8)?;
    watch
        .until(&name, "read again", is(Health::Healthy))
        .await?;
    assert!(node.metrics()?.contains(&format!("{series}8")));
    Ok(())
}

#[tokio::test]
async fn n2_a_release_ends_by_itself_when_its_time_is_over() -> Result<()> {
    let node = Node::start()?;
    node.healthy().await?;
    json(
        &node,
        &["nvml", "release", "--for", "upgrade", "--ttl", "1s"],
    )?;
    node.daemon.wait_for(&["upgrade", "it is taken up again"])?;
    until(&node, "ready again", |status| status["state"] == "ready")?;
    node.healthy().await?;
    let said = devicectl(
        &node,
        &["nvml", "release", "--for", "reset", "--ttl", "25h"],
    )?;
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("ttl: out of range"), "{}", said.err);
    Ok(())
}

#[tokio::test]
async fn n2_a_call_that_hangs_makes_it_busy_with_its_name_its_gpu_and_its_age() -> Result<()> {
    let node = Node::start()?;
    node.healthy().await?;
    let (gpu, call) = (node.uuid(6)?, "nvmlDeviceGetRemappedRows");
    node.sim()?.hang(Some(6), call)?;
    let hangs = |status: &Value| status["hungCalls"][0].is_object();
    let status = until(&node, "hanging", hangs)?;
    let hung = &status["hungCalls"][0];
    assert_eq!(
        (&hung["call"], &hung["device"]),
        (&call.into(), &(*gpu).into())
    );
    assert!(hung["ageSeconds"].as_f64() >= Some(3.0), "{status:#}");
    assert_eq!(status["state"], "ready", "the others are read on");

    let said = devicectl(
        &node,
        &["nvml", "release", "--for", "reset", "--ttl", "10m"],
    )?;
    assert_eq!(said.code, Some(1), "{}", said.out);
    let busy = format!("NVML is busy: {call} on {gpu} has hung for ");
    assert!(said.err.contains(&busy), "{}", said.err);
    let line = node.daemon.wait_for(&["audit", "ReleaseNvml"])?;
    let why = format!("why=\"busy: {call} hangs on {gpu}");
    for said in [
        &why,
        "outcome=\"refused\"",
        "because=\"reset\"",
        "ttl=600s",
        "identity=\"uid:",
    ] {
        assert!(line.contains(said), "no {said} in {line}");
    }
    let table = devicectl(&node, &["nvml", "status"])?.out;
    assert!(
        table.contains("State:      ready") && table.contains(call),
        "{table}"
    );

    node.sim()?.unhang()?;
    until(&node, "free again", |status| !hangs(status))?;
    json(
        &node,
        &["nvml", "release", "--for", "reset", "--ttl", "10m"],
    )?;
    Ok(())
}

#[tokio::test]
async fn n2_where_nvml_is_turned_off_there_is_nothing_to_let_go_of() -> Result<()> {
    let node = Node::builder()?
        .flag("enable-nvml-provider", "false")
        .start()?;
    assert_eq!(json(&node, &["nvml", "status"])?["state"], "disabled");
    for command in [
        &["nvml", "release", "--for", "reset", "--ttl", "1m"][..],
        &["nvml", "attach"],
    ] {
        let said = devicectl(&node, command)?;
        assert_eq!(said.code, Some(1), "{command:?}");
        assert!(said.err.contains("NVML is turned off"), "{}", said.err);
    }
    Ok(())
}

#[tokio::test]
async fn the_inventory_of_an_h100_is_described() -> Result<()> {
    let node = Node::start()?;
    node.healthy().await?;
    let described = json(&node, &["gpu", "describe", "0"])?;
    let spec = &described["spec"];
    let identity = node.gpus().into_iter().next().context("no GPU 0")?;
    for (field, expected) in [
        ("product", Value::from("NVIDIA H100 80GB HBM3")),
        ("architecture", "Hopper".into()),
        ("uuid", (*identity.uuid).into()),
        ("serial", (*identity.serial).into()),
        ("pciAddress", identity.pci.to_string().into()),
        ("index", 0.into()),
        ("memoryBytes", (81_559_u64 << 20).into()),
        ("cudaVersion", "13.0".into()),
        ("driverVersion", "580.82.07".into()),
    ] {
        assert_eq!(spec[field], expected, "{field}");
    }
    assert!(spec["minor"].is_u64(), "{spec:#}");
    let hardware = &spec["hardware"];
    for (field, expected) in [
        ("migEnabled", Value::from(false)),
        ("powerLimitMinMilliwatts", 200_000.into()),
        ("powerLimitMaxMilliwatts", 700_000.into()),
        ("powerLimitDefaultMilliwatts", 700_000.into()),
        ("pcieGenerationMax", 5.into()),
        ("pcieWidthMax", 16.into()),
    ] {
        assert_eq!(hardware[field], expected, "{field}");
    }
    let links = hardware["nvlinks"].as_array().context("no NVLinks")?;
    assert_eq!(links.len(), 18);
    assert_eq!(
        (&links[17]["link"], &links[17]["remote"]),
        (&17.into(), &"switch".into())
    );
    assert!(links[0]["remotePciAddress"].is_string(), "{}", links[0]);
    let peers = hardware["peers"].as_array().context("no peers")?;
    assert_eq!(peers.len(), 7);
    let far = peers.iter().filter(|peer| peer["path"] == "SYS");
    assert_eq!(far.count(), 4, "on the other socket");
    assert_eq!(hardware["fabric"]["state"], "completed");
    assert_eq!(hardware["fabric"]["clique"], 0);

    let text = devicectl(&node, &["gpu", "describe", "0"])?.out;
    for said in [
        "200 W to 700 W, 700 W by default",
        "gen 5 x16 at most",
        "completed, cluster ",
        "SYS GPU-",
    ] {
        assert!(text.contains(said), "no {said:?} in\n{text}");
    }
    Ok(())
}

#[tokio::test]
async fn what_a_board_does_not_have_is_absent_and_not_zero() -> Result<()> {
    let node = Node::builder()?.env("NVML_SIM_PROFILE", "v100").start()?;
    let mut client = node.native().await?;
    let gpu = client.watch(0).await?.next().await?.gpu.context("no GPU")?;
    let spec = json(&node, &["gpu", "describe", &gpu.name])?["spec"].clone();
    assert_eq!(spec["architecture"], "Volta");
    let hardware = spec["hardware"].as_object().context("no hardware")?;
    for absent in ["migEnabled", "fabric"] {
        assert!(!hardware.contains_key(absent), "{absent}: {hardware:#?}");
    }
    assert!(hardware["powerLimitMaxMilliwatts"].as_u64() > Some(0));
    Ok(())
}
