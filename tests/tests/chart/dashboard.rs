//! The dashboard asks for metrics that exist, and a Prometheus that scrapes a daemon under faults has an answer to
//! each of its queries.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use device_api_tests::tools::{skip, works};
use device_api_tests::{Node, PATIENCE, http};
use serde_json::Value;

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

/// A Prometheus that scrapes one address each second. Ends with this.
struct Prometheus {
    child: Child,
    address: String,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    fn start(target: &str) -> Result<Option<Self>> {
        if let Err(why) = works(Command::new("prometheus").arg("--version")) {
            return skip(&format!("queries are not tried: {why}"));
        }
        let folder = tempfile::tempdir()?;
        let config = folder.path().join("prometheus.yml");
        fs::write(
            &config,
            format!(
                "global: {{scrape_interval: 1s}}\nscrape_configs:\n  - job_name: device-api-server\n    \
                 static_configs: [{{targets: ['{target}'], labels: {{node: n1}}}}]\n"
            ),
        )?;
        // Free a moment ago; it can't choose one by itself.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let log = fs::File::create(folder.path().join("log"))?;
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        Ok(Some(Self {
            child,
            address,
            _folder: folder,
        }))
    }

    /// Whether there is an answer, and some series in it.
    fn has(&self, query: &str) -> Result<bool> {
        let mut path = "/api/v1/query?query=".to_owned();
        path.extend(query.bytes().map(|byte| format!("%{byte:02X}")));
        let Ok((code, body)) = http(&self.address, &path) else {
            // It has not begun to listen.
            return Ok(false);
        };
        if code == 503 {
            return Ok(false);
        }
        ensure!(
            body.contains("\"status\":\"success\""),
            "{query}: {code} {body}"
        );
        Ok(body.contains("\"result\":[{"))
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Scrapes come each second; between them there is nothing new to ask for.
const ASK_AGAIN: Duration = Duration::from_millis(500);

#[tokio::test]
async fn every_query_of_the_dashboard_has_an_answer_under_faults() -> Result<()> {
    let node = Node::start()?;
    let Some(prometheus) = Prometheus::start(&node.address("/metrics")?)? else {
        return Ok(());
    };
    let mut client = node.healthy().await?;
    let _watch = client.watch(0).await?;
    let mut left = queries()?;
    let mut ticks = tokio::time::interval(ASK_AGAIN);
    let patience = PATIENCE.as_millis() / ASK_AGAIN.as_millis();
    for tick in 0..patience {
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
            if !prometheus.has(&query)? {
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
