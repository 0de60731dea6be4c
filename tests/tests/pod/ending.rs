//! The kubelet ends a pod with clients connected, and starts the next one.

use anyhow::{Context as _, Result, ensure};
use device_api_proto::native::{Gpu, Health, WatchGpusRequest};
use device_api_tests::{Native, Watch, health_of};
use rustix::process::Signal;
use tonic::Code;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;

use crate::probe::ask;
use crate::release::{Release, uuid};

/// A stream that its client ends, and that a drain waits for: it is open while this lives.
async fn call_under_way(client: &Native) -> Result<impl Sized + use<>> {
    let mut reflection = ServerReflectionClient::new(client.channel.clone());
    let (open, requests) = tokio::sync::mpsc::channel(1);
    open.send(ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..Default::default()
    })
    .await?;
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let answers = reflection.server_reflection_info(requests).await?;
    let mut answers = answers.into_inner();
    answers.message().await?.context("no answer")?;
    Ok((open, answers))
}

/// Reads a watch to its end: how it ended, and the newest version that it told of.
async fn to_its_end(client: &mut Native) -> Result<tokio::task::JoinHandle<(Code, i64)>> {
    let mut newest = client.list().await?.resource_version;
    let request = WatchGpusRequest {
        resource_version: newest,
        ..Default::default()
    };
    let mut watch = client.gpus.watch_gpus(request).await?.into_inner();
    Ok(tokio::spawn(async move {
        loop {
            match watch.message().await {
                Ok(Some(event)) => newest = event.resource_version,
                Ok(None) => return (Code::Ok, newest),
                Err(status) => return (status.code(), newest),
            }
        }
    }))
}

/// As a consumer resumes: after what it has seen; where something changed between the end of its watch and the daemon's own,
/// that is no longer kept, and it begins with what there is.
async fn resumed(client: &mut Native, newest: i64) -> Result<Watch> {
    match client.watch(newest).await {
        Ok(watch) => Ok(watch),
        Err(error) => {
            let status = error.downcast_ref::<tonic::Status>();
            ensure!(
                status.is_some_and(|status| status.code() == Code::OutOfRange),
                "{error:#}"
            );
            client.watch(0).await
        }
    }
}

/// The drain waits for a call that the test holds; how long the daemon would bear that is no part of it. That its default
/// fits the grace period is the chart's to see (`chart::refused`).
const PATIENT: [&str; 2] = [
    "--set=config.shutdown-timeout=9m",
    "--set=terminationGracePeriodSeconds=600",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_drains_and_its_clients_go_on_with_the_next() -> Result<()> {
    let Some(mut release) = Release::install_with("", &PATIENT)? else {
        return Ok(());
    };
    let running = release.started().await?;
    let mut client = release.healthy().await?;
    let ill = uuid(2)?;
    let unhealthy = |gpu: &Gpu| health_of(gpu) == Health::Unhealthy;
    let mut watch = client.watch(0).await?;
    release.sim()?.xid(2, &[79])?;
    watch.until(&ill, "Unhealthy", unhealthy).await?;
    let watcher = to_its_end(&mut client).await?;
    let call = call_under_way(&release.client().await?).await?;

    // preStop is a sleep, which the kubelet does itself.
    let container = release.container().clone();
    running.signal(Signal::TERM)?;
    running.process.wait_for(&["draining"])?;
    let (ended, newest) = watcher.await?;
    ensure!(ended == Code::Unavailable, "watchers are told: {ended:?}");
    let (is_ready, said) = ask(&running, &container, "readinessProbe")?;
    ensure!(!is_ready && said.contains("503"), "{said}");
    let (is_alive, said) = ask(&running, &container, "livenessProbe")?;
    ensure!(is_alive, "the kubelet would restart it: {said}");
    drop(call);
    let (status, said) = running.end()?;
    // Zero: it drained, and cut nothing off.
    ensure!(status.code() == Some(0), "{status}\n{said}");

    let _next = release.started().await?;
    // On the same path; the fault is still there, and the watch goes on where it was.
    let mut client = release.client().await?;
    ensure!(
        unhealthy(&client.get(&ill).await?),
        "a restart heals nothing"
    );
    let mut watch = resumed(&mut client, newest).await?;
    let other = |gpu: &Gpu| health_of(gpu) == Health::Healthy;
    watch.until(&uuid(3)?, "Healthy again", other).await?;
    Ok(())
}
