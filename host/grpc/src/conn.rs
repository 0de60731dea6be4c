//! One accepted connection: its bytes, and what each request on it can learn of it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use device_api_core::limits::WATCHES_PER_CONNECTION_MAX;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::transport::server::Connected;

use crate::peer::Peer;

/// In the extensions of each request; goes with its connection.
#[derive(Clone, Debug)]
pub(crate) struct ConnInfo {
    pub(crate) peer: Peer,
    /// A permit for each watch that may still start on this connection (design W4).
    pub(crate) watches: Arc<Semaphore>,
}

#[derive(Debug)]
enum Io {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// A connection; it counts towards the accept limit until it is dropped.
#[derive(Debug)]
pub(crate) struct Conn {
    io: Io,
    info: ConnInfo,
    _slot: OwnedSemaphorePermit,
}

impl Conn {
    pub(crate) fn unix(stream: UnixStream, slot: OwnedSemaphorePermit) -> Self {
        let peer = stream
            .peer_cred()
            .map_or(Peer::Unidentified, |cred| Peer::Unix {
                uid: cred.uid(),
                gid: cred.gid(),
                pid: cred.pid(),
            });
        Self::new(Io::Unix(stream), peer, slot)
    }

    pub(crate) fn tcp(stream: TcpStream, slot: OwnedSemaphorePermit) -> Self {
        // Small answers go out at once; without it they are only slower.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY could not be set");
        }
        let peer = Peer::Tcp {
            addr: stream.peer_addr().ok(),
        };
        Self::new(Io::Tcp(stream), peer, slot)
    }

    fn new(io: Io, peer: Peer, slot: OwnedSemaphorePermit) -> Self {
        let watches = Arc::new(Semaphore::new(WATCHES_PER_CONNECTION_MAX));
        Self {
            io,
            info: ConnInfo { peer, watches },
            _slot: slot,
        }
    }
}

impl Connected for Conn {
    type ConnectInfo = ConnInfo;

    fn connect_info(&self) -> ConnInfo {
        self.info.clone()
    }
}

impl AsyncRead for Conn {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Io::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Conn {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Io::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Io::Tcp(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Io::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Unix(stream) => stream.is_write_vectored(),
            Io::Tcp(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Io::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }
}
