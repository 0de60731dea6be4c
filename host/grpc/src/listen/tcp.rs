//! The TCP listener.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;

use super::{BindError, PlainTcp};

/// Binds, and says where: port 0 is replaced by the one the system chose. Without TLS no farther
/// than `plain` says (design P4).
pub(super) async fn bind(
    addr: SocketAddr,
    tls: bool,
    plain: PlainTcp,
) -> Result<(TcpListener, SocketAddr), BindError> {
    let wide = !addr.ip().is_loopback();
    if wide && !tls && plain == PlainTcp::Loopback {
        return Err(BindError::WideWithoutTls { addr });
    }
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
    if !tls && plain == PlainTcp::Write {
        tracing::warn!(%bound, "INSECURE: whoever reaches this address can change the health of GPUs; there is no TLS on it");
    } else if !tls && wide {
        tracing::warn!(%bound, "INSECURE: whoever reaches this address can read; there is no TLS on it");
    }
    Ok((listener, bound))
}
