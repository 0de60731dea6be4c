//! A `policies.yaml` that is not understood is refused as a whole, and the running set stays (design H7).

use anyhow::{Context as _, Result, ensure};
use device_api_tests::{Native, http};
use rustix::process::Signal;

use crate::rig::{Rig, active, is_running, sha256, tally};

/// What is wrong with a file.
#[derive(Clone, Copy, Debug)]
struct Bad {
    text: &'static str,
    /// What its refusal names: line, field, and what to do.
    told: &'static [&'static str],
}

const BAD: [Bad; 12] = [
    Bad {
        text: "policies:\n  - name: tally\n    file: tally.wasm\n    fallbak: ignore\n",
        told: &["line 4", "fallbak", "fallback"],
    },
    Bad {
        text: "policy:\n  - name: tally\n",
        told: &["line 1", "policy", "policies"],
    },
    Bad {
        text: "policies:\n  - name: tally\n    file: tally.wasm\n  - name: tally\n    file: other.wasm\n",
        told: &[
            "line 4",
            "name",
            "\"tally\" is listed twice",
            "line 2",
            "remove one",
        ],
    },
    Bad {
        text: "policies:\n  - name: tally\n    file: tally.wasm\n    limits:\n      memory-bytes-max: 512MiB\n",
        told: &["line 5", "limits.memory-bytes-max", "256MiB"],
    },
    Bad {
        text: "policies:\n  - name: tally\n    file: tally.wasm\n    limits:\n      call-deadline: 30ms\n",
        told: &[
            "line 2",
            "call-deadline",
            "30ms",
            "25ms",
            "--limit barrier-wait",
        ],
    },
    Bad {
        text: "policies:\n  - name: tally\n    file: tally.wasm\n    limits:\n      stack: 1MiB\n",
        told: &["line 5", "limits.stack", "memory-bytes-max"],
    },
    Bad {
        text: "policies:\n  - name: tally\n    file: tully.wasm\n",
        told: &[
            "line 2",
            "\"tally\"",
            "file",
            "tully.wasm",
            "check that the file",
        ],
    },
    Bad {
        text: "policies:\n  - name: tally\n",
        told: &["line 2", "\"tally\"", "file", "is missing", "xid-policy"],
    },
    Bad {
        text: "policies:\n  - name: tally\n    file: ../tally.wasm\n",
        told: &[
            "line 3",
            "file",
            "../tally.wasm",
            "right in the policy directory",
        ],
    },
    Bad {
        text: "policies:\n  - name: tally\n    file: tally.wasm\n    sha256: \"0000000000000000000000000000000000000000000000000000000000000000\"\n",
        told: &[
            "line 2",
            "\"tally\"",
            "sha256",
            "tally.wasm has the SHA-256",
            "is pinned",
            "correct the pin",
        ],
    },
    Bad {
        text: "policies:\n  - name: tally\n    file: tally.wasm\n    mode: audit\n",
        told: &[
            "line 4",
            "mode",
            "\"audit\" is none of enforce, shadow, paused",
        ],
    },
    Bad {
        text: "policies:\n  - name: xid-policy\n    file: tally.wasm\n    mode: shadow\n",
        told: &[
            "line 2",
            "\"xid-policy\"",
            "name",
            "give the shadow another name",
        ],
    },
];

#[tokio::test]
async fn h7_a_manifest_that_is_not_understood_is_refused_as_a_whole_and_says_where() -> Result<()> {
    let (first, beside) = (tally("version=1")?, tally("name=other")?);
    let rig = Rig::start(&[("tally.wasm", &first), ("other.wasm", &beside)], &[])?;
    let mut client = rig.ready().await?;
    // There is something new to be had, which must not be had.
    rig.put("other.wasm", tally("name=other version=2")?)?;
    for bad in BAD {
        rig.put("policies.yaml", bad.text)?;
        let report = client.reload().await?;
        let told = &report.refused;
        let place = rig.policies.join("policies.yaml").display().to_string();
        let always = ["is refused", "running set stays", &*place];
        for word in bad.told.iter().chain(&always) {
            ensure!(
                told.contains(word),
                "{word:?} is not in {told:?}, of\n{}",
                bad.text
            );
        }
        ensure!(
            told.lines().count() == 1 && report.outcomes.is_empty(),
            "{report:?}"
        );
        runs(&mut client, &[("tally", &first), ("other", &beside)]).await?;
    }
    let (_, detail) = http(&rig.node.address("/healthz")?, "/readyz")?;
    assert!(detail.contains("policies.yaml is refused"), "{detail}");
    rig.is_asked("TallyCount").await?;

    // What is good is taken, on its terms.
    let pin = sha256(&first)?;
    let text = format!(
        "policies:\n  - name: tally\n    file: tally.wasm\n    sha256: \"{pin}\"\n    mode: paused\n"
    );
    rig.put("policies.yaml", text)?;
    let report = client.reload().await?;
    ensure!(report.refused.is_empty(), "{report:?}");
    let (code, said) = rig.devicectl(&["policy", "list"])?;
    let row = said.lines().find(|line| line.starts_with("tally"));
    let row = row.context("not listed")?;
    ensure!(code == Some(0) && row.contains("paused"), "{said}");
    Ok(())
}

async fn runs(client: &mut Native, set: &[(&str, &[u8])]) -> Result<()> {
    for (name, component) in set {
        is_running(&client.policy(name).await?, &sha256(component)?)?;
    }
    Ok(())
}

#[tokio::test]
async fn h7_at_a_start_with_a_bad_manifest_the_policies_of_the_run_before_judge() -> Result<()> {
    const BAD: &str = "policies:\n  - name: tally\n    fil: tally.wasm\n";
    let first = tally("version=1")?;
    let mut rig = Rig::start(&[("tally.wasm", &first)], &[])?;
    rig.ready().await?;
    rig.is_asked("TallyCount").await?;
    rig.node.stop(Signal::TERM)?;
    rig.put("policies.yaml", BAD)?;
    rig.put("tally.wasm", tally("version=2")?)?;
    rig.node.start_again()?;
    let told = rig.node.daemon.wait_for(&["policies.yaml is refused"])?;
    assert!(told.contains("line 3") && told.contains("fil"), "{told}");
    judges_meanwhile(&rig, "tally")?;
    let mut client = rig.ready().await?;
    let policy = client.policy("tally").await?;
    assert_eq!(active(&policy)?, sha256(&first)?, "{policy:?}");
    assert!(
        policy.detail.contains("policies.yaml is refused"),
        "{policy:?}"
    );
    rig.is_asked("TallyCount").await?;

    // With no run before, the bundled ones.
    rig.node.stop(Signal::TERM)?;
    rig.node.forget_state()?;
    rig.node.start_again()?;
    rig.node.daemon.wait_for(&["policies.yaml is refused"])?;
    for bundled in ["xid-policy", "nvml-health"] {
        judges_meanwhile(&rig, bundled)?;
    }
    let mut client = rig.ready().await?;
    for bundled in ["xid-policy", "nvml-health"] {
        active(&client.policy(bundled).await?)?;
    }
    assert!(client.policy("tally").await.is_err());
    let (code, detail) = http(&rig.node.address("/healthz")?, "/readyz")?;
    assert!(
        code == 200 && detail.contains("policies.yaml is refused"),
        "{code} {detail}"
    );
    Ok(())
}

/// A set that is refused is not waited for: what takes its place comes when it is compiled.
fn judges_meanwhile(rig: &Rig, policy: &str) -> Result<()> {
    let policy = format!("policy={policy}");
    rig.node
        .daemon
        .wait_for(&["another version judges meanwhile", &policy])?;
    Ok(())
}
