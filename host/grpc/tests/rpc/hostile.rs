//! Clients that mean ill, or are broken: each hurts itself, and others are served.

use device_api_proto::native;
use tokio::net::UnixStream;
use tonic::Code;

use crate::harness::{Native, Server, created, refused, soon};
use crate::raw::{
    self, CREATE, DATA, END_STREAM, GET, GOAWAY, HEADERS, RST_STREAM, Raw, WATCH, frame,
};

/// SETTINGS_INITIAL_WINDOW_SIZE
const WINDOW: u16 = 4;

pub(crate) async fn serves_others(server: &Server) {
    soon(
        server
            .native()
            .await
            .list_gpus(native::ListGpusRequest::default()),
    )
    .await
    .expect("others are served");
}

/// Waits until that many connections are open.
pub(crate) async fn connections(server: &Server, count: i64) {
    let mut open = server.observer.connections.subscribe();
    soon(open.wait_for(|open| *open == count))
        .await
        .expect("told");
}

#[tokio::test]
async fn what_is_not_http2_is_closed_at_once() {
    let server = Server::start().await;
    let hello_of_tls = [22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3];
    for garbage in [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        vec![0; 64],
        [&hello_of_tls[..], &[0; 32]].concat(),
        [&raw::PREFACE[..23], &[0; 9]].concat(),
    ] {
        let mut raw = Raw::connect(&server.socket).await;
        raw.send(&garbage).await;
        assert_eq!(soon(raw.rest()).await, b"", "no word for {garbage:?}");
    }
    assert_eq!(*server.observer.turned_away.borrow(), ["no-hello"; 4]);
    serves_others(&server).await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_says_nothing_is_closed() {
    let server = Server::start().await;
    let (mut silent, mut slow) = (
        Raw::connect(&server.socket).await,
        Raw::connect(&server.socket).await,
    );
    slow.send(&raw::PREFACE[..10]).await;
    assert_eq!(silent.rest().await, b"");
    assert_eq!(slow.rest().await, b"");
    assert_eq!(*server.observer.turned_away.borrow(), ["no-hello"; 2]);
}

#[tokio::test]
async fn frames_that_make_no_sense_end_their_connection_alone() {
    let server = Server::start().await;
    for nonsense in [
        // A frame longer than any we allow.
        [&[0xff, 0xff, 0xff, DATA, 0][..], &1_u32.to_be_bytes()].concat(),
        // Headers that are no HPACK.
        frame(HEADERS, 4, 1, &[0xff; 64]),
        // Data of a stream that was never opened.
        frame(DATA, END_STREAM, 7, b"data"),
        // SETTINGS of a length that it can't have.
        frame(raw::SETTINGS, 0, 0, &[0; 5]),
    ] {
        let mut raw = Raw::begin(&server.socket, &[]).await;
        raw.send(&nonsense).await;
        soon(raw.next_of(GOAWAY)).await.expect("told why");
        soon(raw.rest()).await;
    }
    connections(&server, 0).await;
    serves_others(&server).await;
}

#[tokio::test]
async fn a_client_that_goes_in_the_middle_of_a_frame_leaves_nothing() {
    let server = Server::start().await;
    let whole = [raw::headers(1, CREATE, &[]), raw::message(1, &[0; 64])].concat();
    for cut in [5, 40, whole.len() - 1] {
        let mut raw = Raw::begin(&server.socket, &[]).await;
        raw.send(&whole[..cut]).await;
        raw.ping().await;
        drop(raw);
    }
    connections(&server, 0).await;
    serves_others(&server).await;
    assert_eq!(*server.observer.open.borrow(), 0);
}

#[tokio::test]
async fn streams_that_are_opened_and_reset_end_their_connection() {
    let server = Server::start().await;
    let mut raw = Raw::begin(&server.socket, &[]).await;
    let flood: Vec<u8> = (0..10_000)
        .flat_map(|n| {
            let stream = 2 * n + 1;
            let mut bytes = raw::headers(stream, GET, &[]);
            bytes.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
            bytes
        })
        .collect();
    let sent = soon(async {
        tokio::select! {
            () = raw.send(&flood) => true,
            () = connections(&server, 0) => false,
        }
    });
    sent.await;
    connections(&server, 0).await;
    serves_others(&server).await;
}

#[tokio::test]
async fn two_thousand_idle_connections_leave_room_for_others() {
    let server = Server::bounded(|bounds| bounds.connections = 16).await;
    let mut before = Native::new(server.tcp().await);
    let mut idle = Vec::new();
    let mut turned_away = 0;
    for _ in 0..2_000 {
        let mut raw = Raw::begin(&server.socket, &[]).await;
        let first = soon(raw.next_of(raw::SETTINGS)).await.expect("begins");
        if first.payload.is_empty() {
            let goaway = soon(raw.next_of(GOAWAY)).await.expect("told why");
            let why = String::from_utf8_lossy(&goaway.payload[8..]);
            assert_eq!(
                why,
                "limit connections reached: at most 8 for one user; see --limit"
            );
            turned_away += 1;
        } else {
            idle.push(raw);
        }
    }
    assert_eq!((idle.len(), turned_away), (8, 1_992));
    assert_eq!(server.observer.turned_away.borrow().len(), 1_992);
    assert!(
        server
            .observer
            .turned_away
            .borrow()
            .iter()
            .all(|why| *why == "share-full")
    );
    // One that was there, and one that comes from elsewhere.
    for client in [&mut before, &mut Native::new(server.tcp().await)] {
        soon(client.list_gpus(native::ListGpusRequest::default()))
            .await
            .expect("served");
    }
    drop(idle);
    connections(&server, 1).await;
    serves_others(&server).await;
}

#[tokio::test]
async fn w4_ten_thousand_watches_end_at_the_limit_and_calls_get_through() {
    /// Half of all: they are of one user.
    const ALL: usize = 500;
    let server = Server::bounded(|bounds| bounds.watches = 2 * ALL).await;
    let mut attempts = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let mut client = server.native().await;
        attempts.spawn(async move {
            let mut streams = Vec::new();
            let mut exhausted = 0;
            for _ in 0..200 {
                match client.watch_gpus(native::WatchGpusRequest::default()).await {
                    Ok(stream) => streams.push(stream.into_inner()),
                    Err(status) => {
                        assert_eq!(status.code(), Code::ResourceExhausted);
                        assert!(
                            status
                                .message()
                                .contains("limit watches of one user reached: at most 500")
                        );
                        exhausted += 1;
                    }
                }
            }
            (streams, exhausted)
        });
    }
    let mut streams = Vec::new();
    let mut exhausted = 0;
    while let Some(attempt) = soon(attempts.join_next()).await {
        let (some, refused) = attempt.expect("joined");
        streams.extend(some);
        exhausted += refused;
    }
    assert_eq!((streams.len(), exhausted), (ALL, 10_000 - ALL));
    serves_others(&server).await;
    drop(streams);
    let mut watches = server.observer.watches.subscribe();
    soon(watches.wait_for(|watches| *watches == 0))
        .await
        .expect("all are freed");
}

#[tokio::test]
async fn w4_a_client_that_goes_without_a_word_frees_its_watch() {
    let server = Server::bounded(|bounds| bounds.watches = 1).await;
    let mut raw = Raw::begin(&server.socket, &[]).await;
    raw.send(&raw::headers(1, WATCH, &[])).await;
    raw.send(&raw::message(1, &[])).await;
    soon(raw.next_of(HEADERS)).await.expect("watches");
    let mut other = server.native().await;
    let again = other.watch_gpus(native::WatchGpusRequest::default()).await;
    refused(again, Code::ResourceExhausted, "limit watches");
    drop(raw);
    let mut watches = server.observer.watches.subscribe();
    soon(watches.wait_for(|watches| *watches == 0))
        .await
        .expect("freed");
    other
        .watch_gpus(native::WatchGpusRequest::default())
        .await
        .expect("there is room again");
}

#[tokio::test]
async fn w2_a_client_that_never_reads_is_handed_no_more_than_its_buffer_holds() {
    let server = Server::start().await;
    let mut stalled = Raw::begin(&server.socket, &[(WINDOW, 0)]).await;
    stalled.send(&raw::headers(1, WATCH, &[])).await;
    stalled.send(&raw::message(1, &[])).await;
    let mut watches = server.observer.watches.subscribe();
    soon(watches.wait_for(|watches| *watches == 1))
        .await
        .expect("watches");
    let mut client = server.native().await;
    for n in 0..1_000 {
        created(&mut client, &format!("gpu-{n}")).await;
    }
    let mut reads = client
        .watch_gpus(native::WatchGpusRequest::default())
        .await
        .expect("watches")
        .into_inner();
    for _ in 0..1_000 {
        soon(reads.message())
            .await
            .expect("no error")
            .expect("a change");
    }
    let handed = server.observer.events.lock().expect("lock").len();
    let to_the_stalled = handed - 1_000;
    assert!(to_the_stalled < 500, "{to_the_stalled} changes wait for it");
}

#[tokio::test]
async fn pings_are_answered_however_often_they_come() {
    let server = Server::start().await;
    let mut raw = Raw::begin(&server.socket, &[]).await;
    for _ in 0..100 {
        raw.ping().await;
        while !soon(raw.next()).await.expect("still connected").is_pong() {}
    }
}

#[tokio::test]
async fn who_hangs_up_before_the_first_byte_is_no_news() {
    let server = Server::start().await;
    for _ in 0..10 {
        drop(UnixStream::connect(&server.socket).await.expect("connects"));
    }
    serves_others(&server).await;
    assert!(server.observer.turned_away.borrow().is_empty());
}
