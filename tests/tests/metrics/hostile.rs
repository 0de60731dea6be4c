//! Who chooses names makes no more series than the page says: providers, callers of methods that there are not, policies.

use anyhow::{Result, ensure};
use device_api_tests::hostile::Hostile;
use device_api_tests::{Native, Node};
use tower::ServiceExt as _;

use crate::scrape::{Scrape, page};
use crate::values::complain;

/// More than providers get a series of their own.
const NAMES: usize = 24;

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

#[tokio::test]
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
    let page = page()?;
    be_hostile(&node, 0).await?;
    node.sim()?.xid(1, &[31, 13, 43])?;
    let once = Scrape::of(&node)?;
    once.check(&page)?;
    be_hostile(&node, 1).await?;
    node.sim()?.xid(2, &[31, 13, 43])?;
    let twice = Scrape::of(&node)?;
    twice.check(&page)?;

    let named = |scrape: &Scrape, metric: &str| {
        let series = scrape.series.iter();
        series.filter(|series| series.metric == metric).count()
    };
    for metric in [
        "device_api_server_cache_updates_total",
        "device_api_server_grpc_requests_total",
        "grpc_server_started_total",
        "device_api_server_fallbacks_total",
        "device_api_server_policy_evaluations_total",
    ] {
        let (before, after) = (named(&once, metric), named(&twice, metric));
        ensure!(
            before > 0 && before == after,
            "{metric}: {before}, then {after}"
        );
    }
    ensure!(
        !twice.text.contains("p-1-"),
        "there was room for the first only"
    );
    ensure!(twice.text.contains("provider=\"p-0-0\""), "a few are named");
    Ok(())
}
