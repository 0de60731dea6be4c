//! The policies of the small daemon, and `devicectl policy` against them.

use std::sync::{Arc, Mutex};

use device_api_proto::native::server::policy_service_server::PolicyService;
use device_api_proto::native::{
    AcceptPolicyRequest, AcceptPolicyResponse, GetPolicyRequest, GetPolicyResponse,
    ListPoliciesRequest, ListPoliciesResponse, PausePolicyRequest, PausePolicyResponse, Policy,
    PolicyChange, PolicyOutcome, PolicyPhase, PolicySetAside, PolicyVersion,
    QuarantinePolicyRequest, QuarantinePolicyResponse, ReleasePolicyRequest, ReleasePolicyResponse,
    ReloadPoliciesRequest, ReloadPoliciesResponse, ResumePolicyRequest, ResumePolicyResponse,
};
use tonic::{Request, Response, Status, async_trait};

use crate::answer;
use crate::daemon::start;

/// Has one policy, keeps what it was told to do, and can't take up everything.
#[derive(Clone, Default)]
pub(crate) struct Policies {
    told: Arc<Mutex<Vec<String>>>,
}

impl Policies {
    fn tell(&self, name: &str, what: String) -> Result<Option<Policy>, Status> {
        if name != "xid-policy" {
            return Err(Status::not_found(format!("policy {name:?} not found")));
        }
        self.told.lock().unwrap().push(what);
        Ok(Some(policy()))
    }

    /// Another one's refusal is none of this one's.
    fn outcomes(&self) -> Vec<PolicyOutcome> {
        let own = match self
            .told()
            .iter()
            .filter(|told| told.starts_with("accept"))
            .count()
        {
            0 | 1 => PolicyChange::Swapped,
            _ => PolicyChange::Refused,
        };
        vec![
            outcome("corrupt.wasm", PolicyChange::Refused),
            outcome("xid-policy", own),
        ]
    }

    /// What it was told to do, in order.
    pub(crate) fn told(&self) -> Vec<String> {
        self.told.lock().unwrap().clone()
    }
}

fn policy() -> Policy {
    Policy {
        name: "xid-policy".to_owned(),
        phase: PolicyPhase::LastGood.into(),
        active: Some(PolicyVersion {
            version: "1.0.0".to_owned(),
            digest: "a".repeat(64),
            ..PolicyVersion::default()
        }),
        held: Some(PolicySetAside {
            version: "2.0.0".to_owned(),
            digest: "b".repeat(64),
            why: "3 GPUs\u{1b}[2J".to_owned(),
            ..PolicySetAside::default()
        }),
        ..Policy::default()
    }
}

fn outcome(name: &str, change: PolicyChange) -> PolicyOutcome {
    PolicyOutcome {
        name: name.to_owned(),
        change: change.into(),
        ..PolicyOutcome::default()
    }
}

#[async_trait]
impl PolicyService for Policies {
    async fn list_policies(
        &self,
        _: Request<ListPoliciesRequest>,
    ) -> Result<Response<ListPoliciesResponse>, Status> {
        let policies = vec![policy()];
        Ok(Response::new(ListPoliciesResponse {
            policies,
            refused: "policies.yaml is refused\u{1b}[2J".to_owned(),
            ..ListPoliciesResponse::default()
        }))
    }

    async fn get_policy(
        &self,
        request: Request<GetPolicyRequest>,
    ) -> Result<Response<GetPolicyResponse>, Status> {
        let policy = self.tell(&request.into_inner().name, "get".to_owned())?;
        Ok(Response::new(GetPolicyResponse {
            policy,
            ..GetPolicyResponse::default()
        }))
    }

    async fn reload_policies(
        &self,
        _: Request<ReloadPoliciesRequest>,
    ) -> Result<Response<ReloadPoliciesResponse>, Status> {
        let outcomes = vec![
            outcome("xid-policy", PolicyChange::Swapped),
            outcome("corrupt.wasm", PolicyChange::Refused),
        ];
        Ok(Response::new(ReloadPoliciesResponse {
            outcomes,
            refused: String::new(),
        }))
    }

    async fn quarantine_policy(
        &self,
        request: Request<QuarantinePolicyRequest>,
    ) -> Result<Response<QuarantinePolicyResponse>, Status> {
        let it = request.into_inner();
        let policy = self.tell(&it.name, format!("quarantine: {} {}", it.reason, it.digest))?;
        Ok(Response::new(QuarantinePolicyResponse {
            outcomes: self.outcomes(),
            policy,
            refused: String::new(),
        }))
    }

    async fn release_policy(
        &self,
        request: Request<ReleasePolicyRequest>,
    ) -> Result<Response<ReleasePolicyResponse>, Status> {
        let it = request.into_inner();
        let policy = self.tell(&it.name, format!("release: {:?}", it.digest))?;
        Ok(Response::new(ReleasePolicyResponse {
            outcomes: self.outcomes(),
            policy,
            refused: String::new(),
        }))
    }

    async fn accept_policy(
        &self,
        request: Request<AcceptPolicyRequest>,
    ) -> Result<Response<AcceptPolicyResponse>, Status> {
        let it = request.into_inner();
        let policy = self.tell(&it.name, format!("accept: {}", it.digest))?;
        Ok(Response::new(AcceptPolicyResponse {
            outcomes: self.outcomes(),
            policy,
            refused: String::new(),
        }))
    }

    async fn pause_policy(
        &self,
        request: Request<PausePolicyRequest>,
    ) -> Result<Response<PausePolicyResponse>, Status> {
        let it = request.into_inner();
        if it.reason == "slow" {
            return Err(Status::deadline_exceeded("not done within its deadline"));
        }
        let policy = self.tell(&it.name, format!("pause: {}", it.reason))?;
        Ok(Response::new(PausePolicyResponse {
            outcomes: self.outcomes(),
            policy,
            refused: String::new(),
        }))
    }

    async fn resume_policy(
        &self,
        request: Request<ResumePolicyRequest>,
    ) -> Result<Response<ResumePolicyResponse>, Status> {
        let policy = self.tell(&request.into_inner().name, "resume".to_owned())?;
        Ok(Response::new(ResumePolicyResponse {
            outcomes: self.outcomes(),
            policy,
            refused: String::new(),
        }))
    }
}

#[test]
fn what_waits_is_listed_with_what_to_type_which_does_it() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("d.sock");
    let running = start(&socket, &[], 1, 1);
    let (code, out, _) = answer(&socket, &["policy", "list"]);
    assert_eq!(code, Some(0));
    assert!(out.contains("is held: 3 GPUs\\u{1b}[2J\n"), "{out}");
    assert!(
        out.starts_with("The set of policies is refused: policies.yaml is refused\\u{1b}[2J\n"),
        "{out}"
    );
    let typed = out.lines().find(|line| line.contains(" accept ")).unwrap();
    let args: Vec<_> = typed.split_whitespace().skip(1).collect();
    let (code, _, err) = answer(&socket, &args);
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(running.policies().told(), ["accept: bbbbbbbbbbbb"]);

    let (_, out, _) = answer(&socket, &["policy", "list", "-o", "json"]);
    let listed: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(listed["policies"][0]["phase"], "last-good");
    assert_eq!(listed["refused"], "policies.yaml is refused\u{1b}[2J");
    let (code, out, _) = answer(&socket, &["policy", "describe", "xid-policy", "-o", "yaml"]);
    assert_eq!(code, Some(0));
    assert!(out.contains("name: xid-policy"), "{out}");
}

#[test]
fn what_takes_a_policy_out_of_service_is_confirmed() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("d.sock");
    let running = start(&socket, &[], 1, 1);
    let orders: [&[&str]; 3] = [
        &["policy", "quarantine", "xid-policy", "--reason=why"],
        &["policy", "pause", "xid-policy", "--reason=why"],
        &["policy", "release", "xid-policy"],
    ];
    for order in orders {
        let (code, out, err) = answer(&socket, order);
        assert_eq!((code, &*out), (Some(1), ""), "nobody was there to be asked");
        assert!(
            err.contains("give --yes") && err.lines().count() == 1,
            "{err}"
        );
    }
    assert_eq!(running.policies().told(), Vec::<String>::new());
    for order in orders {
        let (code, out, err) = answer(&socket, &[order, &["--yes"]].concat());
        assert_eq!(code, Some(0), "{err}");
        assert!(out.contains("xid-policy"), "{out}");
    }
    let (code, _, _) = answer(&socket, &["policy", "resume", "xid-policy"]);
    assert_eq!(code, Some(0));
    let told = ["quarantine: why ", "pause: why", "release: \"\"", "resume"];
    assert_eq!(running.policies().told(), told);
    let (code, _, err) = answer(&socket, &["policy", "pause", "xid-policy", "--yes"]);
    assert_eq!(code, Some(2), "a reason is to be given: {err}");
}

#[test]
fn a_policy_that_is_not_there_is_said_with_those_that_are() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("d.sock");
    let _running = start(&socket, &[], 1, 1);
    let orders: [&[&str]; 4] = [
        &["policy", "describe", "nobody"],
        &["policy", "quarantine", "nobody", "--reason=why"],
        &["policy", "quarantine", "nobody", "--reason=why", "--yes"],
        &["policy", "resume", "nobody"],
    ];
    for order in orders {
        let (code, out, err) = answer(&socket, order);
        assert_eq!((code, &*out), (Some(1), ""), "{order:?}");
        assert!(
            err.contains("no policy \"nobody\"; there are xid-policy"),
            "{err}"
        );
    }
}

#[test]
fn h6_a_reload_of_which_something_is_refused_says_so_and_fails() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("d.sock");
    let _running = start(&socket, &[], 1, 1);
    let (code, out, err) = answer(&socket, &["policy", "reload"]);
    assert_eq!(code, Some(1));
    assert!(out.contains("swapped") && out.contains("refused"), "{out}");
    assert!(
        err.contains("refused: corrupt.wasm; what was used before is used on"),
        "{err}"
    );
    let (code, out, _) = answer(&socket, &["policy", "reload", "-o", "json"]);
    assert_eq!(code, Some(1));
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["outcomes"][1]["change"], "refused");
}

#[test]
fn a_command_says_what_came_of_it_and_fails_where_its_policy_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("d.sock");
    let _running = start(&socket, &[], 1, 1);
    let accept = ["policy", "accept", "xid-policy", "--digest=bbbbbbbbbbbb"];
    let (code, out, err) = answer(&socket, &accept);
    assert_eq!(code, Some(0), "another one's refusal is not ours: {err}");
    assert!(out.contains("swapped") && out.contains("PHASE"), "{out}");
    let (code, out, err) = answer(&socket, &accept);
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("refused") && out.contains("PHASE"), "{out}");
    assert!(err.contains("refused: xid-policy; what was used"), "{err}");

    let (code, out, _) = answer(&socket, &[&accept[..], &["-o", "json"]].concat());
    assert_eq!(code, Some(1));
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["outcomes"][1]["change"], "refused");
    assert_eq!(report["policy"]["name"], "xid-policy");
}

#[test]
fn a_version_that_was_looked_at_is_named_to_the_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("d.sock");
    let running = start(&socket, &[], 1, 1);
    let order = [
        "policy",
        "quarantine",
        "xid-policy",
        "--reason=why",
        "--yes",
    ];
    let (code, _, err) = answer(&socket, &[&order[..], &["--digest=aaaaaaaaaaaa"]].concat());
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(running.policies().told(), ["quarantine: why aaaaaaaaaaaa"]);
}

#[test]
fn a_command_that_takes_long_is_said_to_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("d.sock");
    let _running = start(&socket, &[], 1, 1);
    let order = ["policy", "pause", "xid-policy", "--reason=slow", "--yes"];
    let (code, out, err) = answer(&socket, &order);
    assert_eq!((code, &*out), (Some(1), ""));
    let says = "still being carried out; what comes of it: devicectl policy list";
    assert!(err.contains(says) && err.lines().count() == 1, "{err}");
}
