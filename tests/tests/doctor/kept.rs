//! Policies, what survives a restart, and who writes.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use anyhow::{Result, ensure};
use device_api_proto::native;
use device_api_tests::{Node, binary};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tonic::transport::Endpoint;

use crate::{Doctor, until};

#[tokio::test]
async fn a_policy_that_is_set_aside_and_safe_mode_are_told() -> Result<()> {
    let node = Node::start()?;
    node.healthy().await?;
    let order = [
        "policy",
        "quarantine",
        "xid-policy",
        "--reason=wrong",
        "--yes",
    ];
    let mut command = Command::new(binary("devicectl")?);
    command.arg("--socket").arg(node.socket()).args(order);
    ensure!(command.output()?.status.success());
    let said = until(node.socket(), "policies.ready", "warn", "xid-policy")?;
    said.check(
        "policies.quarantined",
        "warn",
        "policy release xid-policy --digest",
    )?;
    said.check("policies.running", "fail", "xid-policy is quarantined")?;

    let node = Node::builder()?.flag("safe-mode", "true").start()?;
    let said = until(node.socket(), "policies.safe-mode", "warn", "--safe-mode")?;
    ensure!(!said.failed().contains(&"policies.safe-mode"));

    let builder = Node::builder()?;
    let policies = builder.dir().join("policies");
    fs::create_dir(&policies)?;
    fs::write(policies.join("policies.yaml"), "polices: []\n")?;
    fs::write(policies.join("bad.wasm"), "no component")?;
    let node = builder
        .flag("policy-dir", policies.to_string_lossy())
        .start()?;
    until(node.socket(), "policies.set", "fail", "polices")?;
    Ok(())
}

#[tokio::test]
async fn a_store_in_memory_or_of_someone_else_and_a_log_that_can_t_be_read_are_told() -> Result<()>
{
    let builder = Node::builder()?;
    let log = builder.dir().join("no-such-log");
    let node = builder
        .flag("store", "memory")
        .flag("kmsg-path", log.to_string_lossy())
        .start()?;
    let said = until(node.socket(), "kernel-log.access", "fail", "no-such-log")?;
    said.check("kernel-log.access", "fail", "kernelLog.enabled=true")?;
    said.check("store.durable", "warn", "--store=durable")?;
    said.check("store.directory", "skipped", "")?;

    let node = Node::start()?;
    let state = node.dir().join("state");
    fs::set_permissions(&state, Permissions::from_mode(0o755))?;
    let said = Doctor::of(node.socket())?.says()?;
    said.check("store.directory", "warn", "chmod 0700")?;
    Ok(())
}

#[tokio::test]
async fn a_state_file_that_could_not_be_used_is_told_though_writes_are_taken() -> Result<()> {
    let builder = Node::builder()?;
    let state = builder.dir().join("state");
    fs::create_dir(&state)?;
    fs::write(state.join("store.redb"), "no database")?;
    let node = builder.start()?;
    let said = until(
        node.socket(),
        "store.durable",
        "warn",
        "store.redb.corrupt-",
    )?;
    said.check("store.durable", "warn", "look at the GPUs anew")?;
    Ok(())
}

/// The disk is full from now on for this daemon: no file of its grows past what is there.
fn fill_up(pid: u32) -> Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let none = Rlimit {
        current: Some(1),
        maximum: None,
    };
    prlimit(pid, Resource::Fsize, none)?;
    Ok(())
}

#[tokio::test]
async fn a_store_that_takes_no_writes_is_told() -> Result<()> {
    let node = Node::start()?;
    node.healthy().await?;
    fill_up(node.daemon.pid())?;
    node.sim()?.xid(5, &[79])?;
    let said = until(node.socket(), "store.durable", "fail", "")?;
    said.check("store.durable", "fail", "make room on the disk")?;
    Ok(())
}

#[tokio::test]
async fn a_provider_that_is_gone_and_gpus_that_nobody_knows_are_told() -> Result<()> {
    let node = Node::start()?;
    let client = node.healthy().await?;
    drop(client);
    let uri = format!("unix:{}", node.socket().display());
    let channel = Endpoint::from_shared(uri)?.connect().await?;
    let mut providers = native::provider_service_client::ProviderServiceClient::new(channel);
    let registration = |seconds| native::RegisterProviderRequest {
        name: "agent".to_owned(),
        lease_duration: Some(prost_types::Duration { seconds, nanos: 0 }),
    };
    let lease = providers
        .register_provider(registration(600))
        .await?
        .into_inner();
    let condition = native::Condition {
        r#type: "AgentSaysSo".to_owned(),
        status: native::ConditionStatus::True.into(),
        polarity: native::Polarity::TrueIsHealthy.into(),
        severity: native::Severity::Fatal.into(),
        reason: "Fine".to_owned(),
        ..Default::default()
    };
    let update = native::UpdateGpuConditionRequest {
        lease_id: lease.lease_id,
        name: node.uuid(0)?,
        condition: Some(condition),
        ..Default::default()
    };
    providers.update_gpu_condition(update).await?;
    // It comes again, and is not heard of any more; nothing is said under this lease.
    providers.register_provider(registration(1)).await?;
    let said = until(node.socket(), "providers.lost", "fail", "agent")?;
    said.check("providers.lost", "fail", "devicectl provider forget agent")?;
    said.check("gpus.known", "fail", "devicectl explain GPU-")?;
    Ok(())
}
