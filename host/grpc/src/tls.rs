//! TLS on TCP: certificate, key and client CAs from files, read again when they change.
//!
//! ```text
//!            files read ──same as in use──▶ nothing to do
//!  (each 1 s)    │ other
//!                ▼
//!            same as a second ago? ──no──▶ wait: a volume may be in the middle of its swap
//!                │ yes
//!                ├──usable──▶ for new connections from now on
//!                └──broken──▶ the old ones stay, and it is said
//! ```

mod files;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::ServerConfig;
use rustls::server::danger::ClientCertVerifier;
use tokio::sync::watch;
use tokio_rustls::rustls;

use crate::certificate::expires;
use crate::handshake::Refusals;
use crate::limits::TLS_CHECK_INTERVAL;
use crate::observe::RpcObserver;

use files::{Content, configure, read};
pub use files::{TlsError, TlsFiles};

/// How often clients' certificates are looked at again, besides when the files change and when one runs
/// out: a clock may be set, and any certificate of a chain runs out.
const RECHECK: Duration = Duration::from_mins(1);

/// What new connections use, and how the files are.
#[derive(Clone, Debug)]
struct State {
    config: Arc<ServerConfig>,
    /// Of clients; `None`: they show no certificates.
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    /// From when on our certificate is good.
    begins: SystemTime,
    /// When it runs out.
    expires: SystemTime,
    /// Why the files, as they are now, are not in use.
    failure: Option<Arc<str>>,
}

/// TLS as it is now.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    state: watch::Receiver<State>,
    refusals: Arc<Refusals>,
}

impl Tls {
    /// For one connection.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        self.state.borrow().config.clone()
    }

    /// To be told of handshakes that fail.
    pub(crate) fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// Returns when, and why, a client's chain of certificates is no longer good: it has run out, or who
    /// vouched for it does so no more.
    pub(crate) async fn voided(mut self, chain: Vec<CertificateDer<'static>>) -> rustls::Error {
        let Some((own, intermediates)) = chain.split_first() else {
            return std::future::pending().await;
        };
        let end = expires(own) + Duration::from_secs(1);
        loop {
            let verifier = self.state.borrow_and_update().verifier.clone();
            let verified =
                verifier.map(|by| by.verify_client_cert(own, intermediates, UnixTime::now()));
            if let Some(Err(error)) = verified {
                return error;
            }
            let left = end.duration_since(SystemTime::now()).unwrap_or(RECHECK);
            // Where nobody looks at the files any more, the daemon ends, and time alone counts.
            let changed = async {
                if self.state.changed().await.is_err() {
                    std::future::pending().await
                }
            };
            let _either = tokio::time::timeout(left.min(RECHECK), changed).await;
        }
    }
}

/// How TLS is, for whoever reports it.
#[derive(Clone, Debug)]
pub struct TlsHealth(watch::Receiver<State>);

impl TlsHealth {
    /// From when on the certificate in use is good.
    pub fn begins(&self) -> SystemTime {
        self.0.borrow().begins
    }

    /// When the certificate in use runs out.
    pub fn expires(&self) -> SystemTime {
        self.0.borrow().expires
    }

    /// Why the files as they are now can't be used, where that is so; what was read before is.
    pub fn failure(&self) -> Option<Arc<str>> {
        self.0.borrow().failure.clone()
    }
}

/// Keeps what is in use as the files are.
#[derive(Debug)]
pub(crate) struct Watcher {
    files: TlsFiles,
    in_use: Content,
    /// As they were a moment ago, if it is not what is in use; an error as its text.
    seen: Option<Result<Content, String>>,
    state: watch::Sender<State>,
    refusals: Arc<Refusals>,
}

/// Reads the files for the first time.
///
/// # Errors
/// [`TlsError`].
pub(crate) fn load(files: TlsFiles) -> Result<Watcher, TlsError> {
    let in_use = read(&files)?;
    let (state, _) = watch::channel(configure(&files, &in_use)?);
    Ok(Watcher {
        files,
        in_use,
        seen: None,
        state,
        refusals: Arc::default(),
    })
}

impl Watcher {
    pub(crate) fn tls(&self) -> Tls {
        Tls {
            state: self.state.subscribe(),
            refusals: self.refusals.clone(),
        }
    }

    pub(crate) fn health(&self) -> TlsHealth {
        TlsHealth(self.state.subscribe())
    }

    /// Looks at the files for ever. The observer is told of handshakes from this call on.
    pub(crate) fn run(self, observer: Arc<dyn RpcObserver>) -> impl Future<Output = ()> + Send {
        self.refusals.tell(observer.clone());
        self.look(observer)
    }

    async fn look(mut self, observer: Arc<dyn RpcObserver>) {
        loop {
            tokio::time::sleep(TLS_CHECK_INTERVAL).await;
            let files = self.files.clone();
            // The files may be on a disk that hangs; a worker of the runtime must not.
            match tokio::task::spawn_blocking(move || read(&files)).await {
                Ok(read) => self.take(read, &*observer),
                Err(error) => tracing::error!(%error, "the files of TLS could not be looked at"),
            }
        }
    }

    fn take(&mut self, read: Result<Content, TlsError>, observer: &dyn RpcObserver) {
        if read.as_ref().is_ok_and(|content| *content == self.in_use) {
            self.seen = None;
            self.state
                .send_if_modified(|state| state.failure.take().is_some());
            return;
        }
        let failure = read.as_ref().err().map(chain);
        let now = read.map_err(|_| failure.unwrap_or_default());
        if self.seen.as_ref() != Some(&now) {
            self.seen = Some(now);
            return;
        }
        let content = match now {
            Ok(content) => content,
            Err(why) => return self.keep(&why, observer),
        };
        match configure(&self.files, &content) {
            Ok(state) => {
                tracing::info!("the files of TLS have changed; new connections use them");
                observer.tls_reloaded(true);
                (self.in_use, self.seen) = (content, None);
                self.state.send_replace(state);
            }
            Err(error) => self.keep(&chain(&error), observer),
        }
    }

    /// What is in use stays; that is said once for each reason.
    fn keep(&self, why: &str, observer: &dyn RpcObserver) {
        let new = self.state.send_if_modified(|state| {
            let new = state.failure.as_deref() != Some(why);
            state.failure = Some(why.into());
            new
        });
        if new {
            tracing::error!(
                "the files of TLS have changed and can't be used, so the old ones are: {why}"
            );
            observer.tls_reloaded(false);
        }
    }
}

/// An error with its sources, as one line.
fn chain(error: &TlsError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}
