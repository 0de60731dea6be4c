//! The chart as a part of another, as Helm's documents have it: turned on and off by a condition.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use device_api_tests::tools::works;

use crate::helm::Chart;

const PARENT: &str = "apiVersion: v2
name: parent
version: 1.0.0
dependencies:
  - name: device-api-server
    version: '*'
    condition: device-api-server.enabled
";

#[test]
fn another_chart_turns_it_on_and_off_and_sets_its_values() -> Result<()> {
    let Some(mut chart) = Chart::find()? else {
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let charts = folder.path().join("charts");
    fs::create_dir(&charts)?;
    let mut package = chart.helm();
    package.args(["package", "--destination"]).arg(&charts);
    works(package.arg(&chart.folder)).map_err(anyhow::Error::msg)?;
    fs::write(folder.path().join("Chart.yaml"), PARENT)?;
    folder.path().clone_into(&mut chart.folder);

    for enabled in [true, false] {
        let values = format!(
            "{{global: {{a: b}}, device-api-server: {{enabled: {enabled}, socket: {{name: a.sock}}}}}}"
        );
        let rendered = chart.rendered(&values)?;
        ensure!(
            rendered.the("DaemonSet").is_ok() == enabled,
            "enabled: {enabled}, and {:?}",
            rendered.kinds()
        );
        if enabled {
            ensure!(rendered.configuration()?.contains("/a.sock"), "its values");
        }
    }
    // A key with nothing but comments beneath.
    let why = chart.template("device-api-server: {socket: null}", &[])?;
    let why = why.err().context("taken without a socket")?;
    ensure!(why.contains("socket"), "{why}");
    chart.rendered("device-api-server: {config: null, resources: null}")?;
    Ok(())
}
