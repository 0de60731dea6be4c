//! YAML of the documents: each block is a file of a kind that is known by its keys, and that kind's reader takes it.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, Result, ensure};
use device_api_tests::markdown::documents;
use device_api_tests::tools::root;
use serde_json::Value;

use crate::daemon::{etc, moved, objection};

/// What a block is. `Some`: the daemon's configuration is tried here; the others have tests of their own.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Configuration,
    /// `tests/tests/chart/documents.rs`.
    Values,
    /// `host/policy/src/manifest/documents_tests.rs`.
    Policies,
    /// Of the simulated NVML (`tests/nvml-sim`).
    Scenario,
    /// An object of Kubernetes, or a part of one: it says so by its keys.
    Object,
}

fn schema(path: &str) -> Result<BTreeSet<String>> {
    let schema = fs::read_to_string(root()?.join(path)).with_context(|| path.to_owned())?;
    let schema: Value = serde_json::from_str(&schema)?;
    let keys = schema["properties"].as_object().context("no properties")?;
    Ok(keys.keys().cloned().collect())
}

fn kind(block: &Value) -> Result<Kind> {
    let keys = block.as_object().context("no mapping")?;
    let all = |known: &BTreeSet<String>| keys.keys().all(|key| known.contains(key));
    if block["policies"].is_array() && keys.len() == 1 {
        return Ok(Kind::Policies);
    }
    let settings = fs::read_to_string(root()?.join("charts/device-api-server/values.schema.json"))?;
    let settings: Value = serde_json::from_str(&settings)?;
    let settings = settings["properties"]["config"]["properties"].as_object();
    if settings.is_some_and(|known| keys.keys().all(|key| known.contains_key(key))) {
        return Ok(Kind::Configuration);
    }
    if all(&schema("charts/device-api-server/values.schema.json")?) {
        return Ok(Kind::Values);
    }
    if all(&schema("docs/schemas/nvml-sim-scenario.schema.json")?) {
        return Ok(Kind::Scenario);
    }
    let parts = [
        "apiVersion",
        "spec",
        "initContainers",
        "securityContext",
        "volumes",
    ];
    ensure!(
        keys.keys().any(|key| parts.contains(&&**key)),
        "keys of no file that we know: {:?}",
        keys.keys()
    );
    Ok(Kind::Object)
}

#[test]
fn yaml_of_the_documents_is_what_its_keys_say_and_configuration_is_taken() -> Result<()> {
    let etc = etc()?;
    let mut tried = 0;
    for document in documents()? {
        for block in document.blocks() {
            if !block.info.starts_with("yaml") {
                continue;
            }
            let at = format!("{}, line {}", document.name, block.line);
            let value: Value = serde_saphyr::from_str(&block.text).with_context(|| at.clone())?;
            if kind(&value).with_context(|| at.clone())? != Kind::Configuration {
                continue;
            }
            let file = etc.path().join("block.yaml");
            fs::write(&file, moved(&block.text, etc.path()))?;
            let arguments = ["--config".to_owned(), file.display().to_string()];
            if let Some(why) = objection(&arguments)? {
                anyhow::bail!("{at}: {why}");
            }
            tried += 1;
        }
    }
    ensure!(tried >= 2, "{tried} blocks found: is this test blind?");
    Ok(())
}
