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
