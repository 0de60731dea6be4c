//! `PolicyService`: what a command promises besides what it does.

use device_api_proto::native as proto;
use tonic::Code;

use crate::audit::{Log, check};
use crate::harness::{Server, refused};
use crate::policies::{client, get, listed, quarantine, release, reloaded};
use crate::policy_host::digest;

#[tokio::test]
async fn h5_the_version_that_was_looked_at_is_set_aside_and_no_other() {
    let server = Server::start().await;
    let mut client = client(&server).await;
    let named = |digest: &str| proto::QuarantinePolicyRequest {
        digest: digest.to_owned(),
        ..quarantine("xid-policy", "why")
    };
    let short = client.quarantine_policy(named(&"a".repeat(11))).await;
    refused(short, Code::InvalidArgument, "digest: not a digest; 12");
    let other = client.quarantine_policy(named(&"b".repeat(12))).await;
    refused(other, Code::FailedPrecondition, "that version is not asked");
    assert_eq!(server.policies.writes(), 0);
    let answer = client.quarantine_policy(named(&"A".repeat(12))).await;
    let policy = answer.expect("set aside").into_inner().policy;
    assert_eq!(policy.expect("there").quarantined[0].digest, digest('a'));
}

#[tokio::test]
async fn h6_a_command_says_that_the_set_was_refused() {
    let server = Server::start().await;
    let mut client = client(&server).await;
    client
        .quarantine_policy(quarantine("xid-policy", "why"))
        .await
        .expect("set aside");
    let log = Log::installed();
    server.policies.break_set("policies.yaml: audited no\n");
    let answer = client.release_policy(release("xid-policy", "")).await;
    let answer = answer.expect("released").into_inner();
    assert_eq!(answer.refused, "policies.yaml: audited no\\n");
    assert_eq!(answer.outcomes, []);
    let lines = log.lines("policies.yaml: audited no");
    let words = [
        "method=\"ReleasePolicy\"",
        "outcome=\"OK\"",
        "why=\"the whole set is refused: ",
    ];
    check(&lines[0], &words);

    server.policies.break_set("policies.yaml: audited no");
    let reload = proto::ReloadPoliciesRequest {};
    let answer = client.reload_policies(reload).await.expect("answered");
    assert_eq!(answer.into_inner().refused, "policies.yaml: audited no");
    let lines = log.lines("policies.yaml: audited no");
    let words = [
        "method=\"ReloadPolicies\"",
        "outcome=\"refused\"",
        "why=\"the whole set: policies.yaml: ",
    ];
    check(&lines[1], &words);
}

/// A directory full of what is none.
#[tokio::test]
async fn a_list_is_bounded_and_has_those_that_judge() {
    let server = Server::start().await;
    server.policies.fill(100);
    let mut client = client(&server).await;
    let policies = listed(&mut client).await;
    assert_eq!(policies.len(), 48);
    assert!(policies.is_sorted_by(|a, b| a.name <= b.name));
    assert!(policies.iter().any(|policy| policy.name == "xid-policy"));
    get(&mut client, "a-99").await.expect("described");
}

/// It may have to compile, which the site's `request-time` has nothing to do with.
#[tokio::test]
async fn a_command_has_more_time_than_a_call() {
    let time = std::time::Duration::from_millis(50);
    let server = Server::bounded(|bounds| bounds.request_time = time).await;
    server.policies.open.send_replace(false);
    let mut waiting = client(&server).await;
    let reload = tokio::spawn(async move { reloaded(&mut waiting).await });
    // A call of the same time, begun later, is cut off meanwhile.
    server.policies.waiting().await;
    server.store.open.send_replace(false);
    let request = proto::GetGpuRequest {
        name: "gpu-0".to_owned(),
        ..Default::default()
    };
    let cut_off = server.native().await.get_gpu(request).await;
    refused(cut_off, Code::DeadlineExceeded, "request-time is 50ms");
    server.policies.open.send_replace(true);
    reload.await.expect("no panic").expect("reloaded");
}
