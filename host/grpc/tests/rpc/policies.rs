//! `nvidia.device.v1alpha1.PolicyService`.

use device_api_core::policy_status::{LATENCY_BUCKETS_MICROS, PolicyHostStatus};
use device_api_proto::native as proto;
use device_api_proto::native::policy_service_client::PolicyServiceClient;
use proto::{PolicyChange, PolicyFailureKind, PolicyPhase};
use tonic::Code;
use tonic::transport::Channel;

use crate::audit::{Log, check};
use crate::harness::{Server, refused};
use crate::policy_host::{File, digest, distinct_latency};

pub(crate) type Client = PolicyServiceClient<Channel>;

pub(crate) async fn client(server: &Server) -> Client {
    Client::new(server.unix().await)
}

pub(crate) fn quarantine(name: &str, reason: &str) -> proto::QuarantinePolicyRequest {
    proto::QuarantinePolicyRequest {
        name: name.to_owned(),
        reason: reason.to_owned(),
        digest: String::new(),
    }
}

fn pause(name: &str, reason: &str) -> proto::PausePolicyRequest {
    proto::PausePolicyRequest {
        name: name.to_owned(),
        reason: reason.to_owned(),
    }
}

pub(crate) fn release(name: &str, digest: &str) -> proto::ReleasePolicyRequest {
    proto::ReleasePolicyRequest {
        name: name.to_owned(),
        digest: digest.to_owned(),
    }
}

fn accept(name: &str, digest: &str) -> proto::AcceptPolicyRequest {
    proto::AcceptPolicyRequest {
        name: name.to_owned(),
        digest: digest.to_owned(),
    }
}

fn resume(name: &str) -> proto::ResumePolicyRequest {
    proto::ResumePolicyRequest {
        name: name.to_owned(),
    }
}

pub(crate) async fn get(
    client: &mut Client,
    name: &str,
) -> Result<proto::GetPolicyResponse, tonic::Status> {
    let name = name.to_owned();
    let answer = client.get_policy(proto::GetPolicyRequest { name }).await;
    answer.map(tonic::Response::into_inner)
}

pub(crate) async fn listed(client: &mut Client) -> Vec<proto::Policy> {
    let answer = client.list_policies(proto::ListPoliciesRequest {}).await;
    answer.expect("listed").into_inner().policies
}

/// What a reload says: of each policy its name and what was done; or why the set was refused.
pub(crate) async fn reloaded(client: &mut Client) -> Result<Vec<(String, PolicyChange)>, String> {
    let answer = client
        .reload_policies(proto::ReloadPoliciesRequest {})
        .await;
    let answer = answer.expect("reloaded").into_inner();
    if !answer.refused.is_empty() {
        assert_eq!(answer.outcomes, []);
        return Err(answer.refused);
    }
    let outcomes = answer.outcomes.into_iter();
    Ok(outcomes
        .map(|outcome| (outcome.name.clone(), outcome.change()))
        .collect())
}

#[tokio::test]
async fn h12_all_policies_are_listed_with_what_they_have_done() {
    let server = Server::start().await;
    server.policies.change("xid-policy", |policy| {
        policy.counters.calls = 9;
        policy.counters.failures = [1, 2, 3, 0, 0];
        policy.counters.latency = distinct_latency();
        policy.counters.memory_bytes_peak = 1 << 20;
        policy.counters.limits_hit = [1, 2, 3, 4, 5, 6, 7, 8];
        policy.detail = "a\u{1b}[2Jb".to_owned();
    });
    let mut client = client(&server).await;
    let policies = listed(&mut client).await;
    let names: Vec<_> = policies.iter().map(|policy| &*policy.name).collect();
    assert_eq!(names, ["gpu-0", "xid-policy"]);
    let policy = &policies[1];
    assert_eq!(policy.phase(), PolicyPhase::Running);
    assert_eq!(policy.mode(), proto::PolicyMode::Enforce);
    assert_eq!(policy.detail, "a\\u{1b}[2Jb", "nothing drives a terminal");
    let active = policy.active.as_ref().expect("there");
    assert_eq!((&*active.version, &active.digest), ("1.0.0", &digest('a')));
    assert_eq!(active.origin, "/policies/xid-policy.wasm");
    assert_eq!(active.since.expect("told").seconds, 1_700_000_000);

    let counters = policy.counters.as_ref().expect("there");
    assert_eq!((counters.calls, counters.memory_bytes_peak), (9, 1 << 20));
    let failures = counters.failures.iter();
    let failures: Vec<_> = failures.map(|count| (count.kind(), count.calls)).collect();
    let (refused, trap) = (PolicyFailureKind::Refused, PolicyFailureKind::Trap);
    assert_eq!(failures.len(), 5);
    assert_eq!(failures[..2], [(refused, 1), (trap, 2)]);
    assert_eq!(failures[2], (PolicyFailureKind::Deadline, 3));
    let hits = counters.limits_hit.iter();
    let hits: Vec<_> = hits.map(|hit| (hit.kind, hit.times)).collect();
    assert_eq!(
        hits,
        std::array::from_fn::<_, 8, _>(|at| (at as i32 + 1, at as u64 + 1))
    );
    let latency = counters.latency.iter();
    let latency: Vec<_> = latency.map(|at| (at.micros_max, at.calls)).collect();
    assert_eq!(latency.len(), LATENCY_BUCKETS_MICROS.len() + 1);
    assert_eq!(
        (latency[0], latency[11], latency[12]),
        ((1, 1), (25_000, 12), (0, 13))
    );
}

#[tokio::test]
async fn h5_a_list_says_what_is_no_single_policys_affair() {
    let server = Server::start().await;
    let mut client = client(&server).await;
    let list = async |client: &mut Client| {
        let answer = client.list_policies(proto::ListPoliciesRequest {}).await;
        let answer = answer.expect("listed").into_inner();
        assert_eq!(answer.policies.len(), 2);
        [answer.refused, answer.unsaved, answer.damage]
    };
    assert_eq!(list(&mut client).await, ["", "", ""]);
    server.policies.set_host(PolicyHostStatus {
        refused: Some("line 3\u{1b}[2J".to_owned()),
        unsaved: Some("disk full\n".to_owned()),
        damage: Some("half a file".to_owned()),
        ..PolicyHostStatus::default()
    });
    let told = ["line 3\\u{1b}[2J", "disk full\\n", "half a file"];
    assert_eq!(list(&mut client).await, told);
}

#[tokio::test]
async fn h12_one_policy_is_described_in_full() {
    let server = Server::start().await;
    let mut client = client(&server).await;
    let described = get(&mut client, "xid-policy").await.expect("there");
    assert_eq!(described.policy.as_ref().expect("there").name, "xid-policy");
    assert_eq!(described.fallback(), proto::PolicyFallback::Unhealthy);
    assert_eq!(described.grants, ["xid-79"]);
    assert_eq!(described.owns[0].condition_type, "XidCriticalError");
    assert!(described.owns[0].true_is_problem);
    assert_eq!(described.owns[0].reasons, ["FallenOffTheBus"]);
    let wanted = proto::PolicySubscription {
        kind: "xid".to_owned(),
        code_min: Some(63),
        code_max: Some(64),
        above: Some(85.5),
        relative_to: "power.limit".to_owned(),
        ..Default::default()
    };
    assert_eq!(described.subscriptions, [wanted]);
    assert_eq!(described.readings, ["temperature.gpu"]);
    assert_eq!(described.state_schema, 2);
    assert_eq!(described.limits[0].value, "16Mi");
    assert_eq!(
        described.verdict_diff,
        ["xid 63: nothing, was problem\\u{1b}[2J"]
    );
    assert_eq!(described.failures[0].kind(), PolicyFailureKind::Deadline);
    assert_eq!(described.failures[0].detail, "5 ms\\nWARN forged");
    assert_eq!(
        described.disagreements[0].shadow,
        "problem fatal RESTART_BM"
    );
}

#[tokio::test]
async fn h6_a_reload_tells_what_came_of_each_policy() {
    let server = Server::start().await;
    let mut client = client(&server).await;
    let (gpu, xid) = ("gpu-0".to_owned(), "xid-policy".to_owned());
    assert_eq!(
        reloaded(&mut client).await,
        Ok(vec![
            (gpu.clone(), PolicyChange::Unchanged),
            (xid.clone(), PolicyChange::Unchanged)
        ])
    );
    server.policies.take_away("gpu-0");
    server.policies.put(File {
        name: "xid-policy",
        version: "1.1.0",
        digit: 'b',
        is_held: false,
    });
    server.policies.put(File {
        name: "extra",
        version: "0.1.0",
        digit: 'c',
        is_held: false,
    });
    assert_eq!(
        reloaded(&mut client).await,
        Ok(vec![
            (gpu, PolicyChange::Removed),
            (xid, PolicyChange::Swapped),
            ("extra".to_owned(), PolicyChange::Unchanged)
        ])
    );
    let names: Vec<_> = listed(&mut client)
        .await
        .into_iter()
        .map(|it| it.name)
        .collect();
    assert_eq!(names, ["extra", "xid-policy"]);
    server
        .policies
        .break_set("policies.yaml: unknown key \"deadlnie\"\n");
    assert_eq!(
        reloaded(&mut client).await,
        Err("policies.yaml: unknown key \"deadlnie\"\\n".to_owned())
    );
}

#[tokio::test]
async fn h5_a_quarantined_version_gives_way_and_comes_back_when_it_is_released() {
    let server = Server::start().await;
    server.policies.put(File {
        name: "xid-policy",
        version: "1.1.0",
        digit: 'b',
        is_held: false,
    });
    let mut client = client(&server).await;
    reloaded(&mut client).await.expect("swapped");

    let answer = client.quarantine_policy(quarantine("xid-policy", "too\neager"));
    let answer = answer.await.expect("set aside").into_inner();
    let policy = answer.policy.expect("there");
    assert_eq!(policy.phase(), PolicyPhase::LastGood);
    assert_eq!(
        policy.active.expect("the last good one").digest,
        digest('a')
    );
    assert_eq!(policy.quarantined[0].digest, digest('b'));
    assert_eq!(policy.quarantined[0].why, "too\\neager");
    assert_eq!(answer.outcomes[0].change(), PolicyChange::Swapped);

    let other = client
        .release_policy(release("xid-policy", &"e".repeat(12)))
        .await;
    refused(
        other,
        Code::FailedPrecondition,
        "that version is not quarantined",
    );
    let answer = client.release_policy(release("xid-policy", &"B".repeat(12)));
    let policy = answer.await.expect("released").into_inner().policy;
    let policy = policy.expect("there");
    assert_eq!(policy.phase(), PolicyPhase::Running);
    assert_eq!(policy.active.expect("there").digest, digest('b'));
    assert_eq!(policy.quarantined, []);
}

#[tokio::test]
async fn h9_a_held_version_waits_for_whoever_names_its_digest() {
    let server = Server::start().await;
    server.policies.put(File {
        name: "xid-policy",
        version: "2.0.0",
        digit: 'd',
        is_held: true,
    });
    let mut client = client(&server).await;
    let outcomes = reloaded(&mut client).await.expect("looked at");
    assert_eq!(outcomes[1].1, PolicyChange::Held);
    let policies = listed(&mut client).await;
    let held = policies[1].held.as_ref().expect("held");
    assert_eq!((&*held.version, &held.digest), ("2.0.0", &digest('d')));
    assert_eq!(held.why, "it would make 3 GPUs Unhealthy");

    let invalid = Code::InvalidArgument;
    for (digest, code, says) in [
        ("", invalid, "digest: not a digest"),
        ("ddd", invalid, "digest: not a digest; 12 to 64"),
        (
            "aaaaaaaaaaaa",
            Code::FailedPrecondition,
            "that version is not held",
        ),
    ] {
        let answer = client.accept_policy(accept("xid-policy", digest)).await;
        refused(answer, code, says);
    }
    let answer = client.accept_policy(accept("xid-policy", &"d".repeat(12)));
    let policy = answer.await.expect("let in").into_inner().policy;
    let policy = policy.expect("there");
    assert_eq!(policy.active.expect("there").version, "2.0.0");
    assert_eq!(policy.held, None);
}

#[tokio::test]
async fn h10_a_paused_policy_says_why_until_it_is_resumed() {
    let server = Server::start().await;
    let mut client = client(&server).await;
    let log = Log::installed();
    let early = client.resume_policy(resume("xid-policy")).await;
    refused(early, Code::FailedPrecondition, "it is not paused");
    let lines = log.lines("method=\"ResumePolicy\"");
    assert!(
        lines
            .iter()
            .any(|line| line.contains("outcome=\"FailedPrecondition\"")
                && line.contains("why=\"it is not paused\"")),
        "{lines:?}"
    );
    let answer = client.pause_policy(pause("xid-policy", "maintenance"));
    let policy = answer.await.expect("paused").into_inner().policy;
    let policy = policy.expect("there");
    assert_eq!(
        (policy.phase(), &*policy.detail),
        (PolicyPhase::Paused, "maintenance")
    );
    let answer = client.resume_policy(resume("xid-policy"));
    let policy = answer.await.expect("resumed").into_inner().policy;
    assert_eq!(policy.expect("there").phase(), PolicyPhase::Running);
}

#[tokio::test]
async fn what_is_missing_too_long_or_unknown_is_refused_by_its_name() {
    let server = Server::start().await;
    let mut client = client(&server).await;
    let before = server.policies.writes();
    let (long, long_reason) = ("n".repeat(254), "r".repeat(513));
    let invalid = Code::InvalidArgument;
    refused(
        get(&mut client, "").await,
        invalid,
        "name: required; ListPolicies",
    );
    refused(
        get(&mut client, &long).await,
        invalid,
        "name: 254 bytes; at most 253",
    );
    let unknown = get(&mut client, "nobody").await;
    refused(
        unknown,
        Code::NotFound,
        "policy \"nobody\" not found; ListPolicies",
    );
    for (name, reason, code, says) in [
        ("", "why", invalid, "name: required"),
        (&long, "why", invalid, "name: 254 bytes"),
        ("xid-policy", "", invalid, "reason: required"),
        (
            "xid-policy",
            &long_reason,
            invalid,
            "reason: 513 bytes; at most 512",
        ),
        (
            "nobody",
            "why",
            Code::NotFound,
            "policy \"nobody\" not found",
        ),
    ] {
        let answer = client.quarantine_policy(quarantine(name, reason)).await;
        refused(answer, code, says);
        refused(client.pause_policy(pause(name, reason)).await, code, says);
    }
    let nobody = client.release_policy(release("nobody", "")).await;
    refused(nobody, Code::NotFound, "nobody");
    let nobody = client
        .accept_policy(accept("nobody", &"a".repeat(12)))
        .await;
    refused(nobody, Code::NotFound, "nobody");
    refused(
        client.resume_policy(resume("nobody")).await,
        Code::NotFound,
        "nobody",
    );
    let bad = client.release_policy(release("xid-policy", "../..")).await;
    refused(bad, invalid, "digest: not a digest");
    assert_eq!(
        server.policies.writes(),
        before,
        "none of them did anything"
    );
}

/// Over TCP one may look, and no more (design P4).
#[tokio::test]
async fn p4_readers_read_and_change_nothing() {
    let server = Server::start().await;
    let mut reader = Client::new(server.tcp().await);
    assert_eq!(listed(&mut reader).await.len(), 2);
    get(&mut reader, "xid-policy").await.expect("described");
    let answer = reader
        .quarantine_policy(quarantine("xid-policy", "why"))
        .await;
    refused(answer, Code::PermissionDenied, "read-only");
    let answer = reader
        .reload_policies(proto::ReloadPoliciesRequest {})
        .await;
    refused(answer, Code::PermissionDenied, "read-only");
    assert_eq!(server.policies.writes(), 0);
}

#[tokio::test]
async fn each_command_has_a_line_in_the_audit_log_with_its_reason() {
    let log = Log::installed();
    let server = Server::start().await;
    let mut client = client(&server).await;
    let forged = "audited-why\nINFO audit: all is well";
    client
        .quarantine_policy(quarantine("xid-policy", forged))
        .await
        .expect("set aside");
    let lines = log.lines("audited-why");
    assert_eq!(
        lines.len(),
        1,
        "a reason makes no line of its own: {lines:?}"
    );
    let words = [
        "INFO",
        "identity=\"uid:",
        "service=\"nvidia.device.v1alpha1.PolicyService\"",
        "method=\"QuarantinePolicy\"",
        "object=\"xid-policy\"",
        "because=\"audited-why\\nINFO",
        "outcome=\"OK\"",
    ];
    check(&lines[0], &words);
    assert!(!lines[0].contains("digest="), "{}", lines[0]);

    let digest = "0a0b0c0d0e0f";
    let answer = client.release_policy(release("xid-policy", digest)).await;
    refused(answer, Code::FailedPrecondition, "not quarantined");
    let lines = log.lines(&format!("digest=\"{digest}\""));
    assert_eq!(lines.len(), 1, "{lines:?}");
    check(
        &lines[0],
        &["method=\"ReleasePolicy\"", "outcome=\"FailedPrecondition\""],
    );
    assert!(!lines[0].contains("because="), "{}", lines[0]);
}
