//! Binding: the Unix sockets and the TCP address, or one line that says what is in the way.

mod kept;
mod lock;
mod tcp;
mod unix;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use device_api_core::limits::{Bounds, SOCKET_PATH_BYTES_MAX};

pub(crate) use kept::Kept;
pub use kept::SocketsHealth;
use unix::UnixSocket;

use crate::incoming::Listener;
use crate::peer::Writers;
use crate::tls::{self, TlsError, TlsFiles, TlsHealth, Watcher};

/// Where to listen, and who may write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrpcConfig {
    pub unix_sockets: Vec<PathBuf>,
    /// Port 0: a free one, told by [`Bound::tcp_addr`].
    pub tcp: Option<SocketAddr>,
    /// `None`: TCP is plain, and good for what `plain_tcp` says.
    pub tls: Option<TlsFiles>,
    pub plain_tcp: PlainTcp,
    /// Uids and gids (primary or supplementary) that may write on the sockets, besides uid 0 and our
    /// own uid.
    pub writers_uid: Vec<u32>,
    pub writers_gid: Vec<u32>,
    /// Identities in clients' certificates that may write over TCP: `cn:NAME`, `dns:NAME` or
    /// `uri:URI`.
    pub writers_tcp: Vec<Arc<str>>,
    /// `connections` is as many as the process may have files open for, at most.
    pub bounds: Arc<Bounds>,
}

/// What TCP without TLS is good for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PlainTcp {
    /// To read, on loopback; another address is refused.
    #[default]
    Loopback,
    /// To read, on any address.
    Read,
    /// To write too, by whoever reaches it.
    Write,
}

/// Why the daemon can't listen. One line that names the flag; what the system said is the source.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("nothing to listen on; give --unix-socket or --grpc-address")]
    Nothing,
    #[error(
        "socket path {path:?} is {len} bytes long, and the system allows {SOCKET_PATH_BYTES_MAX}; give a shorter --unix-socket"
    )]
    PathTooLong { path: PathBuf, len: usize },
    #[error(
        "{path:?} names no file; give --unix-socket a path like /var/run/device-api/device.sock"
    )]
    NoFileName { path: PathBuf },
    #[error(
        "cannot create directory {directory:?} with mode 0750 for the socket; create it, or give another --unix-socket"
    )]
    CreateDirectory {
        directory: PathBuf,
        source: io::Error,
    },
    #[error(
        "directory {directory:?} {by}, so others than the daemon could replace the socket; give it mode 0750 and the daemon's user, or give a --unix-socket in a directory of its own, which is created then"
    )]
    OthersDirectory { directory: PathBuf, by: String },
    #[error(
        "cannot look at directory {directory:?}; make it readable for the daemon, or give another --unix-socket"
    )]
    LookDirectory {
        directory: PathBuf,
        source: io::Error,
    },
    #[error(
        "cannot lock {lock:?}, which keeps two servers from starting at once; make its directory writable for the daemon, remove the file if it is another's, or give another --unix-socket"
    )]
    Lock { lock: PathBuf, source: io::Error },
    #[error(
        "another process holds the lock {lock:?}, perhaps another server that is starting; try again"
    )]
    Busy { lock: PathBuf },
    #[error("a server is already listening on {path:?}; stop it, or give another --unix-socket")]
    Live { path: PathBuf },
    #[error(
        "{path:?} exists and is not a socket, so it is left alone; remove it, or give another --unix-socket"
    )]
    NotASocket { path: PathBuf },
    #[error(
        "cannot tell whether a server listens on {path:?}; remove it if none does, or give another --unix-socket"
    )]
    Inspect { path: PathBuf, source: io::Error },
    #[error("cannot remove stale socket {path:?}; remove it, or give another --unix-socket")]
    RemoveStale { path: PathBuf, source: io::Error },
    #[error(
        "cannot set mode 0660 on socket {path:?}, and without it anyone could connect; give a --unix-socket on another file system"
    )]
    Mode { path: PathBuf, source: io::Error },
    #[error(
        "cannot listen on socket {path:?}; make its directory writable for the daemon, or give another --unix-socket"
    )]
    BindUnix { path: PathBuf, source: io::Error },
    #[error(
        "address {addr} is in use; stop whoever uses it, or give another --grpc-address (port 0 takes a free one)"
    )]
    AddressInUse { addr: SocketAddr },
    #[error("cannot listen on address {addr}; give a --grpc-address of this machine")]
    BindTcp { addr: SocketAddr, source: io::Error },
    #[error(
        "address {addr} reaches beyond this machine and has no TLS; give --tls-cert and --tls-key, a loopback --grpc-address, or --insecure-tcp=read if anyone there may read"
    )]
    WideWithoutTls { addr: SocketAddr },
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// What is bound and not served yet. Dropping it removes the socket files again.
#[derive(Debug)]
pub struct Bound {
    unix: Vec<Kept>,
    tcp: Option<(tokio::net::TcpListener, SocketAddr)>,
    tls: Option<Watcher>,
    writers: Writers,
    bounds: Arc<Bounds>,
}

/// What serving takes of it.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) listeners: Vec<Listener>,
    /// To be run, so that changed files are used.
    pub(crate) tls: Option<Watcher>,
    pub(crate) writers: Writers,
    pub(crate) bounds: Arc<Bounds>,
}

impl Bound {
    /// Paths of the sockets.
    pub fn unix_sockets(&self) -> impl Iterator<Item = &Path> {
        self.unix.iter().map(Kept::path)
    }

    /// How the sockets are while they are served.
    pub fn sockets(&self) -> SocketsHealth {
        kept::health(&self.unix)
    }

    /// The actual address, where port 0 was asked for too.
    pub fn tcp_addr(&self) -> Option<SocketAddr> {
        self.tcp.as_ref().map(|(_, addr)| *addr)
    }

    /// How TLS is; `None` without it.
    pub fn tls(&self) -> Option<TlsHealth> {
        self.tls.as_ref().map(Watcher::health)
    }

    pub(crate) fn into_parts(self) -> Parts {
        let unix = self.unix.into_iter().map(Listener::Unix);
        let tls = self.tls.as_ref().map(Watcher::tls);
        let tcp = self.tcp.map(|(listener, _)| match tls {
            Some(tls) => Listener::Tls(listener, tls),
            None => Listener::Tcp(listener),
        });
        Parts {
            listeners: unix.chain(tcp).collect(),
            tls: self.tls,
            writers: self.writers,
            bounds: self.bounds,
        }
    }
}

/// Binds all that `config` names, or nothing. From here on clients can connect; they are answered
/// once [`crate::serve`] runs.
///
/// # Errors
/// [`BindError`], for the first that could not be bound.
pub async fn bind(config: &GrpcConfig) -> Result<Bound, BindError> {
    if config.unix_sockets.is_empty() && config.tcp.is_none() {
        return Err(BindError::Nothing);
    }
    let tls = config.tls.clone().map(tls::load).transpose()?;
    let mut unix = Vec::with_capacity(config.unix_sockets.len());
    for path in &config.unix_sockets {
        unix.push(Kept::bind(path).await?);
    }
    let tcp = match config.tcp {
        Some(addr) => Some(tcp::bind(addr, tls.is_some(), config.plain_tcp).await?),
        None => None,
    };
    let writers = Writers {
        uids: config.writers_uid.clone(),
        gids: config.writers_gid.clone(),
        names: config.writers_tcp.clone(),
        plain_tcp: tls.is_none() && config.plain_tcp == PlainTcp::Write,
        own_uid: rustix::process::geteuid().as_raw(),
    };
    Ok(Bound {
        unix,
        tcp,
        tls,
        writers,
        bounds: config.bounds.clone(),
    })
}
