//! `devicectl` against a small daemon that can be stopped, forgets its history, and starts again
//! when the test says so, which the real one does not do on command.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a panic is a failed test"
)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use device_api_proto::native::gpu_service_server::{GpuService, GpuServiceServer};
use device_api_proto::native::*;
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::{BroadcastStream, UnixListenerStream};
use tokio_stream::{Iter, Stream, StreamExt, iter};
use tonic::{Request, Response, Status, async_trait};

/// Only a failing test waits so long.
const DEADLINE: Duration = Duration::from_secs(20);

type Events = tokio::sync::broadcast::Sender<Result<WatchGpusResponse, Status>>;

/// Serves `gpus` as of `version`. A watch at 0 begins with them; one before `oldest` is out of range.
struct Daemon {
    gpus: Vec<Gpu>,
    version: i64,
    oldest: i64,
    events: Events,
}

type Boxed = std::pin::Pin<Box<dyn Stream<Item = Result<WatchGpusResponse, Status>> + Send>>;

fn event(kind: EventType, gpu: Gpu) -> WatchGpusResponse {
    WatchGpusResponse {
        r#type: kind.into(),
        gpu: Some(gpu),
    }
}

#[async_trait]
impl GpuService for Daemon {
    type WatchGpusStream = Boxed;

    async fn list_gpus(
        &self,
        _: Request<ListGpusRequest>,
    ) -> Result<Response<ListGpusResponse>, Status> {
        Ok(Response::new(ListGpusResponse {
            gpus: self.gpus.clone(),
            resource_version: self.version,
        }))
    }

    async fn watch_gpus(
        &self,
        request: Request<WatchGpusRequest>,
    ) -> Result<Response<Boxed>, Status> {
        let from = request.into_inner().resource_version;
        if from != 0 && !(self.oldest..=self.version).contains(&from) {
            return Err(Status::out_of_range("list again"));
        }
        let now: Vec<_> = if from == 0 {
            self.gpus.clone()
        } else {
            Vec::new()
        };
        let now: Vec<_> = now
            .into_iter()
            .map(|gpu| Ok(event(EventType::Added, gpu)))
            .collect();
        let now: Iter<_> = iter(now);
        let then = BroadcastStream::new(self.events.subscribe()).filter_map(Result::ok);
        Ok(Response::new(Box::pin(now.chain(then))))
    }

    async fn get_gpu(&self, _: Request<GetGpuRequest>) -> Result<Response<GetGpuResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }
    async fn create_gpu(
        &self,
        _: Request<CreateGpuRequest>,
    ) -> Result<Response<CreateGpuResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }
    async fn update_gpu(&self, _: Request<UpdateGpuRequest>) -> Result<Response<Gpu>, Status> {
        Err(Status::unimplemented("not asked for"))
    }
    async fn update_gpu_status(
        &self,
        _: Request<UpdateGpuStatusRequest>,
    ) -> Result<Response<Gpu>, Status> {
        Err(Status::unimplemented("not asked for"))
    }
    async fn delete_gpu(
        &self,
        _: Request<DeleteGpuRequest>,
    ) -> Result<Response<DeleteGpuResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }
}

/// One run of the daemon. Dropping it ends it and all its connections.
struct Running {
    events: Events,
    _runtime: Runtime,
}

fn start(socket: &Path, gpus: &[Gpu], version: i64, oldest: i64) -> Running {
    let _ = std::fs::remove_file(socket);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let (events, _) = tokio::sync::broadcast::channel(16);
    let daemon = Daemon {
        gpus: gpus.to_vec(),
        version,
        oldest,
        events: events.clone(),
    };
    let listener = runtime
        .block_on(async { UnixListener::bind(socket) })
        .unwrap();
    let server = tonic::transport::Server::builder().add_service(GpuServiceServer::new(daemon));
    runtime.spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
    Running {
        events,
        _runtime: runtime,
    }
}

impl Running {
    /// Sends an event once the watcher is there.
    fn send(&self, event: WatchGpusResponse) {
        while self.events.send(Ok(event.clone())).is_err() {
            std::thread::yield_now();
        }
    }
}

fn gpu(name: &str, version: i64, health: Health) -> Gpu {
    Gpu {
        name: name.to_owned(),
        namespace: "default".to_owned(),
        resource_version: version,
        spec: Some(GpuSpec {
            uuid: name.to_owned(),
            ..GpuSpec::default()
        }),
        status: Some(GpuStatus {
            health: health.into(),
            ..GpuStatus::default()
        }),
        ..Gpu::default()
    }
}

fn devicectl(socket: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_devicectl"));
    command
        .arg("--socket")
        .arg(socket)
        .args(args)
        .env_remove("DEVICE_API_SOCKET")
        .stdin(Stdio::null());
    command
}

fn answer(socket: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = devicectl(socket, args).output().unwrap();
    (
        status.code(),
        String::from_utf8(stdout).unwrap(),
        String::from_utf8(stderr).unwrap(),
    )
}

/// A running `devicectl watch -o json`; killed with the test.
struct Watching {
    child: Child,
    lines: Receiver<String>,
}

impl Watching {
    fn start(socket: &Path) -> Self {
        let mut command = devicectl(socket, &["watch", "-o", "json"]);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout: BufReader<ChildStdout> = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            stdout
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line))
        });
        Self { child, lines }
    }

    /// Type, name, version and health of the next event.
    #[track_caller]
    fn next(&self) -> String {
        let line = self.lines.recv_timeout(DEADLINE).unwrap();
        let event: serde_json::Value = serde_json::from_str(&line).unwrap();
        let text = |pointer: &str| {
            event
                .pointer(pointer)
                .and_then(|value| value.as_str())
                .unwrap()
                .to_owned()
        };
        [
            text("/type"),
            text("/gpu/name"),
            text("/gpu/resourceVersion"),
            text("/gpu/status/health"),
        ]
        .join(" ")
    }

    /// Ends it, and tells what it said on stderr.
    fn end(mut self) -> String {
        self.child.kill().unwrap();
        let stderr = self.child.stderr.take().unwrap();
        let said = BufReader::new(stderr)
            .lines()
            .map_while(Result::ok)
            .collect::<Vec<_>>()
            .join("\n");
        self.child.wait().unwrap();
        said
    }
}

#[test]
fn w1_a_watch_resumes_where_it_was_when_the_daemon_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("d.sock");
    let (a, b) = (
        gpu("GPU-a", 1, Health::Healthy),
        gpu("GPU-b", 2, Health::Healthy),
    );
    let first = start(&socket, &[a.clone(), b.clone()], 2, 1);
    let watching = Watching::start(&socket);
    assert_eq!(
        [watching.next(), watching.next()],
        ["ADDED GPU-a 1 Healthy", "ADDED GPU-b 2 Healthy"]
    );
    drop(first);
    let second = start(&socket, &[a, b], 2, 1);
    second.send(event(
        EventType::Modified,
        gpu("GPU-a", 3, Health::Degraded),
    ));
    assert_eq!(watching.next(), "MODIFIED GPU-a 3 Degraded");
    let said = watching.end();
    assert!(
        said.contains("watch interrupted (") && said.contains("resuming after version 2"),
        "{said}"
    );
}

#[test]
fn w1_a_watch_whose_version_is_forgotten_shows_what_changed_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("d.sock");
    let before = [
        gpu("GPU-a", 1, Health::Healthy),
        gpu("GPU-b", 2, Health::Healthy),
        gpu("GPU-c", 3, Health::Healthy),
    ];
    let first = start(&socket, &before, 3, 1);
    let watching = Watching::start(&socket);
    for name in ["GPU-a 1", "GPU-b 2", "GPU-c 3"] {
        assert_eq!(watching.next(), format!("ADDED {name} Healthy"));
    }
    drop(first);
    let after = [
        gpu("GPU-a", 1, Health::Healthy),
        gpu("GPU-b", 1001, Health::Unhealthy),
    ];
    let second = start(&socket, &after, 1001, 1001);
    assert_eq!(
        [watching.next(), watching.next()],
        ["DELETED GPU-c 3 Healthy", "MODIFIED GPU-b 1001 Unhealthy"]
    );
    second.send(event(
        EventType::Deleted,
        gpu("GPU-a", 1002, Health::Healthy),
    ));
    assert_eq!(watching.next(), "DELETED GPU-a 1002 Healthy");
    let said = watching.end();
    assert!(
        said.contains("version 3 is out of the daemon's history; listing again"),
        "{said}"
    );
}

#[test]
fn answers_and_exit_codes_are_what_help_says() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("d.sock");
    let (code, out, err) = answer(&socket, &["get", "gpus"]);
    assert_eq!((code, out.as_str()), (Some(3), ""));
    assert!(
        err.contains("no such file; is device-api-server running?") && err.lines().count() == 1,
        "{err}"
    );

    let _running = start(
        &socket,
        &[
            gpu("GPU-aaaa1", 1, Health::Unhealthy),
            gpu("GPU-aaaa2", 2, Health::Healthy),
        ],
        2,
        1,
    );
    let (code, out, err) = answer(&socket, &["get", "gpus"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let names: Vec<_> = out
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(names, ["NAME", "GPU-aaaa1", "GPU-aaaa2"]);
    let (code, out, _) = answer(&socket, &["get", "gpu", "AAAA2", "-o", "yaml"]);
    assert_eq!(
        (code, out.lines().next()),
        (Some(0), Some("name: GPU-aaaa2"))
    );
    let (code, _, err) = answer(&socket, &["describe", "gpu", "GPU-x"]);
    assert_eq!(
        (code, err.as_str()),
        (
            Some(1),
            "devicectl: GPU \"GPU-x\" not found; there are GPU-aaaa1, GPU-aaaa2\n"
        )
    );
    assert_eq!(answer(&socket, &["describe", "gpu", "GPU-aaaa"]).0, Some(1));
    assert_eq!(answer(&socket, &["get", "cpus"]).0, Some(2));
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("d.sock");
    let _running = start(&socket, &[gpu("GPU-a", 1, Health::Healthy)], 1, 1);
    let mut child = devicectl(&socket, &["get", "gpus"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let Output { status, stderr, .. } = child.wait_with_output().unwrap();
    assert_eq!((status.code(), stderr), (Some(0), Vec::new()));
}
