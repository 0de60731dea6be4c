//! The TCP listener.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;

use super::BindError;

/// Binds, and says where: port 0 is replaced by the one the system chose.
pub(super) async fn bind(addr: SocketAddr) -> Result<(TcpListener, SocketAddr), BindError> {
    let listener = TcpListener::bind(addr).await.map_err(|source| {
        let in_use = source.kind() == io::ErrorKind::AddrInUse;
        if in_use {
            BindError::AddressInUse { addr }
        } else {
            BindError::BindTcp { addr, source }
        }
    })?;
    let bound = listener
        .local_addr()
        .map_err(|source| BindError::BindTcp { addr, source })?;
    if !bound.ip().is_loopback() {
        tracing::warn!(%bound, "anyone who reaches this address can read; there is no TLS on it");
    }
    Ok((listener, bound))
}
