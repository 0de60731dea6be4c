//! `PolicyService` and `devicectl policy` against the real daemon: what an operator sees of policies, and what
//! he can do about one (design H5, H6, H9, H10, H12).

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use device_api_proto::native::policy_service_client::PolicyServiceClient;
use device_api_proto::native::{
    GetPolicyRequest, ListPoliciesRequest, Policy, PolicyPhase, QuarantinePolicyRequest,
};
use device_api_tests::hostile::Hostile;
use device_api_tests::{Node, binary, condition_of, guests};
use serde_json::Value;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

/// The slow guest takes 10 ms of a call.
const DEADLINE: &str = "25ms";

/// What a command came to.
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

fn devicectl(node: &Node, args: &[&str]) -> Result<Said> {
    let output = Command::new(binary("devicectl")?)
        .arg("--socket")
        .arg(node.socket())
        .args(args)
        .output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Said {
        code: output.status.code(),
        out: text(&output.stdout),
        err: text(&output.stderr),
    })
}

/// Does it, and it succeeds.
fn done(node: &Node, args: &[&str]) -> Result<String> {
    let said = devicectl(node, args)?;
    ensure!(said.code == Some(0), "{args:?}: {}{}", said.out, said.err);
    Ok(said.out)
}

/// One policy as `devicectl policy describe -o json` has it.
fn described(node: &Node, name: &str) -> Result<Value> {
    let json = done(node, &["policy", "describe", name, "-o", "json"])?;
    Ok(serde_json::from_str(&json)?)
}

fn text<'a>(value: &'a Value, pointer: &str) -> Result<&'a str> {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found.with_context(|| format!("no {pointer} in {value}"))
}

/// The slow guest; versions with another note are other bytes that do the same.
fn slow(note: &str) -> Result<Vec<u8>> {
    const NAME: &[u8] = b"note";
    let length = |bytes: &[u8]| u8::try_from(bytes.len());
    let content = [&[length(NAME)?], NAME, note.as_bytes()].concat();
    ensure!(content.len() < 128, "a length of more than a byte");
    // A custom section.
    Ok([guests::SLOW_GUEST, &[0, length(&content)?], &content].concat())
}

/// A node with a directory of policies.
fn node_with(files: &[(&str, &[u8])]) -> Result<(Node, PathBuf)> {
    let builder = Node::builder()?;
    let policies = builder.dir().join("policies");
    std::fs::create_dir(&policies)?;
    for (file, bytes) in files {
        std::fs::write(policies.join(file), bytes)?;
    }
    let node = builder
        .flag("policy-dir", policies.to_string_lossy())
        .flag("policy-deadline", DEADLINE)
        .start()?;
    Ok((node, policies))
}

/// Puts a file there in one step, as a ConfigMap's mount would.
fn put(policies: &Path, file: &str, bytes: &[u8]) -> Result<()> {
    let hidden = policies.join(format!(".{file}"));
    std::fs::write(&hidden, bytes)?;
    Ok(std::fs::rename(hidden, policies.join(file))?)
}

async fn over_tcp(node: &Node) -> Result<PolicyServiceClient<Channel>> {
    let address = format!("http://{}", node.address("API: TCP")?);
    Ok(PolicyServiceClient::new(
        Endpoint::from_shared(address)?.connect().await?,
    ))
}

#[tokio::test]
async fn h12_what_is_loaded_is_listed_described_and_counted() -> Result<()> {
    let node = Node::start()?;
    let mut gpus = node.healthy().await?;
    let name = node.uuid(5)?;
    let mut watch = gpus.watch(0).await?;
    node.sim()?.xid(5, &[119])?;
    let judged = |gpu: &_| condition_of(gpu, "XidCriticalError").is_some_and(|it| it.incident != 0);
    watch.until(&name, "judged", judged).await?;

    let table = done(&node, &["policy", "list"])?;
    let row = |policy: &str| table.lines().find(|line| line.starts_with(policy));
    for policy in ["xid-policy", "nvml-health"] {
        let row = row(policy).with_context(|| format!("no {policy} in\n{table}"))?;
        assert!(row.contains("enforce") && row.contains("running"), "{row}");
    }
    let policy = described(&node, "xid-policy")?;
    let digest = text(&policy, "/active/digest")?;
    assert_eq!(digest.len(), 64, "{digest}");
    assert_eq!(text(&policy, "/active/origin")?, "bundled/xid-policy");
    let calls = policy.pointer("/counters/calls").and_then(Value::as_u64);
    assert!(calls.is_some_and(|calls| calls > 0), "{policy}");
    let owns = policy.pointer("/owns").map(Value::to_string);
    assert!(owns.is_some_and(|owns| owns.contains("XidCriticalError")));
    let wide = done(&node, &["policy", "describe", "xid-policy"])?;
    assert!(
        wide.contains(digest) && wide.contains("XidCriticalError"),
        "{wide}"
    );

    let metrics = node.metrics()?;
    let info = format!(
        "digest=\"{digest}\",mode=\"enforce\",origin=\"bundled/xid-policy\",policy=\"xid-policy\""
    );
    assert!(metrics.contains(&info), "{metrics}");
    for line in [
        "device_api_server_policy_phase{phase=\"running\",policy=\"xid-policy\"} 1",
        "device_api_server_policy_traps_total{policy=\"xid-policy\"} 0",
    ] {
        assert!(
            metrics.lines().any(|is| is == line),
            "no {line} in\n{metrics}"
        );
    }
    let explained = done(&node, &["explain", "gpu", &name])?;
    for told in [
        digest,
        "XidCriticalError",
        "Evidence:",
        "Clears:",
        "devicectl policy describe xid-policy",
    ] {
        assert!(explained.contains(told), "no {told} in\n{explained}");
    }
    Ok(())
}

#[tokio::test]
async fn a_policy_that_is_not_there_is_not_found() -> Result<()> {
    let node = Node::start()?;
    for args in [
        &["policy", "describe", "nobody"][..],
        &["policy", "quarantine", "nobody", "--reason=why", "--yes"],
        &["policy", "release", "nobody", "--yes"],
        &["policy", "accept", "nobody", "--digest=0123456789ab"],
        &["policy", "pause", "nobody", "--reason=why", "--yes"],
        &["policy", "resume", "nobody"],
    ] {
        let said = devicectl(&node, args)?;
        assert_eq!((said.code, &*said.out), (Some(1), ""), "{args:?}");
        let known = said.err.contains("\"nobody\"") && said.err.contains("xid-policy");
        assert!(
            known && said.err.lines().count() == 1,
            "{args:?}: {}",
            said.err
        );
    }
    let mut client = over_tcp(&node).await?;
    let name = "nobody".to_owned();
    let answer = client.get_policy(GetPolicyRequest { name }).await;
    assert_eq!(
        answer.map_err(|status| status.code()).err(),
        Some(Code::NotFound)
    );
    Ok(())
}

#[tokio::test]
async fn h6_a_reload_takes_up_what_is_new_and_says_what_it_can_not() -> Result<()> {
    let (node, policies) = node_with(&[])?;
    put(&policies, "slow.wasm", &slow("a")?)?;
    done(&node, &["policy", "reload"])?;
    let first = described(&node, "slow")?;
    assert_eq!(text(&first, "/phase")?, "running");

    put(&policies, "corrupt.wasm", b"no wasm at all")?;
    let said = devicectl(&node, &["policy", "reload"])?;
    assert_eq!(said.code, Some(1), "{}", said.out);
    assert!(
        said.out.contains("corrupt") && said.out.contains("refused"),
        "{}",
        said.out
    );
    assert!(
        said.err.contains("corrupt") && said.err.lines().count() == 1,
        "{}",
        said.err
    );
    let in_part = ["ReloadPolicies", "outcome=\"in-part\""];
    let audited = node.daemon.wait_for(&in_part)?;
    assert!(audited.contains("why=\"corrupt"), "{audited}");
    let still = described(&node, "slow")?;
    assert_eq!(
        text(&still, "/active/digest")?,
        text(&first, "/active/digest")?
    );

    std::fs::remove_file(policies.join("corrupt.wasm"))?;
    put(
        &policies,
        "policies.yaml",
        b"policies:\n  - name: slow\n    no-such-key: 1\n",
    )?;
    let said = devicectl(&node, &["policy", "reload", "-o", "json"])?;
    assert_eq!(said.code, Some(1), "{}", said.out);
    let report: Value = serde_json::from_str(&said.out)?;
    assert!(
        text(&report, "/refused")?.contains("no-such-key"),
        "{report}"
    );
    let refused = ["ReloadPolicies", "outcome=\"refused\""];
    let audited = node.daemon.wait_for(&refused)?;
    assert!(audited.contains("no-such-key"), "{audited}");
    let still = described(&node, "slow")?;
    assert_eq!(
        text(&still, "/active/digest")?,
        text(&first, "/active/digest")?
    );
    Ok(())
}

#[tokio::test]
async fn h5_a_quarantined_version_gives_way_to_the_last_good_one_until_it_is_released() -> Result<()>
{
    let (node, policies) = node_with(&[("slow.wasm", &slow("a")?)])?;
    // The start waits for no compile; a reload does.
    done(&node, &["policy", "reload"])?;
    let good = text(&described(&node, "slow")?, "/active/digest")?.to_owned();
    put(&policies, "slow.wasm", &slow("b")?)?;
    done(&node, &["policy", "reload"])?;
    let bad = text(&described(&node, "slow")?, "/active/digest")?.to_owned();
    assert_ne!(good, bad, "it was swapped");

    let reason = "--reason=flaps \u{1b}[2J TICKET-7";
    let said = devicectl(&node, &["policy", "quarantine", "slow", reason])?;
    assert_eq!(said.code, Some(1), "nobody was there to be asked");
    assert!(said.err.contains("give --yes"), "{}", said.err);
    assert_eq!(text(&described(&node, "slow")?, "/active/digest")?, bad);

    // Another version was looked at than the one in use.
    let other = format!("--digest={good}");
    let order = ["policy", "quarantine", "slow", reason, &other, "--yes"];
    let said = devicectl(&node, &order)?;
    assert_eq!(said.code, Some(1), "{}", said.out);
    assert!(said.err.contains("another version"), "{}", said.err);
    assert_eq!(text(&described(&node, "slow")?, "/active/digest")?, bad);

    let shown = done(&node, &["policy", "quarantine", "slow", reason, "--yes"])?;
    assert!(
        !shown.contains('\u{1b}') && shown.contains("TICKET-7"),
        "{shown}"
    );
    let policy = described(&node, "slow")?;
    assert_eq!(text(&policy, "/phase")?, "last-good");
    assert_eq!(text(&policy, "/active/digest")?, good);
    assert_eq!(text(&policy, "/quarantined/0/digest")?, bad);
    let audited =
        node.daemon
            .wait_for(&["audit", "QuarantinePolicy", "TICKET-7", "outcome=\"OK\""])?;
    assert!(
        audited.contains("object=\"slow\"") && audited.contains("identity=\"uid:"),
        "{audited}"
    );

    // A reload does not bring it back, and says so; whoever releases it does.
    let said = devicectl(&node, &["policy", "reload"])?;
    assert_eq!(said.code, Some(1), "{}", said.out);
    assert!(
        said.out.contains("devicectl policy release"),
        "{}",
        said.out
    );
    let policy = described(&node, "slow")?;
    assert_eq!(text(&policy, "/active/digest")?, good);
    let shown = done(&node, &["policy", "list"])?;
    assert!(
        shown.contains("is quarantined: ") && !shown.contains("devicectl policy reload"),
        "{shown}"
    );
    let digest = format!("--digest={}", bad.get(..12).context("short")?);
    let order = ["policy", "release", "slow", &digest, "--yes", "-o", "json"];
    let report: Value = serde_json::from_str(&done(&node, &order)?)?;
    assert_eq!(text(&report, "/policy/phase")?, "running");
    let outcomes = report.pointer("/outcomes").and_then(Value::as_array);
    let is_it = |it: &Value| it["name"] == "slow" && it["change"] == "swapped";
    assert!(
        outcomes.is_some_and(|all| all.iter().any(is_it)),
        "{report}"
    );
    let policy = described(&node, "slow")?;
    assert_eq!(text(&policy, "/active/digest")?, bad);
    assert!(policy.pointer("/quarantined").is_none(), "{policy}");
    node.daemon
        .wait_for(&["audit", "ReleasePolicy", "digest=", "outcome=\"OK\""])?;
    Ok(())
}

#[tokio::test]
async fn h9_a_held_version_waits_until_it_is_accepted_by_its_digest() -> Result<()> {
    let (node, policies) = node_with(&[])?;
    let mut gpus = node.healthy().await?;
    let mut watch = gpus.watch(0).await?;
    for gpu in 0..4 {
        node.sim()?.xid(gpu, &[31])?;
        let judged =
            |gpu: &_| condition_of(gpu, "XidApplicationError").is_some_and(|it| it.incident != 0);
        watch.until(&node.uuid(gpu)?, "judged", judged).await?;
    }
    Hostile::EveryGpuFatal.place(&policies.join("every-gpu-fatal.wasm"))?;
    done(&node, &["policy", "reload"])?;
    let table = done(&node, &["policy", "list"])?;
    let to_type = table
        .lines()
        .map(str::trim)
        .find(|line| line.starts_with("devicectl policy accept"));
    let to_type = to_type.with_context(|| format!("nothing is held:\n{table}"))?;
    let policy = described(&node, "every-gpu-fatal")?;
    assert!(policy.pointer("/active").is_none(), "{policy}");
    assert!(!text(&policy, "/held/why")?.is_empty());

    let wrong = devicectl(
        &node,
        &[
            "policy",
            "accept",
            "every-gpu-fatal",
            "--digest=0123456789ab",
        ],
    )?;
    assert_eq!(wrong.code, Some(1), "{}", wrong.out);
    // What stands there is what one types.
    let args: Vec<_> = to_type.split_whitespace().skip(1).collect();
    done(&node, &args)?;
    let policy = described(&node, "every-gpu-fatal")?;
    assert_eq!(text(&policy, "/phase")?, "running");
    assert!(policy.pointer("/held").is_none(), "{policy}");
    node.daemon
        .wait_for(&["audit", "AcceptPolicy", "every-gpu-fatal", "outcome=\"OK\""])?;
    Ok(())
}

#[tokio::test]
async fn h10_a_pause_outlives_a_restart_and_a_resume_ends_it() -> Result<()> {
    let mut node = Node::start()?;
    let pause = [
        "policy",
        "pause",
        "nvml-health",
        "--reason=maintenance",
        "--yes",
    ];
    done(&node, &pause)?;
    let paused = |node: &Node| -> Result<()> {
        let policy = described(node, "nvml-health")?;
        ensure!(text(&policy, "/phase")? == "paused", "{policy}");
        ensure!(
            text(&policy, "/detail")?.contains("maintenance"),
            "{policy}"
        );
        Ok(())
    };
    paused(&node)?;
    node.stop(rustix::process::Signal::TERM)?;
    node.start_again()?;
    paused(&node)?;
    done(&node, &["policy", "resume", "nvml-health"])?;
    assert_eq!(
        text(&described(&node, "nvml-health")?, "/phase")?,
        "running"
    );
    let again = devicectl(&node, &["policy", "resume", "nvml-health"])?;
    assert_eq!(again.code, Some(1), "it is not paused: {}", again.out);
    Ok(())
}

#[tokio::test]
async fn p4_a_reader_reads_and_changes_nothing() -> Result<()> {
    let node = Node::start()?;
    let mut reader = over_tcp(&node).await?;
    let listed = reader
        .list_policies(ListPoliciesRequest {})
        .await?
        .into_inner();
    let names: Vec<_> = listed.policies.iter().map(|policy| &*policy.name).collect();
    assert_eq!(names, ["nvml-health", "xid-policy"]);
    let request = QuarantinePolicyRequest {
        name: "xid-policy".to_owned(),
        reason: "I say so".to_owned(),
        digest: String::new(),
    };
    let answer = reader.quarantine_policy(request).await;
    assert_eq!(
        answer.map_err(|status| status.code()).err(),
        Some(Code::PermissionDenied)
    );
    let refused = node
        .daemon
        .wait_for(&["audit", "QuarantinePolicy", "outcome=\"refused\""])?;
    assert!(refused.contains("identity=\"tcp:"), "{refused}");
    let listed = reader
        .list_policies(ListPoliciesRequest {})
        .await?
        .into_inner();
    let is_running = |policy: &Policy| policy.phase() == PolicyPhase::Running;
    assert!(listed.policies.iter().all(is_running), "{listed:?}");
    Ok(())
}
