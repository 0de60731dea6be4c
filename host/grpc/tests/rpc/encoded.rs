//! A GPU is encoded once per version and dialect, and what goes out is what the protos say.

use device_api_core::gpu::{Encodings, Gpu};
use device_api_core::ids::ObjectKey;
use device_api_proto::{native, upstream};
use prost::Message;

use crate::harness::{Native, Server, created, soon, upstream_gpu};

const WATCHERS: usize = 100;

/// Slots of the dialects, as `host/grpc` gives them out.
const NATIVE: usize = 0;
const UPSTREAM: usize = 1;

fn kept(gpu: &Gpu, slot: usize) -> Vec<u8> {
    let bytes = gpu.encoded.get_or_make(slot, || [].into()).to_vec();
    assert!(!bytes.is_empty(), "nobody encoded it before");
    bytes
}

fn get() -> native::GetGpuRequest {
    native::GetGpuRequest {
        name: "gpu-0".to_owned(),
        ..Default::default()
    }
}

fn broken() -> native::UpdateGpuStatusRequest {
    let condition = native::Condition {
        r#type: "FanBroken".to_owned(),
        status: native::ConditionStatus::True.into(),
        message: "é".repeat(3_000),
        ..Default::default()
    };
    native::UpdateGpuStatusRequest {
        name: "gpu-0".to_owned(),
        status: Some(native::GpuStatus {
            conditions: vec![condition],
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[tokio::test]
async fn every_answer_of_a_dialect_holds_the_same_gpu() {
    let server = Server::start().await;
    let mut client = server.native().await;
    let mut upstream = server.upstream().await;
    let gpu = native::Gpu {
        spec: Some(native::GpuSpec {
            uuid: "GPU-0".to_owned(),
            memory_bytes: Some(80 << 30),
            labels: [("zone".to_owned(), "a".to_owned())].into(),
            ..Default::default()
        }),
        name: "gpu-0".to_owned(),
        ..Default::default()
    };
    let request = native::CreateGpuRequest { gpu: Some(gpu) };
    client.create_gpu(request).await.expect("created");
    let updated = client.update_gpu_status(broken()).await.expect("written");
    let updated = updated.into_inner();

    let got = client.get_gpu(get()).await.expect("found").into_inner().gpu;
    let listed = client.list_gpus(native::ListGpusRequest::default()).await;
    let watched = client.watch_gpus(native::WatchGpusRequest::default()).await;
    let mut watched = watched.expect("watches").into_inner();
    let event = soon(watched.message()).await.expect("no error");
    assert_eq!(got.as_ref(), Some(&updated));
    assert_eq!(
        listed.expect("listed").into_inner().gpus,
        std::slice::from_ref(&updated)
    );
    assert_eq!(event.expect("an event").gpu, got);
    let stored = server.store.stored("gpu-0");
    assert_eq!(
        native::Gpu::decode(&*kept(&stored, NATIVE)),
        Ok(updated),
        "what is kept is what was sent"
    );

    let request = upstream::UpdateGpuRequest {
        gpu: Some(upstream::Gpu {
            spec: Some(upstream::GpuSpec {
                uuid: "GPU-0".to_owned(),
            }),
            ..upstream_gpu("", "gpu-0")
        }),
        opts: None,
    };
    let updated = upstream.update_gpu(request).await.expect("no change");
    let updated = updated.into_inner();
    let listed = upstream
        .list_gpus(upstream::ListGpusRequest::default())
        .await
        .expect("listed");
    let list = listed.into_inner().gpu_list.expect("a list");
    assert_eq!(list.items, std::slice::from_ref(&updated));
    let watched = upstream
        .watch_gpus(upstream::WatchGpusRequest::default())
        .await;
    let mut watched = watched.expect("watches").into_inner();
    let event = soon(watched.message()).await.expect("no error");
    assert_eq!(event.expect("an event").object.as_ref(), Some(&updated));
    assert_eq!(
        upstream::Gpu::decode(&*kept(&stored, UPSTREAM)),
        Ok(updated)
    );
}

/// Watches from here on.
async fn watches(
    client: &mut Native,
    version: i64,
) -> Vec<tonic::Streaming<native::WatchGpusResponse>> {
    let mut streams = Vec::new();
    for _ in 0..WATCHERS {
        let request = native::WatchGpusRequest {
            resource_version: version,
            ..Default::default()
        };
        let stream = client.watch_gpus(request).await.expect("watches");
        streams.push(stream.into_inner());
    }
    streams
}

#[tokio::test]
async fn a_hundred_watchers_of_one_change_and_all_who_read_it_encode_it_once() {
    let server = Server::start().await;
    let mut client = server.native().await;
    let version = created(&mut client, "gpu-0").await;
    let mut streams = watches(&mut client, version).await;

    // A version whose bytes were made before: whoever encoded it again would not send these.
    let planted = native::Gpu {
        name: "encoded once".to_owned(),
        ..Default::default()
    };
    let encoded = Encodings::default();
    encoded.get_or_make(NATIVE, || planted.encode_to_vec().into());
    let key = ObjectKey::new("", "gpu-0");
    server.store.replace(&key, encoded);

    for stream in &mut streams {
        let event = soon(stream.message()).await.expect("no error");
        assert_eq!(event.expect("an event").gpu.as_ref(), Some(&planted));
    }
    let got = client.get_gpu(get()).await.expect("found").into_inner();
    assert_eq!(got.gpu.as_ref(), Some(&planted));
    let listed = client.list_gpus(native::ListGpusRequest::default()).await;
    assert_eq!(listed.expect("listed").into_inner().gpus, [planted]);

    // And the next version is made by the first who needs it, and kept for the others.
    let version = client.update_gpu_status(broken()).await.expect("written");
    let version = version.into_inner();
    for stream in &mut streams {
        let event = soon(stream.message()).await.expect("no error");
        assert_eq!(event.expect("an event").gpu.as_ref(), Some(&version));
    }
    let stored = server.store.stored("gpu-0");
    assert_eq!(native::Gpu::decode(&*kept(&stored, NATIVE)), Ok(version));
}
