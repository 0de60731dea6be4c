//! The TLS handshake of one connection, and what is said of those that fail.
//!
//! Its two costly steps (a signature of ours, the verification of the client's) are computed in turns: a
//! connection has one while it computes, and none while it waits for its client, so those that stall
//! hold nobody up.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;

use rustls::CertificateError;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, TlsAcceptor, rustls};

use crate::lines::{Key, Lines};
use crate::observe::RpcObserver;
use crate::peer::Peer;
use crate::tls::Tls;

/// From a client's first byte to the end of its handshake: one round trip. What is lost on the way is sent
/// again after one second, then two.
const HANDSHAKE_TIME: Duration = Duration::from_secs(5);

/// Why a handshake failed, as metrics count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeFailure {
    /// The client has none, or showed none.
    NoCertificate,
    /// Of a CA that is not ours to trust.
    UnknownIssuer,
    /// It has run out, or is not valid yet.
    Expired,
    /// What it shows is no good otherwise.
    BadCertificate,
    /// It does not accept our certificate, or gave up for another reason that it told.
    Refused,
    /// Not TLS, or not what we speak of it.
    Protocol,
    /// It hung up, or the network did.
    HungUp,
    /// It stopped in the middle.
    Timeout,
}

impl HandshakeFailure {
    pub const ALL: [Self; 8] = [
        Self::NoCertificate,
        Self::UnknownIssuer,
        Self::Expired,
        Self::BadCertificate,
        Self::Refused,
        Self::Protocol,
        Self::HungUp,
        Self::Timeout,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoCertificate => "no-certificate",
            Self::UnknownIssuer => "unknown-issuer",
            Self::Expired => "expired",
            Self::BadCertificate => "bad-certificate",
            Self::Refused => "refused-by-client",
            Self::Protocol => "protocol",
            Self::HungUp => "hung-up",
            Self::Timeout => "timeout",
        }
    }

    fn advice(self) -> &'static str {
        match self {
            Self::NoCertificate => {
                "it shows no certificate; give it one from a CA in --tls-client-ca"
            }
            Self::UnknownIssuer => {
                "its certificate is from nobody in --tls-client-ca; give it one from there, or add its CA"
            }
            Self::Expired => "its certificate is out of date; renew it, or set the clocks right",
            Self::BadCertificate => "its certificate can't be used; give it another",
            Self::Refused => {
                "it refused us; give it the CA of --tls-cert, and the name that is in there"
            }
            Self::Protocol => "it does not speak TLS 1.3 with HTTP/2; see how it is set up",
            Self::HungUp => "it hung up; its own log may say why",
            Self::Timeout => "it did not go on; see whether the network or the client hangs",
        }
    }

    fn of(error: &io::Error) -> Self {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        match inner {
            Some(rustls::Error::NoCertificatesPresented) => Self::NoCertificate,
            Some(rustls::Error::InvalidCertificate(error)) => Self::of_certificate(error),
            Some(rustls::Error::AlertReceived(_)) => Self::Refused,
            Some(_) => Self::Protocol,
            None => Self::HungUp,
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "an open set of another crate"
    )]
    fn of_certificate(error: &CertificateError) -> Self {
        match error {
            // The latter where the CA has the name of one of ours, as one that was renewed does.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::UnknownIssuer,
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => Self::Expired,
            _ => Self::BadCertificate,
        }
    }
}

/// Tells of handshakes that failed: each to the observer, some to the audit log.
pub(crate) struct Refusals {
    lines: Arc<Lines>,
    observer: OnceLock<Arc<dyn RpcObserver>>,
}

impl Default for Refusals {
    fn default() -> Self {
        Self {
            lines: Lines::new("TLS handshakes that failed"),
            observer: OnceLock::new(),
        }
    }
}

impl fmt::Debug for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refusals").finish_non_exhaustive()
    }
}

impl Refusals {
    /// Whom to tell; the first call counts.
    pub(crate) fn tell(&self, observer: Arc<dyn RpcObserver>) {
        let _first = self.observer.set(observer);
    }

    fn failed(&self, addr: Option<SocketAddr>, why: HandshakeFailure, error: &io::Error) {
        if let Some(observer) = self.observer.get() {
            observer.handshake_failed(why.as_str());
        }
        let peer = Peer::Tcp { addr };
        let Some(suppressed) = self.lines.admit(&Key::Share(peer.share())) else {
            return;
        };
        tracing::warn!(
            target: "audit",
            %peer,
            outcome = "refused",
            reason = why.as_str(),
            suppressed,
            %error,
            "TLS client not let in: {}",
            why.advice()
        );
    }
}

/// Shakes hands, within [`HANDSHAKE_TIME`] of the first byte.
///
/// # Errors
/// What went wrong; the refusals were told of it.
pub(crate) async fn shake(
    stream: TcpStream,
    tls: &Tls,
    turns: &Semaphore,
) -> io::Result<TlsStream<TcpStream>> {
    // Who connects to see whether someone listens is no news.
    if stream.peek(&mut [0]).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let addr = stream.peer_addr().ok();
    let accept = TlsAcceptor::from(tls.config()).accept(stream);
    let shaken = tokio::time::timeout(HANDSHAKE_TIME, in_turns(accept, turns)).await;
    let (why, error) = match shaken {
        Ok(Ok(stream)) => return Ok(stream),
        Ok(Err(error)) => (HandshakeFailure::of(&error), error),
        Err(_elapsed) => (HandshakeFailure::Timeout, io::ErrorKind::TimedOut.into()),
    };
    tls.refusals().failed(addr, why, &error);
    Err(error)
}

async fn in_turns(
    mut accept: Accept<TcpStream>,
    turns: &Semaphore,
) -> io::Result<TlsStream<TcpStream>> {
    loop {
        {
            // The semaphore is never closed.
            let _turn = turns.acquire().await;
            let step = poll_fn(|cx| Poll::Ready(Pin::new(&mut accept).poll(cx))).await;
            if let Poll::Ready(shaken) = step {
                return shaken;
            }
        }
        // The client's next bytes wake this task.
        let mut is_woken = false;
        poll_fn(|_cx| {
            if mem::replace(&mut is_woken, true) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }
}
