//! HTTP/2 by hand, for what no client library would send.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const GET: &str = "/nvidia.device.v1alpha1.GpuService/GetGpu";
pub(crate) const CREATE: &str = "/nvidia.device.v1alpha1.GpuService/CreateGpu";
pub(crate) const LIST: &str = "/nvidia.device.v1alpha1.GpuService/ListGpus";
pub(crate) const STATUS: &str = "/nvidia.device.v1alpha1.GpuService/UpdateGpuStatus";
pub(crate) const WATCH: &str = "/nvidia.device.v1alpha1.GpuService/WatchGpus";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;

pub(crate) const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// A frame as it was received.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) type_: u8,
    pub(crate) flags: u8,
    pub(crate) payload: Vec<u8>,
}

pub(crate) fn frame(type_: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let mut bytes = len[1..].to_vec();
    bytes.extend([type_, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A gRPC request's headers, each a literal.
pub(crate) fn headers(stream: u32, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    let fixed = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "localhost"),
        (":path", path),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    for (name, value) in fixed.iter().chain(more) {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).expect("short"));
            block.extend(text.as_bytes());
        }
    }
    frame(HEADERS, END_HEADERS, stream, &block)
}

/// A message of gRPC in a DATA frame that ends the request.
pub(crate) fn message(stream: u32, message: &[u8]) -> Vec<u8> {
    let len = u32::try_from(message.len()).expect("short");
    let mut bytes = vec![0];
    bytes.extend(len.to_be_bytes());
    bytes.extend(message);
    frame(DATA, END_STREAM, stream, &bytes)
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection that does what it is told, and nothing else: no window is given, no ping answered.
pub(crate) struct Raw(Box<dyn Io>);

impl fmt::Debug for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Raw")
    }
}

impl Raw {
    pub(crate) async fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).await.expect("connects");
        Self(Box::new(stream))
    }

    /// Begins as HTTP/2 does, with these SETTINGS.
    pub(crate) async fn begin(socket: &Path, settings: &[(u16, u32)]) -> Self {
        Self::connect(socket).await.hello(settings).await
    }

    /// The same over TCP, whose clients may read and no more.
    pub(crate) async fn begin_tcp(addr: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let stream = TcpStream::connect(addr).await.expect("connects");
        Self(Box::new(stream)).hello(settings).await
    }

    async fn hello(mut self, settings: &[(u16, u32)]) -> Self {
        let mut payload = Vec::new();
        for (id, value) in settings {
            payload.extend(id.to_be_bytes());
            payload.extend(value.to_be_bytes());
        }
        self.send(PREFACE).await;
        self.send(&frame(SETTINGS, 0, 0, &payload)).await;
        self
    }

    /// What a server that has had enough no longer takes, is no matter.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        let _closed = self.0.write_all(bytes).await;
    }

    /// `None`: the server closed the connection.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.ok()?;
        let len = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(len).expect("fits")];
        self.0.read_exact(&mut payload).await.ok()?;
        Some(Frame {
            type_: head[3],
            flags: head[4],
            payload,
        })
    }

    /// The next frame of a type.
    pub(crate) async fn next_of(&mut self, type_: u8) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            if frame.type_ == type_ {
                return Some(frame);
            }
        }
    }

    /// Reads until the server closes.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let _reset = self.0.read_to_end(&mut bytes).await;
        bytes
    }

    pub(crate) async fn ping(&mut self) {
        self.send(&frame(PING, 0, 0, b"are you?")).await;
    }
}

impl Frame {
    pub(crate) fn is_pong(&self) -> bool {
        self.type_ == PING && self.flags == ACK
    }
}
