//! Who talks to the daemon while it is killed, and after.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use device_api_proto::native::{self, EventType};
use device_api_proto::upstream;
use device_api_tests::history::Shown as _;
use device_api_tests::linear::Version;
use device_api_tests::{Native, PATIENCE, Upstream};
use tonic::Code;

use crate::Run;
use crate::ledger::{Ledger, Write};

/// Of native providers, each the only writer of its type.
pub(crate) const NATIVE_TYPES: [&str; 3] = ["KillFirst", "KillSecond", "KillThird"];
pub(crate) const UPSTREAM_TYPE: &str = "SysLogsKill";
/// Objects that come and go.
pub(crate) const EXTRA: [&str; 2] = ["extra-0", "extra-1"];
const REASON: &str = "Because";

/// Numbers of writes: of no two the same, in whichever run.
fn next_number() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::SeqCst)
}

pub(crate) async fn native(client: Native, run: Run, type_: &'static str) -> Result<()> {
    match write_conditions(client, &run, type_).await {
        Ok(()) => Ok(()),
        Err(error) => run.end(error),
    }
}

async fn write_conditions(mut client: Native, run: &Run, type_: &str) -> Result<()> {
    let request = native::RegisterProviderRequest {
        name: type_.to_lowercase(),
        lease_duration: Some(prost_types::Duration {
            seconds: 3600,
            nanos: 0,
        }),
    };
    let lease = client.providers.register_provider(request).await?;
    let lease_id = lease.into_inner().lease_id;
    let mut random = run.random(type_.bytes().map(u64::from).sum());
    loop {
        let gpu = random.pick(&run.ledger.gpus);
        let write = Write {
            number: next_number(),
            is_problem: random.once_in(2),
        };
        let status = if write.is_problem {
            native::ConditionStatus::True
        } else {
            native::ConditionStatus::False
        };
        let request = native::UpdateGpuConditionRequest {
            lease_id: lease_id.clone(),
            name: gpu.clone(),
            condition: Some(native::Condition {
                r#type: type_.to_owned(),
                status: status.into(),
                polarity: native::Polarity::TrueIsProblem.into(),
                severity: native::Severity::Info.into(),
                reason: REASON.to_owned(),
                message: write.number.to_string(),
                ..Default::default()
            }),
            ..Default::default()
        };
        run.ledger.begins(gpu, type_, write);
        run.begin_write();
        let answer = client.providers.update_gpu_condition(request).await?;
        run.ledger.answered(gpu, type_);
        run.ledger.saw(&answer.into_inner())?;
    }
}

pub(crate) async fn upstream(client: Upstream, run: Run) -> Result<()> {
    match write_status(client, &run).await {
        Ok(()) => Ok(()),
        Err(error) => run.end(error),
    }
}

/// Upstream's writers can't say which way round a type is; the daemon knows this one.
async fn write_status(mut client: Upstream, run: &Run) -> Result<()> {
    let mut random = run.random(100);
    loop {
        let gpu = random.pick(&run.ledger.gpus);
        let write = Write {
            number: next_number(),
            is_problem: random.once_in(2),
        };
        let status = if write.is_problem { "True" } else { "False" };
        let request = upstream::UpdateGpuStatusRequest {
            gpu: Some(upstream::Gpu {
                metadata: Some(upstream::ObjectMeta {
                    name: gpu.clone(),
                    ..Default::default()
                }),
                spec: None,
                status: Some(upstream::GpuStatus {
                    conditions: vec![upstream::Condition {
                        r#type: UPSTREAM_TYPE.to_owned(),
                        status: status.to_owned(),
                        reason: REASON.to_owned(),
                        message: write.number.to_string(),
                        ..Default::default()
                    }],
                    recommended_action: String::new(),
                }),
            }),
            ..Default::default()
        };
        run.ledger.begins(gpu, UPSTREAM_TYPE, write);
        run.begin_write();
        client.gpus.update_gpu_status(request).await?;
        run.ledger.answered(gpu, UPSTREAM_TYPE);
    }
}

pub(crate) async fn creator(client: Native, run: Run) -> Result<()> {
    match create_and_delete(client, &run).await {
        Ok(()) => Ok(()),
        Err(error) => run.end(error),
    }
}

async fn create_and_delete(mut client: Native, run: &Run) -> Result<()> {
    let mut random = run.random(200);
    loop {
        let name = *random.pick(&EXTRA);
        let there = random.once_in(2);
        run.ledger.begins_object(name, there);
        run.begin_write();
        if there {
            let request = native::CreateGpuRequest {
                gpu: Some(native::Gpu {
                    name: name.to_owned(),
                    spec: Some(native::GpuSpec {
                        uuid: format!("GPU-{name}"),
                        ..Default::default()
                    }),
                    ..Default::default()
                }),
            };
            client.gpus.create_gpu(request).await?;
        } else {
            let request = native::DeleteGpuRequest {
                name: name.to_owned(),
                ..Default::default()
            };
            match client.gpus.delete_gpu(request).await {
                Err(status) if status.code() != Code::NotFound => bail!(status),
                Ok(_) | Err(_) => {}
            }
        }
        run.ledger.answered_object(name);
    }
}

pub(crate) async fn reader(mut client: Native, run: Run) -> Result<()> {
    let mut version = 0;
    loop {
        let list = match client.list().await {
            Ok(list) => list,
            Err(error) => return run.end(error),
        };
        ensure!(list.resource_version >= version, "a list goes back");
        version = list.resource_version;
        for gpu in &list.gpus {
            run.ledger.saw(gpu)?;
        }
    }
}

/// What a watch adds up to.
#[derive(Debug, Default)]
struct Fold {
    version: Version,
    state: BTreeMap<String, Version>,
}

impl Fold {
    fn take(&mut self, event: &native::WatchGpusResponse) -> Result<()> {
        let gpu = event.gpu.as_ref().context("no GPU")?;
        ensure!(
            gpu.version() > self.version,
            "{event:?} after {}",
            self.version
        );
        self.version = gpu.version();
        let before = match event.r#type() {
            EventType::Deleted => self.state.remove(&gpu.name),
            EventType::Added | EventType::Modified => {
                self.state.insert(gpu.name.clone(), gpu.version())
            }
            EventType::Unspecified | EventType::Bookmark => bail!("{event:?} is no change"),
        };
        let is_added = event.r#type() == EventType::Added;
        ensure!(before.is_none() == is_added, "{event:?} is not true");
        Ok(())
    }
}

/// Watches exactly, and leaves behind what it was told last.
pub(crate) async fn watcher(mut client: Native, run: Run) -> Result<()> {
    let request = native::WatchGpusRequest {
        exact: true,
        ..Default::default()
    };
    let mut stream = match client.gpus.watch_gpus(request).await {
        Ok(stream) => stream.into_inner(),
        Err(status) => return run.end(status.into()),
    };
    let mut fold = Fold::default();
    loop {
        match stream.message().await {
            Ok(Some(event)) => {
                fold.take(&event)?;
                if let Some(gpu) = &event.gpu
                    && event.r#type() != EventType::Deleted
                {
                    run.ledger.saw(gpu)?;
                }
                run.ledger.watched(fold.version, fold.state.clone());
            }
            Ok(None) => return run.end(anyhow::anyhow!("the watch ended")),
            Err(status) => return run.end(status.into()),
        }
    }
}

/// W1: a watch goes on from the version that it was told last and misses nothing, or is refused.
pub(crate) async fn resume(mut client: Native, ledger: &Ledger) -> Result<()> {
    let (version, state) = ledger.last_watched();
    if version == 0 {
        return Ok(());
    }
    let request = native::WatchGpusRequest {
        resource_version: i64::try_from(version)?,
        exact: true,
        ..Default::default()
    };
    let mut stream = match client.gpus.watch_gpus(request).await {
        Ok(stream) => stream.into_inner(),
        Err(status) => {
            ensure!(status.code() == Code::OutOfRange, "{status}");
            ledger.resumed(false);
            return Ok(());
        }
    };
    let mut fold = Fold { version, state };
    let list = client.list().await?;
    let wanted: BTreeMap<String, Version> = list
        .gpus
        .iter()
        .map(|gpu| (gpu.name.clone(), gpu.version()))
        .collect();
    while fold.state != wanted {
        ensure!(
            fold.version < list.resource_version.unsigned_abs(),
            "the resumed watch skipped something: it adds up to {fold:?}, there is {wanted:?}"
        );
        let event = tokio::time::timeout(PATIENCE, stream.message()).await;
        let event = event.with_context(|| format!("told no more after {fold:?}"))?;
        fold.take(&event?.context("the watch ended")?)?;
    }
    ledger.resumed(true);
    Ok(())
}

/// W1: Get and List answer the newest state, whatever version they are asked for.
pub(crate) async fn any_version(
    client: &mut Native,
    mut upstream: Upstream,
    ledger: &Ledger,
) -> Result<()> {
    let seen = ledger.newest();
    for version in [1, seen.saturating_sub(1), seen, seen + 1, seen + (1 << 40)] {
        let request = native::ListGpusRequest {
            resource_version: i64::try_from(version)?,
            ..Default::default()
        };
        let list = client.gpus.list_gpus(request).await?.into_inner();
        ensure!(
            list.resource_version.unsigned_abs() >= seen,
            "not the newest"
        );
        let request = upstream::GetGpuRequest {
            name: ledger.gpus.first().cloned().unwrap_or_default(),
            opts: Some(upstream::GetOptions {
                resource_version: version.to_string(),
            }),
            ..Default::default()
        };
        upstream.gpus.get_gpu(request).await?;
        let request = upstream::ListGpusRequest {
            opts: Some(upstream::ListOptions {
                resource_version: version.to_string(),
            }),
            ..Default::default()
        };
        upstream.gpus.list_gpus(request).await?;
    }
    Ok(())
}
