//! What the daemon says, each answer for itself: where one fails, the others may still come.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use device_api_proto::native::{
    GetDaemonStatusResponse, GetNvmlStatusResponse, ListGpusResponse, ListPoliciesResponse,
    Provider,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::args::Selectors;
use crate::client::Client;
use crate::failure::Failure;

/// What the daemon answered.
#[derive(Debug)]
pub(super) struct Answers {
    pub(super) daemon: Result<GetDaemonStatusResponse, Failure>,
    pub(super) nvml: Result<GetNvmlStatusResponse, Failure>,
    pub(super) policies: Result<ListPoliciesResponse, Failure>,
    pub(super) gpus: Result<ListGpusResponse, Failure>,
    pub(super) providers: Result<Vec<Provider>, Failure>,
}

impl Answers {
    /// The calls that failed, by their names, where the daemon answered at all.
    pub(super) fn failed(&self) -> Vec<(&'static str, &Failure)> {
        if self.hangs() {
            return Vec::new();
        }
        let failures = [
            ("GetNvmlStatus", self.nvml.as_ref().err()),
            ("ListPolicies", self.policies.as_ref().err()),
            ("ListGpus", self.gpus.as_ref().err()),
            ("ListProviders", self.providers.as_ref().err()),
        ];
        let failed = failures.into_iter();
        failed
            .filter_map(|(call, failure)| Some((call, failure?)))
            .collect()
    }

    pub(super) fn hangs(&self) -> bool {
        matches!(self.daemon, Err(Failure::NoAnswer { .. }))
    }
}

/// # Errors
/// There is no connection, or whoever listens is no daemon of ours.
pub(super) async fn ask(socket: &Path) -> Result<Answers, Failure> {
    let mut client = Client::connect(socket).await?;
    let daemon = match client.daemon_status().await {
        Err(failure @ Failure::NotGrpc { .. }) => return Err(failure),
        daemon => daemon,
    };
    // One that hangs would take as long for each of the others.
    if matches!(daemon, Err(Failure::NoAnswer { .. })) {
        let hangs = || Failure::NoAnswer {
            after: Duration::ZERO,
        };
        return Ok(Answers {
            daemon,
            nvml: Err(hangs()),
            policies: Err(hangs()),
            gpus: Err(hangs()),
            providers: Err(hangs()),
        });
    }
    Ok(Answers {
        daemon,
        nvml: client.nvml_status().await,
        policies: client.policy_list().await,
        gpus: client.list(&Selectors::default()).await,
        providers: client.providers().await,
    })
}

/// How long `/readyz` may take.
const READYZ_WAIT_MAX: Duration = Duration::from_secs(2);

/// The longest answer that is read: a line for each of a dozen parts.
const READYZ_BYTES_MAX: u64 = 64 * 1024;

/// Whether the daemon is ready, and the lines of its answer that follow.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Readyz {
    pub(super) is_ready: bool,
    pub(super) lines: Vec<String>,
}

/// # Errors
/// Nobody answers there, or not as the daemon does.
pub(super) async fn readyz(address: SocketAddr) -> io::Result<Readyz> {
    let answer = tokio::time::timeout(READYZ_WAIT_MAX, get(address));
    let answer = answer
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    parse(&answer).ok_or_else(|| io::Error::other("no answer of device-api-server's"))
}

async fn get(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream
        .take(READYZ_BYTES_MAX)
        .read_to_end(&mut answer)
        .await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn parse(answer: &str) -> Option<Readyz> {
    let code = answer.strip_prefix("HTTP/1.1 ")?.get(..3)?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    let mut lines = body.lines();
    let summary = lines.next()?;
    if !["ready", "starting", "draining"].contains(&summary) {
        return None;
    }
    Some(Readyz {
        is_ready: code == "200",
        lines: lines.map(str::to_owned).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readyz_is_read_and_another_server_is_not_taken_for_the_daemon() {
        let ready = "HTTP/1.1 200 OK\r\na: b\r\n\r\nready\nnvml: up\n";
        let expected = Readyz {
            is_ready: true,
            lines: vec!["nvml: up".to_owned()],
        };
        assert_eq!(parse(ready), Some(expected));
        let starting = "HTTP/1.1 503 Unavailable\r\n\r\nstarting\n";
        assert_eq!(parse(starting).map(|readyz| readyz.is_ready), Some(false));
        assert_eq!(parse("HTTP/1.1 200 OK\r\n\r\n<html>"), None);
        assert_eq!(parse("SSH-2.0-OpenSSH"), None);
        assert_eq!(parse(""), None);
    }
}
