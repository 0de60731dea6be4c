//! `nvidia.device.v1alpha1.NvmlService`.

use std::time::Duration;

use device_api_proto::native as proto;
use device_api_proto::native::nvml_service_client::NvmlServiceClient;
use proto::{NvmlReleasePurpose, NvmlState};
use tonic::Code;

use crate::audit::{Log, check};
use crate::harness::{Server, refused};

type Client = NvmlServiceClient<tonic::transport::Channel>;

fn release(purpose: NvmlReleasePurpose, seconds: i64) -> proto::ReleaseNvmlRequest {
    proto::ReleaseNvmlRequest {
        purpose: purpose.into(),
        ttl: Some(prost_types::Duration { seconds, nanos: 0 }),
    }
}

async fn status(client: &mut Client) -> proto::GetNvmlStatusResponse {
    let answer = client.get_nvml_status(proto::GetNvmlStatusRequest {}).await;
    answer.expect("told").into_inner()
}

#[tokio::test]
async fn n2_the_driver_is_let_go_of_and_taken_up_again_with_a_line_each_in_the_audit_log() {
    let log = Log::installed();
    let server = Server::start().await;
    let mut client = Client::new(server.unix().await);
    let ready = status(&mut client).await;
    assert_eq!((ready.state(), ready.gpus), (NvmlState::Ready, Some(8)));
    assert_eq!(ready.driver_version, "580.82.07");
    let answer = client
        .release_nvml(release(NvmlReleasePurpose::Upgrade, 61))
        .await;
    let answer = answer.expect("let go of").into_inner();
    assert_eq!(answer.busy, None);
    assert_eq!(answer.released_until.expect("told").seconds, 60);
    let lines = log.lines("ttl=61s");
    let words = [
        "INFO",
        "method=\"ReleaseNvml\"",
        "because=\"upgrade\"",
        "identity=\"uid:",
        "outcome=\"OK\"",
    ];
    check(&lines[0], &words);
    let released = status(&mut client).await;
    assert_eq!(released.state(), NvmlState::Released);
    assert_eq!(released.release_purpose(), NvmlReleasePurpose::Upgrade);
    assert_eq!((released.gpus, &*released.library), (None, ""));
    let answer = client.attach_nvml(attach(false)).await.expect("taken up");
    let answer = answer.into_inner();
    assert_eq!((answer.state(), &*answer.detail), (NvmlState::Ready, ""));
    assert_eq!(status(&mut client).await.state(), NvmlState::Ready);
    assert_ne!(log.lines("method=\"AttachNvml\""), Vec::<String>::new());
}

fn attach(no_wait: bool) -> proto::AttachNvmlRequest {
    proto::AttachNvmlRequest { no_wait }
}

#[tokio::test]
async fn n2_an_attach_says_whether_nvml_is_in_use_and_why_not() {
    let log = Log::installed();
    // A moment, of which an attach waits most.
    let time = Duration::from_secs(2);
    let server = Server::bounded(|bounds| bounds.request_time = time).await;
    let mut client = Client::new(server.unix().await);
    server.nvml.lose("no library in audited-attach");
    let answer = client.attach_nvml(attach(false)).await.expect("answered");
    let answer = answer.into_inner();
    assert_eq!(answer.state(), NvmlState::Missing);
    assert_eq!(answer.detail, "no library in audited-attach");
    let lines = log.lines("no library in audited-attach");
    let words = [
        "method=\"AttachNvml\"",
        "outcome=\"OK\"",
        "why=\"NVML is not in use: no library",
    ];
    check(&lines[0], &words);
    // The attempt itself hangs: it is answered all the same, and at once for whoever does not wait.
    server.nvml.hang("nvmlInit_v2", "GPU-0");
    let answer = client.attach_nvml(attach(true)).await.expect("answered");
    assert_eq!(answer.into_inner().detail, "no library in audited-attach");
    let answer = client.attach_nvml(attach(false)).await.expect("answered");
    let answer = answer.into_inner();
    assert_eq!(answer.state(), NvmlState::Missing);
    assert_eq!(
        answer.detail,
        "not within 1.5s; no library in audited-attach"
    );
}

#[tokio::test]
async fn n2_a_call_that_hangs_makes_it_busy_by_name_gpu_and_age() {
    let log = Log::installed();
    let server = Server::start().await;
    server.nvml.hang("nvmlDeviceGetRemappedRows", "GPU-6");
    let mut client = Client::new(server.unix().await);
    let answer = client
        .release_nvml(release(NvmlReleasePurpose::Reset, 62))
        .await;
    let answer = answer.expect("an answer").into_inner();
    let busy = answer.busy.expect("busy");
    assert_eq!(answer.released_until, None);
    assert_eq!(
        (&*busy.call, &*busy.device),
        ("nvmlDeviceGetRemappedRows", "GPU-6")
    );
    assert_eq!(busy.age.expect("told").nanos, 500_000_000);
    let status = status(&mut client).await;
    assert_eq!(status.state(), NvmlState::Ready);
    assert_eq!(status.hung_calls, [busy]);
    let lines = log.lines("ttl=62s");
    let words = [
        "identity=\"uid:",
        "method=\"ReleaseNvml\"",
        "because=\"reset\"",
        "outcome=\"refused\"",
        "why=\"busy: nvmlDeviceGetRemappedRows hangs on GPU-6\"",
    ];
    check(&lines[0], &words);
}

#[tokio::test]
async fn n2_a_release_that_is_none_is_refused_and_readers_only_look() {
    let server = Server::start().await;
    let mut client = Client::new(server.unix().await);
    let none = NvmlReleasePurpose::Unspecified;
    let reset = NvmlReleasePurpose::Reset;
    for (request, says) in [
        (release(none, 60), "purpose: required"),
        (
            release(reset, 0),
            "ttl: out of range; more than 0, at most 24 h",
        ),
        (release(reset, 86_401), "ttl: out of range"),
        (
            proto::ReleaseNvmlRequest {
                ttl: None,
                ..release(reset, 1)
            },
            "ttl: required",
        ),
    ] {
        refused(
            client.release_nvml(request).await,
            Code::InvalidArgument,
            says,
        );
    }
    let mut reader = Client::new(server.tcp().await);
    assert_eq!(status(&mut reader).await.state(), NvmlState::Ready);
    let answer = reader.release_nvml(release(reset, 60)).await;
    refused(answer, Code::PermissionDenied, "read-only");
    let answer = reader.attach_nvml(attach(false)).await;
    refused(answer, Code::PermissionDenied, "read-only");
    assert_eq!(server.nvml.commands(), 0);
}
