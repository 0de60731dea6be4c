//! From start to end: without NVML, with signals, and what health and metrics say.

use anyhow::{Context as _, Result, ensure};
use device_api_proto::native::{GetGpuRequest, Gpu, Health, ListGpusRequest, WatchGpusRequest};
use device_api_tests::{Node, health_of, http};
use rustix::process::Signal;
use tonic::Code;

#[tokio::test]
async fn without_nvml_it_serves_says_so_and_keeps_looking() -> Result<()> {
    let node = Node::builder()?.without_nvml().start()?;
    let mut client = node.native().await?;
    assert!(client.list().await?.gpus.is_empty());
    node.daemon.wait_for(&["NVML"])?;
    let health = node.address("/healthz")?;
    assert_eq!(http(&health, "/healthz")?.0, 200);
    let (code, detail) = http(&health, "/readyz")?;
    assert_eq!(code, 200);
    assert!(
        detail.contains("nvml") && detail.contains("no-such-library.so"),
        "{detail}"
    );
    let metrics = node.metrics()?;
    assert!(
        metrics.contains("device_api_server_nvml_provider_enabled 1"),
        "{metrics}"
    );
    assert!(
        metrics.contains("device_api_server_nvml_health_monitor_running 0"),
        "{metrics}"
    );
    Ok(())
}

#[tokio::test]
async fn metrics_tell_of_gpus_signals_policies_and_calls() -> Result<()> {
    let node = Node::start()?;
    let mut client = node.healthy().await?;
    let (name, mut watch) = (node.uuid(5)?, client.watch(0).await?);
    node.sim()?.xid(5, &[79])?;
    let unhealthy = |gpu: &Gpu| health_of(gpu) == Health::Unhealthy;
    watch.until(&name, "Unhealthy", unhealthy).await?;
    client.get(&name).await?;
    let metrics = node.metrics()?;
    for line in [
        "device_api_server_up 1",
        "device_api_server_cache_gpus_total 8",
        "device_api_server_cache_gpus_unhealthy 1",
        "device_api_server_nvml_gpu_count 8",
    ] {
        assert!(metrics.contains(line), "no {line:?} in\n{metrics}");
    }
    ensure!(
        metrics.contains("policy=\"xid-policy\""),
        "no policy is named in\n{metrics}"
    );
    ensure!(
        metrics.contains("grpc_method=\"GetGpu\""),
        "no call is named in\n{metrics}"
    );
    Ok(())
}

#[tokio::test]
async fn sigterm_drains_watches_end_with_unavailable_and_the_socket_goes() -> Result<()> {
    let mut node = Node::start()?;
    let mut client = node.healthy().await?;
    let mut watch = client
        .gpus
        .watch_gpus(WatchGpusRequest::default())
        .await?
        .into_inner();
    node.daemon.signal(Signal::TERM)?;
    let end = loop {
        match watch.message().await {
            Ok(Some(_)) => {}
            Ok(None) => break None,
            Err(status) => break Some(status.code()),
        }
    };
    assert_eq!(end, Some(Code::Unavailable));
    let status = node.daemon.wait()?;
    assert!(status.success(), "{status}");
    assert!(!node.socket().exists(), "the socket is removed");
    Ok(())
}

#[tokio::test]
async fn a_second_signal_does_not_wait_for_the_drain() -> Result<()> {
    let mut node = Node::builder()?.flag("shutdown-timeout", "60s").start()?;
    let mut client = node.healthy().await?;
    // A reflection stream that stays open holds the drain up.
    let mut reflection =
        tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient::new(
            client.channel.clone(),
        );
    let (open, requests) = tokio::sync::mpsc::channel(1);
    let asked = tonic_reflection::pb::v1::ServerReflectionRequest {
        message_request: Some(
            tonic_reflection::pb::v1::server_reflection_request::MessageRequest::ListServices(
                String::new(),
            ),
        ),
        ..Default::default()
    };
    open.send(asked).await?;
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let mut stream = reflection
        .server_reflection_info(requests)
        .await?
        .into_inner();
    ensure!(
        stream.message().await?.is_some(),
        "reflection does not answer"
    );
    client.list().await?;
    node.daemon.signal(Signal::TERM)?;
    node.daemon.wait_for(&["draining"])?;
    node.daemon.signal(Signal::TERM)?;
    let status = node.daemon.wait()?;
    assert_eq!(status.code(), Some(1), "aborted, and says so");
    drop((open, stream));
    Ok(())
}

#[tokio::test]
async fn port_0_is_a_free_port_that_the_log_names_and_tcp_is_read_only() -> Result<()> {
    let node = Node::start()?;
    node.healthy().await?;
    let address = node.address("API: TCP")?;
    let channel = tonic::transport::Endpoint::new(format!("http://{address}"))?
        .connect()
        .await?;
    let mut client = device_api_tests::Native::over(channel);
    assert_eq!(client.list().await?.gpus.len(), 8);
    let request = device_api_proto::native::DeleteGpuRequest {
        name: node.uuid(0)?,
        ..Default::default()
    };
    let refused = client.gpus.delete_gpu(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(
        refused.message().contains("Unix socket"),
        "it says what to do: {}",
        refused.message()
    );
    assert_eq!(client.list().await?.gpus.len(), 8);
    Ok(())
}

#[tokio::test]
async fn the_effective_configuration_is_logged_and_flags_beat_the_environment() -> Result<()> {
    let node = Node::builder()?
        .env("DEVICE_API_SHUTDOWN_TIMEOUT", "7s")
        .env("DEVICE_API_LOG_FORMAT", "json")
        .start()?;
    let line = node.daemon.wait_for(&["starting", "shutdown-timeout"])?;
    let logged: serde_json::Value =
        serde_json::from_str(&line).context("one JSON object a line")?;
    assert!(logged.to_string().contains("7s"), "{line}");
    assert!(
        node.daemon
            .log()
            .iter()
            .all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok())
    );
    Ok(())
}

#[tokio::test]
async fn an_unknown_gpu_is_not_found_and_says_what_to_do() -> Result<()> {
    let node = Node::start()?;
    let mut client = node.native().await?;
    let request = GetGpuRequest {
        name: "GPU-nobody".to_owned(),
        namespace: String::new(),
        ..Default::default()
    };
    let status = client.gpus.get_gpu(request).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert!(
        status.message().contains("GPU-nobody") && status.message().contains("ListGpus"),
        "{}",
        status.message()
    );
    let status = client
        .gpus
        .watch_gpus(WatchGpusRequest {
            namespace: String::new(),
            resource_version: -5,
            ..Default::default()
        })
        .await;
    assert_eq!(status.unwrap_err().code(), Code::InvalidArgument);
    assert!(
        client
            .gpus
            .list_gpus(ListGpusRequest::default())
            .await
            .is_ok()
    );
    Ok(())
}

/// A line of a scrape.
fn metric(node: &Node, line: &str) -> Result<bool> {
    Ok(node.metrics()?.lines().any(|is| is == line))
}

#[tokio::test]
async fn a_socket_that_is_removed_or_replaced_is_bound_anew() -> Result<()> {
    let mut node = Node::start()?;
    let mut before = node.healthy().await?;
    ensure!(metric(&node, "device_api_server_sockets_lost 0")?);

    std::fs::remove_file(node.socket())?;
    let line = node.daemon.wait_for(&["listening anew"])?;
    ensure!(
        line.contains("WARN") && line.contains("its file is gone") && line.contains("device.sock"),
        "{line}"
    );
    let mode = std::fs::metadata(node.socket())?.permissions();
    ensure!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777 == 0o660);
    ensure!(node.native().await?.list().await?.gpus.len() == 8);
    ensure!(
        before.list().await?.gpus.len() == 8,
        "who was connected still is"
    );
    ensure!(metric(
        &node,
        "device_api_server_sockets_bound_anew_total 1"
    )?);

    // What is no socket is another's: it stays, and the daemon says so for as long as it does.
    std::fs::remove_file(node.socket())?;
    std::fs::write(node.socket(), "another's")?;
    node.daemon
        .wait_for(&["nobody reaches the socket", "is not a socket"])?;
    let health = node.address("/healthz")?;
    let (code, detail) = http(&health, "/readyz")?;
    ensure!(
        code == 200 && detail.contains("sockets: degraded: nobody reaches"),
        "{detail}"
    );
    ensure!(metric(&node, "device_api_server_sockets_lost 1")?);
    ensure!(std::fs::read_to_string(node.socket())? == "another's");
    std::fs::remove_file(node.socket())?;
    node.daemon.wait_for_nth(&["listening anew"], 2)?;
    ensure!(node.native().await?.list().await?.gpus.len() == 8);
    ensure!(metric(&node, "device_api_server_sockets_lost 0")?);
    let (_, detail) = http(&health, "/readyz")?;
    ensure!(detail.contains("sockets: up: 1 listening"), "{detail}");

    node.stop(Signal::TERM)?;
    ensure!(!node.socket().exists(), "the socket is removed");
    Ok(())
}
