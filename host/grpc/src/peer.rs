//! Who is calling, and what it may do (design P4).

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// What the kernel shows instead of a uid that has no mapping in our user namespace: anyone, so it
/// proves nothing, not even where it is our own (`/proc/sys/kernel/overflowuid`).
const OVERFLOW_UID: u32 = 65_534;

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// On a Unix socket, vouched for by the kernel (`SO_PEERCRED`, taken when it connected).
    Unix {
        uid: u32,
        gid: u32,
        pid: Option<i32>,
    },
    /// On a Unix socket, and the kernel would not say who.
    Unidentified,
    Tcp {
        addr: Option<SocketAddr>,
    },
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix {
                uid,
                gid,
                pid: Some(pid),
            } => write!(f, "uid {uid}, gid {gid}, pid {pid}"),
            Self::Unix {
                uid,
                gid,
                pid: None,
            } => write!(f, "uid {uid}, gid {gid}"),
            Self::Unidentified => f.write_str("an unidentified process"),
            Self::Tcp { addr: Some(addr) } => addr.fmt(f),
            Self::Tcp { addr: None } => f.write_str("an unknown TCP address"),
        }
    }
}

/// What a peer may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Reads and writes; `identity` is whose condition types it writes where it names no lease.
    Write { identity: Arc<str> },
    /// Reads; `why` says how to get more.
    Read { why: String },
}

/// Who may write on the Unix sockets, besides uid 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Writers {
    uids: Vec<u32>,
    gids: Vec<u32>,
    own_uid: u32,
}

impl Writers {
    /// `own_uid` is the daemon's effective uid.
    pub(crate) fn new(uids: Vec<u32>, gids: Vec<u32>, own_uid: u32) -> Self {
        Self {
            uids,
            gids,
            own_uid,
        }
    }

    pub(crate) fn access(&self, peer: Peer) -> Access {
        match peer {
            Peer::Unix { uid, gid, .. } if self.may_write(uid, gid) => Access::Write {
                identity: format!("uid:{uid}").into(),
            },
            Peer::Unix { uid, gid, .. } => Access::Read {
                why: format!(
                    "uid {uid} (gid {gid}) may only read; have it listed in the daemon's writer uids or gids"
                ),
            },
            Peer::Unidentified => Access::Read {
                why: "the kernel did not tell who is calling, so only reading is allowed"
                    .to_owned(),
            },
            Peer::Tcp { .. } => Access::Read {
                why: "TCP is read-only; write over the Unix socket".to_owned(),
            },
        }
    }

    fn may_write(&self, uid: u32, gid: u32) -> bool {
        let own = uid == self.own_uid && uid != OVERFLOW_UID;
        uid == 0 || own || self.uids.contains(&uid) || self.gids.contains(&gid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(own_uid: u32, peer: Peer, expected: Option<&str>) {
        let identity = match Writers::new(vec![7], vec![70], own_uid).access(peer) {
            Access::Write { identity } => Some(identity),
            Access::Read { .. } => None,
        };
        assert_eq!(identity.as_deref(), expected);
    }

    #[test]
    fn p4_who_may_write() {
        let unix = |uid, gid| Peer::Unix {
            uid,
            gid,
            pid: None,
        };
        check(1000, unix(0, 0), Some("uid:0"));
        check(1000, unix(7, 1), Some("uid:7"));
        check(1000, unix(8, 70), Some("uid:8"));
        check(1000, unix(1000, 1000), Some("uid:1000"));
        check(1000, unix(8, 1), None);
        check(0, unix(1000, 1000), None);
        check(OVERFLOW_UID, unix(OVERFLOW_UID, OVERFLOW_UID), None);
        check(0, Peer::Unidentified, None);
        check(0, Peer::Tcp { addr: None }, None);
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let writers = Writers::new(Vec::new(), Vec::new(), 0);
        let Access::Read { why } = writers.access(Peer::Tcp { addr: None }) else {
            panic!("TCP may not write")
        };
        assert!(why.contains("Unix socket"), "{why}");
    }
}
