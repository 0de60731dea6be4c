//! gRPC health and reflection.

use std::collections::BTreeSet;

use prost::Message as _;
use prost_types::field_descriptor_proto::Type;
use prost_types::{FieldDescriptorProto, FileDescriptorProto};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::{v1, v1alpha};

use crate::harness::{Server, refused, soon};

const SERVICES: [&str; 7] = [
    "nvidia.device.v1alpha1.GpuService",
    "nvidia.device.v1alpha1.ProviderService",
    "nvidia.device.v1alpha1.PolicyService",
    "nvidia.device.v1alpha1.IncidentService",
    "nvidia.device.v1alpha1.NvmlService",
    "nvidia.device.v1alpha1.DaemonService",
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
        ask(MessageRequest::FileContainingSymbol(
            "nvidia.nvsentinel.v1alpha1.Gpu".to_owned(),
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
    for package in ["nvidia.device.v1alpha1", "nvidia.nvsentinel.v1alpha1"] {
        let Some(MessageResponse::FileDescriptorResponse(file)) = next().await else {
            panic!("a file")
        };
        let gpu = format!(".{package}.Gpu");
        for (message, field) in [
            ("GetGpuResponse", "gpu"),
            ("GpuList", "items"),
            ("ListGpusResponse", "gpus"),
            ("WatchGpusResponse", "gpu"),
            ("WatchGpusResponse", "object"),
        ] {
            // What is handed on as bytes in here is a message to everyone else.
            if let Some(field) = field_of(&file.file_descriptor_proto, package, message, field) {
                assert_eq!(field.r#type(), Type::Message, "{message}.{}", field.name());
                assert_eq!(field.type_name(), gpu, "{message}.{}", field.name());
            }
        }
        let get = field_of(
            &file.file_descriptor_proto,
            package,
            "GetGpuResponse",
            "gpu",
        );
        assert!(get.is_some(), "{package}");
        assert_eq!(
            answer_of(&file.file_descriptor_proto, package, "UpdateGpu"),
            gpu
        );
    }
}

fn files(encoded: &[Vec<u8>], package: &str) -> Vec<FileDescriptorProto> {
    let decoded = encoded
        .iter()
        .map(|file| FileDescriptorProto::decode(&**file).expect("a descriptor"));
    decoded.filter(|file| file.package() == package).collect()
}

fn field_of(
    encoded: &[Vec<u8>],
    package: &str,
    message: &str,
    field: &str,
) -> Option<FieldDescriptorProto> {
    let files = files(encoded, package);
    let mut messages = files.into_iter().flat_map(|file| file.message_type);
    let message = messages.find(|found| found.name() == message)?;
    let mut fields = message.field.into_iter();
    fields.find(|found| found.name() == field)
}

/// The type that a method of `GpuService` answers with.
fn answer_of(encoded: &[Vec<u8>], package: &str, method: &str) -> String {
    let files = files(encoded, package);
    let mut services = files.into_iter().flat_map(|file| file.service);
    let gpus = services.find(|service| service.name() == "GpuService");
    let mut methods = gpus.expect("a service").method.into_iter();
    let method = methods.find(|found| found.name() == method);
    method.expect("a method").output_type().to_owned()
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
