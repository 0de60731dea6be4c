//! Graceful shutdown (design W4).

use std::time::{Duration, Instant};

use device_api_proto::native;
use tokio::net::{TcpStream, UnixStream};
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::harness::{Server, created, refused, soon};
use crate::raw::{self, GET, Raw, WATCH, frame};

#[tokio::test]
async fn w4_watches_end_with_unavailable_and_calls_under_way_finish() {
    let server = Server::start().await;
    let mut client = server.native().await;
    created(&mut client, "gpu-0").await;
    let mut stream = client
        .watch_gpus(native::WatchGpusRequest::default())
        .await
        .expect("watches")
        .into_inner();
    soon(stream.message())
        .await
        .expect("no error")
        .expect("the state");
    server.store.open.send_replace(false);
    let get = native::GetGpuRequest {
        name: "gpu-0".to_owned(),
        ..Default::default()
    };
    let call = tokio::spawn(async move { client.get_gpu(get).await });
    soon(
        server
            .store
            .reading
            .subscribe()
            .wait_for(|reading| *reading == 1),
    )
    .await
    .expect("arrived");

    server.stop.send_replace(true);
    refused(
        soon(stream.message()).await,
        Code::Unavailable,
        "reconnect and resume",
    );
    soon(
        server
            .observer
            .watches
            .subscribe()
            .wait_for(|watches| *watches == 0),
    )
    .await
    .expect("freed");
    assert!(!server.served.is_finished(), "a call is under way");

    server.store.open.send_replace(true);
    soon(call)
        .await
        .expect("joined")
        .expect("the call was answered");
    soon(server.served).await.expect("joined").expect("drained");
    assert!(!server.socket.exists(), "the socket file is gone");
    UnixStream::connect(&server.socket)
        .await
        .expect_err("nobody listens");
    TcpStream::connect(server.tcp)
        .await
        .expect_err("nobody listens");
    assert!(
        server
            .observer
            .handled()
            .iter()
            .any(|(name, code)| name.ends_with("WatchGpus") && *code == "Unavailable")
    );
}

#[tokio::test]
async fn idle_connections_and_health_watches_do_not_hold_it_up() {
    let server = Server::start().await;
    let mut client = server.native().await;
    client
        .list_gpus(native::ListGpusRequest::default())
        .await
        .expect("listed");
    let mut health = HealthClient::new(server.unix().await);
    let mut watch = health
        .watch(HealthCheckRequest::default())
        .await
        .expect("watches")
        .into_inner();
    let mut next = async || {
        soon(watch.message())
            .await
            .expect("no error")
            .map(|answer| answer.status())
    };
    assert_eq!(next().await, Some(ServingStatus::Serving));
    server.stop.send_replace(true);
    assert_eq!(next().await, Some(ServingStatus::NotServing));
    assert_eq!(next().await, None);
    soon(server.served).await.expect("joined").expect("drained");
}

#[tokio::test]
async fn a_stopper_that_is_gone_is_a_stop() {
    let server = Server::start().await;
    drop(server.stop);
    soon(server.served).await.expect("joined").expect("drained");
}

/// Longer than the moment that connections without calls have, with room for a starved machine; well
/// below the 10 s that the daemon gives its drain.
const PROMPT: Duration = Duration::from_secs(5);

async fn drains_promptly(server: Server) {
    let began = Instant::now();
    server.stop.send_replace(true);
    soon(server.served).await.expect("joined").expect("drained");
    assert!(began.elapsed() < PROMPT, "{:?}", began.elapsed());
}

#[tokio::test]
async fn w4_a_client_that_does_not_read_does_not_hold_it_up() {
    const NO_WINDOW: (u16, u32) = (4, 0);
    let server = Server::start().await;
    created(&mut server.native().await, "gpu-0").await;
    let mut stalled = Raw::begin(&server.socket, &[NO_WINDOW]).await;
    stalled.send(&raw::headers(1, WATCH, &[])).await;
    stalled.send(&raw::message(1, &[])).await;
    let mut watches = server.observer.watches.subscribe();
    soon(watches.wait_for(|watches| *watches == 1))
        .await
        .expect("watches");
    drains_promptly(server).await;
    drop(stalled);
}

#[tokio::test]
async fn streams_of_reflection_do_not_hold_it_up() {
    use tonic_reflection::pb::v1;
    let server = Server::start().await;
    let channel = server.unix().await;
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel);
    let never = tokio_stream::pending::<v1::ServerReflectionRequest>();
    let open = client.server_reflection_info(never).await.expect("open");
    drains_promptly(server).await;
    drop(open);
}

#[tokio::test]
async fn connections_that_are_half_made_do_not_hold_it_up() {
    let server = Server::start().await;
    let silent = Raw::connect(&server.socket).await;
    let mut half = Raw::connect(&server.socket).await;
    half.send(&raw::PREFACE[..12]).await;
    // A request that is begun and never ended is no call yet.
    let mut unsent = Raw::begin(&server.socket, &[]).await;
    unsent.send(&raw::headers(1, GET, &[])).await;
    unsent.send(&frame(raw::DATA, 0, 1, &[0, 0, 0, 1, 0])).await;
    let mut open = server.observer.open.subscribe();
    soon(open.wait_for(|open| *open == 1)).await.expect("begun");
    drains_promptly(server).await;
    drop((silent, half, unsent));
}

#[tokio::test]
async fn what_comes_after_the_stop_is_refused_and_may_be_tried_elsewhere() {
    let server = Server::start().await;
    let mut client = server.native().await;
    server.store.open.send_replace(false);
    let get = native::GetGpuRequest {
        name: "gpu-0".to_owned(),
        ..Default::default()
    };
    let mut other = client.clone();
    let call = tokio::spawn(async move { other.get_gpu(get).await });
    let mut reading = server.store.reading.subscribe();
    soon(reading.wait_for(|reading| *reading == 1))
        .await
        .expect("arrived");
    server.stop.send_replace(true);
    let list = native::ListGpusRequest::default();
    let status = soon(client.list_gpus(list)).await.expect_err("stopping");
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    server.store.open.send_replace(true);
    soon(call)
        .await
        .expect("joined")
        .expect_err("there is no such GPU");
    soon(server.served).await.expect("joined").expect("drained");
}
