//! The configuration of the gRPC API: where it listens, and who may write.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::args::Args;
use crate::config::at_most;
use crate::config_error::ConfigError;
use crate::values::{InsecureTcp, TcpAddress};

/// Unix sockets. Each dialect's clients look at a path or two.
pub(crate) const UNIX_SOCKETS_MAX: usize = 8;
/// Users and groups that may write: one per agent on a node.
const WRITERS_MAX: usize = 64;

/// Where the gRPC API listens, and who may write. At least one of both kinds of address is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiConfig {
    pub(crate) tcp: Option<SocketAddr>,
    pub(crate) unix_sockets: Vec<PathBuf>,
    pub(crate) writers_uid: Vec<u32>,
    pub(crate) writers_gid: Vec<u32>,
    /// `None`: TCP is plain.
    pub(crate) tls: Option<TlsConfig>,
    /// Identities in certificates that may write over TCP.
    pub(crate) writers_tcp: Vec<String>,
    pub(crate) insecure_tcp: InsecureTcp,
}

/// Files of TLS on TCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TlsConfig {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    /// Who vouches for clients; `None`: clients show no certificate.
    pub(crate) client_ca: Option<PathBuf>,
}

pub(crate) fn api(args: &Args) -> Result<ApiConfig, ConfigError> {
    let tcp = match args.grpc_address {
        TcpAddress::Off => None,
        TcpAddress::At(address) => Some(address),
    };
    let mut unix_sockets: Vec<PathBuf> = Vec::new();
    for path in args
        .unix_socket
        .iter()
        .filter(|path| !path.as_os_str().is_empty())
    {
        if unix_sockets.contains(path) {
            return Err(ConfigError::SocketTwice { path: path.clone() });
        }
        unix_sockets.push(path.clone());
    }
    if tcp.is_none() && unix_sockets.is_empty() {
        return Err(ConfigError::NothingToServe);
    }
    at_most("--unix-socket", unix_sockets.len(), UNIX_SOCKETS_MAX)?;
    at_most("--allow-write-uid", args.allow_write_uid.len(), WRITERS_MAX)?;
    at_most("--allow-write-gid", args.allow_write_gid.len(), WRITERS_MAX)?;
    at_most("--tcp-writers", args.tcp_writers.len(), WRITERS_MAX)?;
    Ok(ApiConfig {
        tcp,
        unix_sockets,
        writers_uid: args.allow_write_uid.clone(),
        writers_gid: args.allow_write_gid.clone(),
        tls: tls(args, tcp)?,
        writers_tcp: args.tcp_writers.clone(),
        insecure_tcp: args.insecure_tcp,
    })
}

/// TLS where it is asked for; plain TCP no farther than was said (design P4).
fn tls(args: &Args, tcp: Option<SocketAddr>) -> Result<Option<TlsConfig>, ConfigError> {
    let half = |given, missing| Err(ConfigError::HalfTls { given, missing });
    let tls = match (&args.tls_cert, &args.tls_key) {
        (Some(cert), Some(key)) => Some(TlsConfig {
            cert: cert.clone(),
            key: key.clone(),
            client_ca: args.tls_client_ca.clone(),
        }),
        (Some(_), None) => return half("--tls-cert", "--tls-key"),
        (None, Some(_)) => return half("--tls-key", "--tls-cert"),
        (None, None) => None,
    };
    if tls.is_some() {
        if args.insecure_tcp != InsecureTcp::Off {
            return Err(ConfigError::InsecureTls);
        }
        if !args.tcp_writers.is_empty() && args.tls_client_ca.is_none() {
            return Err(ConfigError::WritersWithoutCa);
        }
        return Ok(tls);
    }
    for (flag, given) in [
        ("--tls-client-ca", args.tls_client_ca.is_some()),
        ("--tcp-writers", !args.tcp_writers.is_empty()),
    ] {
        if given {
            return Err(ConfigError::CertificatesWithoutTls { flag });
        }
    }
    match tcp {
        Some(address) if !address.ip().is_loopback() && args.insecure_tcp == InsecureTcp::Off => {
            Err(ConfigError::WideWithoutTls { address })
        }
        _ => Ok(None),
    }
}
