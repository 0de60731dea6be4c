//! The audit log: what is in it, and what is not.

use std::io::Write;
use std::sync::{Arc, Mutex};

use device_api_proto::native;
use tonic::Code;

use crate::harness::{Native, Server, created, refused};

/// A log that is kept.
#[derive(Clone, Debug, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("lock").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Becomes the log of the process: a thread's own would miss what other tests' threads met first.
    fn install() -> Self {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::set_global_default(subscriber).expect("the only one");
        log
    }

    /// The lines of the audit log about this test's objects; other tests write, too.
    fn lines(&self) -> Vec<String> {
        let bytes = self.0.lock().expect("lock").clone();
        let text = String::from_utf8(bytes).expect("UTF-8");
        let ours = |line: &&str| line.contains(" audit: ") && line.contains("audited-");
        text.lines().filter(ours).map(str::to_owned).collect()
    }
}

#[track_caller]
fn check(line: &str, words: &[&str]) {
    for word in words {
        assert!(line.contains(word), "{line:?} lacks {word:?}");
    }
}

#[tokio::test]
async fn a_refusal_and_a_change_of_what_there_is_each_have_a_line_and_a_status_has_none() {
    let log = Log::install();
    let server = Server::start().await;
    let mut client = server.native().await;
    created(&mut client, "audited-0").await;
    let uid = rustix::process::geteuid().as_raw();
    let identity = format!("identity=\"uid:{uid}\"");
    let lines = log.lines();
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
    assert_eq!(log.lines().len(), 1, "neither is a matter of the audit");

    let forged = "audited-0\nINFO audit: all is well".to_owned();
    let delete = native::DeleteGpuRequest {
        name: forged,
        ..Default::default()
    };
    let mut reader = Native::new(server.tcp().await);
    refused(
        reader.delete_gpu(delete).await,
        Code::PermissionDenied,
        "read-only",
    );
    let lines = log.lines();
    assert_eq!(lines.len(), 2, "a name makes no line of its own: {lines:?}");
    check(
        &lines[1],
        &[
            "WARN",
            "identity=\"tcp:127.0.0.1\"",
            "peer=127.0.0.1:",
            "method=\"DeleteGpu\"",
            "object=\"audited-0\\nINFO",
            "outcome=\"refused\"",
            "reason=\"plain-tcp\"",
            "suppressed=0",
        ],
    );

    let gone = native::DeleteGpuRequest {
        name: "audited-9".to_owned(),
        ..Default::default()
    };
    refused(client.delete_gpu(gone).await, Code::NotFound, "audited-9");
    check(
        &log.lines()[2],
        &["method=\"DeleteGpu\"", "outcome=\"NotFound\""],
    );
}
