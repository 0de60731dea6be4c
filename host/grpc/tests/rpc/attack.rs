//! Whatever bytes a client sends as a request, to any method: no panic, the right code, and no write by
//! what was refused. The body of the fuzz targets in `fuzz/`, and of the properties in [`crate::input`].

use std::collections::BTreeMap;
use std::sync::Mutex;

use device_api_proto::FILE_DESCRIPTOR_SET;
use device_api_proto::native;
use http::uri::PathAndQuery;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::harness::{Server, created, soon};
use crate::policy_host::File;
use crate::verbatim::Bytes;
use crate::wellformed::{Source, Types};

/// Objects and history that are kept before the store starts afresh: a fuzzer runs for hours.
const VERSION_MAX: u64 = 5_000;

/// What a refusal may say. Another code is a fault of ours.
const ALLOWED: [Code; 7] = [
    Code::InvalidArgument,
    Code::NotFound,
    Code::AlreadyExists,
    Code::Aborted,
    Code::OutOfRange,
    Code::PermissionDenied,
    Code::ResourceExhausted,
];

/// A method, and the type of its requests.
#[derive(Debug)]
struct Method {
    path: String,
    request: String,
    streams: bool,
}

/// A server with a GPU and a provider, and how often each method answered with each code.
#[derive(Debug)]
pub(crate) struct Target {
    server: Server,
    channel: Channel,
    types: Types,
    methods: Vec<Method>,
    pub(crate) answers: Mutex<BTreeMap<(String, i32), usize>>,
}

impl Target {
    /// Of all services whose full names begin with `package`.
    pub(crate) async fn start(package: &str) -> Self {
        let files = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("our own");
        let ours = files.file.iter().filter(|file| file.package() == package);
        let services = ours.flat_map(|file| &file.service);
        let methods = services.flat_map(|service| {
            service.method.iter().map(|method| Method {
                path: format!("/{package}.{}/{}", service.name(), method.name()),
                request: method.input_type().to_owned(),
                streams: method.server_streaming(),
            })
        });
        let server = Server::start().await;
        let target = Self {
            channel: server.unix().await,
            server,
            types: Types::new(),
            methods: methods.collect(),
            answers: Mutex::default(),
        };
        target.furnish().await;
        target
    }

    async fn furnish(&self) {
        let held = File {
            name: "gpu-0",
            version: "0.2.0",
            digit: 'b',
            is_held: true,
        };
        self.server.policies.put(held);
        created(&mut self.server.native().await, "gpu-0").await;
        let request = native::RegisterProviderRequest {
            name: "fans".to_owned(),
            lease_duration: None,
        };
        let mut providers = self.server.providers().await;
        providers
            .register_provider(request)
            .await
            .expect("registered");
    }

    /// Sends a request made of `data`: the first byte picks the method, the second whether the rest is the
    /// request itself or decides what a well-formed one says.
    ///
    /// # Errors
    /// What went wrong that must not.
    pub(crate) async fn attack(&self, data: &[u8]) -> Result<(), String> {
        if self.server.store.version() > VERSION_MAX {
            self.server.store.clear();
        }
        if !self.server.store.is_furnished("gpu-0") {
            self.furnish().await;
        }
        let mut source = Source(data);
        let method = &self.methods[usize::from(source.byte()) % self.methods.len()];
        let request = if source.byte() % 4 == 0 {
            source.0.to_vec()
        } else {
            self.types.message(&method.request, &mut source)
        };
        let before = self.fingerprint();
        let answer = soon(self.send(method, request)).await;
        let code = answer.as_ref().map_or_else(Status::code, |()| Code::Ok);
        let tally = (method.path.clone(), code as i32);
        *self.answers.lock().expect("lock").entry(tally).or_default() += 1;
        let Err(status) = answer else {
            return Ok(());
        };
        let said = format!("{}: {status}", method.path);
        // What policies are in, and what stands against a GPU, is for no request to say.
        let has_state = [".PolicyService/", ".IncidentService/"];
        let is_state = code == Code::FailedPrecondition
            && has_state
                .iter()
                .any(|service| method.path.contains(service));
        if !(is_state || ALLOWED.contains(&code)) || status.message().is_empty() {
            return Err(format!("not an answer to bad input: {said}"));
        }
        if self.fingerprint() != before {
            return Err(format!("refused, and written all the same: {said}"));
        }
        Ok(())
    }

    /// Changes with each write of whatever kind.
    fn fingerprint(&self) -> ((u64, usize), [usize; 3]) {
        let server = &self.server;
        let operated = [
            server.policies.writes(),
            server.incidents.cleared().len() + server.incidents.resets().len(),
            server.nvml.commands(),
        ];
        (server.store.fingerprint(), operated)
    }

    async fn send(&self, method: &Method, request: Vec<u8>) -> Result<(), Status> {
        let mut client = Grpc::new(self.channel.clone());
        client.ready().await.expect("the server lives");
        let path = PathAndQuery::try_from(&*method.path).expect("a path");
        let request = Request::new(request);
        if method.streams {
            let streaming = client.server_streaming(request, path, Bytes).await;
            streaming.map(drop)
        } else {
            client.unary(request, path, Bytes).await.map(drop)
        }
    }
}
