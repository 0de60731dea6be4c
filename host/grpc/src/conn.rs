//! One accepted connection: its bytes, and what each request on it can learn of it.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use device_api_core::limits::Bounds;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::budget::Budget;
use crate::limits::RECEIVING_PER_CONNECTION;
use crate::peer::{Access, Peer, Writers};
use crate::tls::{self, Tls};

/// What HTTP/2 begins with (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What is known of a connection; an `Arc` of it is in the extensions of each request.
#[derive(Debug)]
pub(crate) struct ConnInfo {
    /// Of no two connections the same.
    pub(crate) number: u64,
    pub(crate) peer: Peer,
    /// Who the peer proves to be.
    pub(crate) identity: Arc<str>,
    pub(crate) access: Access,
    /// A permit for each watch that may still start on this connection (design W4).
    pub(crate) watches: Arc<Semaphore>,
    /// Bytes of requests that may still be received at once.
    pub(crate) receiving: Arc<Budget>,
    /// Calls under way, watches apart: they hold up the drain.
    calls: watch::Sender<usize>,
}

/// A call under way, until it is dropped.
#[derive(Debug)]
pub(crate) struct UnderWay<'a>(&'a ConnInfo);

impl ConnInfo {
    pub(crate) fn new(peer: Peer, writers: &Writers, bounds: &Bounds) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let (identity, access) = writers.access(&peer);
        Self {
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
            peer,
            identity,
            access,
            watches: Arc::new(Semaphore::new(bounds.watches_per_connection)),
            receiving: Arc::new(Budget::new(RECEIVING_PER_CONNECTION * bounds.receive_bytes)),
            calls: watch::Sender::new(0),
        }
    }

    pub(crate) fn begin_call(&self) -> UnderWay<'_> {
        self.calls.send_modify(|calls| *calls += 1);
        UnderWay(self)
    }

    /// Waits until no call is under way.
    pub(crate) async fn idle(&self) {
        let mut calls = self.calls.subscribe();
        // The sender is ours, so it is never gone.
        let _idle = calls.wait_for(|calls| *calls == 0).await;
    }

    pub(crate) fn is_idle(&self) -> bool {
        *self.calls.borrow() == 0
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.calls.send_modify(|calls| *calls -= 1);
    }
}

/// An accepted connection of which nothing was read yet.
#[derive(Debug)]
pub(crate) enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
    Tls(TcpStream, Tls),
}

impl Socket {
    /// Who is at the other end, as far as that is known before the first byte.
    pub(crate) fn peer(&self) -> Peer {
        match self {
            Self::Unix(stream) => unix_peer(stream),
            Self::Tcp(stream) => Peer::Tcp {
                addr: stream.peer_addr().ok(),
            },
            Self::Tls(stream, _) => Peer::Tls {
                addr: stream.peer_addr().ok(),
                names: Vec::new(),
            },
        }
    }

    /// Shakes hands, and reads what HTTP/2 begins with: what is something else is refused before
    /// anything is set up for it.
    pub(crate) async fn hello(self, handshakes: &Semaphore) -> io::Result<(Conn, Peer)> {
        let peer = self.peer();
        let (mut io, peer) = match self {
            Self::Unix(stream) => (Io::Unix(stream), peer),
            Self::Tcp(stream) => (Io::Tcp(nodelay(stream)), peer),
            Self::Tls(stream, tls) => {
                // The semaphore is never closed.
                let _turn = handshakes.acquire().await;
                let stream = TlsAcceptor::from(tls.config())
                    .accept(nodelay(stream))
                    .await?;
                let (tcp, session) = stream.get_ref();
                let certificate = session.peer_certificates().and_then(<[_]>::first);
                let peer = Peer::Tls {
                    addr: tcp.peer_addr().ok(),
                    names: certificate.map(tls::names).unwrap_or_default(),
                };
                (Io::Tls(Box::new(stream)), peer)
            }
        };
        let mut preface = [0; PREFACE.len()];
        io.read_exact(&mut preface).await?;
        if preface != *PREFACE {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "not HTTP/2; this is a gRPC port",
            ));
        }
        Ok((Conn { io, replayed: 0 }, peer))
    }

    /// Says, as far as that can be said at once, why the connection is turned away: HTTP/2's
    /// SETTINGS and GOAWAY, whose text gRPC clients show.
    pub(crate) fn turn_away(&self, why: &str) {
        let bytes = goaway(why);
        let flags = rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL;
        let sent = match self {
            Self::Unix(stream) => rustix::net::send(stream, &bytes, flags),
            Self::Tcp(stream) => rustix::net::send(stream, &bytes, flags),
            // Without a handshake there is no word that it would understand.
            Self::Tls(..) => return,
        };
        if let Err(error) = sent {
            tracing::debug!(%error, "a client was turned away unheard");
        }
    }
}

/// Small answers go out at once; without it they are only slower.
fn nodelay(stream: TcpStream) -> TcpStream {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
    stream
}

fn unix_peer(stream: &UnixStream) -> Peer {
    let Ok(cred) = stream.peer_cred() else {
        return Peer::Unidentified;
    };
    let groups = device_api_peercred::peer_groups(stream).unwrap_or_else(|error| {
        tracing::debug!(%error, "a client's groups are not known; its primary one counts alone");
        Vec::new()
    });
    Peer::Unix {
        uid: cred.uid(),
        gid: cred.gid(),
        groups,
        pid: cred.pid(),
    }
}

/// Empty SETTINGS, then GOAWAY (RFC 9113, section 6.8) of no stream with ENHANCE_YOUR_CALM.
fn goaway(why: &str) -> Vec<u8> {
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const ENHANCE_YOUR_CALM: u8 = 0xb;
    let why = why.get(..why.floor_char_boundary(200)).unwrap_or_default();
    let len = u8::try_from(8 + why.len()).unwrap_or(8);
    let mut bytes = SETTINGS.to_vec();
    bytes.extend([0, 0, len, 7, 0, 0, 0, 0, 0]);
    bytes.extend([0, 0, 0, 0, 0, 0, 0, ENHANCE_YOUR_CALM]);
    bytes.extend(why.as_bytes());
    bytes
}

#[derive(Debug)]
enum Io {
    Unix(UnixStream),
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection that begins as HTTP/2 does. What was read of it is read again from here.
pub(crate) struct Conn {
    io: Io,
    /// Bytes of [`PREFACE`] that were handed on.
    replayed: usize,
}

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Conn")
    }
}

impl Io {
    fn write(&mut self) -> Pin<&mut (dyn AsyncWrite + Send + Unpin)> {
        match self {
            Self::Unix(stream) => Pin::new(stream),
            Self::Tcp(stream) => Pin::new(stream),
            Self::Tls(stream) => Pin::new(&mut **stream),
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncRead for Conn {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let left = PREFACE.get(self.replayed..).unwrap_or_default();
        if left.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let now = left.get(..left.len().min(buf.remaining())).unwrap_or(left);
        buf.put_slice(now);
        self.replayed += now.len();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Conn {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.io.write().poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.write().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.write().poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Unix(stream) => stream.is_write_vectored(),
            Io::Tcp(stream) => stream.is_write_vectored(),
            Io::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.io.write().poll_write_vectored(cx, bufs)
    }
}
