//! Accepting: all listeners as one stream of connections.

use std::time::Duration;

use device_api_core::repeats::Repeats;
use futures_core::Stream;
use futures_util::stream::{self, StreamExt as _};
use tokio::net::TcpListener;

use crate::conn::Socket;
use crate::listen::Kept;
use crate::tls::Tls;

/// How long a listener rests after a failed accept. What fails there (no file descriptor left)
/// fails again at once, and a loop that does not rest would take the core that could mend it.
const ACCEPT_REST: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(crate) enum Listener {
    Unix(Kept),
    Tcp(TcpListener),
    Tls(TcpListener, Tls),
}

impl Listener {
    async fn accept(&mut self) -> std::io::Result<Socket> {
        Ok(match self {
            Self::Unix(socket) => Socket::Unix(socket.accept().await?),
            Self::Tcp(listener) => Socket::Tcp(listener.accept().await?.0),
            Self::Tls(listener, tls) => Socket::Tls(listener.accept().await?.0, tls.clone()),
        })
    }
}

/// Connections as they come. Dropping it closes the listeners and removes their socket files.
pub(crate) fn incoming(listeners: Vec<Listener>) -> impl Stream<Item = Socket> + Send + 'static {
    stream::select_all(listeners.into_iter().map(|listener| {
        stream::unfold(
            (listener, Repeats::new()),
            async |(mut listener, failed)| {
                let socket = next(&mut listener, &failed).await;
                Some((socket, (listener, failed)))
            },
        )
        .boxed()
    }))
}

async fn next(listener: &mut Listener, failed: &Repeats) -> Socket {
    loop {
        match listener.accept().await {
            Ok(socket) => {
                failed.went_well();
                return socket;
            }
            Err(error) => {
                if let Some(times) = failed.due() {
                    tracing::warn!(%error, times, "a connection could not be accepted; trying again");
                }
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
}
