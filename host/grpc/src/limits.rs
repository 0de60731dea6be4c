//! The bounds of connections that are the same everywhere. What a site may set is in
//! `core::limits::Bounds`.

use std::time::Duration;

use device_api_core::limits::{CLEARS_PER_VERDICT_MAX, EVIDENCE_PER_CONDITION_MAX};

/// How long a connection may take for its TLS handshake and HTTP/2's first 24 bytes. A client on the
/// other side of the world needs a second; one that says nothing holds a connection for no longer.
pub(crate) const HELLO_TIME: Duration = Duration::from_secs(10);

/// TLS handshakes computed at once: each costs a millisecond of a core. One that waits for its client
/// counts for none.
pub(crate) const HANDSHAKES: usize = 32;

/// How long a connection may say nothing before it is asked whether it still lives, and how long
/// it may take to answer: a frozen client is let go within two minutes. Clients' own pings (every
/// 50 s and more) are answered whenever they come; none is too often.
pub(crate) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(100);
pub(crate) const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Size of a request's headers. gRPC's are some 300 bytes; a service mesh adds a few KiB.
pub(crate) const HEADER_BYTES: u32 = 16 * 1024;

/// Bytes that a client may send before we have read them, on one stream and on a connection. We read
/// at once, but for a stream of reflection whose answers are not read.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
pub(crate) const WINDOW_BYTES: u32 = 1024 * 1024;

/// Bytes of one stream that wait to be written to the connection. A watch whose client does not read
/// holds that much, and merges the rest (design W2).
pub(crate) const SEND_BUFFER_BYTES: usize = 16 * 1024;

/// Streams that a client opened and reset at once and we have not looked at yet (CVE-2023-44487),
/// and streams that we reset because of its mistakes (CVE-2025-8671): past either, the connection
/// ends. Well-behaved clients reset a few at a time.
pub(crate) const RESET_STREAMS: usize = 50;
pub(crate) const ERROR_STREAMS: usize = 256;

/// Size of a request that changes nothing: two selectors, a namespace, and as much again.
pub(crate) const READ_BYTES: usize = 16 * 1024;

/// How long a command on policies may take, where `request-time` is less: a component that needs all of the
/// two minutes of a compile, and what must be done before and after.
pub(crate) const COMMAND_TIME: Duration = Duration::from_mins(3);

/// Digits of a SHA-256.
pub(crate) const DIGEST_DIGITS_MAX: usize = 64;

/// Elements of a request's repeated fields, at whatever depth, besides those of conditions: labels, MIG
/// instances. Each has 2 bytes on the wire at least and some 300 in memory.
pub(crate) const ELEMENTS: usize = 1024;
/// And for each condition that a GPU may have: itself, its evidence and its clears.
pub(crate) const ELEMENTS_PER_CONDITION: usize =
    1 + EVIDENCE_PER_CONDITION_MAX + CLEARS_PER_VERDICT_MAX;
/// What an element is reckoned to take up in memory, the room to grow of its list included.
pub(crate) const ELEMENT_BYTES: usize = 512;

/// Requests that are being received or carried out, in multiples of `receive-bytes`: on one
/// connection, and in all. A request is some KiB and there for a moment; clients that send the largest and
/// never finish hold no more than this.
pub(crate) const RECEIVING_PER_CONNECTION: usize = 2;
pub(crate) const RECEIVING_IN_ALL: usize = 16;

/// Answers that were not sent yet, in multiples of `send-bytes`, in all. A connection may hold one of
/// the largest, and [`BYTES_MIN`] of others beside it.
pub(crate) const ANSWERS_IN_ALL: usize = 8;

/// A message counts as no less where its size multiplies: small messages would leave too little.
pub(crate) const BYTES_MIN: usize = 1024 * 1024;

/// Calls under way in all, watches apart. Each has some KiB of headers and state.
pub(crate) const CALLS_IN_ALL: usize = 16 * 1024;

/// Streams of health and reflection, in all and on one connection: a client needs one.
pub(crate) const ASIDES_IN_ALL: usize = 1024;
pub(crate) const ASIDES_PER_CONNECTION: usize = 4;

/// The part of all connections, calls and watches that one user may hold: 1 of this
/// many.
pub(crate) const SHARE: usize = 2;
/// The same of bytes. They are held for moments, so a smaller part does.
pub(crate) const BYTES_SHARE: usize = 4;
/// The part of each kept for users who may write: 1 of this many.
pub(crate) const RESERVE: usize = 8;

/// How long a connection on which no call is under way may take to be told that the daemon stops.
pub(crate) const LINGER: Duration = Duration::from_secs(1);

/// Lines about refused writes for each identity in [`AUDIT_WINDOW`]; the rest are counted.
pub(crate) const AUDIT_LINES: u32 = 10;
pub(crate) const AUDIT_WINDOW: Duration = Duration::from_mins(1);
/// Identities told apart by that. Past it, those that are new count as one.
pub(crate) const AUDIT_IDENTITIES: usize = 1024;

/// How often it is looked whether a Unix socket still has its path.
pub(crate) const SOCKET_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How often the files of TLS are looked at. What is new is used when it was the same twice, so
/// within two of these.
pub(crate) const TLS_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Size of one of those files: a bundle of all public CAs has a quarter of it.
pub(crate) const TLS_FILE_BYTES: u64 = 1024 * 1024;

/// What of the above a site's people ask for: what is bounded, and how, for docs/limits.md.
pub fn fixed_limits() -> Vec<(&'static str, String)> {
    [connecting(), held(), shared(), ending()].concat()
}

fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs())
}

fn connecting() -> Vec<(&'static str, String)> {
    vec![
        (
            "TLS handshake and the first bytes of HTTP/2; a slower connection is closed",
            seconds(HELLO_TIME),
        ),
        (
            "TLS handshakes computed at once; more wait",
            HANDSHAKES.to_string(),
        ),
        (
            "silence before a client is asked whether it lives, and its answer",
            format!(
                "{}, {}",
                seconds(KEEPALIVE_INTERVAL),
                seconds(KEEPALIVE_TIMEOUT)
            ),
        ),
        (
            "headers of a request",
            format!("{} KiB", HEADER_BYTES / 1024),
        ),
        (
            "unread bytes of requests on a stream, and on a connection",
            format!(
                "{} KiB, {} KiB",
                STREAM_WINDOW_BYTES / 1024,
                WINDOW_BYTES / 1024
            ),
        ),
    ]
}

fn held() -> Vec<(&'static str, String)> {
    vec![
        (
            "a request that changes nothing; past it `ResourceExhausted`",
            format!("{} KiB", READ_BYTES / 1024),
        ),
        (
            "elements of a request's repeated fields in all; past it `InvalidArgument`",
            format!("{ELEMENTS} and {ELEMENTS_PER_CONDITION} × `conditions-per-gpu`"),
        ),
        (
            "unsent bytes of one watch; as many more may be encoded, and one GPU",
            format!("{} KiB", SEND_BUFFER_BYTES / 1024),
        ),
        (
            "streams reset by the client that wait; past it the connection ends",
            RESET_STREAMS.to_string(),
        ),
        (
            "streams reset for the client's mistakes; past it the connection ends",
            ERROR_STREAMS.to_string(),
        ),
        (
            "requests being received or carried out, on a connection and in all; past it `ResourceExhausted`",
            format!(
                "{RECEIVING_PER_CONNECTION} × `receive-bytes`, {RECEIVING_IN_ALL} × `receive-bytes` (which counts as 1 MiB at least)"
            ),
        ),
        (
            "answers, watches apart, that the client has not read, on a connection and in all; past it `ResourceExhausted`",
            format!(
                "`send-bytes` + 1 MiB, {ANSWERS_IN_ALL} × `send-bytes` (which counts as 1 MiB at least)"
            ),
        ),
        (
            "an answer, watches apart, that the client does not read; its connection is closed",
            "after `request-time`".to_owned(),
        ),
        (
            "calls under way, watches apart; past it `ResourceExhausted`",
            CALLS_IN_ALL.to_string(),
        ),
        (
            "streams of health and reflection, on a connection and in all; past it `ResourceExhausted`",
            format!("{ASIDES_PER_CONNECTION}, {ASIDES_IN_ALL}"),
        ),
        (
            "life of a stream of reflection",
            "`request-time`".to_owned(),
        ),
    ]
}

fn shared() -> Vec<(&'static str, String)> {
    vec![
        (
            "who counts as one user: on a Unix socket; with a certificate; on TCP otherwise",
            "a uid; its name; this machine, an IPv4 address, an IPv6 /64".to_owned(),
        ),
        (
            "connections of one user; past it a connection is answered GOAWAY and closed",
            format!("1/{SHARE} of `connections`"),
        ),
        (
            "watches, and all that is counted above in all, of one user; past it `ResourceExhausted`",
            format!("1/{SHARE}; of bytes 1/{BYTES_SHARE}"),
        ),
        (
            "connections, and all that is counted above in all, kept for users who may write; the half of that part of the connections also for those whose certificate is not known yet",
            format!("1/{RESERVE}"),
        ),
    ]
}

fn ending() -> Vec<(&'static str, String)> {
    vec![
        (
            "end of a connection without calls when the daemon stops",
            seconds(LINGER),
        ),
        (
            "audit lines about refused writes, for each identity; the rest are counted",
            format!("{AUDIT_LINES} in {}", seconds(AUDIT_WINDOW)),
        ),
        (
            "listening anew where a Unix socket's file is gone",
            format!("within {}", seconds(2 * SOCKET_CHECK_INTERVAL)),
        ),
        (
            "use of changed TLS files",
            format!("within {}", seconds(2 * TLS_CHECK_INTERVAL)),
        ),
    ]
}
