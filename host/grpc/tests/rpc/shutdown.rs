//! Graceful shutdown (design W4).

use device_api_proto::native;
use tokio::net::{TcpStream, UnixStream};
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::harness::{Server, created, refused, soon};

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
