//! gRPC health and reflection.

use std::collections::BTreeSet;

use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::{v1, v1alpha};

use crate::harness::{Server, refused, soon};

const SERVICES: [&str; 3] = [
    "nvidia.device.v1alpha1.GpuService",
    "nvidia.device.v1alpha1.ProviderService",
    "nvidia.nvsentinel.v1alpha1.GpuService",
];

#[tokio::test]
async fn each_service_is_serving() {
    let server = Server::start().await;
    let mut client = HealthClient::new(server.tcp().await);
    let check = |service: &str| HealthCheckRequest {
        service: service.to_owned(),
    };
    for service in SERVICES.into_iter().chain([""]) {
        let answer = client
            .check(check(service))
            .await
            .expect("known")
            .into_inner();
        assert_eq!(
            answer.status(),
            tonic_health::pb::health_check_response::ServingStatus::Serving,
            "{service:?}"
        );
    }
    refused(
        client.check(check("nobody")).await,
        tonic::Code::NotFound,
        "not registered",
    );
}

#[track_caller]
fn lists_all(listed: BTreeSet<String>, reflection: &str) {
    for service in SERVICES
        .into_iter()
        .chain(["grpc.health.v1.Health", reflection])
    {
        assert!(listed.contains(service), "{service} is not in {listed:?}");
    }
}

#[tokio::test]
async fn reflection_lists_the_services_and_describes_their_messages() {
    use v1::server_reflection_request::MessageRequest;
    use v1::server_reflection_response::MessageResponse;
    let server = Server::start().await;
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(server.unix().await);
    let ask = |request| v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(request),
    };
    let asked = [
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol(
            "nvidia.device.v1alpha1.Gpu".to_owned(),
        )),
    ];
    let mut answers = client
        .server_reflection_info(tokio_stream::iter(asked))
        .await
        .expect("answers")
        .into_inner();
    let mut next = async || {
        soon(answers.message())
            .await
            .expect("no error")
            .expect("an answer")
            .message_response
    };
    let Some(MessageResponse::ListServicesResponse(list)) = next().await else {
        panic!("a list")
    };
    lists_all(
        list.service
            .into_iter()
            .map(|service| service.name)
            .collect(),
        "grpc.reflection.v1.ServerReflection",
    );
    let Some(MessageResponse::FileDescriptorResponse(file)) = next().await else {
        panic!("a file")
    };
    assert!(!file.file_descriptor_proto.is_empty());
}

#[tokio::test]
async fn older_tools_find_reflection_under_its_older_name() {
    use v1alpha::server_reflection_request::MessageRequest;
    use v1alpha::server_reflection_response::MessageResponse;
    let server = Server::start().await;
    let mut client =
        v1alpha::server_reflection_client::ServerReflectionClient::new(server.unix().await);
    let list = MessageRequest::ListServices(String::new());
    let ask = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(list),
    };
    let answers = client
        .server_reflection_info(tokio_stream::iter([ask]))
        .await
        .expect("answers");
    let answer = soon(answers.into_inner().message())
        .await
        .expect("no error")
        .expect("an answer");
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("a list")
    };
    lists_all(
        list.service
            .into_iter()
            .map(|service| service.name)
            .collect(),
        "grpc.reflection.v1alpha.ServerReflection",
    );
}
