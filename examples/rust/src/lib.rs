//! What both examples need: the connection to the daemon of this node, and lines on standard output.

use std::io::{self, Write as _};
use std::time::Duration;

use anyhow::Result;
use tonic::transport::{Channel, Endpoint};

/// Where the daemon listens by default.
pub const TARGET: &str = "unix:///var/run/device-api/device.sock";

/// Deadline of a unary call: far above the 50 ms that a read waits for a decision.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// What the daemon sends at most; tonic's default of 4 MiB is less.
pub const RECEIVE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How often a silent connection is tried.
const KEEPALIVE: Duration = Duration::from_secs(50);

/// First and longest pause between two tries that came to nothing.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// A channel: it connects when the first call needs it, and again when the connection breaks.
///
/// # Errors
/// The target is no URI.
pub fn connect(target: &str) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(target.to_owned())?
        .connect_timeout(CALL_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_while_idle(true);
    Ok(endpoint.connect_lazy())
}

/// A request with the deadline of a unary call, which the daemon is told, too.
pub fn within<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(CALL_TIMEOUT);
    request
}

/// Pauses that double, up to a bound.
#[derive(Debug)]
pub struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(RETRY_MIN)
    }
}

impl Backoff {
    pub async fn pause(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(RETRY_MAX);
    }
}

/// Prints one line, at once: standard output is what the examples are for.
///
/// # Errors
/// Nobody reads it any more.
pub fn say(line: impl AsRef<str>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", line.as_ref())?;
    out.flush()
}
