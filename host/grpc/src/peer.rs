//! Who is calling, and what it may do (design P4).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

/// What the kernel shows instead of a uid that has no mapping in our user namespace: anyone, so it
/// proves nothing, not even where it is our own (`/proc/sys/kernel/overflowuid`).
const OVERFLOW_ID: u32 = 65_534;

/// The other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// On a Unix socket, vouched for by the kernel, as of when it connected (`SO_PEERCRED`,
    /// `SO_PEERGROUPS`).
    Unix {
        uid: u32,
        gid: u32,
        /// Supplementary ones.
        groups: Vec<u32>,
        pid: Option<i32>,
    },
    /// On a Unix socket, and the kernel would not say who.
    Unidentified,
    /// Without TLS: anyone.
    Tcp { addr: Option<SocketAddr> },
    /// With TLS; `names` are what its certificate says, where it has to have one.
    Tls {
        addr: Option<SocketAddr>,
        /// As in `cn:node-agent`, `dns:a.example`, `uri:spiffe://example.org/agent`.
        names: Vec<Arc<str>>,
    },
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix { uid, gid, pid, .. } => {
                write!(f, "uid {uid}, gid {gid}")?;
                pid.map_or(Ok(()), |pid| write!(f, ", pid {pid}"))
            }
            Self::Unidentified => f.write_str("an unidentified process"),
            Self::Tcp { addr: Some(addr) }
            | Self::Tls {
                addr: Some(addr), ..
            } => addr.fmt(f),
            Self::Tcp { addr: None } | Self::Tls { addr: None, .. } => {
                f.write_str("an unknown TCP address")
            }
        }
    }
}

/// Whose connections count together, when they are too many.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Share {
    Uid(u32),
    Network(Network),
    Nobody,
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uid(uid) => write!(f, "uid:{uid}"),
            Self::Network(network) => write!(f, "tcp:{network}"),
            Self::Nobody => f.write_str("nobody"),
        }
    }
}

/// Addresses of which a client that has one has the others for the asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Network {
    /// Of this machine, whichever: a process may call from all of 127.0.0.0/8.
    Loopback,
    V4(Ipv4Addr),
    /// The first 64 bits: what one host is given (RFC 4291, section 2.5.4).
    V6([u16; 4]),
}

impl Network {
    fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            ip if ip.is_loopback() => Self::Loopback,
            IpAddr::V4(ip) => Self::V4(ip),
            IpAddr::V6(ip) => {
                let [a, b, c, d, ..] = ip.segments();
                Self::V6([a, b, c, d])
            }
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loopback => f.write_str("loopback"),
            Self::V4(ip) => ip.fmt(f),
            Self::V6([a, b, c, d]) => {
                write!(f, "{}/64", Ipv6Addr::from([*a, *b, *c, *d, 0, 0, 0, 0]))
            }
        }
    }
}

impl Peer {
    pub(crate) fn share(&self) -> Share {
        match self {
            Self::Unix { uid, .. } => Share::Uid(*uid),
            Self::Tcp { addr: Some(addr) }
            | Self::Tls {
                addr: Some(addr), ..
            } => Share::Network(Network::of(addr.ip())),
            Self::Unidentified | Self::Tcp { addr: None } | Self::Tls { addr: None, .. } => {
                Share::Nobody
            }
        }
    }

    /// Who it is, where no list says how it is known.
    fn identity(&self) -> Arc<str> {
        match self {
            Self::Unix { uid, .. } => format!("uid:{uid}").into(),
            Self::Unidentified => "nobody".into(),
            Self::Tls { names, .. } if let Some(first) = names.first() => first.clone(),
            Self::Tcp { addr: Some(addr) }
            | Self::Tls {
                addr: Some(addr), ..
            } => format!("tcp:{}", addr.ip()).into(),
            Self::Tcp { addr: None } | Self::Tls { addr: None, .. } => "tcp".into(),
        }
    }
}

/// Why a write is refused, as metrics count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalReason {
    /// The uid is in no list, and none of its groups is.
    Uid,
    /// The kernel does not tell who it is.
    Unidentified,
    /// TCP without TLS proves nobody.
    PlainTcp,
    /// The certificate names nobody who may write.
    Certificate,
    /// It may write, but not this: another's type, a lease that ran out.
    NotIts,
}

impl RefusalReason {
    pub const ALL: [Self; 5] = [
        Self::Uid,
        Self::Unidentified,
        Self::PlainTcp,
        Self::Certificate,
        Self::NotIts,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Uid => "uid",
            Self::Unidentified => "unidentified",
            Self::PlainTcp => "plain-tcp",
            Self::Certificate => "certificate",
            Self::NotIts => "not-its",
        }
    }
}

/// What a peer may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Reads and writes.
    Write,
    /// Reads; `why` says how to get more.
    Read { reason: RefusalReason, why: String },
}

/// Who may write, besides uid 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Writers {
    pub(crate) uids: Vec<u32>,
    pub(crate) gids: Vec<u32>,
    /// In certificates, as in `cn:node-agent`.
    pub(crate) names: Vec<Arc<str>>,
    /// Whoever reaches TCP without TLS.
    pub(crate) plain_tcp: bool,
    /// The daemon's effective uid.
    pub(crate) own_uid: u32,
}

impl Writers {
    /// Who the peer is, and what it may. The identity is also whose condition types it writes where
    /// it names no lease.
    pub(crate) fn access(&self, peer: &Peer) -> (Arc<str>, Access) {
        let refuse = |reason, why: &str| Access::Read {
            reason,
            why: why.to_owned(),
        };
        let access = match peer {
            Peer::Unix {
                uid, gid, groups, ..
            } if self.may_write(*uid, *gid, groups) => Access::Write,
            Peer::Unix { uid, gid, .. } => Access::Read {
                reason: RefusalReason::Uid,
                why: format!(
                    "uid {uid} (gid {gid}) may only read; have it listed by --allow-write-uid or --allow-write-gid"
                ),
            },
            Peer::Unidentified => refuse(
                RefusalReason::Unidentified,
                "the kernel did not tell who is calling, so only reading is allowed",
            ),
            Peer::Tcp { .. } if self.plain_tcp => Access::Write,
            Peer::Tcp { .. } => refuse(
                RefusalReason::PlainTcp,
                "TCP without TLS is read-only; write over the Unix socket",
            ),
            Peer::Tls { names, .. } => match self.names.iter().find(|name| names.contains(name)) {
                Some(name) => return (name.clone(), Access::Write),
                None => Access::Read {
                    reason: RefusalReason::Certificate,
                    why: certified(names),
                },
            },
        };
        (peer.identity(), access)
    }

    fn may_write(&self, uid: u32, gid: u32, groups: &[u32]) -> bool {
        let own = uid == self.own_uid && uid != OVERFLOW_ID;
        let mut groups = groups.iter().chain([&gid]);
        uid == 0 || own || self.uids.contains(&uid) || groups.any(|gid| self.gids.contains(gid))
    }
}

fn certified(names: &[Arc<str>]) -> String {
    if names.is_empty() {
        return "a client without a certificate may only read; write over the Unix socket"
            .to_owned();
    }
    format!(
        "the certificate says {}, which may only read; have it listed by --tcp-writers",
        names.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writers(own_uid: u32) -> Writers {
        Writers {
            uids: vec![7],
            gids: vec![70],
            names: vec!["cn:agent".into(), "uri:spiffe://d/a".into()],
            plain_tcp: false,
            own_uid,
        }
    }

    #[track_caller]
    fn check(own_uid: u32, peer: &Peer, expected: Result<&str, RefusalReason>) {
        let (identity, access) = writers(own_uid).access(peer);
        let got = match &access {
            Access::Write => Ok(&*identity),
            Access::Read { reason, .. } => Err(*reason),
        };
        assert_eq!(got, expected, "{peer}");
    }

    fn unix(uid: u32, gid: u32, groups: &[u32]) -> Peer {
        Peer::Unix {
            uid,
            gid,
            groups: groups.to_vec(),
            pid: None,
        }
    }

    fn tls(names: &[&str]) -> Peer {
        Peer::Tls {
            addr: None,
            names: names.iter().map(|name| (*name).into()).collect(),
        }
    }

    #[test]
    fn p4_who_may_write() {
        check(1000, &unix(0, 0, &[]), Ok("uid:0"));
        check(1000, &unix(7, 1, &[]), Ok("uid:7"));
        check(1000, &unix(8, 70, &[]), Ok("uid:8"));
        check(1000, &unix(1000, 1000, &[]), Ok("uid:1000"));
        check(1000, &unix(8, 1, &[]), Err(RefusalReason::Uid));
        check(0, &unix(1000, 1000, &[]), Err(RefusalReason::Uid));
        check(
            OVERFLOW_ID,
            &unix(OVERFLOW_ID, OVERFLOW_ID, &[]),
            Err(RefusalReason::Uid),
        );
        check(0, &Peer::Unidentified, Err(RefusalReason::Unidentified));
        check(0, &Peer::Tcp { addr: None }, Err(RefusalReason::PlainTcp));
    }

    #[test]
    fn p4_supplementary_groups_count() {
        check(1000, &unix(8, 1, &[2, 70, 3]), Ok("uid:8"));
        check(1000, &unix(8, 1, &[2, 3]), Err(RefusalReason::Uid));
    }

    #[test]
    fn p4_certificates_write_by_a_listed_name_and_are_known_by_it() {
        check(0, &tls(&["dns:a.b", "cn:agent"]), Ok("cn:agent"));
        check(0, &tls(&["uri:spiffe://d/a"]), Ok("uri:spiffe://d/a"));
        check(0, &tls(&["cn:agent2"]), Err(RefusalReason::Certificate));
        check(0, &tls(&["dns:agent"]), Err(RefusalReason::Certificate));
        check(0, &tls(&[]), Err(RefusalReason::Certificate));
    }

    #[test]
    fn p4_plain_tcp_writes_only_where_that_was_said() {
        let writers = Writers {
            plain_tcp: true,
            ..writers(0)
        };
        let addr = Some(SocketAddr::from(([10, 0, 0, 7], 1)));
        let (identity, access) = writers.access(&Peer::Tcp { addr });
        assert_eq!((&*identity, access), ("tcp:10.0.0.7", Access::Write));
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        #[track_caller]
        fn says(peer: &Peer, words: &str) {
            let (_, access) = writers(0).access(peer);
            assert!(
                matches!(&access, Access::Read { why, .. } if why.contains(words)),
                "{access:?}"
            );
        }
        says(&Peer::Tcp { addr: None }, "Unix socket");
        says(&unix(8, 1, &[]), "--allow-write-gid");
        says(&tls(&["cn:a", "dns:b"]), "cn:a, dns:b");
        says(&tls(&["cn:a"]), "--tcp-writers");
        says(&tls(&[]), "Unix socket");
    }

    #[test]
    fn connections_are_shared_out_by_who_can_be_told_apart() {
        assert_eq!(unix(7, 1, &[]).share(), unix(7, 2, &[3]).share());
        assert_ne!(unix(7, 1, &[]).share(), unix(8, 1, &[]).share());
        #[track_caller]
        fn check(a: &str, b: &str, same: bool) {
            let [a, b] = [a, b].map(|addr| Peer::Tcp {
                addr: Some(addr.parse().expect("an address")),
            });
            assert_eq!(a.share() == b.share(), same, "{a} and {b}");
        }
        check("10.0.0.7:1", "10.0.0.7:2", true);
        check("10.0.0.7:1", "[::ffff:10.0.0.7]:1", true);
        check("10.0.0.7:1", "10.0.0.8:1", false);
        check("127.0.0.1:1", "127.4.5.6:1", true);
        check("127.0.0.1:1", "[::1]:1", true);
        check("[2001:db8:0:1::1]:1", "[2001:db8:0:1:ffff::]:1", true);
        check("[2001:db8:0:1::1]:1", "[2001:db8:0:2::1]:1", false);
        let share = |addr: &str| {
            let addr = addr.parse().ok();
            Peer::Tcp { addr }.share().to_string()
        };
        assert_eq!(share("[2001:db8:0:1::1]:1"), "tcp:2001:db8:0:1::/64");
        assert_eq!(share("127.1.2.3:1"), "tcp:loopback");
        assert_eq!(unix(7, 1, &[]).share().to_string(), "uid:7");
    }
}
