//! The audit log: what is in it, and what is not.

use std::io::Write;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use device_api_proto::native;
use hyper_util::rt::TokioIo;
use tokio::net::TcpSocket;
use tonic::transport::Endpoint;
use tonic::{Code, Request};
use tower::service_fn;

use crate::harness::{Native, Server, created, refused, soon};

/// A log that is kept.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("lock").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// The log of the process: a thread's own would miss what other tests' threads met first.
    pub(crate) fn installed() -> Self {
        static LOG: OnceLock<Log> = OnceLock::new();
        let install = || {
            let log = Self::default();
            let writer = log.clone();
            let subscriber = tracing_subscriber::fmt()
                .with_ansi(false)
                .with_writer(move || writer.clone())
                .finish();
            tracing::subscriber::set_global_default(subscriber).expect("the only one");
            log
        };
        LOG.get_or_init(install).clone()
    }

    /// The lines of the audit log with that word; other tests write, too.
    pub(crate) fn lines(&self, word: &str) -> Vec<String> {
        let bytes = self.0.lock().expect("lock").clone();
        let text = String::from_utf8(bytes).expect("UTF-8");
        let ours = |line: &&str| line.contains(" audit: ") && line.contains(word);
        text.lines().filter(ours).map(str::to_owned).collect()
    }
}

#[track_caller]
pub(crate) fn check(line: &str, words: &[&str]) {
    for word in words {
        assert!(line.contains(word), "{line:?} lacks {word:?}");
    }
}

#[tokio::test]
async fn a_change_of_what_there_is_has_a_line_and_a_status_has_none() {
    let log = Log::installed();
    let server = Server::start().await;
    let mut client = server.native().await;
    created(&mut client, "audited-0").await;
    let uid = rustix::process::geteuid().as_raw();
    let identity = format!("identity=\"uid:{uid}\"");
    let lines = log.lines("audited-");
    assert_eq!(lines.len(), 1, "{lines:?}");
    check(
        &lines[0],
        &[
            "INFO",
            &identity,
            "peer=uid",
            "method=\"CreateGpu\"",
            "object=\"audited-0\"",
            "outcome=\"OK\"",
        ],
    );

    let status = native::UpdateGpuStatusRequest {
        name: "audited-0".to_owned(),
        status: Some(native::GpuStatus::default()),
        ..Default::default()
    };
    client.update_gpu_status(status).await.expect("written");
    client
        .list_gpus(native::ListGpusRequest::default())
        .await
        .expect("listed");
    assert_eq!(
        log.lines("audited-").len(),
        1,
        "neither is a matter of the audit"
    );

    let forged = "audited-0\nINFO audit: all is well".to_owned();
    let gone = client.delete_gpu(delete(&forged)).await;
    refused(gone, Code::NotFound, "audited-0");
    let lines = log.lines("audited-");
    assert_eq!(lines.len(), 2, "a name makes no line of its own: {lines:?}");
    check(
        &lines[1],
        &[
            "INFO",
            "method=\"DeleteGpu\"",
            "object=\"audited-0\\nINFO",
            "outcome=\"NotFound\"",
        ],
    );

    let gone = native::DeleteGpuRequest {
        name: "audited-9".to_owned(),
        ..Default::default()
    };
    refused(client.delete_gpu(gone).await, Code::NotFound, "audited-9");
    check(
        &log.lines("audited-")[2],
        &["method=\"DeleteGpu\"", "outcome=\"NotFound\""],
    );
}

/// A client at an address of loopback, which tells its lines from those of other tests.
async fn from(server: &Server, address: [u8; 4]) -> Native {
    let (to, from) = (server.tcp, (address, 0).into());
    let connect = service_fn(move |_| async move {
        let socket = TcpSocket::new_v4()?;
        socket.bind(from)?;
        Ok::<_, std::io::Error>(TokioIo::new(socket.connect(to).await?))
    });
    let endpoint = Endpoint::from_static("http://localhost");
    let channel = endpoint.connect_with_connector(connect).await;
    Native::new(channel.expect("connects"))
}

/// Without its object: what is refused was not read.
#[tokio::test]
async fn a_refusal_has_a_line() {
    let log = Log::installed();
    let server = Server::start().await;
    let mut reader = from(&server, [127, 0, 8, 1]).await;
    let answer = reader.delete_gpu(delete("gpu-0")).await;
    refused(answer, Code::PermissionDenied, "read-only");
    let lines = log.lines("127.0.8.1");
    assert_eq!(lines.len(), 1, "{lines:?}");
    check(
        &lines[0],
        &[
            "WARN",
            "identity=\"tcp:127.0.8.1\"",
            "peer=127.0.8.1:",
            "method=\"DeleteGpu\"",
            "object=\"\"",
            "outcome=\"refused\"",
            "reason=\"plain-tcp\"",
            "suppressed=0",
        ],
    );
}

fn delete(name: &str) -> native::DeleteGpuRequest {
    native::DeleteGpuRequest {
        name: name.to_owned(),
        ..Default::default()
    }
}

/// The write is applied and not durable yet when the client's deadline passes, or it hangs up.
#[tokio::test]
async fn a_change_of_what_there_is_that_was_cut_off_has_a_line() {
    let log = Log::installed();
    let server = Server::start().await;
    let mut client = server.native().await;
    let cut = [("cut-by-client", true), ("cut-by-deadline", false)];
    for (done, (name, hangs_up)) in cut.into_iter().enumerate() {
        created(&mut client, name).await;
        server.store.durable.send_replace(false);
        let mut request = Request::new(delete(name));
        if !hangs_up {
            request.set_timeout(Duration::from_millis(500));
        }
        let mut deleter = client.clone();
        let call = tokio::spawn(async move { deleter.delete_gpu(request).await });
        let mut syncing = server.store.syncing.subscribe();
        soon(syncing.wait_for(|syncing| *syncing > done))
            .await
            .expect("applied");
        if hangs_up {
            call.abort();
        } else {
            call.await.expect("answered").expect_err("late");
        }
        soon(server.observer.open.subscribe().wait_for(|open| *open == 0))
            .await
            .expect("ended");
        server.store.durable.send_replace(true);
        assert!(!server.store.is_there(name), "it was applied");
        let lines = log.lines(name);
        assert_eq!(lines.len(), 2, "{lines:?}");
        let words = ["method=\"DeleteGpu\"", "outcome=\"unknown\"", "may have"];
        check(&lines[1], &words);
    }
}

/// On loopback a client chooses its address: that is no way to more lines.
#[tokio::test]
async fn addresses_of_one_network_have_the_lines_of_one() {
    let log = Log::installed();
    let server = Server::start().await;
    for last in 1..=3 {
        let mut client = from(&server, [127, 0, 7, last]).await;
        for _ in 0..10 {
            let answer = client.delete_gpu(delete("gpu-0")).await;
            refused(answer, Code::PermissionDenied, "read-only");
        }
    }
    assert_eq!(log.lines("peer=127.0.7.").len(), 10);
    assert_eq!(*server.observer.suppressed.borrow(), 20);
    server.stop.send_replace(true);
    soon(server.served)
        .await
        .expect("no panic")
        .expect("served");
    let told = log.lines("of=\"tcp:loopback\" suppressed=20");
    assert_eq!(told.len(), 1, "what has no line is told at the end");
}
