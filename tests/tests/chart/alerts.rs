//! Alerts fire when they should and not otherwise (promtool says so), name metrics that exist, and lead to a page
//! whose queries do so too.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use device_api_tests::markdown::documents;
use device_api_tests::tools::{root, skip, works};
use serde_json::Value;

use crate::helm::{Chart, folder};
use crate::metrics::Exported;
use crate::pod::list;

const PAGES: &str = "https://github.com/device-api/device-api-server/blob/main/docs/runbooks";
/// As the README of the runbooks explains them.
const SEVERITIES: [&str; 3] = ["critical", "warning", "info"];

fn file() -> Result<PathBuf> {
    Ok(folder()?.join("files/alerts.yaml"))
}

fn cases() -> Result<PathBuf> {
    Ok(root()?.join("tests/tests/chart/alerts.yaml"))
}

fn read(path: PathBuf) -> Result<Value> {
    Ok(serde_saphyr::from_str(&fs::read_to_string(path)?)?)
}

fn alerts() -> Result<Vec<Value>> {
    let rules = read(file()?)?;
    Ok(list(&rules, "groups")
        .iter()
        .flat_map(|group| list(group, "rules"))
        .cloned()
        .collect())
}

fn name(alert: &Value) -> Result<&str> {
    alert["alert"].as_str().context("no name")
}

/// `None` where there is no promtool.
fn promtool() -> Result<Option<Command>> {
    match works(Command::new("promtool").arg("--version")) {
        Ok(()) => Ok(Some(Command::new("promtool"))),
        Err(why) => skip(&format!("alerts are not tried: {why}")),
    }
}

#[test]
fn alerts_fire_when_they_should_and_not_otherwise() -> Result<()> {
    let Some(mut promtool) = promtool()? else {
        return Ok(());
    };
    let output = promtool.args(["test", "rules"]).arg(cases()?).output()?;
    ensure!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

#[test]
fn prometheus_takes_the_alerts_as_the_chart_renders_them() -> Result<()> {
    let (Some(chart), Some(mut promtool)) = (Chart::find()?, promtool()?) else {
        return Ok(());
    };
    let values = "{nameOverride: gpu-api, metrics: {prometheusRule: {enabled: true}}}";
    let rendered = chart.rendered(values)?;
    let rules = &rendered.the("PrometheusRule")?["spec"];
    let text = rules.to_string();
    for (ours, bare) in [
        (r#"job=\"gpu-api\""#, r#"job=\"device-api-server"#),
        (
            r#"namespace=\"monitoring\",daemonset=\"gpus-gpu-api\""#,
            r#"daemonset=\"device-api-server"#,
        ),
    ] {
        ensure!(
            text.contains(ours) && !text.contains(bare),
            "{ours}: {text}"
        );
    }
    let path = tempfile::Builder::new().suffix(".json").tempfile()?;
    fs::write(path.path(), text)?;
    let output = promtool
        .args(["check", "rules"])
        .arg(path.path())
        .output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    ensure!(
        list(&rules["groups"][0], "rules").len() == alerts()?.len(),
        "all of them"
    );
    Ok(())
}

/// In each alert's cases it fires on a node, not on another, and not before its time.
#[test]
fn every_alert_has_cases_in_which_it_fires_and_in_which_it_does_not() -> Result<()> {
    let cases = read(cases()?)?;
    let mut fired = BTreeSet::new();
    let mut quiet = BTreeSet::new();
    for case in list(&cases, "tests") {
        for asked in list(case, "promql_expr_test") {
            let expr = asked["expr"].as_str().context("no expression")?;
            let alert = expr.split('"').nth(1).context("no alert")?.to_owned();
            let samples = list(asked, "exp_samples");
            if samples.is_empty() {
                &mut quiet
            } else {
                &mut fired
            }
            .insert(alert);
        }
    }
    for alert in &alerts()? {
        let name = name(alert)?;
        ensure!(fired.contains(name), "{name} never fires in {cases}");
        ensure!(quiet.contains(name), "{name} always fires");
    }
    Ok(())
}

#[test]
fn metrics_of_the_alerts_are_exported() -> Result<()> {
    let exported = Exported::read()?;
    for alert in &alerts()? {
        exported.check(alert["expr"].as_str().context("no expression")?)?;
    }
    Ok(())
}

#[test]
fn every_alert_has_its_page_and_every_page_its_alert() -> Result<()> {
    let pages = root()?.join("docs/runbooks");
    let index = fs::read_to_string(pages.join("README.md"))?;
    let mut named = BTreeSet::from(["README.md".to_owned()]);
    for alert in &alerts()? {
        let (name, severity) = (
            name(alert)?,
            alert["labels"]["severity"].as_str().unwrap_or_default(),
        );
        ensure!(SEVERITIES.contains(&severity), "{name}: {severity}");
        let text = alert["annotations"].as_object().context("no annotations")?;
        ensure!(
            text.keys().eq(["description", "runbook_url", "summary"]),
            "{name}: {text:?}"
        );
        ensure!(
            text["runbook_url"] == format!("{PAGES}/{name}.md"),
            "{name}: {text:?}"
        );
        let page = fs::read_to_string(pages.join(format!("{name}.md")))
            .with_context(|| format!("no page of {name}"))?;
        for part in [
            format!("# {name}\n\nSeverity: {severity}."),
            "\n## What it means\n".into(),
            "\n## Do\n".into(),
        ] {
            ensure!(page.contains(&part), "{name}.md lacks {part:?}");
        }
        ensure!(
            index.contains(&format!("| [{name}]({name}.md) | {severity} | ")),
            "README.md lacks {name}"
        );
        named.insert(format!("{name}.md"));
    }
    for entry in fs::read_dir(&pages)? {
        let page = entry?.file_name();
        let page = page.to_str().context("a strange name")?;
        ensure!(named.contains(page), "{page} has no alert");
    }
    Ok(())
}

/// (That its commands exist, the handbook's tests say of every page.)
#[test]
fn queries_of_the_pages_ask_for_what_is_exported() -> Result<()> {
    let exported = Exported::read()?;
    let mut queries = 0;
    for document in documents()? {
        for block in document
            .blocks()
            .iter()
            .filter(|block| block.info == "promql")
        {
            for query in block.text.lines() {
                exported
                    .check(query)
                    .with_context(|| format!("{}, line {}", document.name, block.line))?;
                queries += 1;
            }
        }
    }
    ensure!(queries > 15, "{queries} queries found: is this test blind?");
    Ok(())
}
