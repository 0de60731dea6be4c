//! A restart heals nothing and forgets nothing: the real daemon, killed, on its state directory.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use device_api_proto::native::incident_service_client::IncidentServiceClient;
use device_api_proto::native::{
    Condition, ConditionStatus, EventType, Health, Incident, IncidentState, ListIncidentsRequest,
    Polarity, RegisterProviderRequest, Severity, UpdateGpuConditionRequest, WatchGpusRequest,
};
use device_api_tests::{Native, Node, PATIENCE, condition_of, health_of, http};
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use tonic::Code;

/// Writes a condition as a provider. Once it is answered, all that was decided before is durable too.
async fn provider_says(client: &mut Native, gpu: &str, type_: &str, problem: bool) -> Result<()> {
    let request = RegisterProviderRequest {
        name: "agent".to_owned(),
        ..Default::default()
    };
    let lease = client.providers.register_provider(request).await?;
    let status = if problem {
        ConditionStatus::True
    } else {
        ConditionStatus::False
    };
    let condition = Condition {
        r#type: type_.to_owned(),
        status: status.into(),
        polarity: Polarity::TrueIsProblem.into(),
        severity: Severity::Warning.into(),
        reason: "Because".to_owned(),
        ..Default::default()
    };
    let request = UpdateGpuConditionRequest {
        lease_id: lease.into_inner().lease_id,
        name: gpu.to_owned(),
        condition: Some(condition),
        ..Default::default()
    };
    client.providers.update_gpu_condition(request).await?;
    Ok(())
}

fn is_problem(gpu: &device_api_proto::native::Gpu, type_: &str) -> bool {
    condition_of(gpu, type_).is_some_and(|condition| condition.status() == ConditionStatus::True)
}

/// Breaks a GPU with XID 79, and returns when that is durable.
async fn break_gpu(node: &Node, client: &mut Native, gpu: u32) -> Result<String> {
    let name = node.uuid(gpu)?;
    let mut watch = client.watch(0).await?;
    node.sim()?.xid(gpu, &[79])?;
    let told = |gpu: &device_api_proto::native::Gpu| is_problem(gpu, "XidCriticalError");
    watch.until(&name, "told of XID 79", told).await?;
    provider_says(client, &node.uuid(0)?, "AgentFine", false).await?;
    Ok(name)
}

#[tokio::test]
async fn c7_a_killed_daemon_comes_back_with_its_problems_and_heals_none() -> Result<()> {
    let mut node = Node::start()?;
    let mut client = node.healthy().await?;
    let name = break_gpu(&node, &mut client, 5).await?;
    let before = client.get(&name).await?;
    let version = client.list().await?.resource_version;
    node.stop(Signal::KILL)?;
    node.start_again()?;

    let mut client = node.native().await?;
    let first = client.get(&name).await?;
    assert_eq!(health_of(&first), Health::Unhealthy);
    assert!(first.resource_version > version);
    assert_eq!(first.uid, before.uid);
    let (was, is) = [&before, &first]
        .map(|gpu| condition_of(gpu, "XidCriticalError").context("forgotten"))
        .into();
    let (was, is) = (was?, is?);
    assert_eq!(
        (
            &was.reason,
            &was.last_transition_time,
            &was.evidence,
            &was.clears
        ),
        (
            &is.reason,
            &is.last_transition_time,
            &is.evidence,
            &is.clears
        )
    );
    // NVML finds the GPU, which answers; that says nothing of the fault it had.
    for gpu in [1, 5] {
        let told = |gpu: &device_api_proto::native::Gpu| {
            condition_of(gpu, "NvmlReachable").is_some_and(|c| c.status() == ConditionStatus::True)
        };
        let name = node.uuid(gpu)?;
        client
            .watch(0)
            .await?
            .until(&name, "reachable", told)
            .await?;
    }
    assert_eq!(health_of(&client.get(&name).await?), Health::Unhealthy);
    let others = client.get(&node.uuid(1)?).await?;
    assert_eq!(health_of(&others), Health::Healthy);
    let provider = client.get(&node.uuid(0)?).await?;
    let fine = condition_of(&provider, "AgentFine").context("forgotten")?;
    assert_eq!(
        (fine.status(), &*fine.reason),
        (ConditionStatus::Unknown, "Restarted")
    );
    Ok(())
}

/// The newest incident of an XID on a GPU.
async fn incident(client: &Native, gpu: &str, xid: u64) -> Result<Incident> {
    let mut incidents = IncidentServiceClient::new(client.channel.clone());
    let request = ListIncidentsRequest {
        device: gpu.to_owned(),
        ..Default::default()
    };
    let listed = incidents.list_incidents(request).await?.into_inner();
    let mut of_code = listed
        .incidents
        .into_iter()
        .filter(|it| it.code == Some(xid));
    of_code.next().context("no such incident")
}

#[tokio::test]
async fn n5_an_incident_of_which_a_condition_stands_goes_on_over_a_stop_and_a_kill() -> Result<()> {
    for signal in [Signal::TERM, Signal::KILL] {
        let mut node = Node::start()?;
        let mut client = node.healthy().await?;
        let name = node.uuid(1)?;
        let mut watch = client.watch(0).await?;
        node.sim()?.xid(1, &[119])?;
        let pci = node.gpus().get(1).context("no GPU 1")?.pci;
        let line = format!("NVRM: Xid (PCI:{}): 119, pid=1, name=x, text", pci.kernel());
        node.kernel_log([&*line])?;
        let told = |gpu: &device_api_proto::native::Gpu| is_problem(gpu, "XidCriticalError");
        watch.until(&name, "told of XID 119", told).await?;
        let both = async {
            loop {
                let before = incident(&client, &name, 119).await?;
                if before.accounts.len() == 2 {
                    return anyhow::Ok(before);
                }
            }
        };
        let before = tokio::time::timeout(PATIENCE, both).await??;
        // A read waits until what is known is decided; what is acknowledged after that, and all before, survives.
        client.get(&name).await?;
        provider_says(&mut client, &node.uuid(0)?, "AgentFine", false).await?;
        node.stop(signal)?;
        node.start_again()?;

        node.daemon.wait_for(&["NVML is in use"])?;
        let mut client = node.native().await?;
        let gpu = client.get(&name).await?;
        let condition = condition_of(&gpu, "XidCriticalError").context("forgotten")?;
        assert_eq!(condition.incident, before.id);
        let after = incident(&client, &name, 119).await?;
        assert_eq!(after, before, "{signal:?}");
        // Seen again it is the same.
        node.sim()?.xid(1, &[119])?;
        let again = async {
            loop {
                let again = incident(&client, &name, 119).await?;
                assert_eq!(again.id, before.id, "{signal:?}");
                if again.count > before.count {
                    return anyhow::Ok(());
                }
            }
        };
        tokio::time::timeout(PATIENCE, again).await??;
    }
    Ok(())
}

#[tokio::test]
async fn n7_a_reboot_closes_the_incidents_that_it_ends() -> Result<()> {
    let mut node = Node::builder()?.in_its_own_boot()?.start()?;
    let mut client = node.healthy().await?;
    let name = break_gpu(&node, &mut client, 2).await?;
    let before = incident(&client, &name, 79).await?;
    assert_eq!(before.state(), IncidentState::Open);
    node.stop(Signal::KILL)?;
    node.next_boot()?;
    node.start_again()?;
    let client = node.native().await?;
    let after = incident(&client, &name, 79).await?;
    assert_eq!(after.id, before.id);
    assert_eq!(
        (after.state(), &*after.closed_by),
        (IncidentState::Closed, "node-reboot")
    );
    Ok(())
}

#[tokio::test]
async fn w1_an_exact_watch_resumes_over_a_restart_and_sees_the_health_turn_unknown() -> Result<()> {
    let mut node = Node::start()?;
    node.healthy().await?;
    node.stop(Signal::TERM)?;
    node.start_again()?;
    let mut client = node.native().await?;
    let last_durable = {
        let list = client.list().await?;
        // A version of the earlier run that was not its last; the refusal names the last.
        let request = WatchGpusRequest {
            resource_version: list.resource_version - (1 << 40),
            ..Default::default()
        };
        let status = client.gpus.watch_gpus(request).await.unwrap_err();
        assert_eq!(status.code(), Code::OutOfRange, "{status}");
        // `… is outside the kept history (OLDEST to NEWEST); …`
        let text = status.message().to_owned();
        let oldest = text
            .split('(')
            .nth(1)
            .and_then(|rest| rest.split(' ').next());
        oldest.context("no range")?.parse::<i64>()?
    };
    let request = WatchGpusRequest {
        resource_version: last_durable,
        exact: true,
        ..Default::default()
    };
    let mut stream = client.gpus.watch_gpus(request).await?.into_inner();
    let mut seen = std::collections::BTreeSet::new();
    let mut version = last_durable;
    while seen.len() < 8 {
        let event = stream.message().await?.context("ended")?;
        assert_eq!(event.r#type(), EventType::Modified);
        let gpu = event.gpu.context("no GPU")?;
        assert!(gpu.resource_version > version, "versions only rise");
        version = gpu.resource_version;
        if seen.insert(gpu.name.clone()) {
            assert_eq!(health_of(&gpu), Health::Unknown, "{}", gpu.name);
        }
    }
    Ok(())
}

#[tokio::test]
async fn c7_the_kernel_log_is_read_on_from_where_it_was_decided() -> Result<()> {
    let builder = Node::builder()?;
    let log = builder.dir().join("messages");
    File::create(&log)?;
    let mut node = builder.flag("kmsg-path", log.to_string_lossy()).start()?;
    let mut client = node.healthy().await?;
    let gpus = node.gpus();
    let line = |gpu: usize, code: u32| -> Result<String> {
        let pci = gpus.get(gpu).context("no such GPU")?.pci;
        Ok(format!(
            "[ 1.5] NVRM: Xid (PCI:{pci}): {code}, pid=1, name=x, text\n"
        ))
    };
    let append = |text: &str| -> Result<()> {
        let mut log = OpenOptions::new().append(true).open(&log)?;
        Ok(log.write_all(text.as_bytes())?)
    };
    append(&line(3, 79)?)?;
    let told = |gpu: &device_api_proto::native::Gpu| is_problem(gpu, "XidCriticalError");
    let (third, fourth) = (node.uuid(3)?, node.uuid(4)?);
    client
        .watch(0)
        .await?
        .until(&third, "told of XID 79", told)
        .await?;
    node.stop(Signal::TERM)?;
    append(&line(4, 79)?)?;
    node.start_again()?;

    let mut client = node.native().await?;
    client
        .watch(0)
        .await?
        .until(&fourth, "told of XID 79", told)
        .await?;
    assert!(is_problem(&client.get(&third).await?, "XidCriticalError"));
    let metrics = node.metrics()?;
    assert!(
        metrics.contains("device_api_server_kmsg_lines_total 1\n"),
        "the line from before is not read again: {}",
        metrics
            .lines()
            .filter(|line| line.contains("kmsg"))
            .collect::<Vec<_>>()
            .join("\n")
    );
    Ok(())
}

#[tokio::test]
async fn c7_a_reboot_clears_what_a_reboot_clears() -> Result<()> {
    let mut node = Node::builder()?.in_its_own_boot()?.start()?;
    let mut client = node.healthy().await?;
    let name = break_gpu(&node, &mut client, 2).await?;
    let zeroth = node.uuid(0)?;
    provider_says(&mut client, &zeroth, "AgentBad", true).await?;
    node.stop(Signal::KILL)?;
    node.next_boot()?;
    node.start_again()?;

    let mut client = node.native().await?;
    let healthy = |gpu: &device_api_proto::native::Gpu| health_of(gpu) == Health::Healthy;
    client
        .watch(0)
        .await?
        .until(&name, "Healthy after the reboot", healthy)
        .await?;
    let gpu = client.get(&zeroth).await?;
    assert!(
        is_problem(&gpu, "AgentBad"),
        "what a provider says is for it to clear"
    );
    Ok(())
}

#[tokio::test]
async fn a_damaged_store_is_set_aside_and_every_gpu_unknown_until_it_is_seen() -> Result<()> {
    let mut node = Node::start()?;
    let mut client = node.healthy().await?;
    let version = client.list().await?.resource_version;
    node.stop(Signal::TERM)?;
    let state = node.dir().join("state");
    let files = || files_beneath(&state);
    // Compiled code and what is remembered of policies, too.
    for file in files()? {
        std::fs::write(&file, b"not what it was")?;
    }
    let before = files()?.len();
    assert!(before > 4, "{before} files");
    node.start_again()?;
    let line = node.daemon.wait_for(&["set aside"])?;
    assert!(line.contains("corrupt-"), "{line}");
    assert!(files()?.len() > before, "nothing is thrown away");
    let mut client = node.healthy().await?;
    assert!(client.list().await?.resource_version > version);
    let request = WatchGpusRequest {
        resource_version: version,
        ..Default::default()
    };
    let status = client.gpus.watch_gpus(request).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange);
    Ok(())
}

#[tokio::test]
async fn a_newer_daemons_state_ends_the_start_and_stays_as_it_is() -> Result<()> {
    let mut node = Node::start()?;
    node.healthy().await?;
    node.stop(Signal::TERM)?;
    let ledger = node.dir().join("state/policies/ledger.json");
    let ours = std::fs::read_to_string(&ledger)?;
    let newer = ours.replacen("\"format\": 1", "\"format\": 2", 1);
    ensure!(newer != ours, "{ours}");
    std::fs::write(&ledger, &newer)?;
    node.spawn_again()?;
    let line = node
        .daemon
        .wait_for(&["ERROR", "a newer daemon wrote it"])?;
    let path = ledger.display().to_string();
    ensure!(
        line.contains(&path) && line.contains("format version 2"),
        "{line}"
    );
    assert_eq!(node.daemon.wait()?.code(), Some(1));
    ensure!(!node.socket().exists(), "nobody is answered");
    assert_eq!(std::fs::read_to_string(&ledger)?, newer);

    // The way out that the line names.
    std::fs::rename(&ledger, format!("{path}.damaged-newer"))?;
    node.start_again()?;
    node.healthy().await?;
    Ok(())
}

fn files_beneath(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(files_beneath(&path)?);
        } else {
            files.push(path);
        }
    }
    Ok(files)
}

#[tokio::test]
async fn two_daemons_never_share_a_state_directory() -> Result<()> {
    let node = Node::start()?;
    let other = Node::builder()?
        .flag("state-dir", node.dir().join("state").to_string_lossy())
        .spawn()?;
    let line = other.daemon.wait_for(&["in use by another daemon"])?;
    assert!(
        line.contains("--store=memory") || line.contains("its own"),
        "{line}"
    );
    Ok(())
}

#[tokio::test]
async fn c6_a_store_that_cannot_grow_costs_writes_and_not_reads() -> Result<()> {
    let node = Node::start()?;
    let mut client = node.healthy().await?;
    let name = node.uuid(1)?;
    provider_says(&mut client, &name, "AgentFine", false).await?;
    let pid = i32::try_from(node.daemon.pid())?;
    let limit = |bytes| {
        let limits = Rlimit {
            current: bytes,
            maximum: None,
        };
        prlimit(Pid::from_raw(pid), Resource::Fsize, limits)
    };
    limit(Some(1))?;
    let refused = provider_says(&mut client, &name, "AgentFine", true).await;
    let refused = refused.err().context("acknowledged")?;
    let status = refused
        .downcast_ref::<tonic::Status>()
        .context("no status")?;
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    client.get(&name).await?;
    let (code, detail) = http(&node.address("/healthz")?, "/readyz")?;
    assert!(
        code == 200 && detail.contains("writes are refused"),
        "{code} {detail}"
    );
    assert!(
        node.metrics()?
            .contains("device_api_server_store_writable 0\n")
    );
    limit(None)?;
    let again = async {
        while provider_says(&mut client, &name, "AgentFine", true)
            .await
            .is_err()
        {}
    };
    tokio::time::timeout(PATIENCE, again)
        .await
        .context("not written again")?;
    Ok(())
}
