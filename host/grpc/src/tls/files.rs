//! The files of TLS: read, and made into what connections use.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ServerConfig, WebPkiClientVerifier};
use tokio_rustls::rustls;

use super::State;
use crate::certificate::{begins, expires};
use crate::limits::TLS_FILE_BYTES;

/// What HTTP/2 is called in a TLS handshake; gRPC speaks nothing else.
const ALPN: &[u8] = b"h2";

const CERT: &str = "--tls-cert";
const KEY: &str = "--tls-key";
const CLIENT_CA: &str = "--tls-client-ca";

/// The files of TLS (PEM).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
    /// Who vouches for clients. With it, a client without a certificate from them can't connect;
    /// without it, clients show none.
    pub client_ca: Option<PathBuf>,
}

/// Why TLS can't be had with these files. Each names the flag and the file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{flag} {path:?} can't be read; check the path and its mode")]
    Read {
        flag: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{flag} {path:?} is larger than {TLS_FILE_BYTES} bytes; give a PEM file")]
    TooLarge { flag: &'static str, path: PathBuf },
    #[error("{flag} {path:?} holds no {what} in PEM; give a file with one")]
    Missing {
        flag: &'static str,
        path: PathBuf,
        what: &'static str,
    },
    #[error("{flag} {path:?} is not PEM all through; give a whole file")]
    Pem {
        flag: &'static str,
        path: PathBuf,
        source: rustls::pki_types::pem::Error,
    },
    #[error("{CLIENT_CA} {path:?} holds a certificate that can't be used")]
    ClientCa {
        path: PathBuf,
        source: rustls::Error,
    },
    #[error("{CLIENT_CA} {path:?} can't be used to verify clients")]
    Verifier {
        path: PathBuf,
        source: rustls::server::VerifierBuilderError,
    },
    #[error(
        "{CERT} {cert:?} and {KEY} {key:?} can't be used together; give a key to that certificate"
    )]
    Pair {
        cert: PathBuf,
        key: PathBuf,
        source: rustls::Error,
    },
    #[error("this build has no TLS 1.3; rebuild the daemon")]
    Protocol(#[source] rustls::Error),
}

/// What the files held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Content {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

pub(super) fn read(files: &TlsFiles) -> Result<Content, TlsError> {
    Ok(Content {
        cert: read_file(CERT, &files.cert)?,
        key: read_file(KEY, &files.key)?,
        client_ca: match &files.client_ca {
            Some(path) => Some(read_file(CLIENT_CA, path)?),
            None => None,
        },
    })
}

fn read_file(flag: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::Read {
        flag,
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(TLS_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if u64::try_from(bytes.len()).is_ok_and(|len| len <= TLS_FILE_BYTES) {
        Ok(bytes)
    } else {
        Err(TlsError::TooLarge {
            flag,
            path: path.to_owned(),
        })
    }
}

pub(super) fn configure(files: &TlsFiles, content: &Content) -> Result<State, TlsError> {
    let chain = certificates(CERT, &files.cert, &content.cert)?;
    let begins = chain.first().map_or(SystemTime::UNIX_EPOCH, begins);
    let expires = chain.first().map_or(SystemTime::UNIX_EPOCH, expires);
    let key = PrivateKeyDer::from_pem_slice(&content.key).map_err(|source| {
        let (flag, path) = (KEY, files.key.clone());
        if matches!(source, rustls::pki_types::pem::Error::NoItemsFound) {
            let what = "private key";
            TlsError::Missing { flag, path, what }
        } else {
            TlsError::Pem { flag, path, source }
        }
    })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Protocol)?;
    let verifier = match (&files.client_ca, &content.client_ca) {
        (Some(path), Some(pem)) => Some(verifier(path, pem, provider)?),
        _ => None,
    };
    let builder = match verifier.clone() {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|source| TlsError::Pair {
            cert: files.cert.clone(),
            key: files.key.clone(),
            source,
        })?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // Who resumes a session shows no certificate again, so one that has run out would be good for ever.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(State {
        config: Arc::new(config),
        verifier,
        begins,
        expires,
        failure: None,
    })
}

fn verifier(
    path: &Path,
    pem: &[u8],
    provider: Arc<rustls::crypto::CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(CLIENT_CA, path, pem)? {
        roots
            .add(certificate)
            .map_err(|source| TlsError::ClientCa {
                path: path.to_owned(),
                source,
            })?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|source| TlsError::Verifier {
            path: path.to_owned(),
            source,
        })
}

fn certificates(
    flag: &'static str,
    path: &Path,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = read.map_err(|source| TlsError::Pem {
        flag,
        path: path.to_owned(),
        source,
    })?;
    if certificates.is_empty() {
        return Err(TlsError::Missing {
            flag,
            path: path.to_owned(),
            what: "certificate",
        });
    }
    Ok(certificates)
}
