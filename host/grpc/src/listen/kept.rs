//! A Unix socket whose path is looked at while it is served. Whoever removes or replaces the file of a socket that
//! listens leaves a server that nobody reaches and that notices nothing, so it is bound anew.
//!
//! ```text
//!          path is ours ◀──────────────── bound ───┐
//!   (each 1 s) │ gone, or another file             │
//!              ▼                                    │
//!          lost: said, and bound as at the start ──┤
//!              ▲                                    │ refused: a server that lives there, no socket, …
//!              └────────────── 1 s ────────────────┘
//! ```
//!
//! **Invariant:** nobody else's file is removed. What is bound at the start is bound by the same rules here, under the
//! same lock: the socket of another daemon that lives is left alone, and had for as long as it lives.
//!
//! The look is part of accepting, so it ends when the daemon drains: from then on the path is the next daemon's.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use device_api_core::repeats::Repeats;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::{BindError, UnixSocket};
use crate::limits::SOCKET_CHECK_INTERVAL;

/// How one socket is.
#[derive(Clone, Debug, Default)]
struct State {
    /// Why nobody reaches it.
    lost: Option<Arc<str>>,
    /// How often it was bound anew.
    anew: u64,
}

/// How the Unix sockets are, for whoever reports it.
#[derive(Clone, Debug, Default)]
pub struct SocketsHealth(Vec<(PathBuf, watch::Receiver<State>)>);

impl SocketsHealth {
    /// Those that nobody reaches now, and why.
    pub fn lost(&self) -> Vec<(&Path, Arc<str>)> {
        let mut lost = Vec::new();
        for (path, state) in &self.0 {
            let why = state.borrow().lost.clone();
            lost.extend(why.map(|why| (&**path, why)));
        }
        lost
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// How often one was bound anew since the start.
    pub fn bound_anew(&self) -> u64 {
        self.0.iter().map(|(_, state)| state.borrow().anew).sum()
    }
}

/// Of the sockets that are bound.
pub(super) fn health<'a>(sockets: impl IntoIterator<Item = &'a Kept>) -> SocketsHealth {
    let each = |kept: &Kept| (kept.path().to_owned(), kept.state.subscribe());
    SocketsHealth(sockets.into_iter().map(each).collect())
}

/// A socket, and the look at its path.
#[derive(Debug)]
pub(crate) struct Kept {
    socket: UnixSocket,
    look: Interval,
    state: watch::Sender<State>,
    refused: Repeats,
}

impl Kept {
    pub(super) async fn bind(path: &Path) -> Result<Self, BindError> {
        let socket = UnixSocket::bind(path).await?;
        let mut look = interval(SOCKET_CHECK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            socket,
            look,
            state: watch::Sender::default(),
            refused: Repeats::new(),
        })
    }

    pub(super) fn path(&self) -> &Path {
        self.socket.path()
    }

    pub(crate) async fn accept(&mut self) -> io::Result<UnixStream> {
        loop {
            tokio::select! {
                accepted = self.socket.listener().accept() => return Ok(accepted?.0),
                _ = self.look.tick() => {}
            }
            self.look_after().await;
        }
    }

    /// `lstat` of a path: sockets are in local file systems.
    async fn look_after(&mut self) {
        let Some(why) = self.socket.lost() else {
            self.found();
            return;
        };
        let path = self.path().to_owned();
        match self.socket.bind_anew().await {
            Ok(()) => {
                self.refused = Repeats::new();
                tracing::warn!(?path, why, "nobody reached the socket; listening anew");
                self.state.send_modify(|state| {
                    state.lost = None;
                    state.anew += 1;
                });
            }
            Err(error) => {
                if let Some(times) = self.refused.due() {
                    tracing::warn!(?path, why, times, "nobody reaches the socket: {error}");
                }
                let why = format!("{why}: {error}").into();
                self.state.send_modify(|state| state.lost = Some(why));
            }
        }
    }

    /// Whoever moved the file moved it back.
    fn found(&mut self) {
        self.refused.went_well();
        self.state
            .send_if_modified(|state| state.lost.take().is_some());
    }
}

#[cfg(test)]
mod tests;
