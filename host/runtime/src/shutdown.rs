//! From the first signal to the end.
//!
//! ```text
//!  running ──SIGTERM/SIGINT──▶ draining ──all done──▶ Drained
//!                                 ├──timeout──▶ TimedOut
//!                                 └──second signal──▶ Aborted
//! ```

use std::fmt;
use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// A signal that asks the daemon to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Terminate,
    Interrupt,
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Terminate => "SIGTERM",
            Self::Interrupt => "SIGINT",
        })
    }
}

/// What became of a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drain {
    /// All that was under way has ended.
    Drained,
    /// It took longer than `--shutdown-timeout`; what was left was cut off.
    TimedOut,
    /// A second signal came.
    Aborted(Asked),
}

/// A signal that asks the daemon to look at its policies again, and nothing else.
#[derive(Debug)]
pub(crate) struct Hangups(Signal);

impl Hangups {
    /// From here on SIGHUP does not end the process.
    ///
    /// # Errors
    /// The handler can't be installed.
    pub(crate) fn install() -> io::Result<Self> {
        signal(SignalKind::hangup()).map(Self)
    }

    /// Waits for the next one; some that come at once may count as one.
    pub(crate) async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            // It ends with the runtime alone, and then nobody waits any more.
            std::future::pending::<()>().await;
        }
    }
}

/// Both signals, held from the start on: one that comes early is not lost and does not kill.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// A file grew past a limit of the process. Unless somebody takes the signal it kills; taken, the
    /// write fails, and the store says why.
    _file_size: Signal,
}

impl Signals {
    /// # Errors
    /// The handlers can't be installed.
    pub(crate) fn install() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            _file_size: signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?,
        })
    }

    /// Waits for the next signal.
    pub(crate) async fn next(&mut self) -> Asked {
        tokio::select! {
            Some(()) = self.terminate.recv() => Asked::Terminate,
            Some(()) = self.interrupt.recv() => Asked::Interrupt,
            // The streams end with the runtime alone, and then nobody waits any more.
            else => std::future::pending().await,
        }
    }
}

/// Drains, until `timeout` has passed or `again` (the second signal) comes.
pub(crate) async fn drain(
    draining: impl Future<Output = ()>,
    timeout: Duration,
    again: impl Future<Output = Asked>,
) -> Drain {
    tokio::select! {
        // In this order: what is done is done, and a second signal is never reported as a timeout.
        biased;
        () = draining => Drain::Drained,
        asked = again => Drain::Aborted(asked),
        () = tokio::time::sleep(timeout) => Drain::TimedOut,
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    const LONG: Duration = Duration::from_hours(1);

    #[tokio::test]
    async fn what_ends_first_decides() {
        assert_eq!(
            drain(ready(()), Duration::ZERO, pending()).await,
            Drain::Drained
        );
        assert_eq!(
            drain(pending(), Duration::ZERO, pending()).await,
            Drain::TimedOut
        );
        let again = ready(Asked::Interrupt);
        assert_eq!(
            drain(pending(), LONG, again).await,
            Drain::Aborted(Asked::Interrupt)
        );
    }

    #[tokio::test]
    async fn signals_are_told_apart_and_kept_until_asked_for() {
        let mut signals = Signals::install().expect("installed");
        let own = rustix::process::getpid();
        rustix::process::kill_process(own, rustix::process::Signal::TERM).expect("sent");
        assert_eq!(signals.next().await, Asked::Terminate);
        rustix::process::kill_process(own, rustix::process::Signal::INT).expect("sent");
        assert_eq!(signals.next().await, Asked::Interrupt);
    }
}
