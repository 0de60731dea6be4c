//! Bad input: properties over any bytes, and the cases that have a name.

use device_api_proto::{native, upstream};
use proptest::collection::vec;
use proptest::prelude::any;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use tonic::Code;

use crate::attack::Target;
use crate::harness::{Server, created, refused, upstream_gpu};

/// Requests of one run: each method some five hundred times, in a few seconds.
const CASES: u32 = 14_000;
/// Bytes that a request is made of: several conditions' worth.
const BYTES_MAX: usize = 300;

/// Throws requests at a dialect. The same each time, so that what it reaches can be asserted; the fuzz
/// targets look farther.
fn check(package: &str, writes: &[&str]) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let target = runtime.block_on(Target::start(package));
    let config = Config {
        cases: Config::default().cases.max(CASES),
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let attack = |data: Vec<u8>| {
        runtime
            .block_on(target.attack(&data))
            .map_err(TestCaseError::fail)
    };
    TestRunner::new_with_rng(config, rng)
        .run(&vec(any::<u8>(), 0..BYTES_MAX), attack)
        .expect("holds");
    let answers = target.answers.lock().expect("lock");
    for write in writes {
        let answered = |code: Code| {
            let path = format!("/{package}.{write}");
            answers.get(&(path, code as i32)).copied().unwrap_or(0)
        };
        assert!(
            answered(Code::Ok) > 0 && answered(Code::InvalidArgument) > 0,
            "{write} was not reached: {answers:#?}"
        );
    }
}

#[test]
fn whatever_is_sent_to_the_native_dialect_is_carried_out_or_refused() {
    check(
        "nvidia.device.v1alpha1",
        &[
            "GpuService/GetGpu",
            "GpuService/ListGpus",
            "GpuService/WatchGpus",
            "GpuService/CreateGpu",
            "GpuService/UpdateGpuStatus",
            "GpuService/DeleteGpu",
            "ProviderService/RegisterProvider",
            "ProviderService/Heartbeat",
            "ProviderService/UpdateGpuCondition",
            "ProviderService/ForgetProvider",
            "PolicyService/GetPolicy",
            "PolicyService/ReloadPolicies",
            "PolicyService/QuarantinePolicy",
            "PolicyService/ReleasePolicy",
            "PolicyService/AcceptPolicy",
            "PolicyService/PausePolicy",
            "PolicyService/ResumePolicy",
            "IncidentService/ListIncidents",
            "IncidentService/ClearCondition",
            "IncidentService/ReportReset",
            "NvmlService/ReleaseNvml",
        ],
    );
}

#[test]
fn whatever_is_sent_to_the_upstream_dialect_is_carried_out_or_refused() {
    check(
        "nvidia.nvsentinel.v1alpha1",
        &[
            "GpuService/GetGpu",
            "GpuService/ListGpus",
            "GpuService/WatchGpus",
            "GpuService/CreateGpu",
            "GpuService/UpdateGpuStatus",
            "GpuService/DeleteGpu",
        ],
    );
}

fn native_status(conditions: Vec<native::Condition>) -> native::UpdateGpuStatusRequest {
    native::UpdateGpuStatusRequest {
        name: "gpu-0".to_owned(),
        status: Some(native::GpuStatus {
            conditions,
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn upstream_status(conditions: Vec<upstream::Condition>) -> upstream::UpdateGpuStatusRequest {
    upstream::UpdateGpuStatusRequest {
        gpu: Some(upstream::Gpu {
            status: Some(upstream::GpuStatus {
                conditions,
                ..Default::default()
            }),
            ..upstream_gpu("", "gpu-0")
        }),
        opts: None,
    }
}

#[tokio::test]
async fn what_is_too_long_or_too_many_is_refused_naming_the_bound() {
    let server = Server::start().await;
    let mut native = server.native().await;
    let mut upstream = server.upstream().await;
    created(&mut native, "gpu-0").await;
    let before = server.store.fingerprint();

    let many = vec![native::Condition::default(); 1_000];
    let answer = native.update_gpu_status(native_status(many)).await;
    refused(answer, Code::ResourceExhausted, "conditions-per-gpu");
    let many = vec![upstream::Condition::default(); 1_000];
    let answer = upstream.update_gpu_status(upstream_status(many)).await;
    refused(answer, Code::ResourceExhausted, "conditions-per-gpu");

    let list = upstream::ListGpusRequest {
        namespace: "n".repeat(254),
        opts: None,
    };
    let answer = upstream.list_gpus(list).await;
    refused(answer, Code::InvalidArgument, "namespace: 254 bytes");
    let watch = native::WatchGpusRequest {
        namespace: "n".repeat(254),
        ..Default::default()
    };
    let answer = native.watch_gpus(watch).await;
    refused(answer, Code::InvalidArgument, "namespace: 254 bytes");
    assert_eq!(server.store.fingerprint(), before);
}

#[tokio::test]
async fn times_before_1970_and_versions_that_are_no_numbers_are_refused() {
    let server = Server::start().await;
    let mut upstream = server.upstream().await;
    created(&mut server.native().await, "gpu-0").await;
    let before = server.store.fingerprint();
    let condition = upstream::Condition {
        r#type: "NVMLReady".to_owned(),
        status: "True".to_owned(),
        last_transition_time: Some(prost_types::Timestamp {
            seconds: -1,
            nanos: 0,
        }),
        ..Default::default()
    };
    let answer = upstream
        .update_gpu_status(upstream_status(vec![condition]))
        .await;
    refused(answer, Code::InvalidArgument, "last_transition_time");
    let mut gpu = upstream_gpu("", "gpu-0");
    gpu.metadata.as_mut().expect("metadata").resource_version = "latest".to_owned();
    let request = upstream::UpdateGpuRequest {
        gpu: Some(gpu),
        opts: None,
    };
    let answer = upstream.update_gpu(request).await;
    refused(
        answer,
        Code::InvalidArgument,
        "resource_version: not a version",
    );
    assert_eq!(server.store.fingerprint(), before);
}
