//! `nvidia.device.v1alpha1.IncidentService`.

use std::sync::mpsc::channel;
use std::time::Duration;

use device_api_core::incident::{Incident, IncidentState};
use device_api_proto::native as proto;
use device_api_proto::native::incident_service_client::IncidentServiceClient;
use tonic::Code;

use crate::audit::{Log, check};
use crate::harness::{Server, created, refused};
use crate::operated::{STANDS, at, incident};

type Client = IncidentServiceClient<tonic::transport::Channel>;

async fn listed(
    client: &mut Client,
    request: proto::ListIncidentsRequest,
) -> (Vec<proto::Incident>, u64) {
    let answer = client.list_incidents(request).await;
    let answer = answer.expect("listed").into_inner();
    (answer.incidents, answer.left_out)
}

fn clear(name: &str, condition: &str, reason: &str) -> proto::ClearConditionRequest {
    proto::ClearConditionRequest {
        name: name.to_owned(),
        condition_type: condition.to_owned(),
        reason: reason.to_owned(),
        ..Default::default()
    }
}

#[tokio::test]
async fn n5_an_incident_is_told_with_its_accounts_and_verdicts() {
    let server = Server::start().await;
    let state = IncidentState::Closed {
        at: at(9),
        why: "gpu-reset".to_owned(),
    };
    server.incidents.put(Incident {
        state,
        instance: Some("GPU-I:05".to_owned()),
        ..incident(1, "GPU-0", 48)
    });
    server.incidents.put(Incident {
        root: Some(device_api_core::ids::IncidentId(1)),
        drill: true,
        ..incident(2, "GPU-0", 63)
    });
    let mut client = Client::new(server.unix().await);
    let (told, left_out) = listed(&mut client, proto::ListIncidentsRequest::default()).await;
    assert_eq!((told.len(), left_out), (2, 0));
    let (second, first) = (&told[0], &told[1]);
    assert_eq!((second.id, second.root, second.code), (2, 1, Some(63)));
    assert_eq!((&*second.kind, &*second.device), ("xid", "GPU-0"));
    assert_eq!(second.state(), proto::IncidentState::Open);
    assert_eq!((second.closed_time, &*second.closed_by), (None, ""));
    assert_eq!((second.count, second.drill), (4, true));
    let sources: Vec<_> = second.accounts.iter().map(|one| &*one.source).collect();
    assert_eq!(sources, ["nvml", "kmsg"]);
    let account = &second.accounts[1];
    assert_eq!((account.count, &*account.evidence), (2, "NVRM: Xid"));
    assert_eq!(account.last_seen_time.expect("told").seconds, 3);
    let verdict = &second.verdicts[0];
    assert_eq!(
        (&*verdict.judgement, &*verdict.reason),
        ("problem", "FallenOffTheBus")
    );
    assert_eq!(verdict.severity(), proto::Severity::Fatal);
    assert_eq!(verdict.owner.as_ref().expect("told").name, "xid-policy");
    assert_eq!(first.state(), proto::IncidentState::Closed);
    assert_eq!(
        (&*first.closed_by, &*first.instance),
        ("gpu-reset", "GPU-I:05")
    );
    assert_eq!(first.closed_time.expect("told").seconds, 9);
}

#[tokio::test]
async fn n5_a_list_of_incidents_is_bounded_and_read_on() {
    let server = Server::start().await;
    for id in 1..=300 {
        server.incidents.put(incident(id, "GPU-0", 13));
    }
    server.incidents.put(incident(301, "GPU-1", 79));
    let mut client = Client::new(server.unix().await);
    let all = proto::ListIncidentsRequest::default;
    let (told, left_out) = listed(&mut client, all()).await;
    assert_eq!((told.len(), left_out), (256, 45));
    let before = told.last().expect("some").id;
    let (rest, left_out) =
        listed(&mut client, proto::ListIncidentsRequest { before, ..all() }).await;
    assert_eq!((rest.len(), left_out, rest[0].id), (45, 0, before - 1));
    let of = proto::ListIncidentsRequest {
        device: "GPU-1".to_owned(),
        limit: u32::MAX,
        ..all()
    };
    assert_eq!(listed(&mut client, of).await.0.len(), 1);
    let closed = proto::ListIncidentsRequest {
        state: proto::IncidentState::Closed.into(),
        ..all()
    };
    assert_eq!(listed(&mut client, closed).await, (vec![], 0));
    let bad = proto::ListIncidentsRequest { state: 9, ..all() };
    let bad = client.list_incidents(bad).await;
    refused(bad, Code::InvalidArgument, "state: 9 is not a state");
}

#[tokio::test]
async fn n5_a_list_that_takes_its_time_keeps_nobody_waiting() {
    /// After which a list is made all the same, so that this test ends.
    const PATIENCE: Duration = Duration::from_secs(10);
    const LISTERS: usize = 8;
    let server = Server::start().await;
    created(&mut server.native().await, "gpu-0").await;
    server.incidents.put(incident(1, "GPU-0", 79));
    let slow = server.incidents.slow.clone();
    let (held, is_held) = channel();
    let (go_on, goes_on) = channel();
    let holder = std::thread::spawn(move || {
        let _slow = slow.lock().expect("lock");
        held.send(()).expect("awaited");
        let _ = goes_on.recv_timeout(PATIENCE);
    });
    is_held.recv().expect("held");
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..LISTERS {
        let mut client = Client::new(server.unix().await);
        let request = proto::ListIncidentsRequest::default();
        asked.spawn(async move { client.list_incidents(request).await });
    }
    let mut native = server.native().await;
    for _ in 0..10 {
        let gpus = native.list_gpus(proto::ListGpusRequest::default()).await;
        assert_eq!(gpus.expect("listed").into_inner().gpus.len(), 1);
    }
    assert!(asked.try_join_next().is_none(), "none is made yet");
    let _ = go_on.send(());
    while let Some(list) = asked.join_next().await {
        let list = list.expect("asked").expect("made").into_inner();
        assert_eq!(list.incidents.len(), 1);
    }
    holder.join().expect("ended");
}

#[tokio::test]
async fn n7_a_clear_by_hand_names_a_gpu_and_is_audited_with_its_reason() {
    let log = Log::installed();
    let server = Server::start().await;
    created(&mut server.native().await, "gpu-0").await;
    let mut client = Client::new(server.unix().await);
    let done = client
        .clear_condition(clear("gpu-0", STANDS, "audited-swapped\u{1b}[2J"))
        .await;
    let gpu = done.expect("cleared").into_inner().gpu.expect("there");
    assert_eq!(gpu.name, "gpu-0");
    let cleared = server.incidents.cleared();
    assert_eq!(cleared.len(), 1);
    assert_eq!(cleared[0].device.as_str(), "GPU-gpu-0");
    assert_eq!(cleared[0].condition, STANDS);
    assert_eq!(cleared[0].reason, "audited-swapped\\u{1b}[2J");
    let lines = log.lines("audited-swapped");
    assert_eq!(lines.len(), 1, "{lines:?}");
    let words = [
        "INFO",
        "identity=\"uid:",
        "service=\"nvidia.device.v1alpha1.IncidentService\"",
        "method=\"ClearCondition\"",
        "object=\"gpu-0\"",
        "because=\"audited-swapped",
        "condition=\"XidCriticalError\"",
        "outcome=\"OK\"",
    ];
    check(&lines[0], &words);
}

#[tokio::test]
async fn n7_what_can_t_be_cleared_is_said_and_readers_clear_nothing() {
    let server = Server::start().await;
    created(&mut server.native().await, "gpu-0").await;
    let mut client = Client::new(server.unix().await);
    let long = "x".repeat(513);
    for (name, condition, reason, code, says) in [
        ("", STANDS, "why", Code::InvalidArgument, "name: required"),
        (
            "gpu-0",
            "",
            "why",
            Code::InvalidArgument,
            "condition_type: required",
        ),
        (
            "gpu-0",
            STANDS,
            " ",
            Code::InvalidArgument,
            "reason: required",
        ),
        (
            "gpu-0",
            STANDS,
            &long,
            Code::InvalidArgument,
            "reason: 513 bytes; at most 512",
        ),
        (
            "gpu-9",
            STANDS,
            "why",
            Code::NotFound,
            "ListGpus tells which exist",
        ),
        (
            "gpu-0",
            "Other",
            "why",
            Code::FailedPrecondition,
            "no condition \"Other\"",
        ),
    ] {
        let answer = client.clear_condition(clear(name, condition, reason)).await;
        refused(answer, code, says);
    }
    let mut reader = Client::new(server.tcp().await);
    listed(&mut reader, proto::ListIncidentsRequest::default()).await;
    let answer = reader.clear_condition(clear("gpu-0", STANDS, "why")).await;
    refused(answer, Code::PermissionDenied, "read-only");
    assert_eq!(server.incidents.cleared(), []);
}

fn report(name: &str, reason: &str, lease_id: &str) -> proto::ReportResetRequest {
    proto::ReportResetRequest {
        name: name.to_owned(),
        reason: reason.to_owned(),
        lease_id: lease_id.to_owned(),
        ..Default::default()
    }
}

#[tokio::test]
async fn n7_a_reset_is_reported_by_whoever_may_write_or_by_a_provider_and_audited() {
    let log = Log::installed();
    let server = Server::start().await;
    created(&mut server.native().await, "gpu-0").await;
    let mut client = Client::new(server.unix().await);
    let done = client
        .report_reset(report("gpu-0", "audited-reset\u{1b}[2J", ""))
        .await;
    let gpu = done.expect("noted").into_inner().gpu.expect("there");
    assert_eq!(gpu.name, "gpu-0");
    let registration = proto::RegisterProviderRequest {
        name: "node-agent".to_owned(),
        ..Default::default()
    };
    let mut providers = server.providers().await;
    let lease = providers.register_provider(registration).await;
    let lease = lease.expect("registered").into_inner().lease_id;
    let done = client.report_reset(report("gpu-0", "the hypervisor says so", &lease));
    done.await.expect("noted");
    let [first, second] = &server.incidents.resets()[..] else {
        panic!("{:?}", server.incidents.resets());
    };
    assert!(first.by.starts_with("uid:"), "{first:?}");
    assert_eq!(first.device.as_str(), "GPU-gpu-0");
    assert_eq!(first.reason, "audited-reset\\u{1b}[2J");
    assert_eq!(second.by, "provider node-agent");
    let lines = log.lines("audited-reset");
    assert_eq!(lines.len(), 1, "{lines:?}");
    let words = [
        "INFO",
        "identity=\"uid:",
        "service=\"nvidia.device.v1alpha1.IncidentService\"",
        "method=\"ReportReset\"",
        "object=\"gpu-0\"",
        "because=\"audited-reset",
        "outcome=\"OK\"",
    ];
    check(&lines[0], &words);
}

#[tokio::test]
async fn n7_what_is_no_report_of_a_reset_is_said_and_readers_report_none() {
    let server = Server::start().await;
    created(&mut server.native().await, "gpu-0").await;
    let mut client = Client::new(server.unix().await);
    let long = "x".repeat(513);
    let invalid = Code::InvalidArgument;
    for (name, reason, lease, code, says) in [
        ("", "why", "", invalid, "name: required"),
        ("gpu-0", " ", "", invalid, "reason: required; say how"),
        (
            "gpu-0",
            &*long,
            "",
            invalid,
            "reason: 513 bytes; at most 512",
        ),
        (
            "gpu-9",
            "why",
            "",
            Code::NotFound,
            "ListGpus tells which exist",
        ),
        ("gpu-0", "why", "nobodys", Code::PermissionDenied, "lease"),
    ] {
        let answer = client.report_reset(report(name, reason, lease)).await;
        refused(answer, code, says);
    }
    let mut reader = Client::new(server.tcp().await);
    let answer = reader.report_reset(report("gpu-0", "why", "")).await;
    refused(answer, Code::PermissionDenied, "read-only");
    assert_eq!(server.incidents.resets(), []);
}
