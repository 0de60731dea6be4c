//! One accepted connection: its bytes, and what each request on it can learn of it.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::server::TlsStream;

use crate::budget::Account;
use crate::peer::{Access, Peer};
use crate::tls::Tls;
use crate::unsent::Unsent;
use crate::{certificate, handshake};

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
    /// What it holds, and may hold still.
    pub(crate) account: Arc<Account>,
    /// Its answers that were not sent yet.
    pub(crate) unsent: Arc<Unsent>,
    /// Calls under way, watches apart: they hold up the drain.
    calls: watch::Sender<usize>,
}

/// A call under way, until it is dropped.
#[derive(Debug)]
pub(crate) struct UnderWay<'a>(&'a ConnInfo);

impl ConnInfo {
    /// Of a peer that is who it proves to be, and may what it may.
    pub(crate) fn new(
        peer: Peer,
        (identity, access): (Arc<str>, Access),
        account: Arc<Account>,
    ) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        Self {
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
            peer,
            identity,
            access,
            account,
            unsent: Arc::default(),
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
        let (mut io, peer, void) = match self {
            Self::Unix(stream) => (Io::Unix(stream), peer, None),
            Self::Tcp(stream) => (Io::Tcp(nodelay(stream)), peer, None),
            Self::Tls(stream, tls) => {
                let stream = handshake::shake(nodelay(stream), &tls, handshakes).await?;
                let (tcp, session) = stream.get_ref();
                let chain = session.peer_certificates().unwrap_or_default();
                let peer = Peer::Tls {
                    addr: tcp.peer_addr().ok(),
                    names: chain.first().map(certificate::names).unwrap_or_default(),
                };
                let void = Box::pin(void(tls, chain.to_vec(), peer.clone()));
                (Io::Tls(Box::new(stream)), peer, Some(void as Void))
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
        let conn = Conn {
            io,
            replayed: 0,
            void,
        };
        Ok((conn, peer))
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

/// Says so in the audit log and returns when the client may no longer be connected.
async fn void(tls: Tls, chain: Vec<CertificateDer<'static>>, peer: Peer) {
    let error = tls.voided(chain).await;
    let identity = match &peer {
        Peer::Tls { names, .. } => names.first().map(|name| &**name),
        Peer::Unix { .. } | Peer::Unidentified | Peer::Tcp { .. } => None,
    };
    tracing::warn!(
        target: "audit",
        identity,
        %peer,
        outcome = "ended",
        %error,
        "connection ended: the client's certificate is no longer good; renew it, or have its CA in --tls-client-ca"
    );
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

type Void = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A connection that begins as HTTP/2 does. What was read of it is read again from here.
pub(crate) struct Conn {
    io: Io,
    /// Bytes of [`PREFACE`] that were handed on.
    replayed: usize,
    /// Whether it may go on; asked whenever it is read from or written to, and wakes whoever does.
    void: Option<Void>,
}

impl Conn {
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(void) = &mut self.void else {
            return Ok(());
        };
        if void.as_mut().poll(cx).is_pending() {
            return Ok(());
        }
        // From now on, each time.
        self.void = Some(Box::pin(std::future::ready(())));
        Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "the client's certificate is no longer good",
        ))
    }
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
        self.check(cx)?;
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
        self.check(cx)?;
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
        self.check(cx)?;
        self.io.write().poll_write_vectored(cx, bufs)
    }
}
