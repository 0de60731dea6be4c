//! WatchGpus in both dialects (design section 3).

use device_api_proto::{native, upstream};
use tonic::{Code, Streaming};

use crate::harness::{Native, Server, created, refused, soon, upstream_gpu};

async fn watch(
    client: &mut Native,
    namespace: &str,
    resource_version: i64,
) -> Streaming<native::WatchGpusResponse> {
    let request = native::WatchGpusRequest {
        namespace: namespace.to_owned(),
        resource_version,
        ..Default::default()
    };
    soon(client.watch_gpus(request))
        .await
        .expect("watches")
        .into_inner()
}

async fn event(
    stream: &mut Streaming<native::WatchGpusResponse>,
) -> (native::EventType, String, i64) {
    let event = soon(stream.message())
        .await
        .expect("no error")
        .expect("an event");
    let gpu = event.gpu.clone().expect("gpu");
    (event.r#type(), gpu.name, gpu.resource_version)
}

fn delete(name: &str) -> native::DeleteGpuRequest {
    native::DeleteGpuRequest {
        name: name.to_owned(),
        ..Default::default()
    }
}

#[tokio::test]
async fn w1_a_watch_starts_with_the_state_or_resumes_after_a_version() {
    use native::EventType::{Added, Deleted};
    let server = Server::start().await;
    let mut client = server.native().await;
    let v0 = created(&mut client, "gpu-0").await;
    let mut from_now = watch(&mut client, "", 0).await;
    assert_eq!(event(&mut from_now).await, (Added, "gpu-0".to_owned(), v0));

    let v1 = created(&mut client, "gpu-1").await;
    assert_eq!(event(&mut from_now).await, (Added, "gpu-1".to_owned(), v1));
    let mut resumed = watch(&mut client, "", v0).await;
    assert_eq!(event(&mut resumed).await, (Added, "gpu-1".to_owned(), v1));

    client.delete_gpu(delete("gpu-0")).await.expect("deleted");
    assert_eq!(
        event(&mut resumed).await,
        (Deleted, "gpu-0".to_owned(), v1 + 1),
        "the deletion's version"
    );

    let request = |resource_version| native::WatchGpusRequest {
        resource_version,
        ..Default::default()
    };
    refused(
        client.watch_gpus(request(1_000)).await,
        Code::OutOfRange,
        "list again",
    );
    refused(
        client.watch_gpus(request(-7)).await,
        Code::InvalidArgument,
        "resource_version: -7 is negative",
    );
}

#[tokio::test]
async fn upstream_watches_speak_its_words() {
    let server = Server::start().await;
    let mut client = server.upstream().await;
    let create = |namespace: &str, name: &str| upstream::CreateGpuRequest {
        gpu: Some(upstream_gpu(namespace, name)),
        opts: None,
    };
    client
        .create_gpu(create("default", "gpu-0"))
        .await
        .expect("created");
    client
        .create_gpu(create("default2", "gpu-1"))
        .await
        .expect("created");
    let request = |namespace: &str, version: &str| upstream::WatchGpusRequest {
        namespace: namespace.to_owned(),
        opts: Some(upstream::ListOptions {
            resource_version: version.to_owned(),
        }),
    };
    let mut stream = soon(client.watch_gpus(request("default", "0")))
        .await
        .expect("watches")
        .into_inner();
    let added = soon(stream.message())
        .await
        .expect("no error")
        .expect("an event");
    assert_eq!(
        (
            &*added.r#type,
            &*added
                .object
                .and_then(|gpu| gpu.metadata)
                .expect("meta")
                .name
        ),
        ("ADDED", "gpu-0")
    );
    let gone = upstream::DeleteGpuRequest {
        name: "gpu-0".to_owned(),
        ..Default::default()
    };
    client.delete_gpu(gone).await.expect("deleted");
    let deleted = soon(stream.message())
        .await
        .expect("no error")
        .expect("not gpu-1, which is elsewhere");
    let meta = deleted.object.and_then(|gpu| gpu.metadata).expect("meta");
    assert_eq!(
        (&*deleted.r#type, &*meta.name, &*meta.resource_version),
        ("DELETED", "gpu-0", "4")
    );

    refused(
        client.watch_gpus(request("", "77")).await,
        Code::OutOfRange,
        "list again",
    );
    refused(
        client.watch_gpus(request("", "now")).await,
        Code::InvalidArgument,
        "opts.resource_version",
    );
}

#[tokio::test]
async fn w4_a_connection_has_so_many_watches_and_still_room_for_calls() {
    let server = Server::start().await;
    let mut client = server.native().await;
    let mut streams = Vec::new();
    for _ in 0..200 {
        streams.push(watch(&mut client, "", 0).await);
    }
    let answer = client.watch_gpus(native::WatchGpusRequest::default()).await;
    refused(
        answer,
        Code::ResourceExhausted,
        "limit watches-per-connection reached: at most 200",
    );
    soon(client.list_gpus(native::ListGpusRequest::default()))
        .await
        .expect("unary calls get through");
    let mut another = server.native().await;
    drop(watch(&mut another, "", 0).await);

    drop(streams);
    soon(
        server
            .observer
            .watches
            .subscribe()
            .wait_for(|watches| *watches == 0),
    )
    .await
    .expect("all are freed");
    watch(&mut client, "", 0).await;
}
