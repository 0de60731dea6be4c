//! Accepting: all listeners as one stream of connections.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_core::Stream;
use futures_util::stream::{self, StreamExt as _};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::conn::Conn;
use crate::listen::UnixSocket;

/// Connections at once, on all listeners: as many as there may be watches, since a client that
/// watches needs but one. Past it, new ones wait in the listeners' backlogs.
const CONNECTIONS_MAX: usize = 4096;

/// How long a listener rests after a failed accept. What fails there (no file descriptor left)
/// fails again at once, and a loop that does not rest would take the core that could mend it.
const ACCEPT_REST: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(crate) enum Listener {
    Unix(UnixSocket),
    Tcp(TcpListener),
}

impl Listener {
    async fn accept(&self, slot: OwnedSemaphorePermit) -> io::Result<Conn> {
        match self {
            Self::Unix(socket) => socket
                .listener()
                .accept()
                .await
                .map(|(stream, _)| Conn::unix(stream, slot)),
            Self::Tcp(listener) => listener
                .accept()
                .await
                .map(|(stream, _)| Conn::tcp(stream, slot)),
        }
    }
}

/// Connections as they come. Dropping it closes the listeners and removes their socket files.
pub(crate) fn incoming(
    listeners: Vec<Listener>,
) -> impl Stream<Item = Result<Conn, Infallible>> + Send + 'static {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    stream::select_all(listeners.into_iter().map(|listener| {
        let state = (listener, slots.clone());
        stream::unfold(state, async |(listener, slots)| {
            let conn = next(&listener, &slots).await?;
            Some((Ok(conn), (listener, slots)))
        })
        .boxed()
    }))
}

/// `None` only if the semaphore were closed, which nobody does.
async fn next(listener: &Listener, slots: &Arc<Semaphore>) -> Option<Conn> {
    loop {
        let slot = slots.clone().acquire_owned().await.ok()?;
        match listener.accept(slot).await {
            Ok(conn) => return Some(conn),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted; trying again");
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
}
