//! Names: those that are exported, those on the page, and those that a text, an alert or the dashboard asks for.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use device_api_proto::native::GetGpuRequest;
use device_api_tests::Node;
use device_api_tests::markdown::documents;
use device_api_tests::tools::{root, skip, works};
use nvml_sim::profile::Profile;
use regex::Regex;

use crate::scrape::{Scrape, page, until};

/// Gauges of such a name: they are those of the system that this one follows.
const NOT_BY_THE_BOOK: [&str; 2] = [
    "device_api_server_cache_gpus_total",
    "device_api_server_nvml_gpu_count",
];

/// Of a document that tells of what was.
const HISTORY: &str = "CHANGELOG.md";

/// Boards that together have each reading: before row remapping, with NVLink 4 and a fabric, with NVLink 5.
const BOARDS: [&str; 3] = ["v100", "h100", "b200"];

/// Of each metric that daemons export its type: of all [`BOARDS`], with what only shows when it happens.
async fn exported() -> Result<BTreeMap<String, String>> {
    let mut types = BTreeMap::new();
    for board in BOARDS {
        let profile = Profile::named(board).context("no such board")?;
        let node = Node::builder()?.profile(profile).gpus(2).start()?;
        let mut client = node.healthy().await?;
        client.get(&node.uuid(0)?).await?;
        if board == "h100" {
            node.cut_up(1, &["1g.10gb"])?;
            node.sim()?.hang(Some(0), "nvmlDeviceGetTemperature")?;
            let before = Scrape::of(&node)?;
            types.extend(before.types);
            let awaited = |scrape: &Scrape| {
                ["nvml_hung_call_age_seconds", "mig_instance_health"]
                    .iter()
                    .all(|name| {
                        scrape
                            .types
                            .contains_key(&format!("device_api_server_{name}"))
                    })
            };
            types.extend(until(&node, "a call that hangs, and a MIG instance", awaited)?.types);
            node.sim()?.unhang()?;
        } else {
            types.extend(Scrape::of(&node)?.types);
        }
    }
    Ok(types)
}

/// Names in a text that look like metrics of ours, without the ends that a histogram has on the wire.
fn names(text: &str, known: &BTreeMap<String, String>) -> Result<BTreeSet<String>> {
    let word = Regex::new(r"\b(?:device_api_server|grpc_server|process)_[a-z0-9_]*[a-z0-9]\b")?;
    let names = word.find_iter(text).map(|name| {
        let name = name.as_str();
        let ends = ["_bucket", "_sum", "_count"];
        let mut bases = ends.iter().filter_map(|end| name.strip_suffix(end));
        let is_histogram = |base: &&str| known.get(*base).is_some_and(|is| is == "histogram");
        bases.find(is_histogram).unwrap_or(name).to_owned()
    });
    Ok(names.collect())
}

/// A name that is not exported, in any of these.
fn missing(texts: &[(String, String)], known: &BTreeMap<String, String>) -> Result<Vec<String>> {
    let mut missing = Vec::new();
    for (from, text) in texts {
        for name in names(text, known)? {
            if !known.contains_key(&name) {
                missing.push(format!("{from}: {name}"));
            }
        }
    }
    Ok(missing)
}

/// Whatever names metrics.
fn texts() -> Result<Vec<(String, String)>> {
    let documents = documents()?.into_iter();
    let mut texts: Vec<_> = documents
        .filter(|document| document.name != HISTORY)
        .map(|document| (document.name, document.text))
        .collect();
    for file in ["files/alerts.yaml", "files/dashboard.json"] {
        let path = root()?.join("charts/device-api-server").join(file);
        texts.push((file.to_owned(), fs::read_to_string(path)?));
    }
    Ok(texts)
}

#[tokio::test]
async fn each_metric_that_is_named_is_exported_and_each_that_is_exported_is_on_the_page()
-> Result<()> {
    let known = exported().await?;
    let documented: BTreeMap<_, _> = page()?
        .into_iter()
        .map(|row| (row.name, row.kind))
        .collect();
    let absent: Vec<_> = documented
        .iter()
        .filter(|row| known.get(row.0) != Some(row.1))
        .collect();
    ensure!(
        absent.is_empty(),
        "on the page, and not exported, or of another type: {absent:?}"
    );
    let untold: Vec<_> = known
        .keys()
        .filter(|name| !documented.contains_key(*name))
        .collect();
    ensure!(
        untold.is_empty(),
        "exported, and not on the page: {untold:?}"
    );

    let texts = texts()?;
    let missing = missing(&texts, &known)?;
    ensure!(missing.is_empty(), "named, and not exported: {missing:#?}");
    let mut asked = BTreeSet::new();
    for (_, text) in texts.iter().filter(|(from, _)| from != "docs/metrics.md") {
        asked.extend(names(text, &known)?);
    }
    ensure!(asked.len() > 50, "{}: is this test blind?", asked.len());
    Ok(())
}

#[test]
fn a_name_that_is_not_exported_is_found() -> Result<()> {
    let known = [
        ("device_api_server_a_seconds", "histogram"),
        ("device_api_server_up", "gauge"),
    ];
    let known = known
        .map(|(name, type_)| (name.to_owned(), type_.to_owned()))
        .into();
    let found = |text: &str| missing(&[("x.md".to_owned(), text.to_owned())], &known);
    ensure!(
        found("`device_api_server_a_seconds_bucket{le=\"1\"}`, device_api_server_up")?.is_empty()
    );
    for wrong in [
        "rate(device_api_server_b_total[5m])",
        "device_api_server_up_bucket",
        "process_x",
    ] {
        ensure!(found(wrong)?.len() == 1, "{wrong} is taken");
    }
    Ok(())
}

#[tokio::test]
async fn promtool_finds_nothing_else_to_say_of_a_scrape() -> Result<()> {
    if let Err(why) = works(Command::new("promtool").arg("--version")) {
        return skip::<()>(&format!("the scrape is not linted: {why}")).map(drop);
    }
    let node = Node::start()?;
    let mut client = node.healthy().await?;
    let nobody = GetGpuRequest {
        name: "no-such-gpu".to_owned(),
        ..Default::default()
    };
    ensure!(client.gpus.get_gpu(nobody).await.is_err(), "there is none");
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = promtool.stdin.take().context("no stdin")?;
    stdin.write_all(Scrape::of(&node)?.text.as_bytes())?;
    drop(stdin);
    let output = promtool.wait_with_output()?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said)?;
    let said: Vec<_> = said.lines().filter(|line| !line.is_empty()).collect();
    // It did look: those it finds.
    let of: Vec<_> = said
        .iter()
        .filter_map(|line| line.split(' ').next())
        .collect();
    ensure!(of == NOT_BY_THE_BOOK, "{said:#?}");
    Ok(())
}
