//! What hostile clients make the server's process grow by, as the kernel counts it. A process of its own, or
//! other tests would count.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "helpers of tests: a panic is a failed test"
)]

#[path = "../rpc/changes.rs"]
mod changes;
#[path = "../rpc/daemon_host.rs"]
mod daemon_host;
#[expect(dead_code, reason = "shared with other tests")]
#[path = "../rpc/harness.rs"]
mod harness;
#[expect(dead_code, reason = "shared with other tests")]
#[path = "../rpc/operated.rs"]
mod operated;
#[path = "../rpc/owned.rs"]
mod owned;
#[expect(dead_code, reason = "shared with other tests")]
#[path = "../rpc/policy_host.rs"]
mod policy_host;
#[expect(dead_code, reason = "shared with other tests")]
#[path = "../rpc/raw.rs"]
mod raw;
#[expect(dead_code, reason = "shared with other tests")]
#[path = "../rpc/store.rs"]
mod store;
#[path = "../rpc/verbatim.rs"]
mod verbatim;

use http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::{Code, Request};

use crate::harness::{Server, created, refused, soon};
use crate::raw::{HEADERS, LIST, Raw, STATUS, WATCH};
use crate::verbatim::Bytes;

/// SETTINGS_INITIAL_WINDOW_SIZE
const WINDOW: u16 = 4;

/// What a user may hold of answers by default, and as much again for all else: the clients are of this
/// process, too.
const GROWTH_MIB: usize = 96;

/// What a thousand watches may: 40 KiB each for HTTP/2 and the encoder, and half as much for all else.
const WATCHES_MIB: usize = 60;

/// A figure of the process, in MiB.
fn memory(name: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("proc");
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix(name));
    let kib = line.expect("told").trim_matches([':', ' ', '\t', 'k', 'B']);
    kib.parse::<usize>().expect("a number") / 1024
}

/// Two million conditions in 4 MiB, of someone who may write: 600 MiB, once decoded.
async fn many_elements(server: &Server) {
    let conditions = [0x2a, 0].repeat(2 * 1024 * 1024 - 100);
    let mut request = vec![0x12];
    prost::encode_length_delimiter(conditions.len(), &mut request).expect("room");
    request.extend(conditions);
    let mut client = Grpc::new(server.unix().await);
    client.ready().await.expect("connected");
    let path = PathAndQuery::from_static(STATUS);
    let answer = soon(client.unary(Request::new(request), path, Bytes)).await;
    refused(answer, Code::InvalidArgument, "elements");
}

/// Eight hundred lists of half a MiB, on four connections, and nobody reads one.
async fn unread_answers(server: &Server) -> Vec<Raw> {
    let mut client = server.native().await;
    for n in 0..1_000 {
        created(&mut client, &format!("{n}-{}", "g".repeat(200))).await;
    }
    let ended = server.observer.handled().len();
    let mut unread = Vec::new();
    for _ in 0..4 {
        let mut raw = Raw::begin_tcp(server.tcp, &[(WINDOW, 0)]).await;
        for n in 0..200 {
            raw.send(&raw::headers(2 * n + 1, LIST, &[])).await;
            raw.send(&raw::message(2 * n + 1, &[])).await;
            soon(raw.next_of(HEADERS)).await.expect("an answer");
        }
        unread.push(raw);
    }
    let mut open = server.observer.open.subscribe();
    let most = |_: &i64| server.observer.handled().len() >= ended + 700;
    soon(open.wait_for(most)).await.expect("refused");
    unread
}

/// A thousand watches of a state of half a MiB, and nobody reads one.
async fn unread_watches(server: &Server) -> Vec<Raw> {
    let mut unread = Vec::new();
    for _ in 0..5 {
        let mut raw = Raw::begin(&server.socket, &[(WINDOW, 0)]).await;
        for n in 0..200 {
            raw.send(&raw::headers(2 * n + 1, WATCH, &[])).await;
            raw.send(&raw::message(2 * n + 1, &[])).await;
            soon(raw.next_of(HEADERS)).await.expect("watches");
        }
        unread.push(raw);
    }
    unread
}

#[tokio::test]
async fn the_process_grows_by_what_was_set_aside_and_no_more() {
    let server = Server::start().await;
    let before = memory("VmRSS");
    many_elements(&server).await;
    let _unread = unread_answers(&server).await;
    let grown = memory("VmHWM") - before;
    assert!(grown < GROWTH_MIB, "by {grown} MiB");
    let before = memory("VmRSS");
    let _unread = unread_watches(&server).await;
    let grown = memory("VmRSS") - before;
    assert!(grown < WATCHES_MIB, "by {grown} MiB for watches");
}
