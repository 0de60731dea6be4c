//! Who chooses names makes no more series than the page says: providers, callers of methods that there are not, policies.

use anyhow::{Result, ensure};
use device_api_tests::hostile::Hostile;
use device_api_tests::{Native, Node};
use tower::ServiceExt as _;

use crate::scrape::{Scrape, page, until};
use crate::values::complain;

/// More than providers get a series of their own.
const NAMES: usize = 24;

const POLICY: &str = "random-reasons";
const EVALUATIONS: &str = "device_api_server_policy_evaluations_total";
const PHASE: &str = "device_api_server_policy_phase";
const HANDLED: &str = "grpc_server_handled_total";

/// gRPC's code for it.
const UNIMPLEMENTED: &str = "12";

/// Calls a method that there is not.
async fn call(client: &Native, path: &str) -> Result<()> {
    let request = http::Request::post(format!("http://local{path}"))
        .header("content-type", "application/grpc")
        .body(tonic::body::Body::empty())?;
    let answer = client.channel.clone().oneshot(request).await?;
    let status = answer.headers().get("grpc-status");
    ensure!(
        status.is_some_and(|status| status == UNIMPLEMENTED),
        "{answer:?}"
    );
    Ok(())
}

async fn be_hostile(node: &Node, round: usize) -> Result<()> {
    let mut client = node.native().await?;
    for n in 0..NAMES {
        complain(&mut client, &format!("p-{round}-{n}"), &node.uuid(0)?).await?;
        call(&client, &format!("/x.Y{round}/z{n}")).await?;
        call(
            &client,
            &format!("/nvidia.device.v1alpha1.GpuService/Get{round}{n}"),
        )
        .await?;
    }
    Ok(())
}

/// What is exported once the policy that makes up names was asked about faults of a GPU.
fn evaluated(node: &Node, gpu: u32) -> Result<Scrape> {
    let evaluations = |scrape: &Scrape| {
        let series = scrape.series.iter();
        let its = series.filter(|series| {
            series.metric == EVALUATIONS
                && series.labels.get("policy").is_some_and(|is| is == POLICY)
        });
        its.map(|series| series.value).sum::<f64>()
    };
    let before = evaluations(&Scrape::of(node)?);
    let set_aside = [("policy", POLICY), ("phase", "quarantined")];
    let mut sim = node.sim()?;
    let what = format!("{POLICY} is asked about GPU {gpu}");
    let scrape = until(node, &what, |scrape| {
        // Its answers are refused: after each it is asked nothing for longer, and in the end never again.
        evaluations(scrape) > before
            || scrape.value(PHASE, &set_aside) == Some(1.0)
            || sim.xid(gpu, &[31]).is_err()
    })?;
    ensure!(evaluations(&scrape) > 0.0, "{POLICY} was never asked");
    Ok(scrape)
}

/// More than one thread: the client says that it leaves while this one asks.
#[tokio::test(flavor = "multi_thread")]
async fn names_that_clients_and_policies_choose_make_no_more_series_than_the_page_says()
-> Result<()> {
    let builder = Node::builder()?;
    let policies = builder.dir().join("policies");
    std::fs::create_dir(&policies)?;
    Hostile::RandomReasons.place(&policies.join("random-reasons.wasm"))?;
    let node = builder
        .flag("policy-dir", policies.to_string_lossy())
        .start()?;
    node.healthy().await?;
    // Its watches, one for each GPU, are left, which the daemon learns in its own time.
    let left = [("grpc_method", "WatchGpus"), ("grpc_code", "Canceled")];
    let watched = node.gpus().len() as f64;
    until(&node, "no watch is open", |scrape| {
        scrape.value(HANDLED, &left) == Some(watched)
    })?;
    // Before its first fault, or it is tried on that and refused.
    let seated = [("policy", POLICY), ("phase", "running")];
    until(&node, "the policy runs", |scrape| {
        scrape.value(PHASE, &seated) == Some(1.0)
    })?;
    let page = page()?;
    be_hostile(&node, 0).await?;
    let once = evaluated(&node, 1)?;
    once.check(&page)?;
    be_hostile(&node, 1).await?;
    let twice = evaluated(&node, 2)?;
    twice.check(&page)?;

    let counts = |scrape: &Scrape| {
        let mut counts = scrape.counts();
        // One that is in a pause, or was set aside, has no version that is asked.
        counts.remove("device_api_server_policy_info");
        counts
    };
    let (before, after) = (counts(&once), counts(&twice));
    for metric in [
        "device_api_server_cache_updates_total",
        "device_api_server_grpc_requests_total",
        "grpc_server_started_total",
        HANDLED,
        EVALUATIONS,
    ] {
        ensure!(before.contains_key(metric), "no {metric}");
    }
    ensure!(before == after, "{before:#?}, then {after:#?}");
    ensure!(
        !twice.text.contains("p-1-"),
        "there was room for the first only"
    );
    ensure!(twice.text.contains("provider=\"p-0-0\""), "a few are named");
    Ok(())
}
