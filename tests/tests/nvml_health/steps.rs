//! Thresholds that are reached by a degree at a time, and left so.

use anyhow::{Context as _, Result, ensure};
use device_api_proto::native::Gpu;
use device_api_tests::Node;
use nvml_sim::control::Request;
use nvml_sim::profile::Profile;

use crate::{builder, problem, read_once_more};

/// What a rise and a fall by one degree at a time makes of it: the condition's reason, from that degree on.
struct Steps {
    gpu: u32,
    figure: &'static str,
    condition: &'static str,
    up: &'static [(u64, Option<&'static str>)],
    down: &'static [(u64, Option<&'static str>)],
}

/// A GPU warms and cools by a degree at a time, and stays where it is as long as it likes.
async fn walked(node: &Node, all: &[Steps]) -> Result<()> {
    let mut client = node.healthy().await?;
    let mut sim = node.sim()?;
    let reason = |gpu: &Gpu, condition: &str| problem(gpu, condition).map(|it| it.reason.clone());
    for steps in all {
        let name = node.uuid(steps.gpu)?;
        let mut watch = client.watch(0).await?;
        let at = |turn: Option<&(u64, Option<&str>)>| turn.map(|(degrees, _)| *degrees);
        let first = at(steps.up.first()).context("no way up")?;
        let (top, last) = at(steps.down.first())
            .zip(at(steps.down.last()))
            .context("no way down")?;
        let up = (first..top).map(|degrees| (degrees, steps.up));
        let down = (last..=top).rev().map(|degrees| (degrees, steps.down));
        let mut stood = None;
        for (degrees, turns) in up.chain(down) {
            sim.set(steps.gpu, &[(steps.figure, degrees)])?;
            let stands = match turns.iter().find(|(at, _)| *at == degrees) {
                Some((_, reason)) => *reason,
                None => stood,
            };
            let what = format!("{stands:?} at {degrees} of {}", steps.figure);
            if stands == stood {
                read_once_more(node).await?;
                let gpu = client.get(&name).await?;
                let found = reason(&gpu, steps.condition);
                ensure!(found.as_deref() == stands, "{what}: {found:?}");
            } else {
                let is_so = |gpu: &Gpu| reason(gpu, steps.condition).as_deref() == stands;
                watch.until(&name, &what, is_so).await?;
            }
            stood = stands;
        }
        ensure!(stood.is_none(), "{stood:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_threshold_that_is_reached_by_a_degree_at_a_time_is_noticed_and_so_is_its_end()
-> Result<()> {
    let node = builder()?.gpus(2).start()?;
    let die = Steps {
        gpu: 0,
        figure: "temperature.gpu",
        condition: "Temperature",
        up: &[
            (85, None),
            (89, Some("Slowdown")),
            (92, Some("NearShutdown")),
        ],
        down: &[
            (93, Some("NearShutdown")),
            (89, Some("Slowdown")),
            (86, None),
        ],
    };
    let memory = Steps {
        gpu: 1,
        figure: "temperature.memory",
        condition: "MemoryTemperature",
        up: &[(92, None), (95, Some("Slowdown"))],
        down: &[(96, Some("Slowdown")), (92, None)],
    };
    walked(&node, &[die, memory]).await
}

/// Where the device tells of a margin alone, and where the site has a limit of its own.
#[tokio::test]
async fn so_is_a_margin_that_is_used_up_and_a_limit_of_the_sites() -> Result<()> {
    let builder = builder()?;
    let file = builder.dir().join("site.yaml");
    let site = "{temperature_max_c: 84, memory_temperature_max_c: 70, hysteresis_c: 2}";
    std::fs::write(
        &file,
        format!("policies: [{{name: nvml-health, config: {site}}}]"),
    )?;
    let node = builder
        .flag("policies-file", file.to_string_lossy())
        .profile(Profile::named("b200").context("no such profile")?)
        .gpus(2)
        .start()?;
    node.healthy().await?;
    // As a driver answers that tells of margins only.
    node.sim()?.request(&Request::Fail {
        gpu: None,
        call: Some("nvmlDeviceGetTemperatureThreshold".to_owned()),
        code: 3,
        times: None,
    })?;
    read_once_more(&node).await?;
    let site = Steps {
        gpu: 0,
        figure: "temperature.gpu",
        condition: "Temperature",
        up: &[
            (82, None),
            (84, Some("AboveSiteLimit")),
            (87, Some("Slowdown")),
        ],
        down: &[
            (88, Some("Slowdown")),
            (85, Some("AboveSiteLimit")),
            (82, None),
        ],
    };
    let memory = Steps {
        gpu: 1,
        figure: "temperature.memory",
        condition: "MemoryTemperature",
        up: &[(68, None), (70, Some("AboveSiteLimit"))],
        down: &[(71, Some("AboveSiteLimit")), (68, None)],
    };
    walked(&node, &[site, memory]).await
}
