//! `nvidia.device.v1alpha1.DaemonService`.

use std::time::Duration;

use device_api_core::daemon::LogChange;
use device_api_proto::native as proto;
use device_api_proto::native::daemon_service_client::DaemonServiceClient;
use tonic::Code;

use crate::audit::{Log, check};
use crate::daemon_host::AT_START;
use crate::harness::{Server, refused};

type Client = DaemonServiceClient<tonic::transport::Channel>;

fn set(filter: &str, ttl_seconds: Option<i64>) -> proto::SetLogFilterRequest {
    proto::SetLogFilterRequest {
        filter: filter.to_owned(),
        ttl: ttl_seconds.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
    }
}

#[tokio::test]
async fn the_daemon_says_how_it_is_and_who_asks() {
    let server = Server::start().await;
    let uid = rustix::process::geteuid().as_raw();
    let mut client = Client::new(server.unix().await);
    let request = proto::GetDaemonStatusRequest {};
    let told = client.get_daemon_status(request).await.expect("told");
    let told = told.into_inner();
    assert_eq!(
        (&*told.version, &*told.boot_id, told.uid, told.gid),
        ("1.2.3", "a-boot", 65_534, 65_533)
    );
    assert_eq!(
        (told.ready, &told.waiting[..]),
        (false, &["the policies".to_owned()][..])
    );
    assert_eq!(told.parts.len(), 1);
    assert_eq!(told.parts[0].state(), proto::DaemonPartState::Degraded);
    assert_eq!(told.certificate_expires.expect("TLS").seconds, 3);
    assert_eq!((&*told.state_dir, &*told.kernel_log), ("/state", ""));
    let log = told.log.expect("told");
    assert_eq!((&*log.filter, log.is_set), (AT_START, false));
    assert_eq!((told.caller, &*told.read_only), (format!("uid:{uid}"), ""));

    let mut reader = Client::new(server.tcp().await);
    let told = reader.get_daemon_status(request).await.expect("told");
    let told = told.into_inner();
    assert!(told.caller.starts_with("tcp:127."), "{told:?}");
    assert!(told.read_only.contains("Unix socket"), "{told:?}");
}

#[tokio::test]
async fn the_log_takes_what_a_writer_says_with_a_line_in_the_audit_log() {
    let log = Log::installed();
    let server = Server::start().await;
    let mut client = Client::new(server.unix().await);
    let answer = client
        .set_log_filter(set("info,audited_target=debug", Some(90)))
        .await;
    let now = answer.expect("set").into_inner().log.expect("told");
    assert_eq!(
        (&*now.filter, now.is_set),
        ("info,audited_target=debug", true)
    );
    assert_eq!(now.until.expect("an end").seconds, 90);
    let asked = Some(LogChange {
        filter: "info,audited_target=debug".to_owned(),
        ttl: Some(Duration::from_secs(90)),
    });
    assert_eq!(*server.daemon.changes(), [asked]);
    let lines = log.lines("audited_target");
    let words = [
        "INFO",
        "method=\"SetLogFilter\"",
        "object=\"info,audited_target=debug\"",
        "outcome=\"OK\"",
    ];
    check(&lines[0], &words);
    let answer = client
        .reset_log_filter(proto::ResetLogFilterRequest {})
        .await;
    let now = answer.expect("reset").into_inner().log.expect("told");
    assert_eq!(
        (&*now.filter, now.is_set, now.until),
        (AT_START, false, None)
    );
    assert_ne!(log.lines("method=\"ResetLogFilter\""), Vec::<String>::new());
}

#[tokio::test]
async fn what_is_no_filter_is_said_and_readers_set_none() {
    let server = Server::start().await;
    let mut client = Client::new(server.unix().await);
    let long = "x".repeat(1025);
    for (filter, ttl, says) in [
        ("", None, "filter: required"),
        (" ", None, "filter: required"),
        (&*long, None, "filter: 1025 bytes; at most 1024"),
        ("loud", None, "filter: not a level"),
        (
            "debug",
            Some(0),
            "ttl: out of range; more than 0, at most 24 h",
        ),
        ("debug", Some(-1), "ttl: out of range"),
        ("debug", Some(i64::MIN), "ttl: out of range"),
        ("debug", Some(24 * 3600 + 1), "ttl: out of range"),
    ] {
        let answer = client.set_log_filter(set(filter, ttl)).await;
        refused(answer, Code::InvalidArgument, says);
    }
    let mut reader = Client::new(server.tcp().await);
    let answer = reader.set_log_filter(set("debug", None)).await;
    refused(answer, Code::PermissionDenied, "read-only");
    let answer = reader
        .reset_log_filter(proto::ResetLogFilterRequest {})
        .await;
    refused(answer, Code::PermissionDenied, "read-only");
    assert_eq!(*server.daemon.changes(), []);
}
