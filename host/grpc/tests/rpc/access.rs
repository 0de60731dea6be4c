//! TCP is read-only, for each write method of each service (design P4).

use device_api_proto::{FILE_DESCRIPTOR_SET, native, upstream};
use http::uri::PathAndQuery;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic::client::Grpc;
use tonic::{Code, Request};

use crate::harness::{Native, Provider, Server, Upstream, created, refused, soon};
use crate::verbatim::Bytes;

const SAYS: &str = "write over the Unix socket";

/// Nothing reads a request of someone who may not make it: bytes that are none are refused like any.
#[tokio::test]
async fn p4_every_write_over_tcp_is_refused_before_the_request_is_looked_at() {
    const READS: [&str; 3] = ["Get", "List", "Watch"];
    let server = Server::start().await;
    let channel = server.tcp().await;
    let files = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("our own");
    let mut asked = 0;
    for file in &files.file {
        for service in &file.service {
            let writes = service.method.iter().filter(|method| {
                let reads = |prefix: &&str| method.name().starts_with(prefix);
                !READS.iter().any(reads)
            });
            for method in writes {
                let (package, service) = (file.package(), service.name());
                let path = format!("/{package}.{service}/{}", method.name());
                for request in [vec![], vec![0xff; 16]] {
                    let mut client = Grpc::new(channel.clone());
                    client.ready().await.expect("the server lives");
                    let path = PathAndQuery::try_from(&*path).expect("a path");
                    let answer = client.unary(Request::new(request), path, Bytes).await;
                    refused(answer, Code::PermissionDenied, SAYS);
                }
                asked += 1;
            }
        }
    }
    assert_eq!(asked, 4 + 7 + 6 + 2 + 2 + 4, "each write of each service");
    let refusals = server.observer.refusals.lock().expect("lock").len();
    assert_eq!(refusals, 2 * asked, "each is counted");
}

#[tokio::test]
async fn reads_and_watches_over_tcp_are_answered() {
    let server = Server::start().await;
    created(&mut server.native().await, "gpu-0").await;
    let channel = server.tcp().await;
    let listed = Upstream::new(channel.clone())
        .list_gpus(upstream::ListGpusRequest::default())
        .await;
    assert_eq!(
        listed
            .expect("listed")
            .into_inner()
            .gpu_list
            .expect("list")
            .items
            .len(),
        1
    );
    let mut native = Native::new(channel);
    let get = native::GetGpuRequest {
        name: "gpu-0".to_owned(),
        ..Default::default()
    };
    native.get_gpu(get).await.expect("found");
    let watch = native.watch_gpus(native::WatchGpusRequest::default()).await;
    soon(watch.expect("watches").into_inner().message())
        .await
        .expect("no error")
        .expect("an event");
}

#[tokio::test]
async fn p2_those_who_may_write_are_there_from_their_first_connection_to_their_last() {
    let server = Server::start().await;
    let own = format!("uid:{}", rustix::process::geteuid().as_raw());
    let count = |server: &Server| {
        let state = server.store.state();
        state.connections.clone().into_iter().collect::<Vec<_>>()
    };
    let _reads = server.tcp().await;
    let mut connections = server.observer.connections.subscribe();
    let mut open = async |count| {
        soon(connections.wait_for(|open| *open == count))
            .await
            .expect("told");
    };
    open(1).await;
    assert_eq!(count(&server), [], "who only reads is not told of");
    let first = server.unix().await;
    let second = server.unix().await;
    open(3).await;
    // The store hears of a connection right after its count.
    let mut native = Native::new(second.clone());
    native
        .list_gpus(native::ListGpusRequest::default())
        .await
        .expect("listed");
    drop(first);
    open(2).await;
    drop((native, second));
    open(1).await;
    assert_eq!(count(&server), [(own.as_str().into(), 0)]);
}

#[tokio::test]
async fn refusals_are_counted_and_their_lines_bounded() {
    let server = Server::start().await;
    let mut client = Native::new(server.tcp().await);
    for _ in 0..25 {
        let answer = client.delete_gpu(native::DeleteGpuRequest::default()).await;
        refused(answer, Code::PermissionDenied, SAYS);
    }
    let refusals = server.observer.refusals.lock().expect("lock").clone();
    assert_eq!(refusals, ["plain-tcp"; 25]);
    assert_eq!(*server.observer.suppressed.borrow(), 15);
}

/// What is written under another's lease is refused, too, and told apart.
#[tokio::test]
async fn p1_what_is_not_its_own_is_a_refusal() {
    let server = Server::start().await;
    let mut client = Provider::new(server.unix().await);
    let request = native::UpdateGpuConditionRequest {
        lease_id: "forged".to_owned(),
        ..Default::default()
    };
    let answer = client.update_gpu_condition(request).await;
    refused(answer, Code::PermissionDenied, "register again");
    let refusals = server.observer.refusals.lock().expect("lock").clone();
    assert_eq!(refusals, ["not-its"]);
}
