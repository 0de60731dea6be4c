//! What one client can make the daemon hold, and for how long: requests that are begun and not ended,
//! answers that nobody reads, streams that nobody needs. Whoever does that hurts itself.

use std::time::Duration;

use device_api_proto::{FILE_DESCRIPTOR_SET, native};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic::Code;

use crate::harness::{Native, Server, created, refused, soon};
use crate::hostile::{connections, serves_others};
use crate::raw::{
    self, CREATE, DATA, END_STREAM, GET, HEADERS, LIST, RST_STREAM, Raw, SETTINGS, STATUS, WATCH,
    frame,
};

/// SETTINGS_INITIAL_WINDOW_SIZE
const WINDOW: u16 = 4;

const HEALTH_WATCH: &str = "/grpc.health.v1.Health/Watch";

/// The head of a message of `len` bytes.
fn head(len: usize) -> Vec<u8> {
    let len = u32::try_from(len).expect("short");
    [&[0][..], &len.to_be_bytes()].concat()
}

/// Waits until `count` calls have ended, and gives their codes.
async fn codes(server: &Server, count: usize) -> Vec<&'static str> {
    let mut open = server.observer.open.subscribe();
    let enough = |_: &i64| server.observer.handled().len() >= count;
    soon(open.wait_for(enough)).await.expect("told");
    let handled = server.observer.handled();
    handled.into_iter().map(|(_, code)| code).collect()
}

/// The paths of all methods that change something.
fn writes() -> Vec<String> {
    let files = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("our own");
    let mut paths = Vec::new();
    for file in &files.file {
        for service in &file.service {
            let names = service.method.iter().map(|method| method.name());
            let writes = names.filter(|name| {
                !["Get", "List", "Watch"]
                    .iter()
                    .any(|reads| name.starts_with(reads))
            });
            let service = format!("/{}.{}", file.package(), service.name());
            paths.extend(writes.map(|name| format!("{service}/{name}")));
        }
    }
    paths
}

#[tokio::test]
async fn p4_who_may_not_write_is_refused_before_a_byte_of_the_request_is_read() {
    let server = Server::start().await;
    let paths = writes();
    assert_eq!(paths.len(), 25, "{paths:?}");
    let mut raw = Raw::begin_tcp(server.tcp, &[]).await;
    for (n, path) in paths.iter().enumerate() {
        let stream = 2 * u32::try_from(n).expect("few") + 1;
        raw.send(&raw::headers(stream, path, &[])).await;
        soon(raw.next_of(HEADERS)).await.expect("an answer");
        let codes = codes(&server, n + 1).await;
        assert_eq!(codes[n], "PermissionDenied", "{path}");
    }
    assert_eq!(server.observer.refusals.lock().expect("lock").len(), 25);
    assert_eq!(*server.observer.open.borrow(), 0);
}

/// 2 bytes on the wire, 300 in memory.
#[tokio::test]
async fn a_message_that_is_larger_in_memory_than_on_the_wire_is_refused_unread() {
    let server = Server::start().await;
    // With a few more than there may be, all of it is looked at, and named.
    let request = |conditions| native::UpdateGpuStatusRequest {
        name: "gpu-0".to_owned(),
        status: Some(native::GpuStatus {
            conditions: vec![native::Condition::default(); conditions],
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut client = server.native().await;
    let answer = client.update_gpu_status(request(100)).await;
    refused(answer, Code::ResourceExhausted, "limit conditions-per-gpu");
    let answer = client.update_gpu_status(request(5_000)).await;
    let says = "5000 elements in its lists; at most 1856";
    refused(answer, Code::InvalidArgument, says);
    let mut raw = Raw::begin(&server.socket, &[]).await;
    // 5,000 conditions of the status, two bytes each; then the same of evidence of one condition.
    let conditions = [[0x2a, 0]; 5_000].concat();
    let evidence = [[0x62, 0]; 5_000].concat();
    let length = |bytes: &[u8]| prost::length_delimiter_len(bytes.len());
    let nested = |tag: u8, bytes: &[u8]| {
        let mut nested = Vec::with_capacity(bytes.len() + length(bytes) + 1);
        nested.push(tag);
        prost::encode_length_delimiter(bytes.len(), &mut nested).expect("room");
        [nested, bytes.to_vec()].concat()
    };
    for (stream, status) in [(1, conditions), (3, nested(0x2a, &evidence))] {
        raw.send(&raw::headers(stream, STATUS, &[])).await;
        let request = nested(0x12, &status);
        let bytes = [head(request.len()), request].concat();
        let (last, first) = bytes.split_at(bytes.len() - 1000);
        for chunk in last.chunks(16 * 1024) {
            raw.send(&frame(DATA, 0, stream, chunk)).await;
        }
        raw.send(&frame(DATA, END_STREAM, stream, first)).await;
        soon(raw.next_of(HEADERS)).await.expect("an answer");
    }
    assert_eq!(codes(&server, 4).await[2..], ["InvalidArgument"; 2]);
}

#[tokio::test]
async fn a_request_of_a_reader_is_small_and_is_there_in_time_or_refused() {
    let server = Server::bounded(|bounds| bounds.request_time = Duration::from_millis(100)).await;
    let mut raw = Raw::begin(&server.socket, &[]).await;
    for (stream, path) in [(1, WATCH), (3, LIST), (5, GET)] {
        raw.send(&raw::headers(stream, path, &[])).await;
        raw.send(&frame(DATA, 0, stream, &head(64 * 1024))).await;
        soon(raw.next_of(HEADERS)).await.expect("an answer");
    }
    assert_eq!(codes(&server, 3).await, ["ResourceExhausted"; 3]);
    // What is begun and not ended, with all of its message or with a part.
    for (stream, body) in [(7, head(0)), (9, head(100)), (11, Vec::new())] {
        raw.send(&raw::headers(stream, WATCH, &[])).await;
        raw.send(&frame(DATA, 0, stream, &body)).await;
        soon(raw.next_of(HEADERS)).await.expect("an answer");
    }
    assert_eq!(codes(&server, 6).await[3..], ["DeadlineExceeded"; 3]);
    assert_eq!(*server.observer.watches.borrow(), 0);
    serves_others(&server).await;
}

#[tokio::test]
async fn a_request_that_is_cut_off_or_makes_no_sense_is_the_clients_fault_and_counted_as_such() {
    let server = Server::start().await;
    let mut raw = Raw::begin(&server.socket, &[]).await;
    raw.send(&raw::headers(1, CREATE, &[])).await;
    raw.send(&frame(DATA, 0, 1, &head(100))).await;
    // CANCEL
    raw.send(&frame(RST_STREAM, 0, 1, &8_u32.to_be_bytes()))
        .await;
    assert_eq!(codes(&server, 1).await, ["Cancelled"]);
    let two = [head(0), head(0)].concat();
    let compressed = [1, 0, 0, 0, 0];
    let unknown = [7, 0, 0, 0, 0];
    for (n, body) in [&[][..], &[0], &head(9), &two, &compressed, &unknown]
        .iter()
        .enumerate()
    {
        let stream = 2 * u32::try_from(n).expect("few") + 3;
        raw.send(&raw::headers(stream, CREATE, &[])).await;
        raw.send(&frame(DATA, END_STREAM, stream, body)).await;
        soon(raw.next_of(HEADERS)).await.expect("an answer");
        let codes = codes(&server, n + 2).await;
        assert_eq!(codes[n + 1], "InvalidArgument", "{body:?}");
    }
    // A compression that we don't have is told by its own code, so that the client tries without.
    raw.send(&raw::headers(21, CREATE, &[("grpc-encoding", "gzip")]))
        .await;
    raw.send(&frame(DATA, END_STREAM, 21, &compressed)).await;
    assert_eq!(codes(&server, 8).await[7], "Unimplemented");
}

/// A server with a list of some 200 KiB, and the most it may hold of answers on one connection
/// twice 1 MiB.
async fn with_a_long_list(change: impl FnOnce(&mut device_api_core::limits::Bounds)) -> Server {
    let server = Server::bounded(|bounds| {
        bounds.send_bytes = 1 << 20;
        change(bounds);
    })
    .await;
    let mut client = server.native().await;
    for n in 0..1_000 {
        created(&mut client, &format!("{}-{n}", "g".repeat(60))).await;
    }
    server
}

#[tokio::test]
async fn answers_that_nobody_reads_are_no_more_than_was_set_aside_for_them() {
    let server = with_a_long_list(|_| ()).await;
    let before = server.observer.handled().len();
    let mut raw = Raw::begin_tcp(server.tcp, &[(WINDOW, 0)]).await;
    for n in 0..200 {
        raw.send(&raw::headers(2 * n + 1, LIST, &[])).await;
        raw.send(&raw::message(2 * n + 1, &[])).await;
    }
    // 2 MiB hold a dozen of them; the others hear that it is too much.
    let codes = codes(&server, before + 180).await;
    assert_eq!(codes[before..][..180], ["ResourceExhausted"; 180]);
    // Another user is served, on however many connections the first one does it.
    let mut more = Vec::new();
    for _ in 0..8 {
        let mut raw = Raw::begin_tcp(server.tcp, &[(WINDOW, 0)]).await;
        for n in 0..20 {
            raw.send(&raw::headers(2 * n + 1, LIST, &[])).await;
            raw.send(&raw::message(2 * n + 1, &[])).await;
        }
        soon(raw.next_of(HEADERS)).await.expect("an answer");
        more.push(raw);
    }
    let mut client = Native::new(server.tcp().await);
    let list = client.list_gpus(native::ListGpusRequest::default());
    refused(soon(list).await, Code::ResourceExhausted, "not read");
    serves_others(&server).await;
    drop((raw, more));
    connections(&server, 1).await;
    let list = client.list_gpus(native::ListGpusRequest::default());
    soon(list).await.expect("what was held is given back");
}

#[tokio::test]
async fn an_answer_that_is_not_taken_in_time_ends_its_connection_and_a_watch_does_not() {
    let server = Server::bounded(|bounds| bounds.request_time = Duration::from_millis(200)).await;
    created(&mut server.native().await, "gpu-0").await;
    let mut watches = Raw::begin(&server.socket, &[(WINDOW, 0)]).await;
    watches.send(&raw::headers(1, WATCH, &[])).await;
    watches.send(&raw::message(1, &[])).await;
    soon(watches.next_of(HEADERS)).await.expect("watches");
    for _ in 0..3 {
        let mut lists = Raw::begin(&server.socket, &[(WINDOW, 0)]).await;
        lists.send(&raw::headers(1, LIST, &[])).await;
        lists.send(&raw::message(1, &[])).await;
        soon(lists.next_of(HEADERS)).await.expect("an answer");
        soon(lists.rest()).await;
    }
    watches.ping().await;
    while !soon(watches.next()).await.expect("connected").is_pong() {}
    assert_eq!(*server.observer.watches.borrow(), 1);
}

#[tokio::test]
async fn requests_of_one_user_that_are_never_ended_leave_room_for_the_others() {
    let server = Server::bounded(|bounds| bounds.receive_bytes = 1 << 20).await;
    let begun = head(1 << 20);
    let mut stalled = Vec::new();
    for _ in 0..10 {
        let mut raw = Raw::begin(&server.socket, &[]).await;
        soon(raw.next_of(SETTINGS)).await.expect("begins");
        raw.send(&frame(SETTINGS, 1, 0, &[])).await;
        for stream in (0..10).map(|n| 2 * n + 1) {
            raw.send(&raw::headers(stream, CREATE, &[])).await;
            raw.send(&frame(DATA, 0, stream, &begun)).await;
            for _ in 0..14 {
                raw.send(&frame(DATA, 0, stream, &[0; 16 * 1024])).await;
            }
        }
        // All of it was read when this is answered.
        raw.ping().await;
        while !soon(raw.next()).await.expect("connected").is_pong() {}
        stalled.push(raw);
    }
    // To the last byte: what is refused gives back what it held.
    let mut raw = Raw::begin(&server.socket, &[]).await;
    soon(raw.next_of(SETTINGS)).await.expect("begins");
    raw.send(&frame(SETTINGS, 1, 0, &[])).await;
    let halves = (0..15).rev().map(|bits| 1 << bits);
    for (n, bytes) in [1 << 14; 14].into_iter().chain(halves).enumerate() {
        let stream = 2 * u32::try_from(n).expect("few") + 1;
        let mut part = begun.clone();
        part.resize(bytes, 0);
        raw.send(&raw::headers(stream, CREATE, &[])).await;
        raw.send(&frame(DATA, 0, stream, &part)).await;
    }
    raw.ping().await;
    while !soon(raw.next()).await.expect("connected").is_pong() {}
    stalled.push(raw);
    let mut reader = Native::new(server.tcp().await);
    for _ in 0..20 {
        soon(reader.list_gpus(native::ListGpusRequest::default()))
            .await
            .expect("another user is served");
    }
    let codes = codes(&server, 21).await;
    assert!(codes.contains(&"ResourceExhausted"), "{codes:?}");
    drop(stalled);
    connections(&server, 1).await;
    created(&mut server.native().await, "gpu-0").await;
}

#[tokio::test]
async fn w4_watches_of_one_user_leave_room_for_the_others() {
    let server = Server::bounded(|bounds| bounds.watches = 16).await;
    let (mut unix, mut tcp) = (server.native().await, Native::new(server.tcp().await));
    let mut streams = Vec::new();
    let says = "limit watches of one user reached: at most 8";
    for _ in 0..8 {
        let watch = unix.watch_gpus(native::WatchGpusRequest::default()).await;
        streams.push(watch.expect("its share").into_inner());
    }
    let watch = unix.watch_gpus(native::WatchGpusRequest::default()).await;
    refused(watch, Code::ResourceExhausted, says);
    // Who may only read leaves some to those who may write.
    for _ in 0..6 {
        let watch = tcp.watch_gpus(native::WatchGpusRequest::default()).await;
        streams.push(watch.expect("another's share").into_inner());
    }
    let watch = tcp.watch_gpus(native::WatchGpusRequest::default()).await;
    refused(watch, Code::ResourceExhausted, "limit watches reached");
    streams.truncate(7);
    let mut active = server.observer.watches.subscribe();
    soon(active.wait_for(|active| *active == 7))
        .await
        .expect("freed");
    let watch = unix.watch_gpus(native::WatchGpusRequest::default()).await;
    watch.expect("there is room again");
}

#[tokio::test]
async fn streams_of_health_and_reflection_are_few() {
    let server = Server::start().await;
    let mut raw = Raw::begin_tcp(server.tcp, &[]).await;
    for n in 0..100 {
        raw.send(&raw::headers(2 * n + 1, HEALTH_WATCH, &[])).await;
        raw.send(&raw::message(2 * n + 1, &[])).await;
    }
    let codes = codes(&server, 90).await;
    assert_eq!(codes[..90], ["ResourceExhausted"; 90]);
    serves_others(&server).await;
}
