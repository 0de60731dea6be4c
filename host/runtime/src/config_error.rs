//! What may be wrong with a configuration.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::{POLICY_MEMORY_MAX, POLICY_MEMORY_MIN};
use crate::layers::LayerError;
use crate::limits::LimitError;
use crate::units::Size;

/// Why the daemon does not start with this configuration; `--help` and `--version` among the reasons.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// One of those below, of flags that nobody typed.
    #[error("{error}; set by {by}")]
    SetBy { error: Box<ConfigError>, by: String },
    #[error(
        "--grpc-address and --unix-socket are both turned off; give one of them, or nobody can ask"
    )]
    NothingToServe,
    #[error("--unix-socket {path:?} is given twice; give each path once")]
    SocketTwice { path: PathBuf },
    #[error("{flag} is given {count} times; at most {max} are allowed")]
    TooMany {
        flag: &'static str,
        count: usize,
        max: usize,
    },
    #[error(
        "{first} and {second} both listen on port {port}; give one of them another (0 takes a free one)"
    )]
    PortTwice {
        first: &'static str,
        second: &'static str,
        port: u16,
    },
    #[error("{flag} is {value:?}; it must lie between {min:?} and {max:?}")]
    Duration {
        flag: &'static str,
        value: Duration,
        min: Duration,
        max: Duration,
    },
    #[error("--policy-memory is {} bytes; it must lie between {} and {} bytes (16MiB by default)", .value.bytes, POLICY_MEMORY_MIN.bytes, POLICY_MEMORY_MAX.bytes)]
    Memory { value: Size },
    #[error(
        "--policy-dir {path:?} can't be read ({why}); create it, or leave the flag out for the bundled policies alone"
    )]
    PolicyDir { path: PathBuf, why: io::Error },
    #[error("--policies-file {path:?} can't be read ({why}); create it, or leave the flag out")]
    PoliciesFile { path: PathBuf, why: std::io::Error },
    #[error(
        "--kmsg-drill without --kmsg-path: there is nothing to read; give the path, or leave the flag out"
    )]
    DrillOfNothing,
    #[error(transparent)]
    Limit(#[from] LimitError),
    #[error("{given} without {missing}: TLS needs both; give the other, or leave both out")]
    HalfTls {
        given: &'static str,
        missing: &'static str,
    },
    #[error("{flag} without --tls-cert and --tls-key: without TLS nobody shows a certificate")]
    CertificatesWithoutTls { flag: &'static str },
    #[error(
        "--tcp-writers without --tls-client-ca: nobody vouches for the certificates of clients; give the CA"
    )]
    WritersWithoutCa,
    #[error(
        "--grpc-address {address} reaches beyond this machine and has no TLS; give --tls-cert and --tls-key, a loopback address, or --insecure-tcp=read if anyone there may read"
    )]
    WideWithoutTls { address: SocketAddr },
    #[error("--insecure-tcp with --tls-cert: TCP is either plain or not; leave one out")]
    InsecureTls,
    #[error("--provider-timeout {identity:?} is given twice; give each identity once")]
    TimeoutTwice { identity: String },
    #[error("{flag} is empty; give a path")]
    NoPath { flag: &'static str },
}
