//! The dashboard asks for metrics that exist, and a Prometheus that scrapes a daemon under faults has an answer to
//! each of its queries.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use device_api_tests::tools::{skip, works};
use device_api_tests::{Node, PATIENCE, Program, http};
use serde_json::Value;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::helm::folder;
use crate::metrics::Exported;
use crate::pod::list;

fn dashboard() -> Result<Value> {
    let text = fs::read_to_string(folder()?.join("files/dashboard.json"))?;
    Ok(serde_json::from_str(&text)?)
}

/// Title of the panel, and what it asks for, with the variables set to all there is.
fn queries() -> Result<Vec<(String, String)>> {
    let mut queries = Vec::new();
    for panel in list(&dashboard()?, "panels") {
        let title = panel["title"].as_str().context("no title")?;
        for target in list(panel, "targets") {
            let expr = target["expr"].as_str().context("no query")?;
            let expr = expr
                .replace("$job", ".*")
                .replace("$node", ".*")
                .replace("$__rate_interval", "10s");
            ensure!(!expr.contains('$'), "{title}: {expr}");
            queries.push((title.to_owned(), expr));
        }
    }
    Ok(queries)
}

#[test]
fn metrics_of_the_dashboard_are_exported() -> Result<()> {
    let exported = Exported::read()?;
    for (title, query) in queries()? {
        exported.check(&query).context(title)?;
    }
    Ok(())
}

#[test]
fn panels_have_a_place_a_source_and_something_to_show() -> Result<()> {
    let dashboard = dashboard()?;
    let (mut ids, mut places) = (BTreeSet::new(), BTreeSet::new());
    for panel in list(&dashboard, "panels") {
        let title = &panel["title"];
        ensure!(
            ids.insert(panel["id"].as_u64()),
            "{title}: its id is another's"
        );
        let place = |key: &str| {
            panel["gridPos"][key]
                .as_u64()
                .with_context(|| format!("{title}: no {key}"))
        };
        ensure!(place("x")? + place("w")? <= 24, "{title}: over the edge");
        for x in place("x")?..place("x")? + place("w")? {
            for y in place("y")?..place("y")? + place("h")? {
                ensure!(places.insert((x, y)), "{title}: lies on another");
            }
        }
        let is_row = panel["type"] == "row";
        ensure!(
            is_row == list(panel, "targets").is_empty(),
            "{title}: nothing to show"
        );
        ensure!(
            is_row || panel["datasource"]["uid"] == "${datasource}",
            "{title}: a source of its own"
        );
        let refs: BTreeSet<_> = list(panel, "targets")
            .iter()
            .map(|target| target["refId"].to_string())
            .collect();
        ensure!(
            refs.len() == list(panel, "targets").len(),
            "{title}: two queries of one name"
        );
    }
    let variables: Vec<_> = list(&dashboard["templating"], "list")
        .iter()
        .map(|one| one["name"].clone())
        .collect();
    ensure!(variables == ["datasource", "job", "node"], "{variables:?}");
    Ok(())
}

/// A Prometheus that scrapes one address each second. Ends with this, and with the test.
struct Prometheus {
    program: Program,
    address: String,
    _folder: tempfile::TempDir,
}

/// A port that was free a moment ago may be another's.
const STARTS_MAX: usize = 5;

impl Prometheus {
    async fn start(target: &str) -> Result<Option<Self>> {
        if let Err(why) = works(Command::new("prometheus").arg("--version")) {
            return skip(&format!("queries are not tried: {why}"));
        }
        for _ in 0..STARTS_MAX {
            let mut prometheus = Self::spawn(target)?;
            if prometheus.listens().await? {
                return Ok(Some(prometheus));
            }
        }
        bail!("{STARTS_MAX} ports that were free were another's a moment later")
    }

    fn spawn(target: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let config = folder.path().join("prometheus.yml");
        fs::write(
            &config,
            format!(
                "global: {{scrape_interval: 1s}}\nscrape_configs:\n  - job_name: device-api-server\n    \
                 static_configs: [{{targets: ['{target}'], labels: {{node: n1}}}}]\n"
            ),
        )?;
        // It can't choose one by itself.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"));
        Ok(Self {
            program: Program::spawn(&command, &folder.path().join("log"))?,
            address,
            _folder: folder,
        })
    }

    /// Whether it does; false: its port is another's.
    async fn listens(&mut self) -> Result<bool> {
        let mut ticks = ticks();
        for _ in 0..TICKS {
            ticks.tick().await;
            if let Some(status) = self.program.ended(Duration::ZERO)? {
                let said = self.program.said()?;
                let is_taken = said.contains("address already in use");
                ensure!(is_taken, "Prometheus ended with {status}:\n{said}");
                return Ok(false);
            }
            if http(&self.address, "/-/ready").is_ok_and(|(code, _)| code == 200) {
                return Ok(true);
            }
        }
        bail!("Prometheus is not ready: {}", self.program.said()?)
    }

    /// What series there are in the answer, by their newest values.
    fn ask(&mut self, query: &str) -> Result<Vec<f64>> {
        let mut path = "/api/v1/query?query=".to_owned();
        path.extend(query.bytes().map(|byte| format!("%{byte:02X}")));
        let answer = http(&self.address, &path);
        let (code, body) = match (answer, self.program.ended(Duration::ZERO)?) {
            (Ok(answer), None) => answer,
            (Err(error), None) => return Err(error.context(query.to_owned())),
            (_, Some(status)) => {
                bail!("Prometheus ended with {status}:\n{}", self.program.said()?)
            }
        };
        ensure!(
            code == 200 && body.contains("\"status\":\"success\""),
            "{query}: {code} {body}"
        );
        let answer: Value = serde_json::from_str(&body)?;
        let values = list(&answer["data"], "result").iter();
        let values = values.map(|series| {
            let value = series["value"][1].as_str();
            value.with_context(|| format!("{query}: {series}"))
        });
        values.map(|value| Ok(value?.parse()?)).collect()
    }
}

/// Shows how long who had to wait for the cache's lock waited, and no fault makes anybody: that there are buckets is enough.
const BY_CHANCE: &str = "The cache's lock";

/// A quantile of nothing is a series of NaN, which no panel shows.
fn shows(title: &str, values: &[f64]) -> bool {
    values.iter().any(|value| value.is_finite()) || (title == BY_CHANCE && !values.is_empty())
}

/// Scrapes come each second; between them there is nothing new to ask for.
const ASK_AGAIN: Duration = Duration::from_millis(500);
const TICKS: u128 = PATIENCE.as_millis() / ASK_AGAIN.as_millis();

fn ticks() -> Interval {
    let mut ticks = interval(ASK_AGAIN);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

#[test]
fn a_series_without_a_number_shows_nothing() {
    assert!(!shows("Store", &[]));
    assert!(!shows("Store", &[f64::NAN, f64::INFINITY]));
    assert!(shows("Store", &[f64::NAN, 0.0]));
    assert!(!shows(BY_CHANCE, &[]));
    assert!(shows(BY_CHANCE, &[f64::NAN]));
}

#[tokio::test]
async fn every_query_of_the_dashboard_has_an_answer_under_faults() -> Result<()> {
    let node = Node::start()?;
    let Some(mut prometheus) = Prometheus::start(&node.address("/metrics")?).await? else {
        return Ok(());
    };
    let mut client = node.healthy().await?;
    let _watch = client.watch(0).await?;
    let mut left = queries()?;
    ensure!(
        left.iter().any(|(title, _)| title == BY_CHANCE),
        "no panel {BY_CHANCE}"
    );
    let mut ticks = ticks();
    for tick in 0..TICKS {
        ticks.tick().await;
        // An application's fault each time, and one GPU lost: something is always happening.
        node.sim()?.xid(2, &[31])?;
        if tick == 2 {
            node.sim()?.xid(5, &[79])?;
        }
        client.list().await?;
        ensure!(client.get("no-such-gpu").await.is_err(), "there is none");
        let mut unanswered = Vec::new();
        for (title, query) in left {
            if !shows(&title, &prometheus.ask(&query)?) {
                unanswered.push((title, query));
            }
        }
        left = unanswered;
        if left.is_empty() {
            return Ok(());
        }
    }
    bail!("nothing to show: {left:#?}")
}
