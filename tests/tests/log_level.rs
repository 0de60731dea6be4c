//! `devicectl log-level` against the real daemon: what is logged changes at once, ends by itself, and never takes the audit
//! log with it.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use device_api_tests::{Node, binary};
use rustix::process::Signal;
use serde_json::Value;

fn log_level(node: &Node, args: &[&str]) -> Result<(Option<i32>, Value, String)> {
    let output = Command::new(binary("devicectl")?)
        .arg("--socket")
        .arg(node.socket())
        .arg("log-level")
        .args(args)
        .args(["-o", "json"])
        .output()?;
    let said = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok((output.status.code(), said, errors))
}

fn done(node: &Node, args: &[&str]) -> Result<Value> {
    let (code, said, errors) = log_level(node, args)?;
    ensure!(code == Some(0), "{args:?}: {errors}");
    Ok(said)
}

const AT_START: &str = "warn,audit=info,policy=info,device_api=info";

#[tokio::test]
async fn debug_counts_at_once_and_ends_by_itself() -> Result<()> {
    let node = Node::start()?;
    node.healthy().await?;
    let said = done(&node, &[])?;
    ensure!(
        said["filter"] == AT_START && said["isSet"] == false,
        "{said}"
    );
    let is_debug = |line: &String| line.contains(" DEBUG ");
    ensure!(!node.daemon.log().iter().any(is_debug));

    let said = done(&node, &["debug", "--ttl", "1h"])?;
    ensure!(
        said["filter"] == "warn,policy=debug,device_api=debug,audit=info",
        "{said}"
    );
    ensure!(
        said["until"].is_string() && said["atStart"] == AT_START,
        "{said}"
    );
    let line = node.daemon.wait_for(&[" audit", "SetLogFilter"])?;
    for words in [
        "INFO",
        "identity=\"uid:",
        "object=\"debug\"",
        "ttl=3600s",
        "outcome=\"OK\"",
    ] {
        ensure!(line.contains(words), "{line}");
    }
    // The call that set it is the first that is told of at that level.
    node.daemon
        .wait_for(&[" DEBUG ", "handled", "SetLogFilter"])?;
    // The shorter time counts from when it is set, and what it ends is as it was at the start.
    done(&node, &["debug", "--ttl", "100ms"])?;
    node.daemon
        .wait_for(&["the log is as at the start again"])?;
    let said = done(&node, &[])?;
    ensure!(
        said["filter"] == AT_START && said["isSet"] == false,
        "{said}"
    );
    Ok(())
}

#[tokio::test]
async fn no_filter_silences_the_audit_log_and_what_is_none_is_refused() -> Result<()> {
    let mut node = Node::start()?;
    for (filter, says) in [
        ("dbug", "filter: \"dbug\" is no level; expected one of off"),
        ("device_api=loud", "expected a level"),
        ("audit=off", "the audit log is not turned on or off here"),
        ("info, audit=off", "the audit log"),
        ("", "filter: required"),
    ] {
        let (code, _, errors) = log_level(&node, &[filter])?;
        ensure!(
            code == Some(1) && errors.contains(says),
            "{filter}: {errors}"
        );
        ensure!(errors.trim_end().lines().count() == 1, "{errors}");
    }
    let (code, _, errors) = log_level(&node, &["debug", "--ttl", "25h"])?;
    ensure!(
        code == Some(1) && errors.contains("at most 24 h"),
        "{errors}"
    );
    for usage in [
        &["reset", "--ttl=1m"][..],
        &["--ttl=1m"],
        &["debug", "--ttl=0s"],
    ] {
        ensure!(log_level(&node, usage)?.0 == Some(2), "{usage:?}");
    }
    ensure!(
        done(&node, &[])?["isSet"] == false,
        "nothing of it was taken"
    );

    done(&node, &["off"])?;
    done(&node, &["info"])?;
    node.daemon
        .wait_for(&[" audit", "SetLogFilter", "object=\"info\""])?;
    done(&node, &["off"])?;
    done(&node, &["reset"])?;
    // Told by the audit log though all else was off.
    node.daemon.wait_for(&[" audit", "ResetLogFilter"])?;
    ensure!(done(&node, &[])?["filter"] == AT_START);

    // A restart forgets it.
    done(&node, &["trace"])?;
    node.stop(Signal::TERM)?;
    node.start_again()?;
    ensure!(done(&node, &[])?["isSet"] == false);
    Ok(())
}

#[tokio::test]
async fn one_crate_alone_is_set_to_debug_and_a_json_log_stays_one() -> Result<()> {
    let node = Node::builder()?
        .flag("log-format", "json")
        .env("RUST_LOG", "info")
        .start()?;
    node.healthy().await?;
    let said = done(&node, &["info,device_api_grpc=trace", "--ttl=1h"])?;
    ensure!(said["atStart"] == "info,audit=info", "{said}");
    // Whoever asks for what is not there has a line at debug: a connection that begins with nonsense.
    let mut nonsense = std::os::unix::net::UnixStream::connect(node.socket())?;
    std::io::Write::write_all(&mut nonsense, b"GET / HTTP/1.1\r\n\r\n")?;
    let line = node.daemon.wait_for(&["\"DEBUG\"", "device_api_grpc"])?;
    let line: Value = serde_json::from_str(&line)?;
    ensure!(line["level"] == "DEBUG", "{line}");
    let target = line["target"].as_str().context("no target")?;
    ensure!(target.starts_with("device_api_grpc"), "{line}");
    let others = node.daemon.log();
    let others = others
        .iter()
        .filter(|line| line.contains("\"DEBUG\"") && !line.contains("device_api_grpc"));
    ensure!(others.count() == 0);
    Ok(())
}

#[tokio::test]
async fn however_it_was_started_no_filter_takes_the_audit_log_away() -> Result<()> {
    for (variable, value) in [
        ("DEVICE_API_VERBOSE", "0"),
        ("DEVICE_API_VERBOSE", "1"),
        ("DEVICE_API_VERBOSE", "2"),
        ("RUST_LOG", "info"),
        ("RUST_LOG", "info,audit[{identity}]=trace"),
    ] {
        let node = Node::builder()?.gpus(1).env(variable, value).start()?;
        let said = done(&node, &["off"])?;
        let what = format!("{variable}={value}: {said}");
        let line = node
            .daemon
            .wait_for(&[" audit", "SetLogFilter", "object=\"off\""]);
        line.with_context(|| what)?;
    }
    Ok(())
}
