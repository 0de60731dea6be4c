//! Values: how a GPU is, what was read of it, who changed what, and how a stream ended.

use anyhow::{Context as _, Result, ensure};
use device_api_proto::native::{
    Condition, ConditionStatus, Polarity, RegisterProviderRequest, Severity,
    UpdateGpuConditionRequest,
};
use device_api_tests::{Native, Node};

use crate::scrape::{Scrape, until};

const HEALTH: &str = "device_api_server_gpu_health";
const ACTION: &str = "device_api_server_gpu_recommended_action";
const TEMPERATURE: &str = "device_api_server_gpu_temperature_celsius";
const UPDATES: &str = "device_api_server_cache_updates_total";

/// A provider says of a GPU that something is wrong with it.
pub(crate) async fn complain(client: &mut Native, provider: &str, gpu: &str) -> Result<()> {
    let request = RegisterProviderRequest {
        name: provider.to_owned(),
        ..Default::default()
    };
    let lease = client.providers.register_provider(request).await?;
    let condition = Condition {
        r#type: format!("Of{}", provider.replace(['-', '.'], "")),
        status: ConditionStatus::True.into(),
        polarity: Polarity::TrueIsProblem.into(),
        severity: Severity::Warning.into(),
        reason: "Because".to_owned(),
        ..Default::default()
    };
    let request = UpdateGpuConditionRequest {
        lease_id: lease.into_inner().lease_id,
        name: gpu.to_owned(),
        condition: Some(condition),
        ..Default::default()
    };
    client.providers.update_gpu_condition(request).await?;
    Ok(())
}

#[tokio::test]
async fn one_gpus_health_action_and_readings_are_told() -> Result<()> {
    let node = Node::start()?;
    node.healthy().await?;
    let (sick, well) = (node.uuid(5)?, node.uuid(2)?);
    let (sick, well) = (&*sick, &*well);
    node.sim()?.temperature(2, 67)?;
    let warm = [("uuid", well), ("sensor", "gpu")];
    let scrape = until(&node, "67 °C", |scrape| {
        scrape.value(TEMPERATURE, &warm) == Some(67.0)
    })?;
    let product = scrape
        .series
        .iter()
        .find(|series| series.metric == TEMPERATURE);
    let product = product
        .and_then(|series| series.labels.get("product"))
        .context("no product")?;
    ensure!(product.contains("H100"), "{product}");
    let watts = scrape.value("device_api_server_gpu_power_watts", &[("uuid", well)]);
    ensure!(
        watts.is_some_and(|watts| (1.0..1_500.0).contains(&watts)),
        "{watts:?} W"
    );
    // An H100 retires no pages: absent, and not 0.
    let pages = scrape.value("device_api_server_gpu_retired_pages", &[]);
    ensure!(pages.is_none(), "{pages:?}");

    node.sim()?.xid(5, &[79])?;
    node.sim()?.lost(5)?;
    let unhealthy = [("uuid", sick), ("state", "Unhealthy")];
    // NVML does not say which GPU it lost: each is Unknown until it has answered a probe.
    let healthy = [("uuid", well), ("state", "Healthy")];
    let scrape = until(
        &node,
        "one Unhealthy and not read, the other well",
        |scrape| {
            scrape.value(HEALTH, &unhealthy) == Some(1.0)
                && scrape.value(TEMPERATURE, &[("uuid", sick)]).is_none()
                && scrape.value(HEALTH, &healthy) == Some(1.0)
        },
    )?;
    let states = |uuid| {
        ["Healthy", "Degraded", "Unhealthy", "Unknown"]
            .map(|state| scrape.value(HEALTH, &[("uuid", uuid), ("state", state)]))
    };
    ensure!(
        states(sick) == [Some(0.0), Some(0.0), Some(1.0), Some(0.0)],
        "{:?}",
        states(sick)
    );
    ensure!(
        states(well) == [Some(1.0), Some(0.0), Some(0.0), Some(0.0)],
        "{:?}",
        states(well)
    );
    let actions = |uuid: &str| {
        let series = scrape
            .series
            .iter()
            .filter(|series| series.metric == ACTION);
        let of = series.filter(|series| series.labels.get("uuid").is_some_and(|is| is == uuid));
        of.map(|series| series.labels["action"].clone())
            .collect::<Vec<_>>()
    };
    ensure!(actions(well) == ["NONE"], "{:?}", actions(well));
    let [action] = &actions(sick)[..] else {
        anyhow::bail!("{:?}", actions(sick));
    };
    ensure!(action != "NONE", "nothing is recommended");
    Ok(())
}

#[tokio::test]
async fn readings_go_when_the_driver_does_and_come_back_with_it() -> Result<()> {
    let node = Node::builder()?.gpus(1).start()?;
    node.healthy().await?;
    let is_read = |scrape: &Scrape| scrape.value(TEMPERATURE, &[]).is_some();
    until(&node, "read", is_read)?;
    node.sim()?.unload()?;
    let scrape = until(&node, "not read", |scrape| !is_read(scrape))?;
    let state = scrape.value("device_api_server_gpu_nvml_state", &[]);
    ensure!(state.is_none_or(|state| state > 0.0), "{state:?}");
    node.sim()?.load()?;
    until(&node, "read again", is_read)?;
    Ok(())
}

#[tokio::test]
async fn each_version_is_one_change_on_somebodys_word() -> Result<()> {
    let node = Node::builder()?.gpus(2).start()?;
    let mut client = node.healthy().await?;
    let gpu = node.uuid(1)?;
    complain(&mut client, "coolant-agent", &gpu).await?;
    let named = [("operation", "update"), ("provider", "coolant-agent")];
    until(&node, "told of", |scrape| {
        scrape.value(UPDATES, &named) == Some(1.0)
    })?;
    let of = |scrape: &Scrape| {
        let series = scrape
            .series
            .iter()
            .filter(|series| series.metric == UPDATES);
        let changes: f64 = series.map(|series| series.value).sum();
        let version = scrape.value("device_api_server_cache_resource_version", &[]);
        Ok::<_, anyhow::Error>(version.context("no version")? - changes)
    };
    // A scrape reads one after the other: where two say the same, nothing was written in between.
    let mut latest = None;
    let quiet = until(&node, "nothing changes", |scrape| {
        let now = of(scrape).ok();
        std::mem::replace(&mut latest, now) == now && now.is_some()
    })?;
    let before = of(&quiet)?;
    node.sim()?.xid(0, &[79])?;
    let gpu = node.uuid(0)?;
    let unhealthy = [("uuid", &*gpu), ("state", "Unhealthy")];
    let scrape = until(&node, "Unhealthy", |scrape| {
        scrape.value(HEALTH, &unhealthy) == Some(1.0)
    })?;
    for (operation, provider) in [("create", "nvml"), ("update", "pipeline")] {
        let value = scrape.value(UPDATES, &[("operation", operation), ("provider", provider)]);
        ensure!(
            value.is_some_and(|value| value >= 1.0),
            "{operation} by {provider}: {value:?}"
        );
    }
    // Once nothing changes any more, they agree.
    until(&node, "as many changes as versions", |scrape| {
        of(scrape).is_ok_and(|after| after == before)
    })?;
    Ok(())
}

/// More than one thread: the client says that it leaves while this one asks.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_its_client_leaves_is_canceled_and_not_ok() -> Result<()> {
    let node = Node::builder()?.gpus(1).start()?;
    let mut client = node.healthy().await?;
    let service = "nvidia.device.v1alpha1.GpuService";
    let handled = |scrape: &Scrape, code: &str| {
        let labels = [
            ("grpc_service", service),
            ("grpc_method", "WatchGpus"),
            ("grpc_code", code),
        ];
        scrape.value("grpc_server_handled_total", &labels)
    };
    let watching = |scrape: &Scrape| scrape.value("device_api_server_watch_streams_active", &[]);
    until(&node, "those of before ended", |scrape| {
        watching(scrape) == Some(0.0)
    })?;
    let before = handled(&Scrape::of(&node)?, "Canceled").unwrap_or_default();
    let watch = client.watch(0).await?;
    until(&node, "watching", |scrape| watching(scrape) == Some(1.0))?;
    drop(watch);
    let scrape = until(&node, "ended", |scrape| {
        handled(scrape, "Canceled") == Some(before + 1.0)
    })?;
    ensure!(
        handled(&scrape, "OK") == Some(0.0),
        "a stream that was left is not OK"
    );
    Ok(())
}
