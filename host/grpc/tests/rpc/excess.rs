//! Requests and answers that are too large, too slow, or make no sense: refused with the right code,
//! naming the limit, and counted.

use device_api_proto::{native, upstream};
use tonic::Code;

use crate::harness::{Native, Server, Upstream, created, native_gpu, refused, soon, upstream_gpu};
use crate::hostile::{connections, serves_others};
use crate::raw::{self, CREATE, DATA, GET, HEADERS, Raw, WATCH, frame};

fn status(condition: native::Condition) -> Option<native::GpuStatus> {
    Some(native::GpuStatus {
        conditions: vec![condition],
        ..Default::default()
    })
}

async fn ended(server: &Server, code: &str) {
    soon(server.observer.open.subscribe().wait_for(|open| *open == 0))
        .await
        .expect("ended");
    let handled = server.observer.handled();
    let last = handled.last().expect("a call").1;
    assert_eq!(last, code, "{handled:?}");
}

#[tokio::test]
async fn messages_too_large_are_refused_naming_the_limit_and_not_as_out_of_range() {
    let server = Server::start().await;
    let long = "T".repeat(10 << 20);
    let request = native::UpdateGpuStatusRequest {
        status: status(native::Condition {
            r#type: long.clone(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let says = "limit receive-bytes reached: at most 4194304";
    let answer = server.native().await.update_gpu_status(request).await;
    refused(answer, Code::ResourceExhausted, says);
    ended(&server, "ResourceExhausted").await;

    let mut gpu = upstream_gpu("", "gpu-0");
    gpu.status = Some(upstream::GpuStatus {
        conditions: vec![upstream::Condition {
            r#type: long,
            ..Default::default()
        }],
        ..Default::default()
    });
    let request = upstream::UpdateGpuStatusRequest {
        gpu: Some(gpu),
        ..Default::default()
    };
    let answer = server.upstream().await.update_gpu_status(request).await;
    refused(answer, Code::ResourceExhausted, says);
    assert!(
        server.store.state().history.is_empty(),
        "nothing is written"
    );
}

#[tokio::test]
async fn a_condition_type_that_fits_a_message_and_no_field_is_refused_as_a_field() {
    let server = Server::start().await;
    let mut client = server.native().await;
    created(&mut client, "gpu-0").await;
    let request = native::UpdateGpuStatusRequest {
        name: "gpu-0".to_owned(),
        status: status(native::Condition {
            r#type: "T".repeat(1 << 20),
            status: native::ConditionStatus::True.into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let answer = client.update_gpu_status(request).await;
    refused(answer, Code::InvalidArgument, "1048576 bytes; at most 253");
}

#[tokio::test]
async fn an_answer_too_large_is_refused_naming_the_limit() {
    let server = Server::bounded(|bounds| bounds.send_bytes = 1024).await;
    let mut client = server.native().await;
    for n in 0..64 {
        created(&mut client, &format!("gpu-{n}")).await;
    }
    let answer = client.list_gpus(native::ListGpusRequest::default()).await;
    refused(
        answer,
        Code::ResourceExhausted,
        "limit send-bytes reached: at most 1024",
    );
    ended(&server, "ResourceExhausted").await;
}

#[tokio::test]
async fn what_never_reaches_a_service_is_counted_and_has_its_code() {
    let server = Server::start().await;
    let mut raw = Raw::begin(&server.socket, &[]).await;
    let call = async |raw: &mut Raw, stream, path: &str, body: &[u8], code: &str| {
        raw.send(&raw::headers(stream, path, &[])).await;
        raw.send(&raw::message(stream, body)).await;
        soon(raw.next_of(HEADERS)).await.expect("an answer");
        ended(&server, code).await;
    };
    call(&mut raw, 1, "/a.B/C", b"", "Unimplemented").await;
    // A field of a wrong type, a text that is no UTF-8, a length beyond the end.
    call(&mut raw, 3, GET, &[0x08, 1], "InvalidArgument").await;
    call(&mut raw, 5, GET, &[0x0a, 1, 0xff], "InvalidArgument").await;
    call(&mut raw, 7, GET, &[0x0a, 9, b'x'], "InvalidArgument").await;
    let get = "nvidia.device.v1alpha1.GpuService/GetGpu";
    let names: Vec<_> = server
        .observer
        .handled()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(names, ["unknown/unknown", get, get, get]);
}

#[tokio::test]
async fn a_call_ends_at_the_deadline_whether_it_is_ours_or_the_clients() {
    let server =
        Server::bounded(|bounds| bounds.request_time = std::time::Duration::from_millis(50)).await;
    server.store.open.send_replace(false);
    let get = native::GetGpuRequest {
        name: "gpu-0".to_owned(),
        ..Default::default()
    };
    let answer = soon(server.native().await.get_gpu(get)).await;
    refused(answer, Code::DeadlineExceeded, "limit request-time is 50ms");
    ended(&server, "DeadlineExceeded").await;

    // A request that is begun and not ended.
    let mut raw = Raw::begin(&server.socket, &[]).await;
    raw.send(&raw::headers(1, GET, &[])).await;
    raw.send(&frame(DATA, 0, 1, &[0, 0, 0, 1, 0])).await;
    soon(raw.next_of(HEADERS)).await.expect("an answer");
    ended(&server, "DeadlineExceeded").await;
    serves_others(&server).await;
}

#[tokio::test]
async fn a_clients_own_deadline_counts_for_calls_and_watches() {
    let server = Server::start().await;
    server.store.open.send_replace(false);
    let mut raw = Raw::begin(&server.socket, &[]).await;
    let soon_over = [("grpc-timeout", "30m")];
    raw.send(&raw::headers(1, GET, &soon_over)).await;
    raw.send(&raw::message(1, &[0x0a, 1, b'x'])).await;
    soon(raw.next_of(HEADERS)).await.expect("an answer");
    ended(&server, "DeadlineExceeded").await;
    raw.send(&raw::headers(3, WATCH, &soon_over)).await;
    raw.send(&raw::message(3, &[])).await;
    for _ in ["headers", "trailers"] {
        soon(raw.next_of(HEADERS)).await.expect("an answer");
    }
    ended(&server, "DeadlineExceeded").await;
    assert_eq!(*server.observer.watches.borrow(), 0);
}

#[tokio::test]
async fn requests_that_are_never_ended_hold_no_more_than_was_set_aside_for_them() {
    let server = Server::bounded(|bounds| bounds.receive_bytes = 1 << 20).await;
    let mut raw = Raw::begin(&server.socket, &[]).await;
    // The window that the server offers is there once its SETTINGS are acknowledged.
    soon(raw.next_of(raw::SETTINGS)).await.expect("begins");
    raw.send(&frame(raw::SETTINGS, 1, 0, &[])).await;
    // Each claims all that a message may have, and sends a part: the tenth is too much.
    let begun = [&[0][..], &(1_u32 << 20).to_be_bytes()].concat();
    for stream in (0..10).map(|n| 2 * n + 1) {
        raw.send(&raw::headers(stream, CREATE, &[])).await;
        raw.send(&frame(DATA, 0, stream, &begun)).await;
        for _ in 0..14 {
            raw.send(&frame(DATA, 0, stream, &[0; 16 * 1024])).await;
        }
    }
    soon(raw.next_of(HEADERS))
        .await
        .expect("the tenth is refused");
    let codes: Vec<_> = server
        .observer
        .handled()
        .into_iter()
        .map(|(_, code)| code)
        .collect();
    assert_eq!(codes, ["ResourceExhausted"]);
    serves_others(&server).await;
    drop(raw);
    connections(&server, 0).await;
    // What was held is given back.
    created(&mut server.native().await, "gpu-0").await;
}

#[tokio::test]
async fn huge_fields_are_refused_as_what_they_are() {
    let server = Server::start().await;
    let channel = server.unix().await;
    let request = native::UpdateGpuStatusRequest {
        name: "gpu-0".to_owned(),
        status: Some(native::GpuStatus {
            conditions: vec![native::Condition::default(); 100_000],
            ..Default::default()
        }),
        ..Default::default()
    };
    let answer = Native::new(channel.clone())
        .update_gpu_status(request)
        .await;
    let code = answer.expect_err("refused").code();
    assert!(
        matches!(code, Code::ResourceExhausted | Code::InvalidArgument),
        "{code:?}"
    );
    let mut gpu = native_gpu(&"n".repeat(1 << 20));
    gpu.namespace = "m".repeat(1 << 20);
    let request = native::CreateGpuRequest { gpu: Some(gpu) };
    refused(
        Native::new(channel.clone()).create_gpu(request).await,
        Code::InvalidArgument,
        "",
    );
    let request = upstream::CreateGpuRequest {
        gpu: Some(upstream_gpu("default", &"n".repeat(1 << 20))),
        ..Default::default()
    };
    refused(
        Upstream::new(channel).create_gpu(request).await,
        Code::InvalidArgument,
        "",
    );
    assert!(
        server.store.state().history.is_empty(),
        "nothing is written"
    );
}
