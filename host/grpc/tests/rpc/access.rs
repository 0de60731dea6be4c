//! TCP is read-only, for each write method of each service (design P4).

use device_api_proto::{native, upstream};
use tonic::Code;

use crate::harness::{Native, Provider, Server, Upstream, created, refused, soon};

const SAYS: &str = "write over the Unix socket";

#[expect(clippy::too_many_lines, reason = "one row for each write method")]
#[tokio::test]
async fn p4_every_write_over_tcp_is_refused_before_the_request_is_looked_at() {
    const DENIED: Code = Code::PermissionDenied;
    let server = Server::start().await;
    let channel = server.tcp().await;
    let mut n = Native::new(channel.clone());
    refused(
        n.create_gpu(native::CreateGpuRequest::default()).await,
        DENIED,
        SAYS,
    );
    refused(
        n.update_gpu(native::UpdateGpuRequest::default()).await,
        DENIED,
        SAYS,
    );
    refused(
        n.update_gpu_status(native::UpdateGpuStatusRequest::default())
            .await,
        DENIED,
        SAYS,
    );
    refused(
        n.delete_gpu(native::DeleteGpuRequest::default()).await,
        DENIED,
        SAYS,
    );
    let mut u = Upstream::new(channel.clone());
    refused(
        u.create_gpu(upstream::CreateGpuRequest::default()).await,
        DENIED,
        SAYS,
    );
    refused(
        u.update_gpu(upstream::UpdateGpuRequest::default()).await,
        DENIED,
        SAYS,
    );
    refused(
        u.update_gpu_status(upstream::UpdateGpuStatusRequest::default())
            .await,
        DENIED,
        SAYS,
    );
    refused(
        u.delete_gpu(upstream::DeleteGpuRequest::default()).await,
        DENIED,
        SAYS,
    );
    let mut p = Provider::new(channel);
    refused(
        p.register_provider(native::RegisterProviderRequest::default())
            .await,
        DENIED,
        SAYS,
    );
    refused(
        p.heartbeat(native::HeartbeatRequest::default()).await,
        DENIED,
        SAYS,
    );
    refused(
        p.register_gpu(native::RegisterGpuRequest::default()).await,
        DENIED,
        SAYS,
    );
    refused(
        p.unregister_gpu(native::UnregisterGpuRequest::default())
            .await,
        DENIED,
        SAYS,
    );
    refused(
        p.update_gpu_status(native::ProviderUpdateGpuStatusRequest::default())
            .await,
        DENIED,
        SAYS,
    );
    refused(
        p.update_gpu_condition(native::UpdateGpuConditionRequest::default())
            .await,
        DENIED,
        SAYS,
    );
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
