//! Selectors, exact watches and bookmarks of the native dialect (design W2, W3).

use device_api_proto::native::{self as proto, EventType};
use tonic::{Code, Streaming};

use crate::changes::EXACT_MAX;
use crate::harness::{Native, Server, created, native_gpu, refused, soon};

async fn labelled(client: &mut Native, name: &str, zone: &str) -> i64 {
    let mut gpu = native_gpu(name);
    let spec = gpu.spec.as_mut().expect("spec");
    spec.labels.insert("zone".to_owned(), zone.to_owned());
    let request = proto::CreateGpuRequest { gpu: Some(gpu) };
    let answer = client.create_gpu(request).await.expect("created");
    answer.into_inner().gpu.expect("gpu").resource_version
}

/// Writes a condition that makes the GPU Degraded, or not.
async fn degrade(client: &mut Native, name: &str, degraded: bool) -> i64 {
    let status = if degraded {
        proto::ConditionStatus::True
    } else {
        proto::ConditionStatus::False
    };
    let condition = proto::Condition {
        r#type: "FanBroken".to_owned(),
        status: status.into(),
        polarity: proto::Polarity::TrueIsProblem.into(),
        severity: proto::Severity::Warning.into(),
        reason: "Slow".to_owned(),
        ..Default::default()
    };
    let request = proto::UpdateGpuStatusRequest {
        name: name.to_owned(),
        status: Some(proto::GpuStatus {
            conditions: vec![condition],
            ..Default::default()
        }),
        ..Default::default()
    };
    let gpu = client.update_gpu_status(request).await.expect("written");
    gpu.into_inner().resource_version
}

async fn watch(
    client: &mut Native,
    request: proto::WatchGpusRequest,
) -> Streaming<proto::WatchGpusResponse> {
    let stream = soon(client.watch_gpus(request)).await.expect("watches");
    stream.into_inner()
}

async fn next(stream: &mut Streaming<proto::WatchGpusResponse>) -> (EventType, String, i64) {
    let event = soon(stream.message())
        .await
        .expect("no error")
        .expect("an event");
    let gpu = event.gpu.clone().unwrap_or_default();
    if event.r#type() != EventType::Bookmark {
        assert_eq!(event.resource_version, gpu.resource_version);
    }
    (event.r#type(), gpu.name, event.resource_version)
}

fn list(labels: &str, fields: &str) -> proto::ListGpusRequest {
    proto::ListGpusRequest {
        label_selector: labels.to_owned(),
        field_selector: fields.to_owned(),
        ..Default::default()
    }
}

#[tokio::test]
async fn w3_a_list_selects_by_labels_and_fields() {
    let server = Server::start().await;
    let mut client = server.native().await;
    labelled(&mut client, "gpu-0", "a").await;
    labelled(&mut client, "gpu-1", "b").await;
    created(&mut client, "gpu-2").await;
    degrade(&mut client, "gpu-1", true).await;
    for (labels, fields, expected) in [
        ("", "", "gpu-0 gpu-1 gpu-2"),
        ("zone in (a, b)", "", "gpu-0 gpu-1"),
        ("!zone", "", "gpu-2"),
        ("", "status.health=Degraded", "gpu-1"),
        ("zone=a", "status.health=Degraded", ""),
        ("zone", "name!=gpu-0", "gpu-1"),
    ] {
        let answer = client.list_gpus(list(labels, fields)).await;
        let gpus = answer.expect("listed").into_inner().gpus;
        let names: Vec<_> = gpus.iter().map(|gpu| &*gpu.name).collect();
        assert_eq!(names.join(" "), expected, "{labels:?} {fields:?}");
    }
    for (labels, fields, says) in [
        ("zone in (a", "", "label_selector: \"zone in (a\""),
        ("", "status.mood=good", "field_selector: \"status.mood\""),
        (&*"a".repeat(5_000), "", "label_selector: 5000 bytes"),
    ] {
        let answer = client.list_gpus(list(labels, fields)).await;
        refused(answer, Code::InvalidArgument, says);
        let request = proto::WatchGpusRequest {
            label_selector: labels.to_owned(),
            field_selector: fields.to_owned(),
            ..Default::default()
        };
        let answer = client.watch_gpus(request).await;
        refused(answer, Code::InvalidArgument, says);
    }
}

#[tokio::test]
async fn w1_get_and_list_take_any_version_that_is_none_below_zero() {
    let server = Server::start().await;
    let mut client = server.native().await;
    created(&mut client, "gpu-0").await;
    let get = |resource_version| proto::GetGpuRequest {
        name: "gpu-0".to_owned(),
        resource_version,
        ..Default::default()
    };
    let list = |resource_version| proto::ListGpusRequest {
        resource_version,
        ..Default::default()
    };
    for version in [0, 1, 2, i64::MAX] {
        client.get_gpu(get(version)).await.expect("answered");
        client.list_gpus(list(version)).await.expect("answered");
    }
    let says = "resource_version: -1 is negative";
    refused(client.get_gpu(get(-1)).await, Code::InvalidArgument, says);
    refused(
        client.list_gpus(list(-1)).await,
        Code::InvalidArgument,
        says,
    );
}

#[tokio::test]
async fn w3_entering_a_selection_is_added_and_leaving_it_deleted() {
    let server = Server::start().await;
    let mut client = server.native().await;
    created(&mut client, "gpu-0").await;
    let request = proto::WatchGpusRequest {
        field_selector: "status.health=Degraded".to_owned(),
        ..Default::default()
    };
    let mut stream = watch(&mut client, request).await;
    let entered = degrade(&mut client, "gpu-0", true).await;
    let name = || "gpu-0".to_owned();
    assert_eq!(next(&mut stream).await, (EventType::Added, name(), entered));
    let left = degrade(&mut client, "gpu-0", false).await;
    assert_eq!(next(&mut stream).await, (EventType::Deleted, name(), left));
}

#[tokio::test]
async fn w3_bookmarks_tell_where_the_state_ends_and_what_passed_unseen() {
    let server = Server::start().await;
    let mut client = server.native().await;
    let first = labelled(&mut client, "gpu-0", "a").await;
    let request = proto::WatchGpusRequest {
        label_selector: "zone=a".to_owned(),
        allow_bookmarks: true,
        ..Default::default()
    };
    let mut stream = watch(&mut client, request).await;
    assert_eq!(
        next(&mut stream).await,
        (EventType::Added, "gpu-0".to_owned(), first)
    );
    let mut bookmark = async || {
        let event = soon(stream.message()).await.expect("no error");
        let event = event.expect("a bookmark");
        assert_eq!((event.r#type(), &event.gpu), (EventType::Bookmark, &None));
        (event.resource_version, event.initial_state_end)
    };
    assert_eq!(bookmark().await, (first, true));
    let unseen = labelled(&mut client, "gpu-1", "b").await;
    assert_eq!(bookmark().await, (unseen, false));
}

#[tokio::test]
async fn w2_an_exact_watch_that_falls_behind_ends_and_says_to_list_again() {
    let server = Server::start().await;
    let mut client = server.native().await;
    let mut version = created(&mut client, "gpu-0").await;
    let start = version;
    for n in 0..=EXACT_MAX {
        version = degrade(&mut client, "gpu-0", n % 2 == 0).await;
    }
    let request = |resource_version, exact| proto::WatchGpusRequest {
        resource_version,
        exact,
        ..Default::default()
    };
    let mut behind = watch(&mut client, request(start, true)).await;
    let ended = soon(behind.message()).await;
    refused(ended, Code::OutOfRange, "list again");
    let mut keeping_up = watch(&mut client, request(version - 1, true)).await;
    assert_eq!(next(&mut keeping_up).await.2, version);
    let mut merging = watch(&mut client, request(start, false)).await;
    assert_eq!(next(&mut merging).await.0, EventType::Modified);
}
