//! Policies of WASI toolchains in a running daemon, from a directory that is no ConfigMap: with nothing
//! granted they judge, and why one fails is in the log and in what consumers read (design H1).
//!
//! What Python's and JavaScript's toolchains make is loaded by `host/policy/tests/wasi`: the daemon is
//! the same for them, but for the seconds that they take to compile.

use std::path::Path;

use anyhow::{Context as _, Result};
use device_api_proto::native::{ConditionStatus, Gpu};
use device_api_tests::{Node, condition_of};

const CARGO_COMPONENT: &[u8] = include_bytes!("../fixtures/cargo-component/policy.wasm");

/// No GPU sends it: each of the guests panics at it.
const PANIC: u64 = 1001;

#[tokio::test]
async fn h1_policies_of_wasi_toolchains_judge_and_their_panics_are_told() -> Result<()> {
    let builder = Node::builder()?;
    let policies = builder.dir().join("policies");
    std::fs::create_dir(&policies)?;
    let workshop = Path::new(env!("CARGO_TARGET_TMPDIR")).join("wasi-guests");
    std::fs::copy(
        guest_build::wasi::rust(&workshop, "wasi-p2-guest")?,
        policies.join("wasi-p2.wasm"),
    )?;
    std::fs::write(policies.join("cargo-component.wasm"), CARGO_COMPONENT)?;
    let node = builder
        .flag("policy-dir", policies.display().to_string())
        .flag("policy-deadline", "25ms")
        // What guests say is shown from warnings on, by default.
        .env("RUST_LOG", "info")
        .start()?;
    let mut client = node.healthy().await?;
    let name = node.uuid(5)?;

    let mut watch = client.watch(0).await?;
    node.sim()?.xid(5, &[79])?;
    let both = |gpu: &Gpu| {
        ["RustOffTheBus", "ComponentOffTheBus"].iter().all(|type_| {
            let condition = condition_of(gpu, type_);
            condition.is_some_and(|condition| condition.status() == ConditionStatus::True)
        })
    };
    watch.until(&name, "judged by both", both).await?;
    node.daemon
        .wait_for(&["INFO", "wasi-p2", "fell off the bus"])?;

    node.sim()?.xid(6, &[PANIC])?;
    for policy in ["wasi-p2", "cargo-component"] {
        let words = [policy, "the guest met what it can't cope with"];
        node.daemon
            .wait_for(&words)
            .context("a panic's message in the log")?;
    }
    Ok(())
}
