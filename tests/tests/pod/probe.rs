//! The kubelet's prober.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::container::Container;
use crate::manifest::port;

fn seconds(probe: &Value, key: &str) -> Result<Duration> {
    let seconds = probe[key].as_u64().with_context(|| key.to_owned())?;
    Ok(Duration::from_secs(seconds))
}

/// Asks a probe of the manifest once: whether it succeeds, and what was answered. How fast is this machine's affair.
pub(crate) fn ask(running: &Container, container: &Value, name: &str) -> Result<(bool, String)> {
    let probe = &container[name];
    let get = &probe["httpGet"];
    let path = get["path"].as_str().context("no path")?;
    let port = port(container, get["port"].as_str().context("no port")?)?;
    let Ok((code, answer)) = running.http(port, path) else {
        return Ok((false, "no answer".to_owned()));
    };
    Ok(((200..400).contains(&code), format!("{code} {answer}")))
}

/// Asks the startup probe in its rhythm until it succeeds, as often as the manifest bears.
pub(crate) async fn until_started(running: &Container, container: &Value) -> Result<()> {
    // By then it exists; what is asked before that is refused.
    running.process.wait_for(&["starting"])?;
    let probe = &container["startupProbe"];
    let period = seconds(probe, "periodSeconds")?;
    let tries = probe["failureThreshold"].as_u64().context("no threshold")?;
    // The kubelet's own rhythm, which is what is tried here.
    let mut rhythm = tokio::time::interval(period);
    let mut last = String::new();
    for _ in 0..tries {
        rhythm.tick().await;
        let (is_well, said) = ask(running, container, "startupProbe")?;
        if is_well {
            return Ok(());
        }
        last = said;
    }
    let log = running.process.log().join("\n");
    ensure!(false, "the kubelet would restart it: {last}\n{log}");
    Ok(())
}
