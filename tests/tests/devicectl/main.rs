//! `devicectl` against the real daemon, a shell, and a node that is prepared for it.

mod node;
mod shell;

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use device_api_proto::native::{Gpu, Health};
use device_api_tests::{Node, binary, health_of};

/// Runs it to its end: exit code, standard output, standard error.
fn devicectl(socket: &Path, args: &[&str]) -> Result<(Option<i32>, String, String)> {
    let output = Command::new(binary("devicectl")?)
        .arg("--socket")
        .arg(socket)
        .args(args)
        .output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    ))
}

#[tokio::test]
async fn get_and_describe_show_what_an_operator_needs() -> Result<()> {
    let node = Node::start()?;
    let mut client = node.healthy().await?;
    let name = node.uuid(5)?;
    let mut watch = client.watch(0).await?;
    node.sim()?.xid(5, &[79])?;
    let unhealthy = |gpu: &Gpu| health_of(gpu) == Health::Unhealthy;
    watch.until(&name, "Unhealthy", unhealthy).await?;

    let (code, table, _) = devicectl(node.socket(), &["get", "gpus"])?;
    assert_eq!(code, Some(0));
    assert_eq!(
        table.lines().count(),
        9,
        "a header and eight GPUs:\n{table}"
    );
    let row = table
        .lines()
        .find(|line| line.contains(&name))
        .context("no row")?;
    assert!(
        row.contains("Unhealthy") && row.contains("RESTART_BM"),
        "{row}"
    );

    let (_, wide, _) = devicectl(node.socket(), &["get", "gpus", "-o", "wide"])?;
    assert!(
        wide.contains("0000:1b:00.0") && wide.contains("XidCriticalError"),
        "{wide}"
    );

    let (_, json, _) = devicectl(node.socket(), &["get", "gpus", "-o", "json"])?;
    let json: serde_json::Value = serde_json::from_str(&json)?;
    assert!(json.to_string().contains(&name));
    let (code, yaml, _) = devicectl(node.socket(), &["get", "gpus", "-o", "yaml"])?;
    assert!(code == Some(0) && yaml.contains(&name), "{yaml}");

    for gpu in [&*name, "5", "0000:c3:00.0"] {
        let (code, described, errors) = devicectl(node.socket(), &["describe", "gpu", gpu])?;
        assert_eq!(code, Some(0), "{gpu}: {errors}");
        for words in [
            &*name,
            "NVIDIA H100",
            "XidCriticalError",
            "xid-policy",
            "RESTART_BM",
            "DRILL",
            "nvml",
        ] {
            assert!(
                described.contains(words),
                "{gpu}: no {words:?} in\n{described}"
            );
        }
    }
    Ok(())
}

#[tokio::test]
async fn failures_are_one_line_with_an_exit_code_of_their_own() -> Result<()> {
    let node = Node::start()?;
    node.healthy().await?;
    let (code, _, error) = devicectl(node.socket(), &["describe", "gpu", "GPU-nobody"])?;
    assert_eq!(
        (code, error.trim_end().lines().count()),
        (Some(1), 1),
        "{error}"
    );
    let (code, _, error) = devicectl(Path::new("/no/such/socket"), &["get", "gpus"])?;
    assert_eq!(
        (code, error.trim_end().lines().count()),
        (Some(3), 1),
        "{error}"
    );
    assert!(
        error.contains("/no/such/socket") && error.contains("--socket"),
        "{error}"
    );
    // What every GPU has is not said to be missing.
    let clear = ["gpu", "clear", "5", "Ready", "--reason=r"];
    let (code, _, error) = devicectl(node.socket(), &clear)?;
    assert_eq!(code, Some(1));
    assert!(error.contains("is made of its other conditions"), "{error}");
    let (code, _, _) = devicectl(node.socket(), &["get", "gpus", "-o", "xml"])?;
    assert_eq!(code, Some(2));
    Ok(())
}
