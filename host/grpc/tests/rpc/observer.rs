//! What metrics hear.

use device_api_proto::native;
use tonic::Code;

use crate::harness::{Server, created, refused, soon};

#[tokio::test]
async fn each_call_is_told_once_with_its_code() {
    let server = Server::start().await;
    let mut client = server.native().await;
    created(&mut client, "gpu-0").await;
    let get = native::GetGpuRequest {
        name: "nobody".to_owned(),
        ..Default::default()
    };
    refused(client.get_gpu(get).await, Code::NotFound, "nobody");
    let mut stream = client
        .watch_gpus(native::WatchGpusRequest::default())
        .await
        .expect("watches")
        .into_inner();
    soon(stream.message())
        .await
        .expect("no error")
        .expect("an event");
    assert_eq!(*server.observer.watches.borrow(), 1);
    drop(stream);
    soon(server.observer.open.subscribe().wait_for(|open| *open == 0))
        .await
        .expect("all ended");

    let method = |name: &str| format!("nvidia.device.v1alpha1.GpuService/{name}");
    let expected = [
        (method("CreateGpu"), "OK"),
        (method("GetGpu"), "NotFound"),
        (method("WatchGpus"), "Canceled"),
    ];
    assert_eq!(server.observer.handled(), expected);
    let known = server.observer.known.lock().expect("lock").clone();
    for (method, _) in &expected {
        assert!(known.contains(method), "{method} is in {known:?}");
    }
    assert!(known.contains("unknown/unknown") && known.len() > 40);
    assert_eq!(*server.observer.events.lock().expect("lock"), ["ADDED"]);
    assert_eq!(*server.observer.watches.borrow(), 0);
}

#[tokio::test]
async fn a_call_that_the_client_left_is_cancelled() {
    let server = Server::start().await;
    let mut client = server.native().await;
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
    call.abort();
    soon(server.observer.open.subscribe().wait_for(|open| *open == 0))
        .await
        .expect("ended");
    assert_eq!(server.observer.handled()[0].1, "Canceled");
}
