//! XIDs of which the number says little and the words of the kernel's line all, on a node with both sources: NVML tells
//! the one, the kernel's log the other, of the same error. It is judged once, by its line (design N5, N6).

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use device_api_proto::native::{ConditionStatus, Gpu, Health};
use device_api_tests::{Native, Node, PATIENCE, binary, condition_of, health_of};
use nvml_sim::control::{Only, Request};
use rustix::process::Signal;
use serde_json::Value;

const NEEDS_RESET: &str =
    "NVRM: Xid (PCI:{pci}): 144, SAW_MVB Fatal XC0 i0 Link 5 (0x00000001 0x00000002 0x00000000)";

/// Eight B200, of which both sources tell.
fn start(env: &[(&str, &str)]) -> Result<Node> {
    let mut builder = Node::builder()?;
    let kmsg = builder.dir().join("kmsg").display().to_string();
    for (name, value) in [("NVML_SIM_PROFILE", "b200"), ("NVML_SIM_KMSG", &kmsg)]
        .iter()
        .chain(env)
    {
        builder = builder.env(name, value);
    }
    let node = builder.start()?;
    node.daemon.wait_for(&["NVML is in use"])?;
    Ok(node)
}

/// The GPUs by index, once all have been found.
async fn found(client: &mut Native) -> Result<Vec<String>> {
    let start = Instant::now();
    loop {
        let mut gpus = client.list().await?.gpus;
        gpus.sort_by_key(|gpu| gpu.spec.as_ref().and_then(|spec| spec.index));
        let known = |gpu: &Gpu| health_of(gpu) != Health::Unknown;
        if gpus.len() == 8 && gpus.iter().all(known) {
            return Ok(gpus.into_iter().map(|gpu| gpu.name).collect());
        }
        ensure!(start.elapsed() < PATIENCE, "not all are known: {gpus:#?}");
        tokio::task::yield_now().await;
    }
}

fn xid(node: &Node, gpu: u32, code: u64, only: Option<Only>) -> Result<()> {
    let request = Request::Xid {
        gpu,
        codes: vec![code],
        count: 1,
        only,
    };
    node.sim()?.request(&request)?;
    Ok(())
}

/// Reason of a condition that is a problem.
fn reason<'a>(gpu: &'a Gpu, type_: &str) -> Option<&'a str> {
    let found = condition_of(gpu, type_)?;
    (found.status() == ConditionStatus::True).then_some(&*found.reason)
}

/// What the policy calls a problem of a GPU.
fn problems(gpu: &Gpu) -> Vec<(&'static str, &str)> {
    let types = ["XidApplicationError", "XidDegraded", "XidCriticalError"];
    let problems = types.into_iter().map(|type_| (type_, reason(gpu, type_)));
    problems
        .filter_map(|(type_, reason)| Some((type_, reason?)))
        .collect()
}

/// Waits until nothing but this is a problem of a GPU.
async fn until(client: &mut Native, name: &str, type_: &str, why: &str) -> Result<Gpu> {
    let mut watch = client.watch(0).await?;
    let alone = |gpu: &Gpu| problems(gpu) == [(type_, why)];
    watch.until(name, &format!("{type_} ({why})"), alone).await
}

/// As long as a bare code waits: another, on another GPU, has waited in vain since.
async fn pass_a_wait(node: &Node, client: &mut Native, name: &str, gpu: u32) -> Result<()> {
    let mut watch = client.watch(0).await?;
    xid(node, gpu, 147, Some(Only::Nvml))?;
    let undecoded = |gpu: &Gpu| reason(gpu, "XidDegraded") == Some("UndecodedNvLinkError");
    watch.until(name, "out of patience", undecoded).await?;
    Ok(())
}

/// Sources of the incident of that code, and the conditions that were called problems on its account.
fn told(node: &Node, gpu: u32, code: u64) -> Result<(Vec<String>, Vec<String>)> {
    let output = Command::new(binary("devicectl")?)
        .arg("--socket")
        .arg(node.socket())
        .args(["incidents", "-o", "json", "--gpu", &gpu.to_string()])
        .output()?;
    ensure!(output.status.success(), "{output:?}");
    let listed: Value = serde_json::from_slice(&output.stdout)?;
    let all = listed
        .get("incidents")
        .and_then(Value::as_array)
        .context("no incidents")?;
    let of_code: Vec<&Value> = all.iter().filter(|one| one["xid"] == code).collect();
    let [one] = of_code[..] else {
        anyhow::bail!("not one incident of XID {code}: {all:#?}");
    };
    let texts = |of: &Value, field: &str| {
        let text = of[field].as_str().map(str::to_owned);
        text.with_context(|| format!("no {field}: {of}"))
    };
    let accounts = one["evidence"].as_array().into_iter().flatten();
    let mut sources: Vec<String> = accounts
        .map(|account| texts(account, "source"))
        .collect::<Result<_>>()?;
    sources.sort();
    let verdicts = one["verdicts"].as_array().into_iter().flatten();
    let problems = verdicts.filter(|said| said["judgement"] == "problem");
    let problems = problems.map(|said| texts(said, "condition"));
    Ok((sources, problems.collect::<Result<_>>()?))
}

#[tokio::test]
async fn n5_an_nvlink_error_told_by_both_sources_is_judged_once_by_the_kernels_line() -> Result<()>
{
    let node = start(&[])?;
    let mut client = node.native().await?;
    let names = found(&mut client).await?;
    // One that asks to restart the application, and one that asks for a reset.
    xid(&node, 0, 145, None)?;
    xid(&node, 1, 144, Some(Only::Nvml))?;
    node.sim()?.request(&Request::Kmsg {
        gpu: Some(1),
        lines: vec![NEEDS_RESET.to_owned()],
    })?;
    let gpu = until(
        &mut client,
        &names[0],
        "XidApplicationError",
        "ApplicationFault",
    )
    .await?;
    ensure!(health_of(&gpu) == Health::Healthy, "{gpu:?}");
    let gpu = until(
        &mut client,
        &names[1],
        "XidCriticalError",
        "GpuResetRequired",
    )
    .await?;
    ensure!(health_of(&gpu) == Health::Unhealthy, "{gpu:?}");
    pass_a_wait(&node, &mut client, &names[7], 7).await?;
    for (gpu, code, type_, reason) in [
        (0, 145, "XidApplicationError", "ApplicationFault"),
        (1, 144, "XidCriticalError", "GpuResetRequired"),
    ] {
        let (sources, said) = told(&node, gpu, code)?;
        ensure!(sources == ["kmsg", "nvml"] && said == [type_], "{said:?}");
        let gpu = client.get(&names[usize::try_from(gpu)?]).await?;
        ensure!(problems(&gpu) == [(type_, reason)], "{gpu:?}");
    }
    Ok(())
}

/// It waits, the daemon is stopped, the wait ends in the next run; then the line comes after all.
#[tokio::test]
async fn n6_without_a_line_it_is_undecoded_over_a_restart_until_one_comes_late() -> Result<()> {
    let mut node = start(&[])?;
    let mut client = node.native().await?;
    let names = found(&mut client).await?;
    xid(&node, 2, 145, Some(Only::Nvml))?;
    let gpu = until(&mut client, &names[2], "XidDegraded", "AwaitingKernelLine").await?;
    let status = gpu.status.clone().context("no status")?;
    ensure!(
        health_of(&gpu) == Health::Degraded && status.recommended_action == "NONE",
        "{status:?}"
    );
    node.stop(Signal::TERM)?;
    node.start_again()?;
    node.daemon.wait_for(&["NVML is in use"])?;
    let mut client = node.native().await?;
    let gpu = until(
        &mut client,
        &names[2],
        "XidDegraded",
        "UndecodedNvLinkError",
    )
    .await?;
    let status = gpu.status.clone().context("no status")?;
    ensure!(status.recommended_action == "CONTACT_SUPPORT", "{status:?}");
    xid(&node, 2, 145, Some(Only::Kmsg))?;
    let mut watch = client.watch(0).await?;
    let healed = |gpu: &Gpu| {
        problems(gpu) == [("XidApplicationError", "ApplicationFault")]
            && health_of(gpu) == Health::Healthy
    };
    watch.until(&names[2], "as its line says", healed).await?;
    let (_, said) = told(&node, 2, 145)?;
    ensure!(said == ["XidApplicationError"], "{said:?}");
    Ok(())
}

/// What waits for its line is Degraded, and well again with it: that is no flapping, however often.
#[tokio::test]
async fn n7_an_error_that_is_harmless_is_so_however_often_it_comes() -> Result<()> {
    let node = start(&[])?;
    let mut client = node.native().await?;
    let names = found(&mut client).await?;
    for other in 1..8 {
        let mut watch = client.watch(0).await?;
        xid(&node, 0, 145, Some(Only::Nvml))?;
        let waits = |gpu: &Gpu| reason(gpu, "XidDegraded").is_some();
        watch.until(&names[0], "waiting", waits).await?;
        xid(&node, 0, 145, Some(Only::Kmsg))?;
        until(
            &mut client,
            &names[0],
            "XidApplicationError",
            "ApplicationFault",
        )
        .await?;
        // The line does not speak for the next one any more.
        let name = &names[usize::try_from(other)?];
        pass_a_wait(&node, &mut client, name, other).await?;
    }
    Ok(())
}

/// The shipped scenario, whose 145s ask to restart the application.
#[tokio::test]
async fn n5_the_storm_of_45s_has_one_verdict_for_each_of_its_roots() -> Result<()> {
    let scenario =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/scenarios/xid-45-storm.yaml");
    let node = start(&[("NVML_SIM_SCENARIO", &scenario.display().to_string())])?;
    let mut client = node.native().await?;
    let names = found(&mut client).await?;
    // 145 and 45 share a condition.
    let storm = |gpu: &Gpu| matches!(problems(gpu)[..], [("XidApplicationError", _)]);
    for name in &names[5..8] {
        let mut watch = client.watch(0).await?;
        watch.until(name, "told of its 145", storm).await?;
    }
    pass_a_wait(&node, &mut client, &names[0], 0).await?;
    for gpu in 5..8 {
        let (sources, said) = told(&node, gpu, 145)?;
        ensure!(sources == ["kmsg", "nvml"], "{sources:?}");
        // Where a batch brought 45 besides, it is 45's incident that has the word.
        ensure!(
            said.iter().all(|it| it == "XidApplicationError"),
            "{said:?}"
        );
        let gpu = client.get(&names[usize::try_from(gpu)?]).await?;
        ensure!(storm(&gpu) && health_of(&gpu) == Health::Healthy, "{gpu:?}");
    }
    // Of the words of 149 there the vendor's table has no row.
    let (_, said) = told(&node, 4, 149)?;
    ensure!(said == ["XidDegraded"], "{said:?}");
    Ok(())
}
